// The events of a base and what the kernel is told of them; base_turn.cc has the turn.

#include "base.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "check.h"
#include "platform.h"

namespace multiloop {

namespace {

constexpr std::uint32_t kGenerationMask = (1U << (31 - kEventSlotBits)) - 1;
// A hundred years: the sum with the clock cannot overflow, and JavaScript holds it exactly.
constexpr Micros kTimeoutMax = 36'500LL * 24 * 3'600 * 1'000'000;
// No kernel here gives out a descriptor past this (Linux: fs.nr_open, 1,048,576 by default).
constexpr int kDescriptorsMax = 1 << 20;

constexpr std::uint64_t bit_of(int signal) { return 1ULL << (signal - 1); }

}  // namespace

Base::Base(const BackendType& type, std::unique_ptr<Backend> backend, Page* page,
           const BaseOptions& options)
    : type_(type), options_(options), page_(page), changes_(std::move(backend)) {
  ML_CHECK(page_ != nullptr);
}

Base::~Base() {
  detach();
  drop_posts();
  drop_signals();
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

int Base::add(EventId id, Micros timeout, CommonId common) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  const std::uint32_t slot = slot_of(event);
  const std::uint32_t before = parts(slot);
  if (!event->inserted && can_wait(*event)) {
    if (const int status = insert(slot); status < 0) return status;
  }
  if (timeout != kForever) {
    ML_CHECK(timeout >= 0);
    timeout = std::min(timeout, kTimeoutMax);
    if (event->mask & kPersist) {
      event->interval = timeout;
      event->common = common;
    }
    timers_.set(slot, now() + timeout, common);
  }
  recount(slot, before);
  return 0;
}

int Base::remove(EventId id) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  const std::uint32_t slot = slot_of(event);
  take_out(slot, true);
  release_signal(slot);
  return 0;
}

int Base::begin_signal(EventId id) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  take_out(slot_of(event), false);
  if (event->holds) begun_.push_back(id);
  page_->unsettled = 1;
  return 0;
}

int Base::remove_timer(EventId id) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  const std::uint32_t slot = slot_of(event);
  const std::uint32_t before = parts(slot);
  if (timers_.contains(slot)) timers_.remove(slot);
  event->interval = kForever;
  recount(slot, before);
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
  if (event->refd == ref) return 0;
  if (parts(slot_of(event)) > 0) counts_.refd += ref ? 1U : -1U;
  event->refd = ref;
  return 0;
}

int Base::wake_alone(EventId id) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  event->alone = true;
  return 0;
}

int Base::pending(EventId id, Micros* remaining) {
  Event* event = find(id);
  if (event == nullptr) return -ESTALE;
  const std::uint32_t slot = slot_of(event);
  int mask = event->inserted ? event->mask & (kIoMask | kSignal) : 0;
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
  const std::uint32_t slot = slot_of(event);
  if (event->interval != kForever && timers_.contains(slot))
    timers_.set(slot, now() + event->interval, event->common);
  return 0;
}

Base::Event* Base::find(EventId id) {
  const std::uint32_t slot = id & (kEventsMax - 1);
  if (slot >= events_.size()) return nullptr;
  Event& event = events_[slot];
  return event.used && event.generation == id >> kEventSlotBits ? &event : nullptr;
}

std::uint32_t Base::slot_of(const Event* event) const {
  return static_cast<std::uint32_t>(event - events_.data());
}

EventId Base::id_of(std::uint32_t slot) const {
  return events_[slot].generation << kEventSlotBits | slot;
}

std::uint32_t Base::parts(std::uint32_t slot) const {
  return (events_[slot].inserted ? 1U : 0U) + (timers_.contains(slot) ? 1U : 0U);
}

void Base::recount(std::uint32_t slot, std::uint32_t parts_before) {
  const std::uint32_t parts_now = parts(slot);
  counts_.added += parts_now - parts_before;
  if (events_[slot].refd && (parts_now == 0) != (parts_before == 0))
    counts_.refd += parts_now > 0 ? 1U : -1U;
  page_->added = static_cast<std::int32_t>(counts_.added);
  page_->added_max = std::max(page_->added_max, page_->added + page_->active);
}

