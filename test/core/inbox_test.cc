// The inbox: bounded, closed without losing a message, woken without losing a wake-up, and found by
// a handle that may be stale.
#include "../../native/core/inbox.h"

#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <set>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

InboxHandle make(std::uint32_t capacity, Waker::Kind waker = Waker::preferred()) {
  InboxHandle handle = kNoInbox;
  EXPECT_EQ(Inbox::create(capacity, waker, kNoInbox, &handle), 0);
  return handle;
}

// An inbox with both of its references, which are given back in the end.
class Owned {
 public:
  explicit Owned(std::uint32_t capacity, Waker::Kind waker = Waker::preferred())
      : handle(make(capacity, waker)), inbox(Inbox::attach(handle)) {
    EXPECT_TRUE(inbox != nullptr);
  }
  ~Owned() {
    Inbox::release_creator(handle);
    inbox->unref();
  }
  Inbox* operator->() const { return inbox; }

  const InboxHandle handle;
  Inbox* const inbox;
};

Message number(std::uint64_t id, InboxHandle from = kNoInbox) {
  return {MessageKind::kPost, from, id, nullptr, 0};
}

Message with_bytes(std::uint64_t id) {
  return {MessageKind::kPost, kNoInbox, id, static_cast<std::byte*>(std::malloc(8)), 8};
}

// Pushes as post() does, and frees what was refused.
Inbox::Push push(InboxHandle to, const Message& message) {
  const InboxPin pin(to);
  const Inbox::Push result = pin ? pin->push(message) : Inbox::Push::kGone;
  if (result == Inbox::Push::kOk)
    pin->wake_sleeper();
  else
    free_message(message);
  return result;
}

