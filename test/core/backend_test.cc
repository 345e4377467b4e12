// The contract of a backend (backend.h), for every backend of this build.
#include "../../native/core/backend.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <deque>
#include <map>
#include <set>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

// One backend with its last answer.
struct Subject {
  const BackendType& type;
  const std::unique_ptr<Backend> backend;
  std::vector<Ready> ready;

  bool has(std::uint8_t feature) const { return (type.features & feature) != 0; }
  int change(int fd, Mask before, Mask after) { return backend->change(fd, before, after); }
  int wait(Micros timeout = 0, std::size_t room = 64) {
    ready.assign(room, Ready{-1, 0});
    const int count = backend->wait(timeout, ready);
    ready.resize(static_cast<std::size_t>(std::max(count, 0)));
    return count;
  }
  // What the last wait answered for one descriptor.
  int mask(int fd) const {
    int mask = 0;
    for (const Ready& one : ready)
      if (one.fd == fd) mask |= one.what;
    return mask;
  }
};

struct SubjectTest {
  const BackendType* type;
  void (*body)(Subject& subject);

  static void run(const void* argument) {
    const auto* test = static_cast<const SubjectTest*>(argument);
    Subject subject{*test->type, make_backend(*test->type), {}};
    if (subject.backend != nullptr) test->body(subject);
  }
};

bool add_for_each_backend(const std::string& name, void (*body)(Subject& subject)) {
  static std::deque<SubjectTest> tests;
  for (const BackendType& type : backend_types()) {
    tests.push_back({&type, body});
    check::add(__FILE__, name + " [" + type.name + "]", SubjectTest::run, &tests.back());
  }
  return true;
}

#define TEST_EACH_BACKEND(name)                                                      \
  void name(Subject& subject);                                                       \
  [[maybe_unused]] const bool registered_##name = add_for_each_backend(#name, name); \
  void name(Subject& subject)

TEST_EACH_BACKEND(tells_what_is_ready_and_nothing_else) {
  const Pair pair;
  EXPECT_EQ(subject.change(pair.near, 0, kRead), 0);
  EXPECT_EQ(subject.wait(), 0);
  send_byte(pair.far);
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(pair.near), kRead);
  EXPECT_EQ(subject.change(pair.near, kRead, kWrite), 0);
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(pair.near), kWrite);
  EXPECT_EQ(subject.change(pair.near, kWrite, kRead | kWrite), 0);
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(pair.near), kRead | kWrite);
  drain(pair.near);
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(pair.near), kWrite);
  EXPECT_EQ(subject.change(pair.near, kRead | kWrite, 0), 0);
  EXPECT_EQ(subject.wait(), 0);
}

TEST_EACH_BACKEND(agrees_with_poll_after_random_changes) {
  Random random;
  std::vector<Pair> pairs(12);
  std::map<int, Mask> interest;
  for (int round = 0; round < 2'000; ++round) {
    const Pair& pair = pairs[random.below(pairs.size())];
    const int fd = pair.near;
    switch (random.below(4)) {
      case 0:
        send_byte(pair.far);
        break;
      case 1:
        drain(fd);
        break;
      default: {
        const auto after = static_cast<Mask>(random.below(4) << 1);
        EXPECT_EQ(subject.change(fd, interest[fd], after), 0);
        interest[fd] = after;
      }
    }
    std::set<std::pair<int, int>> expected;
    for (const auto& [watched, mask] : interest) {
      pollfd one{watched, POLLIN | POLLOUT, 0};
      EXPECT_TRUE(::poll(&one, 1, 0) >= 0);
      int what = (one.revents & POLLIN) && (mask & kRead) ? kRead : 0;
      what |= (one.revents & POLLOUT) && (mask & kWrite) ? kWrite : 0;
      if (what != 0) expected.insert({watched, what});
    }
    subject.wait();
    std::set<std::pair<int, int>> told;
    for (const Ready& one : subject.ready) told.insert({one.fd, one.what});
    if (!EXPECT_TRUE(told == expected)) return;
  }
}

