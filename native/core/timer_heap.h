// The timers of a base: a 4-ary min-heap of deadlines. Four children a node instead of two halve
// the depth, and siblings share a cache line. Equal deadlines fire in the order they were set.
// Belongs to its base's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "clock.h"

namespace multiloop {

class TimerHeap {
 public:
  static constexpr std::uint32_t kNowhere = UINT32_MAX;

  // `owner` is the caller's number for the timer; `place` tells the caller where it stands.
  struct Timer {
    Micros deadline;
    std::uint32_t order;
    std::uint32_t owner;
  };

  bool empty() const { return timers_.empty(); }
  std::size_t size() const { return timers_.size(); }
  const Timer& first() const { return timers_.front(); }
  const Timer& at(std::uint32_t place) const { return timers_[place]; }

  void reserve(std::uint32_t owners);
  bool contains(std::uint32_t owner) const { return places_[owner] != kNowhere; }
  Micros deadline(std::uint32_t owner) const { return timers_[places_[owner]].deadline; }
  void set(std::uint32_t owner, Micros deadline);
  void remove(std::uint32_t owner);
  // The heap property and the places, walked; for tests and debug mode.
  bool valid() const;

 private:
  void up(std::uint32_t place);
  void down(std::uint32_t place);
  void put(std::uint32_t place, const Timer& timer);

  std::vector<Timer> timers_;
  std::vector<std::uint32_t> places_;  // by owner
  std::uint32_t order_ = 0;
};

}  // namespace multiloop
