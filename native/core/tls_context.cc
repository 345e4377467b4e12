#include "tls_context.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string_view>

#include "check.h"
#include "tls_library.h"
#include "tls_session.h"

namespace multiloop {

namespace {

constexpr std::uint32_t kSlotBits = 10;
constexpr std::uint32_t kGenerationMask = (1U << 20) - 1;

struct Slot {
  std::uint32_t generation = 0;
  TlsContextRef context;
};

struct Table {
  std::mutex mutex;
  Slot slots[kTlsContextsMax];
};

// Never destroyed: OpenSSL cleans up when the process exits, and contexts freed after that would
// use what is gone.
Table& table() {
  static Table* const made = new Table;
  return *made;
}

Slot* find(Table& in, TlsContextHandle handle) {
  Slot* slot = &in.slots[handle & (kTlsContextsMax - 1)];
  return slot->context != nullptr && slot->generation == handle >> kSlotBits ? slot : nullptr;
}

}  // namespace

TlsContextHandle share_tls_context(TlsContextRef context) {
  ML_CHECK(context != nullptr);
  Table& all = table();
  const std::lock_guard lock(all.mutex);
  for (std::uint32_t at = 0; at < kTlsContextsMax; ++at) {
    Slot& slot = all.slots[at];
    if (slot.context != nullptr) continue;
    slot.generation = (slot.generation + 1) & kGenerationMask;
    // Generation 0 is never used, so that no handle is kNoTlsContext.
    if (slot.generation == 0) slot.generation = 1;
    slot.context = std::move(context);
    return slot.generation << kSlotBits | at;
  }
  return kNoTlsContext;
}

TlsContextRef find_tls_context(TlsContextHandle handle) {
  Table& all = table();
  const std::lock_guard lock(all.mutex);
  const Slot* slot = find(all, handle);
  return slot == nullptr ? nullptr : slot->context;
}

void drop_tls_context(TlsContextHandle handle) {
  TlsContextRef last;  // freed when nobody waits for the table
  Table& all = table();
  const std::lock_guard lock(all.mutex);
  if (Slot* slot = find(all, handle); slot != nullptr) last = std::move(slot->context);
  if (last != nullptr) all.slots[handle & (kTlsContextsMax - 1)].context = nullptr;
}

std::uint32_t count_tls_contexts() {
  Table& all = table();
  const std::lock_guard lock(all.mutex);
  return static_cast<std::uint32_t>(
      std::count_if(std::begin(all.slots), std::end(all.slots),
                    [](const Slot& slot) { return slot.context != nullptr; }));
}

#ifdef ML_HAVE_TLS

namespace {

// Resumption is for all contexts of a listener, whose tickets have keys of their own.
constexpr unsigned char kSessionIdContext[] = "multiloop";

// Without it OpenSSL asks the terminal for a passphrase (PEM_read_bio_PrivateKey(3)).
int no_passphrase(char*, int, int, void*) { return -1; }

// The handshake goes on and who asked for a certificate looks at what became of it.
int accept_any(int, X509_STORE_CTX*) { return 1; }

class Pem {
 public:
  explicit Pem(const std::string& text)
      : bio_(tls_library().BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))) {
    ML_CHECK(bio_ != nullptr);
  }
  ~Pem() { tls_library().BIO_free(bio_); }
  Pem(const Pem&) = delete;
  Pem& operator=(const Pem&) = delete;
  // The next one of the text, or null.
  X509* certificate() const {
    return tls_library().PEM_read_bio_X509(bio_, nullptr, no_passphrase, nullptr);
  }
  EVP_PKEY* key() const {
    return tls_library().PEM_read_bio_PrivateKey(bio_, nullptr, no_passphrase, nullptr);
  }

 private:
  BIO* const bio_;
};

bool failed(std::string* error, const char* what) {
  *error = what;
  *error += ": ";
  *error += take_tls_error("OpenSSL gives no reason");
  return false;
}

// After the last certificate of a text PEM_read_bio_X509 answers "no start line".
bool ended_well(std::string* error, int count, const char* what) {
  if (count == 0) return failed(error, what);
  const char* why = take_tls_error("no start line");
  if (std::string_view(why) == "no start line") return true;
  *error = std::string(what) + ": " + why;
  return false;
}

}  // namespace

TlsContext::~TlsContext() { tls_library().SSL_CTX_free(context_); }

