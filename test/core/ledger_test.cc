// The ledger: every descriptor has one owner and is closed once.
#include "../../native/core/ledger.h"

#include <netinet/in.h>
#include <unistd.h>

#include <cstring>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

std::uint32_t close_all(InboxHandle owner) {
  std::uint32_t count = 0;
  for (ConnectionId id = Ledger::next_owned(owner, 0); id != kNoConnection;
       id = Ledger::next_owned(owner, Ledger::fd_of(id) + 1))
    if (Ledger::close(id, owner, true)) ++count;
  return count;
}

// Owners need no inbox behind them here.
constexpr InboxHandle kHere = 1'025;
constexpr InboxHandle kThere = 1'026;
constexpr InboxHandle kElsewhere = 1'027;
constexpr std::uint32_t kListener = 7;

ConnectionId adopt(Fd& fd, InboxHandle owner, const sys::SockAddr& peer = {}) {
  ConnectionId id = kNoConnection;
  EXPECT_EQ(Ledger::adopt(fd.release(), owner, kListener, peer, &id), 0);
  EXPECT_TRUE(id != kNoConnection && id < 1ULL << 53);
  return id;
}

// Closed by nobody yet.
bool is_open(int fd) { return sys::check_open(fd) == 0; }

void expect_unknown(ConnectionId id) {
  sys::SockAddr peer{};
  EXPECT_TRUE(!Ledger::send(id, kHere, kThere));
  EXPECT_TRUE(!Ledger::take(id, kHere));
  EXPECT_TRUE(!Ledger::redirect(id, kHere, kThere));
  EXPECT_TRUE(!Ledger::close(id, kHere, false));
  EXPECT_TRUE(!Ledger::close_undelivered(id, kHere));
  EXPECT_EQ(Ledger::fd(id), -1);
  EXPECT_EQ(Ledger::listener(id), 0);
  EXPECT_TRUE(!Ledger::peer(id, &peer));
}

}  // namespace

TEST(an_entry_goes_from_owner_to_owner_and_is_closed_by_the_last) {
  Pair pair;
  const int number = pair.near;
  const std::uint32_t before = Ledger::count();
  EXPECT_TRUE(!Ledger::owns(number));
  const ConnectionId id = adopt(pair.near, kHere);
  EXPECT_EQ(Ledger::count(), before + 1);
  EXPECT_EQ(Ledger::fd(id), number);
  EXPECT_EQ(Ledger::listener(id), kListener);
  EXPECT_TRUE(Ledger::owns(number));

  // Owned by the first: nobody else may do anything, and it cannot be taken out of an inbox.
  EXPECT_TRUE(!Ledger::send(id, kThere, kHere));
  EXPECT_TRUE(!Ledger::take(id, kHere));
  EXPECT_TRUE(!Ledger::redirect(id, kHere, kThere));
  EXPECT_TRUE(!Ledger::close(id, kThere, true));
  EXPECT_TRUE(!Ledger::close_undelivered(id, kHere));

  // In the second's inbox: the first has no say any more, the second only once it took it.
  EXPECT_TRUE(Ledger::send(id, kHere, kThere));
  EXPECT_TRUE(!Ledger::send(id, kHere, kThere));
  EXPECT_TRUE(!Ledger::close(id, kHere, true));
  EXPECT_TRUE(!Ledger::close(id, kThere, true));
  EXPECT_TRUE(!Ledger::take(id, kHere));
  EXPECT_TRUE(!Ledger::redirect(id, kHere, kElsewhere));
  EXPECT_TRUE(Ledger::redirect(id, kThere, kElsewhere));
  EXPECT_TRUE(!Ledger::take(id, kThere));
  EXPECT_TRUE(Ledger::redirect(id, kElsewhere, kThere));
  EXPECT_TRUE(Ledger::take(id, kThere));
  EXPECT_TRUE(!Ledger::take(id, kThere));
  EXPECT_EQ(Ledger::fd(id), number);

  EXPECT_TRUE(is_open(number));
  EXPECT_TRUE(Ledger::close(id, kThere, false));
  EXPECT_TRUE(!is_open(number));
  EXPECT_TRUE(!Ledger::owns(number));
  EXPECT_EQ(Ledger::count(), before);
  EXPECT_EQ(read_some(pair.far), 0);
  expect_unknown(id);
}

