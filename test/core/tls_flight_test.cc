// What a handshake sends: with one system call for each flight, kept when the socket does not take
// it, and not missed by a client that has gone before its tickets.
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "tls_fixture.h"

#ifdef ML_HAVE_TLS

namespace multiloop::test {

namespace {

// Takes what has come as it came: each send of the other end by itself.
std::vector<std::string> packets(int fd) {
  std::vector<std::string> all;
  std::string bytes(128 * 1'024, '\0');
  for (;;) {
    const ssize_t count = recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count <= 0) return all;
    all.push_back(bytes.substr(0, static_cast<std::size_t>(count)));
  }
}

void pass_on(const std::vector<std::string>& all, int fd) {
  for (const std::string& one : all)
    EXPECT_EQ(send(fd, one.data(), one.size(), MSG_NOSIGNAL), static_cast<long>(one.size()));
}

// Until the peer reads, nothing more goes in; how much that was.
std::size_t fill(int fd) {
  const std::string filler(4'096, 'x');
  std::size_t filled = 0;
  for (ssize_t count = 0;
       (count = send(fd, filler.data(), filler.size(), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0;)
    filled += static_cast<std::size_t>(count);
  return filled;
}

}  // namespace

TEST(a_flight_of_a_handshake_is_one_system_call_with_its_tickets) {
  if (!available()) return;
  int packet[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, packet), 0);
  const Fd near(packet[0]);
  const Fd far(packet[1]);
  Pair pair;
  TlsSession* server = open(make(server_settings()), near);
  TlsSession* client = open(client_context(), pair.far, {"localhost", "localhost", ""});
  EXPECT_EQ(client->handshake(), TlsSession::kReads);
  pass_on(packets(pair.near), far);
  EXPECT_EQ(server->handshake(), TlsSession::kReads);
  const std::vector<std::string> hello = packets(far);
  EXPECT_EQ(hello.size(), 1);
  pass_on(hello, pair.near);
  EXPECT_EQ(client->handshake(), TlsSession::kDone);
  pass_on(packets(pair.near), far);
  EXPECT_EQ(server->handshake(), TlsSession::kDone);
  const std::vector<std::string> tickets = packets(far);
  EXPECT_EQ(tickets.size(), 1);
  pass_on(tickets, pair.near);
  EXPECT_EQ(server->write("after", 5), 5);
  pass_on(packets(far), pair.near);
  EXPECT_TRUE(receive(client) == "after");
  EXPECT_TRUE(!client->export_session().empty());
  free_tls_session(client);
  free_tls_session(server);
}

TEST(a_flight_that_the_socket_does_not_take_is_waited_for) {
  if (!available()) return;
  for (const bool tickets : {false, true}) {
    Pair pair;
    TlsSession* server = open(make(server_settings()), pair.near);
    TlsSession* client = open(client_context(), pair.far, {"localhost", "localhost", ""});
    EXPECT_EQ(client->handshake(), TlsSession::kReads);
    if (tickets) {
      EXPECT_EQ(server->handshake(), TlsSession::kReads);
      EXPECT_EQ(client->handshake(), TlsSession::kDone);
    }
    std::size_t filled = fill(pair.near);
    EXPECT_EQ(server->handshake(), TlsSession::kWrites);
    EXPECT_EQ(server->handshake(), TlsSession::kWrites);
    EXPECT_TRUE(!server->shaken());
    for (std::string taken(4'096, '\0'); filled > 0;) {
      const std::size_t most = filled < taken.size() ? filled : taken.size();
      const ssize_t count = recv(pair.far, taken.data(), most, MSG_DONTWAIT);
      if (!EXPECT_TRUE(count > 0)) break;
      filled -= static_cast<std::size_t>(count);
    }
    EXPECT_EQ(shake(server, client), 0);
    EXPECT_EQ(server->write("after", 5), 5);
    EXPECT_TRUE(receive(client) == "after");
    free_tls_session(client);
    free_tls_session(server);
  }
}

TEST(a_client_that_has_gone_without_its_tickets_is_heard) {
  if (!available()) return;
  // Before they were made, or while they wait for room.
  for (const bool waiting : {false, true}) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    const Fd near(fds[0]);
    TlsSession* server = open(make(server_settings()), near);
    TlsSession* client = open(client_context(), fds[1], {"localhost", "localhost", ""});
    EXPECT_EQ(client->handshake(), TlsSession::kReads);
    EXPECT_EQ(server->handshake(), TlsSession::kReads);
    EXPECT_EQ(client->handshake(), TlsSession::kDone);
    EXPECT_EQ(client->write("last words", 10), 10);
    if (waiting) {
      fill(near);
      EXPECT_EQ(server->handshake(), TlsSession::kWrites);
    }
    EXPECT_EQ(client->shutdown(), 0);
    free_tls_session(client);
    // With something unread a unix socket's end would be a reset of what was sent.
    drain(fds[1]);
    close(fds[1]);
    EXPECT_EQ(server->handshake(), TlsSession::kDone);
    EXPECT_TRUE(receive(server) == "last words");
    bool more = false;
    char byte = 0;
    EXPECT_EQ(server->read(&byte, 1, &more), 0);
    free_tls_session(server);
  }
}

}  // namespace multiloop::test

#endif
