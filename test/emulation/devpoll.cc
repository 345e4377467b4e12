// The /dev/poll device for tests on Linux, as the manual page (poll(7D)) and the driver of illumos
// (uts/common/io/devpoll.c) have it. Any thread may call.
//
// Like the driver it keeps an entry for each number, and a mark for those that DP_POLL has to look
// at. A mark is set by a write and when the file that the entry hangs on has something to tell; it
// goes when a look finds nothing. Files tell by a one-shot registration in an epoll set, whose
// number is the device's. From that follow the driver's traps: a quiet descriptor that is closed is
// not noticed, and if its number is opened again nobody looks at the new file until the entry is
// removed and written anew, or the old file, alive in a duplicate, has something to tell.
//
// A process that is not the first to use a device is refused with EACCES. Refused as the manual
// says, which is stricter than the driver of today: room for as many records as the process may
// have descriptors. Not here: POLLERR for who polls the device itself.

#include <fcntl.h>
#include <poll.h>
#include <sys/devpoll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "descriptors.h"

namespace {

constexpr int kSweep = 64;
constexpr long long kNanosPerMilli = 1'000'000;
constexpr long long kNanosPerSecond = 1'000'000'000;

int fail(int error) {
  errno = error;
  return -1;
}

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

rlim_t open_max() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 256;
}

long long now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * kNanosPerSecond + time.tv_nsec;
}

struct Entry {
  short events = 0;
  bool present = false;  // pd_fp: an entry that was written for no open file is skipped
  std::uint32_t generation = 0;
};

class Device {
 public:
  explicit Device(int fd) : fd_(fd) {}

  int write(const pollfd* records, std::size_t count) {
    const std::lock_guard lock(mutex_);
    if (!is_owner()) return EACCES;
    if (count > open_max()) return EINVAL;
    for (std::size_t i = 0; i < count; ++i) {
      const pollfd& record = records[i];
      if (record.fd < 0) continue;
      if (record.events == POLLREMOVE)
        remove(record.fd);
      else
        add(record.fd, record.events);
    }
    return 0;
  }

  int poll(dvpoll* request) {
    const long long end = now() + request->dp_timeout * kNanosPerMilli;
    std::unique_lock lock(mutex_);
    if (!is_owner()) return fail(EACCES);
    if (request->dp_nfds >= open_max()) return fail(EINVAL);
    for (;;) {
      if (request->dp_nfds > 0) {
        const int count = look(request->dp_fds, request->dp_nfds);
        if (count > 0) return count;
      }
      timespec left{};
      if (request->dp_timeout >= 0) {
        const long long nanos = end - now();
        if (request->dp_timeout == 0 || nanos <= 0) return 0;
        left = {static_cast<time_t>(nanos / kNanosPerSecond),
                static_cast<long>(nanos % kNanosPerSecond)};
      }
      pollfd set{fd_, POLLIN, 0};
      lock.unlock();
      // Without room for an answer it only sleeps.
      const int status = ::ppoll(&set, request->dp_nfds > 0 ? 1 : 0,
                                 request->dp_timeout < 0 ? nullptr : &left, nullptr);
      if (status < 0) return -1;
      lock.lock();
    }
  }

  int is_polled(pollfd* record) {
    const std::lock_guard lock(mutex_);
    if (!is_owner()) return fail(EACCES);
    const auto found = entries_.find(record->fd);
    if (found == entries_.end() || !found->second.present) return 0;
    record->revents = found->second.events;
    return 1;
  }

 private:
  // The first that writes or polls has it for good.
  bool is_owner() {
    if (owner_ < 0) owner_ = ::getpid();
    return owner_ == ::getpid();
  }

  int control(int operation, int fd, std::uint32_t events, const Entry& entry) const {
    epoll_event event{};
    event.events = events;
    event.data.u64 =
        static_cast<std::uint64_t>(entry.generation) << 32 | static_cast<std::uint32_t>(fd);
    return ::epoll_ctl(fd_, operation, fd, &event) == 0 ? 0 : errno;
  }

  // Whether it hangs on the file that the number names now.
  bool hangs(int fd, const Entry& entry) const {
    const int status = control(EPOLL_CTL_ADD, fd, EPOLLONESHOT, entry);
    if (status == 0) control(EPOLL_CTL_DEL, fd, 0, entry);
    return status == EEXIST;
  }

  // From now on the file of the number sets the mark. One that epoll does not take is always ready.
  void hang(int fd, Entry* entry) {
    const auto events = static_cast<std::uint32_t>(entry->events) | EPOLLONESHOT;
    if (control(EPOLL_CTL_MOD, fd, events, *entry) == 0) return;
    entry->generation = ++generation_;
    static_cast<void>(control(EPOLL_CTL_ADD, fd, events, *entry));
  }

