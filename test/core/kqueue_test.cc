// The kqueue backend beyond the contract of all of them: what it tells with the wait, and the traps
// that its file names.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "../emulation/kqueue.h"
#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

struct Kqueue {
  const std::unique_ptr<Backend> backend = make_backend(*find_backend("kqueue"));
  std::vector<Ready> ready;

  int change(int fd, Mask before, Mask after) const { return backend->change(fd, before, after); }
  int later(int fd, Mask before, Mask after) const {
    return backend->change_later(fd, before, after);
  }
  int wait(Micros timeout = 0, std::size_t room = 64) {
    ready.assign(room, Ready{-1, 0});
    const int count = backend->wait(timeout, ready);
    ready.resize(static_cast<std::size_t>(std::max(count, 0)));
    return count;
  }
  int mask(int fd) const {
    int mask = 0;
    for (const Ready& one : ready)
      if (one.fd == fd) mask |= one.what;
    return mask;
  }
  bool readable() const {
    pollfd one{backend->pollable_fd(), POLLIN, 0};
    return ::poll(&one, 1, 0) == 1;
  }
};

struct Pipe {
  Fd out, in;
  Pipe() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(sys::pipe(ends), 0);
    out = Fd(ends[0]);
    in = Fd(ends[1]);
  }
};

Fd make_file() {
  char name[] = "/tmp/multiloop-test-XXXXXX";
  Fd file(mkostemp(name, O_CLOEXEC));
  EXPECT_EQ(unlink(name), 0);
  return file;
}

}  // namespace

// ── with the wait ───────────────────────────────────────────────────────────────────────────

TEST(what_needs_no_answer_is_told_with_the_wait_in_one_call) {
  Kqueue queue;
  std::vector<Pair> pairs(20);
  for (const Pair& pair : pairs) EXPECT_EQ(queue.change(pair.near, 0, kRead), 0);
  EXPECT_EQ(queue.wait(), 0);
  const int calls = emulation::kevent_calls();
  const int changes = emulation::kevent_changes();
  for (const Pair& pair : pairs) EXPECT_EQ(queue.later(pair.near, kRead, kRead | kWrite), 0);
  EXPECT_EQ(emulation::kevent_calls(), calls);
  EXPECT_EQ(queue.wait(), 20);
  EXPECT_EQ(emulation::kevent_calls(), calls + 1);
  // READ was told before and is no change.
  EXPECT_EQ(emulation::kevent_changes(), changes + 20);
  for (const Pair& pair : pairs) EXPECT_EQ(queue.later(pair.near, kRead | kWrite, 0), 0);
  EXPECT_EQ(queue.wait(), 0);
  EXPECT_EQ(emulation::kevent_calls(), calls + 2);
  EXPECT_EQ(emulation::kevent_changes(), changes + 60);
}

TEST(a_turn_of_a_base_with_changes_is_one_call) {
  Rig rig(*find_backend("kqueue"), make_backend(*find_backend("kqueue")));
  const Pair pair;
  const EventId reads = rig.add(pair.near, kRead | kPersist);
  const EventId writes = rig.create(pair.near, kWrite);
  rig.poll();
  const int calls = emulation::kevent_calls();
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(rig.base->add(writes, kForever), 0);
    EXPECT_EQ(rig.poll(), kFoundWork);
    EXPECT_EQ(rig.told(writes), kWrite);
  }
  EXPECT_EQ(emulation::kevent_calls(), calls + 10);
  EXPECT_EQ(rig.pending(reads), kRead);
}

TEST(more_changes_than_an_answer_has_room_for_are_all_told) {
  Kqueue queue;
  std::vector<Pair> pairs(30);
  for (const Pair& pair : pairs) EXPECT_EQ(queue.change(pair.near, 0, kRead), 0);
  for (const Pair& pair : pairs) EXPECT_EQ(queue.later(pair.near, kRead, kWrite), 0);
  EXPECT_EQ(queue.wait(0, 4), 4);
  EXPECT_EQ(queue.wait(), 30);
  for (const Pair& pair : pairs) EXPECT_EQ(queue.mask(pair.near), kWrite);
}

TEST(who_waits_for_its_descriptor_has_the_changes_told_before) {
  Kqueue queue;
  const Pair pair;
  EXPECT_EQ(queue.change(pair.near, 0, kRead), 0);
  EXPECT_EQ(queue.later(pair.near, kRead, kWrite), 0);
  EXPECT_TRUE(!queue.readable());
  queue.backend->flush();
  EXPECT_TRUE(queue.readable());
  EXPECT_EQ(queue.wait(), 1);
}

