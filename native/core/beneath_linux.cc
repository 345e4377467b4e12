// Linux opens a whole path below a directory with one call (openat2(2), since 5.6).
#include "beneath.h"

#include "platform.h"

#ifdef ML_LINUX

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "retried.h"
#include "sys.h"

namespace multiloop::sys {

namespace {

// Waits for nobody, as in beneath.cc.
constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

// linux/openat2.h and asm-generic/unistd.h, which older systems have not.
struct OpenHow {
  std::uint64_t flags;
  std::uint64_t mode;
  std::uint64_t resolve;
};
constexpr long kOpenat2 = 437;
constexpr std::uint64_t kNoMagicLinks = 0x02;
constexpr std::uint64_t kNoSymlinks = 0x04;
constexpr std::uint64_t kBeneath = 0x08;

int openat2(int folder, const char* path, int flags, std::uint64_t resolve) {
  const OpenHow how{static_cast<std::uint64_t>(flags), 0, resolve};
  return retried(
      [&] { return static_cast<int>(::syscall(kOpenat2, folder, path, &how, sizeof how)); });
}

// While directories are renamed the kernel may not know where ".." leads (openat2(2), EAGAIN).
constexpr int kTriesMax = 8;

int open_resolved(int folder, const char* path, int flags, std::uint64_t resolve) {
  int fd = -EAGAIN;
  for (int tries = 0; tries < kTriesMax && fd == -EAGAIN; ++tries)
    fd = openat2(folder, path, flags, resolve);
  return fd;
}

}  // namespace

bool follows_beneath() {
  // 0: not tried yet. Two threads may try at once, and find the same.
  static std::atomic<int> known{0};
  int state = known.load(std::memory_order_relaxed);
  if (state == 0) {
    const int fd = openat2(AT_FDCWD, ".", O_PATH | O_CLOEXEC, 0);
    if (fd >= 0) close(fd);
    // Some sandboxes answer -EPERM to a call that they do not know.
    state = fd == -ENOSYS || fd == -EPERM ? 2 : 1;
    known.store(state, std::memory_order_relaxed);
  }
  return state == 1;
}

int open_beneath(int folder, const char* path, bool links) {
  if (!follows_beneath()) return open_by_name(folder, path);
  const std::uint64_t resolve = kBeneath | kNoMagicLinks | (links ? 0 : kNoSymlinks);
  // What is only looked at is not opened: a FIFO's writer waits on, a device does nothing.
  const int place = only_served(open_resolved(folder, path, O_PATH | O_CLOEXEC, resolve));
  if (place < 0) return place;
  close(place);
  return only_served(open_resolved(folder, path, kReadFlags, resolve));
}

}  // namespace multiloop::sys

#endif
