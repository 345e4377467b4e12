#include "descriptors.h"

#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

void (*listeners[emulation::kListenersMax])(int fd);
int count = 0;

void tell(int fd) {
  for (int i = 0; i < count; ++i) listeners[i](fd);
}

}  // namespace

// The names are the linker's: it resolves `close` to __wrap_close, and __real_close to `close`.
extern "C" {

int __real_close(int fd);
int __real_dup2(int from, int to);
int __real_dup3(int from, int to, int flags);
int __wrap_close(int fd);
int __wrap_dup2(int from, int to);
int __wrap_dup3(int from, int to, int flags);

int __wrap_close(int fd) {
  tell(fd);
  return __real_close(fd);
}

int __wrap_dup2(int from, int to) {
  if (from != to) tell(to);
  return __real_dup2(from, to);
}

int __wrap_dup3(int from, int to, int flags) {
  if (from != to) tell(to);
  return __real_dup3(from, to, flags);
}
}

namespace emulation {

bool before_close(void (*listener)(int fd)) {
  // Of preload/close.cc, where it was loaded.
  using Register = bool (*)(void (*)(int));
  if (void* found = dlsym(RTLD_DEFAULT, "emulation_before_close"))
    return reinterpret_cast<Register>(found)(listener);
  if (count == kListenersMax) return false;
  listeners[count++] = listener;
  return true;
}

// Past everybody who listens: they would be told of it while they hold their locks. Where the
// library is loaded, `close` is its own; elsewhere a sanitizer has to see that the number is free.
void close_own(int fd) {
  if (dlsym(RTLD_DEFAULT, "emulation_before_close") == nullptr)
    static_cast<void>(__real_close(fd));
  else
    syscall(SYS_close, fd);
}

}  // namespace emulation