TEST(what_is_refused_with_the_wait_is_named_once_and_the_others_are_told) {
  Kqueue queue;
  Pair closed, open;
  const int number = closed.near;
  for (const int fd : {number, static_cast<int>(open.near)}) {
    EXPECT_EQ(queue.change(fd, 0, kRead), 0);
    EXPECT_EQ(queue.later(fd, kRead, kRead | kWrite), 0);
  }
  closed.near.close();
  EXPECT_EQ(queue.wait(kForever), 1);
  EXPECT_EQ(queue.mask(open.near), kWrite);
  EXPECT_EQ(queue.backend->take_refused(), number);
  EXPECT_EQ(queue.backend->take_refused(), -1);
  // Nothing of it is left: the number is new.
  EXPECT_EQ(queue.change(number, 0, kRead), -EBADF);
}

TEST(what_is_taken_out_after_a_close_is_no_error) {
  Kqueue queue;
  Pair closed;
  const int number = closed.near;
  EXPECT_EQ(queue.change(number, 0, kRead | kWrite), 0);
  EXPECT_EQ(queue.later(number, kRead | kWrite, 0), 0);
  closed.near.close();
  const Micros begin = monotonic_now();
  EXPECT_EQ(queue.wait(kNap), 0);
  // It waits although the kernel had an error to tell.
  EXPECT_TRUE(monotonic_now() - begin >= kNap);
  EXPECT_EQ(queue.backend->take_refused(), -1);
}

TEST(what_was_kept_for_an_old_file_does_not_reach_the_new_one) {
  Kqueue queue;
  Pair old;
  const Pair young;
  const int number = old.near;
  EXPECT_EQ(queue.change(number, 0, kRead | kWrite), 0);
  EXPECT_EQ(queue.later(number, kRead | kWrite, 0), 0);
  EXPECT_EQ(dup2(young.near, number), number);
  EXPECT_EQ(queue.change(number, 0, kWrite), 0);
  EXPECT_EQ(queue.wait(), 1);
  EXPECT_EQ(queue.mask(number), kWrite);
  // And what was kept for a file that stays is not lost with what comes at once.
  EXPECT_EQ(queue.later(number, kWrite, kRead), 0);
  EXPECT_EQ(queue.change(number, kRead, 0), 0);
  EXPECT_EQ(queue.wait(), 0);
  EXPECT_TRUE(!queue.readable());
}

TEST(a_kernel_out_of_memory_is_told_and_asked_again) {
  Kqueue queue;
  const Pair pair;
  emulation::refuse_knotes(ENOMEM, 1);
  EXPECT_EQ(queue.change(pair.near, 0, kRead), -ENOMEM);
  EXPECT_EQ(queue.change(pair.near, 0, kRead), 0);
  EXPECT_EQ(queue.later(pair.near, kRead, kRead | kWrite), 0);
  emulation::refuse_knotes(ENOMEM, 1);
  EXPECT_EQ(queue.wait(kForever), -ENOMEM);
  EXPECT_EQ(queue.backend->take_refused(), -1);
  EXPECT_EQ(queue.wait(kForever), 1);
  EXPECT_EQ(queue.mask(pair.near), kWrite);
}

TEST(a_change_that_fails_leaves_both_filters_as_they_were) {
  Kqueue queue;
  const Pair pair;
  send_byte(pair.far);
  EXPECT_EQ(queue.change(pair.near, 0, kRead | kEdge), 0);
  EXPECT_EQ(queue.wait(), 1);
  emulation::refuse_knotes(ENOMEM, 1);
  EXPECT_EQ(queue.change(pair.near, kRead | kEdge, kRead | kWrite), -ENOMEM);
  queue.wait();
  EXPECT_EQ(queue.wait(), 0);
  send_byte(pair.far);
  EXPECT_EQ(queue.wait(), 1);
  EXPECT_EQ(queue.mask(pair.near), kRead);
  EXPECT_EQ(queue.wait(), 0);
}

// ── level, edge and the end ─────────────────────────────────────────────────────────────────

