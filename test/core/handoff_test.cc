// Descriptors between threads: whatever happens to a loop, each is served, returned or closed, and
// none is left open.
#include "../../native/core/handoff.h"

#include <cstring>
#include <deque>
#include <map>

#include "check.h"
#include "fixture.h"
#include "place.h"

namespace multiloop::test {

TEST(a_handoff_gives_the_descriptor_and_the_message) {
  const Place coordinator(8);
  Place loop(8);
  TcpPair pair;
  const int number = pair.near;
  const ConnectionId id = adopt(pair.near, coordinator.handle);
  EXPECT_EQ(hand_off(id, coordinator.handle, loop.handle), Delivery::kOk);
  EXPECT_EQ(hand_off(id, coordinator.handle, loop.handle), Delivery::kNotOwner);
  const Message message = loop.pop();
  EXPECT_EQ(message.kind, MessageKind::kHandoff);
  EXPECT_EQ(message.from, coordinator.handle);
  EXPECT_EQ(message.id, id);
  EXPECT_TRUE(Ledger::take(id, loop.handle));
  EXPECT_EQ(Ledger::fd(id), number);
  // And on to itself: a message to oneself is one like any other.
  EXPECT_EQ(hand_off(id, loop.handle, loop.handle), Delivery::kOk);
  EXPECT_TRUE(Ledger::take(loop.pop().id, loop.handle));
  EXPECT_TRUE(Ledger::close(id, loop.handle, false));
  EXPECT_EQ(read_some(pair.far), 0);
}

TEST(a_full_or_gone_inbox_leaves_the_owner_as_it_was) {
  const Place coordinator(8);
  Place full(2);
  Place gone(2);
  const InboxHandle gone_handle = gone.handle;
  gone.release();
  TcpPair pair;
  const ConnectionId id = adopt(pair.near, coordinator.handle);
  while (post(coordinator.handle, full.handle, "x", 1) == Delivery::kOk) {
  }
  EXPECT_EQ(hand_off(id, coordinator.handle, full.handle), Delivery::kFull);
  EXPECT_EQ(hand_off(id, coordinator.handle, gone_handle), Delivery::kGone);
  EXPECT_EQ(hand_off(id, coordinator.handle, kNoInbox), Delivery::kGone);
  EXPECT_EQ(hand_off(id, full.handle, full.handle), Delivery::kNotOwner);
  EXPECT_EQ(full.inbox->counters().refused_full.load(), 2);
  EXPECT_EQ(post(coordinator.handle, gone_handle, "x", 1), Delivery::kGone);
  // The next choice works.
  free_message(full.pop());
  EXPECT_EQ(hand_off(id, coordinator.handle, full.handle), Delivery::kOk);
  full.release(false);
  EXPECT_EQ(read_some(pair.far), -ECONNRESET);
  EXPECT_EQ(Ledger::count(), 0);
}

TEST(a_post_carries_its_bytes_also_when_there_are_none) {
  Place loop(8);
  const char text[] = "bytes";
  EXPECT_EQ(post(5, loop.handle, text, sizeof text), Delivery::kOk);
  EXPECT_EQ(post(6, loop.handle, nullptr, 0), Delivery::kOk);
  const Message first = loop.pop();
  EXPECT_EQ(first.kind, MessageKind::kPost);
  EXPECT_EQ(first.from, 5);
  EXPECT_EQ(first.length, sizeof text);
  EXPECT_EQ(std::memcmp(first.bytes, text, sizeof text), 0);
  const Message second = loop.pop();
  EXPECT_EQ(second.from, 6);
  EXPECT_EQ(second.length, 0);
  free_message(first);
  free_message(second);
}

TEST(waking_wakes_a_sleeper_and_nobody_else) {
  Place loop(8);
  const std::uint64_t saved = loop.inbox->counters().wakes_saved.load();
  wake(loop.handle);
  EXPECT_EQ(loop.inbox->counters().wakes_saved.load(), saved + 1);
  EXPECT_TRUE(loop.inbox->prepare_to_sleep());
  wake(loop.handle);
  wake(loop.handle);
  EXPECT_EQ(loop.inbox->counters().wakes_sent.load(), 1);
  wake(kNoInbox);
  const InboxHandle handle = loop.handle;
  loop.release();
  wake(handle);
}

TEST(a_released_loop_returns_what_waits_and_resets_what_it_owns) {
  Place coordinator(8);
  Place loop(8, coordinator.handle);
  const InboxHandle loop_handle = loop.handle;
  TcpPair waiting, owned;
  const ConnectionId waits = adopt(waiting.near, coordinator.handle);
  const ConnectionId owns = adopt(owned.near, coordinator.handle);
  EXPECT_EQ(hand_off(owns, coordinator.handle, loop_handle), Delivery::kOk);
  EXPECT_TRUE(Ledger::take(loop.pop().id, loop_handle));
  EXPECT_EQ(post(coordinator.handle, loop_handle, "x", 1), Delivery::kOk);
  EXPECT_EQ(hand_off(waits, coordinator.handle, loop_handle), Delivery::kOk);
  EXPECT_TRUE(coordinator.inbox->prepare_to_sleep());

  release_loop(loop.inbox, true);
  EXPECT_EQ(loop.inbox->counters().closed.load(), 1);
  EXPECT_EQ(loop.inbox->counters().lost.load(), 1);
  // A second call finds nothing to do, and tells nobody twice.
  release_loop(loop.inbox, true);

  EXPECT_EQ(coordinator.inbox->counters().wakes_sent.load(), 1);
  coordinator.inbox->awake();
  const Message returned = coordinator.pop();
  EXPECT_EQ(returned.kind, MessageKind::kReturned);
  EXPECT_EQ(returned.from, loop_handle);
  EXPECT_EQ(returned.id, waits);
  const Message released = coordinator.pop();
  EXPECT_EQ(released.kind, MessageKind::kReleased);
  EXPECT_EQ(released.from, loop_handle);
  EXPECT_TRUE(coordinator.is_empty());
  EXPECT_EQ(read_some(owned.far), -ECONNRESET);
  EXPECT_TRUE(Ledger::take(waits, coordinator.handle));
  EXPECT_TRUE(Ledger::close(waits, coordinator.handle, false));
  EXPECT_EQ(read_some(waiting.far), 0);
}

TEST(what_cannot_be_returned_is_closed_and_counted_as_lost) {
  enum class Case { kNoRedistribution, kParentGone, kParentFull, kNoParent };
  for (const Case one :
       {Case::kNoRedistribution, Case::kParentGone, Case::kParentFull, Case::kNoParent}) {
    Place coordinator(2);
    const InboxHandle parent = one == Case::kNoParent ? kNoInbox : coordinator.handle;
    Place loop(8, parent);
    TcpPair pair;
    const ConnectionId id = adopt(pair.near, coordinator.handle);
    EXPECT_EQ(hand_off(id, coordinator.handle, loop.handle), Delivery::kOk);
    if (one == Case::kParentGone) coordinator.release();
    if (one == Case::kParentFull)
      while (post(loop.handle, parent, "x", 1) == Delivery::kOk) {
      }
    release_loop(loop.inbox, one != Case::kNoRedistribution);
    EXPECT_EQ(loop.inbox->counters().lost.load(), 1);
    EXPECT_EQ(Ledger::fd(id), -1);
    EXPECT_EQ(read_some(pair.far), -ECONNRESET);
    if (one == Case::kNoRedistribution) EXPECT_EQ(coordinator.pop().kind, MessageKind::kReleased);
  }
  EXPECT_EQ(Ledger::count(), 0);
}

TEST(a_loop_that_never_came_leaves_no_descriptor_open) {
  const int fds = count_fds();
  {
    const Place coordinator(8);
    InboxHandle handle = kNoInbox;
    EXPECT_EQ(Inbox::create(8, Waker::Kind::kPipe, coordinator.handle, &handle), 0);
    TcpPair pair;
    const ConnectionId id = adopt(pair.near, coordinator.handle);
    EXPECT_EQ(hand_off(id, coordinator.handle, handle), Delivery::kOk);
    EXPECT_EQ(post(coordinator.handle, handle, "x", 1), Delivery::kOk);
    Inbox::release_creator(handle);
    EXPECT_EQ(read_some(pair.far), -ECONNRESET);
    EXPECT_EQ(hand_off(id, coordinator.handle, handle), Delivery::kGone);
  }
  EXPECT_EQ(Ledger::count(), 0);
  EXPECT_EQ(count_fds(), fds);
}

TEST(one_of_two_racing_handoffs_wins) {
  Place coordinator(4);
  Place first(4);
  Place second(4);
  Rounds rounds(800);
  while (rounds.next()) {
    Pair pair;
    const ConnectionId id = adopt(pair.near, coordinator.handle);
    Delivery to_first{};
    Delivery to_second{};
    const auto run_first = [&] { to_first = hand_off(id, coordinator.handle, first.handle); };
    const auto run_second = [&] { to_second = hand_off(id, coordinator.handle, second.handle); };
    if (rounds.round() % 2 == 0)
      race(run_first, run_second);
    else
      race(run_second, run_first);
    const bool first_won = to_first == Delivery::kOk;
    if (!EXPECT_EQ(first_won ? to_second : to_first, Delivery::kNotOwner)) return;
    Place& winner = first_won ? first : second;
    if (!EXPECT_EQ(winner.pop().id, id)) return;
    EXPECT_TRUE(first.is_empty() && second.is_empty());
    EXPECT_TRUE(Ledger::take(id, winner.handle));
    EXPECT_TRUE(Ledger::close(id, winner.handle, false));
    EXPECT_EQ(read_some(pair.far), 0);
  }
}

// ── a whole group ───────────────────────────────────────────────────────────────────────────

namespace {

// A loop as the runtime has it, without Node: it answers each byte and closes after the peer. It
// releases itself when told to stop, in the middle of whatever it is doing.
class Loop {
 public:
  Loop(const BackendType& type, Waker::Kind waker, std::uint32_t capacity, InboxHandle parent)
      : type_(type) {
    EXPECT_EQ(Inbox::create(capacity, waker, parent, &handle), 0);
    inbox_ = Inbox::attach(handle);
    thread_ = std::thread([this, waker] { run(waker); });
  }
  // Ends the thread and gives up the inbox.
  void join() {
    if (!thread_.joinable()) return;
    stop.store(true);
    wake(handle);
    thread_.join();
    Inbox::release_creator(handle);
  }
  ~Loop() { join(); }

