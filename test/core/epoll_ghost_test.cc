// Descriptors that are closed while a duplicate of theirs is alive. epoll keeps them in its set,
// where nothing can name them any more (epoll(7), Q&A 6); kqueue drops a number that is closed;
// poll, select and /dev/poll know numbers only; with event ports the number is part of what is
// waited for; and io_uring ends a poll by its name. For every base: it may return early once, then
// it sleeps, and nobody is told of a ghost.
#include <poll.h>
#include <unistd.h>

#include <cstring>

#include "../../native/core/platform.h"
#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

// A readable socket that is closed under its number and lives on in a duplicate.
struct Ghost {
  Pair pair;
  Fd copy{sys::dup(pair.near)};
  const int number = pair.near;

  Ghost() { send_byte(pair.far); }
  void close() { pair.near.close(); }
};

bool is_epoll(const Rig& rig) { return std::strcmp(rig.type.name, "epoll") == 0; }
std::uint32_t renewals(const Rig& rig) { return rig.base->backend().renewals(); }

// At most one wait is cut short, and the set has been renewed as often as expected.
void expect_rest(Rig& rig, std::uint32_t expected_renewals) {
  EXPECT_EQ(rig.poll(kNap), 0);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(sleeps(rig));
  EXPECT_EQ(renewals(rig), is_epoll(rig) ? expected_renewals : 0);
}

// Lets an event fire and fall silent, so that its removal waits for the next turn.
void fire_once(Rig& rig, int fd) {
  const EventId id = rig.add(fd, kRead);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
}

// The number that the kernel would give out next.
int next_number() {
  const Fd probe(sys::dup(STDOUT_FILENO));
  return probe;
}

}  // namespace

// ── one ghost ───────────────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(one_that_was_closed_before_its_removal_was_told_is_laid_to_rest) {
  for (std::uint32_t round = 1; round <= 3; ++round) {
    Ghost ghost;
    fire_once(rig, ghost.number);
    ghost.close();
    expect_rest(rig, round);
  }
}

TEST_EACH_BASE(one_whose_removal_was_told_before_is_none) {
  Ghost ghost;
  fire_once(rig, ghost.number);
  rig.poll();
  ghost.close();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(sleeps(rig));
  EXPECT_EQ(renewals(rig), 0);
  // Neither is one that was forgotten.
  Ghost forgotten;
  fire_once(rig, forgotten.number);
  rig.base->forget(forgotten.number);
  forgotten.close();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(sleeps(rig));
  EXPECT_EQ(renewals(rig), 0);
}

TEST_EACH_BASE(a_quiet_one_is_harmless_until_it_has_something_to_say) {
  Pair pair;
  const Fd copy(sys::dup(pair.near));
  const EventId id = rig.add(pair.near, kRead | kPersist);
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(rig.base->remove(id), 0);
  pair.near.close();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(sleeps(rig));
  EXPECT_EQ(renewals(rig), 0);
  send_byte(pair.far);
  expect_rest(rig, 1);
}

TEST_EACH_BASE(many_are_laid_to_rest_together) {
  std::vector<Ghost> ghosts(20);
  for (const Ghost& ghost : ghosts) rig.add(ghost.number, kRead);
  rig.poll();
  EXPECT_EQ(rig.page->ready, ghosts.size());
  for (Ghost& ghost : ghosts) ghost.close();
  expect_rest(rig, 1);
}

// ── its number used again ───────────────────────────────────────────────────────────────────

