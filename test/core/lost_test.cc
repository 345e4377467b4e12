// A loop that is given up for lost by the thread of its coordinator, while its own thread sleeps,
// goes on or ends at that very moment: every descriptor is taken back, or severed and closed once.
#include <string_view>
#include "../../native/core/handoff.h"

#include "../../native/core/platform.h"
#include "check.h"
#include "fixture.h"
#include "place.h"

namespace multiloop::test {

namespace {

// What the thread of a loop does with a message, as Base::drain_inbox has it.
bool take_one(const Place& loop) {
  Message message{};
  if (!loop.inbox->pop(&message)) return false;
  if (message.id != kNoConnection && !Ledger::take(message.id, loop.handle)) return true;
  if (message.id != kNoConnection) loop.inbox->counters().opened.fetch_add(1);
  free_message(message);
  return true;
}

// Takes back what came to the coordinator and closes it; answers how many came.
int receive(const Place& coordinator) {
  int count = 0;
  Message message{};
  while (coordinator.inbox->pop(&message)) {
    free_message(message);
    if (message.id == kNoConnection) continue;
    EXPECT_TRUE(message.kind == MessageKind::kReturned || message.kind == MessageKind::kRescued);
    EXPECT_TRUE(Ledger::take(message.id, coordinator.handle));
    EXPECT_TRUE(Ledger::close(message.id, coordinator.handle, true));
    ++count;
  }
  return count;
}

bool is_silent(int fd) {
  char byte = 0;
  return sys::recv(fd, &byte, 1) == -EAGAIN;
}

bool brings(const Message& message, std::string_view text) {
  return std::string_view(reinterpret_cast<const char*>(message.bytes), message.length) == text;
}

}  // namespace

TEST(severing_ends_a_connection_and_keeps_its_number) {
  TcpPair pair;
  const int number = pair.near;
  const ConnectionId id = adopt(pair.near, 7);
  EXPECT_TRUE(!Ledger::sever(id, 8));
  EXPECT_TRUE(Ledger::sever(id, 7));
  EXPECT_TRUE(Ledger::sever(id, 7));
  const long end = read_some(pair.far);
#ifdef ML_LINUX
  EXPECT_EQ(end, -ECONNRESET);
#else
  EXPECT_EQ(end, 0);
#endif
  EXPECT_EQ(Ledger::fd(id), number);
  EXPECT_EQ(sys::check_open(number), 0);
  EXPECT_TRUE(sys::write(number, "x", 1) < 0);
  EXPECT_TRUE(Ledger::close(id, 7, true));
  EXPECT_TRUE(!Ledger::sever(id, 7));
  EXPECT_EQ(sys::check_open(number), -EBADF);
}

TEST(severing_ends_a_unix_socket_too) {
  Pair pair;
  const ConnectionId id = adopt(pair.near, 7);
  EXPECT_TRUE(Ledger::sever(id, 7));
  EXPECT_EQ(read_some(pair.far), 0);
  EXPECT_TRUE(Ledger::close(id, 7, false));
}

TEST(an_abandoned_loop_gives_back_what_waits_and_keeps_severed_what_it_owns) {
  Place coordinator(8);
  Place loop(8, coordinator.handle);
  std::uint8_t boundaries[1'024] = {};
  loop.inbox->watch_boundaries(boundaries, sizeof boundaries);
  Pair owned, waiting, moving, rescued;
  const ConnectionId owns = adopt(owned.near, coordinator.handle);
  const ConnectionId waits = adopt(waiting.near, coordinator.handle);
  const ConnectionId moves = adopt(moving.near, coordinator.handle);
  const ConnectionId is_rescued = adopt(rescued.near, coordinator.handle);
  EXPECT_EQ(hand_off(owns, coordinator.handle, loop.handle), Delivery::kOk);
  EXPECT_TRUE(take_one(loop));
  boundaries[Ledger::fd(owns)] = 1;
  EXPECT_EQ(hand_off(waits, coordinator.handle, loop.handle), Delivery::kOk);
  EXPECT_EQ(post(coordinator.handle, loop.handle, "post", 4), Delivery::kOk);
  EXPECT_EQ(move(moves, coordinator.handle, loop.handle, "brings", 6), Delivery::kOk);
  EXPECT_EQ(move(is_rescued, coordinator.handle, loop.handle, "saved", 5, MessageKind::kRescued),
            Delivery::kOk);

  EXPECT_EQ(abandon_loop(loop.handle), 1);
  EXPECT_EQ(post(coordinator.handle, loop.handle, "late", 4), Delivery::kGone);
  EXPECT_EQ(read_some(owned.far), 0);
  for (const Pair* open : {&waiting, &moving, &rescued}) EXPECT_TRUE(is_silent(open->far));
  EXPECT_EQ(Ledger::owner(owns), loop.handle);
  const Message first = coordinator.pop();
  EXPECT_TRUE(first.kind == MessageKind::kReturned && first.id == waits);
  const Message second = coordinator.pop();
  EXPECT_TRUE(second.kind == MessageKind::kReturned && second.id == moves);
  EXPECT_TRUE(brings(second, "brings"));
  const Message third = coordinator.pop();
  EXPECT_TRUE(third.kind == MessageKind::kRescued && third.id == is_rescued);
  EXPECT_TRUE(brings(third, "saved"));
  for (const Message& message : {first, second, third}) {
    free_message(message);
    EXPECT_TRUE(Ledger::take(message.id, coordinator.handle));
    EXPECT_TRUE(Ledger::close(message.id, coordinator.handle, false));
  }
  // Its thread comes back: what was taken away is nothing to it, and nothing is rescued.
  EXPECT_TRUE(take_one(loop));
  EXPECT_TRUE(take_one(loop));
  loop.release();
  EXPECT_EQ(coordinator.pop().kind, MessageKind::kReleased);
  EXPECT_TRUE(coordinator.is_empty());
  EXPECT_EQ(abandon_loop(loop.handle), -1);
  EXPECT_EQ(Ledger::count(), 0);
}

TEST(what_an_abandoned_loop_cannot_give_back_is_closed_and_counted) {
  Place coordinator(2);
  Place loop(8, coordinator.handle);
  Pair pair;
  const ConnectionId id = adopt(pair.near, coordinator.handle);
  EXPECT_EQ(hand_off(id, coordinator.handle, loop.handle), Delivery::kOk);
  while (post(loop.handle, coordinator.handle, "x", 1) == Delivery::kOk) {
  }
  EXPECT_EQ(abandon_loop(loop.handle), 0);
  EXPECT_EQ(loop.inbox->counters().lost.load(), 1);
  EXPECT_EQ(read_some(pair.far), 0);
  EXPECT_EQ(receive(coordinator), 0);
  EXPECT_EQ(Ledger::count(), 0);
}

TEST(a_loop_that_never_came_may_be_abandoned) {
  const Place coordinator(8);
  InboxHandle handle = kNoInbox;
  EXPECT_EQ(Inbox::create(8, Waker::preferred(), coordinator.handle, &handle), 0);
  Pair pair;
  const ConnectionId id = adopt(pair.near, coordinator.handle);
  EXPECT_EQ(move(id, coordinator.handle, handle, "bytes", 5), Delivery::kOk);
  EXPECT_EQ(abandon_loop(handle), 0);
  EXPECT_EQ(receive(coordinator), 1);
  Inbox::release_creator(handle);
  EXPECT_EQ(abandon_loop(handle), -1);
  EXPECT_EQ(Ledger::count(), 0);
}

// The thread wakes up while it is given up: it takes messages out, closes connections and ends,
// and others still send to it.
TEST(a_lost_thread_that_comes_back_at_that_moment_closes_everything_once) {
  const int fds = count_fds();
  Rounds rounds(400);
  while (rounds.next()) {
    constexpr int kCount = 12;
    const Place coordinator(64);
    Place loop(64, coordinator.handle);
    const Place other(8, coordinator.handle);
    std::uint8_t boundaries[1'024] = {};
    loop.inbox->watch_boundaries(boundaries, sizeof boundaries);
    std::vector<Pair> pairs(kCount);
    std::vector<ConnectionId> ids;
    for (Pair& pair : pairs) {
      ids.push_back(adopt(pair.near, coordinator.handle));
      if (ids.size() == kCount) break;
      const bool brings = ids.size() % 2 == 0;
      EXPECT_EQ(brings ? move(ids.back(), coordinator.handle, loop.handle, "bytes", 5)
                       : hand_off(ids.back(), coordinator.handle, loop.handle),
                Delivery::kOk);
    }
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(take_one(loop));
    boundaries[Ledger::fd(ids[1])] = 1;
    const ConnectionId last = ids.back();
    Delivery sent{};
    std::thread sender([&] { sent = move(last, coordinator.handle, loop.handle, "late", 4); });
    race(
        [&] {
          let_pass(monotonic_now() + rounds.round() % 7);
          for (int i = 0; i < 3; ++i) take_one(loop);
          if (Ledger::close(ids[0], loop.handle, false)) loop.inbox->counters().closed.fetch_add(1);
          loop.release();
        },
        [&] { abandon_loop(loop.handle); });
    sender.join();
    if (sent != Delivery::kOk) EXPECT_TRUE(Ledger::close(last, coordinator.handle, false));
    receive(coordinator);
    if (!EXPECT_EQ(Ledger::count(), 0)) return;
    for (const Pair& pair : pairs) EXPECT_EQ(read_some(pair.far), 0);
  }
  EXPECT_EQ(count_fds(), fds);
}

}  // namespace multiloop::test
