// The TLS engine over the system's OpenSSL, where its library and its headers are.
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "../../native/core/ledger.h"
#include "tls_fixture.h"

namespace multiloop::test {
TEST(a_name_is_matched_exactly_first_and_a_star_stands_for_one_label) {
  // Nobody looks into the contexts: two addresses are enough.
  const auto marks = std::make_shared<int[]>(2);
  const auto mark = [&marks](int at) {
    return TlsContextRef(marks, reinterpret_cast<const TlsContext*>(&marks[at]));
  };
  TlsNames names;
  EXPECT_TRUE(names.empty() && names.find("example.org") == nullptr);
  names.add("*.Example.org", mark(0));
  names.add("www.example.ORG", mark(1));
  const auto found = [&names](const char* name) -> const void* {
    const TlsContextRef* context = names.find(name);
    return context == nullptr ? nullptr : context->get();
  };
  EXPECT_TRUE(found("WWW.example.org") == &marks[1]);
  EXPECT_TRUE(found("www.example.org.") == &marks[1]);
  EXPECT_TRUE(found("a.EXAMPLE.org") == &marks[0]);
  for (const char* stranger : {"example.org", "a.b.example.org", ".example.org", "org", "", "."})
    EXPECT_TRUE(found(stranger) == nullptr);
}

TEST(learned_names_are_kept_up_to_a_limit_the_latest_used_longest) {
  const auto marks = std::make_shared<int[]>(2);
  const auto mark = [&marks](int at) {
    return TlsContextRef(marks, reinterpret_cast<const TlsContext*>(&marks[at]));
  };
  TlsLearnedNames names;
  EXPECT_TRUE(names.find("a.test") == nullptr);
  names.add("A.test.", mark(0));
  EXPECT_TRUE(names.find("a.TEST").get() == mark(0).get());
  names.add("a.test", mark(1));
  EXPECT_EQ(names.size(), 1U);
  for (std::size_t i = 0; i < 2 * TlsLearnedNames::kMax; ++i) {
    names.add("n" + std::to_string(i), mark(0));
    EXPECT_TRUE(names.find("a.test").get() == mark(1).get());
  }
  EXPECT_EQ(names.size(), TlsLearnedNames::kMax);
  EXPECT_TRUE(names.find("n0") == nullptr && names.find("n1023") != nullptr);
}

TEST(a_server_name_is_taken_from_its_extension_and_from_nothing_else) {
  const auto read = [](const std::string& body) {
    return std::string(
        server_name_in(reinterpret_cast<const unsigned char*>(body.data()), body.size()));
  };
  const std::string good("\0\6\0\0\3a.b", 8);
  EXPECT_TRUE(read(good) == "a.b");
  for (std::size_t cut = 0; cut < good.size(); ++cut) EXPECT_TRUE(read(good.substr(0, cut)) == "");
  EXPECT_TRUE(read(good + "x") == "");
  for (const std::size_t at : {0U, 1U, 2U, 3U, 4U}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] + 1);
    EXPECT_TRUE(read(bad) == "");
  }
  EXPECT_TRUE(is_askable_name("a.b") && is_askable_name(std::string(253, 'a')));
  for (const std::string& name : {std::string(), std::string(254, 'a'), std::string("a b"),
                                  std::string("a\0b", 3), std::string("\xc3\xa4")})
    EXPECT_TRUE(!is_askable_name(name));
}

#ifdef ML_HAVE_TLS

