// kqueue(2) on Linux, for tests: what the man pages of FreeBSD 14 and macOS say it does, and what
// they say it refuses.
//
// A kqueue is an epoll set, so that its descriptor can be waited for like any other. It has the
// descriptors of EVFILT_READ, a second set with those of EVFILT_WRITE, and an eventfd that is
// readable while something is active of which epoll knows nothing. The knotes, kqueue's own word
// for what is registered, are in a table; the sets only say which of them to look at.
//
// It is not the kernel in this: the error of a socket cannot be looked at without taking it away
// on Linux, so `fflags` is ECONNRESET for any; `data` is the length of no listen queue; a vnode
// that grows is noticed at the next call; and a low-water mark above 1 waits for the end alone.

#include "kqueue.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/event.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "descriptors.h"

namespace {

constexpr std::int64_t kNanos = 1'000'000'000;
constexpr std::uint16_t kRemembered = EV_ONESHOT | EV_CLEAR | EV_DISPATCH | EV_RECEIPT;
// What stands in the sets for the other set and for the eventfd.
constexpr std::uint64_t kWriters = 1;
constexpr std::uint64_t kActive = 2;
// Looks that may find only these two where there is little room.
constexpr int kVainMax = 3;

std::atomic<int> calls{0};
std::atomic<int> changes{0};
std::atomic<int> refusal{0};
std::atomic<int> refusals{0};

// Which file a descriptor names.
struct File {
  dev_t device = 0;
  ino_t number = 0;
  mode_t mode = 0;

  static bool of(int fd, File* out) {
    struct stat found;
    if (fstat(fd, &found) != 0) return false;
    *out = {found.st_dev, found.st_ino, found.st_mode};
    return true;
  }
  bool operator==(const File& other) const {
    return device == other.device && number == other.number;
  }
  bool is_vnode() const { return S_ISREG(mode) || S_ISDIR(mode); }
};

struct Knote {
  std::uint64_t id = 0;
  std::uintptr_t ident = 0;
  std::int16_t filter = 0;
  std::uint16_t flags = 0;
  std::uint32_t fflags = 0;
  std::intptr_t data = 0;
  void* udata = nullptr;
  bool enabled = true;
  bool triggered = false;    // EVFILT_USER
  File file;                 // the others
  std::uint64_t served = 0;  // the round of the call that it is in the answer of

  bool has(std::uint16_t flag) const { return (flags & flag) != 0; }
  int fd() const { return static_cast<int>(ident); }
};

using Key = std::pair<std::uintptr_t, std::int16_t>;

// A round of a call: the room for its answer, and what is in it.
struct Answer {
  struct kevent* events;
  int room;
  int count = 0;

  bool full() const { return count == room; }
};

class Kqueue {
 public:
  explicit Kqueue(int fd) : readers_(fd) {}
  ~Kqueue() {
    emulation::close_own(writers_);
    emulation::close_own(active_);
  }

  bool open() {
    writers_ = epoll_create1(EPOLL_CLOEXEC);
    active_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return writers_ >= 0 && active_ >= 0 && join(writers_, kWriters) && join(active_, kActive);
  }

  // Errors are positive here, as in `data`.
  int change(const struct kevent& one);
  // Puts what is active into the answer.
  void collect(Answer* answer);
  // `fd` is about to be closed.
  void drop(int fd);

  std::mutex mutex;

 private:
  bool join(int fd, std::uint64_t id) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = id;
    return epoll_ctl(readers_, EPOLL_CTL_ADD, fd, &event) == 0;
  }

  int set_of(const Knote& knote) const { return knote.filter == EVFILT_READ ? readers_ : writers_; }
  // Whether epoll says when it is active.
  static bool is_watched(const Knote& knote) {
    return knote.filter != EVFILT_USER && !knote.file.is_vnode();
  }
  static bool is_stale(const Knote& knote) {
    File now;
    return knote.filter != EVFILT_USER && !(File::of(knote.fd(), &now) && now == knote.file);
  }

  int attach(const struct kevent& one);
  int watch(const Knote& knote) const;
  void unwatch(const Knote& knote) const;
  void erase(Knote* knote);
  void modify(Knote* knote, const struct kevent& one);
  void fill(const Knote& knote, std::uint32_t ready, struct kevent* out) const;
  void tell(Knote* knote, const struct kevent& event, Answer* answer);
  bool collect_from(int set, Answer* answer);
  void collect_unwatched(Answer* answer);
  bool is_active(const Knote& knote) const;
  void set_active();

