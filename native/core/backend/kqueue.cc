// kqueue(2) of macOS and the BSDs. What is waited for is a knote for each descriptor and filter:
// EVFILT_READ for READ and CLOSED, EVFILT_WRITE for WRITE. Changes that need no answer are
// submitted with the wait, in one call.
//
// What differs from epoll, with its source:
//   - A close takes the number's knotes along, duplicates or not (kqueue(2), "Calling close() on a
//     file descriptor will remove any kevents that reference the descriptor"). So there are no
//     ghosts, and what was told of a number that is used again is gone: EV_DELETE of it answers
//     ENOENT, or EBADF while the number is free, and both mean that it is out already.
//   - EV_ADD of a knote that is there changes its `fflags`, `data` and `udata`, but neither
//   EV_CLEAR
//     nor any other flag (FreeBSD, sys/kern/kern_event.c, kqueue_register). From level to edge and
//     back it is deleted and added.
//   - An error of one change is an entry of the answer if there is room for it, else the whole call
//     fails and the changes behind it are lost (kqueue(2), RETURN VALUES); with errors to tell, the
//     kernel looks at no events (kern_event.c, kqueue_kevent). With EINTR all changes are made.
//   - A vnode is readable while the offset is not the end, and EVFILT_WRITE is "not supported for
//     vnodes" (kqueue(2)), where poll(2) says always ready to both. What is asked for is the
//     latter, so regular files are kept here and not in the kernel.
//   - EVFILT_WRITE of a pipe that nobody reads is refused with EPIPE (FreeBSD, sys_pipe.c,
//     pipe_kqfilter; NetBSD says EBADF, by libevent's kqueue.c, kq_dispatch). Its writer has to
//     meet that in its write, so it is kept here as always ready too.
//   - Some devices have no filter and answer EINVAL, on macOS even terminals (libuv, stream.c,
//     uv__stream_try_select). That is an error of add().
//   - `udata` is a pointer here and an integer there (NetBSD before 10), and fields differ in
//   width:
//     it is not used, since `ident` says all, and the others are assigned with casts.
#include "../platform.h"

#ifdef ML_HAVE_KQUEUE

#include <sys/event.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <ctime>
#include <vector>

#include "../backend.h"
#include "../check.h"
#include "../sys.h"
#include "../waker.h"

namespace multiloop {

namespace {

// Records taken from the kernel per wait. More stay there and are reported next time, in turn.
constexpr std::size_t kEventsPerWait = 1'024;
// Changes kept for the wait; one more tells them at once.
constexpr std::size_t kChangesMax = kEventsPerWait;

using Kevent = struct kevent;

Kevent make(int fd, int filter, int flags, std::uint32_t fflags = 0, int data = 0) {
  Kevent one{};
  one.ident = static_cast<decltype(one.ident)>(fd);
  one.filter = static_cast<decltype(one.filter)>(filter);
  one.flags = static_cast<decltype(one.flags)>(flags);
  one.fflags = static_cast<decltype(one.fflags)>(fflags);
  one.data = data;
  return one;
}

// The kqueue, shared with the wakers of inboxes: their wake-ups may come when the base is gone.
class Queue final : public WakeTarget {
 public:
  explicit Queue(int fd) : fd_(fd) {}
  ~Queue() override { sys::close(fd_); }

  int fd() const { return fd_; }

  // Makes changes without looking at events. 0 or -errno of a call that failed as a whole.
  int change(const Kevent* changes, std::size_t count) const {
    const int made = ::kevent(fd_, changes, static_cast<int>(count), nullptr, 0, nullptr);
    return made < 0 ? -errno : 0;
  }

#ifdef EVFILT_USER
  // EV_CLEAR: reported once, however often it was triggered, and nothing has to be taken out.
  bool open_wake() const {
    const Kevent one = make(kWakeIdent, EVFILT_USER, EV_ADD | EV_CLEAR);
    return change(&one, 1) == 0;
  }
  void wake() const override {
    const Kevent one = make(kWakeIdent, EVFILT_USER, 0, NOTE_TRIGGER);
    ML_CHECK(change(&one, 1) == 0);
  }
#else
  bool open_wake() const { return false; }
  void wake() const override {}
#endif

