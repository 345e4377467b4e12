// io_uring(7), by its system calls: what is waited for is an IORING_OP_POLL_ADD for each
// descriptor, and all changes of a turn are submitted by the call that waits.
//
// Level-triggered interest is polls that complete once. Whatever completes is submitted again with
// the next wait, where the kernel looks at the file anew; so what is still ready is told again, and
// a completion that came while callbacks ran, one of which may have read everything, is not told
// but looked at again. (IORING_POLL_ADD_LEVEL of Linux 6.0 is no level: it tells no more than each
// wake-up either.) Edges are polls that go on (IORING_POLL_ADD_MULTI).
//
// What differs from epoll, with its source:
//   - A poll holds the file open, and no close(2) ends it: where somebody else than the base closes
//     a descriptor that is waited for, the other end sees nothing of that until the event is
//     removed, or the number is told anew. What base and runtime close is taken out before. So
//     there are no ghosts: a poll is ended by what it was submitted as, not by its number.
//   - Error, hang-up and RDHUP always complete a poll, asked for or not (Linux, io_uring/poll.c,
//     IO_POLL_UNMASK). A writer whose peer sends no more and reads no more either would complete at
//     once for ever; such a one is polled by edges until it is writable.
//   - IORING_SETUP_DEFER_TASKRUN is not used: work that is deferred does not wake who polls the
//     ring (seen on 6.18), as libuv does. IORING_SETUP_COOP_TASKRUN is; IORING_SQ_TASKRUN then says
//     that completions wait for the next entry into the kernel.
//   - A completion interrupts the thread's own blocking calls as a signal with SA_RESTART would.
//   - On close(2) of a ring its polls end some time later (io_ring_exit_work), so they are ended
//     before. The thread is then interrupted once more, by the end of the ring itself.
#include "../platform.h"

#if defined(ML_HAVE_IO_URING) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <linux/time_types.h>
#endif

#include <cerrno>

#include "../backend.h"

#if defined(ML_HAVE_IO_URING) && defined(IORING_FEAT_CQE_SKIP)

#include <poll.h>

#include <algorithm>
#include <vector>

#include "../check.h"
#include "../sys.h"
#include "io_uring_ring.h"

namespace multiloop {

namespace {

// What takes a poll out answers with this: no descriptor has the number.
constexpr std::uint64_t kRemoval = UINT32_MAX;

// ── masks ───────────────────────────────────────────────────────────────────────────────────

std::uint32_t to_kernel(Mask mask) {
  std::uint32_t events = 0;
  if (mask & kRead) events |= POLLIN;
  if (mask & kWrite) events |= POLLOUT;
  if (mask & kClosed) events |= POLLRDHUP;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  // "word-reversed for BE" (linux/io_uring.h).
  events = events << 16 | events >> 16;
#endif
  return events;
}

// RDHUP comes unasked; an error and a hang-up are told to whoever waits, as by the other backends.
Mask from_kernel(std::uint32_t events, Mask asked) {
  Mask what = 0;
  if (events & POLLIN) what |= kRead;
  if (events & POLLOUT) what |= kWrite;
  if (events & POLLRDHUP) what |= kClosed;
  what &= asked;
  if (events & (POLLERR | POLLHUP | POLLNVAL)) what |= kRead | kWrite;
  return what;
}

// ── the backend ─────────────────────────────────────────────────────────────────────────────

class IoUring final : public Backend {
 public:
  ~IoUring() override {
    for (std::size_t fd = 0; fd < registrations_.size(); ++fd) disarm(static_cast<int>(fd));
    static_cast<void>(end_removals());
  }

  int open() { return ring_.open(); }

  int change(int fd, Mask before, Mask after) override {
    if (after != 0) {
      // The kernel would say it with the coming wait; the caller is told now.
      if (const int status = sys::check_open(fd); status < 0) return status;
      return change_later(fd, before, after);
    }
    static_cast<void>(change_later(fd, before, 0));
    // Its file may be about to be closed.
    return end_removals();
  }

  // What is armed is taken out even if it seems to be what is asked for: that may be another file.
  int change_later(int fd, Mask before, Mask after) override {
    static_cast<void>(before);
    Registration& known = registration(fd);
    disarm(fd);
    known.mask = after;
    known.by_edges = false;
    if (after != 0) enqueue(fd);
    return 0;
  }

  void flush() override {
    requeue_told();
    while (has_unflushed()) {
      fill();
      // What could not be submitted is with the coming wait, which tells the error.
      if (ring_.enter(0, 0) < 0) break;
    }
    // Completions that mean nothing would make the ring readable for nothing.
    while (const io_uring_cqe* one = ring_.first()) {
      if (is_current(*one) && !says_nothing(*one)) break;
      ring_.pop();
    }
  }
  bool has_unflushed() const override {
    return !removals_.empty() || queue_at_ < queue_.size() || !told_.empty();
  }

  bool holds_files() const override { return true; }

  int take_refused() override {
    if (refused_.empty()) return -1;
    const int fd = refused_.back();
    refused_.pop_back();
    return fd;
  }

