// The event base: what waits for descriptors, timers and signals and reports them. It belongs to
// one thread.
//
// One turn, as libevent's (event.c, event_base_loop):
//   next_timeout() ─► poll(): apply changes ─► wait ─► clock ─► ready events ─► signals
//   ─► expired timers ─► messages.   Then whoever drives the base delivers what is on the page.
//
// The base writes {handle, what} records into the page's ring, memory that TypeScript reads
// directly, and calls nobody back. Which events are active, in which order they run and with what
// priority is TypeScript's business alone; the base reads one word of it, `active`, so that it
// does not block while callbacks wait. A handle is a slot and a generation, so a record of an event
// that was freed meanwhile is recognised.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend.h"
#include "change_list.h"
#include "clock.h"
#include "inbox.h"
#include "mask.h"
#include "page.h"
#include "signal_box.h"
#include "timers.h"

namespace multiloop {

using EventId = std::uint32_t;

constexpr std::uint32_t kEventSlotBits = 21;
constexpr std::uint32_t kEventsMax = 1U << kEventSlotBits;
constexpr std::size_t kReadyPerWait = 1'024;
// Records that descriptors may take of one turn. The others are kept for timers and signals, which
// would starve if descriptors filled the ring in every turn.
constexpr std::uint32_t kRingForReady = kRingRecords - kRingRecords / 8;
// Events on one descriptor, or on one signal: all of them are told in one turn.
constexpr std::uint32_t kEventsPerKeyMax = kRingForReady;

// What one poll() found, as bits.
constexpr std::uint32_t kFoundWork = 1;      // records or messages are on the page
constexpr std::uint32_t kFoundExternal = 2;  // the foreign descriptor (libuv's) is ready
constexpr std::uint32_t kFoundError = 4;     // the wait failed; `error` says how

struct EventCounts {
  std::uint32_t added;  // descriptors, signals and timers; an event with two counts twice
  std::uint32_t refd;   // added events that keep the process alive
};

struct BaseOptions {
  Waker::Kind waker = Waker::preferred();  // of its signals
  SignalSource* signals = nullptr;         // without one, signals are refused with -ENOTSUP
};

class Base {
 public:
  Base(const BackendType& type, std::unique_ptr<Backend> backend, Page* page,
       const BaseOptions& options = {});
  ~Base();
  Base(const Base&) = delete;
  Base& operator=(const Base&) = delete;

  const BackendType& type() const { return type_; }
  const Backend& backend() const { return changes_.backend(); }

  // Events. `fd` is a descriptor, a signal's number if the mask has kSignal, or -1. `create`
  // answers -EMFILE past kEventsMax. The functions that take an EventId answer -ESTALE for one
  // that was freed.
  [[nodiscard]] int create(int fd, Mask mask, EventId* out);
  // `timeout` kForever leaves a running timer alone. -EOPNOTSUPP: the backend lacks the feature;
  // -EPROTOTYPE: edge and level triggered on one descriptor; -ENOSPC past kEventsPerKeyMax; else
  // what the kernel says. On failure nothing has changed.
  [[nodiscard]] int add(EventId id, Micros timeout, CommonId common = kNoCommon);
  int remove(EventId id);
  int remove_timer(EventId id);
  int destroy(EventId id);
  int set_ref(EventId id, bool ref);
  // From the next add() on it is one of those of which the kernel wakes one (Backend::wake_alone).
  // It has its descriptor for itself.
  int wake_alone(EventId id);
  // The added part of the mask, with kTimeout while a timer runs; `remaining` of it if it does.
  [[nodiscard]] int pending(EventId id, Micros* remaining);
  // Persistent timers of an event that was activated by hand start again from now.
  int rearm(EventId id);
  // The callback of a one-shot event of a signal is about to run: the event is removed, but it may
  // come back in there, so the signal is kept until the next wait.
  int begin_signal(EventId id);
  // The queue for timers of this duration, or kNoCommon past kCommonsMax.
  CommonId common_timeout(Micros duration) { return timers_.common(duration); }
  Micros common_duration(CommonId common) const { return timers_.duration(common); }
  CommonId commons() const { return timers_.commons(); }
  // Takes `fd` out of the kernel's set at once: it is about to belong to somebody else. Events that
  // were left on it stay, and hear nothing.
  void forget(int fd);
  // Tells the kernel what was changed since the last wait: for a base that may not wait again.
  void apply_changes();
  // Between loops, when what was removed may be closed long before the next wait: where the kernel
  // would keep it open, it is told now.
  void release_files();
  bool has_changes() const { return changes_.has_changes() || changes_.backend().has_unflushed(); }

  // The inbox whose messages this base receives, or null. The base does not own it.
  [[nodiscard]] int attach(Inbox* inbox);
  void detach();
  Inbox* inbox() const { return inbox_; }
  // The bytes of message `index` of the page, from std::malloc and now the caller's; null when
  // they were taken already. Valid until the next poll().
  struct Post {
    std::byte* bytes = nullptr;
    std::size_t length = 0;
    Micros sent = 0;  // of a handoff; taking it ends the time that it was under way
  };
  Post take_post(std::uint32_t index);
  // Waits for one more descriptor that is nobody's event; -1 takes it back.
  [[nodiscard]] int watch_external(int fd);

