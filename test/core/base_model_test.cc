// A base against a model of it, over every backend × waker: descriptors that become ready and whose
// numbers are used again, signals, timers of the heap and of queues, in random order. The model
// reads no clock; it computes what must come out from the times that the base has read.
#include <algorithm>
#include <csignal>
#include <map>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

constexpr int kTurns = 1'500;
constexpr std::size_t kEventsAtOnce = 40;
constexpr std::size_t kGhostsAtOnce = 16;  // both of their ends
constexpr Micros kLong = 3'600'000'000;
constexpr int kSignals[] = {SIGHUP, SIGUSR1, SIGUSR2};
// About as long as a few turns.
constexpr Micros kDurations[] = {0, 40, 150, 600, kLong};

struct Known {
  std::size_t place = 0;  // of the socket, if it has one
  int signal = 0;
  Mask mask = 0;
  bool persists = false;
  bool inserted = false;
  bool holds = false;  // it has fired and may come back, so its signal is kept
  Micros deadline = kForever;
  Micros interval = kForever;
};

struct Told {
  int what = 0;
  std::uint32_t calls = 0;
  bool operator==(const Told&) const = default;
};

class Model {
 public:
  explicit Model(Rig& rig) : rig_(rig), pairs_(6), has_data_(pairs_.size(), false) {
    for (const Micros duration : kDurations)
      commons_.push_back(rig_.base->common_timeout(duration));
  }

  // Whether the next turn tells what it should, and leaves what it should.
  bool turn() {
    for (std::uint32_t steps = random_.below(8); steps > 0; --steps) step();
    return poll() && agrees();
  }

 private:
  using At = std::map<EventId, Known>::iterator;

  void step() {
    switch (random_.below(16)) {
      case 0:
        return fill(random_.below(pairs_.size()));
      case 1:
        return empty(random_.below(pairs_.size()));
      case 2:
        return raise(kSignals[random_.below(std::size(kSignals))]);
      case 3:
      case 4:
      case 5:
        return create();
      case 6:
        if (random_.below(4) == 0) replace(random_.below(pairs_.size()));
        return;
      case 7:
        if (random_.below(4) != 0) return;
        rig_.base->apply_changes();
        return drop_idle();
      default:
        if (!events_.empty()) touch(std::next(events_.begin(), random_.below(events_.size())));
    }
  }

  // ── what happens outside ──────────────────────────────────────────────────────────────────

  void fill(std::size_t place) {
    if (!has_data_[place]) send_byte(pairs_[place].far);
    has_data_[place] = true;
  }

  void empty(std::size_t place) {
    drain(pairs_[place].near);
    has_data_[place] = false;
  }

  void raise(int signal) {
    EXPECT_EQ(rig_.signals.raise(signal), caught_.count(signal));
    if (caught_.count(signal) > 0) ++raised_[signal];
  }

  // The socket is replaced by another with the same number, in the middle of a turn. Its events are
  // gone first, as the base demands of whoever closes; sometimes the old one lives on elsewhere.
  void replace(std::size_t place) {
    Mask wanted = 0;
    for (At at = events_.begin(); at != events_.end();) {
      const At one = at++;
      if (one->second.signal == 0 && (one->second.mask & kIoMask) && one->second.place == place) {
        if (one->second.inserted) wanted |= one->second.mask;
        destroy(one);
      }
    }
    const int number = pairs_[place].near;
    if (random_.below(2) == 0) {
      if (ghosts_.size() >= kGhostsAtOnce) ghosts_.erase(ghosts_.begin(), ghosts_.begin() + 2);
      ghosts_.emplace_back(sys::dup(number));
      ghosts_.emplace_back(std::move(pairs_[place].far));
    }
    Pair fresh;
    EXPECT_EQ(dup2(fresh.near, number), number);
    pairs_[place].far = std::move(fresh.far);
    has_data_[place] = random_.below(2) == 0;
    if (has_data_[place]) send_byte(pairs_[place].far);
    if (wanted == 0 || random_.below(2) == 0) return;
    // The next connection comes in the same turn, and waits for the same.
    Known known;
    known.place = place;
    known.mask = wanted;
    const At at = create(number, known);
    add(at->first, at->second);
  }

  // ── what the owner of events does ─────────────────────────────────────────────────────────

  At create(int fd, Known known) {
    known.persists = random_.below(2) == 0;
    const EventId id = rig_.create(fd, known.mask | (known.persists ? kPersist : Mask{0}));
    return events_.insert_or_assign(id, known).first;
  }

  void create() {
    if (events_.size() >= kEventsAtOnce) return;
    Known known;
    int fd = -1;
    switch (random_.below(4)) {
      case 0:
        fd = known.signal = kSignals[random_.below(std::size(kSignals))];
        known.mask = kSignal;
        break;
      case 1:
        break;
      default:
        known.place = random_.below(pairs_.size());
        known.mask = static_cast<Mask>((1 + random_.below(3)) << 1);
        fd = pairs_[known.place].near;
    }
    create(fd, known);
  }

  void touch(At at) {
    auto& [id, known] = *at;
    switch (random_.below(8)) {
      case 0:
        EXPECT_EQ(rig_.base->remove(id), 0);
        return take_out(known, true);
      case 1:
        return destroy(at);
      case 2:
        EXPECT_EQ(rig_.base->remove_timer(id), 0);
        known.deadline = known.interval = kForever;
        return;
      case 3:
        EXPECT_EQ(rig_.base->rearm(id), 0);
        if (known.deadline != kForever && known.interval != kForever)
          known.deadline = rig_.now() + known.interval;
        return;
      case 4:
        EXPECT_EQ(rig_.base->set_ref(id, random_.below(2) == 0), 0);
        return;
      default:
        add(id, known);
    }
  }

