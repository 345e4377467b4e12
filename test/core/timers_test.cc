// The timers: a heap beside queues of common timeouts, against a sorted model, and what a base
// makes of both.
#include "../../native/core/timers.h"

#include <algorithm>
#include <map>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

constexpr Micros kMillisecond = 1'000;

// Takes them all, in the order in which they are due.
std::vector<std::uint32_t> take_all(Timers& timers) {
  std::vector<std::uint32_t> owners;
  while (!timers.empty()) {
    owners.push_back(timers.first().owner);
    timers.remove(owners.back());
  }
  return owners;
}

std::vector<std::uint32_t> range(std::uint32_t begin, std::uint32_t end) {
  std::vector<std::uint32_t> numbers;
  for (std::uint32_t i = begin; i < end; ++i) numbers.push_back(i);
  return numbers;
}

}  // namespace

// ── the structures ──────────────────────────────────────────────────────────────────────────

TEST(one_duration_is_one_queue) {
  Timers timers;
  timers.reserve(1);
  std::vector<CommonId> ids;
  for (CommonId i = 0; i < kCommonsMax; ++i) {
    ids.push_back(timers.common(i * 7));
    EXPECT_TRUE(ids.back() != kNoCommon);
  }
  EXPECT_EQ(timers.commons(), kCommonsMax);
  // There is no room for another, and those that exist are still found.
  EXPECT_EQ(timers.common(kCommonsMax * 7), kNoCommon);
  EXPECT_EQ(timers.common(1), kNoCommon);
  for (CommonId i = 0; i < kCommonsMax; ++i) {
    EXPECT_EQ(timers.common(i * 7), ids[i]);
    EXPECT_EQ(timers.duration(ids[i]), i * 7);
  }
  EXPECT_EQ(timers.commons(), kCommonsMax);
  // All of them at once: each has its place among the heads.
  timers.reserve(kCommonsMax);
  for (std::uint32_t i = 0; i < kCommonsMax; ++i)
    timers.set(i, static_cast<Micros>(kCommonsMax - i), ids[i]);
  EXPECT_TRUE(timers.valid());
  std::vector<std::uint32_t> expected = range(0, kCommonsMax);
  std::reverse(expected.begin(), expected.end());
  EXPECT_EQ(take_all(timers), expected);
}

TEST(a_queue_is_first_in_first_out) {
  Timers timers;
  timers.reserve(100);
  const CommonId common = timers.common(30);
  for (std::uint32_t owner = 0; owner < 100; ++owner) timers.set(owner, 30 + owner / 10, common);
  EXPECT_EQ(timers.size(), 100);
  EXPECT_TRUE(timers.valid());
  // Set again, it goes to the end of its equals.
  timers.set(0, 39, common);
  timers.remove(50);
  EXPECT_TRUE(!timers.contains(50));
  std::vector<std::uint32_t> expected = range(1, 100);
  std::erase(expected, 50);
  expected.push_back(0);
  EXPECT_EQ(take_all(timers), expected);
  EXPECT_TRUE(timers.valid() && timers.size() == 0);
}

TEST(one_that_is_due_before_the_last_of_its_queue_finds_its_place) {
  // As a persistent event does that counts from when it was due.
  Timers timers;
  timers.reserve(6);
  const CommonId common = timers.common(10);
  timers.set(0, 20, common);
  timers.set(1, 30, common);
  timers.set(2, 25, common);
  timers.set(3, 20, common);
  timers.set(4, 5, common);
  timers.set(5, 30, common);
  EXPECT_TRUE(timers.valid());
  EXPECT_EQ(timers.first().owner, 4);
  EXPECT_EQ(timers.first().deadline, 5);
  EXPECT_EQ(take_all(timers), (std::vector<std::uint32_t>{4, 0, 3, 2, 1, 5}));
}

