#include "tls_session.h"

#ifdef ML_HAVE_TLS

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "check.h"
#include "sys.h"
#include "tls_bio.h"
#include "tls_library.h"

namespace multiloop {

namespace {

// One thread at a time. A second one is a bug that would corrupt memory.
class Use {
 public:
  explicit Use(std::atomic<bool>* flag) : flag_(flag) {
    ML_CHECK(!flag_->exchange(true, std::memory_order_acquire));
  }
  ~Use() { flag_->store(false, std::memory_order_release); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  std::atomic<bool>* const flag_;
};

bool is_ip(const std::string& text) {
  sys::SockAddr address;
  return sys::parse_ip(text.c_str(), 0, &address) == 0;
}

}  // namespace

// Records of one write() or handshake() on their way to the socket: with one system call for all
// of them, since for one of 16 KiB alone it costs as much as its encryption, and OpenSSL flushes
// each ticket of a handshake by itself. What the socket does not take stays with the session. On
// the stack of the call: OpenSSL has its own copy of one record at a time.
struct TlsBatch {
  // An estimate for a record's header, padding and tag; what does not fit is sent sooner.
  char bytes[kTlsBatchMax + 4 * 256];
  std::size_t used = 0;
  // No record follows: the one to come needs no copy.
  bool last = false;

  // All of them, or -errno.
  long take(TlsSession* session, const char* from, std::size_t length) {
    if (last || used + length > sizeof bytes || !session->sealed_.empty()) {
      const long status = send(session, from, length);
      return status < 0 ? status : static_cast<long>(length);
    }
    std::memcpy(bytes + used, from, length);
    used += length;
    return static_cast<long>(length);
  }

  // Sends what was taken and `from` behind it: 0 or -errno.
  long send(TlsSession* session, const char* from, std::size_t length) {
    std::vector<char>& rest = session->sealed_;
    std::size_t sent = 0;
    if (rest.empty()) {
      const iovec vectors[] = {{bytes, used}, {const_cast<char*>(from), length}};
      const long count = used > 0 ? sys::sendv(session->fd_, vectors, length > 0 ? 2 : 1)
                                  : sys::sendv(session->fd_, vectors + 1, 1);
      if (count < 0 && count != -EAGAIN) return count;
      if (count > 0) sent = static_cast<std::size_t>(count);
    }
    if (sent < used) rest.insert(rest.end(), bytes + sent, bytes + used);
    const std::size_t direct = sent > used ? sent - used : 0;
    if (direct < length) rest.insert(rest.end(), from + direct, from + length);
    used = 0;
    return 0;
  }
};

// OpenSSL's way to the socket: a BIO of our own, since that of OpenSSL raises SIGPIPE and asks the
// socket once more after a read that has emptied it.
struct TlsSocket : TlsBio {
  static int read(BIO* bio, char* into, int length) {
    TlsSession* session = begin(bio);
    if (session->drained_) return retry(bio, session, true);
    const long count = sys::recv(session->fd_, into, static_cast<std::size_t>(length));
    if (count == -EAGAIN) return retry(bio, session, true);
    if (count < 0) session->io_error_ = count;
    if (count == 0) session->ended_ = true;
    session->drained_ = count < length;
    return count < 0 ? -1 : static_cast<int>(count);
  }

  static int write(BIO* bio, const char* from, int length) {
    TlsSession* session = begin(bio);
    const auto bytes = static_cast<std::size_t>(length);
    const iovec vector{const_cast<char*>(from), bytes};
    long count = 0;
    if (session->batch_ != nullptr)
      count = session->batch_->take(session, from, bytes);
    else if ((count = session->send_sealed()) == 0)
      count = sys::sendv(session->fd_, &vector, 1);
    if (count == -EAGAIN) return retry(bio, session, false);
    if (count < 0) session->io_error_ = count;
    return count < 0 ? -1 : static_cast<int>(count);
  }