  InboxHandle handle = kNoInbox;
  std::atomic<bool> stop{false};
  std::atomic<int> taken{0};   // connections that arrived
  std::atomic<int> served{0};  // … and were closed after their peer had closed
  std::uint64_t lost = 0;      // … or were reset by the release; read it after join()

 private:
  struct Connection {
    ConnectionId id;
    int fd;
  };

  void run(Waker::Kind waker) {
    Rig rig(type_, make_backend(type_), waker);
    EXPECT_EQ(rig.base->attach(inbox_), 0);
    while (!stop.load()) {
      // A stop may come between the question and the sleep: its wake-up is then lost on purpose,
      // so the wait is bounded. Messages are never waited for in this way.
      rig.base->end_of_pass();
      const Micros timeout = rig.base->next_timeout();
      rig.poll(timeout < 0 || timeout > 5'000 ? 5'000 : timeout);
      for (int i = 0; i < rig.page->messages; ++i) arrive(rig, rig.page->inbox[i]);
      for (const EventId id : rig.order()) answer(rig, id);
    }
    rig.base->detach();
    release_loop(inbox_, true);
    lost = inbox_->counters().lost.load();
    inbox_->unref();
  }

  void arrive(Rig& rig, const Page::MessageRecord& record) {
    const auto fd = static_cast<int>(record.fd);
    const EventId event = rig.add(fd, kRead | kPersist);
    connections_[event] = {static_cast<ConnectionId>(record.id), fd};
    taken.fetch_add(1);
  }

