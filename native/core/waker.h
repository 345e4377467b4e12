// The waker: the native notification pipe behind an inbox. wake() may be called from any thread
// and never blocks; the other functions belong to the thread that waits.
#pragma once

#include <atomic>
#include <memory>
#include <span>

namespace multiloop {

// What ends the waits of a backend that needs no descriptor for that. Any thread may call wake().
class WakeTarget {
 public:
  virtual ~WakeTarget() = default;
  virtual void wake() const = 0;
};

class Waker {
 public:
  // kUser is kqueue's EVFILT_USER: it has no descriptor, and wakes whom it is bound to.
  enum class Kind { kEventfd, kPipe, kUser };
  // The best that this build has for any backend.
  static Kind preferred();

  // Opens the descriptors; 0 or -errno.
  [[nodiscard]] int open(Kind kind);
  void close();
  // Of kUser: from now on it ends these waits. Before, and when they are over, waking does nothing.
  void bind(std::shared_ptr<const WakeTarget> target);

  void wake() const;
  // Takes the notifications out, where the backend would otherwise report them again.
  void drain() const;
  // The descriptor to wait on for READ; -1 of kUser.
  int fd() const { return read_end_; }
  Kind kind() const { return kind_; }

 private:
  Kind kind_ = Kind::kPipe;
  int read_end_ = -1;
  int write_end_ = -1;
  // Kept until close(): a thread may be waking a loop that has just ended.
  std::shared_ptr<const WakeTarget> bound_;
  std::atomic<const WakeTarget*> target_{nullptr};
};

struct WakerType {
  const char* name;
  Waker::Kind kind;
  const char* backend;  // the only one that it is for, or null

  bool fits(const char* backend_name) const;
};
// Those that this build has, preferred first. The kernel may refuse one all the same.
std::span<const WakerType> waker_types();
const WakerType* find_waker(const char* name);

}  // namespace multiloop
