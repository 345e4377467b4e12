// The heap of timers against a sorted set that does the same.
#include "../../native/core/timer_heap.h"

#include <algorithm>
#include <map>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

// The timers in the order in which they must fire: by deadline, then by when they were set.
struct Model {
  using Key = std::pair<Micros, std::uint64_t>;
  std::map<Key, std::uint32_t> sorted;
  std::map<std::uint32_t, Key> places;
  std::uint64_t order = 0;

  void set(std::uint32_t owner, Micros deadline) {
    remove(owner);
    places[owner] = {deadline, order++};
    sorted[places[owner]] = owner;
  }
  void remove(std::uint32_t owner) {
    const auto place = places.find(owner);
    if (place == places.end()) return;
    sorted.erase(place->second);
    places.erase(place);
  }
};

}  // namespace

TEST(random_operations_agree_with_a_sorted_model) {
  constexpr int kOperations = 200'000;
  constexpr std::uint32_t kOwners = 1'000;
  Random random;
  TimerHeap heap;
  heap.reserve(kOwners);
  Model model;
  for (int i = 0; i < kOperations; ++i) {
    const std::uint32_t owner = random.below(kOwners);
    switch (random.below(8)) {
      case 0:
      case 1:
        if (heap.contains(owner)) heap.remove(owner);
        model.remove(owner);
        break;
      case 2:
        // As a turn does: take the first until only later ones are left.
        while (!heap.empty() && heap.size() > kOwners / 2) {
          if (!EXPECT_EQ(heap.first().owner, model.sorted.begin()->second)) return;
          model.remove(heap.first().owner);
          heap.remove(heap.first().owner);
        }
        break;
      default: {
        // Few different deadlines, so that many are equal.
        const auto deadline = static_cast<Micros>(random.below(200));
        heap.set(owner, deadline);
        model.set(owner, deadline);
      }
    }
    bool same = heap.size() == model.sorted.size() &&
                heap.contains(owner) == (model.places.count(owner) > 0);
    if (same && heap.contains(owner)) same = heap.deadline(owner) == model.places[owner].first;
    if (same && !heap.empty()) same = heap.first().owner == model.sorted.begin()->second;
    if (same && i % 500 == 0) same = heap.valid();
    if (!EXPECT_TRUE(same)) return;
  }
  while (!heap.empty()) {
    if (!EXPECT_EQ(heap.first().owner, model.sorted.begin()->second)) return;
    model.remove(heap.first().owner);
    heap.remove(heap.first().owner);
  }
  EXPECT_TRUE(heap.valid());
}

TEST(equal_deadlines_fire_in_the_order_they_were_set) {
  TimerHeap heap;
  heap.reserve(100);
  for (std::uint32_t owner = 0; owner < 100; ++owner) heap.set(owner, 7);
  // One that is set again goes to the end.
  heap.set(0, 7);
  std::vector<std::uint32_t> fired;
  while (!heap.empty()) {
    fired.push_back(heap.first().owner);
    heap.remove(heap.first().owner);
  }
  std::vector<std::uint32_t> expected;
  for (std::uint32_t owner = 1; owner < 100; ++owner) expected.push_back(owner);
  expected.push_back(0);
  EXPECT_EQ(fired, expected);
}

TEST(reserving_keeps_what_is_set) {
  TimerHeap heap;
  heap.reserve(1);
  heap.set(0, 5);
  heap.reserve(1'000);
  heap.reserve(10);
  EXPECT_TRUE(heap.contains(0));
  EXPECT_TRUE(!heap.contains(999));
  heap.set(999, 4);
  EXPECT_EQ(heap.first().owner, 999U);
  EXPECT_EQ(heap.deadline(0), 5);
  EXPECT_TRUE(heap.valid());
}

TEST(many_that_are_due_at_once_agree_with_a_sorted_model) {
  constexpr std::uint32_t kOwners = 20'000;
  constexpr Micros kStep = 100;
  Random random;
  TimerHeap heap;
  Model model;
  heap.reserve(kOwners);
  const auto set = [&](std::uint32_t owner, Micros deadline) {
    heap.set(owner, deadline);
    model.set(owner, deadline);
  };
  for (std::uint32_t owner = 0; owner < kOwners; ++owner) set(owner, random.below(1'000));
  for (Micros now = kStep; now <= 1'500; now += kStep) {
    heap.gather(now);
    EXPECT_TRUE(heap.valid());
    while (!heap.empty() && heap.first().deadline <= now) {
      const auto& [key, owner] = *model.sorted.begin();
      if (!EXPECT_EQ(heap.first().owner, owner) || !EXPECT_EQ(heap.first().deadline, key.first))
        return;
      const std::uint32_t fired = owner;
      heap.remove(fired);
      model.remove(fired);
      // Meanwhile others are taken out, put off, or made due, wherever they are.
      const std::uint32_t other = random.below(kOwners);
      switch (random.below(8)) {
        case 0:
          if (heap.contains(other)) heap.remove(other);
          model.remove(other);
          break;
        case 1:
          set(other, now + random.below(200));
          break;
        case 2:
          set(fired, now + 1 + random.below(400));
          break;
        default:
          break;
      }
      if (random.below(2'000) == 0) EXPECT_TRUE(heap.valid());
    }
    EXPECT_EQ(heap.size(), model.sorted.size());
  }
  EXPECT_TRUE(heap.valid());
  for (const auto& [owner, place] : model.places) {
    EXPECT_TRUE(heap.contains(owner));
    EXPECT_EQ(heap.deadline(owner), place.first);
  }
}

TEST(a_million_timers_come_out_sorted) {
// Under a sanitizer they would take seconds, and it finds no more in them than in a few.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  constexpr std::uint32_t kOwners = 100'000;
#else
  constexpr std::uint32_t kOwners = 1'000'000;
#endif
  Random random;
  TimerHeap heap;
  heap.reserve(kOwners);
  // The model is sorted once, at the end: what must come out is the deadlines in order, and among
  // equals the owners in the order in which they were set last.
  std::vector<std::uint64_t> set(kOwners);
  const auto deadline_of = [](std::uint64_t one) { return static_cast<Micros>(one >> 32); };
  for (std::uint32_t owner = 0; owner < kOwners; ++owner) {
    const Micros deadline = random.below(kOwners / 4);
    heap.set(owner, deadline);
    set[owner] = static_cast<std::uint64_t>(deadline) << 32 | owner;
  }
  EXPECT_TRUE(heap.valid());
  // A tenth moves, and a tenth goes. Those that move are set in the order of their numbers again.
  for (std::uint32_t owner = 0; owner < kOwners; owner += 10) {
    const auto deadline = static_cast<Micros>(kOwners / 4 + random.below(8));
    heap.set(owner, deadline);
    set[owner] = static_cast<std::uint64_t>(deadline) << 32 | owner;
    heap.remove(owner + 1);
    set[owner + 1] = UINT64_MAX;
  }
  EXPECT_TRUE(heap.valid());
  std::erase(set, UINT64_MAX);
  std::sort(set.begin(), set.end());
  EXPECT_EQ(heap.size(), set.size());
  for (const std::uint64_t one : set) {
    const TimerHeap::Timer& first = heap.first();
    const bool same = first.deadline == deadline_of(one) && first.owner == (one & UINT32_MAX);
    if (!same && !EXPECT_TRUE(same)) return;
    heap.remove(first.owner);
  }
  EXPECT_TRUE(heap.empty() && heap.valid());
}

}  // namespace multiloop::test
