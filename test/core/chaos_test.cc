// Loops that die at random while connections move between them, without Node: whatever happens,
// every connection ends with exactly one owner and every descriptor is closed, once.
#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "../../native/core/handoff.h"
#include "check.h"
#include "fixture.h"
#include "place.h"

namespace multiloop::test {

namespace {

constexpr std::size_t kLoops = 3;

// The inboxes of the loops that live now, as the directory of the runtime has them.
using Directory = std::atomic<InboxHandle>[kLoops];

// A loop's thread: it takes what comes, keeps it for a while, moves it on or closes it, sleeps when
// there is nothing, and dies when it has done so much.
class MortalLoop {
 public:
  MortalLoop(std::size_t number, Directory* directory, InboxHandle parent, std::uint32_t seed,
             std::vector<std::uint8_t>* boundaries)
      : directory_(*directory), number_(number), state_(seed | 1), boundaries_(*boundaries) {
    EXPECT_EQ(Inbox::create(8, waker_kinds()[seed % waker_kinds().size()], parent, &handle), 0);
    inbox_ = Inbox::attach(handle);
    inbox_->watch_boundaries(boundaries_.data(), boundaries_.size());
    thread_ = std::thread([this] { run(); });
  }
  ~MortalLoop() {
    thread_.join();
    const InboxCounters& counters = inbox_->counters();
    lost += counters.lost.load();
    served += counters.closed.load() - counters.lost.load();
    inbox_->unref();
    Inbox::release_creator(handle);
  }
  MortalLoop(const MortalLoop&) = delete;
  MortalLoop& operator=(const MortalLoop&) = delete;

  bool is_dead() const { return dead_.load(); }
  void stop() {
    stopping_.store(true);
    wake(handle);
  }

  InboxHandle handle = kNoInbox;
  static inline std::uint64_t lost = 0;
  static inline std::uint64_t served = 0;

 private:
  std::uint32_t below(std::uint32_t limit) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    return state_ % limit;
  }

  void run() {
    for (std::uint32_t left = 20 + below(200); left > 0 && !stopping_.load(); --left) {
      Message message{};
      if (inbox_->pop(&message)) {
        take(message);
      } else if (!held_.empty() && below(4) != 0) {
        use(below(static_cast<std::uint32_t>(held_.size())));
      } else {
        sleep();
      }
    }
    release_loop(inbox_, true);
    dead_.store(true);
  }

  void take(const Message& message) {
    if (message.id != kNoConnection) {
      EXPECT_TRUE(Ledger::take(message.id, handle));
      inbox_->counters().opened.fetch_add(1, std::memory_order_relaxed);
      if (message.kind == MessageKind::kRescued) inbox_->arrives_at_boundary(fd_of(message.id));
      held_.push_back(message.id);
    }
    free_message(message);
  }

  void use(std::size_t at) {
    const ConnectionId id = held_[at];
    const auto number = static_cast<std::size_t>(fd_of(id));
    const std::uint32_t what = below(8);
    if (what == 0) {
      boundaries_[number] = 0;
      EXPECT_TRUE(Ledger::close(id, handle, false));
      inbox_->counters().closed.fetch_add(1, std::memory_order_relaxed);
    } else if (what < 4) {
      boundaries_[number] = static_cast<std::uint8_t>(below(2));
      EXPECT_TRUE(Ledger::set_checkpoint(id, handle, "kept", 4));
      return;
    } else {
      const std::uint8_t before = boundaries_[number];
      boundaries_[number] = 0;
      const InboxHandle to = directory_[(number_ + 1 + below(kLoops - 1)) % kLoops].load();
      const Delivery delivery = move(id, handle, to, "state", 5);
      EXPECT_TRUE(delivery != Delivery::kNotOwner);
      if (delivery != Delivery::kOk) {
        boundaries_[number] = before;
        return;
      }
    }
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(at));
  }

  // Bounded, since others may be busy with themselves; a wake-up that is lost shows in the model.
  void sleep() {
    if (!inbox_->prepare_to_sleep()) return;
    const Micros limit = monotonic_now() + 200;
    while (inbox_->empty() && !stopping_.load() && monotonic_now() < limit) sched_yield();
    inbox_->awake();
    inbox_->waker().drain();
  }

  static int fd_of(ConnectionId id) { return Ledger::fd_of(id); }

