// What kernels differ in, for sys*.cc alone: each of these has one form for Linux (sys_linux.cc)
// and one that needs no more than POSIX.1-2008 (sys_portable.cc). ML_PORTABLE takes the second on
// Linux too, so that a machine with Linux can test what runs elsewhere.
//
// Both files also define sys::pipe, socket_pair, eventfd, accept, set_pipe_size and poll of sys.h,
// and send_file of net.h.
#pragma once

#include <cerrno>

#include "platform.h"
#ifndef _WIN32
#include "retried.h"
#endif
#include "sys.h"

namespace multiloop::sys {

namespace kernel {

#ifdef ML_LINUX
// A descriptor from elsewhere may be in blocking mode; these calls do not wait all the same.
constexpr int kReceiveFlags = MSG_DONTWAIT;
constexpr int kSendFlags = MSG_DONTWAIT | MSG_NOSIGNAL;
constexpr bool kAbstractNames = true;
#else
constexpr int kReceiveFlags = 0;
// Where this POSIX flag is missing, as on macOS, sockets carry SO_NOSIGPIPE instead.
#ifdef MSG_NOSIGNAL
constexpr int kSendFlags = MSG_NOSIGNAL;
#else
constexpr int kSendFlags = 0;
#endif
constexpr bool kAbstractNames = false;
#endif

[[nodiscard]] int open_socket(int family, int type);
[[nodiscard]] int share_port(int fd);
[[nodiscard]] int defer_accept(int fd);
[[nodiscard]] int set_keep_idle(int fd, int seconds);
// Takes a connection's peer away from its socket, with a reset. -ENOTSUP where nothing does.
[[nodiscard]] int dissolve(int fd);

}  // namespace kernel

}  // namespace multiloop::sys
