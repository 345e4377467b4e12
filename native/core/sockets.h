// The headers of sockets and their addresses, and the few types that Winsock lacks or spells in
// another way. A SOCKET of Windows is a handle, of which 32 bits are significant on 64-bit systems
// too ("Interprocess Communication Between 32-bit and 64-bit Applications"), so it fits where the
// core has a descriptor; but it is no small number.
#pragma once

#ifndef _WIN32

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#else

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
// After winsock2.h, which all of them need.
// clang-format off
#include <winsock2.h>
#include <ws2tcpip.h>
#include <afunix.h>
#include <iphlpapi.h>
// clang-format on

#include <cstddef>

struct iovec {
  void* iov_base;
  std::size_t iov_len;
};

#endif