  const int readers_;  // the kqueue's own descriptor
  int writers_ = -1;
  int active_ = -1;
  std::map<Key, Knote> knotes_;
  std::map<std::uint64_t, Key> keys_;  // by id
  std::uint64_t last_id_ = kActive;
  std::uint64_t round_ = 0;
  bool writers_first_ = false;
};

// ── changes ─────────────────────────────────────────────────────────────────────────────────

int Kqueue::change(const struct kevent& one) {
  if (one.filter != EVFILT_READ && one.filter != EVFILT_WRITE && one.filter != EVFILT_USER)
    return EINVAL;
  if (one.filter != EVFILT_USER) {
    // Before anything else, and also to delete: the number has to be open.
    if (one.ident > INT32_MAX || fcntl(static_cast<int>(one.ident), F_GETFD) == -1) return EBADF;
    if (static_cast<int>(one.ident) == readers_) return EINVAL;
  }
  auto at = knotes_.find({one.ident, one.filter});
  if (at != knotes_.end() && is_stale(at->second)) {
    erase(&at->second);
    at = knotes_.end();
  }
  if (at == knotes_.end()) {
    if (!(one.flags & EV_ADD)) return ENOENT;
    if (const int error = attach(one); error != 0) return error;
  } else if (one.flags & EV_DELETE) {
    erase(&at->second);
  } else {
    modify(&at->second, one);
  }
  set_active();
  return 0;
}

int Kqueue::attach(const struct kevent& one) {
  if (refusals.load() > 0 && refusals.fetch_sub(1) > 0) return refusal.load();
  Knote knote;
  knote.id = ++last_id_;
  knote.ident = one.ident;
  knote.filter = one.filter;
  if (one.filter != EVFILT_USER) {
    if (!File::of(knote.fd(), &knote.file)) return EBADF;
    if (knote.file.is_vnode() && one.filter == EVFILT_WRITE) return EINVAL;
    pollfd end{knote.fd(), POLLOUT, 0};
    if (S_ISFIFO(knote.file.mode) && one.filter == EVFILT_WRITE && poll(&end, 1, 0) == 1 &&
        (end.revents & POLLERR))
      return EPIPE;
  }
  knote.enabled = !(one.flags & EV_DISABLE);
  knote.flags = one.flags & kRemembered;
  knote.fflags = one.filter == EVFILT_USER ? one.fflags & NOTE_FFLAGSMASK : one.fflags;
  knote.data = one.data;
  knote.udata = one.udata;
  knote.triggered = one.filter == EVFILT_USER && (one.fflags & NOTE_TRIGGER);
  if (knote.enabled) {
    if (const int error = watch(knote); error != 0) return error;
  }
  keys_[knote.id] = {one.ident, one.filter};
  knotes_[{one.ident, one.filter}] = knote;
  return 0;
}

void Kqueue::modify(Knote* knote, const struct kevent& one) {
  if (knote->filter == EVFILT_USER) {
    const std::uint32_t bits = one.fflags & NOTE_FFLAGSMASK;
    switch (one.fflags & NOTE_FFCTRLMASK) {
      case NOTE_FFAND:
        knote->fflags &= bits;
        break;
      case NOTE_FFOR:
        knote->fflags |= bits;
        break;
      case NOTE_FFCOPY:
        knote->fflags = bits;
        break;
    }
    if (one.fflags & NOTE_TRIGGER) knote->triggered = true;
  } else if (one.flags & EV_ADD) {
    knote->fflags = one.fflags;
  }
  // How it is reported was settled when it was added (FreeBSD, kern_event.c, kqueue_register).
  if (one.flags & EV_ADD) {
    knote->data = one.data;
    knote->udata = one.udata;
  }
  if (one.flags & EV_DISABLE)
    knote->enabled = false;
  else if (one.flags & (EV_ADD | EV_ENABLE))
    knote->enabled = true;
  // Registered anew, so that the filter is run and what holds already is reported.
  unwatch(*knote);
  if (knote->enabled) static_cast<void>(watch(*knote));
}

int Kqueue::watch(const Knote& knote) const {
  if (!is_watched(knote)) return 0;
  epoll_event event{};
  event.data.u64 = knote.id;
  // Of a pipe the mark is not looked at: the manual has it for sockets (FreeBSD, filt_piperead).
  const bool marked = (knote.fflags & NOTE_LOWAT) && knote.data > 1 && S_ISSOCK(knote.file.mode);
  if (knote.filter == EVFILT_WRITE)
    event.events = EPOLLOUT;
  else
    event.events = marked ? EPOLLRDHUP : EPOLLIN | EPOLLRDHUP;
  if (knote.has(EV_CLEAR)) event.events |= EPOLLET;
  if (epoll_ctl(set_of(knote), EPOLL_CTL_ADD, knote.fd(), &event) == 0) return 0;
  // The file came back under its number and Node had closed it in between.
  if (errno == EEXIST && epoll_ctl(set_of(knote), EPOLL_CTL_MOD, knote.fd(), &event) == 0) return 0;
  // A kind of device that does not say when it is ready.
  return errno == EPERM ? EINVAL : errno;
}

