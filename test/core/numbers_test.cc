// What any thread may read of a loop's time and of its connections.
#include <atomic>
#include <thread>
#include <vector>

#include "../../native/core/handoff.h"
#include "../../native/core/loop_times.h"
#include "check.h"
#include "fixture.h"
#include "place.h"

namespace multiloop::test {

namespace {

std::vector<Ledger::Listed> list_all() {
  std::vector<Ledger::Listed> all;
  Ledger::Listed one{};
  for (int from = 0; Ledger::next(from, &one); from = Ledger::fd_of(one.id) + 1) all.push_back(one);
  return all;
}

// Memory as a coordinator has it for a loop.
struct Numbers {
  std::vector<std::uint8_t> boundaries = std::vector<std::uint8_t>(1'024);
  std::vector<double> traffic = std::vector<double>(2'048);

  explicit Numbers(const Place& place) {
    place.inbox->show_numbers(boundaries.data(), traffic.data(), boundaries.size());
  }
};

}  // namespace

TEST(the_time_that_was_waited_is_whole_at_any_moment) {
  IdleClock clock;
  EXPECT_EQ(clock.total(1'000), 0);
  clock.begin_wait(1'000);
  EXPECT_EQ(clock.total(1'400), 400);
  clock.end_wait(1'500);
  EXPECT_EQ(clock.total(9'000), 500);
  clock.begin_wait(9'000);
  // A reader whose clock was read before the wait began.
  EXPECT_EQ(clock.total(8'000), 0);
  EXPECT_EQ(clock.total(9'001), 501);
}

TEST(percentiles_are_right_to_one_part_in_eight) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.percentile(0.5), 0);
  for (Micros value = 1; value <= 1'000; ++value) histogram.record(value);
  for (const auto& [share, exact] : {std::pair{0.5, 500}, {0.99, 990}, {0.001, 1}, {1.0, 1'000}}) {
    const Micros found = histogram.percentile(share);
    EXPECT_TRUE(found >= exact && found <= exact + exact / 8);
  }
  LatencyHistogram extreme;
  extreme.record(-5);
  EXPECT_EQ(extreme.percentile(1), 0);
  extreme.record(Micros{1} << 40);
  EXPECT_EQ(extreme.percentile(1), (Micros{1} << 32) - 1);
}

TEST(what_is_long_ago_is_forgotten) {
  LatencyHistogram histogram;
  for (std::uint32_t i = 0; i < LatencyHistogram::kCountedMax; ++i) histogram.record(1'000);
  for (std::uint32_t i = 0; i < 4 * LatencyHistogram::kCountedMax; ++i) histogram.record(3);
  EXPECT_EQ(histogram.percentile(0.5), 3);
  EXPECT_EQ(histogram.percentile(0.9), 3);
}

TEST(a_list_has_the_owner_the_age_and_what_is_under_way) {
  const Place coordinator(8);
  Place loop(8);
  TcpPair first, second;
  const Micros before = monotonic_now();
  const ConnectionId a = adopt(first.near, coordinator.handle);
  const ConnectionId b = adopt(second.near, coordinator.handle);
  EXPECT_EQ(hand_off(b, coordinator.handle, loop.handle), Delivery::kOk);
  for (const Ledger::Listed& one : list_all()) {
    EXPECT_TRUE(one.id == a || one.id == b);
    EXPECT_EQ(one.owner, one.id == a ? coordinator.handle : loop.handle);
    EXPECT_EQ(one.under_way, one.id == b);
    EXPECT_TRUE(one.accepted >= before && one.accepted <= monotonic_now());
  }
  EXPECT_EQ(list_all().size(), 2);
  EXPECT_TRUE(Ledger::close(a, coordinator.handle, false));
  EXPECT_EQ(list_all().size(), 1);
  loop.release(false);
  EXPECT_EQ(list_all().size(), 0);
}

TEST(what_was_moved_goes_along_from_loop_to_loop) {
  const Place coordinator(8);
  Place from(8, coordinator.handle);
  Place to(8, coordinator.handle);
  Numbers numbers(from);
  TcpPair pair;
  const int fd = pair.near;
  const ConnectionId id = adopt(pair.near, coordinator.handle);
  EXPECT_EQ(hand_off(id, coordinator.handle, from.handle), Delivery::kOk);
  const Message message = from.pop();
  EXPECT_TRUE(message.sent > 0 && message.sent <= monotonic_now());
  EXPECT_TRUE(Ledger::take(id, from.handle));
  from.inbox->set_traffic(fd, Ledger::traffic(id));
  EXPECT_TRUE(from.inbox->busy(fd));
  numbers.traffic[2 * static_cast<std::size_t>(fd)] = 5;
  numbers.traffic[2 * static_cast<std::size_t>(fd) + 1] = 7;
  numbers.boundaries[static_cast<std::size_t>(fd)] = 1;
  EXPECT_TRUE(!from.inbox->busy(fd));
  EXPECT_EQ(from.inbox->traffic(fd).read, 5.0);
  // Only the owner may say so.
  Ledger::set_traffic(id, to.handle, {100, 100});
  EXPECT_EQ(Ledger::traffic(id).read, 0.0);
  EXPECT_EQ(move(id, from.handle, to.handle, "x", 1), Delivery::kOk);
  EXPECT_EQ(Ledger::traffic(id).read, 5.0);
  EXPECT_EQ(Ledger::traffic(id).written, 7.0);
  // A loop without numbers keeps what there is.
  free_message(to.pop());
  EXPECT_TRUE(Ledger::take(id, to.handle));
  EXPECT_EQ(move(id, to.handle, from.handle, "x", 1), Delivery::kOk);
  EXPECT_EQ(Ledger::traffic(id).written, 7.0);
  free_message(from.pop());
  EXPECT_TRUE(Ledger::take(id, from.handle));
  EXPECT_TRUE(Ledger::close(id, from.handle, false));
  EXPECT_EQ(Ledger::traffic(id).read, 0.0);
  EXPECT_EQ(from.inbox->traffic(-1).read, 0.0);
  EXPECT_TRUE(from.inbox->busy(1'024));
}

TEST(a_list_is_read_while_connections_come_and_go) {
  const Place coordinator(8);
  // Of a number's first, second, third … connection.
  const auto mark = [](ConnectionId id) { return static_cast<double>(id >> 20); };
  std::atomic<bool> over{false};
  std::thread reader([&] {
    Ledger::Listed one{};
    while (!over)
      for (int from = 0; Ledger::next(from, &one); from = Ledger::fd_of(one.id) + 1)
        // Never the numbers of one with the id of another.
        EXPECT_TRUE(one.traffic.read == 0 || one.traffic.read == mark(one.id));
  });
  for (int i = 0; i < 300; ++i) {
    TcpPair pair;
    const ConnectionId id = adopt(pair.near, coordinator.handle);
    Ledger::set_traffic(id, coordinator.handle, {mark(id), 0});
    EXPECT_TRUE(Ledger::close(id, coordinator.handle, true));
  }
  over = true;
  reader.join();
}

}  // namespace multiloop::test
