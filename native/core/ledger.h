// The ledger: the process-wide table that owns every accepted descriptor. Each has exactly one
// owner, a loop named by its inbox, and exactly one place that closes it. An entry is found by its
// descriptor's number, since the kernel never gives out a number that is open; its generation
// tells later connections on the same number apart.
//
//   accept ─► owned ─► inbox ─► owned ─► closing ─► free
//             (coordinator)     (loop)
//   a group's listening socket: listening (coordinator, or the loop that accepts from it) ─► free
//
// Any thread may call any function; a transition names the owner it expects and fails when it is
// not (ABA), so two threads never both act on one descriptor.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "inbox.h"
#include "quota.h"
#include "sys.h"

namespace multiloop {

// Descriptor number (20 bits) and generation (24 bits): an exact integer of JavaScript.
using ConnectionId = std::uint64_t;
constexpr ConnectionId kNoConnection = 0;

class TlsSession;

enum class FdState : std::uint8_t { kFree, kOwned, kInbox, kMoving, kClosing, kListening };

class Ledger {
 public:
  // Takes over a descriptor for `owner`, with the place in `quota` that was taken for it. 0 or
  // -EMFILE for a number past the table.
  static int adopt(int fd, InboxHandle owner, std::uint32_t listener, const sys::SockAddr& peer,
                   ConnectionId* out, QuotaHandle quota = kNoQuota);
  // owned(from) -> inbox(to), before the message is pushed; false when `from` is not the owner.
  [[nodiscard]] static bool send(ConnectionId id, InboxHandle from, InboxHandle to);
  // inbox(by) -> owned(by), when the message is taken out.
  [[nodiscard]] static bool take(ConnectionId id, InboxHandle by);
  // inbox(from) -> inbox(to), for a message that could not be delivered and goes elsewhere.
  [[nodiscard]] static bool redirect(ConnectionId id, InboxHandle from, InboxHandle to);
  // owned(owner) -> free, and close(2); with a reset when asked. False: not the owner's.
  static bool close(ConnectionId id, InboxHandle owner, bool reset);
  // inbox(owner) -> free, for a message that cannot be delivered any more.
  static bool close_undelivered(ConnectionId id, InboxHandle owner);
  // What `owner` owns, one after another: the first entry with a descriptor from `from` on, or
  // kNoConnection.
  static ConnectionId next_owned(InboxHandle owner, int from);

  // Listening sockets. `listener` and `quota` are those of the connections that come by it. The
  // owner is who accepts from it; it is passed on, and closed by nobody else.
  static int listen(int fd, InboxHandle owner, std::uint32_t listener, QuotaHandle quota,
                    ConnectionId* out);
  [[nodiscard]] static bool listens(ConnectionId id, InboxHandle owner);
  [[nodiscard]] static bool pass(ConnectionId id, InboxHandle from, InboxHandle to);
  static bool close_listening(ConnectionId id, InboxHandle owner);
  // As next_owned().
  static ConnectionId next_listening(InboxHandle owner, int from);
  // The owner's: a descriptor that is kept to refuse connections with (acceptor.h); negative: none.
  static int reserve(ConnectionId id);
  static void set_reserve(ConnectionId id, int fd);
  static QuotaHandle quota(ConnectionId id);

  // A few bytes that stay with the connection while its threads come and go; copied. Replaces what
  // was there. False: not the owner's.
  static bool set_checkpoint(ConnectionId id, InboxHandle owner, const void* bytes,
                             std::size_t length);
  // The owner's: a copy from std::malloc, null for none.
  static std::byte* copy_checkpoint(ConnectionId id, std::size_t* length);
  // The owner's, once for each rescue: whether it was rescued less than twice in a minute.
  [[nodiscard]] static bool may_rescue(ConnectionId id);

  // What the connection has moved by the time of its last change of owner. Writing is the owner's
  // alone, and nothing happens for anybody else.
  static void set_traffic(ConnectionId id, InboxHandle owner, const Traffic& traffic);
  static Traffic traffic(ConnectionId id);
  // The connection's TLS: the entry's from now on, wherever it goes, and freed where the descriptor
  // is closed. False, and still the caller's: not the owner's, or there is one.
  [[nodiscard]] static bool set_tls(ConnectionId id, InboxHandle owner, TlsSession* session);
  // For the owner's thread; null for anybody else and for a plain connection.
  static TlsSession* tls(ConnectionId id, InboxHandle owner);

  // -1 when the entry is gone; fd_of() is the number that it had in any case.
  static int fd(ConnectionId id);
  static int fd_of(ConnectionId id);
  static bool owns(int fd);
  // Who owns the entry or will when its message arrives; kNoInbox when it is gone.
  static InboxHandle owner(ConnectionId id);
  static std::uint32_t listener(ConnectionId id);
  // False when the entry is gone or the peer has no address (a unix socket's is unnamed).
  static bool peer(ConnectionId id, sys::SockAddr* out);
  // The entries in use, one after another: the first with a descriptor from `from` on. False when
  // there is no more.
  struct Listed {
    ConnectionId id;
    InboxHandle owner;  // or will be, when its message arrives
    bool under_way;
    std::uint32_t listener;
    Micros accepted;
    Traffic traffic;  // as of its last change of owner
  };
  static bool next(int from, Listed* out);
  // How many entries are in use, over all owners. Walks the table: for tests and diagnosis.
  static std::uint32_t count();
};

}  // namespace multiloop
