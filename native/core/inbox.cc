#include "inbox.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>

#include "check.h"
#include "ledger.h"

namespace multiloop {

namespace {

constexpr std::uint32_t kSlotBits = 10;
static_assert(kInboxesMax == 1U << kSlotBits);
// Odd generations are in use; kept to 20 bits so that a handle stays below 2^31.
constexpr std::uint32_t kGenerationMask = (1U << 20) - 1;

// Never destroyed: a thread may look a handle up while the process ends.
Inbox* table() {
  static Inbox* const inboxes = new Inbox[kInboxesMax];
  return inboxes;
}

std::mutex& table_mutex() {
  static std::mutex* const mutex = new std::mutex;
  return *mutex;
}

std::uint32_t slot_of(InboxHandle handle) { return handle & (kInboxesMax - 1); }
std::uint32_t generation_of(InboxHandle handle) { return handle >> kSlotBits; }

void relaxed_add(std::atomic<std::uint64_t>& counter) {
  counter.fetch_add(1, std::memory_order_relaxed);
}

// Ends a message that nobody will receive. Nobody else is left to close a descriptor in it, unless
// it was looked at and taken away.
void discard(const Message& message, InboxHandle receiver) {
  const bool has_descriptor = message.kind != MessageKind::kPost &&
                              message.kind != MessageKind::kReleased &&
                              message.kind != MessageKind::kNews;
  if (has_descriptor && !Ledger::close_undelivered(message.id, receiver)) return;
  free_message(message);
}

}  // namespace

void free_message(const Message& message) { std::free(message.bytes); }

int Inbox::create(std::uint32_t capacity, Waker::Kind waker, InboxHandle parent, InboxHandle* out) {
  ML_CHECK(capacity > 0 && capacity <= kInboxCapacityMax);
  const std::lock_guard<std::mutex> lock(table_mutex());
  // Slot 0 stays unused, so that no handle is kNoInbox.
  for (std::uint32_t slot = 1; slot < kInboxesMax; ++slot) {
    Inbox& inbox = table()[slot];
    const std::uint32_t generation = inbox.generation_.load(std::memory_order_relaxed);
    if (generation & 1) continue;
    if (const int status = inbox.waker_.open(waker); status < 0) return status;
    // A single slot's sequence could not tell a published message from a free place.
    const std::uint32_t size = std::max(2U, std::bit_ceil(capacity));
    inbox.slots_ = std::make_unique<Slot[]>(size);
    for (std::uint32_t i = 0; i < size; ++i)
      inbox.slots_[i].sequence.store(i, std::memory_order_relaxed);
    inbox.mask_ = size - 1;
    inbox.head_ = 0;
    inbox.head_seen_.store(0, std::memory_order_relaxed);
    inbox.tail_.store(0, std::memory_order_relaxed);
    inbox.sleeping_.store(false, std::memory_order_relaxed);
    inbox.news_.store(false, std::memory_order_relaxed);
    inbox.attached_.store(false, std::memory_order_relaxed);
    inbox.released_.store(false, std::memory_order_relaxed);
    inbox.abandoned_.store(false, std::memory_order_relaxed);
    inbox.refs_.store(1, std::memory_order_relaxed);
    inbox.parent_ = parent;
    // The memory was that of the loop that had this place before.
    inbox.watch_boundaries(nullptr, 0);
    inbox.show_numbers(nullptr, nullptr, 0);
    inbox.handoff_latency_ = std::make_unique<LatencyHistogram>();
    inbox.counters_.~InboxCounters();
    new (&inbox.counters_) InboxCounters();
    const std::uint32_t used = (generation + 1) & kGenerationMask;
    inbox.handle_ = *out = used << kSlotBits | slot;
    inbox.generation_.store(used, std::memory_order_seq_cst);
    return 0;
  }
  return -ENOSPC;
}

Inbox* Inbox::attach(InboxHandle handle) {
  const InboxPin pin(handle);
  if (!pin) return nullptr;
  Inbox* inbox = &table()[slot_of(handle)];
  if (inbox->attached_.exchange(true)) return nullptr;
  // The creator may be giving it up at this moment: a count that has reached zero stays there.
  std::uint32_t refs = inbox->refs_.load();
  do {
    if (refs == 0) return nullptr;
  } while (!inbox->refs_.compare_exchange_weak(refs, refs + 1));
  return inbox;
}

void Inbox::release_creator(InboxHandle handle) {
  Inbox* inbox = &table()[slot_of(handle)];
  ML_CHECK(inbox->generation_.load() == generation_of(handle));
  // Without a loop there is nobody left to receive, and none may come any more.
  if (!inbox->attached_.exchange(true)) inbox->close();
  inbox->unref();
}

void Inbox::unref() {
  if (refs_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  ML_CHECK(generation_.load() & 1);
  // Held throughout, so that create() cannot take the slot before it is empty. Producers never
  // take this lock, so waiting for them under it is safe.
  const std::lock_guard<std::mutex> lock(table_mutex());
  tail_.fetch_or(kClosedBit);
  generation_.store((generation_.load() + 1) & kGenerationMask, std::memory_order_seq_cst);
  // A producer that pinned before the line above is a few instructions from letting go.
  while (pins_.load(std::memory_order_seq_cst) != 0) std::this_thread::yield();
  Message left;
  while (pop(&left)) discard(left, handle_);
  waker_.close();
  slots_.reset();
  handoff_latency_.reset();
}

std::uint32_t Inbox::depth() const {
  const std::uint64_t tail = tail_.load(std::memory_order_relaxed) & ~kClosedBit;
  const std::uint64_t head = head_seen_.load(std::memory_order_relaxed);
  return tail > head ? static_cast<std::uint32_t>(tail - head) : 0;
}

Inbox::Push Inbox::push(const Message& message) {
  std::uint64_t tail = tail_.load(std::memory_order_relaxed);
  for (;;) {
    if (tail & kClosedBit) return Push::kGone;
    Slot& slot = slots_[tail & mask_];
    const std::uint64_t sequence = slot.sequence.load(std::memory_order_acquire);
    if (sequence == tail) {
      if (tail_.compare_exchange_weak(tail, tail + 1, std::memory_order_seq_cst)) {
        slot.message = message;
        slot.sequence.store(tail + 1, std::memory_order_release);
        relaxed_add(counters_.pushed);
        return Push::kOk;
      }
    } else if (sequence < tail) {
      relaxed_add(counters_.refused_full);
      return Push::kFull;
    } else {
      tail = tail_.load(std::memory_order_relaxed);
    }
  }
}

void Inbox::wake_sleeper() {
  // Pairs with the fence in prepare_to_sleep: either we see the sleeper or it sees our message.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_relaxed) && sleeping_.exchange(false)) {
    relaxed_add(counters_.wakes_sent);
    waker_.wake();
  } else {
    relaxed_add(counters_.wakes_saved);
  }
}

void Inbox::announce() {
  // Whoever has set it has woken the loop, or is about to.
  if (!news_.exchange(true)) wake_sleeper();
}

bool Inbox::pop(Message* out) {
  if (news_.load(std::memory_order_relaxed) && news_.exchange(false)) {
    *out = {MessageKind::kNews, handle_, kNoConnection, nullptr, 0};
    return true;
  }
  Slot& slot = slots_[head_ & mask_];
  if (slot.sequence.load(std::memory_order_acquire) != head_ + 1) return false;
  *out = slot.message;
  slot.sequence.store(head_ + mask_ + 1, std::memory_order_release);
  ++head_;
  head_seen_.store(head_, std::memory_order_relaxed);
  relaxed_add(counters_.popped);
  return true;
}

bool Inbox::empty() const {
  return !news_.load(std::memory_order_relaxed) &&
         slots_[head_ & mask_].sequence.load(std::memory_order_acquire) != head_ + 1;
}

bool Inbox::prepare_to_sleep() {
  sleeping_.store(true, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (empty()) return true;
  sleeping_.store(false, std::memory_order_relaxed);
  return false;
}

void Inbox::awake() { sleeping_.store(false, std::memory_order_relaxed); }

void Inbox::close() { tail_.fetch_or(kClosedBit, std::memory_order_seq_cst); }

void Inbox::abandon() {
  // In this order: who finds it closed finds it abandoned.
  abandoned_.store(true);
  close();
}

bool Inbox::look(std::uint64_t place, Message* out) const {
  // Closed, so no place is used once more, and what is published stays as it is.
  const Slot& slot = slots_[place & mask_];
  std::uint64_t sequence = slot.sequence.load(std::memory_order_acquire);
  while (sequence == place) {
    // Claimed before the close, published in a moment by a thread that is running.
    std::this_thread::yield();
    sequence = slot.sequence.load(std::memory_order_acquire);
  }
  if (sequence != place + 1) return false;
  *out = slot.message;
  return true;
}

bool Inbox::drained() const {
  const std::uint64_t tail = tail_.load(std::memory_order_acquire);
  return (tail & kClosedBit) != 0 && (tail & ~kClosedBit) == head_;
}

InboxPin::InboxPin(InboxHandle handle) {
  Inbox* slot = &table()[slot_of(handle)];
  const std::uint32_t generation = generation_of(handle);
  // An even generation is that of a free slot, and was never in a handle. Looked at before pinning
  // too, so that unref() waits for those that came in time, and never for a stream of latecomers.
  if (!(generation & 1) || slot->generation_.load(std::memory_order_relaxed) != generation) return;
  slot->pins_.fetch_add(1, std::memory_order_seq_cst);
  if (slot->generation_.load(std::memory_order_seq_cst) == generation)
    inbox_ = slot;
  else
    slot->pins_.fetch_sub(1, std::memory_order_seq_cst);
}

InboxPin::~InboxPin() {
  if (inbox_ != nullptr) inbox_->pins_.fetch_sub(1, std::memory_order_seq_cst);
}

void Inbox::watch_boundaries(std::uint8_t* bytes, std::size_t length) {
  boundaries_ = bytes;
  boundaries_length_ = length;
}

void Inbox::arrives_at_boundary(int fd) {
  const auto number = static_cast<std::size_t>(fd);
  if (fd >= 0 && number < boundaries_length_) boundaries_[number] = 1;
}

bool Inbox::at_boundary(int fd) const {
  const auto number = static_cast<std::size_t>(fd);
  return fd >= 0 && number < boundaries_length_ && boundaries_[number] != 0;
}

void Inbox::show_numbers(const std::uint8_t* at_boundary, double* bytes, std::size_t length) {
  idle_ = at_boundary;
  traffic_ = bytes;
  numbers_length_ = length;
}

bool Inbox::busy(int fd) const {
  const auto number = static_cast<std::size_t>(fd);
  return fd < 0 || number >= numbers_length_ || idle_[number] == 0;
}

Traffic Inbox::traffic(int fd) const {
  const auto number = static_cast<std::size_t>(fd);
  if (fd < 0 || number >= numbers_length_) return {};
  // Volatile, because it is another thread's memory; an aligned double is read whole.
  const volatile double* pair = traffic_ + 2 * number;
  return {pair[0], pair[1]};
}

void Inbox::set_traffic(int fd, const Traffic& traffic) {
  const auto number = static_cast<std::size_t>(fd);
  if (fd < 0 || number >= numbers_length_) return;
  // Most have moved nothing, and a page that nobody has written to takes no memory.
  double* pair = traffic_ + 2 * number;
  if (pair[0] != traffic.read) pair[0] = traffic.read;
  if (pair[1] != traffic.written) pair[1] = traffic.written;
}

}  // namespace multiloop
