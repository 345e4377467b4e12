// What every POSIX system has in the same form (POSIX.1-2008).
#ifndef _WIN32

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "check.h"
#include "made.h"
#include "sys.h"
#include "sys_kernel.h"

namespace multiloop::sys {

namespace {

int bind_and_listen(int fd, const ListenOptions& options, const char** failed) {
  const auto* address = reinterpret_cast<const sockaddr*>(&options.address.storage);
  const bool inet = options.address.storage.ss_family != AF_UNIX;
  int status = 0;
  *failed = "setsockopt";
  // A restarted server must not wait for its own connections in TIME_WAIT (socket(7)).
  if (inet) status = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (status == 0 && options.reuse_port) status = kernel::share_port(fd);
  if (status == 0 && options.address.storage.ss_family == AF_INET6)
    status = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, options.ipv6_only ? 1 : 0);
  if (status == 0 && options.defer_accept && inet) status = kernel::defer_accept(fd);
  if (status != 0) return status;
  *failed = "bind";
  status = retried([&] { return ::bind(fd, address, options.address.length); });
  if (status != 0) return status;
  *failed = "listen";
  return retried([&] { return ::listen(fd, options.backlog); });
}

}  // namespace

long read(int fd, void* into, std::size_t length) {
  return retried([=] { return static_cast<long>(::read(fd, into, length)); });
}

long write(int fd, const void* from, std::size_t length) {
  return retried([=] { return static_cast<long>(::write(fd, from, length)); });
}

long recv(int fd, void* into, std::size_t length) {
  return retried(
      [=] { return static_cast<long>(::recv(fd, into, length, kernel::kReceiveFlags)); });
}

long sendv(int fd, const iovec* vectors, int count) {
  ML_CHECK(count > 0 && count <= kVectorsMax);
  if (count == 1) {
    return retried([=] {
      return static_cast<long>(::send(fd, vectors->iov_base, vectors->iov_len, kernel::kSendFlags));
    });
  }
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(vectors);
  // An int in POSIX, and as long as a pointer on Linux.
  message.msg_iovlen = static_cast<decltype(message.msg_iovlen)>(count);
  return retried([&] { return static_cast<long>(::sendmsg(fd, &message, kernel::kSendFlags)); });
}

int close(int fd) {
  // Before the number can be another thread's.
  unmake(fd);
  return ::close(fd) == 0 ? 0 : -errno;
}

int dup(int fd) {
  const int copy = retried([=] { return ::fcntl(fd, F_DUPFD_CLOEXEC, 0); });
  return was_made(fd) ? made(copy) : copy;
}

int check_open(int fd) {
  const int flags = retried([=] { return ::fcntl(fd, F_GETFD); });
  return flags < 0 ? flags : 0;
}

int set_non_blocking(int fd) {
  const int flags = retried([=] { return ::fcntl(fd, F_GETFL); });
  if (flags < 0) return flags;
  return retried([=] { return ::fcntl(fd, F_SETFL, flags | O_NONBLOCK); });
}

int set_close_on_exec(int fd) {
  const int flags = retried([=] { return ::fcntl(fd, F_GETFD); });
  if (flags < 0) return flags;
  return retried([=] { return ::fcntl(fd, F_SETFD, flags | FD_CLOEXEC); });
}

int set_keep_alive(int fd, int seconds) {
  const int status = set_option(fd, SOL_SOCKET, SO_KEEPALIVE, seconds > 0 ? 1 : 0);
  return status < 0 || seconds == 0 ? status : kernel::set_keep_idle(fd, seconds);
}

int shutdown_write(int fd) {
  return retried([=] { return ::shutdown(fd, SHUT_WR); });
}

int socket_error(int fd) {
  const int error = get_option(fd, SOL_SOCKET, SO_ERROR);
  return error < 0 ? error : -error;
}

int is_listening(int fd) { return get_option(fd, SOL_SOCKET, SO_ACCEPTCONN); }

int open_nothing() {
  return retried([] { return ::open("/", O_RDONLY | O_CLOEXEC | O_DIRECTORY); });
}

int no_delay(int fd) { return set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1); }

int reset_on_close(int fd) {
  const linger now{1, 0};
  return retried([&] { return ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now); });
}

int local_address(int fd, SockAddr* out) {
  out->length = sizeof out->storage;
  return retried(
      [=] { return ::getsockname(fd, reinterpret_cast<sockaddr*>(&out->storage), &out->length); });
}

int peer_address(int fd, SockAddr* out) {
  out->length = sizeof out->storage;
  return retried(
      [=] { return ::getpeername(fd, reinterpret_cast<sockaddr*>(&out->storage), &out->length); });
}

int listen(const ListenOptions& options, const char** failed) {
  *failed = "socket";
  const int fd = kernel::open_socket(options.address.storage.ss_family, SOCK_STREAM);
  if (fd < 0) return fd;
  const int status = bind_and_listen(fd, options, failed);
  if (status == 0) return fd;
  close(fd);
  return status;
}

int listen_again(int fd, int backlog) {
  return retried([=] { return ::listen(fd, backlog); });
}

}  // namespace multiloop::sys

#endif
