// Event ports of Solaris and illumos, port_create(3C). A descriptor is associated with the port;
// its first event goes to the port's queue, and whoever takes it from there ends the association
// (port_associate(3C)). So this backend is level-triggered by its own doing: what was told is
// associated anew before the next wait if it is still wanted, and is in the queue again at once if
// it is still ready. Not earlier: the callbacks have yet to read what is there.
//
// An event in the queue says what was true when it came, and nobody looks again when it is taken
// out (uts/common/fs/portfs/port_fd.c, port_fd_callback). One that came since an earlier wait may
// have been dealt with by a callback of another descriptor, or more may be true by now; poll(2)
// says what is. Those that were associated in this wait are believed.
//
// The key of an association is the number together with the open file, and close(2) of the number
// ends it and takes its event out of the queue, whether or not a duplicate lives on (port_fd.c,
// port_cache_lookup_fp and addfd_port): there are no ghosts as in epoll's sets.
#include "../platform.h"
#ifdef ML_HAVE_EVPORT

#include <poll.h>
#include <port.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "../backend.h"
#include "../check.h"
#include "../sys.h"
#include "poll_mask.h"

namespace multiloop {

namespace {

// Events taken from the port per call. More stay in its queue, in the order in which they came.
constexpr std::size_t kEventsPerWait = 1'024;

class EventPort final : public Backend {
 public:
  explicit EventPort(int fd) : port_(fd) {}
  // Ends all its associations too (port_create(3C)).
  ~EventPort() override { sys::close(port_); }

  int change(int fd, Mask before, Mask after) override {
    static_cast<void>(before);
    Registration& known = registration(fd);
    if (after == 0) return remove(fd, &known);
    // An association of the same file gets the new interest, and what is queued for the old one is
    // taken back (port_fd.c, port_associate_fd); that of another file is a new one.
    return associate(fd, after, &known);
  }

  int wait(Micros timeout, std::span<Ready> out) override {
    const std::size_t room = std::min(kEventsPerWait, out.size());
    ML_CHECK(room > 0);
    const Micros deadline = timeout > 0 ? monotonic_now() + timeout : 0;
    for (;;) {
      ++round_;
      const int failure = associate_spent();
      const int taken = take(failure < 0 ? 0 : timeout, room);
      if (taken < 0) return taken;
      if (const int told = tell(static_cast<std::size_t>(taken), out); told > 0) return told;
      if (failure < 0) return failure;
      // All of them were no longer true: they are associated anew, and those behind them wait.
      if (taken == 0 || (timeout == 0 && static_cast<std::size_t>(taken) < room)) return 0;
      if (timeout > 0) timeout = std::max<Micros>(0, deadline - monotonic_now());
    }
  }

  // poll(2) of a port answers POLLIN while its queue has events (uts/common/fs/portfs/port_vnops.c,
  // port_poll), so a port can be waited for, in another port too.
  int pollable_fd() const override { return port_; }

  // Should something fail, the next wait says so.
  void flush() override { associate_spent(); }

 private:
  enum class State : std::uint8_t {
    kOut,         // nobody asks for it
    kAssociated,  // the port will tell, or its queue has it already
    kSpent,       // it was told, and is to be associated anew
  };
  struct Registration {
    Mask mask = 0;
    State state = State::kOut;
    std::uint32_t round = 0;  // of the wait in which it was associated, or the one before
  };

  Registration& registration(int fd) {
    const auto number = static_cast<std::size_t>(fd);
    if (number >= registrations_.size()) registrations_.resize(number + number / 2 + 16);
    return registrations_[number];
  }

  int associate(int fd, Mask mask, Registration* known) {
    const auto object = static_cast<std::uintptr_t>(fd);
    if (::port_associate(port_, PORT_SOURCE_FD, object, to_poll(mask), nullptr) != 0) {
      // What is not an open descriptor is EBADFD here; EBADF would be the port itself. EAGAIN says
      // that the port has all the objects it may have (process.max-port-events).
      if (errno == EBADFD) return -EBADF;
      return errno == EAGAIN ? -ENOSPC : -errno;
    }
    *known = {mask, State::kAssociated, round_};
    return 0;
  }

