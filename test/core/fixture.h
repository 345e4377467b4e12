// What the core's tests share: descriptors that close themselves, waiting for a condition, random
// numbers that repeat, and a base with its page for every backend × waker of this build.
#pragma once

#include <sched.h>
#include <sys/resource.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../../native/core/base.h"
#include "../../native/core/sys.h"
#include "check.h"
#include "fakes.h"

namespace multiloop::test {

// How long a condition may take before the test gives up on it.
constexpr Micros kPatience = 20'000'000;

// Lets other threads run until `condition` holds.
template <typename Condition>
bool await(Condition condition) {
  const Micros limit = monotonic_now() + kPatience;
  while (!condition()) {
    if (monotonic_now() > limit) return false;
    sched_yield();
  }
  return true;
}

// Keeps the thread busy until then.
void let_pass(Micros moment);

// Where threads meet before they race.
class Gate {
 public:
  explicit Gate(int threads) : missing_(threads) {}
  void pass() {
    missing_.fetch_sub(1);
    while (missing_.load() > 0) sched_yield();
  }

 private:
  std::atomic<int> missing_;
};

// Runs both at once; the first runs on a thread of its own.
template <typename First, typename Second>
void race(First first, Second second) {
  Gate gate(2);
  std::thread other([&] {
    gate.pass();
    first();
  });
  gate.pass();
  second();
  other.join();
}

// The rounds of a race, of which more find more: as many as asked for, or as many as fit into a
// moment on a machine that is busy with something else.
class Rounds {
 public:
  explicit Rounds(int most) : most_(most), end_(monotonic_now() + 250'000) {}
  bool next() { return ++round_ < most_ && (round_ < 20 || monotonic_now() < end_); }
  // Of this round, from 0; after the last, how many there were.
  int round() const { return round_; }

 private:
  const int most_;
  const Micros end_;
  int round_ = -1;
};

// Random numbers (xorshift64*), the same in every run. ML_TEST_SEED asks for others; a test that
// uses them prints the seed.
class Random {
 public:
  Random();
  std::uint32_t below(std::size_t limit);

 private:
  std::uint64_t state_ = 20'250'119;
};

// A descriptor that is closed in the end, unless it was released.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() { close(); }
  operator int() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void close();

 private:
  int fd_;
};

// Two connected sockets.
struct Pair {
  Fd near, far;
  Pair();
  Pair(Pair&& other) noexcept;
  ~Pair();
};

// The same over TCP, where close(2) can send a reset.
struct TcpPair {
  Fd near, far;
  TcpPair();
};

// The soft limit of descriptors, for as long as this lives.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t limit);
  ~DescriptorLimit();

 private:
  rlimit before_{};
};

void send_byte(int fd);
void drain(int fd);
// What a blocking read meets: how many bytes, 0 at the end, or -errno.
long read_some(int fd);
// How many descriptors this process has open.
int count_fds();

// A backend of this build may not work on this machine: the kernel or a sandbox then says so, and
// this answers null.
std::unique_ptr<Backend> make_backend(const BackendType& type);

// The wakers that are for any backend: those with a descriptor.
std::vector<Waker::Kind> waker_kinds();

// A base as the binding drives it. After every poll() all structures are walked.
class Rig {
 public:
  Rig(const BackendType& type, std::unique_ptr<Backend> backend,
      Waker::Kind waker = Waker::preferred());
  ~Rig();

  bool has(std::uint8_t feature) const;
  EventId create(int fd, Mask mask);
  EventId add(int fd, Mask mask, Micros timeout = kForever, CommonId common = kNoCommon);
  Mask pending(EventId id);
  Micros remaining(EventId id);

  std::uint32_t poll(Micros timeout = 0);
  // The next turn as a drive makes it, but it blocks no longer than a test may wait.
  std::uint32_t turn();

  // What the last poll() told about one event, how often, in what order, and when that was.
  Mask told(EventId id) const;
  int times(EventId id) const;
  std::vector<EventId> order() const;
  // How often its signal came, in the records of the last poll().
  std::uint32_t calls(EventId id) const;
  Micros now() const;

  // Makes an inbox and attaches it; the rig gives it back.
  Inbox* attach(std::uint32_t capacity);

  const BackendType& type;
  const Waker::Kind waker;
  const std::unique_ptr<Page> page;
  FakeSignals signals;
  const std::unique_ptr<Base> base;

 private:
  Inbox* inbox_ = nullptr;
};

// Turns until the event is told; what it was told, or 0.
Mask turn_until(Rig& rig, EventId id);
// Whether a wait lasts, and finds nothing.
constexpr Micros kNap = 2'000;
bool sleeps(Rig& rig);

bool add_for_each_base(const char* file, const std::string& name, void (*body)(Rig& rig));

}  // namespace multiloop::test

// A test of an event base, registered for every backend × waker.
#define TEST_EACH_BASE(name)                                       \
  static void name(::multiloop::test::Rig& rig);                   \
  [[maybe_unused]] static const bool registered_##name =           \
      ::multiloop::test::add_for_each_base(__FILE__, #name, name); \
  static void name(::multiloop::test::Rig& rig)