bool Base::alive() const {
  if (counts_.refd > 0 || page_->active > 0) return true;
  if (inbox_ != nullptr && inbox_refd_) return true;
  return page_->no_exit != 0 && counts_.added == 0 && inbox_ == nullptr;
}

// ── what events wait for ────────────────────────────────────────────────────────────────────

bool Base::can_wait(const Event& event) const {
  return event.fd >= 0 && (event.mask & (kIoMask | kSignal)) != 0;
}

Base::Key& Base::descriptor(int fd) {
  const auto number = static_cast<std::size_t>(fd);
  if (number >= descriptors_.size()) descriptors_.resize(number + number / 2 + 16);
  return descriptors_[number];
}

Base::Key& Base::key_of(const Event& event) {
  return event.mask & kSignal ? signals_[event.fd] : descriptor(event.fd);
}

Mask Base::wanted(const Key& key) const {
  Mask mask = 0;
  for (std::uint32_t slot = key.first; slot != kNone; slot = events_[slot].next)
    mask |= events_[slot].mask;
  return mask & (kIoMask | kEdge);
}

int Base::insert(std::uint32_t slot) {
  return events_[slot].mask & kSignal ? insert_signal(slot) : insert_descriptor(slot);
}

int Base::insert_descriptor(std::uint32_t slot) {
  const Event& event = events_[slot];
  if ((event.mask & kClosed) && !(type_.features & kFeatureEarlyClose)) return -EOPNOTSUPP;
  if ((event.mask & kEdge) && !(type_.features & kFeatureEdge)) return -EOPNOTSUPP;
  if (event.fd >= kDescriptorsMax) return -EBADF;
  Key& key = descriptor(event.fd);
  if (key.special != Special::kNo) return -EBUSY;
  if (key.count >= kEventsPerKeyMax) return -ENOSPC;
  const Mask mine = event.mask & (kIoMask | kEdge);
  const Mask others = wanted(key);
  // The kernel has one trigger a descriptor, and a level-triggered event beside an edge-triggered
  // one would miss what it did not read at once.
  if (key.count > 0 && (others & kEdge) != (mine & kEdge)) return -EPROTOTYPE;
  // The number is the file that the kernel was told of if another event is on it, or if this very
  // event was the last one and has fired; else it may have been closed and opened again meanwhile.
  // An edge is announced anew: what is ready already must be told to the one who comes now.
  const bool certain = key.count > 0 || key.last_fired == slot;
  const bool tell = !certain || (mine & kEdge) != 0;
  if (event.alone) {
    ML_CHECK(key.count == 0);
    changes_.backend().wake_alone(event.fd, true);
  }
  if (const int status = changes_.want(event.fd, others | mine, tell); status < 0) return status;
  link(&key, slot);
  return 0;
}

int Base::insert_signal(std::uint32_t slot) {
  const int signal = events_[slot].fd;
  if (signal <= 0 || signal > kSignalsMax) return -EINVAL;
  if (options_.signals == nullptr) return -ENOTSUP;
  Key& key = signals_[signal];
  if (key.count >= kEventsPerKeyMax) return -ENOSPC;
  if (!(caught_ & bit_of(signal))) {
    if (const int status = open_signal_box(); status < 0) return status;
    const int status = options_.signals->subscribe(signal_box_.get(), signal);
    if (status < 0) return status;
    caught_ |= bit_of(signal);
  }
  link(&key, slot);
  return 0;
}

void Base::link(Key* key, std::uint32_t slot) {
  Event& event = events_[slot];
  event.next = key->first;
  event.previous = kNone;
  if (key->first != kNone) events_[key->first].previous = slot;
  key->first = slot;
  ++key->count;
  event.inserted = true;
}

