// Signals of a base, over every backend × waker, from a source that the test itself raises.
#include <algorithm>
#include <csignal>
#include <map>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

constexpr Micros kLong = 3'600'000'000;
constexpr int kOne = SIGUSR1;
constexpr int kOther = SIGUSR2;

}  // namespace

// ── told ────────────────────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(a_persistent_event_is_told_with_how_often_its_signal_came) {
  const EventId id = rig.add(kOne, kSignal | kPersist);
  EXPECT_EQ(rig.pending(id), kSignal);
  EXPECT_EQ(rig.base->counts().added, 1);
  EXPECT_TRUE(sleeps(rig));
  for (const std::uint32_t calls : {1U, 3U, 1'000U}) {
    for (std::uint32_t i = 0; i < calls; ++i) EXPECT_EQ(rig.signals.raise(kOne), 1);
    EXPECT_EQ(rig.base->next_timeout(), 0);
    EXPECT_EQ(rig.poll(kPatience), kFoundWork);
    EXPECT_EQ(rig.told(id), kSignal);
    EXPECT_EQ(rig.times(id), 1);
    EXPECT_EQ(rig.calls(id), calls);
    // The wake-up that is left may end one wait, and tells nothing.
    EXPECT_EQ(rig.poll(), 0);
    EXPECT_TRUE(sleeps(rig));
  }
  EXPECT_EQ(rig.signals.subscribes, 1);
  EXPECT_EQ(rig.signals.unsubscribes, 0);
}

TEST_EACH_BASE(a_signal_tells_all_of_its_events_and_no_other) {
  const EventId first = rig.add(kOne, kSignal | kPersist);
  const EventId second = rig.add(kOne, kSignal | kPersist);
  const EventId once = rig.add(kOne, kSignal);
  const EventId other = rig.add(kOther, kSignal | kPersist);
  EXPECT_EQ(rig.signals.subscribes, 2);
  rig.signals.raise(kOne);
  rig.signals.raise(kOne);
  rig.poll(kPatience);
  EXPECT_EQ(rig.page->ready, 3);
  for (const EventId id : {first, second, once}) EXPECT_EQ(rig.calls(id), 2);
  EXPECT_EQ(rig.told(other), 0);
  EXPECT_EQ(rig.pending(once), 0);
  rig.signals.raise(kOther);
  rig.signals.raise(kOne);
  rig.poll(kPatience);
  EXPECT_EQ(rig.page->ready, 3);
  EXPECT_EQ(rig.calls(other), 1);
  EXPECT_EQ(rig.told(once), 0);
}

TEST(a_count_is_cut_off_where_a_record_ends) {
  // The count has 24 bits of its own and spills into nothing.
  const BackendType& type = backend_types().front();
  Rig rig(type, make_backend(type));
  const EventId id = rig.add(kOne, kSignal | kPersist);
  SignalBox* box = rig.signals.box(kOne);
  for (std::uint32_t i = 0; i < kCallsMax + 5; ++i) box->raise(kOne);
  rig.poll(kPatience);
  EXPECT_EQ(rig.told(id), kSignal);
  EXPECT_EQ(rig.calls(id), kCallsMax);
}

TEST_EACH_BASE(signals_of_another_thread_end_the_wait) {
  const EventId id = rig.add(kOne, kSignal | kPersist);
  std::atomic<std::uint32_t> received{0};
  std::uint32_t raised = 0;
  std::atomic<bool> over{false};
  std::thread raiser([&] {
    Rounds rounds(300);
    while (rounds.next()) {
      rig.signals.raise(kOne);
      ++raised;
      if (!EXPECT_TRUE(await([&] { return received.load() == raised; }))) break;
    }
    over.store(true);
    rig.signals.raise(kOne);
  });
  bool woken = true;
  while (woken && !over.load()) {
    const Micros begin = monotonic_now();
    rig.turn();
    woken = EXPECT_TRUE(monotonic_now() - begin < kPatience);
    received.fetch_add(rig.calls(id));
  }
  raiser.join();
}

