// The devpoll backend beyond the contract of all of them: the traps that its file names.
#include <map>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

std::unique_ptr<Backend> make_devpoll() { return make_backend(*find_backend("devpoll")); }

}  // namespace

TEST(bits_that_nobody_asked_for_are_repaired) {
  const auto backend = make_devpoll();
  Pair pair;
  const Pair next;
  const int number = pair.near;
  Ready out[4];
  // Closed before the record is written, so the device keeps its bits for the next file.
  EXPECT_EQ(backend->change(number, 0, kWrite), 0);
  pair.near.close();
  EXPECT_EQ(backend->wait(0, out), 0);
  EXPECT_EQ(backend->change(number, kWrite, 0), 0);
  EXPECT_EQ(dup2(next.near, number), number);
  const Fd again(number);
  EXPECT_EQ(backend->change(number, 0, kRead), 0);
  EXPECT_EQ(backend->wait(0, out), 0);
  const Micros begin = monotonic_now();
  EXPECT_EQ(backend->wait(3'000, out), 0);
  EXPECT_TRUE(monotonic_now() - begin >= 3'000);
  send_byte(next.far);
  EXPECT_EQ(backend->wait(kForever, out), 1);
  EXPECT_EQ(out[0].what, kRead);
}

TEST(few_descriptors_mean_small_writes_and_answers) {
  const auto backend = make_devpoll();
  std::vector<Pair> pairs(20);
  for (const Pair& pair : pairs) EXPECT_EQ(backend->change(pair.near, 0, kWrite), 0);
  std::map<int, int> times;
  Ready out[64];
  {
    const DescriptorLimit limit(6);
    for (int round = 0; round < 10; ++round) {
      const int count = backend->wait(0, out);
      if (!EXPECT_TRUE(count > 0)) return;
      for (int i = 0; i < count; ++i) ++times[out[i].fd];
    }
  }
  EXPECT_EQ(times.size(), pairs.size());
  EXPECT_TRUE(backend->wait(0, out) > 0);
}

TEST(more_changes_than_one_write_has_are_all_made) {
  const auto backend = make_devpoll();
  const Pair pair;
  std::vector<Fd> copies;
  for (int i = 0; i < 700; ++i) copies.emplace_back(sys::dup(pair.near));
  Ready out[1'024];
  for (const Mask mask : {kWrite, Mask{kRead | kWrite}, kRead}) {
    for (const Fd& fd : copies) EXPECT_EQ(backend->change(fd, kRead, mask), 0);
    EXPECT_EQ(backend->wait(0, out), mask & kWrite ? 700 : 0);
  }
  for (const Fd& fd : copies) EXPECT_EQ(backend->change(fd, kRead, 0), 0);
  send_byte(pair.far);
  EXPECT_EQ(backend->wait(0, out), 0);
}

}  // namespace multiloop::test
