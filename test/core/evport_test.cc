// The evport backend beyond the contract of all of them: the traps that its file names.
#include <port.h>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

// The limit of events, for as long as this lives.
struct EventLimit {
  const uint_t before;
  explicit EventLimit(uint_t limit) : before(emulated_port::set_max_events(limit)) {}
  ~EventLimit() { emulated_port::set_max_events(before); }
};

std::unique_ptr<Backend> make_evport() { return make_backend(*find_backend("evport")); }

}  // namespace

TEST(a_full_port_is_out_of_watches) {
  const EventLimit limit(2);
  const auto backend = make_evport();
  const Pair first, second;
  Pair third;
  EXPECT_EQ(backend->change(first.near, 0, kRead), 0);
  EXPECT_EQ(backend->change(second.near, 0, kRead), 0);
  EXPECT_EQ(backend->change(third.near, 0, kWrite), -ENOSPC);
  EXPECT_EQ(backend->change(second.near, kRead, 0), 0);
  EXPECT_EQ(backend->change(third.near, 0, kWrite), 0);
  Ready out[4];
  EXPECT_EQ(backend->wait(0, out), 1);
  EXPECT_EQ(out[0].fd, int{third.near});
  EXPECT_EQ(backend->wait(0, out), 1);
}

TEST(what_is_no_longer_true_does_not_cut_a_wait_short) {
  const auto backend = make_evport();
  std::vector<Pair> pairs(6);
  const Pair behind;
  Ready out[2];
  for (const Pair& pair : pairs) {
    send_byte(pair.far);
    EXPECT_EQ(backend->change(pair.near, 0, kRead), 0);
  }
  EXPECT_EQ(backend->change(behind.near, 0, kWrite), 0);
  for (const Pair& pair : pairs) drain(pair.near);
  // More of them than the answer has room for are in front of the one that is ready.
  EXPECT_EQ(backend->wait(0, out), 1);
  EXPECT_EQ(out[0].fd, int{behind.near});
  EXPECT_EQ(backend->change(behind.near, kWrite, 0), 0);
  for (const Pair& pair : pairs) {
    send_byte(pair.far);
    EXPECT_EQ(backend->change(pair.near, kRead, kRead), 0);
    drain(pair.near);
  }
  const Micros begin = monotonic_now();
  EXPECT_EQ(backend->wait(3'000, out), 0);
  EXPECT_TRUE(monotonic_now() - begin >= 3'000);
  send_byte(pairs[3].far);
  EXPECT_EQ(backend->wait(kForever, out), 1);
  EXPECT_EQ(out[0].fd, int{pairs[3].near});
}

TEST(one_that_is_closed_between_two_waits_is_forgotten) {
  const auto backend = make_evport();
  Pair pair;
  const Pair next;
  const int number = pair.near;
  Ready out[2];
  EXPECT_EQ(backend->change(number, 0, kWrite), 0);
  EXPECT_EQ(backend->wait(0, out), 1);
  pair.near.close();
  EXPECT_EQ(backend->wait(0, out), 0);
  // The base still thinks that it is watched; the number is told anew all the same.
  EXPECT_EQ(dup2(next.near, number), number);
  const Fd again(number);
  EXPECT_EQ(backend->wait(0, out), 0);
  EXPECT_EQ(backend->change(number, kWrite, kWrite), 0);
  EXPECT_EQ(backend->wait(0, out), 1);
  EXPECT_EQ(out[0].what, kWrite);
}

}  // namespace multiloop::test
