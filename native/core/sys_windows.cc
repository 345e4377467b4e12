// Windows's forms of all of sys.h, by Winsock. Compiled and linked, never run. Descriptors are
// sockets and nothing else: a pipe is a pair of connected sockets, and there are no regular files.
#ifdef _WIN32

#include <climits>

#include "check.h"
#include "sockets.h"
#include "sys.h"
#include "sys_kernel.h"

namespace multiloop::sys {

namespace {

SOCKET socket_of(int fd) { return static_cast<SOCKET>(static_cast<unsigned>(fd)); }

// The C library's numbers, which the core and its callers know.
int errno_of(int code) {
  switch (code) {
    case WSAEWOULDBLOCK:
      return EAGAIN;
    case WSAEINTR:
      return EINTR;
    case WSAENOTSOCK:
    case WSAEBADF:
      return EBADF;
    case WSAEACCES:
      return EACCES;
    case WSAEINVAL:
      return EINVAL;
    case WSAEMFILE:
      return EMFILE;
    case WSAENOBUFS:
      return ENOBUFS;
    case WSAEADDRINUSE:
      return EADDRINUSE;
    case WSAEADDRNOTAVAIL:
      return EADDRNOTAVAIL;
    case WSAEAFNOSUPPORT:
      return EAFNOSUPPORT;
    case WSAENOPROTOOPT:
      return ENOPROTOOPT;
    case WSAEOPNOTSUPP:
      return EOPNOTSUPP;
    case WSAECONNABORTED:
      return ECONNABORTED;
    case WSAECONNRESET:
    case WSAENETRESET:
      return ECONNRESET;
    case WSAECONNREFUSED:
      return ECONNREFUSED;
    case WSAENETDOWN:
      return ENETDOWN;
    case WSAENETUNREACH:
      return ENETUNREACH;
    case WSAEHOSTUNREACH:
      return EHOSTUNREACH;
    case WSAENOTCONN:
      return ENOTCONN;
    // After its own shutdown a socket cannot send: what POSIX calls EPIPE.
    case WSAESHUTDOWN:
      return EPIPE;
    case WSAETIMEDOUT:
      return ETIMEDOUT;
    default:
      return EIO;
  }
}

int failure() { return -errno_of(WSAGetLastError()); }

// Winsock wants to be started once by each process that uses it.
void start_winsock() {
  static const int status = [] {
    WSADATA data;
    return WSAStartup(MAKEWORD(2, 2), &data);
  }();
  ML_CHECK(status == 0);
}

// Gives a new socket what all of ours have, or closes it.
int dressed(SOCKET socket) {
  if (socket == INVALID_SOCKET) return failure();
  const int fd = static_cast<int>(socket);
  int status = set_close_on_exec(fd);
  if (status == 0) status = set_non_blocking(fd);
  if (status == 0) return fd;
  close(fd);
  return status;
}

int option(int fd, int level, int name, const void* value, std::size_t length) {
  const auto* bytes = static_cast<const char*>(value);
  const int status = ::setsockopt(socket_of(fd), level, name, bytes, static_cast<int>(length));
  return status == 0 ? 0 : failure();
}

int option(int fd, int level, int name, int value) {
  return option(fd, level, name, &value, sizeof value);
}

int bind_and_listen(int fd, const ListenOptions& options, const char** failed) {
  const auto* address = reinterpret_cast<const sockaddr*>(&options.address.storage);
  const int family = options.address.storage.ss_family;
  *failed = "setsockopt";
  if (options.reuse_port) return -ENOTSUP;
  // SO_REUSEADDR would let others take the port away; TIME_WAIT is no obstacle here ("Using
  // SO_REUSEADDR and SO_EXCLUSIVEADDRUSE").
  int status = family == AF_UNIX ? 0 : option(fd, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1);
  if (status == 0 && family == AF_INET6)
    status = option(fd, IPPROTO_IPV6, IPV6_V6ONLY, options.ipv6_only ? 1 : 0);
  if (status != 0) return status;
  *failed = "bind";
  if (::bind(socket_of(fd), address, options.address.length) != 0) return failure();
  *failed = "listen";
  return ::listen(socket_of(fd), options.backlog) == 0 ? 0 : failure();
}

// A pair over the loopback interface. The ports are compared, since any process of the machine may
// connect to the listening socket first.
int connected_pair(int ends[2]) {
  ListenOptions options{};
  options.backlog = 1;
  if (const int status = parse_ip("127.0.0.1", 0, &options.address); status < 0) return status;
  const char* failed = nullptr;
  const int listener = listen(options, &failed);
  if (listener < 0) return listener;
  SockAddr address{};
  SockAddr own{};
  SockAddr peer{};
  int status = local_address(listener, &address);
  const SOCKET near_end = status < 0 ? INVALID_SOCKET : ::socket(AF_INET, SOCK_STREAM, 0);
  if (status == 0 && near_end == INVALID_SOCKET) status = failure();
  // While it blocks: over the loopback the connection is made when this returns.
  const auto* target = reinterpret_cast<const sockaddr*>(&address.storage);
  if (status == 0 && ::connect(near_end, target, address.length) != 0) status = failure();
  const int first = status == 0 ? dressed(near_end) : status;
  if (status < 0 && near_end != INVALID_SOCKET) ::closesocket(near_end);
  int second = first < 0 ? first : accept(listener, &peer);
  if (second >= 0) {
    status = local_address(first, &own);
    const auto port = [](const SockAddr& one) {
      return reinterpret_cast<const sockaddr_in*>(&one.storage)->sin_port;
    };
    if (status < 0 || port(own) != port(peer)) {
      close(second);
      second = status < 0 ? status : -ECONNABORTED;
    }
  }
  close(listener);
  if (second < 0) {
    if (first >= 0) close(first);
    return second;
  }
  ends[0] = first;
  ends[1] = second;
  // A wake-up is one byte, and waits for no other.
  for (int i = 0; i < 2; ++i) static_cast<void>(no_delay(ends[i]));
  return 0;
}

}  // namespace

long read(int fd, void* into, std::size_t length) { return recv(fd, into, length); }

long write(int fd, const void* from, std::size_t length) {
  const iovec vector{const_cast<void*>(from), length};
  return sendv(fd, &vector, 1);
}

long recv(int fd, void* into, std::size_t length) {
  const int limit = length > INT_MAX ? INT_MAX : static_cast<int>(length);
  const int count = ::recv(socket_of(fd), static_cast<char*>(into), limit, 0);
  return count == SOCKET_ERROR ? failure() : count;
}

long sendv(int fd, const iovec* vectors, int count) {
  ML_CHECK(count > 0 && count <= kVectorsMax);
  WSABUF buffers[kVectorsMax];
  for (int i = 0; i < count; ++i) {
    ML_CHECK(vectors[i].iov_len <= ULONG_MAX);
    buffers[i].buf = static_cast<char*>(vectors[i].iov_base);
    buffers[i].len = static_cast<ULONG>(vectors[i].iov_len);
  }
  DWORD sent = 0;
  const auto number = static_cast<DWORD>(count);
  const int status = ::WSASend(socket_of(fd), buffers, number, &sent, 0, nullptr, nullptr);
  return status == SOCKET_ERROR ? failure() : static_cast<long>(sent);
}

int close(int fd) { return ::closesocket(socket_of(fd)) == 0 ? 0 : failure(); }

int dup(int fd) {
  WSAPROTOCOL_INFOW info;
  if (::WSADuplicateSocketW(socket_of(fd), GetCurrentProcessId(), &info) != 0) return failure();
  return dressed(::WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, &info, 0,
                              WSA_FLAG_OVERLAPPED));
}

