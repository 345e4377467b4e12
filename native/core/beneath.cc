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

namespace multiloop::sys {

namespace {

// Waits for nobody: a FIFO without a writer is opened at once, and found to be none of ours.
constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

bool is_served(const struct stat& info) { return S_ISREG(info.st_mode) || S_ISDIR(info.st_mode); }

}  // namespace

int only_served(int fd) {
  if (fd < 0) return fd;
  struct stat info {};
  const int status = retried([&] { return ::fstat(fd, &info); });
  if (status >= 0 && is_served(info)) return fd;
  close(fd);
  return status < 0 ? status : -ENXIO;
}

namespace {

// One name in a directory, which is not followed if it is a link.
int open_last(int directory, const char* name) {
  struct stat info {};
  const int status =
      retried([&] { return ::fstatat(directory, name, &info, AT_SYMLINK_NOFOLLOW); });
  if (status < 0) return status;
  if (S_ISLNK(info.st_mode)) return -ELOOP;
  if (!is_served(info)) return -ENXIO;
  return only_served(retried([=] { return ::openat(directory, name, kReadFlags | O_NOFOLLOW); }));
}

}  // namespace

int open_by_name(int folder, const char* path) {
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

#ifndef ML_LINUX

bool follows_beneath() { return false; }

int open_beneath(int folder, const char* path, bool) { return open_by_name(folder, path); }

#endif

int open_folder(const char* path) {
  return retried([=] { return ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
}

}  // namespace multiloop::sys

#endif
