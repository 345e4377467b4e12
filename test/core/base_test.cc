// The event base, over every backend × waker. Where a rule depends on the time, the test computes
// what must come out from the times that the base itself has read.
#include "../../native/core/base.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "../../native/core/handoff.h"
#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

constexpr Micros kMillisecond = 1'000;
constexpr Micros kLong = 3'600'000'000;

}  // namespace

// ── readiness ───────────────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(an_event_is_told_when_its_descriptor_is_ready) {
  const Pair pair;
  const EventId reads = rig.add(pair.near, kRead | kPersist);
  EXPECT_EQ(rig.poll(), 0);
  send_byte(pair.far);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(rig.poll(), kFoundWork);
    EXPECT_EQ(rig.told(reads), kRead);
    EXPECT_EQ(rig.page->ready, 1);
  }
  drain(pair.near);
  EXPECT_EQ(rig.poll(), 0);
  const EventId writes = rig.add(pair.near, kWrite | kPersist);
  EXPECT_EQ(rig.poll(), kFoundWork);
  EXPECT_EQ(rig.told(writes), kWrite);
  EXPECT_EQ(rig.told(reads), 0);
}

TEST_EACH_BASE(what_is_not_persistent_is_told_once_and_may_be_added_again) {
  const Pair pair;
  send_byte(pair.far);
  const EventId id = rig.add(pair.near, kRead, kLong);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(rig.pending(id), kRead | kTimeout);
    rig.poll();
    EXPECT_EQ(rig.told(id), kRead);
    // Removed before its callback would run, its timer too.
    EXPECT_EQ(rig.pending(id), 0);
    EXPECT_EQ(rig.base->counts().added, 0);
    if (i == 1) EXPECT_EQ(rig.poll(), 0);
    EXPECT_EQ(rig.base->add(id, kLong), 0);
  }
}

TEST_EACH_BASE(several_events_share_a_descriptor) {
  const Pair pair;
  send_byte(pair.far);
  const EventId reads = rig.add(pair.near, kRead | kPersist);
  const EventId writes = rig.add(pair.near, kWrite | kPersist);
  const EventId both = rig.add(pair.near, kRead | kWrite | kPersist);
  const EventId once = rig.add(pair.near, kRead);
  rig.poll();
  EXPECT_EQ(rig.told(reads), kRead);
  EXPECT_EQ(rig.told(writes), kWrite);
  EXPECT_EQ(rig.told(both), kRead | kWrite);
  EXPECT_EQ(rig.told(once), kRead);
  EXPECT_EQ(rig.page->ready, 4);
  rig.poll();
  EXPECT_EQ(rig.page->ready, 3);
  EXPECT_EQ(rig.base->remove(both), 0);
  EXPECT_EQ(rig.base->remove(writes), 0);
  rig.poll();
  EXPECT_EQ(rig.order(), std::vector<EventId>{reads});
  EXPECT_EQ(rig.base->remove(reads), 0);
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(rig.base->counts().added, 0);
}

TEST_EACH_BASE(an_event_added_again_in_its_turn_costs_no_change) {
  std::unique_ptr<Backend> inner = make_backend(rig.type);
  auto owned = std::make_unique<Watched>(std::move(inner));
  Watched& watched = *owned;
  Rig other(rig.type, std::move(owned), rig.waker);
  const Pair pair;
  send_byte(pair.far);
  const EventId id = other.add(pair.near, kRead);
  EXPECT_EQ(watched.changes, 1);
  for (int i = 0; i < 5; ++i) {
    other.poll();
    EXPECT_EQ(other.told(id), kRead);
    EXPECT_EQ(other.base->add(id, kForever), 0);
  }
  EXPECT_EQ(watched.changes, 1);
  // Once it stays away the kernel is told, before the next wait.
  other.poll();
  EXPECT_EQ(other.told(id), kRead);
  EXPECT_EQ(other.poll(), 0);
  EXPECT_EQ(watched.changes, 2);
  EXPECT_EQ(other.poll(), 0);
  EXPECT_EQ(watched.changes, 2);
}

TEST_EACH_BASE(an_event_that_cannot_be_added_changes_nothing) {
  Pair pair;
  const int number = pair.near;
  pair.near.close();
  const EventId id = rig.create(number, kRead | kPersist);
  EXPECT_EQ(rig.base->add(id, kLong), -EBADF);
  EXPECT_EQ(rig.pending(id), 0);
  EXPECT_EQ(rig.base->counts().added, 0);
  EXPECT_EQ(rig.base->counts().refd, 0);
  EXPECT_EQ(rig.poll(), 0);
  const EventId past = rig.create(1 << 20, kRead);
  EXPECT_EQ(rig.base->add(past, kForever), -EBADF);
  // Without a descriptor an event is legal; only its timer can fire.
  const EventId none = rig.add(-1, kRead, 0);
  EXPECT_EQ(rig.pending(none), kTimeout);
  EXPECT_EQ(turn_until(rig, none), kTimeout);
}

