// Interest in the bits of poll(2), and back: for the backends whose kernel interface has them.
#pragma once

#include "../mask.h"
#include "../platform.h"
#include "../sockets.h"

namespace multiloop {

#ifdef ML_HAVE_POLLRDHUP
constexpr short kPollHangup = POLLRDHUP;
#else
// Nobody can ask for CLOSED, since the feature is not claimed.
constexpr short kPollHangup = 0;
#endif

constexpr short to_poll(Mask mask) {
  int events = 0;
  if (mask & kRead) events |= POLLIN;
  if (mask & kWrite) events |= POLLOUT;
  if (mask & kClosed) events |= kPollHangup;
  return static_cast<short>(events);
}

// POLLERR, POLLHUP and POLLNVAL are told unasked.
constexpr Mask from_poll(int events) {
  if (events & (POLLERR | POLLNVAL)) return kRead | kWrite;
  Mask what = 0;
  if (events & POLLIN) what |= kRead;
  if (events & POLLOUT) what |= kWrite;
  if (events & kPollHangup) what |= kClosed;
  if (events & POLLHUP) what |= kRead | kWrite;
  return what;
}

}  // namespace multiloop