  int wait(Micros timeout, std::span<Ready> out) override {
    ML_CHECK(!out.empty());
    ++waits_;
    out_ = out;
    count_ = 0;
    failure_ = 0;
    if (const int status = collect_early(); status < 0) return status;
    requeue_told();
    const Micros deadline = timeout > 0 ? monotonic_now() + timeout : timeout;
    for (;;) {
      // What is taken out answers once, at least (and twice if it has just completed).
      const std::uint32_t answers = 1 + fill();
      const bool more = has_queued();
      const bool block = !more && timeout != 0 && count_ == 0 && refused_.empty();
      const int status = ring_.enter(block ? answers : 0, timeout);
      const bool answered = collect();
      if (count_ == out_.size()) break;
      if (status < 0 && status != -ETIME && status != -EINTR) failure_ = status;
      if (failure_ != 0) break;
      if (has_queued()) continue;
      // Completions that mean nothing end the call, and not the wait.
      if (!block || !answered || count_ > 0 || !refused_.empty()) break;
      if (timeout > 0) timeout = std::max<Micros>(0, deadline - monotonic_now());
    }
    return count_ > 0 ? static_cast<int>(count_) : failure_;
  }

  int pollable_fd() const override { return ring_.fd(); }

 private:
  struct Registration {
    Mask mask = 0;
    bool armed = false;     // the kernel has a poll of it
    bool queued = false;    // it is in `queue_`
    bool by_edges = false;  // level-triggered, but completes at once with what was not asked for
    std::uint32_t generation = 0;  // of its last poll
    std::uint32_t told_in = 0;     // the wait that told of it last
    std::uint32_t place = 0;       // where
  };

  Registration& registration(int fd) {
    const auto number = static_cast<std::size_t>(fd);
    if (number >= registrations_.size()) registrations_.resize(number + number / 2 + 16);
    return registrations_[number];
  }

  static std::uint64_t name_of(int fd, const Registration& known) {
    return static_cast<std::uint64_t>(known.generation) << 32 | static_cast<std::uint32_t>(fd);
  }

  bool is_current(const io_uring_cqe& one) const {
    const auto number = static_cast<std::size_t>(one.user_data & UINT32_MAX);
    if (number >= registrations_.size()) return false;
    const Registration& known = registrations_[number];
    return known.armed && known.generation == one.user_data >> 32;
  }

  // Of one that is polled by edges until something happens that it waits for.
  bool says_nothing(const io_uring_cqe& one) const {
    const Registration& known = registrations_[one.user_data & UINT32_MAX];
    return known.by_edges && (one.flags & IORING_CQE_F_MORE) && one.res >= 0 &&
           from_kernel(events(one), known.mask) == 0;
  }

  bool has_queued() const { return queue_at_ < queue_.size() || !removals_.empty(); }

  void enqueue(int fd) {
    Registration& known = registration(fd);
    if (known.queued) return;
    known.queued = true;
    queue_.push_back(fd);
  }

  void requeue_told() {
    for (const int fd : told_) enqueue(fd);
    told_.clear();
  }

  void disarm(int fd) {
    Registration& known = registration(fd);
    if (!known.armed) return;
    known.armed = false;
    removals_.push_back(name_of(fd, known));
  }

  // Puts what is to be submitted into the ring, as far as it has room, in turn. Answers how many
  // polls that takes out.
  std::uint32_t fill() {
    std::uint32_t removed = 0;
    while (removed < removals_.size() && !ring_.is_full()) remove_poll(removals_[removed++]);
    removals_.erase(removals_.begin(), removals_.begin() + static_cast<std::ptrdiff_t>(removed));
    while (queue_at_ < queue_.size() && !ring_.is_full()) {
      const int fd = queue_[queue_at_++];
      Registration& known = registration(fd);
      known.queued = false;
      if (known.mask != 0 && !known.armed) add_poll(fd, &known);
    }
    // It may never run empty, where more is always ready than one wait tells.
    if (queue_at_ > queue_.size() / 2) {
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(queue_at_));
      queue_at_ = 0;
    }
    return removed;
  }

  void add_poll(int fd, Registration* known) {
    ++known->generation;
    known->armed = true;
    io_uring_sqe& entry = ring_.add();
    entry.opcode = IORING_OP_POLL_ADD;
    entry.fd = fd;
    entry.poll32_events = to_kernel(known->mask);
    if ((known->mask & kEdge) || known->by_edges) entry.len = IORING_POLL_ADD_MULTI;
    entry.user_data = name_of(fd, *known);
  }

  void remove_poll(std::uint64_t name) {
    io_uring_sqe& entry = ring_.add();
    entry.opcode = IORING_OP_POLL_REMOVE;
    entry.flags = IOSQE_CQE_SKIP_SUCCESS;
    entry.fd = -1;
    entry.addr = name;
    entry.user_data = kRemoval;
  }