// ── closed and used again ───────────────────────────────────────────────────────────────────

TEST_EACH_BASE(a_number_used_again_belongs_to_the_new_event) {
  const Pair first;
  const int number = first.near;
  enum class End { kRemoved, kDestroyed, kFired };
  for (const End end : {End::kRemoved, End::kDestroyed, End::kFired}) {
    // With and without a turn between the end of the old event and the new connection.
    for (const bool turn_between : {false, true}) {
      const EventId old = rig.add(number, end == End::kFired ? kWrite : kWrite | kPersist);
      rig.poll();
      EXPECT_EQ(rig.told(old), kWrite);
      if (end == End::kRemoved) EXPECT_EQ(rig.base->remove(old), 0);
      if (end == End::kDestroyed) EXPECT_EQ(rig.base->destroy(old), 0);
      if (turn_between) EXPECT_EQ(rig.poll(), 0);
      const Pair next;
      EXPECT_EQ(dup2(next.near, number), number);
      const EventId young = rig.add(number, kWrite | kPersist);
      for (int i = 0; i < 2; ++i) {
        rig.poll();
        EXPECT_EQ(rig.order(), std::vector<EventId>{young});
      }
      EXPECT_EQ(rig.base->destroy(young), 0);
    }
  }
}

TEST_EACH_BASE(the_same_event_works_on_a_number_used_again) {
  const Pair first, next;
  const int number = first.near;
  const EventId id = rig.add(number, kRead | kPersist);
  rig.poll();
  EXPECT_EQ(rig.base->remove(id), 0);
  EXPECT_EQ(dup2(next.near, number), number);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  send_byte(next.far);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
}

TEST_EACH_BASE(a_descriptor_closed_under_its_event_harms_nobody_else) {
  Pair closed, open;
  const EventId orphan = rig.add(closed.near, kRead | kPersist);
  const EventId other = rig.add(open.near, kRead | kPersist);
  closed.near.close();
  rig.poll();
  EXPECT_EQ(rig.told(other), 0);
  if (!rig.has(kFeatureConstant)) EXPECT_EQ(rig.told(orphan), kRead);
  send_byte(open.far);
  for (int i = 0; i < 3; ++i) {
    rig.poll();
    EXPECT_EQ(rig.told(other), kRead);
  }
  EXPECT_EQ(rig.base->remove(orphan), 0);
  rig.poll();
  EXPECT_EQ(rig.order(), std::vector<EventId>{other});
}

TEST_EACH_BASE(duplicates_are_told_apart) {
  Pair pair;
  Fd copy(sys::dup(pair.near));
  const EventId original = rig.add(pair.near, kRead | kPersist);
  const EventId duplicate = rig.add(copy, kRead | kPersist);
  send_byte(pair.far);
  rig.poll();
  EXPECT_EQ(rig.told(original), kRead);
  EXPECT_EQ(rig.told(duplicate), kRead);
  EXPECT_EQ(rig.base->remove(original), 0);
  rig.base->forget(pair.near);
  pair.near.close();
  rig.poll();
  EXPECT_EQ(rig.order(), std::vector<EventId>{duplicate});
}

