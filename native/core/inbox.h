// The inbox: a loop's bounded queue of messages from other threads, woken by its waker. Many
// producers, one consumer, no lock.
//
// Inboxes live in a static table, so that a handle may be used by any thread at any time, also
// after the loop is gone: a push then says so. Two references keep one alive: the coordinator's
// that created it and the loop's that attached it.
//
//   push:   pin the table slot -> claim a queue slot -> publish -> full fence -> wake a sleeper
//   sleep:  set `sleeping` -> full fence -> look again -> wait
//   close:  a bit of `tail_`, so that a push lands before the last drain or fails
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "loop_times.h"
#include "waker.h"

namespace multiloop {

// Table slot (10 bits) and generation (20 bits), so that it fits a small integer of JavaScript.
using InboxHandle = std::uint32_t;
constexpr InboxHandle kNoInbox = 0;

constexpr std::uint32_t kInboxesMax = 1'024;
constexpr std::uint32_t kInboxCapacityMax = 1U << 20;

enum class MessageKind : std::uint32_t {
  kHandoff = 1,   // id: a ledger entry that is now the receiver's
  kReturned = 2,  // id, and bytes if it was moving: it comes back, its new loop being gone
  kPost = 3,      // bytes: a value of the application or the runtime
  kReleased = 4,  // from: a loop whose thread is gone and whose descriptors are settled
  kMove = 5,      // id, as kHandoff, with bytes: what the connection brings along
  kRescued = 6,   // id, and its checkpoint: its loop's thread died while it was at a boundary. To
                  // the coordinator, and from there to the loop that adopts it
  kNews = 7,      // there is something to read in the group's TopicLog
};

struct Message {
  MessageKind kind;
  InboxHandle from;
  std::uint64_t id;
  std::byte* bytes;  // from std::malloc; the receiver frees it
  std::size_t length;
  Micros sent = 0;  // of a handoff: when it was pushed
};

void free_message(const Message& message);

// Written with relaxed atomics by whoever does the work, read by anyone at any time.
struct InboxCounters {
  std::atomic<std::uint64_t> pushed{0};
  std::atomic<std::uint64_t> popped{0};
  std::atomic<std::uint64_t> refused_full{0};
  std::atomic<std::uint64_t> wakes_sent{0};
  std::atomic<std::uint64_t> wakes_saved{0};
  std::atomic<std::uint64_t> opened{0};     // ledger entries taken over by this loop
  std::atomic<std::uint64_t> accepted{0};   // … of which accepted by it
  std::atomic<std::uint64_t> shed{0};       // accepted by it and closed at once; not in `opened`
  std::atomic<std::uint64_t> closed{0};     // … and closed by it, or by its release
  std::atomic<std::uint64_t> lost{0};       // … of which by its release
  std::atomic<std::uint64_t> moved_in{0};   // of `opened`: from another loop, alive
  std::atomic<std::uint64_t> rescued{0};    // of `moved_out`: by its release
  std::atomic<std::uint64_t> moved_out{0};  // given to another loop, alive; not in `closed`
  // Of the loop's turns, in microseconds of the monotonic clock. A turn begins when a wait ends.
  std::atomic<std::uint64_t> turns{0};
  std::atomic<std::int64_t> busy_since{0};  // 0: it waits, or has not begun
  std::atomic<std::int64_t> turn_mean{0};   // of the last few turns
  std::atomic<std::int64_t> turn_longest{0};
  std::atomic<Micros> attached{0};  // when the loop came; 0: not yet
  IdleClock idle;
};

// Bytes that a connection has moved, in all its life.
struct Traffic {
  double read = 0;
  double written = 0;
};

class Inbox {
 public:
  enum class Push { kOk, kFull, kGone };

  // Makes one of at least `capacity` messages whose descriptors go to `parent` when its loop is
  // gone. 0 and a handle, or -errno (ENOSPC: the table is full).
  static int create(std::uint32_t capacity, Waker::Kind waker, InboxHandle parent,
                    InboxHandle* out);
  // Takes the loop's reference; null when the handle is stale or attached already.
  static Inbox* attach(InboxHandle handle);
  // Gives back the creator's or the loop's reference; the last one frees it.
  static void release_creator(InboxHandle handle);
  void unref();

  InboxHandle handle() const { return handle_; }
  InboxHandle parent() const { return parent_; }
  Waker& waker() { return waker_; }
  InboxCounters& counters() { return counters_; }
  std::uint32_t depth() const;
  std::uint32_t capacity() const { return mask_ + 1; }