int pipe(int ends[2]) { return connected_pair(ends); }

int socket_pair(int ends[2]) { return connected_pair(ends); }

int eventfd() { return -ENOSYS; }

void set_pipe_size(int, int) {}

int processors(std::uint32_t*, std::size_t) { return -ENOTSUP; }
int bind_thread(std::uint32_t) { return -ENOTSUP; }

int poll(pollfd* set, std::size_t count, Micros timeout) {
  const Micros rounded = (timeout + 999) / 1'000;
  const int millis = timeout < 0 ? -1 : rounded > INT_MAX ? INT_MAX : static_cast<int>(rounded);
  // WSAPoll refuses an empty set.
  if (count == 0) {
    ::Sleep(millis < 0 ? INFINITE : static_cast<DWORD>(millis));
    return 0;
  }
  const int ready = ::WSAPoll(set, static_cast<ULONG>(count), millis);
  return ready == SOCKET_ERROR ? failure() : ready;
}

int check_open(int fd) {
  int type = 0;
  int length = sizeof type;
  auto* bytes = reinterpret_cast<char*>(&type);
  const int status = ::getsockopt(socket_of(fd), SOL_SOCKET, SO_TYPE, bytes, &length);
  return status == 0 ? 0 : failure();
}

int set_non_blocking(int fd) {
  u_long on = 1;
  return ::ioctlsocket(socket_of(fd), static_cast<long>(FIONBIO), &on) == 0 ? 0 : failure();
}