TEST_EACH_BASE(a_signal_event_may_have_a_timeout) {
  const EventId id = rig.add(kOne, kSignal | kPersist, kLong);
  EXPECT_EQ(rig.pending(id), kSignal | kTimeout);
  EXPECT_EQ(rig.base->counts().added, 2);
  rig.signals.raise(kOne);
  rig.poll(kPatience);
  EXPECT_EQ(rig.told(id), kSignal);
  EXPECT_EQ(rig.remaining(id), kLong);
  // It times out and is told of both; a one-shot event leaves the source with it.
  const EventId once = rig.add(kOther, kSignal, 0);
  rig.signals.raise(kOther);
  const Micros due = monotonic_now();
  while (monotonic_now() <= due) sched_yield();
  rig.base->end_of_pass();
  rig.poll(kPatience);
  EXPECT_EQ(rig.told(once), kSignal | kTimeout);
  EXPECT_EQ(rig.calls(once), 1);
  const EventId late = rig.add(kOther, kSignal, 1'000);
  EXPECT_EQ(turn_until(rig, late), kTimeout);
  EXPECT_TRUE(rig.signals.catches(kOther));
  // The callbacks run.
  EXPECT_EQ(rig.base->begin_signal(once), 0);
  EXPECT_EQ(rig.base->begin_signal(late), 0);
  rig.poll();
  EXPECT_TRUE(!rig.signals.catches(kOther));
}

// ── who catches it, and until when ──────────────────────────────────────────────────────────

TEST_EACH_BASE(the_last_event_removed_by_hand_gives_the_signal_back_at_once) {
  const EventId first = rig.add(kOne, kSignal | kPersist);
  const EventId second = rig.add(kOne, kSignal);
  EXPECT_EQ(rig.base->remove(first), 0);
  EXPECT_TRUE(rig.signals.catches(kOne));
  // What came for events that are gone is not for those that come later.
  rig.signals.raise(kOne);
  EXPECT_EQ(rig.base->destroy(second), 0);
  EXPECT_TRUE(!rig.signals.catches(kOne));
  EXPECT_EQ(rig.signals.unsubscribes, 1);
  const EventId third = rig.add(kOne, kSignal | kPersist);
  EXPECT_EQ(rig.signals.subscribes, 2);
  rig.poll();
  EXPECT_EQ(rig.told(third), 0);
  EXPECT_EQ(rig.signals.raise(kOne), 1);
  rig.poll(kPatience);
  EXPECT_EQ(rig.calls(third), 1);
}

TEST_EACH_BASE(one_that_has_fired_keeps_the_signal_until_the_next_turn) {
  const EventId id = rig.add(kOne, kSignal);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(rig.signals.raise(kOne), 1);
    rig.poll(kPatience);
    EXPECT_EQ(rig.told(id), kSignal);
    EXPECT_EQ(rig.pending(id), 0);
    EXPECT_TRUE(rig.signals.catches(kOne));
    // Added again in its callback, it never left.
    EXPECT_EQ(rig.base->add(id, kForever), 0);
  }
  EXPECT_EQ(rig.signals.subscribes, 1);
  // One that comes before the callback has added it again waits for it.
  rig.signals.raise(kOne);
  rig.poll(kPatience);
  EXPECT_EQ(rig.signals.raise(kOne), 1);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  rig.poll(kPatience);
  EXPECT_EQ(rig.calls(id), 1);
  EXPECT_EQ(rig.signals.unsubscribes, 0);
  // However long its callback has to wait, the signal is kept.
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_TRUE(rig.signals.catches(kOne));
  // The callback runs and does not add it: the signal is given back before the next wait.
  EXPECT_EQ(rig.base->begin_signal(id), 0);
  EXPECT_TRUE(rig.signals.catches(kOne));
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_TRUE(!rig.signals.catches(kOne));
  EXPECT_EQ(rig.signals.unsubscribes, 1);
  EXPECT_TRUE(sleeps(rig));
}