TEST(what_could_not_be_delivered_is_closed_with_a_reset) {
  TcpPair pair;
  const ConnectionId id = adopt(pair.near, kHere);
  EXPECT_TRUE(Ledger::send(id, kHere, kThere));
  EXPECT_TRUE(!Ledger::close_undelivered(id, kHere));
  EXPECT_TRUE(Ledger::close_undelivered(id, kThere));
  EXPECT_EQ(read_some(pair.far), -ECONNRESET);
  expect_unknown(id);
}

TEST(a_close_is_orderly_or_a_reset_as_asked) {
  for (const bool reset : {false, true}) {
    TcpPair pair;
    const ConnectionId id = adopt(pair.near, kHere);
    EXPECT_TRUE(Ledger::close(id, kHere, reset));
    EXPECT_EQ(read_some(pair.far), reset ? -ECONNRESET : 0);
  }
}

TEST(a_number_used_again_is_another_connection) {
  const Pair pair;
  Fd first(sys::dup(pair.near));
  const int number = first;
  const ConnectionId old = adopt(first, kHere);
  EXPECT_TRUE(Ledger::close(old, kHere, false));
  for (int i = 0; i < 100; ++i) {
    // The kernel gives out the lowest number that is free.
    Fd again(sys::dup(pair.near));
    const ConnectionId id = adopt(again, kHere);
    EXPECT_EQ(Ledger::fd(id), number);
    EXPECT_TRUE(id != old);
    expect_unknown(old);
    EXPECT_TRUE(is_open(number));
    EXPECT_TRUE(Ledger::close(id, kHere, false));
  }
}

TEST(all_that_an_owner_owns_is_closed_and_nothing_else) {
  std::vector<TcpPair> pairs(6);
  std::vector<ConnectionId> ids;
  for (TcpPair& pair : pairs) ids.push_back(adopt(pair.near, kHere));
  // Two are somebody else's, one of them still on its way; one is on its way to us.
  EXPECT_TRUE(Ledger::send(ids[0], kHere, kThere));
  EXPECT_TRUE(Ledger::send(ids[1], kHere, kThere) && Ledger::take(ids[1], kThere));
  EXPECT_TRUE(Ledger::send(ids[2], kHere, kHere));
  EXPECT_EQ(close_all(kHere), 3);
  EXPECT_EQ(close_all(kHere), 0);
  for (std::size_t i = 3; i < ids.size(); ++i) {
    EXPECT_EQ(Ledger::fd(ids[i]), -1);
    EXPECT_EQ(read_some(pairs[i].far), -ECONNRESET);
  }
  EXPECT_TRUE(Ledger::close_undelivered(ids[0], kThere));
  EXPECT_EQ(close_all(kThere), 1);
  EXPECT_TRUE(Ledger::close_undelivered(ids[2], kHere));
  EXPECT_EQ(Ledger::count(), 0);
}

