// TLS over memory instead of a socket, and keys that are updated.
#include "../../native/core/tls_memory.h"
#include "tls_fixture.h"

#ifdef ML_HAVE_TLS

namespace multiloop::test {

namespace {

// Two sessions over memory, and the records that are on their way between them.
struct Memories {
  TlsSession* server = open(make(server_settings()), kTlsMemory);
  TlsSession* client = open(client_context(), kTlsMemory, {"localhost", "localhost", ""});
  std::string to_server;
  std::string to_client;

  Memories() = default;
  Memories(const Memories&) = delete;
  Memories& operator=(const Memories&) = delete;
  ~Memories() {
    free_tls_session(server);
    free_tls_session(client);
  }

  // One call of `who`, which may take `most` bytes of what came, and give as many.
  template <typename Call>
  long call(TlsSession* who, Call what, std::size_t most = 65'536, bool ends = false) {
    std::string& came = who == server ? to_server : to_client;
    std::string& goes = who == server ? to_client : to_server;
    std::string room(most, '\0');
    TlsMemory memory;
    memory.from = reinterpret_cast<const unsigned char*>(came.data());
    memory.from_length = std::min(most, came.size());
    memory.ends = ends;
    memory.into = reinterpret_cast<unsigned char*>(room.data());
    memory.into_length = most;
    who->lend(&memory);
    const long result = what(who);
    who->lend(nullptr);
    EXPECT_TRUE(memory.taken <= memory.from_length && memory.given <= most);
    came.erase(0, memory.taken);
    goes.append(room, 0, memory.given);
    return result;
  }
  long shake(std::size_t most = 65'536) {
    const auto step = [](TlsSession* who) { return who->handshake(); };
    for (int i = 0; i < 100'000; ++i) {
      const long first = call(client, step, most);
      const long second = call(server, step, most);
      if (first <= 0 && second <= 0) return std::min(first, second);
    }
    return -ETIMEDOUT;
  }
  std::string read(TlsSession* who, std::size_t most = 65'536) {
    std::string all;
    for (;;) {
      const long count = call(
          who,
          [&all](TlsSession* from) {
            std::string text(1'000, '\0');
            bool more = false;
            const long got = from->read(text.data(), text.size(), &more);
            if (got > 0) all.append(text, 0, static_cast<std::size_t>(got));
            return got;
          },
          most);
      const std::string& came = who == server ? to_server : to_client;
      if (count <= 0 && (count != -EAGAIN || came.empty())) return all;
    }
  }
  // All of it, in as many calls as the room asks for.
  void write(TlsSession* who, std::string text, std::size_t most = 65'536) {
    while (!text.empty()) {
      const long count = call(
          who, [&text](TlsSession* to) { return to->write(text.data(), text.size()); }, most);
      if (!EXPECT_TRUE(count > 0 || count == -EAGAIN)) return;
      if (count > 0) text.erase(0, static_cast<std::size_t>(count));
    }
  }
};

}  // namespace

TEST(a_session_over_memory_does_all_in_whatever_pieces_it_is_lent) {
  if (!available()) return;
  for (const std::size_t most : {65'536U, 100U, 1U}) {
    Memories ends;
    EXPECT_EQ(ends.shake(most), 0);
    const std::string data(most == 1 ? 2'000 : 40'000, 'd');
    ends.write(ends.client, data, most);
    EXPECT_TRUE(ends.read(ends.server, most) == data);
    ends.write(ends.server, data, most);
    EXPECT_TRUE(ends.read(ends.client, most) == data);
    EXPECT_TRUE(ends.client->facts().unauthorized == nullptr);
  }
}

TEST(a_session_that_is_lent_nothing_waits) {
  if (!available()) return;
  Memories ends;
  EXPECT_EQ(ends.client->handshake(), TlsSession::kWrites);
  EXPECT_EQ(ends.server->handshake(), TlsSession::kReads);
  EXPECT_EQ(ends.shake(), 0);
  char byte = 0;
  bool more = true;
  EXPECT_EQ(ends.server->read(&byte, 1, &more), -EAGAIN);
  EXPECT_EQ(ends.server->write("x", 1), -EAGAIN);
  EXPECT_EQ(ends.server->unfinished(), 1U);
  // In the middle of a record there is no clean end, and no new key.
  EXPECT_EQ(ends.server->shutdown(), kTlsFailed);
  EXPECT_EQ(ends.server->update_keys(false), -EAGAIN);
  ends.write(ends.server, "x");
  EXPECT_TRUE(ends.read(ends.client) == "x");
}

TEST(memory_that_ends_is_an_end_only_after_a_close_notify) {
  if (!available()) return;
  Memories ends;
  EXPECT_EQ(ends.shake(), 0);
  const auto read = [](TlsSession* who) {
    char byte = 0;
    bool more = false;
    return who->read(&byte, 1, &more);
  };
  EXPECT_EQ(ends.call(ends.client, [](TlsSession* who) { return who->shutdown(); }), 0);
  EXPECT_EQ(ends.call(ends.server, read), 0);
  EXPECT_EQ(ends.call(ends.client, read, 65'536, true), kTlsTruncated);
  Memories cut;
  EXPECT_EQ(cut.call(
                cut.server, [](TlsSession* who) { return who->handshake(); }, 10, true),
            kTlsTruncated);
}

TEST(keys_are_updated_while_both_write) {
  if (!available()) return;
  for (const bool over_memory : {true, false}) {
    if (!over_memory) {
      const Ends ends;
      for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(ends.client->update_keys(i % 2 == 0), 0);
        EXPECT_EQ(ends.client->write("to", 2), 2);
        EXPECT_TRUE(receive(ends.server) == "to");
        EXPECT_EQ(ends.server->write("fro", 3), 3);
        EXPECT_TRUE(receive(ends.client) == "fro");
      }
      continue;
    }
    Memories ends;
    EXPECT_EQ(ends.shake(), 0);
    const auto update = [](TlsSession* who) { return who->update_keys(true); };
    for (int i = 0; i < 20; ++i) {
      // A byte at a time: the message is begun, and finished by whatever follows.
      EXPECT_EQ(ends.call(ends.client, update, 1), -EAGAIN);
      if (i % 2 == 0) {
        long status = -EAGAIN;
        while (status == -EAGAIN) status = ends.call(ends.client, update, 1);
        EXPECT_EQ(status, 0);
      }
      ends.write(ends.client, "to", 1);
      EXPECT_TRUE(ends.read(ends.server, 1) == "to");
      ends.write(ends.server, "fro");
      EXPECT_TRUE(ends.read(ends.client) == "fro");
      if (i % 2 != 0) EXPECT_EQ(ends.call(ends.client, update), 0);
      EXPECT_TRUE(ends.read(ends.server).empty());
    }
    EXPECT_EQ(ends.call(ends.client, [](TlsSession* who) { return who->shutdown(); }), 0);
    EXPECT_EQ(ends.call(ends.server, [](TlsSession* who) { return who->shutdown(); }), 0);
  }
}

}  // namespace multiloop::test

#endif
