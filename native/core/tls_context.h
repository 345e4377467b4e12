// TLS contexts: certificate, key and settings, made once, never changed, used by all threads. They
// are the process's and in a static table, so that a handle may be used by any thread at any time;
// a session keeps the context that it was made from, whatever becomes of its handle. One context is
// one SSL_CTX with one set of ticket keys: a client that comes back resumes on any loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "platform.h"
#include "tls_key_log.h"
#include "tls_names.h"
#include "tls_tickets.h"

namespace multiloop {

// Table slot (10 bits) and generation (20 bits), so that it fits a small integer of JavaScript.
using TlsContextHandle = std::uint32_t;
constexpr TlsContextHandle kNoTlsContext = 0;
constexpr std::uint32_t kTlsContextsMax = 1'024;

struct TlsSettings {
  bool server = false;
  // PEM. The certificates of one entry are a chain, the first one's key has the same index. Several
  // entries are of several kinds of key (ECDSA and RSA).
  std::vector<std::string> certificates;
  std::vector<std::string> keys;
  // OCSP responses (RFC 6960), DER, one for each certificate or none; empty: it has none. They are
  // stapled for clients that ask (RFC 6066 section 8).
  std::vector<std::string> ocsp;
  // PEM, any number in each.
  std::vector<std::string> authorities;
  // As in OpenSSL's headers: 0x0303 is TLS 1.2, 0x0304 TLS 1.3.
  int version_min = 0x0303;
  int version_max = 0x0304;
  // OpenSSL's names; empty: its defaults.
  std::string ciphers;
  std::string cipher_suites;
  std::string groups;
  // As on the wire: each name after its length (RFC 7301 section 3.1).
  std::string alpn;
  // The server asks for a certificate; the peer's must be good, and a client's must be there.
  bool request_certificate = false;
  bool reject_unauthorized = true;
  // An end without a close_notify is an end, after the handshake and between two records.
  bool allow_dirty_shutdown = false;
  // Server only: contexts for names, `*.example.org` standing for one label.
  std::vector<std::pair<std::string, TlsContextRef>> names;
  // Server only: a handshake for another name waits until it is said what to use.
  bool asks_for_names = false;
  // Server only. `tickets_of`: whose keys it goes on with, if they are in the same file.
  TlsTicketSettings tickets;
  TlsContextRef tickets_of;
  // Client only: the server is asked for an OCSP response.
  bool request_ocsp = false;
  // A file for the secrets of its sessions; empty: they are kept secret.
  std::string key_log;
};

// Makes one; null, and what is wrong in `error`.
TlsContextRef make_tls_context(const TlsSettings& settings, std::string* error);

// kNoTlsContext: the table is full.
TlsContextHandle share_tls_context(TlsContextRef context);
// Null for a handle that was given up.
TlsContextRef find_tls_context(TlsContextHandle handle);
void drop_tls_context(TlsContextHandle handle);
// For tests and diagnosis.
std::uint32_t count_tls_contexts();

}  // namespace multiloop

#ifdef ML_HAVE_TLS

struct ssl_ctx_st;
struct ssl_st;

namespace multiloop {

class TlsContext {
 public:
  TlsContext(ssl_ctx_st* context, bool server) : context_(context), server_(server) {}
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  ssl_ctx_st* get() const { return context_; }
  bool server() const { return server_; }
  // One of its certificates was no longer valid when it was made: it is used all the same.
  bool expired() const { return expired_; }
  // Null: its sessions have no tickets.
  TlsTickets* tickets() const { return tickets_.get(); }
  const TlsKeyLog* key_log() const { return key_log_.get(); }
  // A name that was asked for, for all who ask from now on.
  void learn(const std::string& name, TlsContextRef context) const {
    learned_.add(name, std::move(context));
  }

 private:
  friend TlsContextRef make_tls_context(const TlsSettings& settings, std::string* error);
  bool fill(const TlsSettings& settings, std::string* error);
  bool add_certificate(const std::string& pem, std::string* error);
  bool add_key(const std::string& pem, std::string* error);
  bool add_authorities(const std::string& pem, bool tell_clients, std::string* error);
  bool set_protocol(const TlsSettings& settings, std::string* error);
  void set_verification(const TlsSettings& settings);
  void set_alpn(const TlsSettings& settings);
  bool add_ocsp(const std::string& der, std::string* error);
  bool set_tickets(const TlsSettings& settings, std::string* error);
  bool set_key_log(const std::string& file, std::string* error);
  void set_names(const TlsSettings& settings);
  // OpenSSL's callbacks; they enter no JavaScript.
  static int on_client_hello(ssl_st* ssl, int* alert, void* context);
  static int on_server_name(ssl_st* ssl, int* alert, void* context);
  static int on_alpn(ssl_st* ssl, const unsigned char** out, unsigned char* length,
                     const unsigned char* offered, unsigned offered_length, void* context);
  static int on_status_request(ssl_st* ssl, void* context);
  static void on_secret(const ssl_st* ssl, const char* line);

  ssl_ctx_st* const context_;
  const bool server_;
  bool expired_ = false;
  // The certificate that was added last, an X509; it is the context's.
  void* certificate_ = nullptr;
  std::string alpn_;
  TlsNames names_;
  mutable TlsLearnedNames learned_;
  // By OpenSSL's certificate, which it has from here and passes on by reference.
  std::vector<std::pair<const void*, std::string>> ocsp_;
  std::shared_ptr<TlsTickets> tickets_;
  std::shared_ptr<TlsKeyLog> key_log_;
};

}  // namespace multiloop

#endif