void Base::take_out(std::uint32_t slot, bool by_hand) {
  const std::uint32_t before = parts(slot);
  if (events_[slot].inserted)
    unlink(slot, by_hand);
  else if (by_hand)
    leave(slot);
  if (timers_.contains(slot)) timers_.remove(slot);
  events_[slot].interval = kForever;
  recount(slot, before);
}

void Base::unlink(std::uint32_t slot, bool by_hand) {
  Event& event = events_[slot];
  ML_CHECK(event.inserted);
  Key& key = key_of(event);
  if (event.previous != kNone)
    events_[event.previous].next = event.next;
  else
    key.first = event.next;
  if (event.next != kNone) events_[event.next].previous = event.previous;
  event.next = event.previous = kNone;
  event.inserted = false;
  --key.count;
  key.last_fired = by_hand ? kNone : slot;
  if (event.mask & kSignal) {
    if (by_hand)
      drop_unused(event.fd);
    else
      hold_signal(slot);
    page_->unsettled = 1;
    return;
  }
  changes_.narrow(event.fd, wanted(key));
  page_->unsettled = 1;
  if (ready_left_) narrow_ready(event.fd, wanted(key));
}

// One that has fired is out already; who removes it by hand says that it is done with the number,
// which may be another file's when the event comes back.
void Base::leave(std::uint32_t slot) {
  const int fd = events_[slot].fd;
  if (fd < 0 || static_cast<std::size_t>(fd) >= descriptors_.size()) return;
  if (descriptor(fd).last_fired == slot) descriptor(fd).last_fired = kNone;
}

void Base::forget(int fd) {
  if (fd < 0 || static_cast<std::size_t>(fd) >= descriptors_.size()) return;
  Key& key = descriptor(fd);
  if (key.special != Special::kNo) return;
  changes_.forget(fd);
  key.last_fired = kNone;
  narrow_ready(fd, 0);
  std::erase(refused_, fd);
}

// ── signals ─────────────────────────────────────────────────────────────────────────────────

int Base::open_signal_box() {
  if (signal_box_ != nullptr) return 0;
  auto box = std::make_unique<SignalBox>();
  if (const int status = box->open(options_.waker); status < 0) return status;
  if (const int status = listen(&box->waker(), Special::kSignals); status < 0) return status;
  signal_box_ = std::move(box);
  return 0;
}

// An event that has fired may come back in its callback, and until then, however long the callback
// has to wait for its turn, the signal must not take its default action. Removed by hand, it takes
// it from now on.
void Base::hold_signal(std::uint32_t slot) {
  Event& event = events_[slot];
  if (event.holds) return;
  event.holds = true;
  ++signals_[event.fd].holds;
}

void Base::release_signal(std::uint32_t slot) {
  Event& event = events_[slot];
  if (!event.holds) return;
  event.holds = false;
  --signals_[event.fd].holds;
  drop_unused(event.fd);
}

void Base::drop_unused(int signal) {
  const Key& key = signals_[signal];
  if (key.count == 0 && key.holds == 0 && (caught_ & bit_of(signal))) drop_signal(signal);
}

void Base::drop_signals() {
  while (caught_ != 0) drop_signal(std::countr_zero(caught_) + 1);
}

void Base::drop_signal(int signal) {
  ML_CHECK(caught_ & bit_of(signal));
  options_.signals->unsubscribe(signal_box_.get(), signal);
  caught_ &= ~bit_of(signal);
  // What came for events that are gone is not for those that come later.
  signal_box_->take(signal);
}

// ── descriptors of the base itself ──────────────────────────────────────────────────────────

int Base::watch(int fd, Special special, Mask mask) {
  Key& key = descriptor(fd);
  // An event that was left behind when its descriptor was closed still has the number.
  if (key.first != kNone || key.special != Special::kNo) return -EBUSY;
  if (const int status = changes_.watch(fd, mask); status < 0) return status;
  key.special = special;
  return 0;
}

void Base::unwatch(int fd) {
  Key& key = descriptor(fd);
  ML_CHECK(key.special != Special::kNo);
  changes_.unwatch(fd);
  key.special = Special::kNo;
}