TEST_EACH_BASE(a_descriptor_closed_after_its_last_event_leaves_no_ghost_behind) {
  // Its socket lives on in a duplicate; a kernel that still had it would never let us sleep.
  enum class Case { kRemoved, kDestroyed, kFiredAndForgotten };
  for (const Case one : {Case::kRemoved, Case::kDestroyed, Case::kFiredAndForgotten}) {
    Pair pair;
    const Fd copy(sys::dup(pair.near));
    send_byte(pair.far);
    const EventId id = rig.add(pair.near, kRead);
    if (one == Case::kFiredAndForgotten) {
      rig.poll();
      EXPECT_EQ(rig.told(id), kRead);
      rig.base->forget(pair.near);
    } else {
      EXPECT_EQ(one == Case::kRemoved ? rig.base->remove(id) : rig.base->destroy(id), 0);
    }
    pair.near.close();
    // Whatever is left in the kernel is found and taken out by the first wait, which it may end.
    EXPECT_EQ(rig.poll(), 0);
    rig.page->idle = 0;
    EXPECT_EQ(rig.poll(10 * kMillisecond), 0);
    EXPECT_TRUE(rig.page->idle >= 10.0 * kMillisecond);
  }
  rig.base->forget(-1);
  rig.base->forget(100'000);
}

// ── ends, errors and edges ──────────────────────────────────────────────────────────────────

TEST_EACH_BASE(closed_is_told_where_the_backend_can_tell) {
  const Pair pair;
  const EventId id = rig.create(pair.near, kClosed | kPersist);
  if (!rig.has(kFeatureEarlyClose)) {
    EXPECT_EQ(rig.base->add(id, kLong), -EOPNOTSUPP);
    EXPECT_EQ(rig.pending(id), 0);
    return;
  }
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  const EventId reads = rig.add(pair.near, kRead | kPersist);
  send_byte(pair.far);
  rig.poll();
  EXPECT_EQ(rig.order(), std::vector<EventId>{reads});
  // Told although the byte in front of the end was never read.
  EXPECT_EQ(sys::shutdown_write(pair.far), 0);
  rig.poll();
  EXPECT_EQ(rig.told(id), kClosed);
  EXPECT_EQ(rig.told(reads), kRead);
}

TEST_EACH_BASE(a_reset_is_told_to_everyone_who_waits_for_the_end) {
  TcpPair pair;
  std::vector<EventId> waiting;
  if (rig.has(kFeatureEarlyClose)) {
    waiting.push_back(rig.add(pair.near, kClosed | kPersist));
    waiting.push_back(rig.add(pair.near, kClosed | kPersist));
    waiting.push_back(rig.add(pair.near, kClosed));
  } else {
    waiting.push_back(rig.add(pair.near, kRead | kPersist));
    waiting.push_back(rig.add(pair.near, kRead));
  }
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(sys::reset_on_close(pair.far), 0);
  pair.far.close();
  rig.poll();
  for (const EventId id : waiting) {
    EXPECT_TRUE(rig.told(id) != 0);
    EXPECT_EQ(rig.times(id), 1);
  }
}

TEST_EACH_BASE(edges_are_told_once_where_the_backend_has_them) {
  const Pair pair;
  const EventId id = rig.create(pair.near, kRead | kPersist | kEdge);
  if (!rig.has(kFeatureEdge)) {
    EXPECT_EQ(rig.base->add(id, kForever), -EOPNOTSUPP);
    return;
  }
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  const EventId second = rig.add(pair.near, kRead | kPersist | kEdge);
  send_byte(pair.far);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead | kEdge);
  EXPECT_EQ(rig.told(second), kRead | kEdge);
  EXPECT_EQ(rig.poll(), 0);
  // The edge outlives one of two events on the descriptor.
  EXPECT_EQ(rig.base->remove(second), 0);
  rig.poll();
  send_byte(pair.far);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead | kEdge);
  EXPECT_EQ(rig.poll(), 0);
  // An event that is added anew must hear of what is there already.
  EXPECT_EQ(rig.base->remove(id), 0);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead | kEdge);
}

// ── timers ──────────────────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(timers_fire_in_the_order_of_their_deadlines) {
  // One clock reading for all, so that equal timeouts are equal deadlines.
  rig.base->update_time();
  const EventId third = rig.add(-1, 0, 3 * kMillisecond);
  const EventId first = rig.add(-1, 0, 1 * kMillisecond);
  const EventId second = rig.add(-1, 0, 2 * kMillisecond);
  const EventId third_too = rig.add(-1, 0, 3 * kMillisecond);
  const EventId at_once = rig.add(-1, 0, 0);
  const EventId never = rig.add(-1, 0, kLong);
  const Micros begin = rig.now();
  std::vector<EventId> fired;
  while (fired.size() < 5) {
    rig.turn();
    for (const EventId id : rig.order()) {
      fired.push_back(id);
      EXPECT_EQ(rig.told(id), kTimeout);
      EXPECT_EQ(rig.pending(id), 0);
    }
    if (!EXPECT_TRUE(rig.now() < begin + kPatience)) return;
  }
  EXPECT_EQ(fired, (std::vector<EventId>{at_once, first, second, third, third_too}));
  EXPECT_TRUE(rig.now() >= begin + 3 * kMillisecond);
  EXPECT_EQ(rig.pending(never), kTimeout);
}

TEST_EACH_BASE(a_persistent_timer_goes_on_from_when_it_was_due) {
  constexpr Micros kInterval = 30 * kMillisecond;
  const EventId id = rig.add(-1, kPersist, kInterval);
  for (int tick = 0; tick < 3; ++tick) {
    rig.base->update_time();
    const Micros due = rig.now() + rig.remaining(id);
    EXPECT_EQ(turn_until(rig, id), kTimeout);
    EXPECT_TRUE(rig.now() >= due);
    // Late or not, the next is an interval after this one was due, unless that is gone by too.
    const Micros next = due + kInterval > rig.now() ? due + kInterval : rig.now() + kInterval;
    EXPECT_EQ(rig.now() + rig.remaining(id), next);
  }
}

