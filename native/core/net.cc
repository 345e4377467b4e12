#include "net.h"

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#if defined(__linux__) && !defined(ML_PORTABLE)
#include <sys/sendfile.h>
#endif

#include <cerrno>

#include "check.h"

namespace multiloop::sys {

namespace {

template <typename Call>
auto uninterrupted(Call call) -> decltype(call()) {
  for (;;) {
    const auto result = call();
    if (result >= 0) return result;
    if (errno != EINTR) return static_cast<decltype(call())>(-errno);
  }
}

int stream_socket(int family) {
  const int fd = uninterrupted([=] { return ::socket(family, SOCK_STREAM, 0); });
  if (fd < 0) return fd;
  int status = set_close_on_exec(fd);
  if (status == 0) status = set_non_blocking(fd);
  if (status == 0) return fd;
  close(fd);
  return status;
}

}  // namespace

long readv(int fd, const iovec* vectors, int count) {
  ML_CHECK(count > 0 && count <= kVectorsMax);
  return uninterrupted([=] { return static_cast<long>(::readv(fd, vectors, count)); });
}

long writev(int fd, const iovec* vectors, int count) {
  ML_CHECK(count > 0 && count <= kVectorsMax);
  return uninterrupted([=] { return static_cast<long>(::writev(fd, vectors, count)); });
}

long pread(int fd, void* into, std::size_t length, std::uint64_t position) {
  const auto offset = static_cast<off_t>(position);
  return uninterrupted([=] { return static_cast<long>(::pread(fd, into, length, offset)); });
}

long send_file(int to, int file, std::uint64_t position, std::size_t length) {
#if defined(__linux__) && !defined(ML_PORTABLE)
  auto offset = static_cast<off_t>(position);
  return uninterrupted([&] { return static_cast<long>(::sendfile(to, file, &offset, length)); });
#else
  // The other systems' calls of this name differ in everything else; whoever asks reads and writes.
  static_cast<void>(to);
  static_cast<void>(file);
  static_cast<void>(position);
  static_cast<void>(length);
  return -ENOSYS;
#endif
}

int connect(const SockAddr& to, const SockAddr* from, const char** failed) {
  *failed = "socket";
  const int fd = stream_socket(to.storage.ss_family);
  if (fd < 0) return fd;
  int status = 0;
  if (from != nullptr) {
    *failed = "bind";
    status = uninterrupted([=] {
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
  const int status =
      uninterrupted([&] { return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length); });
  return status < 0 ? status : type;
}

}  // namespace multiloop::sys