TEST_EACH_BASE(the_next_socket_of_its_number_is_told_of_nothing_but_its_own) {
  std::uint32_t round = 0;
  // The next event comes in the same turn, with the old interest or another, or a turn later.
  for (const Mask mask : {kRead, Mask{kRead | kWrite}}) {
    for (const bool turn_between : {false, true}) {
      Ghost ghost;
      const Pair next;
      fire_once(rig, ghost.number);
      ghost.close();
      if (turn_between) rig.poll();
      EXPECT_EQ(dup2(next.near, ghost.number), ghost.number);
      const Fd again(ghost.number);
      const EventId young = rig.add(again, mask | kPersist);
      for (int i = 0; i < 3; ++i) {
        rig.poll();
        EXPECT_EQ(rig.told(young), mask & kWrite);
      }
      send_byte(next.far);
      for (int i = 0; i < 3; ++i) {
        rig.poll();
        EXPECT_EQ(rig.order(), std::vector<EventId>{young});
        EXPECT_EQ(rig.told(young), mask);
      }
      drain(next.near);
      EXPECT_EQ(rig.base->destroy(young), 0);
      expect_rest(rig, ++round);
      rig.base->forget(again);
    }
  }
}

TEST_EACH_BASE(one_that_gets_its_old_number_back_is_none) {
  Ghost ghost;
  fire_once(rig, ghost.number);
  ghost.close();
  rig.poll();
  EXPECT_EQ(dup2(ghost.copy, ghost.number), ghost.number);
  const Fd again(ghost.number);
  const EventId id = rig.add(again, kRead | kPersist);
  for (int i = 0; i < 3; ++i) {
    rig.poll();
    EXPECT_EQ(rig.order(), std::vector<EventId>{id});
  }
  drain(ghost.copy);
  EXPECT_EQ(rig.poll(), 0);
}

TEST_EACH_BASE(a_refused_one_is_laid_to_rest_with_its_events) {
  // Its number is closed, and then changed, while it has an event: the kernel refuses.
  Ghost ghost;
  const EventId reads = rig.add(ghost.number, kRead | kPersist);
  rig.poll();
  EXPECT_EQ(rig.told(reads), kRead);
  const EventId writes = rig.add(ghost.number, kWrite | kPersist);
  ghost.close();
  rig.poll();
  EXPECT_EQ(rig.told(reads), kRead);
  EXPECT_EQ(rig.told(writes), kWrite);
  if (is_epoll(rig)) {
    // What is reported of the old registration is not for them any more.
    for (int i = 0; i < 3; ++i) EXPECT_EQ(rig.poll(), 0);
  }
  EXPECT_EQ(rig.base->destroy(reads), 0);
  EXPECT_EQ(rig.base->destroy(writes), 0);
  expect_rest(rig, 1);
}

// ── the renewed set ─────────────────────────────────────────────────────────────────────────

TEST_EACH_BASE(all_others_survive_the_renewal) {
  Inbox* inbox = rig.attach(8);
  const Pair external, level, closing;
  EXPECT_EQ(rig.base->watch_external(external.near), 0);
  const EventId signal = rig.add(10, kSignal | kPersist);
  const EventId reads = rig.add(level.near, kRead | kPersist);
  const EventId writes = rig.add(level.near, kWrite | kPersist);
  const bool early = rig.has(kFeatureEarlyClose);
  const EventId closed = early ? rig.add(closing.near, kClosed | kPersist) : 0;
  rig.poll();
  EXPECT_EQ(rig.order(), std::vector<EventId>{writes});
  EXPECT_EQ(rig.base->remove(writes), 0);

  Ghost ghost;
  fire_once(rig, ghost.number);
  ghost.close();
  expect_rest(rig, 1);

  for (int i = 0; i < 2; ++i) {
    send_byte(level.far);
    EXPECT_EQ(rig.poll(kPatience), kFoundWork);
    EXPECT_EQ(rig.order(), std::vector<EventId>{reads});
    drain(level.near);
    send_byte(external.far);
    EXPECT_EQ(rig.poll(kPatience), kFoundExternal);
    drain(external.near);
    EXPECT_EQ(rig.signals.raise(10), 1);
    EXPECT_EQ(rig.poll(kPatience), kFoundWork);
    EXPECT_EQ(rig.told(signal), kSignal);
    EXPECT_EQ(inbox->push({MessageKind::kPost, 77, 0, nullptr, 0}), Inbox::Push::kOk);
    EXPECT_EQ(rig.poll(kPatience), kFoundWork);
    EXPECT_EQ(rig.page->messages, 1);
  }
  if (early) {
    EXPECT_EQ(sys::shutdown_write(closing.far), 0);
    rig.poll(kPatience);
    EXPECT_EQ(rig.told(closed), kClosed);
  }
  EXPECT_EQ(renewals(rig), is_epoll(rig) ? 1 : 0);
}

