// System calls of streams and buffers, beside those in sys.h and by the same rules: a result >= 0
// or -errno, EINTR retried, any thread.
#pragma once

#include "sys.h"

namespace multiloop::sys {

// Scatter and gather on any descriptor; at most kVectorsMax vectors. On a socket whose peer is gone
// writev raises SIGPIPE, which Node ignores; sendv of sys.h does not raise it.
[[nodiscard]] long readv(int fd, const iovec* vectors, int count);
[[nodiscard]] long writev(int fd, const iovec* vectors, int count);
[[nodiscard]] long pread(int fd, void* into, std::size_t length, std::uint64_t position);

// The bytes that wait on a socket, which stay there for whoever reads them (recv(2), MSG_PEEK); 0
// at the end of the stream. An error that is pending on the socket is answered once and cleared.
[[nodiscard]] long peek(int fd, void* into, std::size_t length);

// Sends from a file to a descriptor without a copy through this process, from `position`, and
// leaves the file's own position alone. -ENOSYS where the kernel has no such call; -EINVAL for a
// pair of descriptors that it cannot do it for (sendfile(2), ERRORS).
[[nodiscard]] long send_file(int to, int file, std::uint64_t position, std::size_t length);

// A non-blocking stream socket that is connecting to `to`, from `from` unless that is null, or
// -errno; `failed` names the call that said no. The socket becomes writable when it has connected
// or failed, and socket_error() tells which (connect(2), EINPROGRESS).
[[nodiscard]] int connect(const SockAddr& to, const SockAddr* from, const char** failed);

// SOCK_STREAM, SOCK_DGRAM …; -ENOTSOCK, -EBADF.
[[nodiscard]] int socket_type(int fd);

}  // namespace multiloop::sys