void Kqueue::unwatch(const Knote& knote) const {
  if (is_watched(knote)) epoll_ctl(set_of(knote), EPOLL_CTL_DEL, knote.fd(), nullptr);
}

void Kqueue::erase(Knote* knote) {
  if (!is_stale(*knote)) unwatch(*knote);
  keys_.erase(knote->id);
  knotes_.erase({knote->ident, knote->filter});
}

void Kqueue::drop(int fd) {
  for (const int filter : {EVFILT_READ, EVFILT_WRITE}) {
    const Key key{static_cast<std::uintptr_t>(fd), static_cast<std::int16_t>(filter)};
    const auto at = knotes_.find(key);
    if (at != knotes_.end()) erase(&at->second);
  }
  set_active();
}

// ── what is active ──────────────────────────────────────────────────────────────────────────

// What a knote is answered with.
void Kqueue::fill(const Knote& knote, std::uint32_t ready, struct kevent* out) const {
  *out = {knote.ident, knote.filter, knote.flags, 0, 0, knote.udata};
  const bool reads = knote.filter == EVFILT_READ;
  int count = 0;
  if (reads ? ready & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) : ready & (EPOLLHUP | EPOLLERR))
    out->flags |= EV_EOF;
  if ((ready & EPOLLERR) && S_ISSOCK(knote.file.mode)) out->fflags = ECONNRESET;
  if (reads) {
    if (ioctl(knote.fd(), FIONREAD, &count) != 0) count = 1;
  } else if (S_ISSOCK(knote.file.mode)) {
    int size = 0;
    socklen_t length = sizeof size;
    getsockopt(knote.fd(), SOL_SOCKET, SO_SNDBUF, &size, &length);
    if (ioctl(knote.fd(), SIOCOUTQ, &count) == 0) count = size - count;
  }
  out->data = count;
}

void Kqueue::tell(Knote* knote, const struct kevent& event, Answer* answer) {
  knote->served = round_;
  answer->events[answer->count++] = event;
  if (knote->has(EV_ONESHOT)) {
    erase(knote);
    return;
  }
  if (knote->has(EV_CLEAR) && knote->filter == EVFILT_USER) {
    knote->triggered = false;
    knote->fflags = 0;
  }
  if (knote->has(EV_DISPATCH)) {
    unwatch(*knote);
    knote->enabled = false;
  }
}

// Answers whether it has found one that was not in the answer yet.
bool Kqueue::collect_from(int set, Answer* answer) {
  if (answer->full()) return false;
  std::vector<epoll_event> ready(static_cast<std::size_t>(answer->room - answer->count));
  const int count = epoll_wait(set, ready.data(), static_cast<int>(ready.size()), 0);
  bool found = false;
  for (int i = 0; i < count; ++i) {
    const epoll_event& one = ready[static_cast<std::size_t>(i)];
    const auto key = keys_.find(one.data.u64);
    if (key == keys_.end()) continue;
    Knote& knote = knotes_.at(key->second);
    if (knote.served == round_) continue;
    struct kevent event;
    if (is_stale(knote)) {
      erase(&knote);
      continue;
    }
    fill(knote, one.events, &event);
    tell(&knote, event, answer);
    found = true;
  }
  return found;
}

bool Kqueue::is_active(const Knote& knote) const {
  if (!knote.enabled) return false;
  if (knote.filter == EVFILT_USER) return knote.triggered;
  if (!knote.file.is_vnode()) return false;
  struct stat now;
  return fstat(knote.fd(), &now) == 0 && lseek(knote.fd(), 0, SEEK_CUR) != now.st_size;
}

void Kqueue::collect_unwatched(Answer* answer) {
  std::vector<Key> active;
  for (const auto& [key, knote] : knotes_)
    if (is_active(knote)) active.push_back(key);
  for (const Key& key : active) {
    if (answer->full()) return;
    Knote& knote = knotes_.at(key);
    struct kevent event {
      knote.ident, knote.filter, knote.flags, knote.fflags, 0, knote.udata
    };
    struct stat now;
    if (knote.filter == EVFILT_READ && fstat(knote.fd(), &now) == 0)
      event.data = now.st_size - lseek(knote.fd(), 0, SEEK_CUR);
    tell(&knote, event, answer);
  }
}

