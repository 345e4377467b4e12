// Event ports for tests on Linux, as the manual pages of illumos and its source have them
// (uts/common/fs/portfs: port.c, port_fd.c, port_vnops.c; libc's event_port.c). Any thread may
// call.
//
// A port is an epoll set. An association is a one-shot registration in it, so that poll(2) or libuv
// can wait for the port; once it has fired it is an event in the port's queue. Every call moves
// what has fired into the queue first, as if a driver had called pollwakeup() when it happened:
// what is in the queue stays there when it is no longer true.
//
// epoll's key is the number and the file, as a port's is, but only a port's association ends when
// the number is closed while the file lives on. A close is heard of before it happens
// (descriptors.h); for those of Node itself, EPOLL_CTL_ADD of a number that is in the set with the
// same file fails with EEXIST, and that tells one that was opened again from the one before.
//
// Not here: PORT_SOURCE_FILE and the other sources, a port's duplicates and its sharing with other
// processes.

#include <fcntl.h>
#include <poll.h>
#include <port.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "descriptors.h"

namespace {

constexpr long kNanosPerSecond = 1'000'000'000;
constexpr int kSweep = 64;
constexpr uint_t kPortsPerSend = 8'192;  // PORT_MAX_LIST
// What poll(2) may be asked for; the bits are epoll's too.
constexpr int kAskable =
    POLLIN | POLLPRI | POLLOUT | POLLRDNORM | POLLRDBAND | POLLWRNORM | POLLWRBAND | POLLRDHUP;
constexpr std::uint64_t kQueueTag = UINT64_MAX;

int fail(int error) {
  errno = error;
  return -1;
}

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

std::atomic<uint_t> max_events{emulated_port::kMaxEvents};

struct Association {
  int events = 0;
  void* user = nullptr;
  std::uint32_t generation = 0;
  pid_t owner = 0;
  bool active = false;  // it may fire
  bool queued = false;  // it has fired, and nobody has taken the event
  bool file = false;    // epoll has no use for it: it is always ready
  struct stat identity {};
};

struct Event {
  port_event_t told;
  bool of_descriptor;
};

struct Waiter {
  int wake;
  bool alerted = false;
  port_event_t alert{};
};

class Port {
 public:
  // `full` is readable for ever, and of interest while there is something in the queue.
  Port(int fd, int full, uint_t limit) : fd_(fd), full_(full), limit_(limit) {}

  // The port is about to be closed: who waits is told.
  void shut() {
    const std::lock_guard lock(mutex_);
    shut_ = true;
    emulation::close_own(full_);
    for (const Waiter* waiter : waiters_) wake(*waiter);
  }

  // `fd` is about to be closed, or to become another file.
  void lose(int fd) {
    const std::lock_guard lock(mutex_);
    if (shut_ || !associations_.contains(fd)) return;
    drop(fd);
    update_readable();
  }

  // Whether the number is still this port: 0, or what a call on it fails with.
  int check() {
    const std::lock_guard lock(mutex_);
    if (shut_) return EBADF;
    return update_readable();
  }

  int associate(int fd, int events, void* user) {
    const std::lock_guard lock(mutex_);
    if (!is_open(fd)) return fail(EBADFD);
    const bool known = holds(fd);
    if (!known && associations_.size() + sent_ >= limit_) {
      drop_closed();
      if (associations_.size() + sent_ >= limit_) return fail(EAGAIN);
    }
    ever_associated_ = true;
    Association& entry = associations_[fd];
    if (known) {
      unqueue(fd);
    } else {
      entry.owner = ::getpid();
      entry.generation = ++generation_;
    }
    entry.events = events;
    entry.user = user;
    entry.queued = false;
    entry.active = true;
    const int status = enter(fd, &entry);
    if (status != 0) {
      associations_.erase(fd);
      return fail(status);
    }
    sweep();
    return 0;
  }

