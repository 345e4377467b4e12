// What is io_uring's own: polls that hold files open, the order of its rings, and what completes
// without having been asked for.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <set>

#include "../../native/core/platform.h"
#include "check.h"
#include "fixture.h"

#ifdef ML_HAVE_IO_URING

namespace multiloop::test {

namespace {

const BackendType& uring() { return *find_backend("io_uring"); }

// The backend with its last answer; null where the kernel refuses it.
struct Ring {
  std::unique_ptr<Backend> backend = make_backend(uring());
  std::vector<Ready> ready;

  explicit operator bool() const { return backend != nullptr; }
  int wait(Micros timeout = 0, std::size_t room = 64) {
    ready.assign(room, Ready{-1, 0});
    const int count = backend->wait(timeout, ready);
    ready.resize(static_cast<std::size_t>(count < 0 ? 0 : count));
    return count;
  }
  // Whether a wait lasts, and finds nothing.
  bool sleeps() {
    const Micros begin = monotonic_now();
    return wait(kNap) == 0 && monotonic_now() - begin >= kNap;
  }
  bool is_readable() const {
    pollfd one{backend->pollable_fd(), POLLIN, 0};
    return ::poll(&one, 1, 0) == 1;
  }
};

// Whether the other end has been closed.
bool has_ended(int fd) {
  pollfd one{fd, POLLIN, 0};
  return ::poll(&one, 1, 0) == 1 && read_some(fd) == 0;
}

// Fills what the kernel takes of a socket that nobody reads.
void fill(int fd) {
  char bytes[4'096] = {};
  while (sys::write(fd, bytes, sizeof bytes) > 0) continue;
}

}  // namespace

// ── files that are held open ────────────────────────────────────────────────────────────────

TEST(io_uring_lets_go_at_once_of_what_is_taken_out) {
  Ring ring;
  if (!ring) return;
  Pair pair;
  EXPECT_EQ(ring.backend->change(pair.near, 0, kRead), 0);
  EXPECT_EQ(ring.wait(), 0);
  EXPECT_EQ(ring.backend->change(pair.near, kRead, 0), 0);
  pair.near.close();
  EXPECT_TRUE(has_ended(pair.far));
  EXPECT_TRUE(ring.sleeps());
}

TEST(io_uring_lets_go_with_the_wait_of_what_may_be_told_later) {
  Ring ring;
  if (!ring) return;
  for (const bool flushed : {false, true}) {
    Pair pair;
    EXPECT_EQ(ring.backend->change(pair.near, 0, kRead), 0);
    EXPECT_EQ(ring.wait(), 0);
    EXPECT_EQ(ring.backend->change_later(pair.near, kRead, 0), 0);
    pair.near.close();
    EXPECT_TRUE(ring.backend->has_unflushed());
    // The poll holds the socket open: this is the difference to epoll.
    EXPECT_TRUE(!has_ended(pair.far));
    if (flushed)
      ring.backend->flush();
    else
      EXPECT_EQ(ring.wait(), 0);
    EXPECT_TRUE(has_ended(pair.far));
    EXPECT_TRUE(!ring.is_readable());
  }
}

TEST(io_uring_holds_nothing_that_it_has_told_of) {
  Ring ring;
  if (!ring) return;
  Pair pair;
  EXPECT_EQ(ring.backend->change(pair.near, 0, kRead), 0);
  send_byte(pair.far);
  EXPECT_EQ(ring.wait(), 1);
  drain(pair.near);
  pair.near.close();
  EXPECT_TRUE(has_ended(pair.far));
  // Closed with its event left behind: refused once, then forgotten.
  const int number = ring.ready[0].fd;
  EXPECT_EQ(ring.wait(kPatience), 0);
  EXPECT_EQ(ring.backend->take_refused(), number);
  EXPECT_EQ(ring.backend->take_refused(), -1);
  EXPECT_TRUE(ring.sleeps());
}

TEST(io_uring_holds_what_others_close_until_it_is_taken_out) {
  Ring ring;
  if (!ring) return;
  Pair pair;
  const Pair next;
  const int number = pair.near;
  EXPECT_EQ(ring.backend->change(number, 0, kRead), 0);
  EXPECT_EQ(ring.wait(), 0);
  pair.near.close();
  EXPECT_TRUE(ring.sleeps());
  EXPECT_TRUE(!has_ended(pair.far));
  // The number is another file's now, and told anew: what it named before is let go.
  EXPECT_EQ(dup2(next.near, number), number);
  const Fd again(number);
  EXPECT_EQ(ring.backend->change(number, kRead, kRead), 0);
  EXPECT_EQ(ring.wait(), 0);
  EXPECT_TRUE(has_ended(pair.far));
  send_byte(next.far);
  EXPECT_EQ(ring.wait(), 1);
}

TEST(io_uring_lets_go_of_everything_in_the_end) {
  Pair pair;
  {
    Ring ring;
    if (!ring) return;
    EXPECT_EQ(ring.backend->change(pair.near, 0, kRead), 0);
    EXPECT_EQ(ring.wait(), 0);
  }
  pair.near.close();
  EXPECT_TRUE(has_ended(pair.far));
}

// ── what it tells ───────────────────────────────────────────────────────────────────────────

TEST(io_uring_does_not_tell_what_was_taken_away_meanwhile) {
  Ring ring;
  if (!ring) return;
  const Pair pair;
  EXPECT_EQ(ring.backend->change(pair.near, 0, kRead), 0);
  for (int i = 0; i < 3; ++i) {
    ring.backend->flush();
    send_byte(pair.far);
    EXPECT_TRUE(ring.is_readable());
    drain(pair.near);
    EXPECT_EQ(ring.wait(), 0);
    EXPECT_TRUE(!ring.is_readable());
    EXPECT_TRUE(ring.sleeps());
  }
  send_byte(pair.far);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(ring.wait(), 1);
    ring.backend->flush();
    EXPECT_TRUE(ring.is_readable());
  }
}

TEST(io_uring_sleeps_while_a_writer_waits_for_a_peer_that_sends_no_more) {
  // Its RDHUP completes every poll, asked for or not.
  Ring ring;
  if (!ring) return;
  const Pair pair;
  fill(pair.near);
  EXPECT_EQ(sys::shutdown_write(pair.far), 0);
  EXPECT_EQ(ring.backend->change(pair.near, 0, kWrite), 0);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(ring.sleeps());
    ring.backend->flush();
    EXPECT_TRUE(!ring.is_readable());
    drain(pair.far);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(ring.wait(kPatience), 1);
      EXPECT_EQ(ring.ready[0].what, kWrite);
    }
    fill(pair.near);
  }
  // And now for what it has been at the end of all along.
  EXPECT_EQ(ring.backend->change(pair.near, kWrite, kWrite | kClosed), 0);
  EXPECT_EQ(ring.wait(kPatience), 1);
  EXPECT_EQ(ring.ready[0].what, kClosed);
}

