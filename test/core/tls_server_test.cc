// What TLS servers have besides: names that are asked for, ticket keys, the key log, OCSP.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tls_fixture.h"

#ifdef ML_HAVE_TLS

namespace multiloop::test {

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

}  // namespace multiloop::test

#endif