  int dissociate(int fd) {
    const std::lock_guard lock(mutex_);
    if (!ever_associated_) return fail(ENOENT);
    if (!is_open(fd)) return fail(EBADFD);
    sweep();
    if (!holds(fd)) return fail(ENOENT);
    const Association entry = associations_[fd];
    if (entry.owner != ::getpid()) return fail(EACCES);
    drop(fd);
    update_readable();
    return entry.active || entry.queued ? 0 : fail(ENOENT);
  }

  int send(int events, void* user) {
    const std::lock_guard lock(mutex_);
    if (associations_.size() + sent_ >= limit_) drop_closed();
    if (associations_.size() + sent_ >= limit_) return EAGAIN;
    ++sent_;
    queue_.push_back({{events, PORT_SOURCE_USER, 0, 0, user}, false});
    update_readable();
    return 0;
  }

  int alert(int flags, int events, void* user) {
    const std::lock_guard lock(mutex_);
    if (events == 0) {
      alerted_ = false;
      return 0;
    }
    constexpr int kBoth = PORT_ALERT_SET | PORT_ALERT_UPDATE;
    if ((flags & kBoth) == kBoth) return fail(EINVAL);
    if (flags == PORT_ALERT_UPDATE && alerted_) return fail(EBUSY);
    alerted_ = true;
    alert_ = {events, PORT_SOURCE_ALERT, 0, 0, user};
    // Those who wait now are told even if the port leaves the mode before they run.
    for (Waiter* waiter : waiters_) {
      if (waiter->alerted) continue;
      waiter->alerted = true;
      waiter->alert = alert_;
      wake(*waiter);
    }
    return 0;
  }