TEST(io_uring_writers_whose_peer_ends_while_they_wait_sleep_on) {
  Ring ring;
  if (!ring) return;
  const Pair pair;
  fill(pair.near);
  EXPECT_EQ(ring.backend->change(pair.near, 0, kWrite), 0);
  EXPECT_TRUE(ring.sleeps());
  race([&] { EXPECT_EQ(sys::shutdown_write(pair.far), 0); }, [&] { ring.wait(kNap); });
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(ring.sleeps());
  drain(pair.far);
  EXPECT_EQ(ring.wait(kPatience), 1);
  EXPECT_EQ(ring.ready[0].what, kWrite);
}

TEST(io_uring_waits_on_when_only_removals_have_answered) {
  Ring ring;
  if (!ring) return;
  const std::vector<Pair> pairs(20);
  for (const Pair& pair : pairs) EXPECT_EQ(ring.backend->change(pair.near, 0, kRead), 0);
  EXPECT_EQ(ring.wait(), 0);
  for (const Pair& pair : pairs) EXPECT_EQ(ring.backend->change_later(pair.near, kRead, 0), 0);
  EXPECT_TRUE(ring.sleeps());
}

TEST(io_uring_tells_each_edge_of_many_in_one_answer_once) {
  Ring ring;
  if (!ring) return;
  const Pair pair;
  EXPECT_EQ(ring.backend->change(pair.near, 0, kRead | kEdge), 0);
  EXPECT_EQ(ring.wait(), 0);
  for (int i = 0; i < 5; ++i) send_byte(pair.far);
  EXPECT_EQ(ring.wait(), 1);
  EXPECT_TRUE(ring.sleeps());
  // An edge that there was no room for is no edge that was lost.
  const std::vector<Pair> others(3);
  for (const Pair& other : others) {
    EXPECT_EQ(ring.backend->change(other.near, 0, kRead | kEdge), 0);
    EXPECT_EQ(ring.wait(), 0);
  }
  for (const Pair& other : others) send_byte(other.far);
  std::set<int> told;
  for (std::size_t i = 0; i < others.size(); ++i) {
    EXPECT_EQ(ring.wait(0, 1), 1);
    told.insert(ring.ready[0].fd);
  }
  EXPECT_EQ(told.size(), others.size());
  EXPECT_EQ(ring.wait(), 0);
}

// ── more than the rings hold ────────────────────────────────────────────────────────────────

TEST(io_uring_loses_nothing_that_its_rings_have_no_room_for) {
  Ring ring;
  if (!ring) return;
  constexpr std::size_t kMany = 3'000;
  for (const Mask edge : {Mask{0}, kEdge}) {
    const Pair pair;
    std::vector<Fd> copies;
    for (std::size_t i = 0; i < kMany; ++i) copies.emplace_back(sys::dup(pair.near));
    if (copies.back() < 0) {
      std::printf("(this process may not open %zu descriptors) ", kMany);
      return;
    }
    const Mask mask = kRead | edge;
    for (const Fd& fd : copies) EXPECT_EQ(ring.backend->change(fd, 0, mask), 0);
    ring.backend->flush();
    EXPECT_TRUE(!ring.is_readable());
    // All of them complete at once, before anybody looks.
    send_byte(pair.far);
    std::set<int> told;
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(ring.wait(kPatience, 1'024), i < 2 || edge == 0 ? 1'024 : kMany - 2 * 1'024);
      for (const Ready& one : ring.ready) told.insert(one.fd);
    }
    EXPECT_EQ(told.size(), kMany);
    drain(pair.near);
    EXPECT_EQ(ring.wait(), 0);
    send_byte(pair.far);
    for (const Fd& fd : copies) EXPECT_EQ(ring.backend->change_later(fd, mask, 0), 0);
    EXPECT_TRUE(ring.sleeps());
    EXPECT_TRUE(!ring.is_readable());
  }
}

}  // namespace multiloop::test

#endif