  static BIO_METHOD* method() {
    static BIO_METHOD* const made = make_method("multiloop socket", read, write);
    return made;
  }
};

TlsSession::TlsSession(TlsContextRef context, ssl_st* ssl, int fd)
    : context_(std::move(context)), ssl_(ssl), fd_(fd) {
  const TlsLibrary& tls = tls_library();
  BIO* bio = tls.BIO_new(fd == kTlsMemory ? tls_memory_method() : TlsSocket::method());
  ML_CHECK(bio != nullptr);
  tls.BIO_set_data(bio, this);
  tls.BIO_set_init(bio, 1);
  // Both directions; SSL_set_bio counts one reference when they are the same.
  tls.SSL_set_bio(ssl_, bio, bio);
  tls.SSL_set_default_read_buffer_len(ssl_, kTlsReadBuffer);
  if (context_->server())
    tls.SSL_set_accept_state(ssl_);
  else
    tls.SSL_set_connect_state(ssl_);
}

TlsSession::~TlsSession() {
  const Use use(&used_);
  tls_library().SSL_free(ssl_);
}

void free_tls_session(TlsSession* session) { delete session; }

TlsSession* TlsSession::of(const ssl_st* ssl) {
  // While a handshake runs, the BIO for writing is one of OpenSSL's in front of ours.
  return TlsBio::of(tls_library().SSL_get_rbio(ssl));
}

TlsSession* TlsSession::make(TlsContextRef context, int fd, const TlsPeer& peer,
                             std::string* error) {
  ML_CHECK(context != nullptr && fd >= kTlsMemory);
  const TlsLibrary& tls = tls_library();
  tls.ERR_clear_error();
  ssl_st* ssl = tls.SSL_new(context->get());
  if (ssl == nullptr) {
    *error = take_tls_error("OpenSSL makes no session");
    return nullptr;
  }
  auto* session = new TlsSession(std::move(context), ssl, fd);
  if (session->address(peer, error)) return session;
  delete session;
  return nullptr;
}

bool TlsSession::address(const TlsPeer& peer, std::string* error) {
  const TlsLibrary& tls = tls_library();
  bool ok = true;
  if (!peer.server_name.empty()) {
    std::string name = peer.server_name;
    ok = tls.SSL_ctrl(ssl_, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data()) ==
         1;
  }
  if (ok && !peer.identity.empty()) {
    X509_VERIFY_PARAM* param = tls.SSL_get0_param(ssl_);
    tls.X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    ok = is_ip(peer.identity) ? tls.X509_VERIFY_PARAM_set1_ip_asc(param, peer.identity.c_str()) == 1
                              : tls.X509_VERIFY_PARAM_set1_host(param, peer.identity.data(),
                                                                peer.identity.size()) == 1;
  }
  if (ok && !peer.session.empty()) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(peer.session.data());
    SSL_SESSION* session =
        tls.d2i_SSL_SESSION(nullptr, &bytes, static_cast<long>(peer.session.size()));
    ok = session != nullptr && tls.SSL_set_session(ssl_, session) == 1;
    tls.SSL_SESSION_free(session);
  }
  if (!ok) *error = take_tls_error("OpenSSL refuses the peer's name or the session");
  return ok;
}

void TlsSession::begin() {
  // What others have left in the thread's queue would be taken for this call's
  // (SSL_get_error(3)). Seldom there is anything, and to ask costs less than to clear.
  if (tls_library().ERR_peek_error() != 0) tls_library().ERR_clear_error();
  drained_ = false;
  waits_for_ = 0;
  io_error_ = 0;
}

// What a call's result means: 0 for the peer's close_notify, -EAGAIN for waits_for_, or why not.
long TlsSession::outcome(int result) {
  const TlsLibrary& tls = tls_library();
  const int kind = tls.SSL_get_error(ssl_, result);
  if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) return -EAGAIN;
  if (kind == SSL_ERROR_WANT_CLIENT_HELLO_CB) {
    waits_for_ = kAsks;
    return -EAGAIN;
  }
  // An end without a close_notify is one with allow_dirty_shutdown, unless it is within a record.
  if (kind == SSL_ERROR_ZERO_RETURN)
    return ended_ && tls.SSL_has_pending(ssl_) == 1 ? kTlsTruncated : 0;
  if (io_error_ < 0) {
    tls.ERR_clear_error();
    return io_error_;
  }
  if (ended_) {
    tls.ERR_clear_error();
    return kTlsTruncated;
  }
  // A call after a failure has none of its own: why it failed stands.
  const char* reason = take_tls_error(error_.empty() ? "OpenSSL gives no reason" : nullptr);
  if (reason == nullptr) return kTlsFailed;
  error_ = reason;
  const long verified = tls.SSL_get_verify_result(ssl_);
  if (verified != X509_V_OK && error_ == "certificate verify failed") {
    error_ += ": ";
    error_ += tls.X509_verify_cert_error_string(verified);
  }
  return kTlsFailed;
}

// What was last sent of a handshake were a server's tickets, and the peer has gone without waiting
// for them: what it has sent is still to be read, as OpenSSL itself sees it.
bool TlsSession::lost_tickets(long why) const {
  return (why == -EPIPE || why == -ECONNRESET) && context_->server() && established() &&
         tls_library().SSL_version(ssl_) == TLS1_3_VERSION;
}

