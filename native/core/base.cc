#include "base.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "check.h"
#include "ledger.h"

namespace multiloop {

namespace {

constexpr std::uint32_t kGenerationMask = (1U << (31 - kEventSlotBits)) - 1;
// A hundred years: the sum with the clock cannot overflow, and JavaScript holds it exactly.
constexpr Micros kTimeoutMax = 36'500LL * 24 * 3'600 * 1'000'000;
constexpr int kRingEnd = static_cast<int>(kRingRecords);
// The last part of the ring is kept for timers, so that descriptors that fill the rest in every
// turn do not starve them.
constexpr int kRingForReady = kRingEnd - kRingEnd / 8;

}  // namespace

Base::Base(const BackendType& type, std::unique_ptr<Backend> backend, Page* page)
    : type_(type), backend_(std::move(backend)), page_(page) {
  ML_CHECK(backend_ != nullptr && page_ != nullptr);
}

Base::~Base() {
  detach();
  drop_posts();
}

// ── events ──────────────────────────────────────────────────────────────────────────────────

int Base::create(int fd, Mask mask, EventId* out) {
  std::uint32_t slot;
  if (!free_.empty()) {
    slot = free_.back();
    free_.pop_back();
  } else {
    if (events_.size() >= kEventsMax) return -EMFILE;
    slot = static_cast<std::uint32_t>(events_.size());
    events_.emplace_back();
    timers_.reserve(slot + 1);
  }
  Event& event = events_[slot];
  ML_CHECK(!event.used);
  const std::uint32_t generation = (event.generation + 1) & kGenerationMask;
  event = Event{};
  event.generation = generation;
  event.fd = fd;
  event.mask = mask;
  event.used = true;
  *out = id_of(slot);
  return 0;
}

int Base::add(EventId id, Micros timeout) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  const auto slot = static_cast<std::uint32_t>(event - events_.data());
  const bool was_added = added(slot);
  const std::uint32_t before = parts(slot);
  if (!event->inserted && event->fd >= 0 && (event->mask & kIoMask)) {
    if (const int status = insert(slot); status < 0) return status;
  }
  if (timeout != kForever) {
    ML_CHECK(timeout >= 0);
    timeout = std::min(timeout, kTimeoutMax);
    if (event->mask & kPersist) event->interval = timeout;
    timers_.set(slot, now() + timeout);
  }
  count(slot, was_added, before);
  return 0;
}

int Base::remove(EventId id) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  const bool was_inserted = event->inserted;
  take_out(static_cast<std::uint32_t>(event - events_.data()));
  if (was_inserted && descriptor(event->fd).first == kNone) forget(event->fd);
  return 0;
}

int Base::remove_timer(EventId id) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  const auto slot = static_cast<std::uint32_t>(event - events_.data());
  const bool was_added = added(slot);
  const std::uint32_t before = parts(slot);
  if (timers_.contains(slot)) timers_.remove(slot);
  event->interval = kForever;
  count(slot, was_added, before);
  return 0;
}

int Base::destroy(EventId id) {
  if (const int status = remove(id); status < 0) return status;
  const std::uint32_t slot = id & (kEventsMax - 1);
  events_[slot].used = false;
  reaped_.push_back(slot);
  return 0;
}

int Base::set_ref(EventId id, bool ref) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  const auto slot = static_cast<std::uint32_t>(event - events_.data());
  if (event->refd == ref) return 0;
  if (added(slot)) counts_.refd += ref ? 1U : -1U;
  event->refd = ref;
  return 0;
}

int Base::pending(EventId id, Micros* remaining) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  const auto slot = static_cast<std::uint32_t>(event - events_.data());
  int mask = event->inserted ? event->mask & kIoMask : 0;
  *remaining = kForever;
  if (timers_.contains(slot)) {
    mask |= kTimeout;
    *remaining = std::max<Micros>(0, timers_.deadline(slot) - now());
  }
  return mask;
}

int Base::rearm(EventId id) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  const auto slot = static_cast<std::uint32_t>(event - events_.data());
  if (event->interval != kForever && timers_.contains(slot))
    timers_.set(slot, now() + event->interval);
  return 0;
}

Base::Event* Base::find(EventId id) {
  const std::uint32_t slot = id & (kEventsMax - 1);
  if (slot >= events_.size()) return nullptr;
  Event& event = events_[slot];
  return event.used && event.generation == id >> kEventSlotBits ? &event : nullptr;
}

EventId Base::id_of(std::uint32_t slot) const {
  return events_[slot].generation << kEventSlotBits | slot;
}

bool Base::added(std::uint32_t slot) const { return parts(slot) != 0; }

std::uint32_t Base::parts(std::uint32_t slot) const {
  return (events_[slot].inserted ? 1U : 0U) + (timers_.contains(slot) ? 1U : 0U);
}