TEST_EACH_BASE(missed_ticks_are_dropped) {
  const EventId id = rig.add(-1, kPersist, 2 * kMillisecond);
  let_pass(monotonic_now() + 15 * kMillisecond);
  rig.poll();
  EXPECT_EQ(rig.times(id), 1);
  EXPECT_EQ(rig.remaining(id), 2 * kMillisecond);
  // A timer without an interval fires once in every turn and stops nobody.
  const EventId busy = rig.add(-1, kPersist, 0);
  for (int i = 0; i < 3; ++i) {
    rig.base->end_of_pass();
    let_pass(monotonic_now() + 2);
    rig.poll();
    EXPECT_EQ(rig.times(busy), 1);
  }
}

TEST_EACH_BASE(an_io_event_with_a_timeout_starts_it_anew_when_told) {
  const Pair pair;
  const EventId id = rig.add(pair.near, kRead | kPersist, kLong);
  let_pass(monotonic_now() + kMillisecond);
  EXPECT_TRUE(rig.remaining(id) < kLong);
  send_byte(pair.far);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
  EXPECT_EQ(rig.remaining(id), kLong);
  drain(pair.near);

  // The timeout alone: a persistent event goes on, another one is removed altogether.
  EXPECT_EQ(rig.base->add(id, kMillisecond), 0);
  const EventId once = rig.add(pair.near, kRead, kMillisecond);
  EXPECT_EQ(turn_until(rig, once), kTimeout);
  EXPECT_EQ(rig.pending(once), 0);
  while (rig.told(id) == 0) rig.turn();
  EXPECT_EQ(rig.told(id), kTimeout);
  EXPECT_EQ(rig.pending(id), kRead | kTimeout);
}

TEST_EACH_BASE(a_timeout_is_not_lost_beside_readiness) {
  constexpr Micros kInterval = 40 * kMillisecond;
  const Pair pair;
  const EventId once = rig.add(pair.near, kRead, kMillisecond);
  const EventId persists = rig.add(pair.near, kRead | kPersist, kInterval);
  const EventId patient = rig.add(pair.near, kRead | kPersist, kLong);
  rig.base->update_time();
  const Micros due = rig.now() + rig.remaining(persists);
  send_byte(pair.far);
  let_pass(due);
  rig.poll();
  // One record each, of everything that became true.
  EXPECT_EQ(rig.page->ready, 3);
  EXPECT_EQ(rig.told(once), kRead | kTimeout);
  EXPECT_EQ(rig.told(persists), kRead | kTimeout);
  EXPECT_EQ(rig.told(patient), kRead);
  EXPECT_EQ(rig.pending(once), 0);
  // It has timed out, so the next is counted from when it was due.
  const Micros next = due + kInterval > rig.now() ? due + kInterval : rig.now() + kInterval;
  EXPECT_EQ(rig.now() + rig.remaining(persists), next);
}

TEST_EACH_BASE(adding_again_keeps_or_replaces_the_timer) {
  const Pair pair;
  const EventId id = rig.add(pair.near, kRead | kPersist, kLong);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  EXPECT_EQ(rig.pending(id), kRead | kTimeout);
  EXPECT_EQ(rig.base->add(id, kLong / 2), 0);
  EXPECT_TRUE(rig.remaining(id) <= kLong / 2);
  EXPECT_EQ(rig.base->counts().added, 2);
  EXPECT_EQ(rig.base->remove_timer(id), 0);
  EXPECT_EQ(rig.base->remove_timer(id), 0);
  EXPECT_EQ(rig.pending(id), kRead);
  EXPECT_EQ(rig.remaining(id), kForever);
  EXPECT_EQ(rig.base->counts().added, 1);
  // The interval is forgotten with it.
  send_byte(pair.far);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
  EXPECT_EQ(rig.pending(id), kRead);
  EXPECT_EQ(rig.base->rearm(id), 0);
  EXPECT_EQ(rig.pending(id), kRead);
}

TEST_EACH_BASE(a_rearmed_timer_starts_again_from_now) {
  const EventId id = rig.add(-1, kPersist, kLong);
  let_pass(monotonic_now() + kMillisecond);
  rig.base->update_time();
  EXPECT_TRUE(rig.remaining(id) < kLong);
  EXPECT_EQ(rig.base->rearm(id), 0);
  EXPECT_EQ(rig.remaining(id), kLong);
}

