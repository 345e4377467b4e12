// The timers of a base: a 4-ary min-heap of deadlines. Four children a node instead of two halve
// the depth, and the four share one line of the processor's cache: with a million timers, what a
// heap costs is how many lines it fetches. Equal deadlines fire in the order they were set.
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

  bool empty() const { return size_ == 0; }
  std::uint32_t size() const { return size_; }
  const Timer& first() const { return node(0); }
  const Timer& at(std::uint32_t place) const { return node(place); }

  void reserve(std::uint32_t owners);
  bool contains(std::uint32_t owner) const { return places_[owner] != kNowhere; }
  Micros deadline(std::uint32_t owner) const { return node(places_[owner]).deadline; }
  void set(std::uint32_t owner, Micros deadline);
  void remove(std::uint32_t owner);
  // The heap property and the places, walked; for tests and debug mode.
  bool valid() const;

 private:
  static constexpr std::uint32_t kArity = 4;
  static constexpr std::size_t kLine = 64;
  // Four siblings are one line, and the children of place p begin at p * 4 + 1.
  struct alignas(kLine) Siblings {
    Timer timers[kArity];
  };
  static_assert(sizeof(Siblings) == kLine);

  Timer& node(std::uint32_t place) {
    return lines_[(place + kArity - 1) / kArity].timers[(place + kArity - 1) % kArity];
  }
  const Timer& node(std::uint32_t place) const {
    return lines_[(place + kArity - 1) / kArity].timers[(place + kArity - 1) % kArity];
  }
  void up(std::uint32_t place);
  void down(std::uint32_t place);
  void put(std::uint32_t place, const Timer& timer);

  std::vector<Siblings> lines_;  // the first has the root only, in its last place
  std::uint32_t size_ = 0;
  std::vector<std::uint32_t> places_;  // by owner
  std::uint32_t order_ = 0;
};

}  // namespace multiloop
