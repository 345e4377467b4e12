// epoll(7): the interest lives in the kernel, so a wait costs what is ready and not what is idle.
// Regular files are refused by the kernel (EPERM), as the feature bits say.
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "../backend.h"
#include "../check.h"
#include "../sys.h"

namespace multiloop {

namespace {

// Records taken from the kernel per wait. More stay there and are reported next time, in turn.
constexpr int kEventsPerWait = 1'024;

std::uint32_t to_kernel(Mask mask) {
  std::uint32_t events = 0;
  if (mask & kRead) events |= EPOLLIN;
  if (mask & kWrite) events |= EPOLLOUT;
  if (mask & kClosed) events |= EPOLLRDHUP;
  if (mask & kEdge) events |= EPOLLET;
  return events;
}

Mask from_kernel(std::uint32_t events) {
  // EPOLLERR and EPOLLHUP are reported unasked; a hang-up with RDHUP is told apart as CLOSED, as
  // libevent does (epoll.c, epoll_dispatch).
  if (events & EPOLLERR) return kRead | kWrite;
  if ((events & EPOLLHUP) && !(events & EPOLLRDHUP)) return kRead | kWrite;
  Mask what = 0;
  if (events & EPOLLIN) what |= kRead;
  if (events & EPOLLOUT) what |= kWrite;
  if (events & EPOLLRDHUP) what |= kClosed;
  if (events & EPOLLHUP) what |= kRead | kWrite;
  return what;
}

class Epoll final : public Backend {
 public:
  explicit Epoll(int fd) : fd_(fd) {}
  ~Epoll() override { sys::close(fd_); }

  int change(int fd, Mask before, Mask after) override {
    if (after == 0) return remove(fd);
    epoll_event event{};
    event.events = to_kernel(after);
    event.data.fd = fd;
    const int first = before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    int status = control(first, fd, &event);
    // A number that was closed and opened again is unknown to the kernel although we remember it;
    // one that was dup2'ed over is known although we forgot it (epoll(7), Q&A 6).
    if (first == EPOLL_CTL_MOD && status == -ENOENT) status = control(EPOLL_CTL_ADD, fd, &event);
    if (first == EPOLL_CTL_ADD && status == -EEXIST) status = control(EPOLL_CTL_MOD, fd, &event);
    return status;
  }

  int wait(Micros timeout, std::span<Ready> out) override {
    const int room = std::min<int>(kEventsPerWait, static_cast<int>(out.size()));
    ML_CHECK(room > 0);
    const int count = wait_kernel(timeout, room);
    if (count == -EINTR) return 0;
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events_[i];
      out[static_cast<std::size_t>(i)] = {event.data.fd, from_kernel(event.events)};
    }
    return count;
  }

  int pollable_fd() const override { return fd_; }

 private:
  int control(int operation, int fd, epoll_event* event) {
    return ::epoll_ctl(fd_, operation, fd, event) == 0 ? 0 : -errno;
  }

  int remove(int fd) {
    epoll_event unused{};
    const int status = control(EPOLL_CTL_DEL, fd, &unused);
    // Closed already, or never accepted: it is not in the set, which is what was asked for.
    return status == -ENOENT || status == -EBADF || status == -EPERM ? 0 : status;
  }

  int wait_kernel(Micros timeout, int room) {
#ifdef SYS_epoll_pwait2
    // Nanosecond timeouts exist since Linux 5.11. Old kernels answer ENOSYS and some sandboxes
    // EPERM, so it is probed at run time (libevent issue 1496 decided it when compiling).
    if (precise_ && timeout > 0) {
      const timespec limit{timeout / 1'000'000, (timeout % 1'000'000) * 1'000};
      const long count = ::syscall(SYS_epoll_pwait2, fd_, events_, room, &limit, nullptr, 0);
      if (count >= 0) return static_cast<int>(count);
      if (errno != ENOSYS && errno != EPERM) return -errno;
      precise_ = false;
    }
#endif
    // Rounded up: waking a moment late is allowed, waking early would spin.
    const Micros millis = timeout < 0 ? -1 : std::min<Micros>((timeout + 999) / 1'000, INT_MAX);
    const int count = ::epoll_wait(fd_, events_, room, static_cast<int>(millis));
    return count >= 0 ? count : -errno;
  }

  const int fd_;
  bool precise_ = true;
  epoll_event events_[kEventsPerWait];
};

}  // namespace

std::unique_ptr<Backend> create_epoll(int* error) {
  const int fd = ::epoll_create1(EPOLL_CLOEXEC);
  *error = fd < 0 ? -errno : 0;
  return fd < 0 ? nullptr : std::make_unique<Epoll>(fd);
}

}  // namespace multiloop
