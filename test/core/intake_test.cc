// Listening sockets in the ledger: accepted from by their owner alone, within a quota, passed on
// and never closed while somebody is left who could have them.
#include "../../native/core/intake.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "../../native/core/platform.h"
#include "check.h"
#include "fixture.h"
#include "place.h"

namespace multiloop::test {

namespace {

constexpr std::uint32_t kListener = 7;

// A listening socket on loopback, and clients that connect to it.
struct Door {
  Fd listening;
  sys::SockAddr address{};
  std::vector<Fd> clients;

  Door() {
    sys::ListenOptions options{};
    EXPECT_EQ(sys::parse_ip("127.0.0.1", 0, &options.address), 0);
    options.backlog = 16;
    const char* failed = "";
    listening = Fd(sys::listen(options, &failed));
    EXPECT_TRUE(listening >= 0);
    EXPECT_EQ(sys::local_address(listening, &address), 0);
  }
  const Fd& knock() {
    Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto* peer = reinterpret_cast<const sockaddr*>(&address.storage);
    EXPECT_EQ(::connect(client, peer, address.length), 0);
    clients.push_back(std::move(client));
    return clients.back();
  }
  ConnectionId enter(InboxHandle owner, QuotaHandle quota = kNoQuota) {
    ConnectionId id = kNoConnection;
    EXPECT_EQ(Ledger::listen(listening.release(), owner, kListener, quota, &id), 0);
    return id;
  }
};

}  // namespace

TEST(a_listening_socket_is_accepted_from_by_its_owner_alone) {
  const int fds = count_fds();
  {
    const Place coordinator(8);
    const Place loop(8, coordinator.handle);
    Door door;
    const ConnectionId id = door.enter(coordinator.handle);
    EXPECT_TRUE(Ledger::owns(Ledger::fd(id)));
    ConnectionId connection = kNoConnection;
    EXPECT_EQ(take_in(id, coordinator.handle, &connection), -EAGAIN);
    door.knock();
    EXPECT_EQ(take_in(id, loop.handle, &connection), -ESTALE);
    EXPECT_EQ(pass_listening(id, coordinator.handle, loop.handle), Delivery::kOk);
    EXPECT_EQ(pass_listening(id, coordinator.handle, loop.handle), Delivery::kNotOwner);
    EXPECT_EQ(take_in(id, coordinator.handle, &connection), -ESTALE);
    EXPECT_EQ(take_in(id, loop.handle, &connection), 1);
    EXPECT_EQ(Ledger::listener(connection), kListener);
    EXPECT_EQ(Ledger::owner(connection), loop.handle);
    // It is no connection, and nobody can treat it as one.
    EXPECT_TRUE(!Ledger::close(id, loop.handle, true));
    EXPECT_TRUE(!Ledger::send(id, loop.handle, coordinator.handle));
    EXPECT_EQ(Ledger::next_owned(loop.handle, 0), connection);
    EXPECT_TRUE(Ledger::close(connection, loop.handle, false));
    EXPECT_TRUE(!Ledger::close_listening(id, coordinator.handle));
    EXPECT_TRUE(Ledger::close_listening(id, loop.handle));
    EXPECT_TRUE(!Ledger::close_listening(id, loop.handle));
    EXPECT_EQ(take_in(id, loop.handle, &connection), -ESTALE);
  }
  EXPECT_EQ(Ledger::count(), 0);
  EXPECT_EQ(count_fds(), fds);
}

TEST(a_released_loop_passes_its_listening_sockets_on_with_who_waits_in_them) {
  const int fds = count_fds();
  {
    const Place coordinator(8);
    Place loop(8, coordinator.handle);
    Door door;
    const ConnectionId id = door.enter(coordinator.handle);
    EXPECT_EQ(pass_listening(id, coordinator.handle, loop.handle), Delivery::kOk);
    // Its reserve goes along.
    keep_reserve(id);
    const int reserve = Ledger::reserve(id);
    EXPECT_TRUE(reserve >= 0);
    const Fd& client = door.knock();
    loop.release();
    EXPECT_TRUE(Ledger::listens(id, coordinator.handle));
    EXPECT_EQ(Ledger::reserve(id), reserve);
    EXPECT_EQ(pass_listening(id, coordinator.handle, loop.handle), Delivery::kGone);
    EXPECT_TRUE(Ledger::listens(id, coordinator.handle));
    ConnectionId connection = kNoConnection;
    EXPECT_EQ(take_in(id, coordinator.handle, &connection), 1);
    EXPECT_TRUE(Ledger::close(connection, coordinator.handle, false));
    EXPECT_EQ(read_some(client), 0);
  }
  // The coordinator's own release has nobody to pass it on to.
  EXPECT_EQ(Ledger::count(), 0);
  EXPECT_EQ(count_fds(), fds);
}

TEST(a_listening_socket_that_is_passed_to_a_loop_that_ends_is_not_lost) {
  Place coordinator(64);
  Door door;
  const ConnectionId id = door.enter(coordinator.handle);
  Rounds rounds(400);
  while (rounds.next()) {
    Place loop(2, coordinator.handle);
    race([&] { release_loop(loop.inbox, true); },
         [&] { static_cast<void>(pass_listening(id, coordinator.handle, loop.handle)); });
    if (!EXPECT_TRUE(Ledger::listens(id, coordinator.handle))) return;
    while (!coordinator.is_empty()) coordinator.pop();
  }
  EXPECT_TRUE(Ledger::close_listening(id, coordinator.handle));
}

TEST(a_loop_and_its_coordinator_that_end_together_leave_no_listening_socket) {
  const int fds = count_fds();
  Rounds rounds(400);
  while (rounds.next()) {
    Place coordinator(8);
    Place loop(2, coordinator.handle);
    Door door;
    const ConnectionId id = door.enter(loop.handle);
    race([&] { release_loop(loop.inbox, true); }, [&] { release_loop(coordinator.inbox, true); });
    if (!EXPECT_EQ(Ledger::fd(id), -1)) return;
  }
  EXPECT_EQ(count_fds(), fds);
}

TEST(who_is_past_the_quota_is_reset_and_a_place_is_free_again_when_one_closes) {
  const Place coordinator(8);
  const QuotaHandle quota = Quota::create(2);
  Door door;
  const ConnectionId id = door.enter(coordinator.handle, quota);
  for (int i = 0; i < 4; ++i) door.knock();
  ConnectionId kept[2];
  for (ConnectionId& one : kept) EXPECT_EQ(take_in(id, coordinator.handle, &one), 1);
  ConnectionId connection = kNoConnection;
  EXPECT_EQ(take_in(id, coordinator.handle, &connection), 0);
  EXPECT_EQ(read_some(door.clients[2]), -ECONNRESET);
  EXPECT_EQ(Quota::used(quota), 2);
  EXPECT_TRUE(Ledger::close(kept[0], coordinator.handle, false));
  EXPECT_EQ(take_in(id, coordinator.handle, &connection), 1);
  // Given up while connections have places in it: none of them is somebody else's meanwhile.
  Quota::release(quota);
  const QuotaHandle other = Quota::create(1);
  EXPECT_TRUE(other != quota);
  Quota::release(other);
  EXPECT_TRUE(Ledger::close(kept[1], coordinator.handle, false));
  EXPECT_TRUE(Ledger::close(connection, coordinator.handle, false));
  EXPECT_EQ(Quota::used(quota), 0);
  EXPECT_TRUE(Ledger::close_listening(id, coordinator.handle));
}

TEST(two_threads_never_take_more_places_than_there_are) {
  const QuotaHandle quota = Quota::create(3);
  Rounds rounds(2'000);
  std::atomic<std::uint32_t> most{0};
  while (rounds.next()) {
    const auto come_and_go = [&] {
      std::uint32_t taken = 0;
      for (int i = 0; i < 3; ++i) taken += Quota::take(quota) ? 1 : 0;
      const std::uint32_t used = Quota::used(quota);
      if (used > most.load()) most.store(used);
      for (; taken > 0; --taken) Quota::give(quota);
    };
    race(come_and_go, come_and_go);
    if (!EXPECT_EQ(Quota::used(quota), 0)) return;
  }
  EXPECT_TRUE(most.load() <= 3);
  Quota::release(quota);
}

TEST(out_of_descriptors_the_reserve_turns_those_who_wait_away) {
  const Place coordinator(8);
  Door door;
  const ConnectionId id = door.enter(coordinator.handle);
  keep_reserve(id);
  for (int i = 0; i < 3; ++i) door.knock();
  const auto limit = static_cast<rlim_t>(count_fds());
  {
    const DescriptorLimit none(limit > 3 ? 3 : limit);
    ConnectionId connection = kNoConnection;
    EXPECT_EQ(take_in(id, coordinator.handle, &connection), -EMFILE);
  }
  EXPECT_EQ(turn_away(id, 2), 2);
  EXPECT_EQ(read_some(door.clients[0]), 0);
  EXPECT_TRUE(Ledger::reserve(id) >= 0);
  ConnectionId connection = kNoConnection;
  EXPECT_EQ(take_in(id, coordinator.handle, &connection), 1);
  EXPECT_TRUE(Ledger::close(connection, coordinator.handle, false));
  EXPECT_TRUE(Ledger::close_listening(id, coordinator.handle));
}

// ── one of many is woken ────────────────────────────────────────────────────────────────────

// An event that is one of many tells the same as any other, whatever becomes of its interest.
TEST_EACH_BASE(an_event_that_wakes_alone_tells_what_is_ready) {
  Pair pair;
  const EventId id = rig.create(pair.near, kRead | kPersist);
  EXPECT_EQ(rig.base->wake_alone(id), 0);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  EXPECT_TRUE(sleeps(rig));
  send_byte(pair.far);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
  // Level-triggered, and stepping back loses nothing.
  rig.base->remove(id);
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
  rig.base->remove(id);
  EXPECT_TRUE(sleeps(rig));
  EXPECT_EQ(rig.base->add(id, kForever), 0);
  rig.poll();
  EXPECT_EQ(rig.told(id), kRead);
  drain(pair.near);
  EXPECT_TRUE(sleeps(rig));
  EXPECT_EQ(rig.base->destroy(id), 0);
  rig.base->forget(pair.near);
  // The number's next event is an ordinary one again, also with what an exclusive one cannot have.
  if (!rig.has(kFeatureEarlyClose)) return;
  const EventId next = rig.add(pair.near, kRead | kClosed);
  pair.far.close();
  rig.poll();
  EXPECT_TRUE((rig.told(next) & kClosed) != 0);
}

#ifdef ML_HAVE_EPOLL

namespace {

// What the kernel was told of `fd` in an epoll set (proc(5), fdinfo).
std::uint32_t events_in(int set, int fd) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fdinfo/%d", set);
  std::FILE* file = std::fopen(path, "re");
  if (file == nullptr) return 0;
  char line[256];
  std::uint32_t found = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    int number = 0;
    unsigned events = 0;
    if (std::sscanf(line, "tfd: %d events: %x", &number, &events) == 2 && number == fd)
      found = events;
  }
  std::fclose(file);
  return found;
}

constexpr std::uint32_t kExclusive = 1U << 28;

}  // namespace

TEST_EACH_BASE(epoll_is_told_that_an_event_wakes_alone) {
  if (std::strcmp(rig.type.name, "epoll") != 0) return;
  Pair pair;
  const int set = rig.base->backend().pollable_fd();
  const EventId id = rig.create(pair.near, kRead | kPersist);
  EXPECT_EQ(rig.base->wake_alone(id), 0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(rig.base->add(id, kForever), 0);
    rig.poll();
    EXPECT_TRUE((events_in(set, pair.near) & kExclusive) != 0);
    rig.base->remove(id);
    // Merged with the coming add(), told, and taken out at once.
    if (i == 1) rig.poll();
    if (i == 2) rig.base->forget(pair.near);
  }
  const EventId ordinary = rig.add(pair.near, kRead);
  rig.poll();
  EXPECT_EQ(events_in(set, pair.near) & kExclusive, 0);
  EXPECT_EQ(rig.base->remove(ordinary), 0);
}

#endif

}  // namespace multiloop::test