TEST(the_first_is_found_across_the_heap_and_all_queues) {
  Timers timers;
  timers.reserve(6);
  const CommonId shorter = timers.common(10);
  const CommonId longer = timers.common(20);
  timers.set(0, 20, longer);
  timers.set(1, 21, longer);
  timers.set(2, 10, shorter);
  timers.set(3, 22, shorter);
  timers.set(4, 15, kNoCommon);
  timers.set(5, 9, kNoCommon);
  EXPECT_EQ(take_all(timers), (std::vector<std::uint32_t>{5, 2, 4, 0, 1, 3}));
}

TEST(an_owner_moves_between_the_heap_and_the_queues) {
  Timers timers;
  timers.reserve(3);
  const CommonId one = timers.common(10);
  const CommonId other = timers.common(20);
  const CommonId places[] = {kNoCommon, one, other};
  timers.set(1, 100, one);
  timers.set(2, 100, kNoCommon);
  Micros deadline = 50;
  for (const CommonId from : places) {
    for (const CommonId to : places) {
      timers.set(0, ++deadline, from);
      EXPECT_EQ(timers.deadline(0), deadline);
      timers.set(0, ++deadline, to);
      EXPECT_TRUE(timers.valid() && timers.contains(0));
      EXPECT_EQ(timers.size(), 3);
      EXPECT_EQ(timers.deadline(0), deadline);
      EXPECT_EQ(timers.first().owner, 0);
      timers.remove(0);
      EXPECT_TRUE(timers.valid() && !timers.contains(0));
      EXPECT_EQ(timers.size(), 2);
    }
  }
}

TEST(owners_that_came_before_the_first_queue_may_join_it) {
  Timers timers;
  timers.reserve(100);
  timers.set(99, 5, kNoCommon);
  // What was reserved is not given back by who asks for less.
  timers.reserve(10);
  const CommonId common = timers.common(10);
  timers.set(99, 10, common);
  timers.set(0, 9, common);
  timers.reserve(200);
  timers.set(199, 11, common);
  EXPECT_TRUE(timers.valid());
  EXPECT_EQ(take_all(timers), (std::vector<std::uint32_t>{0, 99, 199}));
}

TEST(a_queue_costs_the_same_however_long_it_is) {
  // A queue that was walked at every step would need hours for this.
  constexpr std::uint32_t kOwners = 100'000;
  Timers timers;
  timers.reserve(kOwners);
  const CommonId common = timers.common(10);
  const Micros begin = monotonic_now();
  for (std::uint32_t owner = 0; owner < kOwners; ++owner) timers.set(owner, owner, common);
  // Set again from the front, removed from the middle and from the end.
  for (std::uint32_t owner = 0; owner < kOwners; ++owner) timers.set(owner, kOwners, common);
  for (std::uint32_t owner = kOwners / 4; owner < kOwners / 2; ++owner) timers.remove(owner);
  for (std::uint32_t owner = kOwners; owner-- > kOwners / 2;) timers.remove(owner);
  EXPECT_TRUE(timers.valid());
  EXPECT_EQ(take_all(timers), range(0, kOwners / 4));
  EXPECT_TRUE(monotonic_now() - begin < 5'000'000);
}

