// The emulated event ports (test/emulation/evport.cc): that they do what the manual pages say, and
// refuse what they say.
#include <fcntl.h>
#include <poll.h>
#include <port.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

// Of a call that answers -1 with errno; 0 if it succeeded.
int error_of(int result) { return result < 0 ? errno : 0; }

timespec in_micros(Micros micros) { return {micros / 1'000'000, (micros % 1'000'000) * 1'000}; }

struct Subject {
  Fd port{port_create()};
  port_event_t events[8];
  uint_t count = 0;

  int associate(int fd, int mask, void* user = nullptr) {
    return error_of(port_associate(port, PORT_SOURCE_FD, static_cast<uintptr_t>(fd), mask, user));
  }
  int dissociate(int fd) {
    return error_of(port_dissociate(port, PORT_SOURCE_FD, static_cast<uintptr_t>(fd)));
  }
  // Takes what is there without waiting.
  uint_t take(uint_t max = 8) {
    timespec none{};
    count = 1;
    EXPECT_EQ(port_getn(port, events, max, &count, &none), 0);
    return count;
  }
  bool readable() {
    pollfd one{port, POLLIN, 0};
    return ::poll(&one, 1, 0) == 1;
  }
};

// Runs `body` in a child and answers what it answers.
template <typename Body>
int in_child(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The limit of events, for as long as this lives.
struct EventLimit {
  const uint_t before;
  explicit EventLimit(uint_t limit) : before(emulated_port::set_max_events(limit)) {}
  ~EventLimit() { emulated_port::set_max_events(before); }
};

}  // namespace

// ── what is refused ─────────────────────────────────────────────────────────────────────────

TEST(only_an_open_port_is_a_port) {
  const Pair pair;
  const Fd other_set(epoll_create1(EPOLL_CLOEXEC));
  int closed = -1;
  {
    Subject subject;
    closed = subject.port;
  }
  const auto fd = static_cast<uintptr_t>(static_cast<int>(pair.near));
  port_event_t event{};
  timespec none{};
  uint_t count = 1;
  const std::pair<int, int> cases[] = {
      {-1, EBADF}, {closed, EBADF}, {pair.near, EBADFD}, {other_set, EBADFD}};
  for (const auto& [number, error] : cases) {
    EXPECT_EQ(error_of(port_associate(number, PORT_SOURCE_FD, fd, POLLIN, nullptr)), error);
    EXPECT_EQ(error_of(port_dissociate(number, PORT_SOURCE_FD, fd)), error);
    EXPECT_EQ(error_of(port_get(number, &event, &none)), error);
    EXPECT_EQ(error_of(port_getn(number, &event, 1, &count, &none)), error);
    EXPECT_EQ(error_of(port_send(number, 1, nullptr)), error);
    EXPECT_EQ(error_of(port_alert(number, PORT_ALERT_SET, 1, nullptr)), error);
  }
}

TEST(only_open_descriptors_can_be_associated) {
  Subject subject;
  Pair pair;
  const int number = pair.near;
  const auto fd = static_cast<uintptr_t>(number);
  for (const int source : {PORT_SOURCE_AIO, PORT_SOURCE_TIMER, PORT_SOURCE_USER, PORT_SOURCE_ALERT,
                           PORT_SOURCE_MQ, 0, 99}) {
    EXPECT_EQ(error_of(port_associate(subject.port, source, fd, POLLIN, nullptr)), EINVAL);
    EXPECT_EQ(error_of(port_dissociate(subject.port, source, fd)), EINVAL);
  }
  const uintptr_t too_large = static_cast<uintptr_t>(INT_MAX) + 1;
  EXPECT_EQ(error_of(port_associate(subject.port, PORT_SOURCE_FD, too_large, POLLIN, nullptr)),
            EBADFD);
  EXPECT_EQ(error_of(port_dissociate(subject.port, PORT_SOURCE_FD, too_large)), EBADFD);
  // Before anything was associated, nobody looks whether the number is open.
  EXPECT_EQ(subject.dissociate(number), ENOENT);
  EXPECT_EQ(subject.dissociate(INT_MAX), ENOENT);
  EXPECT_EQ(subject.associate(number, POLLIN), 0);
  EXPECT_EQ(subject.dissociate(pair.far), ENOENT);
  pair.near.close();
  EXPECT_EQ(subject.associate(number, POLLIN), EBADFD);
  EXPECT_EQ(subject.dissociate(number), EBADFD);
}

TEST(an_association_is_its_owners_to_end) {
  Subject subject;
  const Pair pair;
  EXPECT_EQ(subject.associate(pair.near, POLLIN), 0);
  EXPECT_EQ(in_child([&] { return subject.dissociate(pair.near); }), EACCES);
  EXPECT_EQ(subject.dissociate(pair.near), 0);
}

TEST(a_port_takes_no_more_than_its_limit) {
  const EventLimit limit(3);
  Subject subject;
  const Pair first, second;
  Pair third;
  EXPECT_EQ(subject.associate(first.near, POLLIN), 0);
  EXPECT_EQ(subject.associate(second.near, POLLIN), 0);
  EXPECT_EQ(error_of(port_send(subject.port, 1, nullptr)), 0);
  EXPECT_EQ(subject.associate(third.near, POLLIN), EAGAIN);
  EXPECT_EQ(error_of(port_send(subject.port, 1, nullptr)), EAGAIN);
  // One that is there can be changed, and one that is sent makes room when it is taken.
  EXPECT_EQ(subject.associate(first.near, POLLPRI), 0);
  EXPECT_EQ(subject.take(), 1);
  EXPECT_EQ(subject.associate(third.near, POLLIN), 0);
  third.near.close();
  EXPECT_EQ(error_of(port_send(subject.port, 1, nullptr)), 0);
}

TEST(what_is_asked_of_a_port_must_make_sense) {
  Subject subject;
  timespec none{};
  uint_t count = 1;
  EXPECT_EQ(error_of(port_getn(subject.port, subject.events, 1, nullptr, &none)), EINVAL);
  EXPECT_EQ(error_of(port_getn(subject.port, nullptr, 1, &count, &none)), EINVAL);
  EXPECT_EQ(error_of(port_get(subject.port, nullptr, &none)), EFAULT);
  count = 2;
  EXPECT_EQ(error_of(port_getn(subject.port, subject.events, 1, &count, &none)), EINVAL);
  EXPECT_EQ(count, 2);
  // The time is looked at when there is not enough without it.
  for (timespec bad : {timespec{-1, 0}, timespec{0, -1}, timespec{0, 1'000'000'000}}) {
    count = 1;
    EXPECT_EQ(error_of(port_getn(subject.port, subject.events, 1, &count, &bad)), EINVAL);
    EXPECT_EQ(error_of(port_send(subject.port, 1, nullptr)), 0);
    EXPECT_EQ(error_of(port_getn(subject.port, subject.events, 1, &count, &bad)), 0);
  }
  // Nothing wanted is no error, and no event.
  EXPECT_EQ(error_of(port_send(subject.port, 1, nullptr)), 0);
  count = 0;
  EXPECT_EQ(port_getn(subject.port, subject.events, 8, &count, nullptr), 0);
  EXPECT_EQ(count, 0);
  // Without room it is the number of events that there are.
  count = 77;
  EXPECT_EQ(port_getn(subject.port, nullptr, 0, &count, nullptr), 0);
  EXPECT_EQ(count, 1);
}

// ── one event for one association ───────────────────────────────────────────────────────────

TEST(an_association_ends_with_its_event) {
  Subject subject;
  const Pair pair;
  int cookie = 0;
  EXPECT_EQ(subject.associate(pair.near, POLLIN, &cookie), 0);
  EXPECT_EQ(subject.take(), 0);
  EXPECT_TRUE(!subject.readable());
  send_byte(pair.far);
  EXPECT_TRUE(subject.readable());
  EXPECT_EQ(subject.take(), 1);
  EXPECT_EQ(subject.events[0].portev_source, PORT_SOURCE_FD);
  EXPECT_EQ(subject.events[0].portev_object, static_cast<uintptr_t>(int{pair.near}));
  EXPECT_EQ(subject.events[0].portev_events, POLLIN);
  EXPECT_TRUE(subject.events[0].portev_user == &cookie);
  send_byte(pair.far);
  EXPECT_EQ(subject.take(), 0);
  EXPECT_TRUE(!subject.readable());
  EXPECT_EQ(subject.associate(pair.near, POLLIN), 0);
  EXPECT_EQ(subject.take(), 1);
  EXPECT_EQ(subject.dissociate(pair.near), ENOENT);
}

TEST(what_is_in_the_queue_stays_when_it_is_no_longer_true) {
  Subject subject;
  const Pair pair, other;
  EXPECT_EQ(subject.associate(pair.near, POLLIN), 0);
  send_byte(pair.far);
  // Any call finds that it has fired.
  EXPECT_EQ(subject.associate(other.near, POLLIN), 0);
  drain(pair.near);
  EXPECT_TRUE(subject.readable());
  EXPECT_EQ(subject.take(), 1);
  EXPECT_EQ(subject.events[0].portev_events, POLLIN);
  EXPECT_TRUE(!subject.readable());
}

TEST(a_new_association_takes_back_the_event_of_the_old) {
  Subject subject;
  const Pair pair;
  int cookie = 0;
  EXPECT_EQ(subject.associate(pair.near, POLLOUT), 0);
  EXPECT_EQ(subject.associate(pair.near, POLLIN, &cookie), 0);
  EXPECT_EQ(subject.take(), 0);
  EXPECT_EQ(subject.associate(pair.near, POLLIN | POLLOUT, &cookie), 0);
  EXPECT_EQ(subject.take(), 1);
  EXPECT_EQ(subject.events[0].portev_events, POLLOUT);
  EXPECT_TRUE(subject.events[0].portev_user == &cookie);
  // Who ends one whose event was not taken had one to end.
  EXPECT_EQ(subject.associate(pair.near, POLLOUT), 0);
  EXPECT_EQ(subject.dissociate(pair.near), 0);
  EXPECT_EQ(subject.take(), 0);
  EXPECT_EQ(subject.dissociate(pair.near), ENOENT);
}

TEST(close_ends_an_association_whoever_else_has_the_file) {
  Subject subject;
  for (const bool fired : {false, true}) {
    Pair pair;
    const Pair next;
    const int number = pair.near;
    const Fd copy(sys::dup(number));
    if (fired) send_byte(pair.far);
    EXPECT_EQ(subject.associate(number, POLLIN), 0);
    EXPECT_EQ(subject.associate(copy, POLLIN), 0);
    pair.near.close();
    if (!fired) send_byte(pair.far);
    EXPECT_EQ(subject.take(), 1);
    EXPECT_EQ(subject.events[0].portev_object, static_cast<uintptr_t>(int{copy}));
    // The number is another file's, which nobody has associated.
    EXPECT_EQ(dup2(next.near, number), number);
    const Fd again(number);
    send_byte(next.far);
    EXPECT_EQ(subject.take(), 0);
    EXPECT_EQ(subject.dissociate(number), ENOENT);
    // Nor is one that comes back from its duplicate.
    EXPECT_EQ(dup2(copy, number), number);
    EXPECT_EQ(subject.take(), 0);
    EXPECT_EQ(dup2(next.near, number), number);
    EXPECT_EQ(subject.associate(number, POLLIN), 0);
    EXPECT_EQ(subject.take(), 1);
  }
}

TEST(an_end_is_told_unasked_and_files_are_always_ready) {
  Subject subject;
  Pair pair;
  EXPECT_EQ(subject.associate(pair.near, 0), 0);
  EXPECT_EQ(subject.take(), 0);
  pair.far.close();
  EXPECT_EQ(subject.take(), 1);
  EXPECT_EQ(subject.events[0].portev_events, POLLHUP);

  const Fd file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  for (const int mask : {POLLIN, POLLIN | POLLOUT}) {
    EXPECT_EQ(subject.associate(file, mask), 0);
    EXPECT_TRUE(subject.readable());
    EXPECT_EQ(subject.take(), 1);
    EXPECT_EQ(subject.events[0].portev_events, mask);
    EXPECT_EQ(subject.take(), 0);
  }
  EXPECT_EQ(subject.associate(file, 0), 0);
  EXPECT_EQ(subject.take(), 0);
  EXPECT_EQ(subject.dissociate(file), 0);
}

// ── waiting ─────────────────────────────────────────────────────────────────────────────────

TEST(when_the_time_is_over_what_there_is_is_handed_out) {
  Subject subject;
  for (const uint_t there : {0U, 1U}) {
    if (there == 1) EXPECT_EQ(error_of(port_send(subject.port, 7, nullptr)), 0);
    timespec limit = in_micros(2'000);
    subject.count = 2;
    const Micros begin = monotonic_now();
    EXPECT_EQ(error_of(port_getn(subject.port, subject.events, 8, &subject.count, &limit)), ETIME);
    EXPECT_TRUE(monotonic_now() - begin >= 2'000);
    EXPECT_EQ(subject.count, there);
  }
  // One that asks for one event gets it or none; without time it succeeds without (Sun bug
  // 6456558).
  timespec limit = in_micros(1'000);
  EXPECT_EQ(error_of(port_get(subject.port, subject.events, &limit)), ETIME);
  limit = {};
  subject.events[0].portev_source = 0;
  EXPECT_EQ(error_of(port_get(subject.port, subject.events, &limit)), 0);
  EXPECT_EQ(subject.events[0].portev_source, 0);
}

TEST(a_signal_ends_a_wait_and_leaves_the_count) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) {};
  EXPECT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  Subject subject;
  const pthread_t waiter = pthread_self();
  std::atomic<bool> ended{false};
  std::thread sender([&] {
    while (!ended.load()) {
      pthread_kill(waiter, SIGUSR1);
      sched_yield();
    }
  });
  subject.count = 3;
  EXPECT_EQ(error_of(port_getn(subject.port, subject.events, 8, &subject.count, nullptr)), EINTR);
  EXPECT_EQ(subject.count, 3);
  ended.store(true);
  sender.join();
  EXPECT_EQ(sigaction(SIGUSR1, &before, nullptr), 0);
}

TEST(who_waits_for_more_is_not_content_with_less) {
  Subject subject;
  const Pair pair;
  EXPECT_EQ(subject.associate(pair.near, POLLIN), 0);
  EXPECT_EQ(error_of(port_send(subject.port, 1, nullptr)), 0);
  for (const bool sent : {true, false}) {
    race(
        [&] {
          if (sent)
            EXPECT_EQ(error_of(port_send(subject.port, 2, nullptr)), 0);
          else
            send_byte(pair.far);
        },
        [&] {
          subject.count = 2;
          EXPECT_EQ(port_getn(subject.port, subject.events, 8, &subject.count, nullptr), 0);
        });
    EXPECT_EQ(subject.count, 2);
    EXPECT_EQ(subject.events[1].portev_source, sent ? PORT_SOURCE_USER : PORT_SOURCE_FD);
    if (sent) EXPECT_EQ(error_of(port_send(subject.port, 1, nullptr)), 0);
  }
  EXPECT_EQ(subject.take(), 0);
}

TEST(who_waits_for_a_port_that_is_closed_is_told) {
  Subject subject;
  int waiting = 0;
  race(
      [&] {
        // However long it takes until the other waits: a port that is closed is none either.
        sched_yield();
        subject.port.close();
      },
      [&] { waiting = error_of(port_get(subject.port, subject.events, nullptr)); });
  EXPECT_TRUE(waiting == EBADFD || waiting == EBADF);
}

// ── events of a program's own ───────────────────────────────────────────────────────────────

TEST(an_event_is_sent_from_another_thread) {
  Subject subject;
  int cookie = 0;
  race([&] { EXPECT_EQ(error_of(port_send(subject.port, 0x77, &cookie)), 0); },
       [&] { EXPECT_EQ(error_of(port_get(subject.port, subject.events, nullptr)), 0); });
  EXPECT_EQ(subject.events[0].portev_source, PORT_SOURCE_USER);
  EXPECT_EQ(subject.events[0].portev_events, 0x77);
  EXPECT_TRUE(subject.events[0].portev_user == &cookie);
  EXPECT_TRUE(!subject.readable());
  EXPECT_EQ(error_of(port_send(subject.port, 1, nullptr)), 0);
  EXPECT_TRUE(subject.readable());
  EXPECT_EQ(subject.take(), 1);
}

TEST(many_ports_are_sent_to_and_each_failure_is_named) {
  Subject first, second;
  const Pair pair;
  int ports[] = {first.port, -1, second.port, pair.near};
  int errors[] = {77, 77, 77, 77};
  EXPECT_EQ(error_of(port_sendn(ports, errors, 0, 1, nullptr)), EINVAL);
  EXPECT_EQ(error_of(port_sendn(nullptr, errors, 4, 1, nullptr)), EFAULT);
  EXPECT_EQ(port_sendn(ports, errors, 4, 1, nullptr), 2);
  EXPECT_EQ(std::vector<int>(errors, errors + 4), (std::vector<int>{0, EBADF, 0, EBADFD}));
  EXPECT_EQ(first.take(), 1);
  EXPECT_EQ(second.take(), 1);
}

TEST(in_alert_mode_a_port_tells_nothing_else) {
  Subject subject;
  int cookie = 0;
  constexpr int kBoth = PORT_ALERT_SET | PORT_ALERT_UPDATE;
  EXPECT_EQ(error_of(port_alert(subject.port, kBoth, 1, nullptr)), EINVAL);
  EXPECT_EQ(error_of(port_alert(subject.port, PORT_ALERT_UPDATE, 5, &cookie)), 0);
  EXPECT_EQ(error_of(port_alert(subject.port, PORT_ALERT_UPDATE, 6, nullptr)), EBUSY);
  EXPECT_EQ(error_of(port_send(subject.port, 1, nullptr)), 0);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(subject.take(), 1);
    EXPECT_EQ(subject.events[0].portev_source, PORT_SOURCE_ALERT);
    EXPECT_EQ(subject.events[0].portev_events, 5);
    EXPECT_TRUE(subject.events[0].portev_user == &cookie);
  }
  EXPECT_EQ(error_of(port_alert(subject.port, PORT_ALERT_SET, 6, nullptr)), 0);
  EXPECT_EQ(subject.take(), 1);
  EXPECT_EQ(subject.events[0].portev_events, 6);
  EXPECT_EQ(error_of(port_alert(subject.port, PORT_ALERT_SET, 0, nullptr)), 0);
  EXPECT_EQ(subject.take(), 1);
  EXPECT_EQ(subject.events[0].portev_source, PORT_SOURCE_USER);
  // A thread that waits is told, and not only one that comes later.
  race([&] { EXPECT_EQ(error_of(port_alert(subject.port, PORT_ALERT_SET, 9, nullptr)), 0); },
       [&] { EXPECT_EQ(error_of(port_get(subject.port, subject.events, nullptr)), 0); });
  EXPECT_EQ(subject.events[0].portev_source, PORT_SOURCE_ALERT);
  EXPECT_EQ(subject.events[0].portev_events, 9);
}

}  // namespace multiloop::test