TEST(what_is_wrong_with_a_context_is_said) {
  if (!available()) return;
  const auto complaint = [](auto change) {
    TlsSettings settings = server_settings();
    change(settings);
    std::string error;
    EXPECT_TRUE(make_tls_context(settings, &error) == nullptr);
    return error;
  };
  const auto says = [](const std::string& text, const char* part) {
    if (!EXPECT_TRUE(text.find(part) != std::string::npos)) std::printf("%s\n", text.c_str());
  };
  says(complaint([](TlsSettings& s) { s.certificates = {"nothing"}; }),
       "the certificate is no PEM");
  says(complaint([](TlsSettings& s) { s.certificates[0].resize(300); }), "the certificate is no");
  says(complaint([](TlsSettings& s) { s.keys = {"nothing"}; }), "the key is no PEM");
  says(complaint([](TlsSettings& s) { s.keys = {file("www-key.pem")}; }), "mismatch");
  says(complaint([](TlsSettings& s) { s.authorities = {""}; }), "the authorities are no PEM");
  says(complaint([](TlsSettings& s) { s.ciphers = "none-such"; }), "no cipher match");
  says(complaint([](TlsSettings& s) { s.cipher_suites = "none-such"; }), "TLS 1.3");
  says(complaint([](TlsSettings& s) { s.groups = "none-such"; }), "the groups");
  // A chain of which the second is damaged is nothing half configured.
  says(complaint([](TlsSettings& s) { s.certificates[0] += s.certificates[0].substr(0, 200); }),
       "the certificate is no PEM");
  // Two of two kinds, and both keys are the first one's.
  says(complaint([](TlsSettings& s) {
         s.certificates.push_back(file("rsa.pem"));
         s.keys.push_back(s.keys[0]);
       }),
       "the key is not the certificate's");
  TlsSettings old = server_settings();
  old.certificates = {file("expired.pem")};
  old.keys = {file("expired-key.pem")};
  EXPECT_TRUE(make(old)->expired() && !make(server_settings())->expired());
}

TEST(a_context_is_found_by_its_handle_until_it_is_dropped) {
  if (!available()) return;
  const std::uint32_t before = count_tls_contexts();
  const TlsContextHandle first = share_tls_context(make(server_settings()));
  const TlsContextHandle second = share_tls_context(client_context());
  EXPECT_TRUE(first != kNoTlsContext && second != first);
  EXPECT_EQ(count_tls_contexts(), before + 2);
  TlsContextRef kept = find_tls_context(first);
  EXPECT_TRUE(kept != nullptr && kept->server());
  drop_tls_context(first);
  drop_tls_context(first);
  EXPECT_TRUE(find_tls_context(first) == nullptr && find_tls_context(kNoTlsContext) == nullptr);
  const TlsContextHandle third = share_tls_context(std::move(kept));
  EXPECT_TRUE(third != first && find_tls_context(first) == nullptr);
  drop_tls_context(second);
  drop_tls_context(third);
  EXPECT_EQ(count_tls_contexts(), before);
}

TEST(two_ends_agree_talk_and_end) {
  if (!available()) return;
  const Ends ends;
  EXPECT_TRUE(std::strcmp(ends.server->facts().protocol, "TLSv1.3") == 0);
  EXPECT_TRUE(ends.server->facts().server_name == "localhost");
  EXPECT_TRUE(ends.client->facts().unauthorized == nullptr);
  EXPECT_TRUE(!ends.client->facts().certificate.empty());
  char byte = 0;
  bool more = true;
  EXPECT_EQ(ends.server->read(&byte, 1, &more), -EAGAIN);
  EXPECT_TRUE(!more);
  EXPECT_EQ(ends.client->write("0123456789", 10), 10);
  EXPECT_TRUE(receive(ends.server, 4, &more) == "0123" && more);
  EXPECT_EQ(ends.client->shutdown(), 0);
  // What is inside does not fit, then comes with the end behind it.
  EXPECT_TRUE(receive(ends.server, 100, &more) == "456789" && more);
  EXPECT_EQ(ends.server->read(&byte, 1, &more), 0);
  EXPECT_EQ(ends.server->read(&byte, 1, &more), 0);
  // The other direction is open.
  EXPECT_EQ(ends.server->write("bye", 3), 3);
  EXPECT_TRUE(receive(ends.client) == "bye");
  EXPECT_TRUE(!ends.client->export_session().empty());
}

TEST(an_end_of_the_socket_is_no_end_of_what_was_said) {
  if (!available()) return;
  const Ends ends;
  EXPECT_EQ(ends.client->write("cut", 3), 3);
  EXPECT_EQ(shutdown(ends.pair.far, SHUT_WR), 0);
  bool more = false;
  EXPECT_TRUE(receive(ends.server, 100, &more) == "cut");
  char byte = 0;
  EXPECT_EQ(ends.server->read(&byte, 1, &more), kTlsTruncated);
  EXPECT_EQ(ends.server->read(&byte, 1, &more), kTlsTruncated);
  EXPECT_EQ(ends.server->shutdown(), kTlsFailed);
}

