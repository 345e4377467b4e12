// The emulated kqueue(2): that it does what the manual pages say, and refuses what they say.
#include <fcntl.h>
#include <poll.h>
#include <sys/event.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

using Kevent = struct kevent;

constexpr timespec kAtOnce{0, 0};

Kevent make(int ident, int filter, int flags, std::uint32_t fflags = 0, int data = 0) {
  Kevent one{};
  one.ident = static_cast<std::uintptr_t>(ident);
  one.filter = static_cast<std::int16_t>(filter);
  one.flags = static_cast<std::uint16_t>(flags);
  one.fflags = fflags;
  one.data = data;
  return one;
}

// A kqueue with its last answer.
struct Queue {
  const Fd fd{kqueue()};
  std::vector<Kevent> events;

  // One change without room for an answer: 0 or the error.
  int change(const Kevent& one) const {
    return kevent(fd, &one, 1, nullptr, 0, nullptr) ? errno : 0;
  }
  int ask(const std::vector<Kevent>& changes = {}, std::size_t room = 16,
          const timespec* timeout = &kAtOnce) {
    events.assign(room, Kevent{});
    const int count = kevent(fd, changes.data(), static_cast<int>(changes.size()), events.data(),
                             static_cast<int>(room), timeout);
    events.resize(static_cast<std::size_t>(std::max(count, 0)));
    return count;
  }
  bool readable() const {
    pollfd one{fd, POLLIN, 0};
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

}  // namespace

// ── what is refused ─────────────────────────────────────────────────────────────────────────

TEST(filters_that_it_does_not_have_are_invalid) {
  const Queue queue;
  const Pair pair;
  for (const int filter : {0, 1, -3, -4, -7, -100})
    EXPECT_EQ(queue.change(make(pair.near, filter, EV_ADD)), EINVAL);
  EXPECT_EQ(queue.change(make(queue.fd, EVFILT_READ, EV_ADD)), EINVAL);
}

TEST(what_is_not_there_cannot_be_changed_or_deleted) {
  const Queue queue;
  const Pair pair;
  for (const int flags : {EV_DELETE, EV_ENABLE, EV_DISABLE, 0})
    EXPECT_EQ(queue.change(make(pair.near, EVFILT_READ, flags)), ENOENT);
  EXPECT_EQ(queue.change(make(7, EVFILT_USER, 0, NOTE_TRIGGER)), ENOENT);
  EXPECT_EQ(queue.change(make(pair.near, EVFILT_READ, EV_ADD)), 0);
  EXPECT_EQ(queue.change(make(pair.near, EVFILT_WRITE, EV_DELETE)), ENOENT);
  EXPECT_EQ(queue.change(make(pair.near, EVFILT_READ, EV_DELETE)), 0);
  EXPECT_EQ(queue.change(make(pair.near, EVFILT_READ, EV_DELETE)), ENOENT);
}

TEST(numbers_that_are_not_open_are_bad_for_every_change) {
  const Queue queue;
  Pair pair;
  const int number = pair.near;
  pair.near.close();
  for (const int flags : {EV_ADD, EV_DELETE, EV_ENABLE})
    EXPECT_EQ(queue.change(make(number, EVFILT_READ, flags)), EBADF);
  EXPECT_EQ(queue.change(make(-1, EVFILT_READ, EV_ADD)), EBADF);
  EXPECT_EQ(kevent(number, nullptr, 0, nullptr, 0, nullptr), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(kevent(pair.far, nullptr, 0, nullptr, 0, nullptr), -1);
  EXPECT_EQ(errno, EBADF);
}

TEST(times_and_sizes_that_make_no_sense_are_invalid) {
  Queue queue;
  for (const timespec& bad : {timespec{-1, 0}, timespec{0, -1}, timespec{0, 1'000'000'000}}) {
    EXPECT_EQ(queue.ask({}, 1, &bad), -1);
    EXPECT_EQ(errno, EINVAL);
  }
  EXPECT_EQ(kevent(queue.fd, nullptr, -1, nullptr, 0, nullptr), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST(kinds_of_files_are_refused_as_the_kernels_do) {
  Queue queue;
  char name[] = "/tmp/multiloop-test-XXXXXX";
  const Fd file(mkostemp(name, O_CLOEXEC));
  EXPECT_EQ(unlink(name), 0);
  EXPECT_EQ(queue.change(make(file, EVFILT_WRITE, EV_ADD)), EINVAL);
  const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(queue.change(make(null, EVFILT_READ, EV_ADD)), EINVAL);
  // A pipe that nobody reads.
  Pipe pipe;
  pipe.out.close();
  EXPECT_EQ(queue.change(make(pipe.in, EVFILT_WRITE, EV_ADD)), EPIPE);
}

// ── how errors are answered ─────────────────────────────────────────────────────────────────

TEST(an_error_is_an_entry_where_there_is_room_and_no_event_is_beside_it) {
  Queue queue;
  const Pair pair;
  send_byte(pair.far);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_READ, EV_ADD), make(pair.near, -3, EV_ADD)}), 1);
  EXPECT_EQ(queue.events[0].flags & EV_ERROR, EV_ERROR);
  EXPECT_EQ(queue.events[0].data, EINVAL);
  EXPECT_EQ(queue.events[0].filter, -3);
  EXPECT_EQ(queue.ask(), 1);
  EXPECT_EQ(queue.events[0].flags & EV_ERROR, 0);
}

TEST(without_room_the_call_fails_and_the_changes_behind_are_lost) {
  Queue queue;
  const Pair pair;
  const Kevent changes[] = {make(pair.near, EVFILT_WRITE, EV_ADD), make(pair.near, -3, EV_ADD),
                            make(pair.near, EVFILT_READ, EV_ADD)};
  EXPECT_EQ(kevent(queue.fd, changes, 3, nullptr, 0, nullptr), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(queue.change(make(pair.near, EVFILT_WRITE, EV_DELETE)), 0);
  EXPECT_EQ(queue.change(make(pair.near, EVFILT_READ, EV_DELETE)), ENOENT);
}

TEST(receipts_are_given_for_what_succeeds_too_and_events_stay) {
  Queue queue;
  const Pair pair;
  send_byte(pair.far);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_READ, EV_ADD | EV_RECEIPT),
                       make(pair.near, EVFILT_WRITE, EV_DELETE | EV_RECEIPT)}),
            2);
  EXPECT_EQ(queue.events[0].flags & EV_ERROR, EV_ERROR);
  EXPECT_EQ(queue.events[0].data, 0);
  EXPECT_EQ(queue.events[1].data, ENOENT);
  EXPECT_EQ(queue.ask(), 1);
}