  void add(EventId id, Known& known) {
    Micros timeout = kForever;
    CommonId common = kNoCommon;
    if (random_.below(2) == 0) {
      const std::size_t which = random_.below(std::size(kDurations));
      timeout = kDurations[which];
      if (random_.below(2) == 0) common = commons_[which];
    }
    EXPECT_EQ(rig_.base->add(id, timeout, common), 0);
    known.inserted = known.mask != 0;
    if (known.signal != 0) caught_[known.signal] = true;
    if (timeout == kForever) return;
    // Whether cached or read by add() itself, it is on the page.
    known.deadline = rig_.now() + timeout;
    if (known.persists) known.interval = timeout;
  }

  void destroy(At at) {
    EXPECT_EQ(rig_.base->destroy(at->first), 0);
    take_out(at->second, true);
    events_.erase(at);
  }

  // ── what the base does ────────────────────────────────────────────────────────────────────

  bool poll() {
    drop_idle();
    if (random_.below(4) == 0) rig_.base->end_of_pass();
    rig_.poll();
    const Micros now = rig_.now();
    std::map<EventId, Told> expected;
    for (auto& [id, known] : events_) {
      const Told told = fire(known, now);
      if (told.what != 0) expected[id] = told;
    }
    raised_.clear();
    std::map<EventId, Told> told;
    for (const EventId id : rig_.order()) {
      told[id] = {rig_.told(id), rig_.calls(id)};
      // Its callback would begin now, and may add it again.
      const At at = events_.find(id);
      if (at == events_.end() || at->second.signal == 0 || at->second.persists) continue;
      EXPECT_EQ(rig_.base->begin_signal(id), 0);
    }
    return EXPECT_TRUE(told == expected) && EXPECT_EQ(rig_.page->ready, told.size());
  }

  void take_out(Known& known, bool by_hand) {
    const bool was_inserted = std::exchange(known.inserted, false);
    known.deadline = known.interval = kForever;
    if (known.signal == 0) return;
    const bool had = was_inserted || known.holds;
    known.holds = had && !by_hand;
    if (had && by_hand && !is_used(known.signal)) give_back(known.signal);
  }

  Told fire(Known& known, Micros now) {
    Told told;
    if (known.inserted && known.signal != 0) {
      told.calls = raised_[known.signal];
      told.what = told.calls > 0 ? kSignal : 0;
    } else if (known.inserted) {
      told.what = has_data_[known.place] ? known.mask : known.mask & ~kRead;
    }
    const bool due = known.deadline != kForever && known.deadline <= now;
    if (due) told.what |= kTimeout;
    if (told.what == 0) return told;
    if (!known.persists) {
      take_out(known, false);
    } else if (known.interval != kForever) {
      const Micros next = (due ? known.deadline : now) + known.interval;
      known.deadline = next > now ? next : now + std::max<Micros>(known.interval, 1);
    }
    return told;
  }

  // Signals whose last event has fired and did not come back.
  void drop_idle() {
    for (auto& [id, known] : events_) known.holds = false;
    for (const int signal : kSignals)
      if (caught_.count(signal) > 0 && !is_used(signal)) give_back(signal);
  }

  void give_back(int signal) {
    caught_.erase(signal);
    raised_.erase(signal);
  }

  bool is_used(int signal) const {
    return std::any_of(events_.begin(), events_.end(), [signal](const auto& one) {
      return (one.second.inserted || one.second.holds) && one.second.signal == signal;
    });
  }

  bool agrees() {
    std::uint32_t added = 0;
    Micros first = kForever;
    for (const auto& [id, known] : events_) {
      const bool timed = known.deadline != kForever;
      const int mask = (known.inserted ? known.mask : 0) | (timed ? kTimeout : 0);
      if (!EXPECT_EQ(rig_.pending(id), mask)) return false;
      const Micros left = timed ? known.deadline - rig_.now() : kForever;
      if (!EXPECT_EQ(rig_.remaining(id), left)) return false;
      if (timed && (first == kForever || left < first)) first = left;
      added += (known.inserted ? 1U : 0U) + (timed ? 1U : 0U);
    }
    for (const int signal : kSignals)
      if (!EXPECT_EQ(rig_.signals.catches(signal), caught_.count(signal) > 0)) return false;
    return EXPECT_EQ(rig_.base->counts().added, added) &&
           EXPECT_EQ(rig_.base->next_timeout(), first);
  }

  Rig& rig_;
  Random random_;
  std::vector<Pair> pairs_;
  std::vector<bool> has_data_;
  std::vector<Fd> ghosts_;
  std::vector<CommonId> commons_;  // by index of kDurations
  std::map<EventId, Known> events_;
  std::map<int, bool> caught_;           // signals that the source was asked for
  std::map<int, std::uint32_t> raised_;  // how often, since they were told last
};

}  // namespace

TEST_EACH_BASE(anything_in_any_order_agrees_with_a_model) {
  Model model(rig);
  for (int turn = 0; turn < kTurns; ++turn)
    if (!model.turn()) return;
}

}  // namespace multiloop::test
