#ifndef _WIN32

#include "acceptor.h"

#include <cerrno>

#include "check.h"
#include "net.h"

namespace multiloop::acceptor {

namespace {

// Linux hands the errors that are pending on a new connection to accept(2), "Error handling"; the
// rest of the list is what its manual says of the protocol below, of firewall rules, and of other
// kernels. The queue goes on behind that connection.
bool of_one_connection(int error) {
  switch (error) {
    case ECONNABORTED:
    case ECONNRESET:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
#ifdef ENONET
    case ENONET:
#endif
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ETIMEDOUT:
    case EPROTONOSUPPORT:
    case ESOCKTNOSUPPORT:
#ifdef ENOSR
    case ENOSR:
#endif
      return true;
    default:
      return false;
  }
}

bool is_bound(const sys::SockAddr& address) {
  switch (address.storage.ss_family) {
    case AF_INET:
      return reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port != 0;
    case AF_INET6:
      return reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_port != 0;
    default:
      // A unix socket without a name has a family and nothing else (unix(7), "Address format").
      return address.length > sizeof address.storage.ss_family;
  }
}

}  // namespace

int accept_next(int listener, sys::SockAddr* peer) {
  for (int failed = 0; failed < kFailedMax; ++failed) {
    const int fd = sys::accept(listener, peer);
    if (fd >= 0) return fd;
    // It says that of a connection, or of a socket that is no listening one any more.
    if (fd == -EOPNOTSUPP && sys::is_listening(listener) == 1) continue;
    if (!of_one_connection(-fd)) return fd;
  }
  return -EAGAIN;
}

int open_reserve() { return sys::open_nothing(); }

Refusals refuse(int listener, int reserve, int max) {
  Refusals done{0, 0};
  if (reserve >= 0) sys::close(reserve);
  while (done.count < max) {
    sys::SockAddr peer;
    const int fd = accept_next(listener, &peer);
    if (fd < 0) break;
    sys::close(fd);
    ++done.count;
  }
  done.reserve = open_reserve();
  return done;
}

Adopted adopt(int fd, int backlog, int* status, const char** failed) {
  const auto fails = [&](const char* call, int error) {
    *failed = call;
    *status = error;
    return Adopted::kFailed;
  };
  const int type = sys::socket_type(fd);
  if (type < 0) return fails("getsockopt", type);
  if (type != SOCK_STREAM) return Adopted::kNotStream;
  const int listening = sys::is_listening(fd);
  if (listening < 0) return fails("getsockopt", listening);
  if (listening == 0) {
    sys::SockAddr address{};
    if (sys::peer_address(fd, &address) == 0) return Adopted::kConnected;
    if (const int error = sys::local_address(fd, &address); error < 0)
      return fails("getsockname", error);
    if (!is_bound(address)) return Adopted::kUnbound;
    if (const int error = sys::listen_again(fd, backlog); error < 0) return fails("listen", error);
  }
  if (const int error = sys::set_close_on_exec(fd); error < 0) return fails("fcntl", error);
  // Accepting goes on until there is nothing left, which must not block.
  if (const int error = sys::set_non_blocking(fd); error < 0) return fails("fcntl", error);
  return Adopted::kReady;
}

}  // namespace multiloop::acceptor

#endif