void Base::count(std::uint32_t slot, bool was_added, std::uint32_t parts_before) {
  counts_.added += parts(slot) - parts_before;
  const bool is_added = added(slot);
  if (events_[slot].refd && is_added != was_added) counts_.refd += is_added ? 1U : -1U;
}

bool Base::alive() const {
  if (counts_.refd > 0 || page_->active > 0) return true;
  if (inbox_ != nullptr && inbox_refd_) return true;
  return page_->no_exit != 0 && counts_.added == 0 && inbox_ == nullptr;
}

// ── descriptors ─────────────────────────────────────────────────────────────────────────────
//
// Adding tells the kernel at once, so that the caller hears of a bad descriptor from the call it
// made. So does removing the last event by hand: the caller may close the descriptor next, and a
// duplicate of it elsewhere would keep it in epoll's set, where nothing could name it any more. An
// event that is removed because it fired waits until the next poll(): if it is added again in its
// own callback that costs no system call, since the kernel was never told that it was gone.

Base::Descriptor& Base::descriptor(int fd) {
  const auto number = static_cast<std::size_t>(fd);
  if (number >= descriptors_.size()) descriptors_.resize(number + number / 2 + 16);
  return descriptors_[number];
}

Mask Base::wanted(const Descriptor& entry) const {
  Mask mask = 0;
  for (std::uint32_t slot = entry.first; slot != kNone; slot = events_[slot].next)
    mask |= events_[slot].mask;
  return mask & (kIoMask | kEdge);
}

int Base::insert(std::uint32_t slot) {
  Event& event = events_[slot];
  if ((event.mask & kClosed) && !(type_.features & kFeatureEarlyClose)) return -EOPNOTSUPP;
  if ((event.mask & kEdge) && !(type_.features & kFeatureEdge)) return -EOPNOTSUPP;
  // A number that no table holds is not an open descriptor either.
  if (event.fd >= 1 << 20) return -EBADF;
  Descriptor& entry = descriptor(event.fd);
  if (entry.special != Special::kNo) return -EBUSY;
  const Mask others = wanted(entry);
  const Mask all = others | (event.mask & (kIoMask | kEdge));
  // What the kernel holds can be trusted if another event is on the descriptor, or if this very
  // event was the last one; else the number may have been closed and opened again meanwhile.
  const bool trusted = entry.first != kNone || entry.last_removed == slot;
  // Bits of removed events that the kernel still holds stay for now; poll() takes them out. An
  // edge is always announced anew: what is ready already must be told to the one who comes now.
  const bool covered = trusted && (all & ~entry.kernel) == 0 && !(all & kEdge);
  if (!covered) {
    if (const int status = backend_->change(event.fd, entry.kernel, all); status < 0) {
      if (others == 0) entry.kernel = 0;
      return status;
    }
    entry.kernel = all;
  }
  event.next = entry.first;
  event.previous = kNone;
  if (entry.first != kNone) events_[entry.first].previous = slot;
  entry.first = slot;
  event.inserted = true;
  return 0;
}

void Base::take_out(std::uint32_t slot) {
  const bool was_added = added(slot);
  const std::uint32_t before = parts(slot);
  if (events_[slot].inserted) unlink(slot);
  if (timers_.contains(slot)) timers_.remove(slot);
  events_[slot].interval = kForever;
  count(slot, was_added, before);
}

void Base::unlink(std::uint32_t slot) {
  Event& event = events_[slot];
  ML_CHECK(event.inserted);
  Descriptor& entry = descriptor(event.fd);
  if (event.previous != kNone)
    events_[event.previous].next = event.next;
  else
    entry.first = event.next;
  if (event.next != kNone) events_[event.next].previous = event.previous;
  event.next = event.previous = kNone;
  event.inserted = false;
  entry.last_removed = slot;
  touch(event.fd);
  if (ready_left_) narrow_ready(event.fd);
}

void Base::touch(int fd) {
  Descriptor& entry = descriptor(fd);
  if (entry.dirty) return;
  entry.dirty = true;
  dirty_.push_back(fd);
}

void Base::apply_changes() {
  for (const int fd : dirty_) {
    Descriptor& entry = descriptor(fd);
    entry.dirty = false;
    entry.last_removed = kNone;
    const Mask mask = wanted(entry);
    if (mask == entry.kernel || entry.special != Special::kNo) continue;
    // A failure here means that the descriptor was closed under our feet; the kernel has then
    // dropped its interest by itself.
    const int status = backend_->change(fd, entry.kernel, mask);
    entry.kernel = status == 0 ? mask : Mask{0};
  }
  dirty_.clear();
  free_.insert(free_.end(), reaped_.begin(), reaped_.end());
  reaped_.clear();
}