TEST_EACH_BASE(a_base_that_does_not_wait_gives_signals_back_when_it_applies) {
  const EventId id = rig.add(kOne, kSignal);
  rig.signals.raise(kOne);
  rig.poll(kPatience);
  EXPECT_EQ(rig.base->begin_signal(id), 0);
  EXPECT_TRUE(rig.signals.catches(kOne));
  rig.base->apply_changes();
  EXPECT_TRUE(!rig.signals.catches(kOne));
  rig.base->check();
  // One that is destroyed before its callback has run gives it back at once.
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  rig.signals.raise(kOne);
  rig.poll(kPatience);
  EXPECT_EQ(rig.base->destroy(id), 0);
  EXPECT_TRUE(!rig.signals.catches(kOne));
  EXPECT_EQ(rig.base->next_timeout(), kForever);
}

TEST_EACH_BASE(a_base_that_ends_gives_everything_back) {
  FakeSignals signals;
  const int fds = count_fds();
  {
    const auto page = std::make_unique<Page>();
    Base base(rig.type, make_backend(rig.type), page.get(), BaseOptions{rig.waker, &signals});
    EventId fired = 0;
    for (int signal = 1; signal <= kSignalsMax; ++signal) {
      EventId id = 0;
      EXPECT_EQ(base.create(signal, kSignal | (signal % 2 ? kPersist : Mask{0}), &id), 0);
      EXPECT_EQ(base.add(id, kForever), 0);
      if (signal == 64) fired = id;
    }
    EXPECT_EQ(signals.caught(), kSignalsMax);
    for (int signal = 1; signal <= kSignalsMax; ++signal) signals.raise(signal);
    base.poll(0);
    base.check();
    EXPECT_EQ(page->ready, kSignalsMax);
    Micros remaining = 0;
    EXPECT_EQ(base.pending(fired, &remaining), 0);
    // Those that have fired are still caught.
    EXPECT_EQ(signals.caught(), kSignalsMax);
  }
  EXPECT_EQ(signals.caught(), 0);
  EXPECT_EQ(signals.unsubscribes, kSignalsMax);
  EXPECT_EQ(count_fds(), fds);
}

TEST_EACH_BASE(two_bases_share_a_signal) {
  const auto page = std::make_unique<Page>();
  Base other(rig.type, make_backend(rig.type), page.get(), BaseOptions{rig.waker, &rig.signals});
  const EventId id = rig.add(kOne, kSignal | kPersist);
  EventId theirs = 0;
  EXPECT_EQ(other.create(kOne, kSignal, &theirs), 0);
  EXPECT_EQ(other.add(theirs, kForever), 0);
  EXPECT_EQ(rig.signals.raise(kOne), 2);
  rig.poll(kPatience);
  EXPECT_EQ(rig.calls(id), 1);
  EXPECT_EQ(other.poll(kPatience), kFoundWork);
  EXPECT_EQ(page->ready, 1);
  EXPECT_EQ(other.begin_signal(theirs), 0);
  other.poll(0);
  EXPECT_EQ(rig.signals.raise(kOne), 1);
}

// ── refused ─────────────────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(what_is_no_signal_or_cannot_be_caught_is_refused) {
  for (const int signal : {0, kSignalsMax + 1, INT32_MAX}) {
    const EventId id = rig.create(signal, kSignal);
    EXPECT_EQ(rig.base->add(id, kLong), -EINVAL);
    EXPECT_EQ(rig.pending(id), 0);
  }
  rig.signals.refusal = -EINVAL;
  const EventId id = rig.create(SIGKILL, kSignal | kPersist);
  EXPECT_EQ(rig.base->add(id, kLong), -EINVAL);
  EXPECT_EQ(rig.pending(id), 0);
  EXPECT_EQ(rig.base->counts().added, 0);
  rig.base->check();
  rig.signals.refusal = 0;
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  EXPECT_EQ(rig.signals.raise(SIGKILL), 1);
  rig.poll(kPatience);
  EXPECT_EQ(rig.told(id), kSignal);

  // A base without a source has no signals.
  const auto page = std::make_unique<Page>();
  Base deaf(rig.type, make_backend(rig.type), page.get());
  EventId theirs = 0;
  EXPECT_EQ(deaf.create(kOne, kSignal, &theirs), 0);
  EXPECT_EQ(deaf.add(theirs, kLong), -ENOTSUP);
  EXPECT_EQ(deaf.counts().added, 0);
}