TEST(a_number_past_the_table_is_refused) {
  ConnectionId id = kNoConnection;
  const sys::SockAddr nobody{};
  for (const int number : {-1, 1 << 20, INT32_MAX})
    EXPECT_EQ(Ledger::adopt(number, kHere, kListener, nobody, &id), -EMFILE);
  EXPECT_EQ(id, kNoConnection);
  for (const int number : {-1, 1 << 20, 999'999}) EXPECT_TRUE(!Ledger::owns(number));
  expect_unknown(kNoConnection);
  expect_unknown((1ULL << 44) - 1);
}

TEST(the_peer_is_remembered) {
  const struct {
    const char* host;
    socklen_t length;
  } cases[] = {{"192.0.2.7", sizeof(sockaddr_in)}, {"2001:db8::7", sizeof(sockaddr_in6)}};
  for (const auto& one : cases) {
    Pair pair;
    sys::SockAddr peer{};
    EXPECT_EQ(sys::parse_ip(one.host, 4'711, &peer), 0);
    const ConnectionId id = adopt(pair.near, kHere, peer);
    sys::SockAddr told{};
    EXPECT_TRUE(Ledger::peer(id, &told));
    EXPECT_EQ(told.length, one.length);
    EXPECT_TRUE(std::memcmp(&told.storage, &peer.storage, one.length) == 0);
    EXPECT_TRUE(Ledger::close(id, kHere, false));
  }
  // A unix socket's peer has no name.
  Pair pair;
  sys::SockAddr unnamed{};
  unnamed.storage.ss_family = AF_UNIX;
  unnamed.length = sizeof(sa_family_t);
  const ConnectionId id = adopt(pair.near, kHere, unnamed);
  sys::SockAddr told{};
  EXPECT_TRUE(!Ledger::peer(id, &told));
  EXPECT_TRUE(Ledger::close(id, kHere, false));
}

namespace {

// Lets two threads try something on one entry, again and again: exactly one may succeed.
template <typename First, typename Second>
void expect_one_winner(bool in_inbox, First first, Second second) {
  int first_wins = 0;
  Rounds rounds(800);
  while (rounds.next()) {
    Pair pair;
    const ConnectionId id = adopt(pair.near, kHere);
    if (in_inbox) EXPECT_TRUE(Ledger::send(id, kHere, kHere));
    bool first_won = false;
    bool second_won = false;
    const auto run_first = [&] { first_won = first(id); };
    const auto run_second = [&] { second_won = second(id); };
    if (rounds.round() % 2 == 0)
      race(run_first, run_second);
    else
      race(run_second, run_first);
    if (!EXPECT_TRUE(first_won != second_won)) return;
    first_wins += first_won;
    // Whatever is left of it now has one owner or none.
    if (Ledger::fd(id) >= 0) {
      const bool closed = Ledger::close(id, kHere, false) || Ledger::close(id, kThere, false) ||
                          Ledger::close_undelivered(id, kHere) ||
                          Ledger::close_undelivered(id, kThere);
      EXPECT_TRUE(closed);
    }
    EXPECT_EQ(read_some(pair.far), 0);
  }
  std::printf("(%d:%d) ", first_wins, rounds.round() - first_wins);
}

bool close_here(ConnectionId id) { return Ledger::close(id, kHere, false); }
bool send_there(ConnectionId id) { return Ledger::send(id, kHere, kThere); }
bool take_here(ConnectionId id) { return Ledger::take(id, kHere); }
bool redirect_there(ConnectionId id) { return Ledger::redirect(id, kHere, kThere); }
bool close_undelivered_here(ConnectionId id) { return Ledger::close_undelivered(id, kHere); }

}  // namespace

TEST(two_closes_race) { expect_one_winner(false, close_here, close_here); }
TEST(a_close_and_a_handoff_race) { expect_one_winner(false, close_here, send_there); }
TEST(two_handoffs_race) {
  expect_one_winner(false, send_there, [](ConnectionId id) {
    return Ledger::send(id, kHere, kElsewhere) && Ledger::redirect(id, kElsewhere, kThere);
  });
}
TEST(taking_and_redirecting_race) { expect_one_winner(true, take_here, redirect_there); }
TEST(taking_and_giving_up_race) { expect_one_winner(true, take_here, close_undelivered_here); }
TEST(a_close_and_a_release_race) {
  expect_one_winner(false, close_here, [](ConnectionId) { return close_all(kHere) == 1; });
}

TEST(stale_questions_race_with_a_number_used_again) {
  // One thread asks about connections of a number that another closes and adopts in turns; it is
  // told the truth about the one it named, or nothing.
  sys::SockAddr peers[2];
  EXPECT_EQ(sys::parse_ip("192.0.2.1", 1, &peers[0]), 0);
  EXPECT_EQ(sys::parse_ip("2001:db8::2", 2, &peers[1]), 0);
  const Pair pair;
  Fd first(sys::dup(pair.near));
  const int number = first;
  ConnectionId id = adopt(first, kHere);
  EXPECT_TRUE(Ledger::close(id, kHere, false));

  std::atomic<ConnectionId> latest{id};
  std::atomic<bool> over{false};
  std::thread reader([&] {
    while (!over.load()) {
      const ConnectionId asked = latest.load();
      const std::uint64_t generation = asked >> 20;
      const std::uint32_t listener = Ledger::listener(asked);
      if (listener != 0 && !EXPECT_EQ(listener, generation)) break;
      sys::SockAddr told{};
      if (!Ledger::peer(asked, &told)) continue;
      const sys::SockAddr& expected = peers[generation % 2];
      if (!EXPECT_EQ(told.length, expected.length)) break;
      if (!EXPECT_EQ(std::memcmp(&told.storage, &expected.storage, told.length), 0)) break;
    }
  });
  Rounds rounds(3'000);
  while (rounds.next()) {
    const std::uint64_t generation = (id >> 20) + 1;
    EXPECT_EQ(dup2(pair.near, number), number);
    EXPECT_EQ(Ledger::adopt(number, kHere, static_cast<std::uint32_t>(generation),
                            peers[generation % 2], &id),
              0);
    EXPECT_EQ(id >> 20, generation);
    latest.store(id);
    if (rounds.round() % 8 == 0) sched_yield();
    EXPECT_TRUE(Ledger::close(id, kHere, false));
  }
  over.store(true);
  reader.join();
}

}  // namespace multiloop::test
