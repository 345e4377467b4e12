// The /dev/poll device of Solaris and illumos, poll(7D): poll(2) with the interest set in the
// kernel. Changes are records that are written to the device, all of a turn in one write before the
// wait. A write adds what it has to the interest that is there, so an interest that changes is a
// removal and an addition (poll(7D); libevent's devpoll.c does the same).
//
// The device knows numbers. The manual asks for every descriptor to be removed when it is closed,
// and the driver (uts/common/io/devpoll.c) shows why:
//   - One that is closed while it is ready is told with POLLNVAL for as long as it stays; one that
//     is quiet may be closed unnoticed, like one that leaves epoll's set.
//   - If the number is opened again, the entry still waits for a sign from the old file, and may
//     never look at the new one. A removal and an addition repair that, so every change is both.
//   - A write cannot fail for a descriptor that is not open. Its record is kept, but nothing is
//     told of it (dpwrite leaves pd_fp empty, and dp_pcache_poll takes that for removed), and its
//     removal leaves the bits for the next file of that number. So whoever asks for a descriptor is
//     told at once if it is not open, and a report of bits that nobody asked for is repaired.
#include "../platform.h"
#ifdef ML_HAVE_DEVPOLL

#include <fcntl.h>
#include <poll.h>
#include <sys/devpoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <vector>

#include "../backend.h"
#include "../check.h"
#include "../sys.h"
#include "poll_mask.h"

// Whose open, pwrite and ioctl the device has: the system's. A test's <sys/devpoll.h> names
// a namespace of its own.
#ifndef ML_DEVPOLL
#define ML_DEVPOLL
#endif

namespace multiloop {

namespace {

// Records taken from the device per call. The next call goes on behind the last that was told
// (devpoll.c, dp_pcache_poll).
constexpr std::size_t kRecordsPerWait = 1'024;
// Records that wait for the next write; more are written at once.
constexpr std::size_t kChangesMax = 1'024;

class DevPoll final : public Backend {
 public:
  explicit DevPoll(int fd) : device_(fd) {}
  ~DevPoll() override { sys::close(device_); }

  int change(int fd, Mask before, Mask after) override {
    static_cast<void>(before);
    Mask& mask = interest(fd);
    if (after != 0) {
      if (const int status = sys::check_open(fd); status < 0) return status;
    }
    if (changes_.size() + 2 > kChangesMax) {
      if (const int status = write_changes(); status < 0) return status;
    }
    if (mask != 0) changes_.push_back({fd, POLLREMOVE, 0});
    if (after != 0) changes_.push_back({fd, to_poll(after), 0});
    mask = after;
    return 0;
  }

  int wait(Micros timeout, std::span<Ready> out) override {
    ML_CHECK(!out.empty());
    if (const int status = write_changes(); status < 0) return status;
    // Milliseconds, rounded up: waking a moment late is allowed, waking early would spin.
    const Micros millis = timeout < 0 ? -1 : std::min<Micros>((timeout + 999) / 1'000, INT_MAX);
    const int count = poll_device(static_cast<int>(millis), std::min(kRecordsPerWait, out.size()));
    if (count < 0) return count == -EINTR ? 0 : count;
    std::size_t told = 0;
    for (int i = 0; i < count; ++i) {
      const pollfd& record = records_[i];
      const Mask mask = interest(record.fd);
      const int asked = to_poll(mask) | POLLERR | POLLHUP | POLLNVAL;
      if (mask != 0 && (record.revents & asked) != 0)
        out[told++] = {record.fd, from_poll(record.revents & asked)};
      else
        repair(record.fd, mask);
    }
    return static_cast<int>(told);
  }

  // It has no pollable_fd(): poll(2) of the device itself answers POLLERR (poll(7D), NOTES).

 private:
  Mask& interest(int fd) {
    const auto number = static_cast<std::size_t>(fd);
    if (number >= interests_.size()) interests_.resize(number + number / 2 + 16);
    return interests_[number];
  }

  // Bits that nobody asked for, of an earlier file of this number.
  void repair(int fd, Mask mask) {
    changes_.push_back({fd, POLLREMOVE, 0});
    if (mask != 0) changes_.push_back({fd, to_poll(mask), 0});
  }

  // What could not be written is written next time, but for a record that fails by itself.
  int write_changes() {
    std::size_t done = 0;
    std::size_t most = kChangesMax;
    int status = 0;
    while (done < changes_.size() && status == 0) {
      const std::size_t count = std::min(most, changes_.size() - done);
      // At offset 0: on old systems a file's offset grew with every write until the device refused
      // it, after 2 GiB (libevent, devpoll_commit).
      const ssize_t bytes = ML_DEVPOLL::pwrite(device_, &changes_[done], count * sizeof(pollfd), 0);
      if (bytes >= 0) {
        done += count;
      } else if (errno != EINTR && count > 1) {
        // More records than RLIMIT_NOFILE (EINVAL), or a file that cannot be polled is among them;
        // those before it are done, and doing them again changes nothing.
        most = count / 2;
      } else if (errno != EINTR) {
        status = -errno;
        ++done;
      }
    }
    changes_.erase(changes_.begin(), changes_.begin() + static_cast<std::ptrdiff_t>(done));
    return status;
  }

  int poll_device(int millis, std::size_t room) {
    for (;;) {
      const std::size_t count = std::min(room, per_poll_);
      dvpoll request{};
      request.dp_fds = records_;
      request.dp_nfds = static_cast<decltype(request.dp_nfds)>(count);
      request.dp_timeout = millis;
      const int ready = ML_DEVPOLL::ioctl(device_, DP_POLL, &request);
      if (ready >= 0) return ready;
      // Solaris refuses room for OPEN_MAX records and more (poll(7D), EINVAL).
      if (errno != EINVAL || count == 1) return -errno;
      per_poll_ = count / 2;
    }
  }

  const int device_;
  std::size_t per_poll_ = kRecordsPerWait;  // less where the process may have few descriptors
  std::vector<Mask> interests_;             // by descriptor
  std::vector<pollfd> changes_;
  pollfd records_[kRecordsPerWait];
};

}  // namespace

std::unique_ptr<Backend> create_devpoll(int* error) {
  const int fd = ML_DEVPOLL::open("/dev/poll", O_RDWR | O_CLOEXEC);
  *error = fd < 0 ? -errno : 0;
  return fd < 0 ? nullptr : std::make_unique<DevPoll>(fd);
}

}  // namespace multiloop

#endif
