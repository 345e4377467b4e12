// What the core's tests share: descriptors that close themselves, waiting for a condition, random
// numbers that repeat, and a base with its page for every backend × waker of this build.
#pragma once

#include <sched.h>

#include <dirent.h>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "../../native/core/base.h"
#include "../../native/core/sys.h"
#include "check.h"

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

// The same numbers in every run. ML_TEST_SEED asks for others; a test that uses it prints it.
inline std::mt19937 make_random() {
  const char* asked = std::getenv("ML_TEST_SEED");
  const auto seed = static_cast<unsigned>(asked ? std::strtoul(asked, nullptr, 10) : 20'250'119);
  std::printf("(seed %u) ", seed);
  return std::mt19937(seed);
}
inline std::uint32_t below(std::mt19937& random, std::size_t limit) {
  return static_cast<std::uint32_t>(random() % limit);
}

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
  void close() {
    if (fd_ >= 0) EXPECT_EQ(sys::close(fd_), 0);
    fd_ = -1;
  }

 private:
  int fd_;
};

inline void send_byte(int fd) { EXPECT_EQ(sys::write(fd, "x", 1), 1); }
inline void drain(int fd) {
  char bytes[4'096];
  while (sys::read(fd, bytes, sizeof bytes) > 0) {
  }
}

// Two connected sockets.
struct Pair {
  Fd near, far;
  Pair() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(sys::socket_pair(ends), 0);
    near = Fd(ends[0]);
    far = Fd(ends[1]);
  }
};

// The same over TCP, where close(2) can send a reset.
struct TcpPair {
  Fd near, far;
  TcpPair() {
    sys::ListenOptions options{};
    EXPECT_EQ(sys::parse_ip("127.0.0.1", 0, &options.address), 0);
    options.backlog = 1;
    const char* failed = "";
    const Fd listener(sys::listen(options, &failed));
    sys::SockAddr address{};
    EXPECT_EQ(sys::local_address(listener, &address), 0);
    far = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto* peer = reinterpret_cast<const sockaddr*>(&address.storage);
    EXPECT_EQ(::connect(far, peer, address.length), 0);
    near = Fd(sys::accept(listener, &address));
    EXPECT_TRUE(near >= 0);
  }
};

// What a blocking read meets: how many bytes, 0 at the end, or -errno.
inline long read_some(int fd) {
  char bytes[64];
  long count = -EAGAIN;
  EXPECT_TRUE(await([&] { return (count = sys::recv(fd, bytes, sizeof bytes)) != -EAGAIN; }));
  return count;
}

// How many descriptors this process has open.
inline int count_fds() {
  DIR* folder = opendir("/proc/self/fd");
  int count = -1;  // the folder's own
  while (const dirent* entry = readdir(folder)) count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

// A backend of this build may not work on this machine; the kernel or a sandbox then says so.
inline std::unique_ptr<Backend> make_backend(const BackendType& type) {
  int error = 0;
  std::unique_ptr<Backend> made = type.create(&error);
  EXPECT_EQ(made == nullptr, error < 0);
  if (made == nullptr) std::printf("(no %s here: %d) ", type.name, error);
  return made;
}

// A base as the binding drives it. After every poll() all structures are walked.
class Rig {
 public:
  Rig(const BackendType& backend_type, std::unique_ptr<Backend> backend,
      Waker::Kind waker_kind = Waker::Kind::kEventfd)
      : type(backend_type),
        waker(waker_kind),
        page(std::make_unique<Page>()),
        base(std::make_unique<Base>(backend_type, std::move(backend), page.get())) {}
  ~Rig() {
    if (inbox_ == nullptr) return;
    base->detach();
    inbox_->close();
    inbox_->unref();
  }

  bool has(std::uint8_t feature) const { return (type.features & feature) != 0; }

  EventId create(int fd, Mask mask) {
    EventId id = 0;
    EXPECT_EQ(base->create(fd, mask, &id), 0);
    return id;
  }
  EventId add(int fd, Mask mask, Micros timeout = kForever) {
    const EventId id = create(fd, mask);
    EXPECT_EQ(base->add(id, timeout), 0);
    return id;
  }
  Mask pending(EventId id) {
    Micros remaining = 0;
    return static_cast<Mask>(base->pending(id, &remaining));
  }
  Micros remaining(EventId id) {
    Micros remaining = 0;
    EXPECT_TRUE(base->pending(id, &remaining) >= 0);
    return remaining;
  }

  std::uint32_t poll(Micros timeout = 0) {
    const std::uint32_t found = base->poll(timeout);
    base->check();
    EXPECT_EQ((found & kFoundWork) != 0, page->ready > 0 || page->messages > 0);
    return found;
  }
  // The next turn as a drive makes it, but it blocks no longer than a test may wait.
  std::uint32_t turn() {
    base->end_of_pass();
    const Micros timeout = base->next_timeout();
    return poll(timeout < 0 || timeout > kPatience ? kPatience : timeout);
  }

  // What the last poll() told about one event, how often, and how much it told in all.
  Mask told(EventId id) const {
    Mask what = 0;
    for (int i = 0; i < page->ready; ++i)
      if (page->ring[i].event == id) what |= static_cast<Mask>(page->ring[i].what);
    return what;
  }
  int times(EventId id) const {
    int count = 0;
    for (int i = 0; i < page->ready; ++i) count += page->ring[i].event == id;
    return count;
  }
  std::vector<EventId> order() const {
    std::vector<EventId> ids;
    for (int i = 0; i < page->ready; ++i) ids.push_back(page->ring[i].event);
    return ids;
  }
  Micros now() const { return static_cast<Micros>(page->now); }

  // Makes an inbox and attaches it; the rig gives it back.
  Inbox* attach(std::uint32_t capacity, InboxHandle parent = kNoInbox) {
    InboxHandle handle = kNoInbox;
    EXPECT_EQ(Inbox::create(capacity, waker, parent, &handle), 0);
    inbox_ = Inbox::attach(handle);
    Inbox::release_creator(handle);
    if (EXPECT_TRUE(inbox_ != nullptr)) EXPECT_EQ(base->attach(inbox_), 0);
    return inbox_;
  }

  const BackendType& type;
  const Waker::Kind waker;
  const std::unique_ptr<Page> page;
  const std::unique_ptr<Base> base;

 private:
  Inbox* inbox_ = nullptr;
};

using RigBody = void (*)(Rig& rig);

inline bool add_for_each_base(const char* file, const std::string& name, RigBody body) {
  for (const BackendType& type : backend_types()) {
    for (const Waker::Kind waker : {Waker::Kind::kEventfd, Waker::Kind::kPipe}) {
      const bool eventfd = waker == Waker::Kind::kEventfd;
      const std::string variant = std::string(type.name) + (eventfd ? ", eventfd" : ", pipe");
      check::add(file, name + " [" + variant + "]", [&type, waker, body] {
        std::unique_ptr<Backend> backend = make_backend(type);
        if (backend == nullptr) return;
        Rig rig(type, std::move(backend), waker);
        body(rig);
      });
    }
  }
  return true;
}

}  // namespace multiloop::test

// A test of an event base, registered for every backend × waker.
#define TEST_EACH_BASE(name)                                       \
  static void name(::multiloop::test::Rig& rig);                   \
  [[maybe_unused]] static const bool registered_##name =           \
      ::multiloop::test::add_for_each_base(__FILE__, #name, name); \
  static void name(::multiloop::test::Rig& rig)
