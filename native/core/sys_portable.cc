// The forms for every POSIX system, of what kernels differ in. A descriptor is made first and gets
// its flags then; a child process that is forked in between inherits it, which POSIX could not
// prevent before 2024 (accept4 and pipe2 are of POSIX.1-2024).
#include "platform.h"

#if !defined(ML_LINUX) && !defined(_WIN32)

#include <unistd.h>

#include <algorithm>
#include <climits>

#include "check.h"
#include "made.h"
#include "net.h"
#include "sys_kernel.h"

namespace multiloop::sys {

namespace {

// Gives a new descriptor what all of ours have, or closes it.
int dressed(int fd) {
  if (fd < 0) return fd;
  int status = set_close_on_exec(fd);
  if (status == 0) status = set_non_blocking(fd);
  if (status == 0) return made(fd);
  close(fd);
  return status;
}

int dressed_socket(int fd) {
#ifndef MSG_NOSIGNAL
  // A socket whose peer has gone may refuse the option; what is sent there fails anyway.
  if (fd >= 0) static_cast<void>(set_option(fd, SOL_SOCKET, SO_NOSIGPIPE, 1));
#endif
  return dressed(fd);
}

// Both ends of what `open` has made, or neither.
template <int (*kDress)(int)>
int dressed_ends(int status, int ends[2]) {
  if (status < 0) return status;
  const int first = kDress(ends[0]);
  const int second = kDress(ends[1]);
  if (first >= 0 && second >= 0) return 0;
  if (first >= 0) close(first);
  if (second >= 0) close(second);
  return first < 0 ? first : second;
}

}  // namespace

int pipe(int ends[2]) {
  return dressed_ends<dressed>(retried([=] { return ::pipe(ends); }), ends);
}

int socket_pair(int ends[2]) {
  const int status = retried([=] { return ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends); });
  return dressed_ends<dressed_socket>(status, ends);
}

int eventfd() { return -ENOSYS; }

int accept(int listener, SockAddr* peer) {
  peer->length = sizeof peer->storage;
  return dressed_socket(retried([=] {
    return ::accept(listener, reinterpret_cast<sockaddr*>(&peer->storage), &peer->length);
  }));
}

void set_pipe_size(int, int) {}

// POSIX.1-2008 has no processors.
int processors(std::uint32_t*, std::size_t) { return -ENOTSUP; }
int bind_thread(std::uint32_t) { return -ENOTSUP; }

int poll(pollfd* set, std::size_t count, Micros timeout) {
  // Rounded up: waking a moment late is allowed, waking early would spin.
  const Micros millis = timeout < 0 ? -1 : std::min<Micros>((timeout + 999) / 1'000, INT_MAX);
  const int ready = ::poll(set, static_cast<nfds_t>(count), static_cast<int>(millis));
  return ready < 0 ? -errno : ready;
}

// The other systems' calls of this name differ in everything else; whoever asks reads and writes.
long send_file(int, int, std::uint64_t, std::size_t) { return -ENOSYS; }

namespace kernel {

int open_socket(int family, int type) {
  return dressed_socket(retried([=] { return ::socket(family, type, 0); }));
}

// FreeBSD shares out with a name of its own (setsockopt(2), SO_REUSEPORT_LB). On macOS, NetBSD and
// OpenBSD, SO_REUSEPORT lets many bind and one have it all (libuv, uv__sock_reuseport).
int share_port(int fd) {
#if defined(SO_REUSEPORT_LB)
  return set_option(fd, SOL_SOCKET, SO_REUSEPORT_LB, 1);
#elif defined(SO_REUSEPORT) && !defined(__APPLE__) && !defined(__NetBSD__) && !defined(__OpenBSD__)
  return set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
#else
  static_cast<void>(fd);
  return -ENOTSUP;
#endif
}

int defer_accept(int) { return 0; }

int set_keep_idle(int fd, int seconds) {
#if defined(TCP_KEEPIDLE)
  return set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
#elif defined(TCP_KEEPALIVE)
  return set_option(fd, IPPROTO_TCP, TCP_KEEPALIVE, seconds);  // macOS (tcp(4))
#else
  static_cast<void>(fd);
  static_cast<void>(seconds);
  return -ENOPROTOOPT;
#endif
}

}  // namespace kernel

}  // namespace multiloop::sys

#endif