TEST(with_no_room_asked_for_only_changes_are_made) {
  Queue queue;
  const Pair pair;
  // It does not block either, whatever the timeout.
  const Kevent add = make(pair.near, EVFILT_WRITE, EV_ADD);
  EXPECT_EQ(kevent(queue.fd, &add, 1, nullptr, 0, nullptr), 0);
  EXPECT_EQ(queue.ask(), 1);
}

// ── what is told ────────────────────────────────────────────────────────────────────────────

TEST(there_is_one_knote_for_an_ident_and_a_filter) {
  Queue queue;
  const Pair pair;
  send_byte(pair.far);
  int first = 0;
  int second = 0;
  Kevent add = make(pair.near, EVFILT_READ, EV_ADD);
  add.udata = &first;
  EXPECT_EQ(queue.ask({add}), 1);
  EXPECT_TRUE(queue.events[0].udata == &first);
  add.udata = &second;
  EXPECT_EQ(queue.ask({add}), 1);
  EXPECT_TRUE(queue.events[0].udata == &second);
  EXPECT_EQ(queue.events[0].data, 1);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_WRITE, EV_ADD)}), 2);
}

TEST(the_flags_of_a_knote_are_those_it_was_added_with) {
  Queue queue;
  const Pair pair;
  send_byte(pair.far);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_READ, EV_ADD)}), 1);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_READ, EV_ADD | EV_CLEAR)}), 1);
  EXPECT_EQ(queue.ask(), 1);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_READ, EV_DELETE),
                       make(pair.near, EVFILT_READ, EV_ADD | EV_CLEAR)}),
            1);
  EXPECT_EQ(queue.ask(), 0);
  send_byte(pair.far);
  EXPECT_EQ(queue.ask(), 1);
  EXPECT_EQ(queue.events[0].data, 2);
}

