// What a base does when the kernel says no: at once, to the one who adds, or before a wait, when
// the number has become something else since. And what it refuses itself.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

constexpr Micros kLong = 3'600'000'000;

// An empty file without a name.
Fd make_file() {
  char name[] = "/tmp/multiloop-test-XXXXXX";
  Fd file(mkostemp(name, O_CLOEXEC));
  EXPECT_EQ(unlink(name), 0);
  return file;
}

// A descriptor that the kernel refuses is told once. poll and select refuse none that was open:
// they tell of a closed one for as long as it stays. Most have files, which are always ready.
bool tells_once(const Rig& rig) { return rig.has(kFeatureConstant); }
bool refuses(const Rig& rig, bool is_file) {
  return tells_once(rig) && !(is_file && rig.has(kFeatureAnyFd));
}

}  // namespace

// ── before the wait ─────────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(a_number_that_cannot_be_watched_any_more_is_told_once) {
  for (const bool is_file : {false, true}) {
    Pair pair;
    const int number = pair.near;
    const Fd file = make_file();
    const EventId reads = rig.add(number, kRead | kPersist, kLong);
    const EventId once = rig.add(number, kRead);
    EXPECT_EQ(rig.poll(), 0);
    if (is_file)
      EXPECT_EQ(dup2(file, number), number);
    else
      pair.near.close();
    const EventId both = rig.add(number, kRead | kWrite | kPersist);
    EXPECT_EQ(rig.poll(kPatience), kFoundWork);
    EXPECT_EQ(rig.told(reads), kRead);
    EXPECT_EQ(rig.told(once), kRead);
    EXPECT_EQ(rig.told(both), kRead | kWrite);
    EXPECT_EQ(rig.page->ready, 3);
    // Its timer started anew, as for readiness of any other kind.
    EXPECT_EQ(rig.remaining(reads), kLong);
    EXPECT_EQ(rig.pending(once), 0);
    EXPECT_EQ(rig.pending(both), kRead | kWrite);
    if (refuses(rig, is_file)) {
      EXPECT_TRUE(sleeps(rig));
      // Who comes now is refused in the call itself.
      const EventId late = rig.create(number, kRead);
      EXPECT_EQ(rig.base->add(late, kForever), is_file ? -EPERM : -EBADF);
      EXPECT_EQ(rig.base->add(once, kForever), is_file ? -EPERM : -EBADF);
    }
    for (const EventId id : {reads, once, both}) EXPECT_EQ(rig.base->destroy(id), 0);
    EXPECT_TRUE(sleeps(rig));
  }
}

TEST_EACH_BASE(a_number_that_changed_between_removal_and_addition_is_told_once) {
  Pair pair;
  const int number = pair.near;
  const EventId id = rig.add(number, kWrite);
  EXPECT_EQ(rig.base->remove(id), 0);
  pair.near.close();
  // The list knows the number and asks the kernel with the next wait.
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  EXPECT_EQ(rig.poll(kPatience), kFoundWork);
  EXPECT_EQ(rig.told(id), kWrite);
  EXPECT_EQ(rig.pending(id), 0);
  EXPECT_TRUE(sleeps(rig));
}

TEST_EACH_BASE(who_waits_for_the_end_alone_is_told_of_a_refusal) {
  if (!rig.has(kFeatureEarlyClose)) return;
  Pair pair;
  const EventId id = rig.add(pair.near, kClosed);
  EXPECT_EQ(rig.base->remove(id), 0);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  pair.near.close();
  EXPECT_EQ(rig.poll(kPatience), kFoundWork);
  EXPECT_EQ(rig.told(id) & kClosed, tells_once(rig) ? kClosed : rig.told(id) & kClosed);
  EXPECT_EQ(rig.pending(id), 0);
}

TEST_EACH_BASE(an_opened_number_works_again_after_it_was_refused) {
  Pair pair;
  const Pair next;
  const int number = pair.near;
  const EventId id = rig.add(number, kRead | kPersist);
  EXPECT_EQ(rig.base->remove(id), 0);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  pair.near.close();
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
  EXPECT_EQ(dup2(next.near, number), number);
  const Fd again(number);
  EXPECT_EQ(rig.base->remove(id), 0);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  EXPECT_TRUE(sleeps(rig));
  send_byte(next.far);
  EXPECT_EQ(rig.poll(), kFoundWork);
  EXPECT_EQ(rig.told(id), kRead);
  EXPECT_EQ(rig.base->destroy(id), 0);
}

// ── more than the ring holds ────────────────────────────────────────────────────────────────

namespace {

// Many descriptors, with one-shot events, that are all closed before the kernel hears of them.
struct Doomed {
  static constexpr int kFds = 600;
  static constexpr std::size_t kEach = 8;

  const Pair pair;
  std::vector<int> numbers;
  std::vector<EventId> events;

