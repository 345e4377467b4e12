// The one place where the core enters the kernel. Every function answers a result >= 0 or -errno,
// retries EINTR where the call may be repeated, and makes descriptors close-on-exec and
// non-blocking. Any thread may call them. Only they, the
// backends and datagram.h enter it.
//
// sys.cc has what POSIX has; what kernels differ in is declared in sys_kernel.h, with one file for
// Linux and one for all others. Windows has a file of its own for all of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "clock.h"
#include "sockets.h"

namespace multiloop::sys {

// A socket address of any family, by value.
struct SockAddr {
  sockaddr_storage storage;
  socklen_t length;
};

[[nodiscard]] long read(int fd, void* into, std::size_t length);
[[nodiscard]] long write(int fd, const void* from, std::size_t length);
[[nodiscard]] long recv(int fd, void* into, std::size_t length);
// Sends without raising SIGPIPE. At most `kVectorsMax` vectors.
[[nodiscard]] long sendv(int fd, const iovec* vectors, int count);
constexpr int kVectorsMax = 64;

// close(2) is not repeated on EINTR: on Linux the descriptor is gone by then (close(2), "Dealing
// with error returns").
int close(int fd);
[[nodiscard]] int dup(int fd);
[[nodiscard]] int pipe(int ends[2]);
[[nodiscard]] int socket_pair(int ends[2]);
// -ENOSYS where the kernel, or this build, has none.
[[nodiscard]] int eventfd();
// Gives a pipe room for `bytes`, where a kernel lets itself be asked. It may refuse.
void set_pipe_size(int fd, int bytes);
// poll(2) for at most `timeout` (kForever: no limit), as exactly as the kernel counts; longer than
// asked, never shorter. An interruption is -EINTR.
[[nodiscard]] int poll(pollfd* set, std::size_t count, Micros timeout);
// The processors that this thread may run on, at most `max` of them: how many, or -errno; -ENOTSUP
// where threads cannot be bound.
[[nodiscard]] int processors(std::uint32_t* out, std::size_t max);
// Binds this thread, and those that it starts from now on, to one of them.
[[nodiscard]] int bind_thread(std::uint32_t processor);
// Whether `fd` names an open descriptor: 0 or -EBADF.
[[nodiscard]] int check_open(int fd);

// For a descriptor that somebody else made.
[[nodiscard]] int set_non_blocking(int fd);
[[nodiscard]] int set_close_on_exec(int fd);
// The first probe after `seconds` without traffic; 0 switches it off (socket(7), tcp(7)).
// -ENOPROTOOPT where a kernel has one time for all sockets.
[[nodiscard]] int set_keep_alive(int fd, int seconds);
[[nodiscard]] int accept(int listener, SockAddr* peer);
[[nodiscard]] int shutdown_write(int fd);
[[nodiscard]] int socket_error(int fd);
// Whether the socket listens: 1 or 0.
[[nodiscard]] int is_listening(int fd);
// A descriptor of its own file that nobody uses: with it one is left when they have run out.
[[nodiscard]] int open_nothing();
[[nodiscard]] int no_delay(int fd);
// Makes the coming close(2) send a reset, so that half an answer never looks whole (SO_LINGER 0).
int reset_on_close(int fd);
[[nodiscard]] int local_address(int fd, SockAddr* out);
[[nodiscard]] int peer_address(int fd, SockAddr* out);

struct ListenOptions {
  SockAddr address;
  int backlog;
  // Connections are shared out between the sockets of one port. -ENOTSUP where a kernel only lets
  // them bind, and gives all connections to one of them.
  bool reuse_port;
  bool ipv6_only;
  // A hint: kernels that cannot defer accept at once.
  bool defer_accept;
};
// A bound, listening, non-blocking socket, or -errno; `failed` names the call that said no.
[[nodiscard]] int listen(const ListenOptions& options, const char** failed);
// For a socket that is bound already.
[[nodiscard]] int listen_again(int fd, int backlog);

// Parses a numeric host ("127.0.0.1", "::1", "fe80::1%eth0"); -EINVAL when it is not one.
[[nodiscard]] int parse_ip(const char* host, std::uint16_t port, SockAddr* out);
// A unix path; a leading '@' or NUL means Linux's abstract namespace (unix(7)), and is -ENOTSUP
// elsewhere: a file of that name is not what was asked for.
[[nodiscard]] int parse_unix(const char* path, std::size_t length, SockAddr* out);
// The other way: fills `out` (kUnixPathMax bytes, no NUL at the end), answers how many; an abstract
// name begins with '@'. 0 for a socket without a name.
constexpr std::size_t kUnixPathMax = 108;
[[nodiscard]] std::size_t unix_path(const SockAddr& address, char* out);

}  // namespace multiloop::sys
