// Handing descriptors and messages between threads: the ledger's change of owner together with the
// message that tells the new one. These are the only functions that do both, so that the two can
// never disagree. Any thread may call them.
#pragma once

#include <cstddef>

#include "inbox.h"
#include "ledger.h"

namespace multiloop {

enum class Delivery { kOk, kFull, kGone, kNotOwner };

// Gives `id`, which `from` owns, to the loop of `to`. Not kOk: `from` still owns it. The receiver
// is not woken; wake() does that, once for a burst.
Delivery hand_off(ConnectionId id, InboxHandle from, InboxHandle to);
// The same for a live connection, with `length` bytes (copied) of what it brings along; wakes the
// receiver. The caller has taken the descriptor out of its kernel's set.
Delivery move(ConnectionId id, InboxHandle from, InboxHandle to, const void* bytes,
              std::size_t length, MessageKind kind = MessageKind::kMove);
// Sends `length` bytes (copied) to `to` and wakes it.
Delivery post(InboxHandle from, InboxHandle to, const void* bytes, std::size_t length);
void wake(InboxHandle to);
// Gives a listening socket that `from` owns to the loop of `to`, or to the coordinator. It is told
// by other means; if it ends before it hears of it, its release passes the socket on.
Delivery pass_listening(ConnectionId id, InboxHandle from, InboxHandle to);

// What a loop's thread does when it ends, for whatever reason: closes the inbox, gives descriptors
// that wait in it back to its coordinator (or closes them, when that is gone or `redistribute` is
// false), gives those it owns that are at a boundary there too and closes the others with a reset,
// gives its listening sockets there, and tells the coordinator. Idempotent per inbox.
void release_loop(Inbox* inbox, bool redistribute);

}  // namespace multiloop