  explicit Doomed(Rig& rig) {
    std::vector<Fd> fds;
    for (int i = 0; i < kFds; ++i) {
      fds.emplace_back(sys::dup(pair.near));
      numbers.push_back(fds.back());
      for (std::size_t j = 0; j < kEach; ++j) events.push_back(rig.add(fds.back(), kRead));
    }
    for (const EventId id : events) EXPECT_EQ(rig.base->remove(id), 0);
    for (const EventId id : events) EXPECT_EQ(rig.base->add(id, kForever), 0);
  }
};

}  // namespace

TEST_EACH_BASE(more_refused_events_than_the_ring_holds_are_all_told) {
  const EventId signal = rig.add(10, kSignal);
  const EventId timer = rig.add(-1, 0, 0);
  const Doomed doomed(rig);
  EXPECT_TRUE(doomed.events.size() > kRingRecords);
  rig.signals.raise(10);
  std::map<EventId, int> times;
  for (int i = 0; i < 4; ++i) {
    rig.poll();
    for (const EventId id : rig.order()) ++times[id];
    if (i == 0) {
      // Timers and signals have their part of the ring, and whoever asks must not sleep.
      EXPECT_EQ(rig.told(timer), kTimeout);
      EXPECT_EQ(rig.told(signal), kSignal);
      EXPECT_EQ(rig.base->next_timeout(), 0);
    }
  }
  EXPECT_EQ(times.size(), doomed.events.size() + 2);
  for (const auto& [id, count] : times)
    if (!EXPECT_EQ(count, 1)) return;
  EXPECT_EQ(rig.base->counts().added, 0);
  EXPECT_EQ(rig.base->next_timeout(), kForever);
  EXPECT_TRUE(sleeps(rig));
}

TEST_EACH_BASE(a_refusal_that_waits_for_the_ring_is_not_told_to_a_later_connection) {
  const Pair quiet;
  const Doomed doomed(rig);
  rig.poll();
  std::size_t last = 0;
  while (last < doomed.numbers.size() && rig.pending(doomed.events[last * Doomed::kEach]) == 0)
    ++last;
  if (!EXPECT_TRUE(last < doomed.numbers.size())) return;
  for (std::size_t j = 0; j < Doomed::kEach; ++j)
    EXPECT_EQ(rig.base->destroy(doomed.events[last * Doomed::kEach + j]), 0);
  const Fd again(dup2(quiet.near, doomed.numbers[last]));
  const EventId young = rig.add(again, kRead | kWrite | kPersist);
  Mask told = 0;
  for (int i = 0; i < 4; ++i) {
    rig.poll();
    told |= rig.told(young);
  }
  EXPECT_EQ(told, kWrite);
  EXPECT_EQ(rig.base->destroy(young), 0);
  EXPECT_EQ(rig.base->counts().added, 0);
  rig.base->forget(again);
}

TEST_EACH_BASE(what_is_forgotten_while_its_refusal_waits_is_not_told) {
  const Doomed doomed(rig);
  rig.poll();
  std::map<EventId, bool> silent;
  for (std::size_t i = 0; i < doomed.numbers.size(); ++i) {
    const EventId id = doomed.events[i * Doomed::kEach];
    if (rig.pending(id) == 0) continue;
    rig.base->forget(doomed.numbers[i]);
    for (std::size_t j = 0; j < Doomed::kEach; ++j)
      silent[doomed.events[i * Doomed::kEach + j]] = true;
  }
  EXPECT_TRUE(!silent.empty());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(rig.base->counts().added, silent.size());
  EXPECT_EQ(rig.base->next_timeout(), kForever);
}

// ── forgotten ───────────────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(events_left_on_a_forgotten_number_hear_nothing) {
  Pair pair;
  const EventId first = rig.add(pair.near, kRead | kPersist);
  const EventId second = rig.add(pair.near, kWrite | kPersist);
  const EventId third = rig.add(pair.near, kRead | kPersist);
  rig.poll();
  EXPECT_EQ(rig.order(), std::vector<EventId>{second});
  rig.base->forget(pair.near);
  send_byte(pair.far);
  EXPECT_TRUE(sleeps(rig));
  // The number is another owner's: that one of them goes must not bring it back.
  EXPECT_EQ(rig.base->remove(first), 0);
  EXPECT_TRUE(sleeps(rig));
  EXPECT_EQ(rig.base->destroy(second), 0);
  EXPECT_TRUE(sleeps(rig));
  EXPECT_EQ(rig.pending(third), kRead);
  // Until somebody adds to it: then all are told.
  const EventId fourth = rig.add(pair.near, kRead | kPersist);
  rig.poll();
  EXPECT_EQ(rig.told(third), kRead);
  EXPECT_EQ(rig.told(fourth), kRead);
}

