// The turn of a base: the wait, and what becomes of all that it found.

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>

#include "base.h"
#include "check.h"
#include "ledger.h"

namespace multiloop {

void Base::apply_changes() {
  note_changes();
  changes_.backend().flush();
  changes_.take_refused(&refused_);
}

void Base::release_files() {
  if (!changes_.backend().holds_files() || !changes_.has_changes()) return;
  if (const int status = changes_.apply(&refused_); status < 0) failure_ = status;
  changes_.backend().flush();
  changes_.take_refused(&refused_);
}

// What the backend may tell with the wait is left to it.
void Base::note_changes() {
  page_->unsettled = 0;
  if (const int status = changes_.apply(&refused_); status < 0) failure_ = status;
  for (const EventId id : begun_)
    if (const Event* event = find(id)) release_signal(slot_of(event));
  begun_.clear();
  free_.insert(free_.end(), reaped_.begin(), reaped_.end());
  reaped_.clear();
}

Micros Base::next_timeout() {
  if (page_->active > 0 || page_->nonblock != 0 || !told_all()) return 0;
  if (!refused_.empty() || failure_ != 0) return 0;
  if (inbox_ != nullptr && !inbox_->empty()) return 0;
  if (signal_box_ != nullptr && signal_box_->pending() != 0) return 0;
  if (timers_.empty()) return kForever;
  return std::max<Micros>(0, timers_.first().deadline - now());
}

std::uint32_t Base::poll(Micros timeout) {
  note_changes();
  page_->ready = 0;
  page_->messages = 0;
  std::uint32_t found = 0;
  if (told_all()) wait(timeout, &found);
  if (page_->time_cached == 0) update_time();
  page_->turns += 1;
  // Signals that the last turn had no room for come first, or descriptors that are always ready
  // would starve one with many events; in every other turn, or they would starve descriptors.
  const bool signals_first = signals_left_;
  if (signals_first) drain_signals();
  report_refused();
  drain_ready(&found);
  signals_left_ = !drain_signals() && !signals_first;
  expire_timers();
  drain_inbox();
  if (page_->ready > 0 || page_->messages > 0) found |= kFoundWork;
  return found;
}

void Base::wait(Micros timeout, std::uint32_t* found) {
  if (!refused_.empty() || failure_ != 0) timeout = 0;
  if (inbox_ != nullptr && timeout != 0 && !inbox_->prepare_to_sleep()) timeout = 0;
  const Micros before = timeout == 0 ? 0 : monotonic_now();
  if (inbox_ != nullptr && timeout != 0) {
    inbox_->counters().busy_since.store(0, std::memory_order_relaxed);
    inbox_->counters().idle.begin_wait(before);
  }
  const int count = changes_.backend().wait(timeout, ready_);
  changes_.take_refused(&refused_);
  update_time();
  if (timeout != 0) page_->idle += static_cast<double>(now_ - before);
  if (inbox_ != nullptr) {
    if (timeout != 0) inbox_->counters().idle.end_wait(now_);
    inbox_->awake();
    count_turn(timeout == 0 ? now_ : before);
  }
  ready_at_ = 0;
  ready_count_ = count < 0 ? 0 : static_cast<std::size_t>(count);
  const int error = count < 0 ? count : failure_;
  failure_ = 0;
  if (error == 0) return;
  page_->error = error;
  *found |= kFoundError;
}

// The turn that ended at `end`, when the wait before this moment began; for whoever chooses a loop
// by how long it would keep a message waiting. Written by this thread alone.
void Base::count_turn(Micros end) {
  InboxCounters& counters = inbox_->counters();
  constexpr auto kRelaxed = std::memory_order_relaxed;
  if (turn_began_ != 0) {
    const Micros turn = end - turn_began_;
    const Micros mean = counters.turn_mean.load(kRelaxed);
    counters.turn_mean.store(mean + (turn - mean) / kTurnsInMean, kRelaxed);
    if (turn > counters.turn_longest.load(kRelaxed)) counters.turn_longest.store(turn, kRelaxed);
  }
  turn_began_ = now_;
  counters.turns.fetch_add(1, kRelaxed);
  counters.busy_since.store(now_, kRelaxed);
}

// A descriptor that the kernel would not watch was closed, or replaced by a file that cannot be
// waited for, since its event was added. Its owner finds that in the call it makes.
void Base::report_refused() {
  while (!refused_.empty() && fits(descriptor(refused_.back()).count, kRingForReady)) {
    const Ready ready{refused_.back(), kRead | kWrite};
    refused_.pop_back();
    // The report may have waited for the ring, and the number been opened and accepted since.
    if (changes_.in_kernel(ready.fd) != 0) continue;
    std::uint32_t found = 0;
    if (descriptor(ready.fd).count > 0) activate_descriptor(ready, &found);
  }
}

void Base::drain_ready(std::uint32_t* found) {
  ready_left_ = false;
  while (!told_all()) {
    const Ready& ready = ready_[ready_at_];
    // An edge that was told to some of a descriptor's events would not be reported to the others.
    if (!fits(descriptor(ready.fd).count, kRingForReady)) break;
    ++ready_at_;
    activate_descriptor(ready, found);
  }
  ready_left_ = !told_all();
}

bool Base::fits(std::uint32_t records, std::uint32_t limit) const {
  return static_cast<std::uint32_t>(page_->ready) + records <= limit;
}

// What the kernel has reported and nobody was told yet ends with the events that it was for: the
// number may have another descriptor by the next turn.
void Base::narrow_ready(int fd, Mask mask) {
  for (std::size_t i = ready_at_; i < ready_count_; ++i)
    if (ready_[i].fd == fd) ready_[i].what &= mask;
}

void Base::activate_descriptor(const Ready& ready, std::uint32_t* found) {
  const Key& key = descriptor(ready.fd);
  const bool edge = (changes_.in_kernel(ready.fd) & kEdge) != 0;
  switch (key.special) {
    case Special::kExternal:
      *found |= kFoundExternal;
      return;
    case Special::kWaker:
      if (!edge) inbox_->waker().drain();
      return;
    case Special::kSignals:
      if (!edge) signal_box_->waker().drain();
      return;
    case Special::kNo:
      // An error is reported as READ|WRITE. Those who wait for CLOSED alone are told of it too, or
      // a level-triggered wait would return at once for ever.
      if (!tell(key.first, ready.what) && (ready.what & (kRead | kWrite))) tell(key.first, kClosed);
      return;
  }
}

// Fires the events of a descriptor, from `first` on, that wait for what is ready.
bool Base::tell(std::uint32_t first, Mask ready) {
  bool told = false;
  for (std::uint32_t slot = first; slot != kNone;) {
    const Event& event = events_[slot];
    const std::uint32_t next = event.next;
    const Mask what = ready & event.mask & kIoMask;
    if (what != 0) {
      told = true;
      fire(slot, what | (event.mask & kEdge));
    }
    slot = next;
  }
  return told;
}

// Answers whether all that were pending have been told.
bool Base::drain_signals() {
  if (signal_box_ == nullptr) return true;
  for (std::uint64_t left = signal_box_->pending(); left != 0; left &= left - 1) {
    const int signal = std::countr_zero(left) + 1;
    const Key& key = signals_[signal];
    // For an event that may come back, whose callback has yet to run: it stays in the box.
    if (key.count == 0) continue;
    // It stays in the box, and the next turn does not block.
    if (!fits(key.count, kRingRecords)) return false;
    const std::uint32_t calls = std::min(signal_box_->take(signal), kCallsMax);
    for (std::uint32_t slot = key.first; slot != kNone && calls > 0;) {
      const std::uint32_t next = events_[slot].next;
      fire(slot, kSignal, calls);
      slot = next;
    }
  }
  return true;
}

void Base::expire_timers() {
  timers_.gather(now_);
  while (!timers_.empty() && fits(1, kRingRecords)) {
    const Timers::Due due = timers_.first();
    if (due.deadline > now_) return;
    // Of a million events, the next one is in no cache.
    timers_.visit_next([this](std::uint32_t slot) { __builtin_prefetch(&events_[slot]); });
    fire(due.owner, kTimeout);
  }
}

// Writes the record and does what libevent does before a callback: an event that is not persistent
// is removed, one that is and has an interval starts its next (event.c, event_persist_closure: from
// the last scheduled time if it fired by it, else from now; ticks in the past are dropped).
void Base::fire(std::uint32_t slot, Mask what, std::uint32_t calls) {
  Event& event = events_[slot];
  // One record tells all that became true: starting the timer anew would lose that it ran out.
  if (timers_.contains(slot) && timers_.deadline(slot) <= now_) what |= kTimeout;
  ML_CHECK(fits(1, kRingRecords));
  page_->ring[page_->ready++] = {id_of(slot), what | calls << kCallsShift};
  if (!(event.mask & kPersist)) {
    take_out(slot, false);
    return;
  }
  if (event.interval == kForever) {
    if (what & kTimeout) remove_timer(id_of(slot));
    return;
  }
  const Micros from = (what & kTimeout) ? timers_.deadline(slot) : now_;
  Micros next = from + event.interval;
  if (next <= now_) next = now_ + std::max<Micros>(event.interval, 1);
  timers_.set(slot, next, event.common);
}

void Base::drain_inbox() {
  if (inbox_ == nullptr) return;
  drop_posts();
  Message message;
  while (page_->messages < static_cast<int>(kMessagesPerTurn) && inbox_->pop(&message)) {
    const auto at = static_cast<std::uint32_t>(page_->messages);
    int fd = -1;
    if (message.id != kNoConnection) {
      // From here on the descriptor is this loop's, and its release would find it.
      if (!Ledger::take(message.id, inbox_->handle())) {
        free_message(message);
        continue;
      }
      fd = Ledger::fd(message.id);
      inbox_->counters().opened.fetch_add(1, std::memory_order_relaxed);
      if (inbox_->has_numbers()) inbox_->set_traffic(fd, Ledger::traffic(message.id));
      if (message.kind == MessageKind::kRescued) inbox_->arrives_at_boundary(fd);
      if (message.kind == MessageKind::kMove || message.kind == MessageKind::kRescued)
        inbox_->counters().moved_in.fetch_add(1, std::memory_order_relaxed);
    }
    posts_[at] = {message.bytes, message.length, message.sent};
    page_->inbox[at] = {static_cast<double>(message.kind), static_cast<double>(message.from),
                        static_cast<double>(message.id), static_cast<double>(fd)};
    ++page_->messages;
  }
}

Base::Post Base::take_post(std::uint32_t index) {
  if (index >= kMessagesPerTurn) return {};
  const Post post = posts_[index];
  posts_[index] = {};
  if (post.sent != 0 && inbox_ != nullptr)
    inbox_->handoff_latency().record(monotonic_now() - post.sent);
  return post;
}

void Base::drop_posts() {
  for (Post& post : posts_) {
    std::free(post.bytes);
    post = {};
  }
}

Micros Base::now() {
  if (page_->time_cached != 0) return now_;
  now_ = monotonic_now();
  page_->now = static_cast<double>(now_);
  return now_;
}

void Base::update_time() {
  now_ = monotonic_now();
  page_->now = static_cast<double>(now_);
  page_->time_cached = 1;
}

}  // namespace multiloop