  // port_get(3C) is this with `one`: it hands out nothing when the time is over.
  int get(port_event_t* list, uint_t max, uint_t* nget, const timespec* timeout, bool one) {
    std::unique_lock lock(mutex_);
    if (shut_) return fail(EBADFD);
    if (*nget > max && max > 0) return fail(EINVAL);
    sweep();
    if (max == 0) {
      *nget = static_cast<uint_t>(queue_.size());
      return 0;
    }
    if (list == nullptr) return fail(one ? EFAULT : EINVAL);
    if (*nget == 0) return 0;
    if (alerted_) {
      list[0] = alert_;
      *nget = 1;
      return 0;
    }
    int error = 0;
    // The timeout is not looked at while there is enough.
    if (queue_.size() < *nget && (timeout == nullptr || !is_zero(*timeout))) {
      if (timeout != nullptr && !is_valid(*timeout)) return fail(EINVAL);
      Waiter waiter{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
      if (waiter.wake < 0) return fail(EAGAIN);
      waiters_.push_back(&waiter);
      error = wait(&lock, &waiter, *nget, timeout);
      std::erase(waiters_, &waiter);
      // Those who hear of a close may hear of this one too.
      lock.unlock();
      emulation::close_own(waiter.wake);
      lock.lock();
      if (shut_) return fail(EBADFD);
      if (waiter.alerted) {
        list[0] = waiter.alert;
        *nget = 1;
        update_readable();
        return 0;
      }
      // The count is left as it was: nobody got as far as to set it.
      if (error == EINTR || (error == ETIME && one)) {
        update_readable();
        return fail(error);
      }
    }
    *nget = hand_out(list, max);
    return error == 0 ? 0 : fail(error);
  }

 private:
  static bool is_zero(const timespec& time) { return time.tv_sec == 0 && time.tv_nsec == 0; }
  static bool is_valid(const timespec& time) {
    return time.tv_sec >= 0 && time.tv_nsec >= 0 && time.tv_nsec < kNanosPerSecond;
  }

  static void wake(const Waiter& waiter) {
    const std::uint64_t one = 1;
    static_cast<void>(::write(waiter.wake, &one, sizeof one) == sizeof one);
  }

  static std::uint64_t tag(int fd, const Association& entry) {
    return static_cast<std::uint64_t>(entry.generation) << 32 | static_cast<std::uint32_t>(fd);
  }

  int control(int operation, int fd, int events, std::uint64_t data) const {
    epoll_event event{};
    event.events = static_cast<std::uint32_t>(events);
    event.data.u64 = data;
    return ::epoll_ctl(fd_, operation, fd, &event) == 0 ? 0 : errno;
  }

  // Whether `fd` is associated and still names the file that it was associated with. Whatever was
  // is forgotten, with what is queued of it, as close(2) would have done.
  bool holds(int fd) {
    const auto found = associations_.find(fd);
    if (found == associations_.end()) return false;
    const Association& entry = found->second;
    bool same;
    if (entry.file) {
      struct stat now {};
      same = ::fstat(fd, &now) == 0 && now.st_dev == entry.identity.st_dev &&
             now.st_ino == entry.identity.st_ino;
    } else {
      const int status = control(EPOLL_CTL_ADD, fd, EPOLLONESHOT, tag(fd, entry));
      same = status == EEXIST;
      if (status == 0) control(EPOLL_CTL_DEL, fd, 0, 0);
    }
    if (!same) forget(fd);
    return same;
  }

  // Makes it fire when it is ready, which it may be already.
  int enter(int fd, Association* entry) {
    const int wanted = (entry->events & kAskable) | static_cast<int>(EPOLLONESHOT);
    if (!entry->file) {
      if (control(EPOLL_CTL_MOD, fd, wanted, tag(fd, *entry)) == 0) return 0;
      const int status = control(EPOLL_CTL_ADD, fd, wanted, tag(fd, *entry));
      if (status != EPERM) return status;
      if (::fstat(fd, &entry->identity) != 0) return errno;
      entry->file = true;
    }
    // What epoll does not take is ready for all that it is asked (fs_subr.c, fs_poll).
    const int ready = entry->events & (POLLIN | POLLRDNORM | POLLRDBAND | POLLOUT | POLLWRBAND);
    if (ready != 0) fire(fd, entry, ready);
    return 0;
  }

  void fire(int fd, Association* entry, int ready) {
    entry->active = false;
    entry->queued = true;
    const auto object = static_cast<uintptr_t>(fd);
    queue_.push_back({{ready, PORT_SOURCE_FD, 0, object, entry->user}, true});
  }

  // Moves what has fired to the queue, and from there what was closed since.
  void sweep() {
    epoll_event fired[kSweep];
    for (;;) {
      const int count = ::epoll_wait(fd_, fired, kSweep, 0);
      for (int i = 0; i < count; ++i) {
        if (fired[i].data.u64 == kQueueTag) continue;
        const auto fd = static_cast<int>(fired[i].data.u64 & UINT32_MAX);
        const auto found = associations_.find(fd);
        // Of a file that was closed and lives on in a duplicate: it cannot fire twice.
        if (found == associations_.end()) continue;
        if (tag(fd, found->second) != fired[i].data.u64 || !holds(fd)) continue;
        Association& entry = found->second;
        const int told = static_cast<int>(fired[i].events) & (entry.events | POLLHUP | POLLERR);
        if (entry.active) fire(fd, &entry, told);
      }
      if (count < kSweep) break;
    }
    std::vector<int> queued;
    for (const Event& event : queue_)
      if (event.of_descriptor) queued.push_back(static_cast<int>(event.told.portev_object));
    for (const int fd : queued) holds(fd);
    update_readable();
  }

  // Its set is readable while there is something in the queue. A thread that waits for more than
  // there is must not be woken by what there is, and is woken by itself.
  int update_readable() {
    const int wanted = !queue_.empty() && waiters_.empty() ? POLLIN : 0;
    if (!queue_.empty())
      for (const Waiter* waiter : waiters_)
        if (queue_.size() != told_) wake(*waiter);
    told_ = queue_.size();
    const int status = control(EPOLL_CTL_MOD, full_, wanted, kQueueTag);
    if (status == 0) return 0;
    // Another number, another kind of file, or a set that is no port.
    return status == EBADF ? EBADF : EBADFD;
  }

  int wait(std::unique_lock<std::mutex>* lock, Waiter* waiter, uint_t wanted,
           const timespec* timeout) {
    timespec end{};
    if (timeout != nullptr) {
      ::clock_gettime(CLOCK_MONOTONIC, &end);
      end.tv_sec += timeout->tv_sec;
      end.tv_nsec += timeout->tv_nsec;
      if (end.tv_nsec >= kNanosPerSecond) {
        ++end.tv_sec;
        end.tv_nsec -= kNanosPerSecond;
      }
    }
    while (queue_.size() < wanted && !waiter->alerted) {
      update_readable();
      timespec left{};
      if (timeout != nullptr && !remaining(end, &left)) return ETIME;
      pollfd both[] = {{fd_, POLLIN, 0}, {waiter->wake, POLLIN, 0}};
      lock->unlock();
      const int status = ::ppoll(both, 2, timeout == nullptr ? nullptr : &left, nullptr);
      const int error = errno;
      lock->lock();
      if (shut_) return EBADFD;
      if (status < 0) return error;
      std::uint64_t count = 0;
      static_cast<void>(::read(waiter->wake, &count, sizeof count) == sizeof count);
      sweep();
    }
    return 0;
  }

  static bool remaining(const timespec& end, timespec* left) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    left->tv_sec = end.tv_sec - now.tv_sec;
    left->tv_nsec = end.tv_nsec - now.tv_nsec;
    if (left->tv_nsec < 0) {
      --left->tv_sec;
      left->tv_nsec += kNanosPerSecond;
    }
    return left->tv_sec >= 0 && (left->tv_sec > 0 || left->tv_nsec > 0);
  }

