// The signal box: raised by any thread, taken by its base's, woken for what is new.
#include "../../native/core/signal_box.h"

#include <poll.h>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

bool is_woken(const SignalBox& box, int patience_ms = 0) {
  pollfd one{box.waker().fd(), POLLIN, 0};
  return ::poll(&one, 1, patience_ms) == 1;
}

constexpr std::uint64_t bit_of(int signal) { return 1ULL << (signal - 1); }
constexpr int kPatienceMs = static_cast<int>(kPatience / 1'000);
}  // namespace

TEST(signals_are_counted_each_for_itself) {
  for (const Waker::Kind kind : waker_kinds()) {
    SignalBox box;
    EXPECT_EQ(box.open(kind), 0);
    EXPECT_EQ(box.pending(), 0);
    EXPECT_TRUE(!is_woken(box));
    for (int i = 0; i < 3; ++i) box.raise(1);
    box.raise(kSignalsMax);
    EXPECT_TRUE(box.pending() == (bit_of(1) | bit_of(kSignalsMax)));
    EXPECT_EQ(box.take(1), 3);
    EXPECT_TRUE(box.pending() == bit_of(kSignalsMax));
    EXPECT_EQ(box.take(1), 0);
    EXPECT_EQ(box.take(2), 0);
    EXPECT_EQ(box.take(kSignalsMax), 1);
    EXPECT_EQ(box.pending(), 0);
  }
}

TEST(its_owner_is_woken_for_the_first_of_each_signal) {
  for (const Waker::Kind kind : waker_kinds()) {
    SignalBox box;
    EXPECT_EQ(box.open(kind), 0);
    for (int round = 0; round < 3; ++round) {
      for (const int signal : {2, 15}) {
        box.raise(signal);
        EXPECT_TRUE(is_woken(box));
        box.waker().drain();
        // It is known to be pending: no system call more.
        box.raise(signal);
        EXPECT_TRUE(!is_woken(box));
      }
      EXPECT_EQ(box.take(2), 2);
      EXPECT_EQ(box.take(15), 2);
    }
  }
}

TEST(a_closed_box_gives_its_descriptors_back) {
  const int before = count_fds();
  for (const Waker::Kind kind : waker_kinds()) {
    SignalBox box;
    EXPECT_EQ(box.open(kind), 0);
    EXPECT_EQ(count_fds(), before + (kind == Waker::Kind::kPipe ? 2 : 1));
  }
  // One that was never opened has nothing to give.
  { const SignalBox box; }
  EXPECT_EQ(count_fds(), before);
}

TEST(nothing_is_lost_while_threads_raise_and_the_owner_takes) {
  constexpr int kThreads = 3;
  constexpr std::uint32_t kEach = 20'000;
  // Two threads share one signal, the third has one of its own.
  constexpr int kSignals[kThreads] = {10, 10, 12};
  for (const Waker::Kind kind : waker_kinds()) {
    SignalBox box;
    EXPECT_EQ(box.open(kind), 0);
    Gate gate(kThreads + 1);
    std::vector<std::thread> threads;
    for (const int signal : kSignals) {
      threads.emplace_back([&box, &gate, signal] {
        gate.pass();
        for (std::uint32_t i = 0; i < kEach; ++i) {
          box.raise(signal);
          if (i % 64 == 0) sched_yield();
        }
      });
    }
    gate.pass();
    std::uint32_t shared = 0;
    std::uint32_t own = 0;
    // It sleeps whenever nothing is pending, as a base does: whoever was not woken stays here.
    while (shared < 2 * kEach || own < kEach) {
      if (box.pending() == 0) {
        if (!EXPECT_TRUE(is_woken(box, kPatienceMs))) break;
        box.waker().drain();
      }
      shared += box.take(10);
      own += box.take(12);
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(shared, 2 * kEach);
    EXPECT_EQ(own, kEach);
    // A signal may be counted just before it is told to be pending: then it is so without a count.
    EXPECT_EQ(box.take(10) + box.take(12), 0);
  }
}

TEST(its_owner_is_woken_for_every_signal_that_finds_it_asleep) {
  for (const Waker::Kind kind : waker_kinds()) {
    SignalBox box;
    EXPECT_EQ(box.open(kind), 0);
    std::atomic<std::uint32_t> taken{0};
    std::atomic<bool> over{false};
    std::thread raiser([&] {
      Rounds rounds(2'000);
      while (rounds.next()) {
        box.raise(1 + rounds.round() % kSignalsMax);
        const auto expected = static_cast<std::uint32_t>(rounds.round()) + 1;
        if (!EXPECT_TRUE(await([&] { return taken.load() == expected; }))) break;
      }
      over.store(true);
      box.raise(1);
    });
    while (!over.load()) {
      if (!EXPECT_TRUE(is_woken(box, kPatienceMs))) break;
      box.waker().drain();
      for (std::uint64_t left = box.pending(); left != 0; left &= left - 1)
        taken.fetch_add(box.take(__builtin_ctzll(left) + 1));
    }
    raiser.join();
  }
}

}  // namespace multiloop::test