long TlsSession::handshake() {
  const Use use(&used_);
  begin();
  if (const long status = send_sealed(); status < 0) {
    if (status == -EAGAIN) return kWrites;
    if (!lost_tickets(status)) return status;
    sealed_ = {};
    sealed_sent_ = 0;
  }
  TlsBatch batch;
  if (fd_ != kTlsMemory) batch_ = &batch;
  const int result = tls_library().SSL_do_handshake(ssl_);
  batch_ = nullptr;
  const long why = result == 1 ? 0 : outcome(result);
  // An alert is sent as well as it can be: why it was is told.
  const long sent = batch.used > 0 ? batch.send(this, nullptr, 0) : 0;
  if (result != 1 && why != -EAGAIN) return why == 0 ? kTlsTruncated : why;
  if (sent < 0 && !lost_tickets(sent)) return sent;
  // Before that has left the peer answers nothing.
  if (!sealed_.empty()) return kWrites;
  if (result != 1) return waits_for_;
  shaken_ = true;
  return kDone;
}

bool TlsSession::established() const { return tls_library().SSL_is_init_finished(ssl_) == 1; }

long TlsSession::read(void* into, std::size_t length, bool* more) {
  const Use use(&used_);
  begin();
  ML_CHECK(length > 0);
  const TlsLibrary& tls = tls_library();
  auto* bytes = static_cast<char*>(into);
  std::size_t total = 0;
  long why = -EAGAIN;
  while (total < length && read_over_ > 0) {
    const std::size_t room = std::min<std::size_t>(length - total, 1U << 30);
    const int count = tls.SSL_read(ssl_, bytes + total, static_cast<int>(room));
    if (count > 0) {
      total += static_cast<std::size_t>(count);
      // Asking once more would only be answered that there is nothing.
      if (drained_ && tls.SSL_has_pending(ssl_) == 0) break;
      continue;
    }
    why = outcome(count);
    if (why == -EAGAIN) break;
    read_over_ = why;
  }
  const bool over = read_over_ <= 0;
  *more = total > 0 && (over || (total == length && tls.SSL_has_pending(ssl_) == 1));
  if (total > 0) return static_cast<long>(total);
  if (over) return read_over_;
  return waits_for_ == kWrites ? kTlsWantsOther : -EAGAIN;
}

// Sends the records that the socket has not taken: 0, -EAGAIN or -errno.
long TlsSession::send_sealed() {
  if (sealed_.empty()) return 0;
  const std::size_t left = sealed_.size() - sealed_sent_;
  const iovec vector{sealed_.data() + sealed_sent_, left};
  const long count = sys::sendv(fd_, &vector, 1);
  if (count < 0) return count;
  sealed_sent_ += static_cast<std::size_t>(count);
  if (static_cast<std::size_t>(count) < left) return -EAGAIN;
  sealed_ = {};
  sealed_sent_ = 0;
  return 0;
}

// Makes records of up to `length` bytes, at most a batch, and sends them. How many have left; less
// than were taken when sealed_bytes_ or begun_ say so, or write_over_.
std::size_t TlsSession::write_batch(const char* from, std::size_t length) {
  TlsBatch batch;
  // Memory takes what there is room for, and costs no call.
  batch_ = fd_ == kTlsMemory ? nullptr : &batch;
  const std::size_t most = std::min(length, kTlsBatchMax);
  std::size_t total = 0;
  while (total < most) {
    // A record that was begun is finished with just what it has.
    const std::size_t part = begun_ > 0 ? begun_ : std::min(most - total, kTlsRecordMax);
    batch.last = total + part >= most;
    const int count = tls_library().SSL_write(ssl_, from + total, static_cast<int>(part));
    if (count > 0) {
      begun_ = 0;
      total += static_cast<std::size_t>(count);
      continue;
    }
    const long why = outcome(count);
    if (why == -EAGAIN)
      begun_ = part;
    else
      write_over_ = why == 0 ? -EPIPE : why;
    break;
  }
  batch_ = nullptr;
  if (batch.used > 0 && write_over_ == 0) write_over_ = batch.send(this, nullptr, 0);
  if (write_over_ < 0) return 0;
  if (sealed_.empty()) return total;
  sealed_bytes_ = total;
  return 0;
}

long TlsSession::write(const void* from, std::size_t length) {
  const Use use(&used_);
  begin();
  ML_CHECK(length > 0 && length >= unfinished());
  if (write_over_ < 0) return write_over_;
  const long status = send_sealed();
  if (status == -EAGAIN) return -EAGAIN;
  if (status < 0) return write_over_ = status;
  const auto* bytes = static_cast<const char*>(from);
  const std::size_t most = std::min(length, kTlsWriteMax);
  std::size_t total = std::exchange(sealed_bytes_, 0);
  while (total < most && write_over_ == 0) {
    const std::size_t count = write_batch(bytes + total, most - total);
    total += count;
    if (unfinished() > 0) break;
  }
  if (total > 0) return static_cast<long>(total);
  if (write_over_ < 0) return write_over_;
  return waits_for_ == kReads ? kTlsWantsOther : -EAGAIN;
}