  // Takes out at once what is to be taken out; the rest may have to wait for callbacks.
  int end_removals() {
    while (!removals_.empty()) {
      std::size_t count = 0;
      while (count < removals_.size() && !ring_.is_full()) remove_poll(removals_[count++]);
      removals_.erase(removals_.begin(), removals_.begin() + static_cast<std::ptrdiff_t>(count));
      // What was not submitted stays in the ring and goes with the next call.
      if (const int status = ring_.enter(0, 0); status < 0 && status != -EINTR) return status;
    }
    return 0;
  }

  // What completed before this wait: edges are told, and levels looked at again in it.
  int collect_early() {
    for (int call = 0; call < kEnterCallsMax; ++call) {
      while (const io_uring_cqe* one = ring_.first()) {
        if (is_current(*one)) take_early(*one);
        ring_.pop();
      }
      if (!ring_.has_hidden()) return 0;
      if (const int status = ring_.enter(0, 0); status < 0 && status != -EINTR) return status;
    }
    return 0;
  }

  void take_early(const io_uring_cqe& one) {
    const auto fd = static_cast<int>(one.user_data & UINT32_MAX);
    Registration& known = registration(fd);
    const bool goes_on = (one.flags & IORING_CQE_F_MORE) != 0;
    const bool edge = (known.mask & kEdge) != 0;
    if (edge && one.res >= 0 && tell(fd, &known, one.res)) {
      known.armed = goes_on;
      if (!goes_on) enqueue(fd);
      return;
    }
    if (says_nothing(one)) return;
    if (goes_on)
      disarm(fd);
    else
      known.armed = false;
    known.by_edges = false;
    enqueue(fd);
  }

  // What completed in this wait. Answers whether anything did.
  bool collect() {
    bool any = false;
    while (const io_uring_cqe* one = ring_.first()) {
      if (is_current(*one) && !take(*one)) break;
      ring_.pop();
      any = true;
    }
    return any;
  }

  // False if there is no room for it; it stays in the ring.
  bool take(const io_uring_cqe& one) {
    const auto fd = static_cast<int>(one.user_data & UINT32_MAX);
    Registration& known = registration(fd);
    const bool goes_on = (one.flags & IORING_CQE_F_MORE) != 0;
    if (one.res < 0) {
      known.armed = false;
      refuse(fd, &known, one.res);
      return true;
    }
    if (from_kernel(events(one), known.mask) == 0) {
      // RDHUP alone, unasked: at once again if it were polled as before.
      known.armed = goes_on;
      known.by_edges = true;
      if (!goes_on) enqueue(fd);
      return true;
    }
    if (!tell(fd, &known, one.res)) return false;
    if (known.mask & kEdge) {
      known.armed = goes_on;
      if (!goes_on) told_.push_back(fd);
      return true;
    }
    if (goes_on)
      disarm(fd);
    else
      known.armed = false;
    known.by_edges = false;
    told_.push_back(fd);
    return true;
  }

  static std::uint32_t events(const io_uring_cqe& one) {
    return static_cast<std::uint32_t>(one.res);
  }

  bool tell(int fd, Registration* known, std::int32_t result) {
    const Mask what = from_kernel(static_cast<std::uint32_t>(result), known->mask);
    if (what == 0) return true;
    if (known->told_in == waits_) {
      out_[known->place].what |= what;
      return true;
    }
    if (count_ == out_.size()) return false;
    known->told_in = waits_;
    known->place = static_cast<std::uint32_t>(count_);
    out_[count_++] = {fd, what};
    return true;
  }

  // Closed meanwhile, or replaced by what cannot be polled. A kernel that is short of memory, or
  // has ended a poll by itself, is asked again in the next wait.
  void refuse(int fd, Registration* known, int error) {
    if (error == -ENOMEM || error == -EAGAIN || error == -ECANCELED) {
      told_.push_back(fd);
      failure_ = error;
      return;
    }
    known->mask = 0;
    refused_.push_back(fd);
  }

  IoRing ring_;
  std::vector<Registration> registrations_;  // by descriptor
  std::vector<std::uint64_t> removals_;      // polls to be taken out
  std::vector<int> queue_;                   // descriptors to be polled, from queue_at_ on
  std::size_t queue_at_ = 0;
  std::vector<int> told_;     // … that were told, and are polled again when callbacks have run
  std::vector<int> refused_;  // … that the kernel would not poll
  std::uint32_t waits_ = 0;
  std::span<Ready> out_;  // of the wait that is on
  std::size_t count_ = 0;
  int failure_ = 0;
};

}  // namespace

std::unique_ptr<Backend> create_io_uring(int* error) {
  auto backend = std::make_unique<IoUring>();
  *error = backend->open();
  if (*error < 0) return nullptr;
  return backend;
}

}  // namespace multiloop

#elif defined(ML_HAVE_IO_URING)

namespace multiloop {

// Compiled with a kernel's headers that lack what it takes.
std::unique_ptr<Backend> create_io_uring(int* error) {
  *error = -ENOSYS;
  return nullptr;
}

}  // namespace multiloop

#endif
