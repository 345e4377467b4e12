// The emulated /dev/poll (test/emulation/devpoll.cc): that it does what the manual page and the
// driver say, refuses what they say, and has the driver's traps.
#include <sys/devpoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

int error_of(long result) { return result < 0 ? errno : 0; }

struct Subject {
  const int device = emulated_devpoll::open("/dev/poll", O_RDWR | O_CLOEXEC);
  pollfd told[16] = {};
  ~Subject() { EXPECT_EQ(sys::close(device), 0); }

  int write(std::vector<pollfd> records) {
    const std::size_t bytes = records.size() * sizeof(pollfd);
    const ssize_t written = emulated_devpoll::pwrite(device, records.data(), bytes, 0);
    if (written >= 0) EXPECT_EQ(written, bytes);
    return error_of(written);
  }
  int write(int fd, int events) { return write({{fd, static_cast<short>(events), 0}}); }
  int poll(nfds_t room = 16, int millis = 0) {
    dvpoll call{told, room, millis, nullptr};
    return emulated_devpoll::ioctl(device, DP_POLL, &call);
  }
  // What the last poll() told of a descriptor.
  int revents(int fd) const {
    int all = 0;
    for (const pollfd& one : told)
      if (one.fd == fd) all |= one.revents;
    return all;
  }
  // What is told of it now.
  int look(int fd) {
    for (pollfd& one : told) one = {-1, 0, 0};
    EXPECT_TRUE(poll() >= 0);
    return revents(fd);
  }
};

}  // namespace

// ── what is refused ─────────────────────────────────────────────────────────────────────────

TEST(the_device_refuses_what_makes_no_sense) {
  EXPECT_EQ(error_of(emulated_devpoll::open("/dev/pool", O_RDWR)), ENOENT);
  const Pair pair;
  dvpoll call{};
  pollfd record{pair.near, POLLIN, 0};
  EXPECT_EQ(error_of(emulated_devpoll::ioctl(pair.near, DP_POLL, &call)), EBADF);
  EXPECT_EQ(error_of(emulated_devpoll::pwrite(pair.near, &record, sizeof record, 0)), EBADF);
  Subject subject;
  EXPECT_EQ(error_of(emulated_devpoll::ioctl(subject.device, 0xD009, &call)), EINVAL);
  EXPECT_EQ(error_of(emulated_devpoll::ioctl(subject.device, DP_POLL, nullptr)), EFAULT);
  EXPECT_EQ(error_of(emulated_devpoll::ioctl(subject.device, DP_ISPOLLED, nullptr)), EFAULT);
  EXPECT_EQ(error_of(emulated_devpoll::pwrite(subject.device, nullptr, 8, 0)), EFAULT);
  EXPECT_EQ(error_of(emulated_devpoll::pwrite(subject.device, &record, sizeof record, -1)), EINVAL);
  call.dp_nfds = 1;
  EXPECT_EQ(error_of(emulated_devpoll::ioctl(subject.device, DP_POLL, &call)), EFAULT);
}

TEST(the_limit_of_descriptors_is_one_of_records) {
  Subject subject;
  const Pair pair;
  const DescriptorLimit limit(12);
  const std::vector<pollfd> twelve(12, pollfd{pair.near, POLLOUT, 0});
  std::vector<pollfd> thirteen = twelve;
  thirteen.push_back(twelve[0]);
  EXPECT_EQ(subject.write(thirteen), EINVAL);
  EXPECT_EQ(subject.write(twelve), 0);
  EXPECT_EQ(error_of(subject.poll(12)), EINVAL);
  EXPECT_EQ(subject.poll(11), 1);
}