TEST_EACH_BACKEND(waits_as_long_as_it_is_told_and_no_less) {
  const Pair pair;
  EXPECT_EQ(subject.change(pair.near, 0, kRead), 0);
  for (const Micros timeout : {Micros{300}, Micros{5'000}, Micros{20'000}}) {
    const Micros begin = monotonic_now();
    EXPECT_EQ(subject.wait(timeout), 0);
    EXPECT_TRUE(monotonic_now() - begin >= timeout);
  }
  // Without a limit it waits for another thread.
  race([&] { send_byte(pair.far); }, [&] { EXPECT_EQ(subject.wait(kForever), 1); });
}

TEST_EACH_BACKEND(a_signal_ends_a_wait_without_an_error) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) {};
  EXPECT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  const pthread_t waiter = pthread_self();
  std::atomic<bool> ended{false};
  // Sent until the wait has ended, since the first may arrive before it has begun.
  std::thread sender([&] {
    while (!ended.load()) {
      pthread_kill(waiter, SIGUSR1);
      sched_yield();
    }
  });
  EXPECT_EQ(subject.wait(kPatience), 0);
  ended.store(true);
  sender.join();
  EXPECT_EQ(sigaction(SIGUSR1, &before, nullptr), 0);
}

TEST_EACH_BACKEND(descriptors_behind_a_full_answer_are_told_next) {
  const Pair pair;
  send_byte(pair.far);
  std::vector<Fd> copies;
  for (int i = 0; i < 10; ++i) copies.emplace_back(sys::dup(pair.near));
  for (const Fd& fd : copies) EXPECT_EQ(subject.change(fd, 0, kRead), 0);
  // All of them are always ready; four answers of three must have told each.
  for (int round = 0; round < 20; ++round) {
    std::set<int> seen;
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(subject.wait(0, 3), 3);
      for (const Ready& one : subject.ready) seen.insert(one.fd);
    }
    if (!EXPECT_EQ(seen.size(), copies.size())) return;
  }
  for (const Fd& fd : copies) EXPECT_EQ(subject.change(fd, kRead, 0), 0);
  EXPECT_EQ(subject.wait(), 0);
}

TEST_EACH_BACKEND(a_descriptor_that_is_not_open_is_refused) {
  Pair pair;
  const int number = pair.near;
  pair.near.close();
  EXPECT_EQ(subject.change(number, 0, kRead), -EBADF);
  EXPECT_EQ(subject.change(number, 0, 0), 0);
  EXPECT_EQ(subject.wait(), 0);
}

TEST_EACH_BACKEND(a_descriptor_closed_in_the_set_does_not_stop_the_others) {
  Pair closed, open;
  EXPECT_EQ(subject.change(closed.near, 0, kRead), 0);
  EXPECT_EQ(subject.change(open.near, 0, kRead), 0);
  const int number = closed.near;
  closed.near.close();
  for (int round = 0; round < 3; ++round) {
    subject.wait();
    EXPECT_EQ(subject.mask(open.near), 0);
    // epoll forgets it; poll and select tell its owner for as long as it stays.
    if (!subject.has(kFeatureConstant)) EXPECT_EQ(subject.mask(number), kRead | kWrite);
  }
  send_byte(open.far);
  subject.wait();
  EXPECT_EQ(subject.mask(open.near), kRead);
  EXPECT_EQ(subject.change(number, kRead, 0), 0);
  EXPECT_EQ(subject.wait(), 1);
}

TEST_EACH_BACKEND(many_closed_descriptors_share_a_small_answer) {
  std::vector<Pair> pairs(9);
  std::vector<int> numbers;
  for (Pair& pair : pairs) {
    EXPECT_EQ(subject.change(pair.near, 0, kRead), 0);
    numbers.push_back(pair.near);
  }
  for (std::size_t i = 0; i + 1 < pairs.size(); ++i) pairs[i].near.close();
  send_byte(pairs.back().far);
  bool told = false;
  for (int round = 0; round < 5; ++round) {
    subject.wait(0, 2);
    told = told || subject.mask(pairs.back().near) == kRead;
  }
  EXPECT_TRUE(told);
}