TEST_EACH_BASE(the_longest_timeout_is_no_overflow) {
  const EventId id = rig.add(-1, kPersist, INT64_MAX);
  EXPECT_TRUE(rig.remaining(id) > kLong);
  EXPECT_TRUE(rig.base->next_timeout() > kLong);
  EXPECT_EQ(rig.base->rearm(id), 0);
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(rig.pending(id), kTimeout);
}

// ── ids, counts and questions ───────────────────────────────────────────────────────────────

TEST_EACH_BASE(an_id_is_stale_once_its_event_is_destroyed) {
  const Pair pair;
  const EventId old = rig.add(pair.near, kWrite | kPersist, kLong);
  EXPECT_EQ(rig.base->destroy(old), 0);
  for (int i = 0; i < 3; ++i) {
    Micros remaining = 0;
    EXPECT_EQ(rig.base->add(old, kForever), -ESTALE);
    EXPECT_EQ(rig.base->remove(old), -ESTALE);
    EXPECT_EQ(rig.base->remove_timer(old), -ESTALE);
    EXPECT_EQ(rig.base->destroy(old), -ESTALE);
    EXPECT_EQ(rig.base->set_ref(old, false), -ESTALE);
    EXPECT_EQ(rig.base->rearm(old), -ESTALE);
    EXPECT_EQ(rig.base->pending(old, &remaining), -ESTALE);
    // Its slot is used again, but not in the turn that may still hold records of it.
    const EventId young = rig.add(pair.near, kWrite | kPersist);
    EXPECT_TRUE(young != old);
    if (i == 0) EXPECT_TRUE(young % kEventsMax != old % kEventsMax);
    rig.poll();
    EXPECT_EQ(rig.told(old), 0);
    EXPECT_EQ(rig.told(young), kWrite);
    EXPECT_EQ(rig.base->destroy(young), 0);
  }
  EXPECT_EQ(rig.base->add(UINT32_MAX, kForever), -ESTALE);
  EXPECT_EQ(rig.base->add(1'000'000, kForever), -ESTALE);
}

TEST_EACH_BASE(it_is_empty_and_alive_as_its_events_say) {
  const Pair pair;
  EXPECT_TRUE(rig.base->empty());
  EXPECT_TRUE(!rig.base->alive());
  rig.page->no_exit = 1;
  EXPECT_TRUE(rig.base->alive());
  const EventId id = rig.add(pair.near, kRead | kPersist, kLong);
  EXPECT_EQ(rig.base->counts().added, 2);
  EXPECT_EQ(rig.base->counts().refd, 1);
  EXPECT_TRUE(rig.base->alive() && !rig.base->empty());
  EXPECT_EQ(rig.base->set_ref(id, false), 0);
  EXPECT_EQ(rig.base->set_ref(id, false), 0);
  // Nothing in it keeps the process alive, whatever no_exit says.
  EXPECT_TRUE(!rig.base->alive() && !rig.base->empty());
  rig.page->no_exit = 0;
  rig.page->active = 1;
  EXPECT_TRUE(rig.base->alive());
  rig.page->active = 0;
  EXPECT_EQ(rig.base->remove(id), 0);
  EXPECT_EQ(rig.base->set_ref(id, true), 0);
  EXPECT_EQ(rig.base->counts().refd, 0);
  rig.attach(8);
  EXPECT_TRUE(rig.base->alive() && !rig.base->empty());
  rig.base->ref_inbox(false);
  EXPECT_TRUE(!rig.base->alive() && !rig.base->empty());
}

TEST_EACH_BASE(it_blocks_no_longer_than_there_is_nothing_to_do) {
  EXPECT_EQ(rig.base->next_timeout(), kForever);
  const EventId timer = rig.add(-1, 0, kLong);
  const Micros timeout = rig.base->next_timeout();
  EXPECT_TRUE(timeout > 0 && timeout <= kLong);
  rig.page->active = 1;
  EXPECT_EQ(rig.base->next_timeout(), 0);
  rig.page->active = 0;
  rig.page->nonblock = 1;
  EXPECT_EQ(rig.base->next_timeout(), 0);
  rig.page->nonblock = 0;
  EXPECT_EQ(rig.base->remove(timer), 0);
  EXPECT_EQ(rig.base->next_timeout(), kForever);
}

TEST_EACH_BASE(it_measures_how_long_it_waited) {
  const Pair pair;
  rig.add(pair.near, kRead | kPersist);
  EXPECT_EQ(rig.page->idle, 0);
  rig.poll();
  EXPECT_EQ(rig.page->idle, 0);
  const Micros begin = monotonic_now();
  rig.poll(10 * kMillisecond);
  EXPECT_TRUE(rig.page->idle >= 10.0 * kMillisecond);
  EXPECT_TRUE(rig.page->idle <= static_cast<double>(monotonic_now() - begin));
  const double idle = rig.page->idle;
  let_pass(monotonic_now() + 2 * kMillisecond);
  rig.poll();
  EXPECT_EQ(rig.page->idle, idle);
  EXPECT_EQ(rig.page->turns, 3);
}