  Directory& directory_;
  const std::size_t number_;
  std::uint32_t state_;
  std::vector<std::uint8_t>& boundaries_;
  Inbox* inbox_ = nullptr;
  std::vector<ConnectionId> held_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> dead_{false};
  std::thread thread_;
};

}  // namespace

TEST(loops_that_die_while_connections_move_lose_and_repeat_no_descriptor) {
  const int fds = count_fds();
  Random random;
  constexpr int kConnections = 400;
  MortalLoop::lost = MortalLoop::served = 0;
  std::uint64_t closed = 0;
  int rescued = 0;
  int returned = 0;
  int deaths = 0;
  std::vector<Fd> clients;
  {
    Place coordinator(1'024);
    Directory directory = {};
    // Memory that outlives the threads, one for each, as the coordinator keeps it.
    std::deque<std::vector<std::uint8_t>> boundaries;
    std::unique_ptr<MortalLoop> loops[kLoops];
    const auto start = [&](std::size_t i) {
      boundaries.emplace_back(4'096);
      loops[i] = std::make_unique<MortalLoop>(i, &directory, coordinator.handle,
                                              random.below(1 << 30), &boundaries.back());
      directory[i].store(loops[i]->handle);
    };
    for (std::size_t i = 0; i < kLoops; ++i) start(i);
    std::deque<Message> waiting;
    const auto deal = [&](const Message& message) {
      const InboxHandle to = directory[random.below(kLoops)].load();
      const Delivery delivery =
          message.kind == MessageKind::kHandoff
              ? hand_off(message.id, coordinator.handle, to)
              : move(message.id, coordinator.handle, to, message.bytes, message.length,
                     message.kind == MessageKind::kRescued ? message.kind : MessageKind::kMove);
      EXPECT_TRUE(delivery != Delivery::kNotOwner);
      if (delivery != Delivery::kOk) return false;
      wake(to);
      free_message(message);
      return true;
    };
    const auto receive = [&] {
      Message message{};
      while (coordinator.inbox->pop(&message)) {
        if (message.kind == MessageKind::kReleased) continue;
        rescued += message.kind == MessageKind::kRescued;
        returned += message.kind == MessageKind::kReturned;
        EXPECT_TRUE(Ledger::take(message.id, coordinator.handle));
        waiting.push_back(message);
      }
      for (std::size_t left = waiting.size(); left > 0; --left) {
        if (!deal(waiting.front())) waiting.push_back(waiting.front());
        waiting.pop_front();
      }
    };
    const auto replace_dead = [&] {
      for (std::size_t i = 0; i < kLoops; ++i) {
        if (!loops[i]->is_dead()) continue;
        ++deaths;
        loops[i].reset();
        start(i);
      }
    };
    for (int i = 0; i < kConnections; ++i) {
      Pair pair;
      clients.push_back(std::move(pair.far));
      const ConnectionId id = adopt(pair.near, coordinator.handle);
      waiting.push_back({MessageKind::kHandoff, coordinator.handle, id, nullptr, 0});
      receive();
      replace_dead();
    }
    // Until so many have come to their end.
    EXPECT_TRUE(await([&] {
      receive();
      replace_dead();
      return Ledger::count() < kConnections / 8;
    }));
    for (const auto& loop : loops) loop->stop();
    for (auto& loop : loops) loop.reset();
    Message message{};
    while (coordinator.inbox->pop(&message)) {
      if (message.id != kNoConnection) {
        EXPECT_TRUE(Ledger::take(message.id, coordinator.handle));
        waiting.push_back(message);
      } else {
        free_message(message);
      }
    }
    for (const Message& one : waiting) {
      EXPECT_TRUE(Ledger::close(one.id, coordinator.handle, true));
      free_message(one);
      ++closed;
    }
    // Every one was served, lost with its loop, or is the coordinator's in the end.
    EXPECT_EQ(MortalLoop::served + MortalLoop::lost + closed, kConnections);
    EXPECT_EQ(Ledger::count(), 0);
  }
  for (const Fd& client : clients) {
    const long end = read_some(client);
    EXPECT_TRUE(end == 0 || end == -ECONNRESET);
  }
  clients.clear();
  EXPECT_EQ(count_fds(), fds);
  std::printf("(%d deaths, %d rescued, %d returned) ", deaths, rescued, returned);
}

}  // namespace multiloop::test