TEST_EACH_BASE(edges_survive_the_renewal) {
  if (!rig.has(kFeatureEdge)) return;
  const Pair quiet, ready;
  const EventId first = rig.add(quiet.near, kRead | kEdge | kPersist);
  const EventId second = rig.add(ready.near, kRead | kEdge | kPersist);
  send_byte(ready.far);
  rig.poll();
  EXPECT_EQ(rig.order(), std::vector<EventId>{second});
  Ghost ghost;
  fire_once(rig, ghost.number);
  ghost.close();
  rig.poll();
  // A new set announces what is ready already once more; that is allowed, and no edge is lost.
  rig.poll();
  EXPECT_EQ(rig.told(first), 0);
  EXPECT_TRUE(sleeps(rig));
  send_byte(quiet.far);
  rig.poll();
  EXPECT_EQ(rig.order(), std::vector<EventId>{first});
  EXPECT_TRUE(sleeps(rig));
}

TEST_EACH_BASE(the_renewed_set_has_the_old_number_and_is_quiet) {
  if (!is_epoll(rig)) return;
  const int set = rig.base->backend().pollable_fd();
  const Pair pair;
  const EventId id = rig.add(pair.near, kRead | kPersist);
  Ghost ghost;
  fire_once(rig, ghost.number);
  ghost.close();
  const int open_before = count_fds();
  EXPECT_EQ(rig.poll(), 0);
  EXPECT_EQ(renewals(rig), 1);
  EXPECT_EQ(count_fds(), open_before);
  EXPECT_EQ(rig.base->backend().pollable_fd(), set);
  pollfd one{set, POLLIN, 0};
  EXPECT_EQ(::poll(&one, 1, 0), 0);
  send_byte(pair.far);
  EXPECT_EQ(::poll(&one, 1, 0), 1);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
}

// ── without a descriptor to spare ───────────────────────────────────────────────────────────

TEST_EACH_BASE(out_of_descriptors_it_is_laid_to_rest_later) {
  const Pair pair;
  const EventId id = rig.add(pair.near, kRead | kPersist);
  Ghost ghost;
  fire_once(rig, ghost.number);
  ghost.close();
  {
    const DescriptorLimit none(static_cast<rlim_t>(next_number()));
    EXPECT_TRUE(sys::dup(STDOUT_FILENO) < 0);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(rig.poll(), 0);
    EXPECT_EQ(renewals(rig), 0);
    // Meanwhile the others are told as ever.
    send_byte(pair.far);
    rig.poll();
    EXPECT_EQ(rig.order(), std::vector<EventId>{id});
    drain(pair.near);
  }
  expect_rest(rig, 1);
  send_byte(pair.far);
  rig.poll();
  EXPECT_EQ(rig.order(), std::vector<EventId>{id});
}

#ifdef ML_HAVE_EPOLL
TEST(a_set_whose_number_is_past_the_limit_is_renewed_later) {
  // The process may lower its limit below numbers that are open (getrlimit(2)).
  const BackendType* type = find_backend("epoll");
  if (!EXPECT_TRUE(type != nullptr)) return;
  Fd low(sys::dup(STDOUT_FILENO));
  Rig rig(*type, make_backend(*type));
  const int set = rig.base->backend().pollable_fd();
  EXPECT_TRUE(low < set);
  Ghost ghost;
  fire_once(rig, ghost.number);
  ghost.close();
  {
    // A number below the set's is free, and its own is not allowed any more.
    const DescriptorLimit limit(static_cast<rlim_t>(set));
    low.close();
    for (int i = 0; i < 3; ++i) EXPECT_EQ(rig.poll(), 0);
    EXPECT_EQ(renewals(rig), 0);
  }
  expect_rest(rig, 1);
}
#endif

}  // namespace multiloop::test