  void answer(Rig& rig, EventId event) {
    const Connection connection = connections_[event];
    char byte = 0;
    const long count = sys::recv(connection.fd, &byte, 1);
    if (count == -EAGAIN) return;
    if (count == 1) {
      EXPECT_EQ(sys::write(connection.fd, &byte, 1), 1);
      return;
    }
    EXPECT_EQ(rig.base->destroy(event), 0);
    rig.base->forget(connection.fd);
    connections_.erase(event);
    EXPECT_TRUE(Ledger::close(connection.id, handle, false));
    served.fetch_add(1);
  }

  const BackendType& type_;
  Inbox* inbox_ = nullptr;
  std::map<EventId, Connection> connections_;
  std::thread thread_;
};

// Deals out connections among loops, and takes back what comes from one that is gone.
struct Group {
  Place coordinator{1'024};
  std::vector<std::unique_ptr<Loop>> loops;
  std::size_t turn = 0;
  std::uint64_t refused = 0;
  int returned = 0;
  int released = 0;

  Group(std::size_t count, std::uint32_t capacity) {
    const std::span<const BackendType> types = backend_types();
    for (std::size_t i = 0; i < count; ++i) {
      const Waker::Kind waker = waker_kinds()[i % waker_kinds().size()];
      loops.push_back(
          std::make_unique<Loop>(types[i % types.size()], waker, capacity, coordinator.handle));
    }
  }
  // Each loop gets its chance; a full one is asked again, a gone one is passed over.
  void deal(ConnectionId id) {
    for (;;) {
      std::size_t gone = 0;
      for (std::size_t i = 0; i < loops.size(); ++i) {
        const InboxHandle to = loops[turn++ % loops.size()]->handle;
        const Delivery delivery = hand_off(id, coordinator.handle, to);
        EXPECT_TRUE(delivery != Delivery::kNotOwner);
        if (delivery == Delivery::kOk) return wake(to);
        gone += delivery == Delivery::kGone;
      }
      if (gone == loops.size()) {
        EXPECT_TRUE(Ledger::close(id, coordinator.handle, true));
        ++refused;
        return;
      }
      sched_yield();
    }
  }
  void receive() {
    Message message{};
    while (coordinator.inbox->pop(&message)) {
      released += message.kind == MessageKind::kReleased;
      if (message.kind != MessageKind::kReturned) continue;
      ++returned;
      EXPECT_TRUE(Ledger::take(message.id, coordinator.handle));
      deal(message.id);
    }
  }
};

// The other end of a connection: it sends one byte, then its end, and reads what comes.
struct Client {
  Fd fd;
  bool echoed = false;
  bool over = false;
  long error = 0;