TEST(one_shots_go_and_dispatched_ones_rest) {
  Queue queue;
  const Pair pair;
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_WRITE, EV_ADD | EV_ONESHOT)}), 1);
  EXPECT_EQ(queue.ask(), 0);
  EXPECT_EQ(queue.change(make(pair.near, EVFILT_WRITE, EV_DELETE)), ENOENT);

  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_WRITE, EV_ADD | EV_DISPATCH)}), 1);
  EXPECT_EQ(queue.ask(), 0);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_WRITE, EV_ENABLE)}), 1);
  EXPECT_EQ(queue.ask(), 0);
  EXPECT_EQ(queue.change(make(pair.near, EVFILT_WRITE, EV_DELETE)), 0);
}

TEST(a_disabled_one_is_not_told_until_it_is_enabled) {
  Queue queue;
  const Pair pair;
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_WRITE, EV_ADD | EV_DISABLE)}), 0);
  EXPECT_TRUE(!queue.readable());
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_WRITE, EV_ENABLE)}), 1);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_WRITE, EV_DISABLE)}), 0);
  // Adding enables.
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_WRITE, EV_ADD)}), 1);
}

TEST(a_close_takes_the_knotes_along_duplicates_or_not) {
  Queue queue;
  Pair pair;
  const int number = pair.near;
  const Fd copy(sys::dup(number));
  send_byte(pair.far);
  EXPECT_EQ(queue.ask({make(number, EVFILT_READ, EV_ADD), make(number, EVFILT_WRITE, EV_ADD)}), 2);
  pair.near.close();
  EXPECT_TRUE(!queue.readable());
  EXPECT_EQ(queue.ask(), 0);
  // The same file comes back under its number, and has to be added anew.
  EXPECT_EQ(dup2(copy, number), number);
  const Fd again(number);
  EXPECT_EQ(queue.ask(), 0);
  EXPECT_EQ(queue.change(make(number, EVFILT_READ, EV_DELETE)), ENOENT);
  EXPECT_EQ(queue.ask({make(number, EVFILT_READ, EV_ADD)}), 1);
  // Replaced, which closes it.
  const Pair other;
  EXPECT_EQ(dup2(other.near, number), number);
  EXPECT_EQ(queue.ask(), 0);
}

TEST(an_end_and_an_error_are_flags_beside_the_data) {
  Queue queue;
  const Pair pair;
  send_byte(pair.far);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_READ, EV_ADD)}), 1);
  EXPECT_EQ(queue.events[0].flags & EV_EOF, 0);
  EXPECT_EQ(sys::shutdown_write(pair.far), 0);
  EXPECT_EQ(queue.ask(), 1);
  EXPECT_EQ(queue.events[0].flags & EV_EOF, EV_EOF);
  EXPECT_EQ(queue.events[0].data, 1);
  EXPECT_EQ(queue.events[0].fflags, 0);

  TcpPair reset;
  EXPECT_EQ(queue.change(make(pair.near, EVFILT_READ, EV_DELETE)), 0);
  EXPECT_EQ(queue.ask({make(reset.near, EVFILT_READ, EV_ADD)}), 0);
  EXPECT_EQ(sys::reset_on_close(reset.far), 0);
  reset.far.close();
  EXPECT_EQ(queue.ask({}, 16, nullptr), 1);
  EXPECT_EQ(queue.events[0].flags & EV_EOF, EV_EOF);
  EXPECT_EQ(queue.events[0].fflags, ECONNRESET);
  EXPECT_EQ(read_some(reset.near), -ECONNRESET);

  Pipe pipe;
  EXPECT_EQ(queue.change(make(reset.near, EVFILT_READ, EV_DELETE)), 0);
  EXPECT_EQ(queue.ask({make(pipe.in, EVFILT_WRITE, EV_ADD)}), 1);
  EXPECT_EQ(queue.events[0].flags & EV_EOF, 0);
  pipe.out.close();
  EXPECT_EQ(queue.ask(), 1);
  EXPECT_EQ(queue.events[0].flags & EV_EOF, EV_EOF);
}

TEST(a_low_water_mark_is_for_sockets_and_not_for_pipes) {
  Queue queue;
  const Pair pair;
  const Pipe pipe;
  send_byte(pair.far);
  send_byte(pipe.in);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_READ, EV_ADD, NOTE_LOWAT, 1'000'000)}), 0);
  EXPECT_TRUE(!queue.readable());
  EXPECT_EQ(queue.ask({make(pipe.out, EVFILT_READ, EV_ADD, NOTE_LOWAT, 1'000'000)}), 1);
  EXPECT_EQ(queue.change(make(pipe.out, EVFILT_READ, EV_DELETE)), 0);
  // Added again without it, the mark is gone.
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_READ, EV_ADD)}), 1);
  EXPECT_EQ(queue.ask({make(pair.near, EVFILT_READ, EV_ADD, NOTE_LOWAT, 1'000'000)}), 0);
  EXPECT_EQ(sys::shutdown_write(pair.far), 0);
  EXPECT_EQ(queue.ask(), 1);
}