long TlsSession::shutdown() {
  const Use use(&used_);
  begin();
  // In the middle of a record or of the handshake, or after a failure, there is no clean end
  // (SSL_shutdown(3)).
  if (!shaken_ || unfinished() > 0 || write_over_ < 0 || read_over_ < 0) return kTlsFailed;
  if (const long why = settle(); why < 0) return why;
  const int result = tls_library().SSL_shutdown(ssl_);
  if (result >= 0) return 0;
  const long why = outcome(result);
  return why == 0 ? kTlsFailed : why;
}

// A key update whose message has not left, ours or the answer to the peer's, is like a handshake.
long TlsSession::settle() {
  if (established()) return 0;
  const int result = tls_library().SSL_do_handshake(ssl_);
  if (result == 1) return 0;
  const long why = outcome(result);
  return why == 0 ? kTlsFailed : why;
}

long TlsSession::update_keys(bool request) {
  const Use use(&used_);
  begin();
  if (!shaken_ || write_over_ < 0 || read_over_ < 0) return kTlsFailed;
  // OpenSSL refuses it between two parts of a record (SSL_key_update(3)).
  if (unfinished() > 0) return -EAGAIN;
  if (const long why = settle(); why < 0) return why;
  if (updating_) {
    updating_ = false;
    return 0;
  }
  const int kind = request ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
  if (tls_library().SSL_key_update(ssl_, kind) != 1) {
    error_ = take_tls_error("OpenSSL updates no keys");
    return kTlsFailed;
  }
  const int result = tls_library().SSL_do_handshake(ssl_);
  if (result == 1) return 0;
  const long why = outcome(result);
  updating_ = why == -EAGAIN;
  return why == 0 ? kTlsFailed : why;
}

void TlsSession::lend(TlsMemory* memory) {
  const Use use(&used_);
  ML_CHECK(fd_ == kTlsMemory);
  memory_ = memory;
}

TlsFacts TlsSession::facts() const {
  const Use use(&used_);
  const TlsLibrary& tls = tls_library();
  TlsFacts facts{};
  facts.protocol = tls.SSL_get_version(ssl_);
  const SSL_CIPHER* cipher = tls.SSL_get_current_cipher(ssl_);
  facts.cipher = cipher == nullptr ? "" : tls.SSL_CIPHER_get_name(cipher);
  if (const char* name = tls.SSL_get_servername(ssl_, TLSEXT_NAMETYPE_host_name); name != nullptr)
    facts.server_name = name;
  const unsigned char* alpn = nullptr;
  unsigned length = 0;
  tls.SSL_get0_alpn_selected(ssl_, &alpn, &length);
  if (length > 0) facts.alpn.assign(reinterpret_cast<const char*>(alpn), length);
  facts.reused = tls.SSL_session_reused(ssl_) == 1;
  const unsigned char* ocsp = nullptr;
  // -1: none.
  const long ocsp_size =
      context_->server() ? 0
                         : tls.SSL_ctrl(ssl_, SSL_CTRL_GET_TLSEXT_STATUS_REQ_OCSP_RESP, 0, &ocsp);
  if (ocsp_size > 0) facts.ocsp.assign(ocsp, ocsp + ocsp_size);
  const long verified = tls.SSL_get_verify_result(ssl_);
  X509* certificate = tls.SSL_get0_peer_certificate(ssl_);
  if (certificate == nullptr)
    facts.unauthorized = "the peer has shown no certificate";
  else if (verified != X509_V_OK)
    facts.unauthorized = tls.X509_verify_cert_error_string(verified);
  if (certificate == nullptr) return facts;
  const int size = tls.i2d_X509(certificate, nullptr);
  if (size <= 0) return facts;
  facts.certificate.resize(static_cast<std::size_t>(size));
  unsigned char* out = facts.certificate.data();
  tls.i2d_X509(certificate, &out);
  return facts;
}

std::vector<unsigned char> TlsSession::export_session() const {
  const Use use(&used_);
  const TlsLibrary& tls = tls_library();
  std::vector<unsigned char> out;
  SSL_SESSION* session = tls.SSL_get1_session(ssl_);
  if (session == nullptr) return out;
  const int size = tls.i2d_SSL_SESSION(session, nullptr);
  if (size > 0 && tls.SSL_SESSION_is_resumable(session) == 1) {
    out.resize(static_cast<std::size_t>(size));
    unsigned char* to = out.data();
    tls.i2d_SSL_SESSION(session, &to);
  }
  tls.SSL_SESSION_free(session);
  return out;
}

}  // namespace multiloop

#else

namespace multiloop {

void free_tls_session(TlsSession*) {}

}  // namespace multiloop

#endif
