// The keys of session tickets (RFC 5077, RFC 8446 section 4.6.1), a ring of them: the newest one
// encrypts, the others still decrypt for as long as a ticket of theirs may be good. One ring is for
// all contexts of a listener, also for those to come, so that clients resume across names and
// changes of the certificate; through a file it is for several processes.
//
// The file is text, for its owner alone, and is replaced as a whole: who finds a key too old takes
// the lock beside it, looks whether another process was faster, and writes; all others find it
// changed within a second, or when a ticket comes that they have no key for. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace multiloop {

// Milliseconds since 1970: what processes, and one before and after a restart, agree on.
using WallMs = std::int64_t;
WallMs wall_now();

struct TlsTicketSettings {
  bool on = true;
  WallMs rotation = 12LL * 3'600 * 1'000;  // until a key is replaced
  WallMs lifetime = 2LL * 3'600 * 1'000;   // of a session
  std::string file;                        // empty: this process's own keys
};

struct TlsTicketKey {
  std::array<unsigned char, 16> name;  // sent with the ticket
  std::array<unsigned char, 32> cipher;
  std::array<unsigned char, 32> mac;
  WallMs made;
};

class TlsTickets {
 public:
  // Keys in a ring, and in its file.
  static constexpr std::size_t kKeysMax = 32;
  // How often the file is looked at.
  static constexpr WallMs kLookMs = 1'000;

  // With a first key; null, and what is wrong with the file.
  static std::shared_ptr<TlsTickets> make(const TlsTicketSettings& settings, WallMs now,
                                          std::string* error);
  ~TlsTickets();
  TlsTickets(const TlsTickets&) = delete;
  TlsTickets& operator=(const TlsTickets&) = delete;

  const std::string& file() const { return file_; }
  // Other times, from now on.
  void set_times(const TlsTicketSettings& settings);

  // What a new ticket is made with.
  TlsTicketKey newest(WallMs now);
  enum Found { kUnknown = 0, kNewest = 1, kOlder = 2 };
  // The key of a ticket that a client shows. kOlder: it is to have a new one.
  Found find(const unsigned char* name, WallMs now, TlsTicketKey* key);
  // What is wrong with the file since it was last asked; empty: nothing.
  std::string take_problem();

 private:
  using Keys = std::vector<TlsTicketKey>;  // the newest first
  // What tells whether the file is the one that was read.
  struct Version {
    std::uint64_t device = 0, file = 0, size = 0;
    std::int64_t seconds = 0, nanoseconds = 0;
    bool operator==(const Version&) const = default;
  };
  enum class Read { kOk, kMissing, kBad };

  explicit TlsTickets(const TlsTicketSettings& settings);
  bool begin(WallMs now, std::string* error);
  void add_key(WallMs now);
  bool is_due(WallMs now) const;
  void rotate(WallMs now);
  void look(WallMs now);
  Read read(WallMs now, std::string* error);
  bool write(std::string* error);
  void complain(std::string problem);

  const std::string file_;
  std::mutex mutex_;
  WallMs rotation_;
  WallMs lifetime_;
  Keys keys_;
  Version version_;
  WallMs next_look_ = 0;
  std::string complaint_;  // so that one that lasts is told once
  std::string problem_;
};

}  // namespace multiloop

struct ssl_ctx_st;

namespace multiloop {

// Has the tickets of the context's sessions made with the ring of the session's first context.
// Null: it makes none. The lifetime is that of its sessions.
void use_tls_tickets(ssl_ctx_st* context, const TlsTickets* tickets, WallMs lifetime);

}  // namespace multiloop