TEST_EACH_BASE(the_time_stands_still_during_a_pass) {
  rig.poll();
  const Micros now = rig.base->now();
  EXPECT_EQ(now, rig.now());
  let_pass(now + kMillisecond);
  EXPECT_EQ(rig.base->now(), now);
  rig.base->end_of_pass();
  EXPECT_TRUE(rig.base->now() > now);
}

TEST(a_wait_that_fails_is_told_and_the_next_may_work) {
  for (const BackendType& type : backend_types()) {
    std::unique_ptr<Backend> inner = make_backend(type);
    if (inner == nullptr) continue;
    auto owned = std::make_unique<Watched>(std::move(inner));
    Watched& watched = *owned;
    Rig rig(type, std::move(owned));
    const Pair pair;
    const EventId id = rig.add(pair.near, kWrite | kPersist);
    const EventId timer = rig.add(-1, 0, 0);
    watched.failure = -EBADF;
    EXPECT_EQ(rig.poll(), kFoundError | kFoundWork);
    EXPECT_EQ(rig.page->error, -EBADF);
    EXPECT_EQ(rig.told(timer), kTimeout);
    watched.failure = 0;
    EXPECT_EQ(rig.poll(), kFoundWork);
    EXPECT_EQ(rig.told(id), kWrite);
  }
}

// ── more than the ring holds ────────────────────────────────────────────────────────────────

namespace {

// Many readable descriptors with several events each.
struct Crowd {
  Pair pair;
  std::vector<Fd> fds;
  std::vector<EventId> events;

  Crowd(Rig& rig, int descriptors, int events_each, Mask mask) {
    send_byte(pair.far);
    for (int i = 0; i < descriptors; ++i) {
      fds.emplace_back(sys::dup(pair.near));
      for (int j = 0; j < events_each; ++j) events.push_back(rig.add(fds.back(), mask));
    }
  }
};

}  // namespace

TEST_EACH_BASE(more_ready_events_than_the_ring_holds_are_all_told) {
  Crowd crowd(rig, 600, 8, kRead);
  EXPECT_TRUE(crowd.events.size() > kRingRecords);
  const EventId timer = rig.add(-1, 0, 0);
  std::map<EventId, int> times;
  for (int i = 0; i < 8 && times.size() <= crowd.events.size(); ++i) {
    rig.poll();
    for (const EventId id : rig.order()) ++times[id];
    // Whoever asks meanwhile must not sleep.
    if (i == 0) EXPECT_EQ(rig.base->next_timeout(), 0);
  }
  EXPECT_EQ(times.size(), crowd.events.size() + 1);
  EXPECT_EQ(times[timer], 1);
  for (const EventId id : crowd.events) EXPECT_EQ(times[id], 1);
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(rig.base->counts().added, 0);
}

TEST_EACH_BASE(a_full_ring_starves_nobody) {
  // Exactly what the ring holds is ready in every turn.
  Crowd crowd(rig, 512, 8, kRead | kPersist);
  EXPECT_EQ(crowd.events.size(), kRingRecords);
  const Pair pair;
  const EventId timer = rig.add(-1, 0, 0);
  for (int i = 0; i < 3; ++i) {
    rig.poll();
    rig.base->end_of_pass();
    if (rig.told(timer) != 0) break;
  }
  EXPECT_EQ(rig.told(timer), kTimeout);
  send_byte(pair.far);
  const EventId other = rig.add(pair.near, kRead);
  EXPECT_EQ(rig.base->watch_external(crowd.pair.near), 0);
  std::uint32_t found = 0;
  for (int i = 0; i < 3; ++i) found |= rig.poll();
  EXPECT_EQ(rig.pending(other), 0);
  EXPECT_EQ(found, kFoundExternal | kFoundWork);
}

TEST_EACH_BASE(no_edge_is_lost_at_the_end_of_the_ring) {
  if (!rig.has(kFeatureEdge)) return;
  // Five each do not divide the ring: one descriptor's events meet its end.
  const Crowd crowd(rig, 900, 5, kRead | kPersist | kEdge);
  std::map<EventId, int> times;
  for (int i = 0; i < 8; ++i) {
    rig.poll();
    for (const EventId id : rig.order()) ++times[id];
  }
  EXPECT_EQ(times.size(), crowd.events.size());
  for (const auto& [id, count] : times) EXPECT_EQ(count, 1);
}