bool TlsContext::add_certificate(const std::string& pem, std::string* error) {
  const TlsLibrary& tls = tls_library();
  const Pem text(pem);
  int count = 0;
  while (X509* certificate = text.certificate()) {
    if (tls.X509_cmp_current_time(tls.X509_get0_notAfter(certificate)) < 0) expired_ = true;
    // The first is the context's own; the others are its chain, which takes them (SSL_CTRL_CHAIN_
    // CERT with 0).
    const bool ok = count == 0
                        ? tls.SSL_CTX_use_certificate(context_, certificate) == 1
                        : tls.SSL_CTX_ctrl(context_, SSL_CTRL_CHAIN_CERT, 0, certificate) == 1;
    if (count == 0 || !ok) tls.X509_free(certificate);
    if (!ok) return failed(error, "the certificate cannot be used");
    if (count == 0) certificate_ = certificate;
    ++count;
  }
  return ended_well(error, count, "the certificate is no PEM that OpenSSL can read");
}

bool TlsContext::add_key(const std::string& pem, std::string* error) {
  const TlsLibrary& tls = tls_library();
  EVP_PKEY* key = Pem(pem).key();
  if (key == nullptr) return failed(error, "the key is no PEM that OpenSSL can read");
  const bool taken = tls.SSL_CTX_use_PrivateKey(context_, key) == 1;
  tls.EVP_PKEY_free(key);
  // A key of another kind than the certificate's goes to another certificate of that kind, and the
  // one that it was given with is left without: selecting takes one that has a key.
  if (!taken || tls.SSL_CTX_ctrl(context_, SSL_CTRL_SELECT_CURRENT_CERT, 0, certificate_) != 1 ||
      tls.SSL_CTX_check_private_key(context_) != 1)
    return failed(error, "the key is not the certificate's");
  return true;
}

bool TlsContext::add_authorities(const std::string& pem, bool tell_clients, std::string* error) {
  const TlsLibrary& tls = tls_library();
  X509_STORE* store = tls.SSL_CTX_get_cert_store(context_);
  const Pem text(pem);
  int count = 0;
  while (X509* certificate = text.certificate()) {
    const bool ok = tls.X509_STORE_add_cert(store, certificate) == 1 &&
                    (!tell_clients || tls.SSL_CTX_add_client_CA(context_, certificate) == 1);
    tls.X509_free(certificate);
    if (!ok) return failed(error, "a certificate of the authorities cannot be used");
    ++count;
  }
  return ended_well(error, count, "the authorities are no PEM that OpenSSL can read");
}

