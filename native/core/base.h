// The event base: what waits for descriptors and timers and reports them. It belongs to one thread.
//
// One turn, as libevent's (event.c, event_base_loop):
//   next_timeout() ─► poll(): apply changes ─► wait ─► clock ─► ready events ─► expired timers
//   ─► messages.   Then whoever drives the base delivers what poll() wrote to the page.
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
#include "clock.h"
#include "inbox.h"
#include "mask.h"
#include "timer_heap.h"

namespace multiloop {

using EventId = std::uint32_t;

constexpr std::uint32_t kEventSlotBits = 21;
constexpr std::uint32_t kEventsMax = 1U << kEventSlotBits;
constexpr std::uint32_t kRingRecords = 4'096;
constexpr std::uint32_t kMessagesPerTurn = 64;
constexpr std::size_t kReadyPerWait = 1'024;

// Shared with TypeScript (src/event/page.ts mirrors the layout; a test compares the two).
struct Page {
  struct Record {
    std::uint32_t event;
    std::uint32_t what;
  };
  struct MessageRecord {
    double kind;
    double from;
    double id;
    double fd;
  };
  std::int32_t active;  // TypeScript: callbacks that wait for the next pass
  std::int32_t spare;
  std::int32_t no_exit;   // TypeScript: NO_EXIT_ON_EMPTY is in force
  std::int32_t nonblock;  // TypeScript: never block, and call the dispatcher after every wait
  std::int32_t reason;    // why the dispatcher is called, one of Reason
  std::int32_t ready;     // records in `ring`
  std::int32_t messages;  // records in `inbox`
  std::int32_t error;     // -errno of a wait that failed
  double now;             // microseconds, monotonic: the turn's cached time
  double idle;            // microseconds spent waiting since the base was made
  double turns;
  double reserved;
  Record ring[kRingRecords];
  MessageRecord inbox[kMessagesPerTurn];
};

// What one poll() found, as bits.
constexpr std::uint32_t kFoundWork = 1;      // records or messages are on the page
constexpr std::uint32_t kFoundExternal = 2;  // the foreign descriptor (libuv's) is ready
constexpr std::uint32_t kFoundError = 4;     // the wait failed; `error` says how

struct EventCounts {
  std::uint32_t added;  // descriptors and timers, an event with both counting twice, as libevent
  std::uint32_t refd;   // added events that keep the process alive
};

class Base {
 public:
  Base(const BackendType& type, std::unique_ptr<Backend> backend, Page* page);
  ~Base();
  Base(const Base&) = delete;
  Base& operator=(const Base&) = delete;

  const BackendType& type() const { return type_; }
  int pollable_fd() const { return backend_->pollable_fd(); }

  // Events. `create` answers -EMFILE past kEventsMax. `timeout` kForever leaves a running timer
  // alone. The functions that take an EventId answer -ESTALE for one that was freed.
  [[nodiscard]] int create(int fd, Mask mask, EventId* out);
  [[nodiscard]] int add(EventId id, Micros timeout);
  int remove(EventId id);
  int remove_timer(EventId id);
  int destroy(EventId id);
  int set_ref(EventId id, bool ref);
  // The added part of the mask, with kTimeout while a timer runs; `remaining` of it if it does.
  [[nodiscard]] int pending(EventId id, Micros* remaining);
  // Persistent timers of an event that was activated by hand start again from now.
  int rearm(EventId id);
  // Takes `fd` out of the kernel's set at once: it is about to belong to somebody else.
  void forget(int fd);

  // The inbox whose messages this base receives, or null. The base does not own it.
  [[nodiscard]] int attach(Inbox* inbox);
  void detach();
  Inbox* inbox() const { return inbox_; }
  // The bytes of message `index` of the page, from std::malloc and now the caller's; null when
  // they were taken already. Valid until the next poll().
  struct Post {
    std::byte* bytes;
    std::size_t length;
  };
  Post take_post(std::uint32_t index);
  // Waits for one more descriptor that is nobody's event; -1 takes it back.
  [[nodiscard]] int watch_external(int fd);

  // How long poll() may block: 0 when there is work, kForever when only a descriptor can wake it.
  Micros next_timeout();
  std::uint32_t poll(Micros timeout);
  // Between passes the cached time is stale and every question reads the clock.
  void end_of_pass() { time_cached_ = false; }
  Micros now();
  void update_time();

  bool empty() const { return counts_.added == 0 && page_->active == 0 && inbox_ == nullptr; }
  bool alive() const;
  void ref_inbox(bool ref) { inbox_refd_ = ref; }
  const EventCounts& counts() const { return counts_; }
  // Walks every structure and stops the process at the first contradiction.
  void check() const;

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  enum class Special : std::uint8_t { kNo, kWaker, kExternal };

  struct Event {
    int fd = -1;
    std::uint32_t generation = 0;
    std::uint32_t next = kNone;  // the other events on this descriptor
    std::uint32_t previous = kNone;
    Micros interval = kForever;
    Mask mask = 0;
    bool used = false;
    bool inserted = false;
    bool refd = true;
  };
  struct Descriptor {
    std::uint32_t first = kNone;
    std::uint32_t last_removed = kNone;
    Mask kernel = 0;  // what the backend was told
    bool dirty = false;
    Special special = Special::kNo;
  };

  Event* find(EventId id);
  EventId id_of(std::uint32_t slot) const;
  bool added(std::uint32_t slot) const;
  void count(std::uint32_t slot, bool was_added, std::uint32_t parts_before);
  std::uint32_t parts(std::uint32_t slot) const;

  int insert(std::uint32_t slot);
  void take_out(std::uint32_t slot);
  void unlink(std::uint32_t slot);
  Descriptor& descriptor(int fd);
  Mask wanted(const Descriptor& entry) const;
  void touch(int fd);
  void apply_changes();
  int watch(int fd, Special special, Mask mask);
  void unwatch(int fd);

  void drain_ready(std::uint32_t* found);
  bool fits(int fd);
  void activate_descriptor(const Ready& ready, std::uint32_t* found);
  bool tell(std::uint32_t first, Mask ready);
  void narrow_ready(int fd);
  void expire_timers();
  void drain_inbox();
  void drop_posts();
  void fire(std::uint32_t slot, Mask what);

  const BackendType& type_;
  const std::unique_ptr<Backend> backend_;
  Page* const page_;
  std::vector<Event> events_;
  std::vector<std::uint32_t> free_;
  std::vector<std::uint32_t> reaped_;  // freed in this turn; usable again in the next
  std::vector<Descriptor> descriptors_;
  std::vector<int> dirty_;
  TimerHeap timers_;
  EventCounts counts_{0, 0};
  Inbox* inbox_ = nullptr;
  Post posts_[kMessagesPerTurn] = {};
  bool inbox_refd_ = true;
  int external_ = -1;
  Micros now_ = 0;
  bool time_cached_ = false;
  // What the kernel reported and the ring had no room for yet.
  Ready ready_[kReadyPerWait];
  std::size_t ready_at_ = 0;
  std::size_t ready_count_ = 0;
  bool ready_left_ = false;  // it waits for the next turn, and callbacks run meanwhile
};

}  // namespace multiloop