TEST_EACH_BASE(what_waits_for_the_ring_is_not_told_to_a_later_connection) {
  Crowd crowd(rig, 600, 8, kRead);
  rig.poll();
  std::set<EventId> told;
  for (const EventId id : rig.order()) told.insert(id);
  // A descriptor with all its events untold is replaced by one that has nothing to read.
  std::size_t last = 0;
  for (std::size_t i = 0; i < crowd.fds.size(); ++i)
    if (told.count(crowd.events[i * 8]) == 0 && told.count(crowd.events[i * 8 + 7]) == 0) last = i;
  for (std::size_t j = 0; j < 8; ++j) EXPECT_EQ(rig.base->destroy(crowd.events[last * 8 + j]), 0);
  const Pair quiet;
  EXPECT_EQ(dup2(quiet.near, crowd.fds[last]), static_cast<int>(crowd.fds[last]));
  const EventId young = rig.add(crowd.fds[last], kRead);
  for (int i = 0; i < 4; ++i) {
    rig.poll();
    EXPECT_EQ(rig.told(young), 0);
  }
  send_byte(quiet.far);
  rig.poll();
  EXPECT_EQ(rig.told(young), kRead);
}

TEST_EACH_BASE(what_waits_for_the_ring_ends_with_the_event_it_was_for) {
  if (!rig.has(kFeatureEarlyClose)) return;
  Crowd crowd(rig, 600, 7, kRead);
  std::vector<EventId> closed;
  for (const Fd& fd : crowd.fds) closed.push_back(rig.add(fd, kClosed | kPersist));
  rig.poll();
  // Who waits for the end alone must not take the readiness of others for one.
  for (const EventId id : crowd.events)
    if (rig.pending(id) != 0) EXPECT_EQ(rig.base->destroy(id), 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(rig.base->counts().added, closed.size());
}

// ── the foreign descriptor ──────────────────────────────────────────────────────────────────

TEST_EACH_BASE(a_foreign_descriptor_is_found_and_is_nobodys_event) {
  const Pair first, second;
  EXPECT_EQ(rig.base->watch_external(first.near), 0);
  EXPECT_TRUE(rig.base->empty());
  EXPECT_EQ(rig.poll(), 0);
  send_byte(first.far);
  EXPECT_EQ(rig.poll(), kFoundExternal);
  EXPECT_EQ(rig.poll(), kFoundExternal);
  const EventId id = rig.create(first.near, kRead);
  EXPECT_EQ(rig.base->add(id, kForever), -EBUSY);
  EXPECT_EQ(rig.pending(id), 0);
  EXPECT_EQ(rig.base->watch_external(second.near), 0);
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  send_byte(second.far);
  EXPECT_EQ(rig.poll(), kFoundExternal | kFoundWork);
  EXPECT_EQ(rig.base->watch_external(-1), 0);
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(rig.base->watch_external(-1), 0);
}

TEST_EACH_BASE(a_descriptor_that_an_event_has_is_not_taken_for_anything_else) {
  const Pair pair;
  rig.add(pair.near, kRead);
  EXPECT_EQ(rig.base->watch_external(pair.near), -EBUSY);
  send_byte(pair.far);
  EXPECT_EQ(rig.poll(), kFoundWork);

  // A forgotten event on a number that the waker was given.
  InboxHandle handle = kNoInbox;
  EXPECT_EQ(Inbox::create(4, rig.waker, kNoInbox, &handle), 0);
  Inbox* inbox = Inbox::attach(handle);
  if (inbox->waker().fd() >= 0) {
    rig.add(inbox->waker().fd(), kRead | kPersist);
    EXPECT_EQ(rig.base->attach(inbox), -EBUSY);
    EXPECT_TRUE(rig.base->inbox() == nullptr);
  }
  Inbox::release_creator(handle);
  inbox->unref();
}

// ── messages ────────────────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(messages_come_in_order_and_in_bounded_batches) {
  Inbox* inbox = rig.attach(256);
  for (InboxHandle i = 0; i < 150; ++i) {
    // A post has no connection, so the sender says which it is.
    const Message message{MessageKind::kPost, i, kNoConnection, nullptr, 0};
    EXPECT_EQ(inbox->push(message), Inbox::Push::kOk);
  }
  std::uint64_t next = 0;
  for (const std::uint32_t expected : {64U, 64U, 22U}) {
    EXPECT_EQ(rig.base->next_timeout(), 0);
    EXPECT_EQ(rig.poll(), kFoundWork);
    EXPECT_EQ(rig.page->messages, expected);
    for (int i = 0; i < rig.page->messages; ++i) {
      const Page::MessageRecord& record = rig.page->inbox[i];
      EXPECT_EQ(record.kind, static_cast<double>(MessageKind::kPost));
      EXPECT_EQ(record.from, static_cast<double>(next++));
      EXPECT_EQ(record.id, static_cast<double>(kNoConnection));
      EXPECT_EQ(record.fd, -1);
    }
  }
  EXPECT_EQ(rig.base->next_timeout(), kForever);
  EXPECT_EQ(rig.poll(), 0);
}