TEST(another_process_has_no_access) {
  Subject subject;
  const Pair pair;
  EXPECT_EQ(subject.write(pair.near, POLLIN), 0);
  const pid_t child = fork();
  if (child == 0) {
    pollfd record{pair.near, 0, 0};
    const int failures[] = {
        subject.write(pair.near, POLLOUT), error_of(subject.poll()),
        error_of(emulated_devpoll::ioctl(subject.device, DP_ISPOLLED, &record))};
    for (const int failure : failures)
      if (failure != EACCES) _exit(1);
    _exit(0);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(subject.poll(), 0);
}

// ── what it does ────────────────────────────────────────────────────────────────────────────

TEST(a_write_adds_to_the_interest_that_is_there) {
  Subject subject;
  const Pair pair;
  pollfd asked{pair.near, 0, 0};
  EXPECT_EQ(emulated_devpoll::ioctl(subject.device, DP_ISPOLLED, &asked), 0);
  EXPECT_EQ(subject.write(pair.near, POLLIN), 0);
  EXPECT_EQ(subject.write(pair.near, POLLOUT), 0);
  EXPECT_EQ(emulated_devpoll::ioctl(subject.device, DP_ISPOLLED, &asked), 1);
  EXPECT_EQ(asked.revents, POLLIN | POLLOUT);
  EXPECT_EQ(subject.look(pair.near), POLLOUT);
  EXPECT_EQ(subject.told[0].events, POLLIN | POLLOUT);
  // A removal takes all, and the records of one write are done in their order.
  EXPECT_EQ(subject.write({{pair.near, POLLREMOVE, 0}, {pair.near, POLLIN, 0}}), 0);
  EXPECT_EQ(subject.look(pair.near), 0);
  send_byte(pair.far);
  EXPECT_EQ(subject.look(pair.near), POLLIN);
  EXPECT_EQ(subject.look(pair.near), POLLIN);
  drain(pair.near);
  EXPECT_EQ(subject.look(pair.near), 0);
  EXPECT_EQ(subject.write(pair.near, POLLREMOVE), 0);
  EXPECT_EQ(subject.write(pair.near, POLLREMOVE), 0);
  EXPECT_EQ(subject.write(-1, POLLIN), 0);
  EXPECT_EQ(emulated_devpoll::ioctl(subject.device, DP_ISPOLLED, &asked), 0);
}

TEST(a_poll_goes_on_where_the_last_had_no_room) {
  Subject subject;
  std::vector<Pair> pairs(5);
  for (const Pair& pair : pairs) EXPECT_EQ(subject.write(pair.near, POLLOUT), 0);
  std::map<int, int> times;
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(subject.poll(2), 2);
    for (int i = 0; i < 2; ++i) ++times[subject.told[i].fd];
  }
  EXPECT_EQ(times.size(), pairs.size());
  for (const auto& [fd, count] : times) EXPECT_EQ(count, 2);
}

TEST(a_poll_waits_and_one_without_room_only_sleeps) {
  Subject subject;
  const Pair pair;
  EXPECT_EQ(subject.write(pair.near, POLLIN), 0);
  Micros begin = monotonic_now();
  EXPECT_EQ(subject.poll(16, 3), 0);
  EXPECT_TRUE(monotonic_now() - begin >= 3'000);
  race([&] { send_byte(pair.far); }, [&] { EXPECT_EQ(subject.poll(16, -1), 1); });
  begin = monotonic_now();
  EXPECT_EQ(subject.poll(0, 3), 0);
  EXPECT_TRUE(monotonic_now() - begin >= 3'000);
}

// ── its traps ───────────────────────────────────────────────────────────────────────────────

TEST(one_that_is_closed_is_told_only_if_it_was_ready) {
  Subject subject;
  Pair ready, quiet;
  const int numbers[] = {ready.near, quiet.near};
  for (const int number : numbers) EXPECT_EQ(subject.write(number, POLLIN), 0);
  send_byte(ready.far);
  EXPECT_EQ(subject.poll(), 1);
  ready.near.close();
  quiet.near.close();
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(subject.look(numbers[0]), POLLNVAL);
    EXPECT_EQ(subject.revents(numbers[1]), 0);
  }
  EXPECT_EQ(subject.write(numbers[0], POLLREMOVE), 0);
  EXPECT_EQ(subject.look(numbers[0]), 0);
}

TEST(a_number_that_is_used_again_is_not_heard_until_it_is_written_anew) {
  Subject subject;
  const Pair old, young;
  const int number = old.near;
  EXPECT_EQ(subject.write(number, POLLIN), 0);
  EXPECT_EQ(subject.look(number), 0);
  EXPECT_EQ(dup2(young.near, number), number);
  send_byte(young.far);
  EXPECT_EQ(subject.look(number), 0);
  EXPECT_EQ(subject.write({{number, POLLREMOVE, 0}, {number, POLLIN, 0}}), 0);
  EXPECT_EQ(subject.look(number), POLLIN);
}

TEST(the_old_file_of_a_number_makes_it_look_at_the_new_one) {
  Subject subject;
  const Pair old, young;
  const int number = old.near;
  const Fd copy(sys::dup(number));
  EXPECT_EQ(subject.write(number, POLLIN), 0);
  EXPECT_EQ(subject.look(number), 0);
  EXPECT_EQ(dup2(young.near, number), number);
  send_byte(old.far);
  EXPECT_EQ(subject.look(number), 0);
  send_byte(young.far);
  EXPECT_EQ(subject.look(number), POLLIN);
}

TEST(a_record_for_nothing_is_taken_and_its_bits_stay) {
  Subject subject;
  Pair pair;
  const Pair next;
  const int number = pair.near;
  pair.near.close();
  EXPECT_EQ(subject.write(number, POLLOUT), 0);
  EXPECT_EQ(subject.look(number), 0);
  EXPECT_EQ(dup2(next.near, number), number);
  const Fd again(number);
  EXPECT_EQ(subject.look(number), 0);
  EXPECT_EQ(subject.write({{number, POLLREMOVE, 0}, {number, POLLIN, 0}}), 0);
  EXPECT_EQ(subject.look(number), POLLOUT);
  EXPECT_EQ(subject.write({{number, POLLREMOVE, 0}, {number, POLLIN, 0}}), 0);
  EXPECT_EQ(subject.look(number), 0);
}

}  // namespace multiloop::test