void Base::forget(int fd) {
  if (fd < 0 || static_cast<std::size_t>(fd) >= descriptors_.size()) return;
  Descriptor& entry = descriptor(fd);
  ML_CHECK(entry.first == kNone && entry.special == Special::kNo);
  if (entry.kernel != 0) static_cast<void>(backend_->change(fd, entry.kernel, 0));
  entry.kernel = 0;
  entry.last_removed = kNone;
}

int Base::watch(int fd, Special special, Mask mask) {
  Descriptor& entry = descriptor(fd);
  // An event that was left behind when its descriptor was closed still has the number.
  if (entry.first != kNone || entry.special != Special::kNo) return -EBUSY;
  if (const int status = backend_->change(fd, entry.kernel, mask); status < 0) return status;
  entry.kernel = mask;
  entry.special = special;
  return 0;
}

void Base::unwatch(int fd) {
  Descriptor& entry = descriptor(fd);
  ML_CHECK(entry.special != Special::kNo);
  static_cast<void>(backend_->change(fd, entry.kernel, 0));
  entry.kernel = 0;
  entry.special = Special::kNo;
}

int Base::attach(Inbox* inbox) {
  ML_CHECK(inbox_ == nullptr && inbox != nullptr);
  // An eventfd in an edge-triggered set tells every write and never has to be read; a pipe would
  // fill up, and a level-triggered set would report either for ever.
  const bool edge =
      (type_.features & kFeatureEdge) && inbox->waker().kind() == Waker::Kind::kEventfd;
  const Mask mask = edge ? kRead | kEdge : kRead;
  if (const int status = watch(inbox->waker().fd(), Special::kWaker, mask); status < 0)
    return status;
  inbox_ = inbox;
  return 0;
}

void Base::detach() {
  if (inbox_ == nullptr) return;
  unwatch(inbox_->waker().fd());
  inbox_->awake();
  inbox_ = nullptr;
}

int Base::watch_external(int fd) {
  if (external_ >= 0) unwatch(external_);
  external_ = -1;
  if (fd < 0) return 0;
  const int status = watch(fd, Special::kExternal, kRead);
  if (status == 0) external_ = fd;
  return status;
}

// ── the turn ────────────────────────────────────────────────────────────────────────────────

Micros Base::next_timeout() {
  if (page_->active > 0 || page_->nonblock != 0 || ready_at_ < ready_count_) return 0;
  if (inbox_ != nullptr && !inbox_->empty()) return 0;
  if (timers_.empty()) return kForever;
  return std::max<Micros>(0, timers_.first().deadline - now());
}

std::uint32_t Base::poll(Micros timeout) {
  apply_changes();
  page_->ready = 0;
  page_->messages = 0;
  std::uint32_t found = 0;
  if (ready_at_ == ready_count_) {
    if (inbox_ != nullptr && timeout != 0 && !inbox_->prepare_to_sleep()) timeout = 0;
    const Micros before = timeout == 0 ? 0 : monotonic_now();
    const int count = backend_->wait(timeout, ready_);
    update_time();
    if (timeout != 0) page_->idle += static_cast<double>(now_ - before);
    if (inbox_ != nullptr) inbox_->awake();
    ready_at_ = 0;
    ready_count_ = count < 0 ? 0 : static_cast<std::size_t>(count);
    if (count < 0) {
      page_->error = count;
      found |= kFoundError;
    }
  }
  if (!time_cached_) update_time();
  page_->turns += 1;
  drain_ready(&found);
  expire_timers();
  drain_inbox();
  if (page_->ready > 0 || page_->messages > 0) found |= kFoundWork;
  return found;
}

void Base::drain_ready(std::uint32_t* found) {
  ready_left_ = false;
  while (ready_at_ < ready_count_ && fits(ready_[ready_at_].fd))
    activate_descriptor(ready_[ready_at_++], found);
  ready_left_ = ready_at_ < ready_count_;
}

// Whether the ring has room for all events on a descriptor. An edge that was told to some of them
// would not be reported to the others. Only one that needs more than an empty ring is cut short.
bool Base::fits(int fd) {
  if (page_->ready == 0) return true;
  int room = kRingForReady - page_->ready;
  for (std::uint32_t slot = descriptor(fd).first; slot != kNone; slot = events_[slot].next)
    if (--room < 0) return false;
  return true;
}

// What the kernel has reported and nobody was told yet ends with the events that it was for: the
// number may have another descriptor by the next turn.
void Base::narrow_ready(int fd) {
  const Mask mask = wanted(descriptor(fd));
  for (std::size_t i = ready_at_; i < ready_count_; ++i)
    if (ready_[i].fd == fd) ready_[i].what &= mask;
}