TEST(a_record_that_does_not_fit_is_finished_later_from_other_memory) {
  if (!available()) return;
  const Ends ends;
  const std::string data(3'000'000, 'm');
  std::size_t sent = 0;
  std::size_t received = 0;
  std::string room(70'000, '\0');
  while (received < data.size()) {
    bool waits = false;
    while (sent < data.size() && !waits) {
      // A little less than was offered before, as a limit of the rate would have it.
      const std::size_t left = data.size() - sent;
      const std::size_t most =
          std::max(ends.server->unfinished(), std::min<std::size_t>(left, 9'999));
      const std::string copy = data.substr(sent, most);
      const long count = ends.server->write(copy.data(), copy.size());
      waits = count == -EAGAIN;
      if (waits) EXPECT_TRUE(ends.server->unfinished() > 0);
      if (!waits && !EXPECT_TRUE(count > 0)) return;
      if (!waits) sent += static_cast<std::size_t>(count);
    }
    bool more = true;
    const long count = ends.client->read(room.data(), room.size(), &more);
    if (!EXPECT_TRUE(count > 0)) return;
    received += static_cast<std::size_t>(count);
  }
  EXPECT_EQ(received, data.size());
  EXPECT_EQ(ends.server->unfinished(), 0U);
}

TEST(what_was_encrypted_and_not_sent_goes_along_to_another_thread) {
  if (!available()) return;
  constexpr InboxHandle kOwners[] = {1'029, 1'030};
  for (const int version : {0x0303, 0x0304}) {
    TlsSettings settings = server_settings();
    settings.version_max = version;
    Pair pair;
    TlsSession* server = open(make(settings), pair.near);
    TlsSession* client = open(client_context(), pair.far, {"localhost", "localhost", ""});
    EXPECT_EQ(shake(client, server), 0);
    std::string data(2'000'000, '\0');
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i / 7 + i % 251);
    ConnectionId id = kNoConnection;
    EXPECT_EQ(Ledger::adopt(pair.near.release(), kOwners[0], 1, {}, &id), 0);
    EXPECT_TRUE(Ledger::set_tls(id, kOwners[0], server));
    std::size_t sent = 0;
    std::string heard;
    std::string room(70'000, '\0');
    int moves = 0;
    while (sent < data.size()) {
      // Until the socket takes no more; each time another thread goes on.
      std::thread([&] {
        const InboxHandle me = kOwners[moves % 2];
        TlsSession* mine = Ledger::tls(id, me);
        if (!EXPECT_TRUE(mine != nullptr)) return;
        long count = 0;
        while (sent < data.size() && count >= 0) {
          count = mine->write(data.data() + sent, data.size() - sent);
          if (count > 0) sent += static_cast<std::size_t>(count);
        }
        if (sent == data.size()) return;
        EXPECT_EQ(count, -EAGAIN);
        EXPECT_TRUE(mine->unfinished() > 0 && mine->unfinished() <= kTlsBatchMax);
        // There is no clean end in the middle of a record.
        EXPECT_EQ(mine->shutdown(), kTlsFailed);
        EXPECT_TRUE(Ledger::send(id, me, kOwners[1 - moves % 2]));
        EXPECT_TRUE(Ledger::take(id, kOwners[1 - moves % 2]));
        ++moves;
      }).join();
      bool more = true;
      for (long count = 1; count > 0;) {
        count = client->read(room.data(), room.size(), &more);
        if (count > 0) heard.append(room, 0, static_cast<std::size_t>(count));
      }
      if (!EXPECT_TRUE(moves < 10'000)) break;
    }
    EXPECT_TRUE(moves > 1);
    EXPECT_TRUE(heard == data);
    free_tls_session(client);
    EXPECT_TRUE(Ledger::close(id, kOwners[moves % 2], false));
  }
}

TEST(a_hello_cut_or_damaged_at_any_byte_ends_the_handshake) {
  if (!available()) return;
  const TlsContextRef server = make(server_settings());
  char hello[2'048];
  std::size_t length = 0;
  {
    Pair pair;
    TlsSession* client = open(client_context(), pair.far, {"localhost", "localhost", ""});
    EXPECT_EQ(client->handshake(), TlsSession::kReads);
    const ssize_t count = read(pair.near, hello, sizeof hello);
    free_tls_session(client);
    if (!EXPECT_TRUE(count > 100)) return;
    length = static_cast<std::size_t>(count);
  }
  const auto answer = [&server](const char* bytes, std::size_t count) {
    Pair pair;
    EXPECT_EQ(write(pair.far, bytes, count), static_cast<ssize_t>(count));
    EXPECT_EQ(shutdown(pair.far, SHUT_WR), 0);
    TlsSession* session = open(server, pair.near);
    long result = session->handshake();
    if (result > 0) result = session->handshake();
    free_tls_session(session);
    return result;
  };
  for (std::size_t cut = 0; cut < length; ++cut) EXPECT_EQ(answer(hello, cut), kTlsTruncated);
  for (std::size_t at = 0; at < length; ++at) {
    hello[at] = static_cast<char>(hello[at] ^ 0x41);
    EXPECT_TRUE(answer(hello, length) < 0);
    hello[at] = static_cast<char>(hello[at] ^ 0x41);
  }
}

TEST(a_session_is_its_entrys_and_goes_where_that_goes) {
  if (!available()) return;
  // Owners need no inbox behind them here.
  constexpr InboxHandle kOwners[] = {1'029, 1'030};
  Ends ends;
  const int fd = ends.pair.near.release();
  ConnectionId id = kNoConnection;
  EXPECT_EQ(Ledger::adopt(fd, kOwners[0], 1, {}, &id), 0);
  EXPECT_TRUE(Ledger::tls(id, kOwners[0]) == nullptr);
  EXPECT_TRUE(!Ledger::set_tls(id, kOwners[1], ends.server));
  EXPECT_TRUE(Ledger::set_tls(id, kOwners[0], ends.server));
  EXPECT_TRUE(!Ledger::set_tls(id, kOwners[0], ends.server));
  ends.server = nullptr;
  // Two threads in turn answer one client: each is given the connection by the other.
  constexpr int kMoves = 200;
  std::atomic<int> turn{0};
  const auto serve = [&](int me) {
    for (;;) {
      if (!await([&] { return turn.load() >= kMoves || turn.load() % 2 == me; })) return;
      const int now = turn.load();
      if (now >= kMoves) return;
      EXPECT_TRUE(Ledger::tls(id, kOwners[1 - me]) == nullptr);
      TlsSession* mine = Ledger::tls(id, kOwners[me]);
      if (!EXPECT_TRUE(mine != nullptr)) return turn.store(kMoves);
      std::string heard;
      if (!await([&] { return !(heard = receive(mine)).empty(); })) return;
      EXPECT_EQ(mine->write(heard.data(), heard.size()), static_cast<long>(heard.size()));
      EXPECT_TRUE(Ledger::send(id, kOwners[me], kOwners[1 - me]));
      EXPECT_TRUE(Ledger::tls(id, kOwners[0]) == nullptr && Ledger::tls(id, kOwners[1]) == nullptr);
      EXPECT_TRUE(Ledger::take(id, kOwners[1 - me]));
      turn.store(now + 1);
    }
  };
  std::thread one([&] { serve(0); });
  std::thread other([&] { serve(1); });
  for (int i = 0; i < kMoves; ++i) {
    const std::string said = std::to_string(i);
    EXPECT_EQ(ends.client->write(said.data(), said.size()), static_cast<long>(said.size()));
    std::string heard;
    if (!EXPECT_TRUE(await([&] { return !(heard = receive(ends.client)).empty(); }))) break;
    if (!EXPECT_TRUE(heard == said)) break;
  }
  one.join();
  other.join();
  EXPECT_TRUE(Ledger::close(id, kOwners[kMoves % 2], false));
  EXPECT_TRUE(Ledger::tls(id, kOwners[0]) == nullptr);
  EXPECT_EQ(sys::check_open(fd), -EBADF);
}

TEST(a_ticket_resumes_over_a_name_of_the_context) {
  if (!available()) return;
  TlsSettings settings = server_settings();
  TlsSettings www = server_settings();
  www.certificates = {file("www.pem")};
  www.keys = {file("www-key.pem")};
  settings.names.push_back({"www.example.org", make(www)});
  const TlsContextRef server = make(settings);
  const TlsContextRef client = client_context();
  std::string session;
  for (const bool again : {false, true}) {
    Pair pair;
    TlsSession* far = open(server, pair.near);
    TlsSession* near = open(client, pair.far, {"www.example.org", "www.example.org", session});
    EXPECT_EQ(shake(near, far), 0);
    EXPECT_TRUE(far->facts().reused == again && near->facts().reused == again);
    EXPECT_EQ(far->write("ticket", 6), 6);
    EXPECT_TRUE(receive(near) == "ticket");
    const std::vector<unsigned char> exported = near->export_session();
    session.assign(exported.begin(), exported.end());
    free_tls_session(near);
    free_tls_session(far);
  }
}

#endif

}  // namespace multiloop::test