TEST_EACH_BACKEND(a_number_that_was_used_again_works_although_we_remember_it) {
  const Pair old;
  const int number = old.near;
  EXPECT_EQ(subject.change(number, 0, kRead), 0);
  const Pair young;
  EXPECT_EQ(dup2(young.near, number), number);
  EXPECT_EQ(subject.change(number, kRead, kRead | kWrite), 0);
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(number), kWrite);
  EXPECT_EQ(subject.change(number, kRead | kWrite, kRead), 0);
  send_byte(young.far);
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(number), kRead);
}

TEST_EACH_BACKEND(a_number_that_came_back_works_although_we_forgot_it) {
  Pair pair;
  const int number = pair.near;
  EXPECT_EQ(subject.change(number, 0, kRead), 0);
  const Fd copy(sys::dup(number));
  pair.near.close();
  // Refused by the kernel, which cannot find the number; the socket behind it is still in the set.
  EXPECT_EQ(subject.change(number, kRead, 0), 0);
  EXPECT_EQ(dup2(copy, number), number);
  const Fd again(number);
  EXPECT_EQ(subject.change(number, 0, kRead), 0);
  send_byte(pair.far);
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(number), kRead);
  EXPECT_EQ(subject.change(number, kRead, 0), 0);
  EXPECT_EQ(subject.wait(), 0);
}

TEST_EACH_BACKEND(duplicates_are_descriptors_of_their_own) {
  Pair pair;
  Fd copy(sys::dup(pair.near));
  EXPECT_EQ(subject.change(pair.near, 0, kRead), 0);
  EXPECT_EQ(subject.change(copy, 0, kRead | kWrite), 0);
  send_byte(pair.far);
  EXPECT_EQ(subject.wait(), 2);
  EXPECT_EQ(subject.mask(pair.near), kRead);
  EXPECT_EQ(subject.mask(copy), kRead | kWrite);
  EXPECT_EQ(subject.change(pair.near, kRead, 0), 0);
  pair.near.close();
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(copy), kRead | kWrite);
}

TEST_EACH_BACKEND(regular_files_are_as_the_feature_says) {
  char name[] = "/tmp/multiloop-test-XXXXXX";
  const Fd file(mkostemp(name, O_CLOEXEC));
  EXPECT_EQ(unlink(name), 0);
  const int status = subject.change(file, 0, kRead | kWrite);
  if (!subject.has(kFeatureAnyFd)) {
    EXPECT_EQ(status, -EPERM);
    EXPECT_EQ(subject.change(file, 0, 0), 0);
    return;
  }
  EXPECT_EQ(status, 0);
  EXPECT_EQ(subject.wait(kPatience), 1);
  EXPECT_EQ(subject.mask(file), kRead | kWrite);
}

TEST_EACH_BACKEND(descriptors_above_1024_work) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const Pair pair;
  for (const int number : {1'023, 1'024, 1'025, 4'999}) {
    if (static_cast<rlim_t>(number) >= limit.rlim_cur) {
      std::printf("(this process may not open descriptor %d) ", number);
      return;
    }
    const Fd high(fcntl(pair.near, F_DUPFD_CLOEXEC, number));
    if (!EXPECT_TRUE(high >= number)) return;
    EXPECT_EQ(subject.change(high, 0, kRead | kWrite), 0);
    EXPECT_EQ(subject.wait(), 1);
    EXPECT_EQ(subject.mask(high), kWrite);
    send_byte(pair.far);
    EXPECT_EQ(subject.wait(kForever), 1);
    EXPECT_EQ(subject.mask(high), kRead | kWrite);
    drain(pair.near);
    EXPECT_EQ(subject.change(high, kRead | kWrite, 0), 0);
    EXPECT_EQ(subject.wait(), 0);
  }
}