// Sleeps until woken. False: nobody woke it although it had been told to expect somebody.
bool sleep_for_messages(Inbox* inbox) {
  if (!inbox->prepare_to_sleep()) return true;
  pollfd one{inbox->waker().fd(), POLLIN, 0};
  const int ready = ::poll(&one, 1, static_cast<int>(kPatience / 1'000));
  inbox->awake();
  if (ready == 1) inbox->waker().drain();
  return ready == 1;
}

}  // namespace

TEST(it_holds_what_it_was_made_for_and_no_more) {
  for (const std::uint32_t capacity : {1U, 2U, 3U, 4U, 100U}) {
    const Owned inbox(capacity);
    const std::uint32_t size = inbox->capacity();
    EXPECT_TRUE(size >= capacity && size <= 2 * capacity);
    // Several rounds, so that every slot is used again.
    for (std::uint64_t round = 0; round < 5; ++round) {
      for (std::uint32_t i = 0; i < size; ++i)
        EXPECT_EQ(inbox->push(number(round * 1'000 + i)), Inbox::Push::kOk);
      EXPECT_EQ(inbox->depth(), size);
      EXPECT_EQ(inbox->push(number(999)), Inbox::Push::kFull);
      Message message{};
      EXPECT_TRUE(inbox->pop(&message));
      EXPECT_EQ(message.id, round * 1'000);
      EXPECT_EQ(inbox->push(number(round * 1'000 + size)), Inbox::Push::kOk);
      EXPECT_EQ(inbox->push(number(999)), Inbox::Push::kFull);
      for (std::uint32_t i = 1; i <= size; ++i) {
        if (!EXPECT_TRUE(inbox->pop(&message))) return;
        EXPECT_EQ(message.id, round * 1'000 + i);
      }
      EXPECT_TRUE(!inbox->pop(&message));
      EXPECT_TRUE(inbox->empty());
      EXPECT_EQ(inbox->depth(), 0);
    }
  }
}

TEST(it_counts_what_happened) {
  const Owned inbox(4);
  const InboxCounters& counters = inbox->counters();
  for (std::uint64_t i = 0; i < 6; ++i) push(inbox.handle, number(i));
  EXPECT_EQ(counters.pushed.load(), 4);
  EXPECT_EQ(counters.refused_full.load(), 2);
  EXPECT_EQ(counters.wakes_saved.load(), 4);
  EXPECT_EQ(counters.wakes_sent.load(), 0);
  Message message{};
  while (inbox->pop(&message)) {
  }
  EXPECT_EQ(counters.popped.load(), 4);
  EXPECT_TRUE(inbox->prepare_to_sleep());
  push(inbox.handle, number(7));
  push(inbox.handle, number(8));
  EXPECT_EQ(counters.wakes_sent.load(), 1);
  EXPECT_EQ(counters.wakes_saved.load(), 5);
}

TEST(a_sleeper_is_woken_once_and_never_lies_down_beside_a_message) {
  for (const Waker::Kind kind : waker_kinds()) {
    const Owned inbox(8, kind);
    const auto woken = [&] {
      pollfd one{inbox->waker().fd(), POLLIN, 0};
      return ::poll(&one, 1, 0) == 1;
    };
    push(inbox.handle, number(1));
    EXPECT_TRUE(!woken());
    EXPECT_TRUE(!inbox->prepare_to_sleep());
    // The refusal is no sleep: nobody spends a system call on it.
    push(inbox.handle, number(2));
    EXPECT_TRUE(!woken());
    Message message{};
    while (inbox->pop(&message)) {
    }
    EXPECT_TRUE(inbox->prepare_to_sleep());
    EXPECT_TRUE(!woken());
    push(inbox.handle, number(3));
    EXPECT_TRUE(woken());
    inbox->awake();
    inbox->waker().drain();
    EXPECT_TRUE(!woken());
    // Far more wake-ups than a pipe holds are no error and no block.
    for (int i = 0; i < 70'000; ++i) inbox->waker().wake();
    inbox->waker().drain();
    EXPECT_TRUE(!woken());
  }
}

TEST(no_message_and_no_wake_up_is_lost_between_producers_and_a_sleeping_consumer) {
  constexpr std::uint32_t kProducers = 4;
  constexpr std::uint64_t kEach = 6'000;
  for (const Waker::Kind kind : waker_kinds()) {
    // Small, so that the producers meet a full inbox too.
    const Owned inbox(64, kind);
    std::vector<std::thread> producers;
    for (std::uint32_t producer = 0; producer < kProducers; ++producer) {
      producers.emplace_back([&, producer] {
        for (std::uint64_t i = 0; i < kEach; ++i) {
          Inbox::Push result;
          while ((result = push(inbox.handle, number(i, producer))) == Inbox::Push::kFull)
            sched_yield();
          if (result == Inbox::Push::kGone) return;
          // Now and then it lets the consumer fall asleep.
          if (i % 64 == 0) await([&] { return inbox->depth() == 0; });
        }
      });
    }
    std::uint64_t next[kProducers] = {};
    std::uint64_t left = kProducers * kEach;
    while (left > 0) {
      Message message{};
      if (inbox->pop(&message)) {
        if (!EXPECT_EQ(message.id, next[message.from])) break;
        ++next[message.from];
        --left;
      } else if (!EXPECT_TRUE(sleep_for_messages(inbox.inbox))) {
        break;
      }
    }
    if (left > 0) inbox->close();
    while (left > 0 && !inbox->drained()) {
      Message message{};
      if (!inbox->pop(&message)) sched_yield();
    }
    for (std::thread& producer : producers) producer.join();
    EXPECT_EQ(inbox->counters().pushed.load(), kProducers * kEach);
    EXPECT_EQ(inbox->counters().popped.load(), kProducers * kEach);
    EXPECT_TRUE(inbox->counters().wakes_sent.load() > 0);
  }
}

TEST(a_push_lands_before_the_last_drain_or_fails) {
  Random random;
  Rounds rounds(500);
  while (rounds.next()) {
    const Owned inbox(32);
    constexpr int kProducers = 3;
    std::atomic<std::uint64_t> landed{0};
    std::atomic<int> begun{0};
    std::vector<std::thread> producers;
    for (int producer = 0; producer < kProducers; ++producer) {
      producers.emplace_back([&] {
        begun.fetch_add(1);
        for (;;) {
          const Inbox::Push result = push(inbox.handle, with_bytes(1));
          if (result == Inbox::Push::kGone) return;
          if (result == Inbox::Push::kOk) landed.fetch_add(1);
          if (result == Inbox::Push::kFull) sched_yield();
        }
      });
    }
    std::uint64_t taken = 0;
    Message message{};
    const auto take = [&] {
      if (!inbox->pop(&message)) return false;
      free_message(message);
      ++taken;
      return true;
    };
    EXPECT_TRUE(await([&] { return begun.load() > 0; }));
    // Often it is closed when it has just been found empty: whoever is about to publish must be
    // waited for.
    const std::uint32_t before_close = random.below(200);
    for (std::uint32_t i = 0; i < before_close; ++i)
      if (!take() && rounds.round() % 4 != 0) break;
    EXPECT_TRUE(!inbox->drained());
    inbox->close();
    EXPECT_TRUE(await([&] {
      while (take()) {
      }
      return inbox->drained();
    }));
    // Nothing comes after the drain, not even from a producer that has not heard of it yet.
    const std::uint64_t at_drain = taken;
    for (std::thread& producer : producers) producer.join();
    EXPECT_TRUE(!take());
    EXPECT_EQ(landed.load(), at_drain);
    EXPECT_TRUE(inbox->drained());
  }
}

TEST(a_closed_inbox_still_gives_what_it_holds) {
  const Owned inbox(8);
  EXPECT_EQ(inbox->push(number(1)), Inbox::Push::kOk);
  EXPECT_EQ(inbox->push(number(2)), Inbox::Push::kOk);
  inbox->close();
  EXPECT_EQ(inbox->push(number(3)), Inbox::Push::kGone);
  EXPECT_EQ(inbox->depth(), 2);
  EXPECT_TRUE(!inbox->drained());
  Message message{};
  EXPECT_TRUE(inbox->pop(&message) && message.id == 1);
  EXPECT_TRUE(inbox->pop(&message) && message.id == 2);
  EXPECT_TRUE(!inbox->pop(&message));
  EXPECT_TRUE(inbox->drained());
  inbox->close();
  EXPECT_TRUE(inbox->drained());
}

TEST(a_stale_handle_finds_nothing) {
  const InboxHandle first = make(4);
  EXPECT_TRUE(first != kNoInbox && first < 1U << 31);
  EXPECT_TRUE(static_cast<bool>(InboxPin(first)));
  Inbox::release_creator(first);
  EXPECT_TRUE(!InboxPin(first));
  EXPECT_TRUE(Inbox::attach(first) == nullptr);
  const InboxHandle second = make(4);
  EXPECT_TRUE(second != first);
  EXPECT_TRUE(!InboxPin(first));
  EXPECT_EQ(push(first, with_bytes(1)), Inbox::Push::kGone);
  for (const InboxHandle odd : {kNoInbox, InboxHandle{1}, InboxHandle{1'023}, UINT32_MAX}) {
    EXPECT_TRUE(!InboxPin(odd));
    EXPECT_TRUE(Inbox::attach(odd) == nullptr);
  }
  Inbox::release_creator(second);
}

TEST(one_loop_attaches_it_and_the_last_reference_frees_it) {
  const InboxHandle handle = make(4);
  Inbox* inbox = Inbox::attach(handle);
  if (!EXPECT_TRUE(inbox != nullptr)) return;
  EXPECT_TRUE(Inbox::attach(handle) == nullptr);
  // The creator's going does not disturb the loop.
  Inbox::release_creator(handle);
  EXPECT_EQ(push(handle, with_bytes(1)), Inbox::Push::kOk);
  inbox->unref();
  EXPECT_TRUE(!InboxPin(handle));

  // Without a loop nobody would ever take what is pushed.
  const InboxHandle unused = make(4);
  EXPECT_EQ(push(unused, with_bytes(1)), Inbox::Push::kOk);
  Inbox::release_creator(unused);
  EXPECT_EQ(push(unused, with_bytes(2)), Inbox::Push::kGone);
}

TEST(attaching_races_with_the_creators_release) {
  int attached_rounds = 0;
  Rounds rounds(1'500);
  while (rounds.next()) {
    const InboxHandle handle = make(8);
    Inbox* attached = nullptr;
    const auto attach = [&] { attached = Inbox::attach(handle); };
    const auto release = [&] { Inbox::release_creator(handle); };
    if (rounds.round() % 2 == 0)
      race(attach, release);
    else
      race(release, attach);
    if (attached != nullptr) {
      ++attached_rounds;
      // The loop has it, alive and open for as long as it likes.
      if (!EXPECT_EQ(push(handle, number(1)), Inbox::Push::kOk)) return;
      Message message{};
      EXPECT_TRUE(attached->pop(&message));
      attached->close();
      EXPECT_TRUE(attached->drained());
      attached->unref();
    }
    if (!EXPECT_TRUE(!InboxPin(handle))) return;
  }
  std::printf("(attached in %d of %d) ", attached_rounds, rounds.round());
}

TEST(table_slots_are_used_again_while_others_push) {
  constexpr int kProducers = 3;
  // The newest inbox and one that is likely to be gone.
  std::atomic<InboxHandle> young{kNoInbox};
  std::atomic<InboxHandle> old{kNoInbox};
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> landed{0};
  std::atomic<std::uint64_t> refused{0};
  std::vector<std::thread> producers;
  for (int producer = 0; producer < kProducers; ++producer) {
    producers.emplace_back([&] {
      while (!over.load()) {
        for (const std::atomic<InboxHandle>* target : {&young, &old}) {
          const InboxHandle to = target->load();
          // The message says where it was sent, so that one gone astray is seen.
          const bool ok = push(to, with_bytes(to)) == Inbox::Push::kOk;
          (ok ? landed : refused).fetch_add(1);
          if (!ok) sched_yield();
        }
      }
    });
  }
  std::uint64_t taken = 0;
  Rounds rounds(600);
  while (rounds.next()) {
    const InboxHandle handle = make(16, waker_kinds()[rounds.round() % waker_kinds().size()]);
    Inbox* inbox = Inbox::attach(handle);
    if (!EXPECT_TRUE(inbox != nullptr)) break;
    const auto take = [&] {
      Message message{};
      if (!inbox->pop(&message)) return false;
      EXPECT_EQ(message.id, handle);
      free_message(message);
      ++taken;
      return true;
    };
    old.store(young.exchange(handle));
    EXPECT_TRUE(await([&] { return take(); }));
    inbox->close();
    EXPECT_TRUE(await([&] {
      while (take()) {
      }
      return inbox->drained();
    }));
    if (rounds.round() % 3 == 0) {
      inbox->unref();
      Inbox::release_creator(handle);
    } else {
      Inbox::release_creator(handle);
      inbox->unref();
    }
  }
  over.store(true);
  for (std::thread& producer : producers) producer.join();
  EXPECT_EQ(taken, landed.load());
  EXPECT_TRUE(refused.load() > 0);
}

TEST(an_inbox_that_no_loop_came_for_is_freed_while_others_push) {
  std::atomic<InboxHandle> target{kNoInbox};
  std::atomic<bool> over{false};
  std::vector<std::thread> producers;
  for (int producer = 0; producer < 3; ++producer) {
    producers.emplace_back([&] {
      while (!over.load())
        if (push(target.load(), with_bytes(1)) != Inbox::Push::kOk) sched_yield();
    });
  }
  Rounds rounds(500);
  while (rounds.next()) {
    const InboxHandle handle = make(1'024);
    target.store(handle);
    // In the middle of a stream of pushes, some of which have claimed a place and not filled it.
    EXPECT_TRUE(await([&] { return InboxPin(handle)->depth() > 20; }));
    Inbox::release_creator(handle);
    EXPECT_TRUE(!InboxPin(handle));
  }
  over.store(true);
  for (std::thread& producer : producers) producer.join();
}

TEST(creating_fails_when_there_is_no_room_and_leaves_nothing_behind) {
  // The lowest free number is the limit: not one more descriptor can be opened.
  Fd probe(sys::dup(STDOUT_FILENO));
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{static_cast<rlim_t>(static_cast<int>(probe)), before.rlim_max};
  probe.close();
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  InboxHandle handle = kNoInbox;
  for (const Waker::Kind kind : waker_kinds())
    EXPECT_EQ(Inbox::create(4, kind, kNoInbox, &handle), -EMFILE);
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  const int fds = count_fds();
  if (before.rlim_cur < 2 * kInboxesMax + 64) {
    std::printf("(this process may not open %u descriptors) ", 2 * kInboxesMax);
    return;
  }
  std::set<InboxHandle> made;
  int status = 0;
  while ((status = Inbox::create(1, Waker::preferred(), kNoInbox, &handle)) == 0)
    made.insert(handle);
  EXPECT_EQ(status, -ENOSPC);
  EXPECT_EQ(made.size(), kInboxesMax - 1);
  for (const InboxHandle one : made) Inbox::release_creator(one);
  EXPECT_EQ(count_fds(), fds);
}

}  // namespace multiloop::test