TEST(random_operations_agree_with_a_sorted_list) {
  constexpr std::uint32_t kOwners = 400;
  constexpr int kOperations = 100'000;
  using Sorted = std::multimap<Micros, std::uint32_t>;
  Random random;
  Timers timers;
  std::vector<CommonId> places{kNoCommon};
  Sorted sorted;
  std::map<std::uint32_t, Sorted::iterator> at;
  const auto forget = [&](std::uint32_t owner) {
    const auto known = at.find(owner);
    if (known == at.end()) return;
    sorted.erase(known->second);
    at.erase(known);
  };
  Micros now = 0;
  std::uint32_t owners = 1;
  timers.reserve(owners);
  for (int i = 0; i < kOperations; ++i) {
    const std::uint32_t owner = random.below(owners);
    switch (random.below(8)) {
      case 0:
        if (owners < kOwners) timers.reserve(++owners);
        if (random.below(1'000) == 0) places.push_back(timers.common(random.below(500)));
        break;
      case 1:
        if (timers.contains(owner)) timers.remove(owner);
        forget(owner);
        break;
      case 2:
        // Time goes on, and what is due is taken.
        now += random.below(20);
        while (!timers.empty() && timers.first().deadline <= now) {
          const Timers::Due due = timers.first();
          if (!EXPECT_EQ(due.deadline, sorted.begin()->first)) return;
          if (!EXPECT_TRUE(at.count(due.owner) && at[due.owner]->first == due.deadline)) return;
          timers.remove(due.owner);
          forget(due.owner);
        }
        break;
      default: {
        const CommonId place = places[random.below(places.size())];
        const Micros length = place == kNoCommon ? random.below(500) : timers.duration(place);
        // Some count from a little earlier.
        const Micros deadline = now + length - random.below(4);
        timers.set(owner, deadline, place);
        forget(owner);
        at[owner] = sorted.insert({deadline, owner});
      }
    }
    bool same = timers.size() == sorted.size() && timers.empty() == sorted.empty();
    same = same && timers.contains(owner) == (at.count(owner) > 0);
    if (same && timers.contains(owner)) same = timers.deadline(owner) == at[owner]->first;
    if (same && !timers.empty()) same = timers.first().deadline == sorted.begin()->first;
    if (same && i % 250 == 0) same = timers.valid();
    if (!EXPECT_TRUE(same)) return;
  }
  EXPECT_TRUE(places.size() > 3);
}

// ── of a base ───────────────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(common_timeouts_fire_in_the_order_they_were_added) {
  const CommonId common = rig.base->common_timeout(2 * kMillisecond);
  EXPECT_EQ(rig.base->common_timeout(2 * kMillisecond), common);
  EXPECT_EQ(rig.base->common_duration(common), 2 * kMillisecond);
  EXPECT_EQ(rig.base->commons(), 1);
  std::vector<EventId> added;
  // Not in the order of their slots.
  for (int i = 0; i < 3'000; ++i) added.push_back(rig.create(-1, 0));
  for (std::size_t i = 0; i < added.size(); ++i)
    std::swap(added[i], added[(i * 7'919) % added.size()]);
  rig.base->update_time();
  for (const EventId id : added) EXPECT_EQ(rig.base->add(id, 2 * kMillisecond, common), 0);
  // In front of them, and behind them, timers of the heap.
  const EventId front = rig.add(-1, 0, kMillisecond);
  const EventId back = rig.add(-1, 0, 3 * kMillisecond);
  EXPECT_TRUE(rig.remaining(added.front()) == 2 * kMillisecond);
  added.insert(added.begin(), front);
  added.push_back(back);
  std::vector<EventId> fired;
  const Micros begin = rig.now();
  while (fired.size() < added.size()) {
    rig.turn();
    for (const EventId id : rig.order()) fired.push_back(id);
    if (!EXPECT_TRUE(rig.now() < begin + kPatience)) return;
  }
  EXPECT_EQ(fired, added);
  EXPECT_TRUE(rig.now() >= begin + 3 * kMillisecond);
  EXPECT_EQ(rig.base->counts().added, 0);
}

TEST_EACH_BASE(a_persistent_event_of_a_queue_goes_on_from_when_it_was_due) {
  constexpr Micros kInterval = 10 * kMillisecond;
  const CommonId common = rig.base->common_timeout(kInterval);
  const EventId id = rig.add(-1, kPersist, kInterval, common);
  for (int tick = 0; tick < 3; ++tick) {
    rig.base->update_time();
    const Micros due = rig.now() + rig.remaining(id);
    // Those that join while it waits are due after it, and it goes in front of them again.
    const EventId other = rig.add(-1, 0, kInterval, common);
    EXPECT_EQ(turn_until(rig, id), kTimeout);
    EXPECT_TRUE(rig.now() >= due);
    const Micros next = due + kInterval > rig.now() ? due + kInterval : rig.now() + kInterval;
    EXPECT_EQ(rig.now() + rig.remaining(id), next);
    EXPECT_EQ(rig.base->destroy(other), 0);
  }
}

TEST_EACH_BASE(missed_ticks_of_a_queue_are_dropped) {
  const CommonId common = rig.base->common_timeout(2 * kMillisecond);
  std::vector<EventId> ids;
  for (int i = 0; i < 100; ++i) ids.push_back(rig.add(-1, kPersist, 2 * kMillisecond, common));
  let_pass(monotonic_now() + 9 * kMillisecond);
  rig.poll();
  EXPECT_EQ(rig.order(), ids);
  for (const EventId id : ids) EXPECT_EQ(rig.remaining(id), 2 * kMillisecond);
  rig.poll();
}

TEST_EACH_BASE(a_queue_without_a_duration_lets_the_others_go_on) {
  const CommonId common = rig.base->common_timeout(0);
  const EventId first = rig.add(-1, kPersist, 0, common);
  const EventId second = rig.add(-1, kPersist, 0, common);
  const EventId heap = rig.add(-1, kPersist, 0);
  for (int i = 0; i < 3; ++i) {
    rig.base->end_of_pass();
    let_pass(monotonic_now() + 2);
    rig.poll();
    EXPECT_EQ(rig.page->ready, 3);
    for (const EventId id : {first, second, heap}) EXPECT_EQ(rig.times(id), 1);
  }
}

TEST_EACH_BASE(an_event_changes_its_queue_when_it_is_added_again) {
  const CommonId shorter = rig.base->common_timeout(kMillisecond);
  const CommonId longer = rig.base->common_timeout(3'600 * 1'000 * kMillisecond);
  const Pair pair;
  const EventId id = rig.add(pair.near, kRead | kPersist, kMillisecond, shorter);
  EXPECT_EQ(rig.base->add(id, rig.base->common_duration(longer), longer), 0);
  EXPECT_EQ(rig.base->counts().added, 2);
  let_pass(monotonic_now() + 2 * kMillisecond);
  EXPECT_EQ(rig.poll(), 0);
  // Told, it starts anew in the queue that it is in now.
  send_byte(pair.far);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
  drain(pair.near);
  EXPECT_EQ(rig.remaining(id), rig.base->common_duration(longer));
  EXPECT_EQ(rig.base->rearm(id), 0);
  EXPECT_EQ(rig.remaining(id), rig.base->common_duration(longer));
  // A timeout of its own takes it out of every queue; none leaves it where it is.
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  EXPECT_EQ(rig.pending(id), kRead | kTimeout);
  EXPECT_EQ(rig.base->add(id, kMillisecond), 0);
  EXPECT_EQ(turn_until(rig, id), kTimeout);
  EXPECT_EQ(rig.base->add(id, kMillisecond, shorter), 0);
  EXPECT_EQ(rig.base->remove_timer(id), 0);
  EXPECT_EQ(rig.pending(id), kRead);
  let_pass(monotonic_now() + 2 * kMillisecond);
  rig.base->end_of_pass();
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(rig.base->next_timeout(), kForever);
}

TEST_EACH_BASE(past_the_last_queue_there_is_none) {
  for (CommonId i = 0; i < kCommonsMax; ++i) EXPECT_EQ(rig.base->common_timeout(i), i);
  EXPECT_EQ(rig.base->common_timeout(kCommonsMax), kNoCommon);
  EXPECT_EQ(rig.base->commons(), kCommonsMax);
  // Which means the heap.
  const EventId id = rig.add(-1, 0, kMillisecond, rig.base->common_timeout(kCommonsMax));
  EXPECT_EQ(turn_until(rig, id), kTimeout);
}

}  // namespace multiloop::test
