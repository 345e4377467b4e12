// One TLS connection: OpenSSL's state for a socket, or for memory, outside any isolate. Its owner
// is the ledger entry of its descriptor (which moves it between threads by moving itself, and frees
// it where it closes the descriptor), or the environment that made it. Whoever asks the owner for
// it has shown that it is theirs; that two threads are never inside is checked besides.
//
// The socket is read and written here, record by record, without blocking. Every result is a count,
// -errno of the socket, or one of the codes below. A session over memory (tls_memory.h) does the
// same with the bytes that it is lent for a call.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tls_context.h"
#include "tls_memory.h"

namespace multiloop {

// Past every errno. The peer breaks the protocol, or refuses ours: error() says how.
constexpr long kTlsFailed = -20'001;
// The socket ended without a close_notify (RFC 8446 section 6.1): somebody may have cut it off.
// With allow_dirty_shutdown only what ends within a record is that.
constexpr long kTlsTruncated = -20'002;
// Reading has to wait until the socket can be written, or writing until it can be read.
constexpr long kTlsWantsOther = -20'003;
// There is no such session, or it is another thread's.
constexpr long kTlsNotOwned = -20'004;

// Plain text in one record (RFC 8446 section 5.1).
constexpr std::size_t kTlsRecordMax = 16 * 1'024;
// Plain text that is sent with one system call, and so what of a session may be encrypted and
// unsent.
constexpr std::size_t kTlsBatchMax = 4 * kTlsRecordMax;
// Records that are read with one system call: OpenSSL's buffer, which it has while there is a part
// of a record in it.
constexpr std::size_t kTlsReadBuffer = kTlsBatchMax + 4 * 256;
// Plain text that one write() takes: other connections want to write too.
constexpr std::size_t kTlsWriteMax = 16 * kTlsRecordMax;

class TlsSession;
struct TlsBatch;
// Nothing is sent. Null is fine.
void free_tls_session(TlsSession* session);

}  // namespace multiloop

#ifdef ML_HAVE_TLS

namespace multiloop {

// Of a client: whom it calls.
struct TlsPeer {
  std::string server_name;  // sent to the server (RFC 6066 section 3); empty: none
  std::string identity;     // the name or address that the certificate must be for; empty: any
  std::string session;      // what export_session() gave; empty: none
};

struct TlsFacts {
  const char* protocol;
  const char* cipher;
  std::string server_name;
  std::string alpn;
  bool reused;
  // Null when there is a certificate of the peer's and it is good.
  const char* unauthorized;
  std::vector<unsigned char> certificate;  // DER, empty for none
  std::vector<unsigned char> ocsp;         // of a client: the server's OCSP response, the same
};

class TlsSession {
 public:
  // Null, and why in `error`. The descriptor stays the caller's; kTlsMemory for none.
  static TlsSession* make(TlsContextRef context, int fd, const TlsPeer& peer, std::string* error);

  // kAsks: for what to use for a name that the context has nothing for, see naming().
  enum Handshake : long { kDone = 0, kReads = 1, kWrites = 2, kAsks = 3 };
  // kDone, what it waits for, or a negative code.
  long handshake();
  bool established() const;
  // The handshake was done once; an update of keys may be going on.
  bool shaken() const { return shaken_; }
  // As many bytes as fit and are here; 0: the peer has ended with a close_notify; -EAGAIN. `more`:
  // there may be more inside, of which the socket will not tell.
  long read(void* into, std::size_t length, bool* more);
  // Bytes that have left, or -EAGAIN. Others are to be offered again, at least unfinished() of
  // them: these are encrypted, or about to be, and the session keeps their records with it.
  long write(const void* from, std::size_t length);
  std::size_t unfinished() const { return sealed_bytes_ + begun_; }
  // Sends the close_notify: 0, -EAGAIN, or why not.
  long shutdown();
  // TLS 1.3: new keys for what is written from now on (RFC 8446 section 4.6.3); with `request` the
  // peer is asked for the same. 0, -EAGAIN for trying again when writing goes on, or why not.
  long update_keys(bool request);

  // Of a session over memory: what the calls use until it is lent something else, or null.
  void lend(TlsMemory* memory);

  // For the callbacks of its context, and for who answers: then handshake() goes on.
  TlsNaming& naming() { return naming_; }
  TlsTickets* tickets() const { return context_->tickets(); }
  const TlsKeyLog* key_log() const { return context_->key_log(); }
  static TlsSession* of(const ssl_st* ssl);

  TlsFacts facts() const;
  // Of a client, to resume with; empty when the server has given none yet.
  std::vector<unsigned char> export_session() const;
  // Why a call has answered kTlsFailed.
  const std::string& error() const { return error_; }
  int fd() const { return fd_; }

 private:
  friend void free_tls_session(TlsSession* session);
  friend struct TlsBio;
  friend struct TlsSocket;
  friend struct TlsMemoryBio;
  friend struct TlsBatch;

  TlsSession(TlsContextRef context, ssl_st* ssl, int fd);
  ~TlsSession();
  bool address(const TlsPeer& peer, std::string* error);
  long outcome(int result);
  void begin();
  bool lost_tickets(long why) const;
  long settle();
  long send_sealed();
  std::size_t write_batch(const char* from, std::size_t length);

  const TlsContextRef context_;
  ssl_st* const ssl_;
  const int fd_;
  TlsNaming naming_;
  mutable std::atomic<bool> used_{false};
  // Of the call that runs.
  bool drained_ = false;  // the socket has given less than was asked for
  int waits_for_ = 0;     // Handshake
  long io_error_ = 0;
  TlsMemory* memory_ = nullptr;
  TlsBatch* batch_ = nullptr;
  // For the rest of its life.
  bool ended_ = false;     // recv has answered 0
  long read_over_ = 1;     // not positive: what every further read answers
  long write_over_ = 0;    // negative: what every further write answers
  std::size_t begun_ = 0;  // plain bytes that OpenSSL wants to be offered again
  // Records that the socket has not taken, from sealed_sent_ on, and the plain bytes in them.
  std::vector<char> sealed_;
  std::size_t sealed_sent_ = 0;
  std::size_t sealed_bytes_ = 0;
  bool shaken_ = false;
  bool updating_ = false;  // update_keys() has answered -EAGAIN with its message begun
  std::string error_;
};

}  // namespace multiloop

#endif