void Base::activate_descriptor(const Ready& ready, std::uint32_t* found) {
  Descriptor& entry = descriptor(ready.fd);
  if (entry.special == Special::kExternal) {
    *found |= kFoundExternal;
    return;
  }
  if (entry.special == Special::kWaker) {
    if (!(entry.kernel & kEdge)) inbox_->waker().drain();
    return;
  }
  // An error is reported as READ|WRITE. Those who wait for CLOSED alone are told of it too, or a
  // level-triggered wait would return at once for ever.
  if (!tell(entry.first, ready.what) && (ready.what & (kRead | kWrite))) tell(entry.first, kClosed);
}

// Fires the events of a descriptor, from `first` on, that wait for what is ready.
bool Base::tell(std::uint32_t first, Mask ready) {
  bool told = false;
  for (std::uint32_t slot = first; slot != kNone;) {
    const std::uint32_t next = events_[slot].next;
    const Mask what = ready & events_[slot].mask & kIoMask;
    if (what != 0 && page_->ready < kRingEnd) {
      told = true;
      fire(slot, what | (events_[slot].mask & kEdge));
    }
    slot = next;
  }
  return told;
}

void Base::expire_timers() {
  while (!timers_.empty() && page_->ready < kRingEnd) {
    const TimerHeap::Timer& timer = timers_.first();
    if (timer.deadline > now_) return;
    fire(timer.owner, kTimeout);
  }
}

// Writes the record and does what libevent does before a callback: an event that is not persistent
// is removed, one that is and has an interval starts its next (event.c, event_persist_closure: from
// the last scheduled time if it fired by it, else from now; ticks in the past are dropped).
void Base::fire(std::uint32_t slot, Mask what) {
  Event& event = events_[slot];
  // One record tells all that became true: starting the timer anew would lose that it ran out.
  if (timers_.contains(slot) && timers_.deadline(slot) <= now_) what |= kTimeout;
  page_->ring[page_->ready++] = {id_of(slot), what};
  if (!(event.mask & kPersist)) {
    take_out(slot);
    return;
  }
  if (event.interval == kForever) {
    if (what & kTimeout) remove_timer(id_of(slot));
    return;
  }
  const Micros from = (what & kTimeout) ? timers_.deadline(slot) : now_;
  Micros next = from + event.interval;
  if (next <= now_) next = now_ + std::max<Micros>(event.interval, 1);
  timers_.set(slot, next);
}

void Base::drain_inbox() {
  if (inbox_ == nullptr) return;
  drop_posts();
  Message message;
  while (page_->messages < static_cast<int>(kMessagesPerTurn) && inbox_->pop(&message)) {
    const auto at = static_cast<std::uint32_t>(page_->messages);
    int fd = -1;
    if (message.kind == MessageKind::kHandoff || message.kind == MessageKind::kReturned) {
      // From here on the descriptor is this loop's, and its release would find it.
      if (!Ledger::take(message.id, inbox_->handle())) continue;
      fd = Ledger::fd(message.id);
      inbox_->counters().opened.fetch_add(1, std::memory_order_relaxed);
    }
    posts_[at] = {message.bytes, message.length};
    page_->inbox[at] = {static_cast<double>(message.kind), static_cast<double>(message.from),
                        static_cast<double>(message.id), static_cast<double>(fd)};
    ++page_->messages;
  }
}

Base::Post Base::take_post(std::uint32_t index) {
  if (index >= kMessagesPerTurn) return {nullptr, 0};
  const Post post = posts_[index];
  posts_[index] = {nullptr, 0};
  return post;
}

void Base::drop_posts() {
  for (Post& post : posts_) {
    std::free(post.bytes);
    post = {nullptr, 0};
  }
}

Micros Base::now() {
  if (time_cached_) return now_;
  now_ = monotonic_now();
  page_->now = static_cast<double>(now_);
  return now_;
}

void Base::update_time() {
  now_ = monotonic_now();
  page_->now = static_cast<double>(now_);
  time_cached_ = true;
}

void Base::check() const {
  ML_CHECK(timers_.valid());
  std::uint32_t parts_seen = 0;
  std::uint32_t refd_seen = 0;
  for (std::uint32_t slot = 0; slot < events_.size(); ++slot) {
    const Event& event = events_[slot];
    ML_CHECK(event.used || parts(slot) == 0);
    parts_seen += parts(slot);
    if (event.refd && added(slot)) ++refd_seen;
    if (!event.inserted) continue;
    const Descriptor& entry = descriptors_[static_cast<std::size_t>(event.fd)];
    ML_CHECK(event.previous == kNone ? entry.first == slot : events_[event.previous].next == slot);
  }
  ML_CHECK(parts_seen == counts_.added && refd_seen == counts_.refd);
}

}  // namespace multiloop