TEST_EACH_BASE(an_event_removed_in_its_callback_may_come_back_on_a_number_used_again) {
  // It has fired and is out already, but its owner says that it is done with the number.
  Pair pair;
  const Pair next;
  const int number = pair.near;
  const EventId id = rig.add(number, kWrite);
  rig.poll();
  EXPECT_EQ(rig.told(id), kWrite);
  EXPECT_EQ(rig.base->remove(id), 0);
  EXPECT_EQ(dup2(next.near, number), number);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  rig.poll();
  EXPECT_EQ(rig.told(id), kWrite);
  // Events that never had a descriptor, or a number that no process has, are removed alike.
  for (const int fd : {-1, 1 << 20, INT32_MAX}) {
    EXPECT_EQ(rig.base->remove(rig.create(fd, kRead)), 0);
    EXPECT_EQ(rig.base->remove(rig.create(fd, kSignal)), 0);
  }
}

// ── refused by the base ─────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(a_descriptor_has_room_for_as_many_events_as_one_turn_can_tell) {
  const Pair pair;
  std::vector<EventId> events;
  for (std::uint32_t i = 0; i < kEventsPerKeyMax; ++i) events.push_back(rig.add(pair.near, kRead));
  const EventId past = rig.create(pair.near, kRead | kWrite);
  EXPECT_EQ(rig.base->add(past, kLong), -ENOSPC);
  EXPECT_EQ(rig.pending(past), 0);
  EXPECT_EQ(rig.base->counts().added, kEventsPerKeyMax);
  EXPECT_EQ(rig.poll(), 0);
  send_byte(pair.far);
  rig.poll();
  EXPECT_EQ(rig.page->ready, kEventsPerKeyMax);
  EXPECT_EQ(rig.base->counts().added, 0);
  EXPECT_EQ(rig.base->add(past, kForever), 0);
  rig.poll();
  EXPECT_EQ(rig.told(past), kRead | kWrite);
}

TEST_EACH_BASE(edge_and_level_on_one_descriptor_are_refused) {
  if (!rig.has(kFeatureEdge)) return;
  for (const Mask first : {kRead, Mask{kRead | kEdge}}) {
    const Pair pair;
    const Mask second = first ^ kEdge;
    const EventId resident = rig.add(pair.near, first | kPersist);
    const EventId guest = rig.create(pair.near, second | kWrite | kPersist);
    EXPECT_EQ(rig.base->add(guest, kLong), -EPROTOTYPE);
    EXPECT_EQ(rig.pending(guest), 0);
    EXPECT_EQ(rig.base->counts().added, 1);
    EXPECT_EQ(rig.poll(), 0);
    send_byte(pair.far);
    for (int i = 0; i < 2; ++i) {
      rig.poll();
      EXPECT_EQ(rig.told(guest), 0);
      EXPECT_EQ(rig.told(resident), i == 0 || !(first & kEdge) ? first : 0);
    }
    // Once the other has gone there is room, in the same turn too.
    EXPECT_EQ(rig.base->remove(resident), 0);
    EXPECT_EQ(rig.base->add(guest, kForever), 0);
    EXPECT_EQ(rig.base->add(resident, kForever), -EPROTOTYPE);
    for (int i = 0; i < 2; ++i) {
      rig.poll();
      const Mask what = second | kWrite;
      EXPECT_EQ(rig.told(guest), i == 0 || !(second & kEdge) ? what : 0);
    }
    EXPECT_EQ(rig.base->destroy(guest), 0);
    EXPECT_EQ(rig.base->destroy(resident), 0);
  }
}

// ── a kernel out of memory ──────────────────────────────────────────────────────────────────

TEST_EACH_BASE(a_change_that_finds_no_memory_is_reported_and_made_later) {
  auto owned = std::make_unique<Watched>(make_backend(rig.type));
  Watched& watched = *owned;
  Rig other(rig.type, std::move(owned), rig.waker);
  const Pair pair;
  const EventId reads = other.add(pair.near, kRead | kPersist);
  const EventId writes = other.add(pair.near, kWrite | kPersist);
  watched.refusal = -ENOMEM;
  for (int i = 0; i < 2; ++i) {
    // The wait does not block, or it would never be made.
    EXPECT_EQ(other.poll(kPatience), kFoundError);
    EXPECT_EQ(other.page->error, -ENOMEM);
  }
  EXPECT_EQ(other.pending(writes), kWrite);
  // An interest that is new is refused in the call.
  const EventId fresh = other.create(pair.far, kWrite);
  EXPECT_EQ(other.base->add(fresh, kForever), -ENOMEM);
  EXPECT_EQ(other.pending(fresh), 0);
  // Told outside of a turn, the failure is reported by the next.
  other.base->apply_changes();
  EXPECT_EQ(other.base->next_timeout(), 0);
  watched.refusal = 0;
  EXPECT_EQ(other.poll(), kFoundError | kFoundWork);
  EXPECT_EQ(other.told(writes), kWrite);
  EXPECT_EQ(other.poll(), kFoundWork);
  EXPECT_EQ(other.told(reads), 0);
}

}  // namespace multiloop::test