 private:
  static constexpr int kWakeIdent = 1;

  const int fd_;
};

bool has_filter(Mask mask, int filter) {
  return (mask & (filter == EVFILT_READ ? kRead | kClosed : kWrite)) != 0;
}

class Kqueue final : public Backend {
 public:
  explicit Kqueue(std::shared_ptr<Queue> queue) : queue_(std::move(queue)) {}
  ~Kqueue() override {
    for (const int end : spare_pipe_)
      if (end >= 0) sys::close(end);
  }

  int change(int fd, Mask before, Mask after) override {
    static_cast<void>(before);
    Registration& known = registration(fd);
    // What is kept of this number is older than what is told now, and may be of another file.
    const auto ident = static_cast<decltype(Kevent::ident)>(fd);
    if (std::erase_if(kept_, [ident](const Kevent& one) { return one.ident == ident; }) > 0)
      known.unsure = true;
    if (after == 0) return remove(fd, &known);
    bool is_vnode = false;
    if (const int status = look_at(fd, &is_vnode); status < 0) return status;
    if (is_vnode) return keep_ready(fd, &known, after);
    return add(fd, &known, after);
  }

  int change_later(int fd, Mask before, Mask after) override {
    Registration& known = registration(fd);
    if (known.always || known.quiet || known.mask != before || (before & kEdge) != (after & kEdge))
      return change(fd, before, after);
    if (kept_.size() + kFilters > kChangesMax) flush();
    // It certainly is the file that it was, so what it waits for already needs no mention.
    for (const int filter : {EVFILT_READ, EVFILT_WRITE}) {
      const bool had = has_filter(before, filter);
      const bool has = has_filter(after, filter);
      const bool reshaped = filter == EVFILT_READ && ((before ^ after) & kRead) != 0;
      if (has && (!had || reshaped))
        kept_.push_back(adding(fd, filter, after, false));
      else if (had && !has)
        kept_.push_back(make(fd, filter, EV_DELETE));
    }
    known.mask = after;
    return 0;
  }

  void flush() override {
    submitted_.swap(kept_);
    kept_.clear();
    submit(submitted_.data(), submitted_.size(), [this](const Kevent& one, int error) {
      if (error != 0) refuse(static_cast<int>(one.ident), one.filter, error);
    });
    submitted_.clear();
  }

  int take_refused() override {
    if (refused_.empty()) return -1;
    const int fd = refused_.back();
    refused_.pop_back();
    return fd;
  }

  int wait(Micros timeout, std::span<Ready> out) override {
    ML_CHECK(!out.empty());
    if (!always_.empty()) timeout = 0;
    const std::size_t own = tell_always(out);
    const std::size_t room = std::min(out.size() - own, kEventsPerWait);
    if (kept_.size() > room) flush();
    if (!refused_.empty()) timeout = 0;
    if (room == 0) return static_cast<int>(own);
    std::size_t told = own;
    int count = ask(timeout, room);
    // With errors the kernel has looked at the changes only. What it refused is told now.
    if (count > 0 && take_errors(count))
      count = failure_ == 0 ? ask(refused_.empty() ? timeout : 0, room) : 0;
    for (int i = 0; i < count; ++i) tell(events_[i], out, &told);
    for (std::size_t i = own; i < told; ++i) registration(out[i].fd).place = 0;
    if (told > 0) return static_cast<int>(told);
    const int error = count < 0 && count != -EINTR ? count : failure_;
    failure_ = 0;
    return error;
  }

  int pollable_fd() const override { return queue_->fd(); }

