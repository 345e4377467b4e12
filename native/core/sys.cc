#include "sys.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "check.h"
#include "retried.h"

namespace multiloop::sys {

namespace {

int bind_and_listen(int fd, const ListenOptions& options, const char** failed) {
  const auto* address = reinterpret_cast<const sockaddr*>(&options.address.storage);
  const bool inet = options.address.storage.ss_family != AF_UNIX;
  int status = 0;
  *failed = "setsockopt";
  // A restarted server must not wait for its own connections in TIME_WAIT (socket(7)).
  if (inet) status = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (status == 0 && options.reuse_port) status = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (status == 0 && options.address.storage.ss_family == AF_INET6)
    status = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, options.ipv6_only ? 1 : 0);
#ifdef TCP_DEFER_ACCEPT
  // It saves a wake-up and changes nothing else, so a kernel without it is no failure.
  if (status == 0 && options.defer_accept && inet) {
    status = set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1);
    if (status == -ENOPROTOOPT) status = 0;
  }
#endif
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
  return retried([=] { return static_cast<long>(::recv(fd, into, length, MSG_DONTWAIT)); });
}

long sendv(int fd, const iovec* vectors, int count) {
  ML_CHECK(count > 0 && count <= kVectorsMax);
  if (count == 1) {
    return retried([=] {
      return static_cast<long>(
          ::send(fd, vectors->iov_base, vectors->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT));
    });
  }
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(vectors);
  message.msg_iovlen = static_cast<std::size_t>(count);
  return retried(
      [&] { return static_cast<long>(::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)); });
}

int close(int fd) { return ::close(fd) == 0 ? 0 : -errno; }

int dup(int fd) {
  return retried([=] { return ::fcntl(fd, F_DUPFD_CLOEXEC, 0); });
}

int pipe(int ends[2]) {
  return retried([=] { return ::pipe2(ends, O_CLOEXEC | O_NONBLOCK); });
}

int socket_pair(int ends[2]) {
  return retried(
      [=] { return ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends); });
}

int eventfd() {
  return retried([] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); });
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
  return status < 0 || seconds == 0 ? status : set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
}

int accept(int listener, SockAddr* peer) {
  peer->length = sizeof peer->storage;
  return retried([=] {
    return ::accept4(listener, reinterpret_cast<sockaddr*>(&peer->storage), &peer->length,
                     SOCK_CLOEXEC | SOCK_NONBLOCK);
  });
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
  const int fd = retried([&] {
    return ::socket(options.address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    0);
  });
  if (fd < 0) return fd;
  const int status = bind_and_listen(fd, options, failed);
  if (status == 0) return fd;
  close(fd);
  return status;
}

int listen_again(int fd, int backlog) {
  return retried([=] { return ::listen(fd, backlog); });
}

int parse_ip(const char* host, std::uint16_t port, SockAddr* out) {
  *out = SockAddr{};
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out->storage);
  if (::inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    out->length = sizeof *v4;
    return 0;
  }
  char bare[INET6_ADDRSTRLEN];
  const char* zone = std::strchr(host, '%');
  const std::size_t length = zone ? static_cast<std::size_t>(zone - host) : std::strlen(host);
  if (length >= sizeof bare) return -EINVAL;
  std::memcpy(bare, host, length);
  bare[length] = '\0';
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out->storage);
  if (::inet_pton(AF_INET6, bare, &v6->sin6_addr) != 1) return -EINVAL;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  if (zone) {
    // A zone is an interface's name or its number (RFC 4007 section 11).
    unsigned long index = ::if_nametoindex(zone + 1);
    const char* end = zone + 1;
    while (*end >= '0' && *end <= '9') ++end;
    if (index == 0 && *end == '\0') index = std::strtoul(zone + 1, nullptr, 10);
    if (index == 0 || index > UINT32_MAX) return -EINVAL;
    v6->sin6_scope_id = static_cast<std::uint32_t>(index);
  }
  out->length = sizeof *v6;
  return 0;
}

int parse_unix(const char* path, std::size_t length, SockAddr* out) {
  *out = SockAddr{};
  auto* address = reinterpret_cast<sockaddr_un*>(&out->storage);
  const bool abstract_name = length > 0 && (path[0] == '@' || path[0] == '\0');
  if (length == 0) return -EINVAL;
  if (length >= sizeof address->sun_path) return -ENAMETOOLONG;
  address->sun_family = AF_UNIX;
  std::memcpy(address->sun_path, path, length);
  if (abstract_name) address->sun_path[0] = '\0';
  out->length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length + (abstract_name ? 0 : 1));
  return 0;
}

}  // namespace multiloop::sys