  // What could not be associated is tried again next time.
  int associate_spent() {
    int failure = 0;
    std::size_t kept = 0;
    for (const int fd : spent_) {
      Registration& known = registration(fd);
      if (known.state != State::kSpent) continue;
      const int status = associate(fd, known.mask, &known);
      if (status == 0) continue;
      if (status == -EBADF) {
        // It was closed since it was told: one that is associated leaves by that, too.
        known.state = State::kOut;
        continue;
      }
      failure = status;
      spent_[kept++] = fd;
    }
    spent_.resize(kept);
    return failure;
  }

  int remove(int fd, Registration* known) {
    // What was told is out already. The kernel keeps its entry, without effect, until close(2).
    if (known->state == State::kAssociated) {
      const auto object = static_cast<std::uintptr_t>(fd);
      // What is queued goes with it (port_fd.c, port_dissociate_fd). Not found, it was closed since
      // and perhaps opened again as another file: it is out, as was asked for.
      if (::port_dissociate(port_, PORT_SOURCE_FD, object) != 0 && errno != ENOENT &&
          errno != EBADFD)
        return -errno;
    }
    *known = Registration{};
    return 0;
  }

  // Answers how many events `events_` has.
  int take(Micros timeout, std::size_t room) {
    timespec limit{timeout / 1'000'000, (timeout % 1'000'000) * 1'000};
    // In: how many to wait for. Out: how many there are.
    auto count = static_cast<unsigned>(1);
    // With a timeout of zero and an empty queue it succeeds with a count of 0 (Sun bug 6456558;
    // port.c, port_getn). When the time is over it fails with ETIME and still hands out what has
    // come. When a signal ends it, the count is left as it was (libc, event_port.c), and on some
    // kernels when the time is over too (libuv, sunos.c, uv__io_poll). So this one field decides.
    events_[0].portev_source = 0;
    const int status = ::port_getn(port_, events_, static_cast<unsigned>(room), &count,
                                   timeout < 0 ? nullptr : &limit);
    if (status != 0 && errno != ETIME && errno != EINTR) return -errno;
    if (events_[0].portev_source == 0) return 0;
    ML_CHECK(count <= room);
    return static_cast<int>(count);
  }

  int tell(std::size_t taken, std::span<Ready> out) {
    std::size_t told = 0;
    doubtful_.clear();
    for (std::size_t i = 0; i < taken; ++i) {
      const port_event_t& event = events_[i];
      // Nothing else is associated here, and nobody has this port to send to or to alert.
      if (event.portev_source != PORT_SOURCE_FD) continue;
      const auto fd = static_cast<int>(event.portev_object);
      Registration& known = registration(fd);
      if (known.state != State::kAssociated) continue;
      known.state = State::kSpent;
      spent_.push_back(fd);
      if (known.round == round_)
        out[told++] = {fd, from_poll(event.portev_events)};
      else
        doubtful_.push_back({fd, to_poll(known.mask), 0});
    }
    // Should it fail, nothing is lost: they are associated anew.
    if (doubtful_.empty() || sys::poll(doubtful_.data(), doubtful_.size(), 0) <= 0)
      return static_cast<int>(told);
    for (const pollfd& one : doubtful_)
      if (one.revents != 0) out[told++] = {one.fd, from_poll(one.revents)};
    return static_cast<int>(told);
  }

  const int port_;
  std::uint32_t round_ = 0;                  // counts the waits
  std::vector<Registration> registrations_;  // by descriptor
  std::vector<int> spent_;
  std::vector<pollfd> doubtful_;
  port_event_t events_[kEventsPerWait];
};

}  // namespace

std::unique_ptr<Backend> create_evport(int* error) {
  const int fd = ::port_create();
  *error = fd < 0 ? -errno : 0;
  if (fd < 0) return nullptr;
  // There is no flag for it, as libuv's uv__platform_loop_init (sunos.c) finds too.
  *error = sys::set_close_on_exec(fd);
  if (*error == 0) return std::make_unique<EventPort>(fd);
  sys::close(fd);
  return nullptr;
}

}  // namespace multiloop

#endif
