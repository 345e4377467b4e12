// epoll(7): the interest lives in the kernel, so a wait costs what is ready and not what is idle.
// Regular files are refused by the kernel (EPERM), as the feature bits say.
//
// The kernel's key is the open file and not the number (epoll(7), Q&A 6): a descriptor that is
// closed while a duplicate is alive stays in the set, goes on being reported under a number that
// may be another file's by now, and cannot be taken out. Every registration therefore carries a
// generation, and a report of one that is over makes the set be built anew. libev does the same.
#include "../platform.h"

#ifdef ML_HAVE_EPOLL

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <vector>

#include "../backend.h"
#include "../check.h"
#include "../sys.h"

namespace multiloop {

namespace {

// Records taken from the kernel per wait. More stay there and are reported next time, in turn.
constexpr int kEventsPerWait = 1'024;

// Since Linux 4.5; the headers may be older.
constexpr std::uint32_t kExclusive = 1U << 28;

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
    Registration& known = registration(fd);
    if (after == 0) return remove(fd, &known);
    if (known.exclusive) return change_exclusive(fd, after, &known);
    const int first = before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    int status = control(first, fd, after, &known);
    // A number that was closed and opened again is unknown to the kernel although we remember it;
    // one that was dup2'ed over is known although we forgot it (epoll(7), Q&A 6).
    if (first == EPOLL_CTL_MOD && status == -ENOENT)
      status = control(EPOLL_CTL_ADD, fd, after, &known);
    if (first == EPOLL_CTL_ADD && status == -EEXIST)
      status = control(EPOLL_CTL_MOD, fd, after, &known);
    if (status == 0) known.mask = after;
    return status;
  }

  void wake_alone(int fd, bool alone) override { registration(fd).exclusive = alone; }

  int wait(Micros timeout, std::span<Ready> out) override {
    const int room = std::min<int>(kEventsPerWait, static_cast<int>(out.size()));
    ML_CHECK(room > 0);
    const int count = wait_kernel(timeout, room);
    if (count == -EINTR) return 0;
    int told = 0;
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events_[i];
      const auto fd = static_cast<int>(event.data.u64 & UINT32_MAX);
      const Registration& known = registrations_[static_cast<std::size_t>(fd)];
      if (known.mask == 0 || known.generation != event.data.u64 >> 32)
        stale_ = true;
      else
        out[static_cast<std::size_t>(told++)] = {fd, from_kernel(event.events)};
    }
    if (stale_) renew();
    return count < 0 ? count : told;
  }

  int pollable_fd() const override { return fd_; }
  std::uint32_t renewals() const override { return renewals_; }

 private:
  struct Registration {
    Mask mask = 0;
    std::uint32_t generation = 0;
    bool exclusive = false;
  };

  Registration& registration(int fd) {
    const auto number = static_cast<std::size_t>(fd);
    if (number >= registrations_.size()) registrations_.resize(number + number / 2 + 16);
    return registrations_[number];
  }

  int control(int operation, int fd, Mask mask, Registration* known) {
    if (operation == EPOLL_CTL_ADD) ++known->generation;
    return control_in(fd_, operation, fd, mask, *known);
  }

  static int control_in(int set, int operation, int fd, Mask mask, const Registration& known) {
    epoll_event event{};
    event.events = to_kernel(mask) | (known.exclusive ? kExclusive : 0U);
    event.data.u64 =
        static_cast<std::uint64_t>(known.generation) << 32 | static_cast<std::uint32_t>(fd);
    return ::epoll_ctl(set, operation, fd, &event) == 0 ? 0 : -errno;
  }

  // EPOLL_CTL_MOD is refused for it (epoll_ctl(2), EPOLLEXCLUSIVE). Whoever is added is the last of
  // those that wait for the file, and the first that is not busy is woken (Linux, eventpoll.c,
  // ep_ptable_queue_proc): one that adds itself again lets the others have their turn. What is
  // ready is reported to it all the same.
  int change_exclusive(int fd, Mask after, Registration* known) {
    static_cast<void>(control(EPOLL_CTL_DEL, fd, 0, known));
    int status = control(EPOLL_CTL_ADD, fd, after, known);
    if (status == -EINVAL) {
      // Linux before 4.5 does not know it, and of some files no kernel allows it.
      known->exclusive = false;
      status = control(EPOLL_CTL_ADD, fd, after, known);
    }
    known->mask = status == 0 ? after : 0;
    return status;
  }

  int remove(int fd, Registration* known) {
    const int status = control(EPOLL_CTL_DEL, fd, 0, known);
    known->mask = 0;
    known->exclusive = false;
    // Closed already, or never accepted: it is not in the set, which is what was asked for. If a
    // duplicate keeps it there, its reports are those of a registration that is over.
    return status == -ENOENT || status == -EBADF || status == -EPERM ? 0 : status;
  }

  // A new set under the old number, with all that is still wanted in it. Where the kernel has
  // nothing to spare the next wait tries again.
  void renew() {
    const int set = ::epoll_create1(EPOLL_CLOEXEC);
    if (set < 0) return;
    // Refused for a number past a limit that was lowered after it was given out (EBADF).
    const bool replaced = ::dup3(set, fd_, O_CLOEXEC) == fd_;
    sys::close(set);
    if (!replaced) return;
    ++renewals_;
    stale_ = false;
    // After the old set is gone: the number of watches is limited (epoll(7), max_user_watches).
    for (std::size_t number = 0; number < registrations_.size(); ++number) {
      const Registration& known = registrations_[number];
      const auto fd = static_cast<int>(number);
      if (known.mask == 0) continue;
      // What was closed meanwhile is refused, as it would have left the old set by itself.
      const int status = control_in(fd_, EPOLL_CTL_ADD, fd, known.mask, known);
      if (status == -ENOMEM || status == -ENOSPC) stale_ = true;
    }
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
  bool stale_ = false;
  std::uint32_t renewals_ = 0;
  std::vector<Registration> registrations_;  // by descriptor
  epoll_event events_[kEventsPerWait];
};

}  // namespace

std::unique_ptr<Backend> create_epoll(int* error) {
  const int fd = ::epoll_create1(EPOLL_CLOEXEC);
  *error = fd < 0 ? -errno : 0;
  return fd < 0 ? nullptr : std::make_unique<Epoll>(fd);
}

}  // namespace multiloop

#endif  // ML_HAVE_EPOLL
