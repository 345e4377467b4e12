// How the core enters the kernel: a result >= 0 or -errno. For sys.cc and datagram.cc; nothing else
// reads errno, the backends' waits apart.
#pragma once

#include <sys/socket.h>

#include <cerrno>

namespace multiloop::sys {

// Runs `call` until no signal interrupts it, and turns -1 into -errno.
template <typename Call>
auto retried(Call call) -> decltype(call()) {
  for (;;) {
    const auto result = call();
    if (result >= 0) return result;
    if (errno != EINTR) return static_cast<decltype(call())>(-errno);
  }
}

inline int set_option(int fd, int level, int name, int value) {
  return retried([=] { return ::setsockopt(fd, level, name, &value, sizeof value); });
}

// The option's value, which is not negative, or -errno.
inline int get_option(int fd, int level, int name) {
  int value = 0;
  socklen_t length = sizeof value;
  const int status = retried([&] { return ::getsockopt(fd, level, name, &value, &length); });
  return status < 0 ? status : value;
}

}  // namespace multiloop::sys
