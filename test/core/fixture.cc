#include "fixture.h"

#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <deque>

#include "../../native/core/made.h"

namespace multiloop::test {

void let_pass(Micros moment) {
  while (monotonic_now() < moment) sched_yield();
}

Random::Random() {
  const char* asked = std::getenv("ML_TEST_SEED");
  if (asked) state_ = std::strtoul(asked, nullptr, 10) | 1;
  std::printf("(seed %llu) ", static_cast<unsigned long long>(state_));
}

std::uint32_t Random::below(std::size_t limit) {
  state_ ^= state_ >> 12;
  state_ ^= state_ << 25;
  state_ ^= state_ >> 27;
  const std::uint64_t high = state_ * 0x2545'f491'4f6c'dd1dULL >> 32;
  return static_cast<std::uint32_t>(high * limit >> 32);
}

// ── descriptors ─────────────────────────────────────────────────────────────────────────────

void Fd::close() {
  if (fd_ >= 0) EXPECT_EQ(sys::close(fd_), 0);
  fd_ = -1;
}

Pair::Pair() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(sys::socket_pair(ends), 0);
  near = Fd(ends[0]);
  far = Fd(ends[1]);
  // As if somebody else had made them: a base tries such a number at once.
  sys::unmake(near);
  sys::unmake(far);
}

Pair::Pair(Pair&& other) noexcept = default;
Pair::~Pair() = default;

TcpPair::TcpPair() {
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

DescriptorLimit::DescriptorLimit(rlim_t limit) {
  EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
  rlimit lower = before_;
  lower.rlim_cur = limit;
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &lower), 0);
}

DescriptorLimit::~DescriptorLimit() { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

void send_byte(int fd) { EXPECT_EQ(sys::write(fd, "x", 1), 1); }

void drain(int fd) {
  char bytes[4'096];
  while (sys::read(fd, bytes, sizeof bytes) > 0) {
  }
}

long read_some(int fd) {
  char bytes[64];
  long count = -EAGAIN;
  EXPECT_TRUE(await([&] { return (count = sys::recv(fd, bytes, sizeof bytes)) != -EAGAIN; }));
  return count;
}

int count_fds() {
  DIR* folder = opendir("/proc/self/fd");
  int count = -1;  // the folder's own
  while (const dirent* entry = readdir(folder)) count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

// ── bases ───────────────────────────────────────────────────────────────────────────────────

std::unique_ptr<Backend> make_backend(const BackendType& type) {
  int error = 0;
  std::unique_ptr<Backend> made = type.create(&error);
  EXPECT_EQ(made == nullptr, error < 0);
  if (made == nullptr) std::printf("(no %s here: %d) ", type.name, error);
  return made;
}

Rig::Rig(const BackendType& its_type, std::unique_ptr<Backend> backend, Waker::Kind its_waker)
    : type(its_type),
      waker(its_waker),
      page(std::make_unique<Page>()),
      base(std::make_unique<Base>(its_type, std::move(backend), page.get(),
                                  BaseOptions{its_waker, &signals})) {}

Rig::~Rig() {
  if (inbox_ == nullptr) return;
  base->detach();
  inbox_->close();
  inbox_->unref();
}

bool Rig::has(std::uint8_t feature) const { return (type.features & feature) != 0; }

EventId Rig::create(int fd, Mask mask) {
  EventId id = 0;
  EXPECT_EQ(base->create(fd, mask, &id), 0);
  return id;
}

EventId Rig::add(int fd, Mask mask, Micros timeout, CommonId common) {
  const EventId id = create(fd, mask);
  EXPECT_EQ(base->add(id, timeout, common), 0);
  return id;
}

Mask Rig::pending(EventId id) {
  Micros remaining = 0;
  const int mask = base->pending(id, &remaining);
  EXPECT_TRUE(mask >= 0);
  return static_cast<Mask>(mask);
}

Micros Rig::remaining(EventId id) {
  Micros remaining = 0;
  EXPECT_TRUE(base->pending(id, &remaining) >= 0);
  return remaining;
}

std::uint32_t Rig::poll(Micros timeout) {
  const std::uint32_t found = base->poll(timeout);
  base->check();
  EXPECT_EQ((found & kFoundWork) != 0, page->ready > 0 || page->messages > 0);
  return found;
}

std::uint32_t Rig::turn() {
  base->end_of_pass();
  const Micros timeout = base->next_timeout();
  return poll(timeout < 0 ? kPatience : std::min(timeout, kPatience));
}

Mask Rig::told(EventId id) const {
  Mask what = 0;
  for (int i = 0; i < page->ready; ++i)
    if (page->ring[i].event == id) what |= static_cast<Mask>(page->ring[i].what);
  return what;
}

int Rig::times(EventId id) const {
  int count = 0;
  for (int i = 0; i < page->ready; ++i) count += page->ring[i].event == id;
  return count;
}

std::vector<EventId> Rig::order() const {
  std::vector<EventId> ids;
  for (int i = 0; i < page->ready; ++i) ids.push_back(page->ring[i].event);
  return ids;
}

std::uint32_t Rig::calls(EventId id) const {
  std::uint32_t count = 0;
  for (int i = 0; i < page->ready; ++i)
    if (page->ring[i].event == id) count += page->ring[i].what >> kCallsShift;
  return count;
}

Micros Rig::now() const { return static_cast<Micros>(page->now); }

std::vector<Waker::Kind> waker_kinds() {
  std::vector<Waker::Kind> kinds;
  for (const WakerType& type : waker_types())
    if (type.backend == nullptr) kinds.push_back(type.kind);
  return kinds;
}

Inbox* Rig::attach(std::uint32_t capacity) {
  InboxHandle handle = kNoInbox;
  EXPECT_EQ(Inbox::create(capacity, waker, kNoInbox, &handle), 0);
  inbox_ = Inbox::attach(handle);
  Inbox::release_creator(handle);
  if (EXPECT_TRUE(inbox_ != nullptr)) EXPECT_EQ(base->attach(inbox_), 0);
  return inbox_;
}

Mask turn_until(Rig& rig, EventId id) {
  const Micros limit = monotonic_now() + kPatience;
  while (monotonic_now() < limit) {
    rig.turn();
    if (const Mask what = rig.told(id)) return what;
  }
  return 0;
}

bool sleeps(Rig& rig) {
  const Micros begin = monotonic_now();
  return rig.poll(kNap) == 0 && monotonic_now() - begin >= kNap;
}

namespace {

struct RigTest {
  const BackendType* type;
  Waker::Kind waker;
  void (*body)(Rig& rig);

  static void run(const void* argument) {
    const auto* test = static_cast<const RigTest*>(argument);
    std::unique_ptr<Backend> backend = make_backend(*test->type);
    if (backend == nullptr) return;
    Rig rig(*test->type, std::move(backend), test->waker);
    test->body(rig);
  }
};

}  // namespace

bool add_for_each_base(const char* file, const std::string& name, void (*body)(Rig& rig)) {
  // They stay where they are for as long as the process.
  static std::deque<RigTest> tests;
  for (const BackendType& type : backend_types()) {
    for (const WakerType& waker : waker_types()) {
      if (!waker.fits(type.name)) continue;
      tests.push_back({&type, waker.kind, body});
      const std::string full = name + " [" + type.name + ", " + waker.name + "]";
      check::add(file, full, RigTest::run, &tests.back());
    }
  }
  return true;
}

}  // namespace multiloop::test
