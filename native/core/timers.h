// The timers of a base: a heap, and queues for timeouts that many events share (libevent's common
// timeouts). Whoever joins a queue last is due last, so adding and removing there is O(1), and each
// queue costs the next deadline one place in a small heap of its own. Belongs to its base's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "clock.h"
#include "timer_heap.h"

namespace multiloop {

// A queue of common timeouts, or none: the heap.
using CommonId = std::uint16_t;
constexpr CommonId kNoCommon = UINT16_MAX;
// libevent allows 256 of them a base; each is a word in a small heap here.
constexpr CommonId kCommonsMax = 1'024;

class Timers {
 public:
  // The queue of this duration: the same for the same one. kNoCommon past kCommonsMax.
  CommonId common(Micros duration);
  Micros duration(CommonId common) const { return queues_[common].duration; }
  CommonId commons() const { return static_cast<CommonId>(queues_.size()); }

  void reserve(std::uint32_t owners);
  bool contains(std::uint32_t owner) const;
  Micros deadline(std::uint32_t owner) const;
  void set(std::uint32_t owner, Micros deadline, CommonId common);
  void remove(std::uint32_t owner);

  bool empty() const { return heap_.empty() && heads_.empty(); }
  std::size_t size() const { return heap_.size() + queued_; }
  // The earliest; only when there is one.
  struct Due {
    Micros deadline;
    std::uint32_t owner;
  };
  Due first() const;
  // The owners of those in the heap that may be due after the first.
  template <typename Visit>
  void visit_next(Visit visit) const {
    heap_.visit_next(visit);
  }
  // Before timers are taken out that are due at `now`.
  void gather(Micros now) { heap_.gather(now); }
  // Every structure, walked; for tests and debug mode.
  bool valid() const;

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  struct Queue {
    Micros duration;
    std::uint32_t first = kNone;
    std::uint32_t last = kNone;
  };
  struct Node {
    Micros deadline;
    std::uint32_t next = kNone;
    std::uint32_t previous = kNone;
    CommonId queue = kNoCommon;
  };

  bool queued(std::uint32_t owner) const {
    return owner < nodes_.size() && nodes_[owner].queue != kNoCommon;
  }
  void append(std::uint32_t owner, Micros deadline, CommonId common);
  void unlink(std::uint32_t owner);
  void lead(CommonId common);

  TimerHeap heap_;
  TimerHeap heads_;            // by queue: when its first is due
  std::vector<Queue> queues_;  // by CommonId
  std::vector<Node> nodes_;    // by owner; empty until a queue is used
  std::size_t queued_ = 0;
  std::uint32_t owners_ = 0;
};

}  // namespace multiloop
