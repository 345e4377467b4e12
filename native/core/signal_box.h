// Where a process-wide source of signals puts them for one base: a count for each signal, and a
// waker of its own. It is no queue, so it is never full and no signal is lost, however many come
// before the base looks (an inbox is bounded, and a base that nobody posts to has none).
#pragma once

#include <atomic>
#include <cstdint>

#include "waker.h"

namespace multiloop {

// Signals are 1 to 64 on Linux, fewer elsewhere; bit n - 1 of a set stands for signal n.
constexpr int kSignalsMax = 64;

class SignalBox {
 public:
  // Opens the waker; 0 or -errno.
  [[nodiscard]] int open(Waker::Kind kind) { return waker_.open(kind); }
  ~SignalBox() { waker_.close(); }

  // Any thread.
  void raise(int signal);

  // The base's thread.
  Waker& waker() { return waker_; }
  const Waker& waker() const { return waker_; }
  std::uint64_t pending() const { return pending_.load(std::memory_order_acquire); }
  // How often `signal` has come since it was last taken.
  std::uint32_t take(int signal);

 private:
  Waker waker_;
  std::atomic<std::uint64_t> pending_{0};
  std::atomic<std::uint32_t> counts_[kSignalsMax + 1] = {};
};

// Who catches signals for the bases of all threads. Both functions may be called on any thread and
// return when the kernel has been told: after subscribe() the signal no longer takes its default
// action, and after the last unsubscribe() it does again (or is ignored, if it was before).
class SignalSource {
 public:
  // 0 or -errno: -EINVAL for a signal that cannot be caught (sigaction(2)).
  [[nodiscard]] virtual int subscribe(SignalBox* box, int signal) = 0;
  // `box` is not used any more when this returns.
  virtual void unsubscribe(SignalBox* box, int signal) = 0;

 protected:
  ~SignalSource() = default;
};

}  // namespace multiloop