  void add(int fd, short events) {
    Entry& entry = entries_[fd];
    if (!is_open(fd)) {
      marks_.insert(fd);
      entry.events = static_cast<short>(entry.events | events);
      return;
    }
    if (entry.present && entry.events == events && hangs(fd, entry)) return;
    marks_.insert(fd);
    entry.present = true;
    entry.events = static_cast<short>(entry.events | events);
    hang(fd, &entry);
  }

  void remove(int fd) {
    const auto found = entries_.find(fd);
    if (found == entries_.end() || !found->second.present) return;
    static_cast<void>(control(EPOLL_CTL_DEL, fd, 0, found->second));
    // What is left of it, where the file lives on in a duplicate, is nobody's.
    found->second = Entry{};
    marks_.erase(fd);
  }

  void gather() {
    epoll_event told[kSweep];
    for (;;) {
      const int count = ::epoll_wait(fd_, told, kSweep, 0);
      for (int i = 0; i < count; ++i) {
        const auto fd = static_cast<int>(told[i].data.u64 & UINT32_MAX);
        const auto found = entries_.find(fd);
        if (found == entries_.end() || !found->second.present) continue;
        if (found->second.generation == told[i].data.u64 >> 32) marks_.insert(fd);
      }
      if (count < kSweep) return;
    }
  }

  // Goes round, from where the last look had to stop for want of room.
  int look(pollfd* out, nfds_t room) {
    gather();
    const int start = next_;
    int after = start;
    nfds_t count = 0;
    bool wrapped = false;
    auto at = marks_.lower_bound(start);
    while (count < room) {
      if (at == marks_.end()) {
        if (wrapped || start == 0) return static_cast<int>(count);
        wrapped = true;
        at = marks_.begin();
        continue;
      }
      const int fd = *at;
      if (wrapped && fd >= start) return static_cast<int>(count);
      const auto following = std::next(at);
      Entry& entry = entries_[fd];
      if (entry.present) {
        pollfd record{fd, entry.events, 0};
        if (::poll(&record, 1, 0) > 0) {
          out[count++] = record;
        } else {
          hang(fd, &entry);
          marks_.erase(at);
        }
      }
      after = fd + 1;
      at = following;
    }
    next_ = after;
    return static_cast<int>(count);
  }

  const int fd_;
  std::mutex mutex_;
  pid_t owner_ = -1;
  std::map<int, Entry> entries_;  // by number; what was removed stays, without effect
  std::set<int> marks_;
  int next_ = 0;
  std::uint32_t generation_ = 0;
};

std::mutex registry_mutex;
std::map<int, std::shared_ptr<Device>>& registry() {
  static auto* all = new std::map<int, std::shared_ptr<Device>>;
  return *all;
}

std::shared_ptr<Device> find(int fd) {
  const std::lock_guard lock(registry_mutex);
  const auto found = registry().find(fd);
  return found == registry().end() ? nullptr : found->second;
}

void hear_of_close(int fd) {
  const std::lock_guard lock(registry_mutex);
  registry().erase(fd);
}
// Of the device's own alone: that is the trap of those it watches.
[[maybe_unused]] const bool hears = emulation::before_close(hear_of_close);

}  // namespace

namespace emulated_devpoll {

int open(const char* path, int flags) {
  if (std::strcmp(path, "/dev/poll") != 0) return fail(ENOENT);
  const int fd = ::epoll_create1((flags & O_CLOEXEC) ? EPOLL_CLOEXEC : 0);
  if (fd < 0) return -1;
  const std::lock_guard lock(registry_mutex);
  registry()[fd] = std::make_shared<Device>(fd);
  return fd;
}

ssize_t pwrite(int fd, const void* from, size_t length, off_t offset) {
  const std::shared_ptr<Device> device = find(fd);
  if (device == nullptr) return fail(EBADF);
  if (offset < 0) return fail(EINVAL);
  if (from == nullptr) return fail(EFAULT);
  const int error = device->write(static_cast<const pollfd*>(from), length / sizeof(pollfd));
  return error == 0 ? static_cast<ssize_t>(length) : fail(error);
}

int ioctl(int fd, unsigned long request, void* argument) {
  const std::shared_ptr<Device> device = find(fd);
  if (device == nullptr) return fail(EBADF);
  if (request != DP_POLL && request != DP_ISPOLLED) return fail(EINVAL);
  if (argument == nullptr) return fail(EFAULT);
  if (request == DP_ISPOLLED) return device->is_polled(static_cast<pollfd*>(argument));
  auto* call = static_cast<dvpoll*>(argument);
  if (call->dp_nfds > 0 && call->dp_fds == nullptr) return fail(EFAULT);
  return device->poll(call);
}

}  // namespace emulated_devpoll
