// The waker: the native notification pipe behind an inbox. wake() may be called from any thread
// and never blocks; the other functions belong to the thread that waits.
#pragma once

#include <span>

namespace multiloop {

class Waker {
 public:
  enum class Kind { kEventfd, kPipe };
  // The best that this build has.
  static Kind preferred();

  // Opens the descriptors; 0 or -errno.
  [[nodiscard]] int open(Kind kind);
  void close();

  void wake() const;
  // Takes the notifications out, where the backend would otherwise report them again.
  void drain() const;
  // The descriptor to wait on for READ.
  int fd() const { return read_end_; }
  Kind kind() const { return kind_; }

 private:
  Kind kind_ = Kind::kPipe;
  int read_end_ = -1;
  int write_end_ = -1;
};

struct WakerType {
  const char* name;
  Waker::Kind kind;
};
// Those that this build has, preferred first. The kernel may refuse one all the same.
std::span<const WakerType> waker_types();

}  // namespace multiloop