  std::shared_ptr<const WakeTarget> wake_target() override {
    if (!woken_) woken_ = queue_->open_wake();
    return woken_ ? queue_ : nullptr;
  }

 private:
  static constexpr std::size_t kFilters = 2;

  struct Registration {
    Mask mask = 0;            // what the kernel was told, or will be with the wait
    bool unsure = false;      // … or something else: what was kept was dropped
    bool quiet = false;       // see hush()
    bool always = false;      // it is kept here as always ready, and not in the kernel
    std::uint32_t place = 0;  // in the answer of this wait, from 1

    bool told(int filter) const { return !always && (unsure || has_filter(mask, filter)); }
  };

  Registration& registration(int fd) {
    const auto number = static_cast<std::size_t>(fd);
    if (number >= registrations_.size()) registrations_.resize(number + number / 2 + 16);
    return registrations_[number];
  }

  // ── what the kernel is told ───────────────────────────────────────────────────────────────

  // For CLOSED alone the low-water mark is out of reach, so that only the end is told. It is for
  // sockets, and macOS bounds it by the receive buffer (kqueue(2)): see `quiet`.
  static Kevent adding(int fd, int filter, Mask mask, bool quiet) {
    const int flags =
        (mask & kEdge) || (quiet && filter == EVFILT_READ) ? EV_ADD | EV_CLEAR : EV_ADD;
    if (filter == EVFILT_READ && !(mask & kRead))
      return make(fd, filter, flags, NOTE_LOWAT, INT_MAX);
    return make(fd, filter, flags);
  }

  static int look_at(int fd, bool* is_vnode) {
    struct stat found;
    if (::fstat(fd, &found) != 0) return -errno;
    *is_vnode = S_ISREG(found.st_mode) || S_ISDIR(found.st_mode);
    return 0;
  }

  // Makes changes at once and tells what became of each, without touching the events that wait.
  template <typename Answer>
  void submit(const Kevent* changes, std::size_t count, Answer answer) {
#ifdef EV_RECEIPT
    receipts_.assign(changes, changes + count);
    for (Kevent& one : receipts_) one.flags |= EV_RECEIPT;
    const auto size = static_cast<int>(count);
    const int told =
        ::kevent(queue_->fd(), receipts_.data(), size, receipts_.data(), size, nullptr);
    // A receipt for each, or the call was wrong as a whole.
    const int error = told < 0 ? errno : 0;
    ML_CHECK(told < 0 || told == size);
    for (std::size_t i = 0; i < count; ++i)
      answer(changes[i], told < 0 ? error : static_cast<int>(receipts_[i].data));
#else
    for (std::size_t i = 0; i < count; ++i) answer(changes[i], -queue_->change(&changes[i], 1));
#endif
  }

  int remove(int fd, Registration* known) {
    Kevent changes[kFilters];
    std::size_t count = 0;
    for (const int filter : {EVFILT_READ, EVFILT_WRITE})
      if (known->told(filter)) changes[count++] = make(fd, filter, EV_DELETE);
    drop_always(fd, known);
    *known = {};
    // Whatever is answered, it is out: ENOENT and EBADF say that it was, as a close takes it along.
    if (count > 0) submit(changes, count, [](const Kevent&, int) {});
    return 0;
  }

  int add(int fd, Registration* known, Mask after) {
    const bool reflagged = known->unsure || known->quiet || ((known->mask ^ after) & kEdge) != 0;
    Kevent changes[2 * kFilters];
    std::size_t count = 0;
    for (const int filter : {EVFILT_READ, EVFILT_WRITE}) {
      const bool has = has_filter(after, filter);
      if (known->told(filter) && (!has || reflagged))
        changes[count++] = make(fd, filter, EV_DELETE);
      // Told again although it may be there: the number may be another file's.
      if (has) changes[count++] = adding(fd, filter, after, false);
    }
    int failure = 0;
    bool no_reader = false;
    submit(changes, count, [&](const Kevent& one, int error) {
      if (error == 0 || (one.flags & EV_DELETE)) return;
      if (is_no_reader(one.filter, error))
        no_reader = true;
      else
        failure = -error;
    });
    if (failure != 0) {
      restore(fd, *known);
      return failure;
    }
    drop_always(fd, known);
    *known = {};
    known->mask = after;
    return no_reader ? keep_ready(fd, known, after) : 0;
  }