  // How long poll() may block: 0 when there is work, kForever when only a descriptor can wake it.
  Micros next_timeout();
  std::uint32_t poll(Micros timeout);
  // Timers that are due by the turn's time, once more: check watchers may have set some.
  void expire_timers();
  // Between passes the cached time is stale and every question reads the clock.
  void end_of_pass() { page_->time_cached = 0; }
  Micros now();
  void update_time();

  // Gives every signal back at once: for a base that is closed and cannot be destroyed yet.
  void drop_signals();

  bool empty() const { return counts_.added == 0 && page_->active == 0 && inbox_ == nullptr; }
  bool alive() const;
  void ref_inbox(bool ref) { inbox_refd_ = ref; }
  const EventCounts& counts() const { return counts_; }
  // Walks every structure and stops the process at the first contradiction.
  void check() const;

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  static constexpr Micros kTurnsInMean = 8;
  enum class Special : std::uint8_t { kNo, kWaker, kSignals, kExternal };

  struct Event {
    int fd = -1;
    std::uint32_t generation = 0;
    std::uint32_t next = kNone;  // the other events on this descriptor or signal
    std::uint32_t previous = kNone;
    Micros interval = kForever;
    CommonId common = kNoCommon;  // of the interval
    Mask mask = 0;
    bool used = false;
    bool inserted = false;
    bool refd = true;
    bool alone = false;  // the kernel wakes it or another base
    bool holds = false;  // it has fired and keeps its signal for being added again
  };
  // What events wait for: a descriptor, or a signal.
  struct Key {
    std::uint32_t first = kNone;
    std::uint32_t last_fired = kNone;  // … and was removed by that, the last to leave
    std::uint32_t count = 0;
    std::uint32_t holds = 0;  // events of a signal that hold it
    Special special = Special::kNo;
  };

  Event* find(EventId id);
  std::uint32_t slot_of(const Event* event) const;
  EventId id_of(std::uint32_t slot) const;
  std::uint32_t parts(std::uint32_t slot) const;
  void recount(std::uint32_t slot, std::uint32_t parts_before);
  bool can_wait(const Event& event) const;

  int insert(std::uint32_t slot);
  int insert_descriptor(std::uint32_t slot);
  int insert_signal(std::uint32_t slot);
  void link(Key* key, std::uint32_t slot);
  void take_out(std::uint32_t slot, bool by_hand);
  void unlink(std::uint32_t slot, bool by_hand);
  void leave(std::uint32_t slot);
  Key& key_of(const Event& event);
  Key& descriptor(int fd);
  Mask wanted(const Key& key) const;
  int open_signal_box();
  void hold_signal(std::uint32_t slot);
  void release_signal(std::uint32_t slot);
  void drop_unused(int signal);
  void drop_signal(int signal);
  int watch(int fd, Special special, Mask mask);
  void unwatch(int fd);
  Mask waker_mask(const Waker& waker) const;

  int listen(Waker* waker, Special special);
  void stop_listening(const Waker& waker);

  void note_changes();
  bool told_all() const { return ready_at_ == ready_count_; }
  void wait(Micros timeout, std::uint32_t* found);
  void count_turn(Micros end);
  void report_refused();
  void drain_ready(std::uint32_t* found);
  bool fits(std::uint32_t records, std::uint32_t limit) const;
  void activate_descriptor(const Ready& ready, std::uint32_t* found);
  bool tell(std::uint32_t first, Mask ready);
  void narrow_ready(int fd, Mask mask);
  bool drain_signals();
  void drain_inbox();
  void drop_posts();
  void fire(std::uint32_t slot, Mask what, std::uint32_t calls = 0);

  const BackendType& type_;
  const BaseOptions options_;
  Page* const page_;
  ChangeList changes_;
  std::vector<Event> events_;
  std::vector<std::uint32_t> free_;
  std::vector<std::uint32_t> reaped_;  // freed in this turn; usable again in the next
  std::vector<Key> descriptors_;
  Key signals_[kSignalsMax + 1];
  std::uint64_t caught_ = 0;    // signals that the source was asked for
  std::vector<EventId> begun_;  // events that hold their signal until the next wait, at most
  std::unique_ptr<SignalBox> signal_box_;
  bool signals_left_ = false;  // they had no room in the last turn
  Timers timers_;
  EventCounts counts_{0, 0};
  Inbox* inbox_ = nullptr;
  Post posts_[kMessagesPerTurn] = {};
  bool inbox_refd_ = true;
  int external_ = -1;
  Micros now_ = 0;
  Micros turn_began_ = 0;
  int failure_ = 0;           // of applying changes, for the next wait to report
  std::vector<int> refused_;  // descriptors that the kernel would not watch
  // What the kernel reported and the ring had no room for yet.
  Ready ready_[kReadyPerWait];
  std::size_t ready_at_ = 0;
  std::size_t ready_count_ = 0;
  bool ready_left_ = false;  // it waits for the next turn, and callbacks run meanwhile
};

}  // namespace multiloop
