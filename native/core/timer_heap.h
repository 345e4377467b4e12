// The timers of a base: a 4-ary min-heap of deadlines. Four children a node instead of two halve
// the depth, and the four share one line of the processor's cache: with a million timers, what a
// heap costs is how many lines it fetches. Equal deadlines fire in the order they were set.
//
// When a good part of a large heap is due at once, taking timers out one by one would fetch a path
// of lines for each. gather() then moves all that are due to a sorted list, which is read in order.
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

  bool empty() const { return size_ == 0 && due_.empty(); }
  std::uint32_t size() const { return size_ + due_live_; }
  const Timer& first() const { return due_.empty() ? node(0) : due_.back(); }
  // The owners of those that may be first after the first.
  template <typename Visit>
  void visit_next(Visit visit) const {
    for (std::size_t i = 2; i <= 4 && i <= due_.size(); ++i) {
      const std::uint32_t owner = due_[due_.size() - i].owner;
      if (owner != kNowhere) visit(owner);
    }
    for (std::uint32_t place = 1; due_.empty() && place <= kArity && place < size_; ++place)
      visit(node(place).owner);
  }

  void reserve(std::uint32_t owners);
  bool contains(std::uint32_t owner) const { return places_[owner] != kNowhere; }
  Micros deadline(std::uint32_t owner) const {
    const std::uint32_t place = places_[owner];
    return (place & kInDue ? due_[place ^ kInDue] : node(place)).deadline;
  }
  void set(std::uint32_t owner, Micros deadline);
  void remove(std::uint32_t owner);
  // Before timers are taken out that are due at `now`.
  void gather(Micros now);
  // The heap property and the places, walked; for tests and debug mode.
  bool valid() const;

 private:
  static constexpr std::uint32_t kArity = 4;
  // Of a place: an index of `due_` and not of the heap.
  static constexpr std::uint32_t kInDue = 1U << 31;
  // A heap smaller than this is in the cache anyhow.
  static constexpr std::uint32_t kGatherMin = 16'384;
  // gather() looks at every timer and builds the heap anew, which pays when one in so many is due.
  static constexpr std::uint32_t kGatherShare = 16;
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
  bool many_due(Micros now) const;
  void up(std::uint32_t place);
  void down(std::uint32_t place);
  void put(std::uint32_t place, const Timer& timer);

  std::vector<Siblings> lines_;  // the first has the root only, in its last place
  std::uint32_t size_ = 0;
  std::vector<Timer> due_;  // the latest first; its last is live, others may be taken out: kNowhere
  std::uint32_t due_live_ = 0;
  std::vector<std::uint32_t> places_;  // by owner
  std::uint32_t order_ = 0;
};

}  // namespace multiloop
