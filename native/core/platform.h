// Which backends a build has, and which form of what kernels differ in. Each backend's file is
// empty without its macro, and the registry (backend.cc) leaves its line out. poll is in
// every build and so is the pipe as a waker, and select in all but Windows's.
//
//   ML_PORTABLE   poll, select and the pipe only, without a header that POSIX does not have
//   ML_HAVE_TLS   OpenSSL 3's headers, which come with Node's own; the functions are Node's
//   ML_EMULATE    tests only: the interfaces of other kernels too, emulated by test/emulation
#pragma once

#if defined(__linux__) && !defined(ML_PORTABLE)
#define ML_HAVE_EPOLL
#define ML_HAVE_IO_URING
#define ML_HAVE_EVENTFD
// The forms of sys_linux.cc, in place of those of sys_portable.cc.
#define ML_LINUX
#endif

// illumos has it since 2015 (uts/common/sys/poll.h), Solaris does not.
#if !defined(ML_PORTABLE) && (defined(__linux__) || defined(__illumos__))
#define ML_HAVE_POLLRDHUP
#endif

#if !defined(ML_PORTABLE) &&                                                 \
    (defined(__APPLE__) || defined(__FreeBSD__) || defined(__DragonFly__) || \
     defined(__NetBSD__) || defined(__OpenBSD__) || defined(ML_EMULATE))
#define ML_HAVE_KQUEUE
#endif

#if !defined(ML_PORTABLE) && (defined(__sun) || defined(ML_EMULATE))
#define ML_HAVE_EVPORT
#define ML_HAVE_DEVPOLL
#endif

// Only declarations are used: at run time tls_library.h looks for what the process has.
#if !defined(_WIN32) && __has_include(<openssl/ssl.h>)
#include <openssl/opensslv.h>
#if defined(OPENSSL_VERSION_MAJOR) && OPENSSL_VERSION_MAJOR == 3
#define ML_HAVE_TLS
#endif
#endif

// Winsock's fd_set is a list of handles and no set of bits.
#ifndef _WIN32
#define ML_HAVE_SELECT
#endif

// Of POSIX's errors the one that the C library of Windows has no number for; this is Winsock's.
#ifdef _WIN32
#include <cerrno>
#ifndef ESTALE
#define ESTALE 10070
#endif
#endif

namespace multiloop {

// Of the backends of kernels other than this one: they are there, and nobody gets one who has not
// asked for it by name.
#ifdef ML_EMULATE
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

}  // namespace multiloop
