// The TLS engine over the system's OpenSSL, where its library and its headers are.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../native/core/ledger.h"
#include "../../native/core/tls_library.h"
#include "../../native/core/tls_session.h"
#include "check.h"
#include "fixture.h"

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

namespace {

// Node exports OpenSSL's functions; a program of ours has to load them first.
bool available() {
  static const bool loaded = dlopen("libssl.so.3", RTLD_NOW | RTLD_GLOBAL) != nullptr;
  const char* why = tls_unavailable();
  if (loaded && why == nullptr) return true;
  static bool told = false;
  if (!told) std::printf("Skipped: TLS: %s\n", loaded ? why : "there is no libssl.so.3 here");
  told = true;
  return false;
}

std::string file(const char* name) {
  std::string text;
  std::FILE* in = std::fopen((std::string("test/tls/") + name).c_str(), "r");
  if (!EXPECT_TRUE(in != nullptr)) return text;
  char piece[4'096];
  for (std::size_t n = 0; (n = std::fread(piece, 1, sizeof piece, in)) > 0;) text.append(piece, n);
  std::fclose(in);
  return text;
}

TlsSettings server_settings() {
  TlsSettings settings;
  settings.server = true;
  settings.certificates = {file("localhost.pem")};
  settings.keys = {file("localhost-key.pem")};
  return settings;
}
TlsContextRef make(const TlsSettings& settings) {
  std::string error;
  TlsContextRef context = make_tls_context(settings, &error);
  EXPECT_TRUE(context != nullptr);
  if (context == nullptr) std::printf("%s\n", error.c_str());
  return context;
}
TlsContextRef client_context() {
  TlsSettings settings;
  settings.authorities = {file("ca.pem")};
  return make(settings);
}
TlsSession* open(const TlsContextRef& context, int fd, const TlsPeer& peer = {}) {
  std::string error;
  TlsSession* session = TlsSession::make(context, fd, peer, &error);
  EXPECT_TRUE(session != nullptr);
  return session;
}

// Steps both until both are done or one has failed; what the worse one answered.
long shake(TlsSession* one, TlsSession* other) {
  for (int step = 0; step < 20; ++step) {
    const long first = one->handshake();
    const long second = other->handshake();
    if (first <= 0 && second <= 0) return first < second ? first : second;
  }
  return -ETIMEDOUT;
}

// Two ends of one connection, past their handshake.
struct Ends {
  Pair pair;
  TlsSession* server = open(make(server_settings()), pair.near);
  TlsSession* client = open(client_context(), pair.far, {"localhost", "localhost", ""});
  Ends() { EXPECT_EQ(shake(client, server), 0); }
  Ends(const Ends&) = delete;
  Ends& operator=(const Ends&) = delete;
  ~Ends() {
    free_tls_session(server);
    free_tls_session(client);
  }
};

std::string receive(TlsSession* from, std::size_t room = 100, bool* more = nullptr) {
  std::string text(room, '\0');
  bool rest = false;
  const long count = from->read(text.data(), room, &rest);
  if (more != nullptr) *more = rest;
  text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  return text;
}

}  // namespace

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

namespace {

TlsSettings www_settings() {
  TlsSettings settings;
  settings.server = true;
  settings.certificates = {file("www.pem")};
  settings.keys = {file("www-key.pem")};
  settings.tickets.on = false;
  return settings;
}

// A folder that goes away with what is in it.
struct Folder {
  std::string path = "/tmp/multiloop-tls-XXXXXX";
  Folder() { EXPECT_TRUE(mkdtemp(path.data()) != nullptr); }
  ~Folder() { EXPECT_EQ(std::system(("rm -r " + path).c_str()), 0); }
  std::string operator/(const char* name) const { return path + "/" + name; }
};

void put(const std::string& path, const std::string& text) {
  std::FILE* out = std::fopen(path.c_str(), "w");
  if (!EXPECT_TRUE(out != nullptr)) return;
  std::fwrite(text.data(), 1, text.size(), out);
  std::fclose(out);
}

TlsTicketSettings ticket_settings(const std::string& path = "") {
  TlsTicketSettings settings;
  settings.rotation = 1'000;
  settings.lifetime = 500;
  settings.file = path;
  return settings;
}
std::shared_ptr<TlsTickets> tickets(const TlsTicketSettings& settings, WallMs now) {
  std::string error;
  std::shared_ptr<TlsTickets> made = TlsTickets::make(settings, now, &error);
  if (!EXPECT_TRUE(made != nullptr)) std::printf("%s\n", error.c_str());
  return made;
}
TlsTickets::Found find(TlsTickets* ring, const TlsTicketKey& key, WallMs now) {
  TlsTicketKey found{};
  const TlsTickets::Found answer = ring->find(key.name.data(), now, &found);
  if (answer != TlsTickets::kUnknown) EXPECT_TRUE(found.cipher == key.cipher);
  return answer;
}

// Resumes what an earlier connection was given, or not; what the next one is given.
std::string visit(const TlsContextRef& server, const TlsContextRef& client,
                  const std::string& session, bool resumes) {
  Pair pair;
  TlsSession* far = open(server, pair.near);
  TlsSession* near = open(client, pair.far, {"localhost", "localhost", session});
  EXPECT_EQ(shake(near, far), 0);
  EXPECT_TRUE(far->facts().reused == resumes && near->facts().reused == resumes);
  EXPECT_EQ(far->write("ticket", 6), 6);
  EXPECT_TRUE(receive(near) == "ticket");
  const std::vector<unsigned char> exported = near->export_session();
  free_tls_session(near);
  free_tls_session(far);
  return {exported.begin(), exported.end()};
}

}  // namespace

TEST(a_handshake_waits_for_what_its_name_gets) {
  if (!available()) return;
  TlsSettings settings = server_settings();
  settings.asks_for_names = true;
  const TlsContextRef server = make(settings);
  const TlsContextRef www = make(www_settings());
  const TlsContextRef client = client_context();
  struct Case {
    TlsNaming::State answer;
    TlsContextRef context;
    const char* shown;
  };
  const Case cases[] = {
      {TlsNaming::kAnswered, www, "www.example.org"},
      {TlsNaming::kAnswered, nullptr, "localhost"},
      {TlsNaming::kRefused, nullptr, nullptr},
  };
  for (const int version : {0x0303, 0x0304}) {
    for (const Case& one : cases) {
      Pair pair;
      TlsSettings lax;
      lax.version_max = version;
      lax.authorities = {file("ca.pem")};
      const TlsContextRef newer = make(lax);
      const char* identity = one.shown == nullptr ? "" : one.shown;
      TlsSession* far = open(server, pair.near);
      TlsSession* near = open(newer, pair.far, {"Other.Test", identity, ""});
      EXPECT_EQ(near->handshake(), TlsSession::kReads);
      for (int i = 0; i < 3; ++i) EXPECT_EQ(far->handshake(), TlsSession::kAsks);
      EXPECT_TRUE(far->naming().name == "other.test");
      far->naming().context = one.context;
      far->naming().state = one.answer;
      const long result = shake(near, far);
      EXPECT_EQ(result, one.shown == nullptr ? kTlsFailed : 0);
      if (one.shown == nullptr)
        EXPECT_TRUE(near->error().find("unrecognized name") != std::string::npos);
      free_tls_session(near);
      free_tls_session(far);
    }
  }
  // One that is learned is not asked for, and one that dies while it waits is freed.
  server->learn("other.test", www);
  {
    Pair pair;
    TlsSession* far = open(server, pair.near);
    TlsSession* near = open(client, pair.far, {"other.test", "www.example.org", ""});
    EXPECT_EQ(shake(near, far), 0);
    free_tls_session(near);
    free_tls_session(far);
  }
  Pair pair;
  TlsSession* far = open(server, pair.near);
  TlsSession* near = open(client, pair.far, {"third.test", "", ""});
  EXPECT_EQ(near->handshake(), TlsSession::kReads);
  EXPECT_EQ(far->handshake(), TlsSession::kAsks);
  free_tls_session(near);
  free_tls_session(far);
}

TEST(ticket_keys_take_turns_and_old_ones_are_good_until_their_tickets_are_not) {
  if (!available()) return;
  const auto ring = tickets(ticket_settings(), 0);
  const TlsTicketKey first = ring->newest(999);
  EXPECT_EQ(find(ring.get(), first, 999), TlsTickets::kNewest);
  const TlsTicketKey second = ring->newest(1'000);
  EXPECT_TRUE(second.name != first.name && second.cipher != first.cipher);
  EXPECT_EQ(find(ring.get(), first, 1'499), TlsTickets::kOlder);
  EXPECT_EQ(find(ring.get(), first, 1'500), TlsTickets::kUnknown);
  EXPECT_EQ(find(ring.get(), second, 1'500), TlsTickets::kNewest);
  // A clock that goes back.
  EXPECT_TRUE(ring->newest(10).name == second.name);
  for (WallMs now = 2'000; now < 100'000; now += 1'000) ring->newest(now);
  EXPECT_EQ(find(ring.get(), second, 100'000), TlsTickets::kUnknown);
}

TEST(ticket_keys_are_shared_by_a_file_and_one_of_all_replaces_them) {
  if (!available()) return;
  const Folder folder;
  const std::string path = folder / "keys";
  const TlsTicketSettings settings = ticket_settings(path);
  const auto one = tickets(settings, 10'000);
  const auto other = tickets(settings, 10'010);
  struct stat info {};
  EXPECT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  const TlsTicketKey first = one->newest(10'020);
  EXPECT_TRUE(other->newest(10'020).name == first.name);
  // While somebody else has the lock the old key goes on.
  const int lock = ::open((path + ".lock").c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_EQ(flock(lock, LOCK_EX), 0);
  EXPECT_TRUE(one->newest(11'100).name == first.name);
  ::close(lock);
  const TlsTicketKey second = one->newest(12'200);
  EXPECT_TRUE(second.name != first.name);
  // It is found when a ticket of it comes.
  EXPECT_EQ(find(other.get(), second, 12'201), TlsTickets::kNewest);
  EXPECT_TRUE(other->newest(12'210).name == second.name);
  EXPECT_TRUE(one->take_problem().empty() && other->take_problem().empty());
  // A third that starts late, when the key is due.
  const auto third = tickets(settings, 14'000);
  EXPECT_TRUE(one->newest(14'001).name == third->newest(14'001).name);
  // Missing, it is made anew; what is wrong with it is told once, and the keys stay.
  EXPECT_EQ(unlink(path.c_str()), 0);
  const TlsTicketKey fourth = one->newest(16'000);
  EXPECT_EQ(find(third.get(), fourth, 16'001), TlsTickets::kNewest);
  put(path, "garbage");
  EXPECT_TRUE(one->newest(18'000).name == fourth.name);
  EXPECT_TRUE(one->newest(20'000).name == fourth.name);
  EXPECT_TRUE(one->take_problem().find("something else in it") != std::string::npos);
  EXPECT_TRUE(one->take_problem().empty());
}

TEST(a_ticket_file_that_cannot_be_trusted_is_refused) {
  if (!available()) return;
  const Folder folder;
  const std::string path = folder / "keys";
  const auto complaint = [&path](WallMs now = 5'000) {
    std::string error;
    EXPECT_TRUE(TlsTickets::make(ticket_settings(path), now, &error) == nullptr);
    return error;
  };
  const auto says = [](const std::string& text, const char* part) {
    if (!EXPECT_TRUE(text.find(part) != std::string::npos)) std::printf("%s\n", text.c_str());
  };
  tickets(ticket_settings(path), 5'000);
  const auto text = [&path] {
    std::string all;
    std::FILE* in = std::fopen(path.c_str(), "r");
    for (int c = 0; (c = std::fgetc(in)) != EOF;) all += static_cast<char>(c);
    std::fclose(in);
    return all;
  };
  const std::string good = text();
  EXPECT_EQ(chmod(path.c_str(), 0644), 0);
  says(complaint(), "open to others");
  EXPECT_EQ(chmod(path.c_str(), 0600), 0);
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    put(path, good.substr(0, cut));
    says(complaint(), "something else in it");
  }
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = '*';
    put(path, bad);
    says(complaint(), "something else in it");
  }
  put(path, good + good.substr(good.find('\n') + 1));
  EXPECT_TRUE(tickets(ticket_settings(path), 5'000) != nullptr);
  put(path, std::string(100'000, '\n'));
  says(complaint(), "something else in it");
  put(path, good);
  says(complaint(5'000 - 25LL * 3'600 * 1'000), "day after tomorrow");
  EXPECT_EQ(rename(path.c_str(), (path + "2").c_str()), 0);
  EXPECT_EQ(symlink((path + "2").c_str(), path.c_str()), 0);
  says(complaint(), "cannot be opened");
  EXPECT_EQ(unlink(path.c_str()), 0);
  EXPECT_EQ(mkdir(path.c_str(), 0700), 0);
  says(complaint(), "is no file");
  std::string error;
  EXPECT_TRUE(TlsTickets::make(ticket_settings(folder / "no/keys"), 0, &error) == nullptr);
  says(error, "cannot be locked");
}

TEST(tickets_of_one_ring_resume_at_every_context_that_has_it) {
  if (!available()) return;
  const Folder folder;
  const TlsContextRef client = client_context();
  TlsSettings settings = server_settings();
  const TlsContextRef first = make(settings);
  const std::string session = visit(first, client, "", false);
  settings.certificates = {file("rsa.pem")};
  settings.keys = {file("rsa-key.pem")};
  visit(make(settings), client, session, false);
  settings.tickets_of = first;
  visit(make(settings), client, session, true);
  // Another file is another ring.
  settings.tickets.file = folder / "keys";
  const TlsContextRef filed = make(settings);
  visit(filed, client, session, false);
  const std::string shared = visit(filed, client, "", false);
  settings.tickets_of = nullptr;
  visit(make(settings), client, shared, true);
  settings.tickets.on = false;
  visit(make(settings), client, shared, false);
  EXPECT_TRUE(visit(make(settings), client, "", false).empty());
  std::string error;
  settings.tickets.on = true;
  put(settings.tickets.file, "garbage");
  EXPECT_TRUE(make_tls_context(settings, &error) == nullptr && !error.empty());
}

TEST(a_ring_is_used_by_threads_at_the_same_time) {
  if (!available()) return;
  const Folder folder;
  TlsTicketSettings settings = ticket_settings(folder / "keys");
  settings.lifetime = 1'000'000;
  const auto one = tickets(settings, 0);
  const auto other = tickets(settings, 0);
  const auto use = [](TlsTickets* mine, TlsTickets* theirs) {
    for (WallMs now = 0; now < 60'000; now += 300) {
      const TlsTicketKey key = mine->newest(now);
      EXPECT_TRUE(find(mine, key, now) != TlsTickets::kUnknown);
      EXPECT_TRUE(find(theirs, key, now) != TlsTickets::kUnknown);
    }
  };
  race([&] { use(one.get(), other.get()); }, [&] { use(other.get(), one.get()); });
  EXPECT_TRUE(one->take_problem().empty() && other->take_problem().empty());
}

TEST(the_secrets_of_sessions_are_in_the_key_log_when_it_was_asked_for) {
  if (!available()) return;
  const Folder folder;
  TlsSettings settings = server_settings();
  settings.key_log = folder / "keys.log";
  settings.names.push_back({"www.example.org", make([&] {
                              TlsSettings www = www_settings();
                              www.key_log = settings.key_log;
                              return www;
                            }())});
  const TlsContextRef server = make(settings);
  const TlsContextRef client = client_context();
  for (const char* name : {"localhost", "www.example.org"}) {
    Pair pair;
    TlsSession* far = open(server, pair.near);
    TlsSession* near = open(client, pair.far, {name, name, ""});
    EXPECT_EQ(shake(near, far), 0);
    free_tls_session(near);
    free_tls_session(far);
  }
  struct stat info {};
  EXPECT_EQ(stat(settings.key_log.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  std::FILE* in = std::fopen(settings.key_log.c_str(), "r");
  char line[1'024];
  int secrets = 0;
  while (std::fgets(line, sizeof line, in) != nullptr)
    if (std::strncmp(line, "SERVER_TRAFFIC_SECRET_0 ", 24) == 0) ++secrets;
  std::fclose(in);
  EXPECT_EQ(secrets, 2);
  std::string error;
  settings.key_log = folder / "no/keys.log";
  EXPECT_TRUE(make_tls_context(settings, &error) == nullptr);
  EXPECT_TRUE(error.find("the key log") == 0);
}

TEST(an_ocsp_response_is_stapled_for_who_asks) {
  if (!available()) return;
  // RFC 6960 section 4.2.1: successful (0), of a type that nobody knows; and tryLater (3).
  const std::string good("\x30\x0c\x0a\x01\0\xa0\x07\x30\x05\x06\x01\x2a\x04\0", 14);
  const std::string later("\x30\x03\x0a\x01\x03", 5);
  TlsSettings settings = server_settings();
  settings.ocsp = {good};
  TlsSettings www = www_settings();
  settings.names.push_back({"www.example.org", make(www)});
  const TlsContextRef server = make(settings);
  for (const int version : {0x0303, 0x0304}) {
    for (const bool asks : {false, true}) {
      TlsSettings wanted;
      wanted.authorities = {file("ca.pem")};
      wanted.request_ocsp = asks;
      wanted.version_max = version;
      for (const char* name : {"localhost", "www.example.org"}) {
        Pair pair;
        TlsSession* far = open(server, pair.near);
        TlsSession* near = open(make(wanted), pair.far, {name, name, ""});
        EXPECT_EQ(shake(near, far), 0);
        const std::vector<unsigned char> ocsp = near->facts().ocsp;
        const bool has = asks && name[0] == 'l';
        EXPECT_TRUE(std::string(ocsp.begin(), ocsp.end()) == (has ? good : ""));
        EXPECT_TRUE(far->facts().ocsp.empty());
        free_tls_session(near);
        free_tls_session(far);
      }
    }
  }
  std::string error;
  settings.ocsp = {"no response"};
  EXPECT_TRUE(make_tls_context(settings, &error) == nullptr);
  EXPECT_TRUE(error.find("the OCSP response is no DER") == 0);
  settings.ocsp = {later};
  EXPECT_TRUE(make_tls_context(settings, &error) == nullptr);
  EXPECT_TRUE(error.find("trylater") != std::string::npos);
}

#endif

}  // namespace multiloop::test