TEST_EACH_BASE(a_signal_has_room_for_as_many_events_as_one_turn_can_tell) {
  std::vector<EventId> events;
  for (std::uint32_t i = 0; i < kEventsPerKeyMax; ++i) events.push_back(rig.add(kOne, kSignal));
  const EventId past = rig.create(kOne, kSignal);
  EXPECT_EQ(rig.base->add(past, kLong), -ENOSPC);
  EXPECT_EQ(rig.base->counts().added, kEventsPerKeyMax);
  rig.signals.raise(kOne);
  rig.poll(kPatience);
  EXPECT_EQ(rig.page->ready, kEventsPerKeyMax);
  EXPECT_EQ(rig.base->add(past, kForever), 0);
}

// ── more than the ring holds ────────────────────────────────────────────────────────────────

TEST_EACH_BASE(a_signal_that_the_ring_has_no_room_for_stays_pending) {
  // Each takes more than half of what a turn can tell.
  constexpr std::uint32_t kEach = kRingRecords / 2 + 1;
  std::map<EventId, int> signal_of;
  for (const int signal : {kOne, kOther})
    for (std::uint32_t i = 0; i < kEach; ++i)
      signal_of[rig.add(signal, kSignal | kPersist)] = signal;
  rig.signals.raise(kOne);
  rig.signals.raise(kOther);
  rig.signals.raise(kOther);
  std::map<EventId, std::uint32_t> calls;
  for (int turn = 0; turn < 2; ++turn) {
    rig.turn();
    EXPECT_EQ(rig.page->ready, kEach);
    EXPECT_EQ(rig.base->next_timeout(), turn == 0 ? 0 : kForever);
    for (int i = 0; i < rig.page->ready; ++i)
      calls[rig.page->ring[i].event] += rig.page->ring[i].what >> kCallsShift;
  }
  EXPECT_EQ(calls.size(), signal_of.size());
  for (const auto& [id, count] : calls)
    if (!EXPECT_EQ(count, signal_of[id] == kOne ? 1 : 2)) return;
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_TRUE(sleeps(rig));
}

TEST_EACH_BASE(descriptors_that_fill_the_ring_do_not_starve_a_signal) {
  const Pair pair;
  send_byte(pair.far);
  std::vector<Fd> fds;
  for (int i = 0; i < 600; ++i) {
    fds.emplace_back(sys::dup(pair.near));
    for (int j = 0; j < 8; ++j) rig.add(fds.back(), kRead | kPersist);
  }
  const EventId few = rig.add(kOne, kSignal | kPersist);
  rig.signals.raise(kOne);
  bool told = false;
  for (int i = 0; i < 3 && !told; ++i) {
    rig.poll();
    told = rig.told(few) != 0;
  }
  EXPECT_TRUE(told);
  // As many events on one signal as are told in one turn.
  std::vector<EventId> many;
  for (std::uint32_t i = 0; i < kEventsPerKeyMax; ++i) many.push_back(rig.add(kOther, kSignal));
  rig.signals.raise(kOther);
  int count = 0;
  for (int i = 0; i < 6; ++i) {
    rig.poll();
    count += rig.times(many.front()) + rig.times(many.back());
  }
  EXPECT_EQ(count, 2);
}

}  // namespace multiloop::test
