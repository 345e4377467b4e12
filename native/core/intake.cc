#ifndef _WIN32

#include "intake.h"

#include <cerrno>

#include "acceptor.h"
#include "sys.h"

namespace multiloop {

int take_in(ConnectionId listener, InboxHandle owner, ConnectionId* out) {
  if (!Ledger::listens(listener, owner)) return -ESTALE;
  sys::SockAddr peer;
  const int fd = acceptor::accept_next(Ledger::fd_of(listener), &peer);
  if (fd < 0) return fd;
  const QuotaHandle quota = Ledger::quota(listener);
  if (!Quota::take(quota)) {
    sys::reset_on_close(fd);
    sys::close(fd);
    return 0;
  }
  const int status = Ledger::adopt(fd, owner, Ledger::listener(listener), peer, out, quota);
  if (status == 0) return 1;
  Quota::give(quota);
  sys::close(fd);
  return status;
}

int turn_away(ConnectionId listener, int max) {
  const acceptor::Refusals done =
      acceptor::refuse(Ledger::fd_of(listener), Ledger::reserve(listener), max);
  Ledger::set_reserve(listener, done.reserve);
  return done.count;
}

void keep_reserve(ConnectionId listener) {
  if (Ledger::reserve(listener) < 0) Ledger::set_reserve(listener, acceptor::open_reserve());
}

}  // namespace multiloop

#endif