TEST(a_descriptor_goes_from_level_to_edge_and_back) {
  Kqueue queue;
  const Pair pair;
  send_byte(pair.far);
  EXPECT_EQ(queue.change(pair.near, 0, kRead), 0);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(queue.wait(), 1);
  EXPECT_EQ(queue.change(pair.near, kRead, kRead | kEdge), 0);
  EXPECT_EQ(queue.wait(), 1);
  EXPECT_EQ(queue.wait(), 0);
  EXPECT_EQ(queue.later(pair.near, kRead | kEdge, kRead), 0);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(queue.wait(), 1);
}

TEST(for_the_end_alone_data_wakes_nobody) {
  Kqueue queue;
  Pair socket;
  Pipe pipe;
  EXPECT_EQ(queue.change(socket.near, 0, kClosed), 0);
  EXPECT_EQ(queue.change(pipe.out, 0, kClosed), 0);
  send_byte(socket.far);
  send_byte(pipe.in);
  // A pipe has no low-water mark, so its data is met once.
  EXPECT_EQ(queue.wait(), 0);
  queue.backend->flush();
  EXPECT_EQ(queue.wait(), 0);
  EXPECT_TRUE(!queue.readable());
  socket.far.close();
  pipe.in.close();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(queue.wait(), 2);
    EXPECT_EQ(queue.mask(socket.near), kClosed);
    EXPECT_EQ(queue.mask(pipe.out), kClosed);
  }
  // Who wants the data too is told of both, and who wants it alone of that.
  EXPECT_EQ(queue.later(pipe.out, kClosed, kClosed | kRead), 0);
  EXPECT_EQ(queue.wait(), 2);
  EXPECT_EQ(queue.mask(pipe.out), kClosed | kRead);
  EXPECT_EQ(queue.later(pipe.out, kClosed | kRead, kRead), 0);
  EXPECT_EQ(queue.wait(), 2);
  EXPECT_EQ(queue.mask(pipe.out), kRead);
}

TEST(a_quiet_pipe_that_is_to_be_read_is_level_triggered_again) {
  Kqueue queue;
  const Pipe pipe;
  EXPECT_EQ(queue.change(pipe.out, 0, kClosed), 0);
  send_byte(pipe.in);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(queue.wait(), 0);
  EXPECT_EQ(queue.later(pipe.out, kClosed, kClosed | kRead), 0);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(queue.wait(), 1);
    EXPECT_EQ(queue.mask(pipe.out), kRead);
  }
}

// ── what is always ready ────────────────────────────────────────────────────────────────────

TEST(a_regular_file_is_ready_at_its_end_too) {
  Kqueue queue;
  const Fd file = make_file();
  EXPECT_EQ(queue.change(file, 0, kRead), 0);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(queue.readable());
    EXPECT_EQ(queue.wait(kForever), 1);
    EXPECT_EQ(queue.mask(file), kRead);
  }
  EXPECT_EQ(queue.later(file, kRead, kRead | kWrite), 0);
  EXPECT_EQ(queue.wait(), 1);
  EXPECT_EQ(queue.mask(file), kRead | kWrite);
  EXPECT_EQ(queue.change(file, kRead | kWrite, kRead | kEdge), 0);
  EXPECT_EQ(queue.wait(), 1);
  EXPECT_EQ(queue.wait(), 0);
  EXPECT_TRUE(!queue.readable());
  // A file has no end that comes from elsewhere.
  EXPECT_EQ(queue.change(file, kRead | kEdge, kClosed), 0);
  EXPECT_EQ(queue.wait(), 0);
  EXPECT_TRUE(!queue.readable());
  EXPECT_EQ(queue.change(file, kClosed, 0), 0);
}

TEST(files_and_sockets_share_a_small_answer) {
  Kqueue queue;
  std::vector<Fd> files;
  std::vector<Pair> pairs(3);
  for (int i = 0; i < 3; ++i) files.push_back(make_file());
  for (const Fd& file : files) EXPECT_EQ(queue.change(file, 0, kRead), 0);
  for (const Pair& pair : pairs) EXPECT_EQ(queue.change(pair.near, 0, kWrite), 0);
  for (const std::size_t room : {std::size_t{1}, std::size_t{2}, std::size_t{5}}) {
    std::vector<int> seen;
    for (int i = 0; i < 60; ++i) {
      EXPECT_TRUE(queue.wait(0, room) <= static_cast<int>(room));
      for (const Ready& one : queue.ready) seen.push_back(one.fd);
    }
    for (const Fd& file : files) EXPECT_TRUE(std::count(seen.begin(), seen.end(), int{file}) > 1);
    for (const Pair& pair : pairs)
      EXPECT_TRUE(std::count(seen.begin(), seen.end(), int{pair.near}) > 1);
  }
}