  uint_t hand_out(port_event_t* list, uint_t max) {
    uint_t count = 0;
    for (; count < max && !queue_.empty(); ++count) {
      const Event event = queue_.front();
      queue_.pop_front();
      list[count] = event.told;
      if (event.of_descriptor)
        associations_[static_cast<int>(event.told.portev_object)].queued = false;
      else
        --sent_;
    }
    update_readable();
    return count;
  }

  void unqueue(int fd) {
    std::erase_if(queue_, [fd](const Event& event) {
      return event.of_descriptor && static_cast<int>(event.told.portev_object) == fd;
    });
  }

  void forget(int fd) {
    unqueue(fd);
    associations_.erase(fd);
  }

  void drop(int fd) {
    if (!associations_[fd].file) control(EPOLL_CTL_DEL, fd, 0, 0);
    forget(fd);
  }

  void drop_closed() {
    std::vector<int> all;
    for (const auto& [fd, entry] : associations_) all.push_back(fd);
    for (const int fd : all) holds(fd);
  }

  const int fd_;
  const int full_;
  const uint_t limit_;
  std::mutex mutex_;
  std::map<int, Association> associations_;  // by number, those that have fired included
  std::deque<Event> queue_;
  std::size_t sent_ = 0;  // of the events in the queue
  std::size_t told_ = 0;  // the queue's length when those who wait were last woken
  std::vector<Waiter*> waiters_;
  std::uint32_t generation_ = 0;
  bool ever_associated_ = false;
  bool shut_ = false;
  bool alerted_ = false;
  port_event_t alert_{};
};

std::mutex registry_mutex;
std::map<int, std::shared_ptr<Port>>& registry() {
  static auto* all = new std::map<int, std::shared_ptr<Port>>;
  return *all;
}

void hear_of_close(int fd) {
  std::vector<std::shared_ptr<Port>> ports;
  {
    const std::lock_guard lock(registry_mutex);
    if (const auto own = registry().find(fd); own != registry().end()) {
      own->second->shut();
      registry().erase(own);
    }
    for (const auto& [number, port] : registry()) ports.push_back(port);
  }
  for (const std::shared_ptr<Port>& port : ports) port->lose(fd);
}
[[maybe_unused]] const bool hears = emulation::before_close(hear_of_close);

// Null, with the reason in `error`, for what is not a port.
std::shared_ptr<Port> find(int fd, int* error) {
  std::shared_ptr<Port> port;
  {
    const std::lock_guard lock(registry_mutex);
    const auto found = registry().find(fd);
    if (found != registry().end()) port = found->second;
  }
  *error = EBADF;
  if (!is_open(fd)) return nullptr;
  *error = port == nullptr ? EBADFD : port->check();
  return *error == 0 ? port : nullptr;
}

}  // namespace

