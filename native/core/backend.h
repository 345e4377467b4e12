// The contract of a backend: the kernel interface under a base. A backend knows descriptors and
// interest masks and nothing else; events, timers and handles are the base's. It belongs to its
// base's thread. One file per backend in backend/, one line per backend in backend.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "clock.h"
#include "mask.h"
#include "waker.h"

namespace multiloop {

// What a descriptor turned out to be ready for. An error or a hang-up without more detail is
// reported as READ|WRITE, so that whoever waits for either finds the error in the call it makes.
struct Ready {
  int fd;
  Mask what;
};

// Features, with libevent's values (event2/event.h, event_method_feature).
constexpr std::uint8_t kFeatureEdge = 0x01;        // edge-triggered events
constexpr std::uint8_t kFeatureConstant = 0x02;    // cost does not grow with idle descriptors
constexpr std::uint8_t kFeatureAnyFd = 0x04;       // regular files are accepted too
constexpr std::uint8_t kFeatureEarlyClose = 0x08;  // CLOSED without reading

class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;

  // Changes the kernel's interest in `fd` from `before` to `after` (kIoMask bits and kEdge; 0 is
  // none). Answers 0 or -errno; on failure the interest is as it was. `before` may be stale when
  // the descriptor was closed or duplicated meanwhile: the backend repairs that.
  [[nodiscard]] virtual int change(int fd, Mask before, Mask after) = 0;

  // As change(), where the number certainly is the file that the kernel was told of, or was before.
  // It may be told together with the coming wait, or by flush(), and is answered 0 then; what the
  // kernel refuses is out of its set, and take_refused() names it, each once, or answers -1.
  [[nodiscard]] virtual int change_later(int fd, Mask before, Mask after) {
    return change(fd, before, after);
  }
  // Of all the sets that wait for the file of `fd` in this way, the kernel is to wake one when it
  // becomes ready, where it can; elsewhere all wake, and all but one find nothing. Holds until the
  // interest in `fd` is none, or until `alone` is false.
  virtual void wake_alone(int fd, bool alone) {
    static_cast<void>(fd);
    static_cast<void>(alone);
  }
  // Tells the kernel what this backend otherwise tells it in its own wait.
  virtual void flush() {}
  // Whether flush() has something to tell.
  [[nodiscard]] virtual bool has_unflushed() const { return false; }
  // Whether what is in the set stays open after a close(2) of its descriptor.
  [[nodiscard]] virtual bool holds_files() const { return false; }
  [[nodiscard]] virtual int take_refused() { return -1; }

  // Waits for at most `timeout` (kForever: no limit) and fills `out`; answers how many, 0 on a
  // timeout or an interruption, or -errno. What did not fit is reported by the next call.
  [[nodiscard]] virtual int wait(Micros timeout, std::span<Ready> out) = 0;

  // What ends a wait from any thread without a descriptor; or null, if that takes one here.
  [[nodiscard]] virtual std::shared_ptr<const WakeTarget> wake_target() { return nullptr; }

  // A descriptor that somebody else may wait for after flush(), or -1. It is readable when wait(0)
  // would answer more than 0, or was woken; if it is without need, one wait(0) makes it quiet.
  [[nodiscard]] virtual int pollable_fd() const { return -1; }
  // How often that number has become another file: whoever waits for it registers it anew.
  [[nodiscard]] virtual std::uint32_t renewals() const { return 0; }
};

struct BackendType {
  const char* name;
  std::uint8_t features;
  // Creates one, or answers null with -errno in `error`.
  std::unique_ptr<Backend> (*create)(int* error);
  // Another kernel's (platform.h, ML_EMULATE): never chosen, only asked for by name.
  bool emulated = false;
};

// Every backend of this build, preferred first.
std::span<const BackendType> backend_types();
const BackendType* find_backend(const char* name);
// Whether each can be made here, in that order: 0 or -errno.
std::vector<int> try_backends();

// Which of them there are is up to platform.h.
std::unique_ptr<Backend> create_evport(int* error);
std::unique_ptr<Backend> create_kqueue(int* error);
std::unique_ptr<Backend> create_epoll(int* error);
std::unique_ptr<Backend> create_devpoll(int* error);
std::unique_ptr<Backend> create_poll(int* error);
std::unique_ptr<Backend> create_select(int* error);
std::unique_ptr<Backend> create_io_uring(int* error);

}  // namespace multiloop