// An eventfd in an edge-triggered set tells every write and never has to be read; a pipe would fill
// up, and a level-triggered set would report either for ever.
Mask Base::waker_mask(const Waker& waker) const {
  const bool edge = (type_.features & kFeatureEdge) && waker.kind() == Waker::Kind::kEventfd;
  return edge ? kRead | kEdge : kRead;
}

// One without a descriptor ends the wait and is nowhere reported: whoever is woken looks anyway.
int Base::listen(Waker* waker, Special special) {
  if (waker->kind() != Waker::Kind::kUser) return watch(waker->fd(), special, waker_mask(*waker));
  std::shared_ptr<const WakeTarget> target = changes_.backend().wake_target();
  if (target == nullptr) return -EOPNOTSUPP;
  waker->bind(std::move(target));
  return 0;
}

void Base::stop_listening(const Waker& waker) {
  if (waker.fd() >= 0) unwatch(waker.fd());
}

int Base::attach(Inbox* inbox) {
  ML_CHECK(inbox_ == nullptr && inbox != nullptr);
  if (const int status = listen(&inbox->waker(), Special::kWaker); status < 0) return status;
  inbox_ = inbox;
  inbox_->counters().attached.store(monotonic_now(), std::memory_order_relaxed);
  page_->virtual_now = page_->virtual_max = 1;
  return 0;
}

void Base::detach() {
  if (inbox_ == nullptr) return;
  stop_listening(inbox_->waker());
  inbox_->awake();
  inbox_ = nullptr;
  page_->virtual_now = 0;
}

int Base::watch_external(int fd) {
  if (external_ >= 0) unwatch(external_);
  external_ = -1;
  if (fd < 0) return 0;
  const int status = watch(fd, Special::kExternal, kRead);
  if (status == 0) external_ = fd;
  return status;
}

// ── debug mode ──────────────────────────────────────────────────────────────────────────────

void Base::check() const {
  ML_CHECK(timers_.valid() && changes_.valid());
  std::uint32_t parts_seen = 0;
  std::uint32_t refd_seen = 0;
  std::uint32_t inserted_seen = 0;
  std::uint32_t holds_seen = 0;
  for (std::uint32_t slot = 0; slot < events_.size(); ++slot) {
    const Event& event = events_[slot];
    ML_CHECK(event.used || parts(slot) == 0);
    parts_seen += parts(slot);
    if (event.refd && parts(slot) > 0) ++refd_seen;
    if (event.inserted) ++inserted_seen;
    if (event.holds) ++holds_seen;
  }
  ML_CHECK(parts_seen == counts_.added && refd_seen == counts_.refd);
  ML_CHECK(page_->added == static_cast<std::int32_t>(counts_.added));
  ML_CHECK(page_->added_max >= page_->added);
  const auto walk = [&](const Key& key, int fd, bool signal) {
    std::uint32_t count = 0;
    std::uint32_t before = kNone;
    for (std::uint32_t slot = key.first; slot != kNone; slot = events_[slot].next) {
      const Event& event = events_[slot];
      ML_CHECK(event.inserted && event.fd == fd && event.previous == before);
      ML_CHECK(((event.mask & kSignal) != 0) == signal);
      ML_CHECK(++count <= key.count);
      before = slot;
    }
    ML_CHECK(count == key.count);
    inserted_seen -= count;
  };
  for (std::size_t number = 0; number < descriptors_.size(); ++number) {
    const auto fd = static_cast<int>(number);
    walk(descriptors_[number], fd, false);
  }
  for (int signal = 1; signal <= kSignalsMax; ++signal) {
    walk(signals_[signal], signal, true);
    const Key& key = signals_[signal];
    ML_CHECK(((caught_ & bit_of(signal)) != 0) == (key.count > 0 || key.holds > 0));
    holds_seen -= key.holds;
  }
  ML_CHECK(inserted_seen == 0 && holds_seen == 0);
}

}  // namespace multiloop