bool TlsContext::set_protocol(const TlsSettings& settings, std::string* error) {
  const TlsLibrary& tls = tls_library();
  tls.SSL_CTX_set_options(
      context_, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  // Without it, nothing could be written any more after such an end (SSL_CTX_set_options(3)).
  if (settings.allow_dirty_shutdown)
    tls.SSL_CTX_set_options(context_, SSL_OP_IGNORE_UNEXPECTED_EOF);
  // Idle connections keep no buffers, and what is written may move between two attempts.
  tls.SSL_CTX_ctrl(context_, SSL_CTRL_MODE,
                   SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                       SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER,
                   nullptr);
  // A record's header and body in one recv.
  tls.SSL_CTX_ctrl(context_, SSL_CTRL_SET_READ_AHEAD, 1, nullptr);
  // Tickets resume: nothing of a client that is gone stays here.
  const long cache =
      server_ ? SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL : SSL_SESS_CACHE_OFF;
  tls.SSL_CTX_ctrl(context_, SSL_CTRL_SET_SESS_CACHE_MODE, cache, nullptr);
  tls.SSL_CTX_set_session_id_context(context_, kSessionIdContext, sizeof kSessionIdContext - 1);
  if (tls.SSL_CTX_ctrl(context_, SSL_CTRL_SET_MIN_PROTO_VERSION, settings.version_min, nullptr) !=
          1 ||
      tls.SSL_CTX_ctrl(context_, SSL_CTRL_SET_MAX_PROTO_VERSION, settings.version_max, nullptr) !=
          1)
    return failed(error, "the versions cannot be used");
  if (!settings.ciphers.empty() &&
      tls.SSL_CTX_set_cipher_list(context_, settings.ciphers.c_str()) != 1)
    return failed(error, "the ciphers cannot be used");
  if (!settings.cipher_suites.empty() &&
      tls.SSL_CTX_set_ciphersuites(context_, settings.cipher_suites.c_str()) != 1)
    return failed(error, "the cipher suites of TLS 1.3 cannot be used");
  std::string groups = settings.groups;
  if (!groups.empty() &&
      tls.SSL_CTX_ctrl(context_, SSL_CTRL_SET_GROUPS_LIST, 0, groups.data()) != 1)
    return failed(error, "the groups cannot be used");
  return true;
}

void TlsContext::set_verification(const TlsSettings& settings) {
  int mode = SSL_VERIFY_NONE;
  if (server_ && settings.request_certificate) {
    mode = SSL_VERIFY_PEER;
    if (settings.reject_unauthorized) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  } else if (!server_) {
    mode = SSL_VERIFY_PEER;
  }
  tls_library().SSL_CTX_set_verify(context_, mode,
                                   settings.reject_unauthorized ? nullptr : accept_any);
}

void TlsContext::set_alpn(const TlsSettings& settings) {
  const TlsLibrary& tls = tls_library();
  alpn_ = settings.alpn;
  if (alpn_.empty()) return;
  if (server_) {
    tls.SSL_CTX_set_alpn_select_cb(context_, on_alpn, this);
    return;
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(alpn_.data());
  // Of OpenSSL's functions the one that answers 0 for success.
  ML_CHECK(tls.SSL_CTX_set_alpn_protos(context_, bytes, static_cast<unsigned>(alpn_.size())) == 0);
}

bool TlsContext::fill(const TlsSettings& settings, std::string* error) {
  const TlsLibrary& tls = tls_library();
  if (!set_protocol(settings, error)) return false;
  ML_CHECK(settings.certificates.size() == settings.keys.size());
  for (std::size_t i = 0; i < settings.certificates.size(); ++i)
    if (!add_certificate(settings.certificates[i], error) || !add_key(settings.keys[i], error) ||
        (i < settings.ocsp.size() && !add_ocsp(settings.ocsp[i], error)))
      return false;
  const bool tell = server_ && settings.request_certificate;
  for (const std::string& authority : settings.authorities)
    if (!add_authorities(authority, tell, error)) return false;
  set_verification(settings);
  set_alpn(settings);
  set_names(settings);
  if (settings.request_ocsp)
    tls.SSL_CTX_ctrl(context_, SSL_CTRL_SET_TLSEXT_STATUS_REQ_TYPE, TLSEXT_STATUSTYPE_ocsp,
                     nullptr);
  return set_tickets(settings, error) && set_key_log(settings.key_log, error);
}

// For the certificate that was added last.
bool TlsContext::add_ocsp(const std::string& der, std::string* error) {
  if (der.empty()) return true;
  const TlsLibrary& tls = tls_library();
  const auto* bytes = reinterpret_cast<const unsigned char*>(der.data());
  OCSP_RESPONSE* response = tls.d2i_OCSP_RESPONSE(nullptr, &bytes, static_cast<long>(der.size()));
  if (response == nullptr)
    return failed(error, "the OCSP response is no DER that OpenSSL can read");
  const int status = tls.OCSP_response_status(response);
  tls.OCSP_RESPONSE_free(response);
  if (status != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
    *error = "the OCSP response is an error of its responder: ";
    *error += tls.OCSP_response_status_str(status);
    return false;
  }
  if (ocsp_.empty()) {
    tls.SSL_CTX_callback_ctrl(context_, SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB,
                              reinterpret_cast<void (*)()>(on_status_request));
    tls.SSL_CTX_ctrl(context_, SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB_ARG, 0, this);
  }
  ocsp_.emplace_back(tls.SSL_CTX_get0_certificate(context_), der);
  return true;
}

bool TlsContext::set_tickets(const TlsSettings& settings, std::string* error) {
  if (!server_) return true;
  const TlsTicketSettings& wanted = settings.tickets;
  if (wanted.on && settings.tickets_of != nullptr) tickets_ = settings.tickets_of->tickets_;
  if (tickets_ != nullptr && tickets_->file() == wanted.file)
    tickets_->set_times(wanted);
  else if (wanted.on)
    tickets_ = TlsTickets::make(wanted, wall_now(), error);
  if (wanted.on && tickets_ == nullptr) return false;
  use_tls_tickets(context_, tickets_.get(), wanted.lifetime);
  return true;
}

bool TlsContext::set_key_log(const std::string& file, std::string* error) {
  if (file.empty()) return true;
  key_log_ = TlsKeyLog::open(file, error);
  if (key_log_ != nullptr) tls_library().SSL_CTX_set_keylog_callback(context_, on_secret);
  return key_log_ != nullptr;
}

void TlsContext::set_names(const TlsSettings& settings) {
  const TlsLibrary& tls = tls_library();
  for (const auto& [name, context] : settings.names) names_.add(name, context);
  if (settings.asks_for_names) tls.SSL_CTX_set_client_hello_cb(context_, on_client_hello, this);
  if (settings.names.empty() && !settings.asks_for_names) return;
  tls.SSL_CTX_callback_ctrl(context_, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB,
                            reinterpret_cast<void (*)()>(on_server_name));
  tls.SSL_CTX_ctrl(context_, SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG, 0, this);
}

// SSL_CTX_set_client_hello_cb(3). It comes again when the handshake goes on, and after a
// HelloRetryRequest; what was said then holds.
int TlsContext::on_client_hello(ssl_st* ssl, int* alert, void* context) {
  const auto* self = static_cast<const TlsContext*>(context);
  TlsNaming& naming = TlsSession::of(ssl)->naming();
  if (naming.state == TlsNaming::kAsked) return SSL_CLIENT_HELLO_RETRY;
  if (naming.state == TlsNaming::kAnswered) return SSL_CLIENT_HELLO_SUCCESS;
  if (naming.state == TlsNaming::kRefused) {
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return SSL_CLIENT_HELLO_ERROR;
  }
  const unsigned char* body = nullptr;
  std::size_t length = 0;
  if (tls_library().SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &body, &length) != 1)
    return SSL_CLIENT_HELLO_SUCCESS;
  const std::string_view name = server_name_in(body, length);
  if (!is_askable_name(name) || self->names_.find(name) != nullptr) return SSL_CLIENT_HELLO_SUCCESS;
  naming.context = self->learned_.find(name);
  naming.state = naming.context == nullptr ? TlsNaming::kAsked : TlsNaming::kAnswered;
  if (naming.state == TlsNaming::kAnswered) return SSL_CLIENT_HELLO_SUCCESS;
  naming.name = plain_server_name(name);
  return SSL_CLIENT_HELLO_RETRY;
}

int TlsContext::on_server_name(ssl_st* ssl, int*, void* context) {
  const TlsLibrary& tls = tls_library();
  const auto* self = static_cast<const TlsContext*>(context);
  const char* name = tls.SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  if (name == nullptr) return SSL_TLSEXT_ERR_NOACK;
  // The session keeps it.
  if (const TlsContextRef& answer = TlsSession::of(ssl)->naming().context; answer != nullptr) {
    tls.SSL_set_SSL_CTX(ssl, answer->get());
    return SSL_TLSEXT_ERR_OK;
  }
  // The context is kept by `self`, which the session keeps.
  const TlsContextRef* found = self->names_.find(name);
  if (found != nullptr) tls.SSL_set_SSL_CTX(ssl, (*found)->get());
  return SSL_TLSEXT_ERR_OK;
}

// RFC 7301 section 3.2: without a protocol in common the handshake ends with that alert.
int TlsContext::on_alpn(ssl_st*, const unsigned char** out, unsigned char* length,
                        const unsigned char* offered, unsigned offered_length, void* context) {
  const auto* self = static_cast<const TlsContext*>(context);
  unsigned char* chosen = nullptr;
  const auto* ours = reinterpret_cast<const unsigned char*>(self->alpn_.data());
  const int result = tls_library().SSL_select_next_proto(
      &chosen, length, ours, static_cast<unsigned>(self->alpn_.size()), offered, offered_length);
  *out = chosen;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

int TlsContext::on_status_request(ssl_st* ssl, void* context) {
  const TlsLibrary& tls = tls_library();
  const auto* self = static_cast<const TlsContext*>(context);
  const X509* used = tls.SSL_get_certificate(ssl);
  for (const auto& [certificate, der] : self->ocsp_) {
    if (certificate != used) continue;
    // OpenSSL frees it.
    void* copy = tls.CRYPTO_malloc(der.size(), __FILE__, __LINE__);
    ML_CHECK(copy != nullptr);
    std::memcpy(copy, der.data(), der.size());
    tls.SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP, static_cast<long>(der.size()),
                 copy);
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_NOACK;
}

// Of whichever context the session has come to; the file is that of its first.
void TlsContext::on_secret(const ssl_st* ssl, const char* line) {
  if (const TlsKeyLog* log = TlsSession::of(ssl)->key_log(); log != nullptr) log->add(line);
}

TlsContextRef make_tls_context(const TlsSettings& settings, std::string* error) {
  if (const char* why = tls_unavailable(); why != nullptr) {
    *error = why;
    return nullptr;
  }
  const TlsLibrary& tls = tls_library();
  tls.ERR_clear_error();
  SSL_CTX* made =
      tls.SSL_CTX_new(settings.server ? tls.TLS_server_method() : tls.TLS_client_method());
  if (made == nullptr) {
    failed(error, "OpenSSL makes no context");
    return nullptr;
  }
  auto context = std::make_shared<TlsContext>(made, settings.server);
  if (!context->fill(settings, error)) return nullptr;
  tls.ERR_clear_error();
  return context;
}

#else

class TlsContext {};

TlsContextRef make_tls_context(const TlsSettings&, std::string* error) {
  *error = tls_unavailable();
  return nullptr;
}

#endif

}  // namespace multiloop