TEST(a_vnode_is_readable_while_its_offset_is_not_the_end) {
  Queue queue;
  char name[] = "/tmp/multiloop-test-XXXXXX";
  const Fd file(mkostemp(name, O_CLOEXEC));
  EXPECT_EQ(unlink(name), 0);
  EXPECT_EQ(queue.ask({make(file, EVFILT_READ, EV_ADD)}), 0);
  EXPECT_EQ(sys::write(file, "four", 4), 4);
  EXPECT_EQ(queue.ask(), 0);
  EXPECT_EQ(lseek(file, 1, SEEK_SET), 1);
  EXPECT_EQ(queue.ask(), 1);
  EXPECT_EQ(queue.events[0].data, 3);
}

TEST(a_user_event_is_told_when_it_was_triggered) {
  Queue queue;
  EXPECT_EQ(queue.ask({make(9, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_FFCOPY | 5)}), 0);
  EXPECT_TRUE(!queue.readable());
  EXPECT_EQ(queue.change(make(9, EVFILT_USER, 0, NOTE_TRIGGER)), 0);
  EXPECT_EQ(queue.change(make(9, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFOR | 2)), 0);
  EXPECT_TRUE(queue.readable());
  EXPECT_EQ(queue.ask(), 1);
  EXPECT_EQ(queue.events[0].ident, 9);
  EXPECT_EQ(queue.events[0].fflags, 7);
  EXPECT_TRUE(!queue.readable());
  EXPECT_EQ(queue.ask(), 0);

  // Without EV_CLEAR it stays triggered.
  EXPECT_EQ(queue.change(make(8, EVFILT_USER, EV_ADD, NOTE_TRIGGER)), 0);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(queue.ask(), 1);
  EXPECT_EQ(queue.change(make(8, EVFILT_USER, EV_DELETE)), 0);
  EXPECT_EQ(queue.ask(), 0);
}

TEST(another_thread_ends_a_wait_with_a_user_event) {
  for (Rounds rounds(100); rounds.next();) {
    Queue queue;
    EXPECT_EQ(queue.ask({make(1, EVFILT_USER, EV_ADD | EV_CLEAR)}), 0);
    const int fd = queue.fd;
    race(
        [fd] {
          const Kevent trigger = make(1, EVFILT_USER, 0, NOTE_TRIGGER);
          EXPECT_EQ(kevent(fd, &trigger, 1, nullptr, 0, nullptr), 0);
        },
        [&] { EXPECT_EQ(queue.ask({}, 1, nullptr), 1); });
  }
}

TEST(its_number_is_an_ordinary_descriptor) {
  const int before = count_fds();
  {
    Queue queue;
    const Pair pair;
    EXPECT_EQ(queue.ask({make(pair.near, EVFILT_READ, EV_ADD)}), 0);
    EXPECT_TRUE(!queue.readable());
    send_byte(pair.far);
    EXPECT_TRUE(queue.readable());
    drain(pair.near);
    EXPECT_TRUE(!queue.readable());
    // One can be waited for in another.
    Queue outer;
    EXPECT_EQ(outer.ask({make(queue.fd, EVFILT_READ, EV_ADD)}), 0);
    send_byte(pair.far);
    EXPECT_EQ(outer.ask({}, 1, nullptr), 1);
  }
  EXPECT_EQ(count_fds(), before);
}

TEST(a_full_answer_starves_neither_filter) {
  Queue queue;
  std::vector<Pair> pairs(3);
  std::vector<Kevent> changes;
  for (const Pair& pair : pairs) {
    send_byte(pair.far);
    changes.push_back(make(pair.near, EVFILT_READ, EV_ADD));
    changes.push_back(make(pair.near, EVFILT_WRITE, EV_ADD));
  }
  EXPECT_EQ(queue.ask(changes), 6);
  int seen[2] = {0, 0};
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(queue.ask({}, 1), 1);
    ++seen[queue.events[0].filter == EVFILT_READ];
  }
  EXPECT_TRUE(seen[0] > 0 && seen[1] > 0);
}

}  // namespace multiloop::test