// The eventfd is readable exactly while something is active that epoll does not know of.
void Kqueue::set_active() {
  const bool any = std::any_of(knotes_.begin(), knotes_.end(),
                               [this](const auto& entry) { return is_active(entry.second); });
  std::uint64_t value = 1;
  if (any)
    static_cast<void>(!write(active_, &value, sizeof value));
  else
    static_cast<void>(!read(active_, &value, sizeof value));
}

void Kqueue::collect(Answer* answer) {
  ++round_;
  writers_first_ = !writers_first_;
  // What stands for the other set and the eventfd takes room too, so once may not be enough.
  for (int vain = 0; vain < kVainMax && !answer->full(); ++vain) {
    if (collect_from(writers_first_ ? writers_ : readers_, answer)) vain = 0;
    if (collect_from(writers_first_ ? readers_ : writers_, answer)) vain = 0;
  }
  collect_unwatched(answer);
  set_active();
}

// ── all of them ─────────────────────────────────────────────────────────────────────────────

struct Registry {
  std::mutex mutex;
  std::map<int, std::shared_ptr<Kqueue>> kqueues;
};

// Never destroyed: a thread may close a descriptor while the process ends.
Registry& registry() {
  static Registry* const one = new Registry;
  return *one;
}

std::shared_ptr<Kqueue> find(int fd) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  const auto at = registry().kqueues.find(fd);
  return at == registry().kqueues.end() ? nullptr : at->second;
}

void forget(int fd) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  registry().kqueues.erase(fd);
  for (const auto& [number, queue] : registry().kqueues) {
    const std::lock_guard<std::mutex> inner(queue->mutex);
    queue->drop(fd);
  }
}

[[maybe_unused]] const bool listening = emulation::before_close(forget);

std::int64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * kNanos + time.tv_nsec;
}

int fail(int error) {
  errno = error;
  return -1;
}

}  // namespace

int kqueue(void) {
  const int fd = epoll_create1(0);
  if (fd < 0) return -1;
  auto made = std::make_shared<Kqueue>(fd);
  if (!made->open()) {
    const int error = errno;
    emulation::close_own(fd);
    return fail(error);
  }
  const std::lock_guard<std::mutex> lock(registry().mutex);
  registry().kqueues[fd] = std::move(made);
  return fd;
}

int kevent(int kq, const struct kevent* changelist, int nchanges, struct kevent* eventlist,
           int nevents, const struct timespec* timeout) {
  calls.fetch_add(1);
  changes.fetch_add(nchanges);
  const std::shared_ptr<Kqueue> queue = find(kq);
  if (queue == nullptr) return fail(EBADF);
  if (nchanges < 0 || nevents < 0) return fail(EINVAL);
  if (timeout != nullptr &&
      (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= kNanos))
    return fail(EINVAL);
  Answer answer{eventlist, nevents};
  {
    const std::lock_guard<std::mutex> lock(queue->mutex);
    for (int i = 0; i < nchanges; ++i) {
      // The two lists may be one array.
      struct kevent one = changelist[i];
      const int error = queue->change(one);
      if (error == 0 && !(one.flags & EV_RECEIPT)) continue;
      // Without room the call ends here; what comes after in the list is not done.
      if (answer.full()) return error == 0 ? 0 : fail(error);
      one.flags = EV_ERROR;
      one.data = error;
      answer.events[answer.count++] = one;
    }
  }
  // With errors to tell, or receipts, nothing else is looked at.
  if (answer.count > 0 || nevents == 0) return answer.count;
  const std::int64_t end =
      timeout == nullptr ? 0 : now() + timeout->tv_sec * kNanos + timeout->tv_nsec;
  for (;;) {
    {
      const std::lock_guard<std::mutex> lock(queue->mutex);
      queue->collect(&answer);
    }
    if (answer.count > 0) return answer.count;
    const std::int64_t left = timeout == nullptr ? 0 : end - now();
    if (timeout != nullptr && left <= 0) return 0;
    const timespec limit{left / kNanos, left % kNanos};
    pollfd own{kq, POLLIN, 0};
    if (ppoll(&own, 1, timeout == nullptr ? nullptr : &limit, nullptr) < 0) return -1;
  }
}

namespace emulation {

int kevent_calls() { return calls.load(); }
int kevent_changes() { return changes.load(); }

void refuse_knotes(int error, int count) {
  refusal.store(error);
  refusals.store(count);
}

}  // namespace emulation
