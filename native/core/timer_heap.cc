#include "timer_heap.h"

#include <algorithm>

#include "check.h"

namespace multiloop {

namespace {

constexpr std::uint32_t kArity = 4;

bool before(const TimerHeap::Timer& a, const TimerHeap::Timer& b) {
  if (a.deadline != b.deadline) return a.deadline < b.deadline;
  // The order wraps after 2^32 timers; the difference stays right as long as no two timers of one
  // deadline are 2^31 apart.
  return static_cast<std::int32_t>(a.order - b.order) < 0;
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
    place = static_cast<std::uint32_t>(timers_.size());
    timers_.push_back(timer);
    places_[owner] = place;
    up(place);
    return;
  }
  const bool earlier = before(timer, timers_[place]);
  timers_[place] = timer;
  if (earlier)
    up(place);
  else
    down(place);
}

void TimerHeap::remove(std::uint32_t owner) {
  const std::uint32_t place = places_[owner];
  ML_CHECK(place < timers_.size() && timers_[place].owner == owner);
  places_[owner] = kNowhere;
  const Timer last = timers_.back();
  timers_.pop_back();
  if (place == timers_.size()) return;
  put(place, last);
  up(place);
  down(places_[last.owner]);
}

bool TimerHeap::valid() const {
  for (std::uint32_t i = 0; i < timers_.size(); ++i) {
    if (places_[timers_[i].owner] != i) return false;
    if (i > 0 && before(timers_[i], timers_[(i - 1) / kArity])) return false;
  }
  const auto placed = std::count_if(places_.begin(), places_.end(),
                                    [](std::uint32_t place) { return place != kNowhere; });
  return static_cast<std::size_t>(placed) == timers_.size();
}

void TimerHeap::put(std::uint32_t place, const Timer& timer) {
  timers_[place] = timer;
  places_[timer.owner] = place;
}

void TimerHeap::up(std::uint32_t place) {
  const Timer timer = timers_[place];
  while (place > 0) {
    const std::uint32_t parent = (place - 1) / kArity;
    if (!before(timer, timers_[parent])) break;
    put(place, timers_[parent]);
    place = parent;
  }
  put(place, timer);
}

void TimerHeap::down(std::uint32_t place) {
  const Timer timer = timers_[place];
  const auto size = static_cast<std::uint32_t>(timers_.size());
  for (;;) {
    const std::uint32_t first = place * kArity + 1;
    if (first >= size) break;
    std::uint32_t least = first;
    const std::uint32_t end = std::min(first + kArity, size);
    for (std::uint32_t child = first + 1; child < end; ++child)
      if (before(timers_[child], timers_[least])) least = child;
    if (!before(timers_[least], timer)) break;
    put(place, timers_[least]);
    place = least;
  }
  put(place, timer);
}

}  // namespace multiloop
