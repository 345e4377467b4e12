#include "beneath.h"

#ifndef _WIN32

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "platform.h"
#include "retried.h"
#include "sys.h"

#ifdef ML_LINUX
#include <sys/syscall.h>

#include <atomic>
#include <cstdint>
#endif

namespace multiloop::sys {

namespace {

// Waits for nobody: a FIFO without a writer is opened at once, and found to be none of ours.
constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

bool is_served(const struct stat& info) { return S_ISREG(info.st_mode) || S_ISDIR(info.st_mode); }

// The descriptor if it is of a file or a directory; else it is closed.
int served(int fd) {
  if (fd < 0) return fd;
  struct stat info {};
  const int status = retried([&] { return ::fstat(fd, &info); });
  if (status >= 0 && is_served(info)) return fd;
  close(fd);
  return status < 0 ? status : -ENXIO;
}

// One name in a directory, which is not followed if it is a link.
int open_last(int directory, const char* name) {
  struct stat info {};
  const int status =
      retried([&] { return ::fstatat(directory, name, &info, AT_SYMLINK_NOFOLLOW); });
  if (status < 0) return status;
  if (S_ISLNK(info.st_mode)) return -ELOOP;
  if (!is_served(info)) return -ENXIO;
  return served(retried([=] { return ::openat(directory, name, kReadFlags | O_NOFOLLOW); }));
}

// From directory to directory, each of them opened in the one before.
int walk(int folder, const char* path) {
  int at = folder;
  for (;;) {
    const char* slash = std::strchr(path, '/');
    const std::size_t length =
        slash == nullptr ? std::strlen(path) : static_cast<std::size_t>(slash - path);
    char name[NAME_MAX + 1];
    int next = 0;
    if (length >= sizeof name) {
      next = -ENAMETOOLONG;
    } else {
      std::memcpy(name, path, length);
      name[length] = '\0';
      if (length == 0 || std::strcmp(name, "..") == 0) {
        next = -EXDEV;
      } else if (slash == nullptr) {
        next = open_last(at, name);
      } else {
        next = retried(
            [&] { return ::openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); });
      }
    }
    if (at != folder) close(at);
    if (next < 0 || slash == nullptr) return next;
    at = next;
    path = slash + 1;
  }
}

#ifdef ML_LINUX

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

#endif

}  // namespace

#ifdef ML_LINUX

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
  if (!follows_beneath()) return walk(folder, path);
  const std::uint64_t resolve = kBeneath | kNoMagicLinks | (links ? 0 : kNoSymlinks);
  // What is only looked at is not opened: a FIFO's writer waits on, a device does nothing.
  const int place = served(open_resolved(folder, path, O_PATH | O_CLOEXEC, resolve));
  if (place < 0) return place;
  close(place);
  return served(open_resolved(folder, path, kReadFlags, resolve));
}

#else

bool follows_beneath() { return false; }

int open_beneath(int folder, const char* path, bool) { return walk(folder, path); }

#endif

int open_folder(const char* path) {
  return retried([=] { return ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
}

}  // namespace multiloop::sys

#endif
