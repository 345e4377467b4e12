#include "timer_heap.h"

#include <algorithm>
#include <cstddef>

#include "check.h"

namespace multiloop {

namespace {

// Without a branch: which of two timers is due first is a coin toss to the processor, and a wrong
// guess costs it more than the comparison.
bool before(const TimerHeap::Timer& a, const TimerHeap::Timer& b) {
  // The order wraps after 2^32 timers; the difference stays right as long as no two timers of one
  // deadline are 2^31 apart.
  const bool came_first = static_cast<std::int32_t>(a.order - b.order) < 0;
  return (a.deadline < b.deadline) | ((a.deadline == b.deadline) & came_first);
}

}  // namespace

void TimerHeap::reserve(std::uint32_t owners) {
  if (places_.size() < owners) places_.resize(owners, kNowhere);
}

void TimerHeap::set(std::uint32_t owner, Micros deadline) {
  ML_CHECK(owner < places_.size());
  const Timer timer{deadline, order_++, owner};
  std::uint32_t place = places_[owner];
  if (place == kNowhere) {
    place = size_++;
    if ((place + kArity - 1) / kArity == lines_.size()) lines_.emplace_back();
    put(place, timer);
    up(place);
    return;
  }
  const bool earlier = before(timer, node(place));
  node(place) = timer;
  if (earlier)
    up(place);
  else
    down(place);
}

void TimerHeap::remove(std::uint32_t owner) {
  const std::uint32_t place = places_[owner];
  ML_CHECK(place < size_ && node(place).owner == owner);
  places_[owner] = kNowhere;
  const Timer last = node(--size_);
  if (place == size_) return;
  put(place, last);
  up(place);
  down(places_[last.owner]);
}

bool TimerHeap::valid() const {
  if (size_ > 0 && (size_ + kArity - 2) / kArity >= lines_.size()) return false;
  for (std::uint32_t i = 0; i < size_; ++i) {
    if (places_[node(i).owner] != i) return false;
    if (i > 0 && before(node(i), node((i - 1) / kArity))) return false;
  }
  const auto placed = std::count_if(places_.begin(), places_.end(),
                                    [](std::uint32_t place) { return place != kNowhere; });
  return placed == static_cast<std::ptrdiff_t>(size_);
}

void TimerHeap::put(std::uint32_t place, const Timer& timer) {
  node(place) = timer;
  places_[timer.owner] = place;
}

void TimerHeap::up(std::uint32_t place) {
  const Timer timer = node(place);
  while (place > 0) {
    const std::uint32_t parent = (place - 1) / kArity;
    if (!before(timer, node(parent))) break;
    put(place, node(parent));
    place = parent;
  }
  put(place, timer);
}

void TimerHeap::down(std::uint32_t place) {
  const Timer timer = node(place);
  for (std::uint32_t first; (first = place * kArity + 1) < size_;) {
    std::uint32_t least = first;
    if (first + kArity <= size_) {
      // Whichever child comes up, its children are compared next: their lines are on their way.
      const std::size_t below = std::size_t{first} + 1;
      if (below + kArity <= lines_.size())
        for (std::size_t i = 0; i < kArity; ++i) __builtin_prefetch(&lines_[below + i]);
      const Timer* const four = lines_[place + 1].timers;
      const std::uint32_t left = before(four[1], four[0]);
      const std::uint32_t right = 2 + before(four[3], four[2]);
      least += before(four[right], four[left]) ? right : left;
    } else {
      for (std::uint32_t child = first + 1; child < size_; ++child)
        if (before(node(child), node(least))) least = child;
    }
    if (!before(node(least), timer)) break;
    put(place, node(least));
    place = least;
  }
  put(place, timer);
}

}  // namespace multiloop