int port_create() {
  const int fd = ::epoll_create1(0);
  const int full = fd < 0 ? -1 : ::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event{};
  event.data.u64 = kQueueTag;
  if (full >= 0 && ::epoll_ctl(fd, EPOLL_CTL_ADD, full, &event) == 0) {
    const std::lock_guard lock(registry_mutex);
    registry()[fd] = std::make_shared<Port>(fd, full, max_events.load());
    return fd;
  }
  const int error = errno;
  for (const int one : {fd, full})
    if (one >= 0) emulation::close_own(one);
  return fail(error);
}

int port_associate(int port, int source, uintptr_t object, int events, void* user) {
  int error = 0;
  const std::shared_ptr<Port> found = find(port, &error);
  if (found == nullptr) return fail(error);
  if (source != PORT_SOURCE_FD) return fail(EINVAL);
  if (object > INT_MAX) return fail(EBADFD);
  return found->associate(static_cast<int>(object), events, user);
}

int port_dissociate(int port, int source, uintptr_t object) {
  int error = 0;
  const std::shared_ptr<Port> found = find(port, &error);
  if (found == nullptr) return fail(error);
  if (source != PORT_SOURCE_FD) return fail(EINVAL);
  if (object > INT_MAX) return fail(EBADFD);
  return found->dissociate(static_cast<int>(object));
}

int port_get(int port, port_event_t* event, timespec* timeout) {
  int error = 0;
  const std::shared_ptr<Port> found = find(port, &error);
  if (found == nullptr) return fail(error);
  uint_t count = 1;
  return found->get(event, 1, &count, timeout, true);
}

int port_getn(int port, port_event_t list[], uint_t max, uint_t* nget, timespec* timeout) {
  if (nget == nullptr) return fail(EINVAL);
  int error = 0;
  const std::shared_ptr<Port> found = find(port, &error);
  if (found == nullptr) return fail(error);
  return found->get(list, max, nget, timeout, false);
}

int port_send(int port, int events, void* user) {
  int error = 0;
  const std::shared_ptr<Port> found = find(port, &error);
  if (found == nullptr) return fail(error);
  error = found->send(events, user);
  return error == 0 ? 0 : fail(error);
}

int port_sendn(int ports[], int errors[], uint_t nent, int events, void* user) {
  if (nent == 0 || nent > kPortsPerSend) return fail(EINVAL);
  if (ports == nullptr) return fail(EFAULT);
  std::vector<int> failures(nent, 0);
  int sent = 0;
  for (uint_t i = 0; i < nent; ++i) {
    const std::shared_ptr<Port> found = find(ports[i], &failures[i]);
    if (found != nullptr) failures[i] = found->send(events, user);
    if (failures[i] == 0) ++sent;
  }
  if (sent == static_cast<int>(nent)) return sent;
  if (errors == nullptr) return fail(EFAULT);
  std::copy(failures.begin(), failures.end(), errors);
  return sent;
}

int port_alert(int port, int flags, int events, void* user) {
  int error = 0;
  const std::shared_ptr<Port> found = find(port, &error);
  if (found == nullptr) return fail(error);
  return found->alert(flags, events, user);
}

namespace emulated_port {

uint_t set_max_events(uint_t limit) { return max_events.exchange(limit); }

}  // namespace emulated_port