TEST(a_file_that_is_closed_is_told_no_more_and_its_number_may_be_a_socket) {
  Kqueue queue;
  const Pair pair;
  Fd file = make_file();
  const int number = file;
  EXPECT_EQ(queue.change(number, 0, kRead), 0);
  EXPECT_EQ(queue.wait(), 1);
  file.close();
  EXPECT_EQ(queue.wait(), 0);
  EXPECT_TRUE(!queue.readable());
  EXPECT_EQ(dup2(pair.near, number), number);
  const Fd again(number);
  EXPECT_EQ(queue.change(number, kRead, kRead), 0);
  EXPECT_EQ(queue.wait(), 0);
  send_byte(pair.far);
  EXPECT_EQ(queue.wait(), 1);
}

TEST(the_writer_of_a_pipe_that_nobody_reads_is_ready_to_meet_that) {
  Kqueue queue;
  Pipe pipe;
  pipe.out.close();
  EXPECT_EQ(queue.change(pipe.in, 0, kWrite), 0);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(queue.wait(kForever), 1);
    EXPECT_EQ(queue.mask(pipe.in), kWrite);
  }
  EXPECT_EQ(queue.change(pipe.in, kWrite, 0), 0);
  EXPECT_EQ(queue.wait(), 0);

  // The same of one that is told with the wait.
  Pipe later;
  EXPECT_EQ(queue.change(later.in, 0, kWrite), 0);
  EXPECT_EQ(queue.later(later.in, kWrite, 0), 0);
  EXPECT_EQ(queue.wait(), 0);
  later.out.close();
  EXPECT_EQ(queue.later(later.in, 0, kWrite), 0);
  queue.wait();
  EXPECT_EQ(queue.wait(), 1);
  EXPECT_EQ(queue.mask(later.in), kWrite);
  EXPECT_EQ(queue.backend->take_refused(), -1);
}

TEST(devices_that_have_no_filter_are_refused) {
  Kqueue queue;
  const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(queue.change(null, 0, kRead), -EINVAL);
  EXPECT_EQ(queue.change(null, 0, kWrite), -EINVAL);
  EXPECT_EQ(queue.wait(), 0);
}

// ── the waker ───────────────────────────────────────────────────────────────────────────────

TEST(its_waker_ends_a_wait_and_tells_nothing) {
  Kqueue queue;
  const std::shared_ptr<const WakeTarget> target = queue.backend->wake_target();
  if (!EXPECT_TRUE(target != nullptr)) return;
  EXPECT_TRUE(queue.backend->wake_target() == target);
  for (int i = 0; i < 3; ++i) target->wake();
  EXPECT_TRUE(queue.readable());
  EXPECT_EQ(queue.wait(kForever), 0);
  EXPECT_TRUE(!queue.readable());
  race([&] { target->wake(); }, [&] { EXPECT_EQ(queue.wait(kForever), 0); });
}

TEST(a_thread_may_wake_a_base_that_has_ended) {
  const int before = count_fds();
  for (Rounds rounds(200); rounds.next();) {
    Waker waker;
    EXPECT_EQ(waker.open(Waker::Kind::kUser), 0);
    EXPECT_EQ(waker.fd(), -1);
    waker.wake();  // Nobody is there yet.
    auto backend = make_backend(*find_backend("kqueue"));
    waker.bind(backend->wake_target());
    race([&] { waker.wake(); }, [&] { backend.reset(); });
    waker.wake();
    waker.close();
  }
  EXPECT_EQ(count_fds(), before);
}

TEST(a_base_on_another_backend_cannot_have_it) {
  const BackendType& type = *find_backend("poll");
  Rig rig(type, make_backend(type), Waker::Kind::kUser);
  const EventId signal = rig.create(10, kSignal | kPersist);
  EXPECT_EQ(rig.base->add(signal, kForever), -EOPNOTSUPP);
  InboxHandle handle = kNoInbox;
  EXPECT_EQ(Inbox::create(4, Waker::Kind::kUser, kNoInbox, &handle), 0);
  Inbox* inbox = Inbox::attach(handle);
  EXPECT_EQ(rig.base->attach(inbox), -EOPNOTSUPP);
  Inbox::release_creator(handle);
  inbox->unref();
}

}  // namespace multiloop::test