  static bool is_no_reader(int filter, int error) {
    return filter == EVFILT_WRITE && error == EPIPE;
  }

  // The interest is as it was, as far as the kernel lets it.
  void restore(int fd, const Registration& known) {
    for (const int filter : {EVFILT_READ, EVFILT_WRITE}) {
      const Kevent changes[] = {make(fd, filter, EV_DELETE),
                                adding(fd, filter, known.mask, known.quiet)};
      const bool had = !known.always && has_filter(known.mask, filter);
      submit(changes, had ? 2 : 1, [](const Kevent&, int) {});
    }
  }

  // A change that was kept has failed, as `error` says.
  void refuse(int fd, int filter, int error) {
    Registration& known = registration(fd);
    // One that was to be taken out is out: it was closed, or its number is another file's.
    if (error == ENOENT || known.mask == 0) return;
    if (is_no_reader(filter, error)) {
      static_cast<void>(keep_ready(fd, &known, known.mask));
      return;
    }
    if (error == ENOMEM || error == ENOSPC) {
      // Told again with the next wait.
      kept_.push_back(adding(fd, filter, known.mask, false));
      failure_ = -error;
      return;
    }
    static_cast<void>(remove(fd, &known));
    refused_.push_back(fd);
  }

  // ── what is always ready ──────────────────────────────────────────────────────────────────

  // From now on every wait tells that `fd` is ready, or the next one, if it is edge-triggered.
  int keep_ready(int fd, Registration* known, Mask mask) {
    const bool told = (mask & (kRead | kWrite)) != 0;
    if (told) {
      if (const int status = open_spare_pipe(); status < 0) return status;
    }
    static_cast<void>(remove(fd, known));
    known->mask = mask;
    known->always = true;
    if (told) always_.push_back(fd);
    return told && always_.size() == 1 ? watch_spare_pipe() : 0;
  }

  void drop_always(int fd, Registration* known) {
    if (!known->always) return;
    known->always = false;
    if (std::erase(always_, fd) > 0 && always_.empty()) unwatch_spare_pipe();
  }

  // Who waits for the kqueue's own descriptor must see that something is ready: a pipe that nothing
  // is written to has room for ever.
  int open_spare_pipe() { return spare_pipe_[0] < 0 ? sys::pipe(spare_pipe_) : 0; }
  int watch_spare_pipe() const {
    const Kevent one = make(spare_pipe_[1], EVFILT_WRITE, EV_ADD);
    return queue_->change(&one, 1);
  }
  void unwatch_spare_pipe() const {
    const Kevent one = make(spare_pipe_[1], EVFILT_WRITE, EV_DELETE);
    static_cast<void>(queue_->change(&one, 1));
  }

  // At most about half of the answer, so that neither they nor the others starve.
  std::size_t tell_always(std::span<Ready> out) {
    if (always_.empty()) return 0;
    favoured_ = !favoured_;
    const std::size_t share = std::min(always_.size(), (out.size() + (favoured_ ? 1 : 0)) / 2);
    std::size_t told = 0;
    for (std::size_t seen = always_.size(); seen > 0 && told < share; --seen) {
      if (++always_at_ >= always_.size()) always_at_ = 0;
      const int fd = always_[always_at_];
      Registration& known = registration(fd);
      const bool closed = sys::check_open(fd) < 0;
      if (!closed) out[told++] = {fd, static_cast<Mask>(known.mask & (kRead | kWrite))};
      if (!closed && !(known.mask & kEdge)) continue;
      // A closed one is out of every set of a kernel, and of this one.
      always_.erase(always_.begin() + static_cast<std::ptrdiff_t>(always_at_));
      if (closed) known = {};
      if (always_.empty()) unwatch_spare_pipe();
    }
    return told;
  }