  void read() {
    char bytes[4];
    const long count = sys::recv(fd, bytes, sizeof bytes);
    if (count > 0) {
      echoed = true;
      EXPECT_EQ(sys::shutdown_write(fd), 0);
    }
    if (count == -EAGAIN) return;
    over = count <= 0;
    if (count < 0) error = count;
  }
};

}  // namespace

TEST(a_loop_released_in_the_middle_leaves_every_client_served_or_told) {
  constexpr int kConnections = 600;
  const int fds = count_fds();
  {
    // Small inboxes, so that the coordinator meets full ones too.
    Group group(4, 16);
    std::deque<Client> clients;
    for (int i = 0; i < kConnections; ++i) {
      Pair pair;
      send_byte(pair.far);
      clients.push_back({std::move(pair.far)});
      group.deal(adopt(pair.near, group.coordinator.handle));
      if (i == kConnections / 2) {
        EXPECT_TRUE(await([&] { return group.loops[1]->taken.load() > 0; }));
        group.loops[1]->stop.store(true);
        wake(group.loops[1]->handle);
      }
      group.receive();
    }
    EXPECT_TRUE(await([&] {
      group.receive();
      bool all = true;
      for (Client& client : clients) {
        if (!client.over) client.read();
        all = all && client.over;
      }
      return all;
    }));
    for (const std::unique_ptr<Loop>& loop : group.loops) loop->join();
    group.receive();
    EXPECT_EQ(group.released, group.loops.size());
    EXPECT_EQ(group.refused, 0);

    int echoed = 0;
    for (const Client& client : clients) {
      echoed += client.echoed;
      // A unix socket that is closed with a byte unread tells it as a reset.
      EXPECT_TRUE(client.error == 0 || client.error == -ECONNRESET);
    }
    std::uint64_t served = 0;
    std::uint64_t lost = 0;
    for (const std::unique_ptr<Loop>& loop : group.loops) {
      served += static_cast<std::uint64_t>(loop->served.load());
      lost += loop->lost;
    }
    EXPECT_EQ(served + lost, kConnections);
    EXPECT_TRUE(static_cast<std::uint64_t>(echoed) >= served);
    std::printf("(%llu served, %d returned) ", static_cast<unsigned long long>(served),
                group.returned);
    EXPECT_EQ(Ledger::count(), 0);
  }
  EXPECT_EQ(count_fds(), fds);
}

TEST(a_group_released_altogether_closes_everything) {
  const int fds = count_fds();
  for (int round = 0; round < 10; ++round) {
    Group group(2, 64);
    std::deque<Client> clients;
    for (int i = 0; i < 60; ++i) {
      Pair pair;
      send_byte(pair.far);
      clients.push_back({std::move(pair.far)});
      group.deal(adopt(pair.near, group.coordinator.handle));
    }
    // The loops go while their inboxes are half full, and find the coordinator gone or going.
    race([&] { group.loops[0]->join(); },
         [&] {
           group.coordinator.release(false);
           group.loops[1]->join();
         });
    EXPECT_EQ(Ledger::count(), 0);
    EXPECT_TRUE(await([&] {
      bool all = true;
      for (Client& client : clients) {
        if (!client.over) client.read();
        all = all && client.over;
      }
      return all;
    }));
  }
  EXPECT_EQ(count_fds(), fds);
}

}  // namespace multiloop::test