int set_close_on_exec(int fd) {
  auto* handle = reinterpret_cast<HANDLE>(socket_of(fd));
  return ::SetHandleInformation(handle, HANDLE_FLAG_INHERIT, 0) ? 0 : -EBADF;
}

int set_keep_alive(int fd, int seconds) {
  const int status = option(fd, SOL_SOCKET, SO_KEEPALIVE, seconds > 0 ? 1 : 0);
  // TCP_KEEPIDLE, since Windows 10 1709 ("IPPROTO_TCP socket options"); older headers lack it.
  constexpr int kKeepIdle = 3;
  return status < 0 || seconds == 0 ? status : option(fd, IPPROTO_TCP, kKeepIdle, seconds);
}

int accept(int listener, SockAddr* peer) {
  peer->length = sizeof peer->storage;
  auto* address = reinterpret_cast<sockaddr*>(&peer->storage);
  return dressed(::accept(socket_of(listener), address, &peer->length));
}

int shutdown_write(int fd) { return ::shutdown(socket_of(fd), SD_SEND) == 0 ? 0 : failure(); }

int socket_error(int fd) {
  int error = 0;
  int length = sizeof error;
  auto* bytes = reinterpret_cast<char*>(&error);
  const int status = ::getsockopt(socket_of(fd), SOL_SOCKET, SO_ERROR, bytes, &length);
  if (status != 0) return failure();
  return error == 0 ? 0 : -errno_of(error);
}

int no_delay(int fd) { return option(fd, IPPROTO_TCP, TCP_NODELAY, 1); }

int reset_on_close(int fd) {
  const linger now{1, 0};
  return option(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

int local_address(int fd, SockAddr* out) {
  out->length = sizeof out->storage;
  auto* address = reinterpret_cast<sockaddr*>(&out->storage);
  return ::getsockname(socket_of(fd), address, &out->length) == 0 ? 0 : failure();
}

int peer_address(int fd, SockAddr* out) {
  out->length = sizeof out->storage;
  auto* address = reinterpret_cast<sockaddr*>(&out->storage);
  return ::getpeername(socket_of(fd), address, &out->length) == 0 ? 0 : failure();
}

int listen(const ListenOptions& options, const char** failed) {
  start_winsock();
  *failed = "socket";
  const int fd = dressed(::socket(options.address.storage.ss_family, SOCK_STREAM, 0));
  if (fd < 0) return fd;
  const int status = bind_and_listen(fd, options, failed);
  if (status == 0) return fd;
  close(fd);
  return status;
}

}  // namespace multiloop::sys

#endif