  // ── the wait ──────────────────────────────────────────────────────────────────────────────

  int ask(Micros timeout, std::size_t room) {
    const timespec limit{timeout / 1'000'000, (timeout % 1'000'000) * 1'000};
    const int count = ::kevent(queue_->fd(), kept_.data(), static_cast<int>(kept_.size()), events_,
                               static_cast<int>(room), timeout < 0 ? nullptr : &limit);
    const int status = count < 0 ? -errno : count;
    kept_.clear();
    return status;
  }

  // Answers whether the kernel has told of errors instead of events.
  bool take_errors(int count) {
    bool found = false;
    for (int i = 0; i < count; ++i) {
      const Kevent& one = events_[i];
      if (!(one.flags & EV_ERROR)) continue;
      found = true;
      refuse(static_cast<int>(one.ident), one.filter, static_cast<int>(one.data));
    }
    return found;
  }

  void tell(const Kevent& event, std::span<Ready> out, std::size_t* told) {
    if (event.filter != EVFILT_READ && event.filter != EVFILT_WRITE) return;
    const auto fd = static_cast<int>(event.ident);
    if (fd == spare_pipe_[1]) return;
    Registration& known = registration(fd);
    const Mask what = what_of(event, fd, &known);
    if (what == 0) return;
    // Two filters of one descriptor are one report.
    if (known.place != 0) {
      out[known.place - 1].what |= what;
      return;
    }
    out[*told] = {fd, what};
    known.place = static_cast<std::uint32_t>(++*told);
  }

  Mask what_of(const Kevent& event, int fd, Registration* known) {
    const bool end = (event.flags & EV_EOF) != 0;
    // At an end `fflags` is the error of the socket, if there is one (kqueue(2)).
    if (end && event.fflags != 0 && known->mask != 0) return kRead | kWrite;
    if (event.filter == EVFILT_WRITE) return known->mask & kWrite;
    if (!(known->mask & kRead)) hush(fd, end, known);
    return known->mask & (end ? kRead | kClosed : kRead);
  }

  // For CLOSED alone, data that nobody waits for would end every wait at once. From then on only
  // what is new is told, until the end: that is there to stay, and every wait has to tell it.
  void hush(int fd, bool end, Registration* known) {
    if ((known->mask & kEdge) || known->quiet != end) return;
    known->quiet = !end;
    kept_.push_back(make(fd, EVFILT_READ, EV_DELETE));
    kept_.push_back(adding(fd, EVFILT_READ, known->mask, known->quiet));
  }

  const std::shared_ptr<Queue> queue_;
  bool woken_ = false;
  std::vector<Registration> registrations_;  // by descriptor
  std::vector<Kevent> kept_;                 // for the wait
  std::vector<Kevent> submitted_;
  std::vector<Kevent> receipts_;
  std::vector<int> refused_;
  int failure_ = 0;  // -errno of a kernel out of memory
  std::vector<int> always_;
  std::size_t always_at_ = 0;
  bool favoured_ = false;
  int spare_pipe_[2] = {-1, -1};
  Kevent events_[kEventsPerWait];
};

}  // namespace

std::unique_ptr<Backend> create_kqueue(int* error) {
  const int fd = ::kqueue();
  *error = fd < 0 ? -errno : 0;
  if (fd < 0) return nullptr;
  auto queue = std::make_shared<Queue>(fd);
  // It is not inherited by a child of fork(2), but the number is by a program that it starts.
  *error = sys::set_close_on_exec(fd);
  return *error < 0 ? nullptr : std::make_unique<Kqueue>(std::move(queue));
}

}  // namespace multiloop

#endif  // ML_HAVE_KQUEUE
