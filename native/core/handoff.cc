#include "handoff.h"

#include <cstdlib>
#include <cstring>
#include <thread>

#include "check.h"

namespace multiloop {

namespace {

Delivery delivery_of(Inbox::Push result) {
  switch (result) {
    case Inbox::Push::kOk:
      return Delivery::kOk;
    case Inbox::Push::kFull:
      return Delivery::kFull;
    case Inbox::Push::kGone:
      return Delivery::kGone;
  }
  return Delivery::kGone;
}

std::byte* copy_of(const void* bytes, std::size_t length) {
  auto* copy = static_cast<std::byte*>(std::malloc(length > 0 ? length : 1));
  ML_CHECK(copy != nullptr);
  // An empty array of JavaScript has no address.
  if (length > 0) std::memcpy(copy, bytes, length);
  return copy;
}

// A descriptor waiting in the closed inbox of `gone` goes to its coordinator, with what it brings
// along, else it is closed.
void return_descriptor(Message* message, Inbox* gone, bool redistribute) {
  const ConnectionId id = message->id;
  if (redistribute && Ledger::redirect(id, gone->handle(), gone->parent())) {
    const InboxPin parent(gone->parent());
    const bool rescued = message->kind == MessageKind::kRescued;
    const MessageKind kind = rescued ? MessageKind::kRescued : MessageKind::kReturned;
    const Message back{kind, gone->handle(), id, message->bytes, message->length};
    if (parent && parent->push(back) == Inbox::Push::kOk) {
      message->bytes = nullptr;
      return;
    }
    ML_CHECK(Ledger::close_undelivered(id, gone->parent()));
  } else {
    ML_CHECK(Ledger::close_undelivered(id, gone->handle()));
  }
  for (std::atomic<std::uint64_t>* counter :
       {&gone->counters().opened, &gone->counters().closed, &gone->counters().lost})
    counter->fetch_add(1, std::memory_order_relaxed);
}

// What the connection has moved goes along with it, past any JavaScript.
void note_traffic(ConnectionId id, InboxHandle from) {
  const InboxPin source(from);
  if (source && source->has_numbers())
    Ledger::set_traffic(id, from, source->traffic(Ledger::fd_of(id)));
}

Delivery send(ConnectionId id, InboxHandle from, InboxHandle to, MessageKind kind, std::byte* bytes,
              std::size_t length, bool wake_it) {
  const InboxPin target(to);
  if (!target) return Delivery::kGone;
  const bool fresh = kind == MessageKind::kHandoff;
  if (!fresh) note_traffic(id, from);
  if (!Ledger::send(id, from, to)) return Delivery::kNotOwner;
  const Micros sent = fresh ? monotonic_now() : 0;
  const Delivery delivery = delivery_of(target->push({kind, from, id, bytes, length, sent}));
  if (delivery != Delivery::kOk)
    ML_CHECK(Ledger::redirect(id, to, from) && Ledger::take(id, from));
  else if (wake_it)
    target->wake_sleeper();
  return delivery;
}

// A connection at a boundary outlives its loop: it goes to the coordinator, which chooses another.
bool rescue(ConnectionId id, Inbox* gone) {
  if (!gone->at_boundary(Ledger::fd(id)) || !Ledger::may_rescue(id)) return false;
  std::size_t length = 0;
  std::byte* checkpoint = Ledger::copy_checkpoint(id, &length);
  const Delivery delivery =
      send(id, gone->handle(), gone->parent(), MessageKind::kRescued, checkpoint, length, false);
  if (delivery == Delivery::kOk) return true;
  std::free(checkpoint);
  return false;
}

void settle_owned(Inbox* inbox, bool redistribute) {
  InboxCounters& counters = inbox->counters();
  const InboxHandle owner = inbox->handle();
  for (ConnectionId id = Ledger::next_owned(owner, 0); id != kNoConnection;
       id = Ledger::next_owned(owner, Ledger::fd_of(id) + 1)) {
    if (redistribute && rescue(id, inbox)) {
      counters.moved_out.fetch_add(1, std::memory_order_relaxed);
      counters.rescued.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    if (!Ledger::close(id, owner, true)) continue;
    counters.closed.fetch_add(1, std::memory_order_relaxed);
    counters.lost.fetch_add(1, std::memory_order_relaxed);
  }
}

// The connections that wait in a listening socket outlive the loop. It is closed only when nobody
// is left who could have it.
void settle_listening(const Inbox* inbox, bool redistribute) {
  const InboxHandle owner = inbox->handle();
  for (ConnectionId id = Ledger::next_listening(owner, 0); id != kNoConnection;
       id = Ledger::next_listening(owner, Ledger::fd_of(id) + 1)) {
    if (redistribute && pass_listening(id, owner, inbox->parent()) == Delivery::kOk) continue;
    Ledger::close_listening(id, owner);
  }
}

}  // namespace

Delivery hand_off(ConnectionId id, InboxHandle from, InboxHandle to) {
  return send(id, from, to, MessageKind::kHandoff, nullptr, 0, false);
}

Delivery move(ConnectionId id, InboxHandle from, InboxHandle to, const void* bytes,
              std::size_t length, MessageKind kind) {
  std::byte* copy = copy_of(bytes, length);
  const Delivery delivery = send(id, from, to, kind, copy, length, true);
  if (delivery != Delivery::kOk) {
    std::free(copy);
    return delivery;
  }
  const InboxPin source(from);
  if (source) source->counters().moved_out.fetch_add(1, std::memory_order_relaxed);
  return delivery;
}

Delivery post(InboxHandle from, InboxHandle to, const void* bytes, std::size_t length) {
  const InboxPin target(to);
  if (!target) return Delivery::kGone;
  const Message message{MessageKind::kPost, from, kNoConnection, copy_of(bytes, length), length};
  const Delivery delivery = delivery_of(target->push(message));
  if (delivery == Delivery::kOk)
    target->wake_sleeper();
  else
    free_message(message);
  return delivery;
}

Delivery pass_listening(ConnectionId id, InboxHandle from, InboxHandle to) {
  const InboxPin target(to);
  if (!target || target->closed()) return Delivery::kGone;
  if (!Ledger::pass(id, from, to)) return Delivery::kNotOwner;
  // Closed since: its release has begun, and either finds the socket or was too early for that.
  if (target->closed() && Ledger::pass(id, to, from)) return Delivery::kGone;
  return Delivery::kOk;
}

void wake(InboxHandle to) {
  const InboxPin target(to);
  if (target) target->wake_sleeper();
}

void release_loop(Inbox* inbox, bool redistribute) {
  if (!inbox->begin_release()) return;
  inbox->close();
  while (!inbox->drained()) {
    Message message;
    if (!inbox->pop(&message)) {
      // Claimed before the close, published in a moment by a thread that is running.
      std::this_thread::yield();
      continue;
    }
    if (message.id != kNoConnection) return_descriptor(&message, inbox, redistribute);
    free_message(message);
  }
  settle_listening(inbox, redistribute);
  settle_owned(inbox, redistribute);
  const InboxPin parent(inbox->parent());
  if (!parent) return;
  const Message gone{MessageKind::kReleased, inbox->handle(), kNoConnection, nullptr, 0};
  // A full inbox loses nothing here: the coordinator also learns it from the loop's task.
  static_cast<void>(parent->push(gone));
  parent->wake_sleeper();
}

}  // namespace multiloop
