// Linux's forms of what kernels differ in: flags in the call that makes a descriptor, so that no
// child process inherits one that was made a moment before its fork.
#include "platform.h"

#ifdef ML_LINUX

#include <fcntl.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "made.h"
#include "net.h"
#include "sys_kernel.h"

namespace multiloop::sys {

namespace {

int made_ends(int status, const int ends[2]) {
  if (status == 0) made(ends[0]);
  if (status == 0) made(ends[1]);
  return status;
}

}  // namespace

int pipe(int ends[2]) {
  return made_ends(retried([=] { return ::pipe2(ends, O_CLOEXEC | O_NONBLOCK); }), ends);
}

int socket_pair(int ends[2]) {
  const int type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  return made_ends(retried([=] { return ::socketpair(AF_UNIX, type, 0, ends); }), ends);
}

int eventfd() {
  return retried([] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); });
}

int accept(int listener, SockAddr* peer) {
  peer->length = sizeof peer->storage;
  return made(retried([=] {
    return ::accept4(listener, reinterpret_cast<sockaddr*>(&peer->storage), &peer->length,
                     SOCK_CLOEXEC | SOCK_NONBLOCK);
  }));
}

void set_pipe_size(int fd, int bytes) { static_cast<void>(::fcntl(fd, F_SETPIPE_SZ, bytes)); }

int poll(pollfd* set, std::size_t count, Micros timeout) {
  // ppoll(2) counts in nanoseconds, poll(2) in milliseconds.
  const timespec limit{timeout / 1'000'000, (timeout % 1'000'000) * 1'000};
  const int ready = ::ppoll(set, count, timeout < 0 ? nullptr : &limit, nullptr);
  return ready < 0 ? -errno : ready;
}

long send_file(int to, int file, std::uint64_t position, std::size_t length) {
  auto offset = static_cast<off_t>(position);
  return retried([&] { return static_cast<long>(::sendfile(to, file, &offset, length)); });
}

namespace {

// glibc's cpu_set_t ends at 1,024, and the kernel answers EINVAL to a set that is smaller than its
// own (sched_setaffinity(2)); Linux is built for at most 8,192.
struct ProcessorSet {
  static constexpr std::uint32_t kMax = 8'192;
  static constexpr std::uint32_t kBits = sizeof(unsigned long) * 8;
  unsigned long words[kMax / kBits] = {};

  cpu_set_t* as_kernels() { return reinterpret_cast<cpu_set_t*>(words); }
};

}  // namespace

int processors(std::uint32_t* out, std::size_t max) {
  ProcessorSet set;
  if (::sched_getaffinity(0, sizeof set.words, set.as_kernels()) < 0) return -errno;
  std::size_t count = 0;
  for (std::uint32_t at = 0; at < ProcessorSet::kMax && count < max; ++at)
    if (set.words[at / ProcessorSet::kBits] >> at % ProcessorSet::kBits & 1) out[count++] = at;
  return static_cast<int>(count);
}

int bind_thread(std::uint32_t processor) {
  if (processor >= ProcessorSet::kMax) return -EINVAL;
  ProcessorSet set;
  set.words[processor / ProcessorSet::kBits] = 1UL << processor % ProcessorSet::kBits;
  return ::sched_setaffinity(0, sizeof set.words, set.as_kernels()) < 0 ? -errno : 0;
}

namespace kernel {

int open_socket(int family, int type) {
  return made(retried([=] { return ::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }));
}

int share_port(int fd) { return set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1); }

// It saves a wake-up and changes nothing else, so a kernel without it is no failure.
int defer_accept(int fd) {
  const int status = set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1);
  return status == -ENOPROTOOPT ? 0 : status;
}

int set_keep_idle(int fd, int seconds) {
  return set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
}

}  // namespace kernel

}  // namespace multiloop::sys

#endif
