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
  if (places_[owner] != kNowhere && (places_[owner] & kInDue)) remove(owner);
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
  if (place != kNowhere && (place & kInDue)) {
    Timer& timer = due_[place ^ kInDue];
    ML_CHECK(timer.owner == owner);
    timer.owner = places_[owner] = kNowhere;
    --due_live_;
    while (!due_.empty() && due_.back().owner == kNowhere) due_.pop_back();
    return;
  }
  ML_CHECK(place < size_ && node(place).owner == owner);
  places_[owner] = kNowhere;
  const Timer last = node(--size_);
  if (place == size_) return;
  put(place, last);
  up(place);
  down(places_[last.owner]);
}

void TimerHeap::gather(Micros now) {
  if (!due_.empty() || size_ < kGatherMin || !many_due(now)) return;
  std::uint32_t kept = 0;
  for (std::uint32_t place = 0; place < size_; ++place) {
    const Timer timer = node(place);
    if (timer.deadline <= now)
      due_.push_back(timer);
    else
      put(kept++, timer);
  }
  size_ = kept;
  std::sort(due_.begin(), due_.end(), [](const Timer& a, const Timer& b) { return before(b, a); });
  due_live_ = static_cast<std::uint32_t>(due_.size());
  for (std::uint32_t i = 0; i < due_live_; ++i) places_[due_[i].owner] = i | kInDue;
  if (size_ < 2) return;
  for (std::uint32_t parent = (size_ - 2) / kArity + 1; parent-- > 0;) down(parent);
}

// Only the due ones are looked at, and their children: they are the top of the heap.
bool TimerHeap::many_due(Micros now) const {
  // Of each level that is not done with, three siblings at most wait here.
  std::uint32_t waiting[4 * 16] = {0};
  std::uint32_t depth = 1;
  std::uint32_t count = 0;
  while (depth > 0 && count < size_ / kGatherShare) {
    const std::uint32_t place = waiting[--depth];
    if (node(place).deadline > now) continue;
    ++count;
    const std::uint32_t end = std::min((place + 1) * kArity + 1, size_);
    for (std::uint32_t child = place * kArity + 1; child < end; ++child) waiting[depth++] = child;
  }
  return count >= size_ / kGatherShare;
}

bool TimerHeap::valid() const {
  std::uint32_t live = 0;
  for (std::uint32_t i = 0; i < due_.size(); ++i) {
    if (due_[i].owner != kNowhere && places_[due_[i].owner] != (i | kInDue)) return false;
    if (due_[i].owner != kNowhere) ++live;
    if (i > 0 && before(due_[i - 1], due_[i])) return false;
  }
  if (live != due_live_ || (!due_.empty() && due_.back().owner == kNowhere)) return false;
  if (size_ > 0 && (size_ + kArity - 2) / kArity >= lines_.size()) return false;
  for (std::uint32_t i = 0; i < size_; ++i) {
    if (places_[node(i).owner] != i) return false;
    if (i > 0 && before(node(i), node((i - 1) / kArity))) return false;
  }
  const auto placed = std::count_if(places_.begin(), places_.end(),
                                    [](std::uint32_t place) { return place != kNowhere; });
  return placed == static_cast<std::ptrdiff_t>(size());
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
