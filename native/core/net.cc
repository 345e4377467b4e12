// What every POSIX system has in the same form, like sys.cc; send_file is beside what else kernels
// differ in. Windows has none of it yet: these are the calls of streams in TypeScript.
#ifndef _WIN32

#include "net.h"

#include <unistd.h>

#include <cerrno>

#include "check.h"
#include "sys_kernel.h"

namespace multiloop::sys {

long readv(int fd, const iovec* vectors, int count) {
  ML_CHECK(count > 0 && count <= kVectorsMax);
  return retried([=] { return static_cast<long>(::readv(fd, vectors, count)); });
}

long writev(int fd, const iovec* vectors, int count) {
  ML_CHECK(count > 0 && count <= kVectorsMax);
  return retried([=] { return static_cast<long>(::writev(fd, vectors, count)); });
}

long pread(int fd, void* into, std::size_t length, std::uint64_t position) {
  const auto offset = static_cast<off_t>(position);
  return retried([=] { return static_cast<long>(::pread(fd, into, length, offset)); });
}

long peek(int fd, void* into, std::size_t length) {
  return retried([=] {
    return static_cast<long>(::recv(fd, into, length, kernel::kReceiveFlags | MSG_PEEK));
  });
}

int connect(const SockAddr& to, const SockAddr* from, const char** failed) {
  *failed = "socket";
  const int fd = kernel::open_socket(to.storage.ss_family, SOCK_STREAM);
  if (fd < 0) return fd;
  int status = 0;
  if (from != nullptr) {
    *failed = "bind";
    // A port that was asked for may be that of an earlier connection, in TIME_WAIT. It is in the
    // same place for both families.
    const int on = 1;
    if (reinterpret_cast<const sockaddr_in*>(&from->storage)->sin_port != 0)
      static_cast<void>(::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    status = retried([=] {
      return ::bind(fd, reinterpret_cast<const sockaddr*>(&from->storage), from->length);
    });
  }
  if (status == 0) {
    *failed = "connect";
    // Not repeated after EINTR: the attempt goes on, and a second call would answer EALREADY.
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&to.storage), to.length) < 0)
      status = -errno;
    if (status == -EINPROGRESS || status == -EINTR) status = 0;
  }
  if (status == 0) return fd;
  close(fd);
  return status;
}

int socket_type(int fd) {
  int type = 0;
  socklen_t length = sizeof type;
  const int status = retried([&] { return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length); });
  return status < 0 ? status : type;
}

}  // namespace multiloop::sys

#endif
