// Accepting from a listening socket, and what to do when descriptors have run out: the one logic
// for whoever listens. The pace (batches, pauses) is TypeScript's, src/stream/listening_socket.ts.
//
// Everything answers a result >= 0 or -errno. Any thread may call; a socket has one user.
#pragma once

#include "sys.h"

namespace multiloop::acceptor {

// Failed connections that one accept_next() passes over before it lets others have their turn.
constexpr int kFailedMax = 64;

// The next connection's descriptor, close-on-exec and non-blocking, and its peer. What accept(2)
// says of one connection, and not of the socket, is passed over.
[[nodiscard]] int accept_next(int listener, sys::SockAddr* peer);

// A descriptor for refuse() to give up, so that a process that is out of them can still accept.
[[nodiscard]] int open_reserve();

struct Refusals {
  int count;    // connections that were accepted and closed at once
  int reserve;  // the new reserve, or -errno when another thread was faster
};
// Gives up `reserve` (-1: none), closes up to `max` waiting connections, so that their clients are
// told instead of hanging, and takes a new one.
[[nodiscard]] Refusals refuse(int listener, int reserve, int max);

// Makes a stream socket that somebody else opened ready to accept from: listening (`backlog`, if it
// was bound only), close-on-exec and non-blocking.
enum class Adopted {
  kReady,
  kNotStream,  // of another type, datagrams for example
  kUnbound,
  kConnected,
  kFailed,  // the kernel said no: `status`
};
[[nodiscard]] Adopted adopt(int fd, int backlog, int* status, const char** failed);

}  // namespace multiloop::acceptor
