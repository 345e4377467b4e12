// The change list: what the base wants the kernel to watch, and what the kernel was told. Changes
// of a turn are merged and told before the next wait, so an interest that comes and goes in one
// turn costs no system call, and neither does a one-shot event that is added again in its callback.
//
// A descriptor is a number that may be closed and opened again behind our back. Three rules keep
// the merging right:
//   - A number that this base has not met yet (or was told to forget) is told to the kernel at
//     once, so that a bad descriptor is an error of the call that brought it; except where it is
//     known for a socket or a pipe (made.h).
//   - Who adds to a number that may name another file by now says so (`tell`); the kernel is then
//     told even when the masks agree, and the backend repairs what it finds.
//   - forget() takes a number out at once. What leaves with close(2) while a duplicate is alive
//     would stay in epoll's set otherwise, and nothing could name it any more; the epoll backend
//     recognises and repairs that too, but dearly.
//
// What certainly goes to the same file the backend may tell with the wait itself (change_later).
//
// libevent's own change list (its EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST) has neither the second nor
// the third rule and is off by default for it. Belongs to its base's thread.
#pragma once

#include <memory>
#include <vector>

#include "backend.h"
#include "mask.h"

namespace multiloop {

class ChangeList {
 public:
  explicit ChangeList(std::unique_ptr<Backend> backend);

  Backend& backend() const { return *backend_; }

  // From now on `mask` of `fd` is wanted: kIoMask bits and kEdge, 0 for nothing. With `tell` the
  // kernel hears of it even if nothing seems to change. Fails, with -errno and nothing changed,
  // only for a number that is new to this base and was not made here.
  [[nodiscard]] int want(int fd, Mask mask, bool tell);
  // Of what is wanted of `fd` only `mask` is left. A number that was refused or forgotten is not
  // asked for again by that.
  void narrow(int fd, Mask mask);
  // Told at once; for the descriptors of the base itself.
  [[nodiscard]] int watch(int fd, Mask mask);
  void unwatch(int fd) { forget(fd); }
  // Takes `fd` out of the kernel's set at once: it is about to be closed, or to be another base's.
  void forget(int fd);

  Mask wanted(int fd) const;
  Mask in_kernel(int fd) const;

  bool has_changes() const { return !dirty_.empty(); }
  // Tells the kernel all changes. A descriptor that was closed meanwhile is reported in `refused`,
  // once. Answers 0, or the -errno of a kernel out of memory or watches: what it refused is then
  // told again the next time.
  [[nodiscard]] int apply(std::vector<int>* refused);
  // The same of what the backend has told the kernel since, with the wait or in flush().
  void take_refused(std::vector<int>* refused);
  // Every structure, walked; for tests and debug mode.
  bool valid() const;

 private:
  struct Interest {
    Mask kernel = 0;       // what the backend was told
    Mask want = 0;         // what it will have been told before the next wait
    bool known = false;    // the backend has accepted this number, or will
    bool suspect = false;  // tell it even when nothing seems to change
    bool dirty = false;    // it is in `dirty_`
  };

  Interest& at(int fd);
  void touch(int fd, Interest& interest);
  void refuse(int fd, Interest& interest, std::vector<int>* refused);

  const std::unique_ptr<Backend> backend_;
  std::vector<Interest> interests_;  // by descriptor
  std::vector<int> dirty_;
};

}  // namespace multiloop
