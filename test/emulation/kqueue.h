// What the emulated kqueue tells tests about itself, and how they make it fail.
#pragma once

namespace emulation {

// How often kevent(2) was called in this process.
int kevent_calls();
// How many changes those calls were given.
int kevent_changes();
// The next `count` new knotes of any kqueue are refused with `error`, as by a kernel out of memory.
void refuse_knotes(int error, int count);

}  // namespace emulation