TEST_EACH_BASE(the_bytes_of_a_post_are_taken_once_or_freed) {
  const Inbox* inbox = rig.attach(8);
  const char text[] = "hello";
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(post(77, inbox->handle(), text, sizeof text), Delivery::kOk);
  rig.poll();
  EXPECT_EQ(rig.page->messages, 3);
  const Base::Post taken = rig.base->take_post(1);
  if (EXPECT_TRUE(taken.bytes != nullptr)) EXPECT_EQ(std::memcmp(taken.bytes, text, 6), 0);
  EXPECT_EQ(taken.length, sizeof text);
  std::free(taken.bytes);
  EXPECT_TRUE(rig.base->take_post(1).bytes == nullptr);
  EXPECT_TRUE(rig.base->take_post(kMessagesPerTurn).bytes == nullptr);
  // What nobody takes is freed by the next turn, or by the base.
  rig.poll();
  EXPECT_TRUE(rig.base->take_post(0).bytes == nullptr);
  EXPECT_EQ(post(77, inbox->handle(), text, sizeof text), Delivery::kOk);
  rig.poll();
}

TEST_EACH_BASE(a_descriptor_that_arrives_is_the_loops_from_then_on) {
  constexpr InboxHandle kCoordinator = 1'500;
  Inbox* inbox = rig.attach(8);
  Pair kept, lost;
  const int number = kept.near;
  ConnectionId ids[2];
  EXPECT_EQ(Ledger::adopt(kept.near.release(), kCoordinator, 1, {}, &ids[0]), 0);
  EXPECT_EQ(Ledger::adopt(lost.near.release(), kCoordinator, 1, {}, &ids[1]), 0);
  EXPECT_EQ(hand_off(ids[1], kCoordinator, inbox->handle()), Delivery::kOk);
  EXPECT_EQ(hand_off(ids[0], kCoordinator, inbox->handle()), Delivery::kOk);
  // A message whose descriptor was settled meanwhile is none.
  EXPECT_TRUE(Ledger::close_undelivered(ids[1], inbox->handle()));
  EXPECT_EQ(rig.poll(), kFoundWork);
  EXPECT_EQ(rig.page->messages, 1);
  EXPECT_EQ(rig.page->inbox[0].id, static_cast<double>(ids[0]));
  EXPECT_EQ(rig.page->inbox[0].fd, number);
  EXPECT_EQ(inbox->counters().opened.load(), 1);
  const EventId id = rig.add(number, kRead | kPersist);
  send_byte(kept.far);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
  EXPECT_EQ(rig.base->destroy(id), 0);
  rig.base->forget(number);
  EXPECT_TRUE(Ledger::close(ids[0], inbox->handle(), false));
}

TEST_EACH_BASE(a_push_from_another_thread_ends_the_wait) {
  constexpr int kRounds = 300;
  Inbox* inbox = rig.attach(8);
  std::atomic<int> received{0};
  std::thread sender([&] {
    for (int i = 0; i < kRounds; ++i) {
      EXPECT_EQ(post(77, inbox->handle(), "x", 1), Delivery::kOk);
      // One at a time, so that the base has to be woken for each.
      if (!EXPECT_TRUE(await([&] { return received.load() > i; }))) return;
    }
  });
  bool woken = true;
  while (woken && received.load() < kRounds) {
    const Micros begin = monotonic_now();
    rig.turn();
    woken = EXPECT_TRUE(monotonic_now() - begin < kPatience);
    received.fetch_add(rig.page->messages);
  }
  received.store(kRounds);
  sender.join();
  // No wake-up is left that would end the next wait too early more than once.
  rig.poll();
  rig.page->idle = 0;
  EXPECT_EQ(rig.poll(5 * kMillisecond), 0);
  EXPECT_TRUE(rig.page->idle >= 5.0 * kMillisecond);
}

TEST_EACH_BASE(a_detached_inbox_is_silent) {
  Inbox* inbox = rig.attach(8);
  EXPECT_TRUE(inbox->prepare_to_sleep());
  rig.base->detach();
  rig.base->detach();
  EXPECT_EQ(post(77, inbox->handle(), "x", 1), Delivery::kOk);
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(rig.base->attach(inbox), 0);
  EXPECT_EQ(rig.poll(), kFoundWork);
  EXPECT_EQ(rig.page->messages, 1);
}

}  // namespace multiloop::test
