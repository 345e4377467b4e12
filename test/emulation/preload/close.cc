// A library that is loaded before all others (LD_PRELOAD) into a process with the emulated addon:
// Node closes descriptors too, and the emulations have to hear of it (../descriptors.h). It takes
// the place of the C library's close, dup2, dup3 and syscall, which libuv closes with on Linux
// (libuv, src/unix/core.c, uv__close_nocancel).
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>

namespace {

constexpr int kListenersMax = 4;
void (*listeners[kListenersMax])(int fd);
int count = 0;
// A listener closes descriptors of its own.
thread_local bool telling = false;

void tell(int fd) {
  if (telling) return;
  telling = true;
  for (int i = 0; i < count; ++i) listeners[i](fd);
  telling = false;
}

using Syscall = long (*)(long number, ...);

// Without a guarded static: this library needs nothing of C++'s own, which Node has inside.
std::atomic<Syscall> found{nullptr};

Syscall next() {
  Syscall it = found.load(std::memory_order_relaxed);
  if (it != nullptr) return it;
  it = reinterpret_cast<Syscall>(dlsym(RTLD_NEXT, "syscall"));
  found.store(it, std::memory_order_relaxed);
  return it;
}

}  // namespace

extern "C" {

bool emulation_before_close(void (*listener)(int fd));
bool emulation_before_close(void (*listener)(int fd)) {
  if (count == kListenersMax) return false;
  listeners[count++] = listener;
  return true;
}

int close(int fd) {
  tell(fd);
  return static_cast<int>(next()(SYS_close, fd));
}

int dup3(int from, int to, int flags) noexcept {
  if (from != to) tell(to);
  return static_cast<int>(next()(SYS_dup3, from, to, flags));
}

int dup2(int from, int to) noexcept {
  if (from != to) return dup3(from, to, 0);
  return fcntl(from, F_GETFD) == -1 ? -1 : to;
}

// Whatever the call takes, six registers are passed on, as the C library does.
long syscall(long number, ...) noexcept {
  long values[6];
  va_list list;
  va_start(list, number);
  for (long& value : values) value = va_arg(list, long);
  va_end(list);
  if (number == SYS_close) tell(static_cast<int>(values[0]));
  return next()(number, values[0], values[1], values[2], values[3], values[4], values[5]);
}
}