  // Any thread that holds a pin.
  [[nodiscard]] Push push(const Message& message);
  void wake_sleeper();
  // Has the loop find one message of kNews, however often this is called before it does. Needs no
  // place in the queue.
  void announce();

  // The loop's thread.
  bool pop(Message* out);
  bool empty() const;
  // Announces a wait. False: there is a message already, so do not block.
  [[nodiscard]] bool prepare_to_sleep();
  void awake();
  // No push lands after this. What landed before is still to be popped, until drained() says so.
  void close();
  bool closed() const { return (tail_.load(std::memory_order_seq_cst) & kClosedBit) != 0; }
  bool drained() const;
  // Which connections are at a boundary, by descriptor: a byte each, written by the loop in memory
  // that outlives it. Without that, none is.
  void watch_boundaries(std::uint8_t* bytes, std::size_t length);
  bool at_boundary(int fd) const;
  // What was rescued is at its boundary from the moment when the loop owns it, before any
  // JavaScript of the loop has seen it.
  void arrives_at_boundary(int fd);

  // Numbers of each connection, by descriptor, that the loop's TypeScript writes and any thread
  // reads: whether it is at a boundary, and its bytes read and written, two doubles that are
  // written whole. Said by the creator before anybody else has the handle; the memory has room for
  // `length` descriptors and is the creator's, who keeps it while it has the inbox.
  void show_numbers(const std::uint8_t* at_boundary, double* bytes, std::size_t length);
  bool has_numbers() const { return traffic_ != nullptr; }
  bool busy(int fd) const;
  Traffic traffic(int fd) const;
  // The loop's thread, when it takes a descriptor.
  void set_traffic(int fd, const Traffic& traffic);
  // From the push of a handoff to the connection's open hook; the loop's thread records.
  LatencyHistogram& handoff_latency() { return *handoff_latency_; }

  // True for the first call in the inbox's life: a loop is released once.
  [[nodiscard]] bool begin_release() { return !released_.exchange(true); }
  bool released() const { return released_.load(); }

  // The creator's thread, when the loop's is stuck and may never end. Closes the inbox too.
  void abandon();
  bool abandoned() const { return abandoned_.load(); }
  // Where the messages of a closed inbox may be that its loop has not taken out: [first, end).
  std::uint64_t first_place() const { return head_seen_.load(std::memory_order_relaxed); }
  std::uint64_t end_place() const { return tail_.load() & ~kClosedBit; }
  // Looks at one without taking it out. False: the loop has taken it out. The loop may do so right
  // afterwards, so a descriptor in it is whose the ledger says, and its bytes are the same one's.
  bool look(std::uint64_t place, Message* out) const;

 private:
  friend class InboxPin;
  struct Slot {
    std::atomic<std::uint64_t> sequence;
    Message message;
  };

  static constexpr std::uint64_t kClosedBit = 1ULL << 63;

  std::atomic<std::uint64_t> tail_{0};
  std::uint64_t head_ = 0;
  std::atomic<std::uint64_t> head_seen_{0};  // head_ for others, for depth()
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> news_{false};
  std::unique_ptr<Slot[]> slots_;
  std::uint32_t mask_ = 0;
  InboxHandle handle_ = kNoInbox;
  InboxHandle parent_ = kNoInbox;
  Waker waker_;
  InboxCounters counters_;
  std::uint8_t* boundaries_ = nullptr;
  std::size_t boundaries_length_ = 0;
  const std::uint8_t* idle_ = nullptr;
  double* traffic_ = nullptr;
  std::size_t numbers_length_ = 0;
  // The table is static, and most of it is never used.
  std::unique_ptr<LatencyHistogram> handoff_latency_;

  // Of the static table.
  std::atomic<std::uint32_t> generation_{0};  // odd while in use
  std::atomic<std::uint32_t> pins_{0};
  std::atomic<std::uint32_t> refs_{0};
  std::atomic<bool> attached_{false};
  std::atomic<bool> released_{false};
  std::atomic<bool> abandoned_{false};
};

// Keeps an inbox from being freed while a thread pushes into it: a few instructions, never a wait.
class InboxPin {
 public:
  explicit InboxPin(InboxHandle handle);
  ~InboxPin();
  InboxPin(const InboxPin&) = delete;
  InboxPin& operator=(const InboxPin&) = delete;

  explicit operator bool() const { return inbox_ != nullptr; }
  Inbox* operator->() const { return inbox_; }
  Inbox* get() const { return inbox_; }

 private:
  Inbox* inbox_ = nullptr;
};

}  // namespace multiloop
