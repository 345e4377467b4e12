// Other kernels take a descriptor out of every set when it is closed, where epoll keeps it while a
// duplicate lives. The emulations hear of a close before it happens: the linker puts the functions
// of descriptors.cc in the place of close, dup2 and dup3 (--wrap) in all that is linked with it. In
// a process of Node, which closes descriptors too, the library of preload/close.cc does it for all.
#pragma once

namespace emulation {

// From now on `listener` is told every descriptor that is about to be closed or replaced, on the
// thread that does it. At most kListenersMax of them, added before main(). False: no more.
constexpr int kListenersMax = 4;
bool before_close(void (*listener)(int fd));

// Closes a descriptor of the emulation's own, which nobody else knows.
void close_own(int fd);

}  // namespace emulation
