// Accepting straight into the ledger: from a listening socket that is in it, by whoever owns that,
// within the group's quota. Any thread may call; a listening socket has one owner.
#pragma once

#include "ledger.h"

namespace multiloop {

// The next connection. 1: it is `owner`'s, and `out` is its id; 0: it was closed at once, with a
// reset, since the group has as many as it may; -ESTALE: `owner` does not own the listening socket
// any more; else the -errno of accept(2), -EAGAIN when nobody waits.
[[nodiscard]] int take_in(ConnectionId listener, InboxHandle owner, ConnectionId* out);

// For want of descriptors: closes up to `max` who wait, by the listening socket's reserve
// (acceptor.h, refuse), and answers how many. The owner's.
int turn_away(ConnectionId listener, int max);
// Has the reserve opened if there is none. The owner's.
void keep_reserve(ConnectionId listener);

}  // namespace multiloop
