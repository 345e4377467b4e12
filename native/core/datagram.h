// Datagram sockets: opening one, its options, and batches of messages in and out. The batches are
// recvmmsg(2) and sendmmsg(2) where the kernel has them, else (or with ML_PORTABLE) one call a
// message; both forms are compiled wherever both exist, so that tests can compare them.
//
// Everything answers a result >= 0 or -errno. Any thread may call; a socket has one user.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sys.h"

namespace multiloop::datagram {

// Messages in one system call.
constexpr int kBatchMax = 64;

struct Open {
  int family;                    // AF_INET, AF_INET6 or AF_UNIX
  const sys::SockAddr* bind;     // nullptr: not bound
  const sys::SockAddr* connect;  // nullptr: not connected
  bool reuse_address;
  bool reuse_port;
  int ipv6_only;  // -1: as the system has it
};
// A non-blocking, close-on-exec socket; `failed` names the call that said no.
[[nodiscard]] int open(const Open& options, const char** failed);

// Checks that `fd` is a datagram socket, makes it non-blocking and close-on-exec, and answers its
// family, or -EPROTOTYPE when it is a socket of another type.
[[nodiscard]] int adopt(int fd, const char** failed);

// The numbers are known to TypeScript: src/stream/datagram_options.ts.
enum class Option : std::uint8_t {
  kBroadcast = 0,
  kReceiveBuffer = 1,  // bytes, before the kernel adds its own (socket(7))
  kSendBuffer = 2,
  kTtl = 3,
  kMulticastTtl = 4,
  kMulticastLoopback = 5,
  kMulticastInterface = 6,  // an interface's index
};
[[nodiscard]] int set(int fd, int family, Option option, int value);

// Joins or leaves a group on an interface, 0: as the system chooses (RFC 3678 section 5.1).
[[nodiscard]] int set_membership(int fd, const sys::SockAddr& group, unsigned interface_index,
                                 bool joined);

// One message to receive into, or to send from.
struct Message {
  std::byte* data;
  std::size_t capacity;  // receiving: of `data`
  std::size_t length;
  sockaddr_storage* name;  // sending: nullptr on a connected socket
  socklen_t name_length;
  bool truncated;  // receiving: it was longer than `capacity`, and the rest is lost
};

// Receives what is there, up to `count` (at most kBatchMax) messages, without waiting. Fewer than
// that is all there was. -EAGAIN: nothing.
[[nodiscard]] int receive(int fd, Message* messages, int count);
// Sends up to `count` (at most kBatchMax) messages, in order and without waiting, and answers how
// many. An error is that of the first message; one of a later message is met when it is the first.
[[nodiscard]] int send(int fd, const Message* messages, int count);

// The portable form of the two.
[[nodiscard]] int receive_each(int fd, Message* messages, int count);
[[nodiscard]] int send_each(int fd, const Message* messages, int count);

}  // namespace multiloop::datagram