TEST_EACH_BACKEND(what_failed_changes_nothing) {
  const Pair pair;
  EXPECT_EQ(subject.change(pair.near, 0, kRead), 0);
  // A number that no process can have: refused, by whatever name the backend has for it.
  EXPECT_TRUE(subject.change((1 << 20) - 1, 0, kRead) < 0);
  EXPECT_EQ(subject.change((1 << 20) - 1, 0, 0), 0);
  send_byte(pair.far);
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(pair.near), kRead);
}

TEST_EACH_BACKEND(an_end_and_an_error_are_told_to_whoever_waits) {
  Pair ended;
  EXPECT_EQ(subject.change(ended.near, 0, kRead), 0);
  ended.far.close();
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_TRUE(subject.mask(ended.near) & kRead);
  EXPECT_EQ(subject.change(ended.near, kRead, 0), 0);

  TcpPair reset;
  EXPECT_EQ(subject.change(reset.near, 0, kRead | kWrite), 0);
  EXPECT_EQ(sys::reset_on_close(reset.far), 0);
  reset.far.close();
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(reset.near) & (kRead | kWrite), kRead | kWrite);
}

TEST_EACH_BACKEND(closed_is_told_without_reading) {
  if (!subject.has(kFeatureEarlyClose)) return;
  const Pair pair;
  EXPECT_EQ(subject.change(pair.near, 0, kClosed), 0);
  send_byte(pair.far);
  EXPECT_EQ(subject.wait(), 0);
  EXPECT_EQ(sys::shutdown_write(pair.far), 0);
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(pair.near), kClosed);
  EXPECT_EQ(subject.change(pair.near, kClosed, kClosed | kRead | kWrite), 0);
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_EQ(subject.mask(pair.near), kClosed | kRead | kWrite);
}

TEST_EACH_BACKEND(edges_are_told_once) {
  if (!subject.has(kFeatureEdge)) return;
  const Pair pair;
  EXPECT_EQ(subject.change(pair.near, 0, kRead | kEdge), 0);
  EXPECT_EQ(subject.wait(), 0);
  for (int i = 0; i < 3; ++i) {
    send_byte(pair.far);
    EXPECT_EQ(subject.wait(), 1);
    EXPECT_EQ(subject.mask(pair.near), kRead);
    EXPECT_EQ(subject.wait(), 0);
  }
}

TEST_EACH_BACKEND(its_descriptor_is_readable_exactly_when_it_has_something) {
  const int own = subject.backend->pollable_fd();
  if (own < 0) return;
  const auto readable = [&] {
    subject.backend->flush();
    pollfd one{own, POLLIN, 0};
    return ::poll(&one, 1, 0) == 1;
  };
  const Pair pair;
  EXPECT_EQ(subject.change(pair.near, 0, kRead), 0);
  EXPECT_TRUE(!readable());
  send_byte(pair.far);
  EXPECT_TRUE(readable());
  EXPECT_EQ(subject.wait(), 1);
  EXPECT_TRUE(readable());
  drain(pair.near);
  // A completion of io_uring's stays until somebody has looked.
  if (std::strcmp(subject.type.name, "io_uring") == 0) EXPECT_EQ(subject.wait(), 0);
  EXPECT_TRUE(!readable());
  EXPECT_EQ(subject.wait(), 0);
  EXPECT_TRUE(!readable());
}

}  // namespace

TEST(select_stops_where_its_sets_would_grow_too_large) {
  const BackendType* type = find_backend("select");
  if (!EXPECT_TRUE(type != nullptr)) return;
  const std::unique_ptr<Backend> backend = make_backend(*type);
  EXPECT_EQ(backend->change(65'535, 0, kRead), -EBADF);
  EXPECT_EQ(backend->change(65'536, 0, kRead), -EMFILE);
}

TEST(the_table_of_backends_names_each_once) {
  std::set<std::string> names;
  for (const BackendType& type : backend_types()) {
    EXPECT_TRUE(names.insert(type.name).second);
    EXPECT_TRUE(find_backend(type.name) == &type);
  }
  EXPECT_TRUE(names.count("epoll") == 1 && names.count("poll") == 1);
  EXPECT_TRUE(find_backend("devnull") == nullptr);
}

}  // namespace multiloop::test
