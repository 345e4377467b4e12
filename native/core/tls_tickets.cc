#include "tls_tickets.h"

#include "platform.h"

#ifdef ML_HAVE_TLS

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <thread>

#include "check.h"
#include "tls_library.h"
#include "tls_session.h"

namespace multiloop {

namespace {

constexpr std::string_view kHead = "multiloop ticket keys 1\n";
constexpr std::size_t kFileMax = 16 * 1'024;
constexpr std::size_t kKeyBytes = 16 + 32 + 32;
// How long who starts waits for another process that writes the file.
constexpr int kLockTries = 200;
constexpr auto kLockPause = std::chrono::milliseconds(10);
// A clock may be a little wrong; a key from later than that would never be replaced.
constexpr WallMs kFutureMax = 24LL * 3'600 * 1'000;

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  operator int() const { return fd_; }

 private:
  const int fd_;
};

std::string failure(const std::string& what, int error) {
  return what + ": " + std::strerror(error);
}

// Held until the descriptor is closed, or the process ends.
int take_lock(const std::string& file, int tries) {
  const std::string path = file + ".lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return -errno;
  for (;;) {
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
    const int error = errno;
    if (error == EINTR) continue;
    if (error != EWOULDBLOCK || --tries <= 0) {
      ::close(fd);
      return -error;
    }
    std::this_thread::sleep_for(kLockPause);
  }
}

bool read_all(int fd, std::string* text) {
  char piece[4'096];
  while (text->size() <= kFileMax) {
    const ssize_t count = ::read(fd, piece, sizeof piece);
    if (count == 0) return true;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    text->append(piece, static_cast<std::size_t>(count));
  }
  return true;
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

void add_hex(std::string* out, const unsigned char* bytes, std::size_t length) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (std::size_t i = 0; i < length; ++i) {
    *out += kDigits[bytes[i] >> 4];
    *out += kDigits[bytes[i] & 15];
  }
}

bool take_hex(std::string_view* text, unsigned char* bytes, std::size_t length) {
  if (text->size() < 2 * length) return false;
  for (std::size_t i = 0; i < length; ++i) {
    const char* at = text->data() + 2 * i;
    const auto [end, error] = std::from_chars(at, at + 2, bytes[i], 16);
    if (error != std::errc() || end != at + 2) return false;
  }
  text->remove_prefix(2 * length);
  return true;
}

// A line of the file: when it was made, and its three parts in one.
std::string line_of(const TlsTicketKey& key) {
  std::string line = std::to_string(key.made) + ' ';
  add_hex(&line, key.name.data(), key.name.size());
  add_hex(&line, key.cipher.data(), key.cipher.size());
  add_hex(&line, key.mac.data(), key.mac.size());
  return line + '\n';
}

bool parse_line(std::string_view line, TlsTicketKey* key) {
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), key->made);
  if (error != std::errc() || key->made < 0) return false;
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  if (line.size() != 1 + 2 * kKeyBytes || line[0] != ' ') return false;
  line.remove_prefix(1);
  return take_hex(&line, key->name.data(), key->name.size()) &&
         take_hex(&line, key->cipher.data(), key->cipher.size()) &&
         take_hex(&line, key->mac.data(), key->mac.size());
}

bool parse_keys(std::string_view text, std::vector<TlsTicketKey>* keys) {
  if (text.substr(0, kHead.size()) != kHead) return false;
  text.remove_prefix(kHead.size());
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    TlsTicketKey key{};
    if (end == std::string_view::npos || keys->size() == TlsTickets::kKeysMax ||
        !parse_line(text.substr(0, end), &key))
      return false;
    if (!keys->empty() && keys->back().made < key.made) return false;
    keys->push_back(key);
    text.remove_prefix(end + 1);
  }
  return !keys->empty();
}

}  // namespace

WallMs wall_now() {
  using std::chrono::system_clock;
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             system_clock::now().time_since_epoch())
      .count();
}

TlsTickets::TlsTickets(const TlsTicketSettings& settings)
    : file_(settings.file), rotation_(settings.rotation), lifetime_(settings.lifetime) {}

TlsTickets::~TlsTickets() {
  for (TlsTicketKey& key : keys_) tls_library().OPENSSL_cleanse(&key, sizeof key);
}

std::shared_ptr<TlsTickets> TlsTickets::make(const TlsTicketSettings& settings, WallMs now,
                                             std::string* error) {
  std::shared_ptr<TlsTickets> made(new TlsTickets(settings));
  return made->begin(now, error) ? made : nullptr;
}

bool TlsTickets::begin(WallMs now, std::string* error) {
  const std::lock_guard guard(mutex_);
  keys_.reserve(kKeysMax + 1);
  if (file_.empty()) {
    add_key(now);
    return true;
  }
  const File lock(take_lock(file_, kLockTries));
  if (lock < 0) {
    *error = failure("the ticket file " + file_ + " cannot be locked by its .lock", -lock);
    return false;
  }
  const Read found = read(now, error);
  if (found == Read::kBad) return false;
  next_look_ = now + kLookMs;
  if (found == Read::kOk && !is_due(now)) return true;
  add_key(now);
  return write(error);
}

void TlsTickets::set_times(const TlsTicketSettings& settings) {
  const std::lock_guard guard(mutex_);
  rotation_ = settings.rotation;
  lifetime_ = settings.lifetime;
}

// Those go of which no ticket is good any more.
void TlsTickets::add_key(WallMs now) {
  TlsTicketKey key{};
  const TlsLibrary& tls = tls_library();
  const bool random = tls.RAND_bytes(key.name.data(), static_cast<int>(key.name.size())) == 1 &&
                      tls.RAND_bytes(key.cipher.data(), static_cast<int>(key.cipher.size())) == 1 &&
                      tls.RAND_bytes(key.mac.data(), static_cast<int>(key.mac.size())) == 1;
  // Without random numbers there is no TLS at all.
  ML_CHECK(random);
  // After the others, whatever a clock says.
  key.made = keys_.empty() ? now : std::max(now, keys_[0].made);
  keys_.insert(keys_.begin(), key);
  while (keys_.size() > 1 &&
         (keys_.size() > kKeysMax || now - keys_.back().made >= rotation_ + lifetime_)) {
    tls.OPENSSL_cleanse(&keys_.back(), sizeof keys_.back());
    keys_.pop_back();
  }
}

bool TlsTickets::is_due(WallMs now) const { return now - keys_[0].made >= rotation_; }

TlsTicketKey TlsTickets::newest(WallMs now) {
  const std::lock_guard guard(mutex_);
  if (file_.empty()) {
    if (is_due(now)) add_key(now);
  } else if (now >= next_look_ || next_look_ - now > kLookMs) {
    next_look_ = now + kLookMs;
    look(now);
    if (is_due(now)) rotate(now);
  }
  return keys_[0];
}

TlsTickets::Found TlsTickets::find(const unsigned char* name, WallMs now, TlsTicketKey* key) {
  const std::lock_guard guard(mutex_);
  for (const bool again : {false, true}) {
    // Another process may have a newer one.
    if (again) {
      if (file_.empty()) break;
      look(now);
    }
    for (const TlsTicketKey& one : keys_) {
      if (std::memcmp(one.name.data(), name, one.name.size()) != 0) continue;
      if (now - one.made >= rotation_ + lifetime_) return kUnknown;
      *key = one;
      return &one == &keys_[0] && !is_due(now) ? kNewest : kOlder;
    }
  }
  return kUnknown;
}

// One process does it. The others go on with the old key until they see it.
void TlsTickets::rotate(WallMs now) {
  const File lock(take_lock(file_, 1));
  if (lock == -EWOULDBLOCK) return;
  std::string error;
  if (lock < 0) {
    complain(failure("the ticket file " + file_ + " cannot be locked by its .lock", -lock));
    return;
  }
  if (read(now, &error) == Read::kBad) return complain(std::move(error));
  if (!is_due(now)) return complain("");
  const Keys before = keys_;
  add_key(now);
  if (write(&error)) return complain("");
  // A key that the others do not get would make tickets for this process only.
  keys_ = before;
  complain(std::move(error));
}

// What cannot be read now leaves the keys that there are.
void TlsTickets::look(WallMs now) {
  std::string error;
  complain(read(now, &error) == Read::kBad ? std::move(error) : "");
}

TlsTickets::Read TlsTickets::read(WallMs now, std::string* error) {
  const std::string name = "the ticket file " + file_;
  const auto bad = [error](std::string why) {
    *error = std::move(why);
    return Read::kBad;
  };
  const File file(::open(file_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file < 0 && errno == ENOENT) return Read::kMissing;
  if (file < 0) return bad(failure(name + " cannot be opened", errno));
  struct stat info {};
  if (::fstat(file, &info) < 0) return bad(failure(name + " cannot be read", errno));
  if (!S_ISREG(info.st_mode)) return bad(name + " is no file");
  if (info.st_uid != ::geteuid()) return bad(name + " is another user's");
  if ((info.st_mode & 077) != 0) return bad(name + " is open to others than its user: chmod 600");
#ifdef __APPLE__
  const timespec changed = info.st_mtimespec;
#else
  const timespec changed = info.st_mtim;
#endif
  const Version version{static_cast<std::uint64_t>(info.st_dev),
                        static_cast<std::uint64_t>(info.st_ino),
                        static_cast<std::uint64_t>(info.st_size), changed.tv_sec, changed.tv_nsec};
  if (version == version_) return Read::kOk;
  std::string text;
  if (!read_all(file, &text)) return bad(failure(name + " cannot be read", errno));
  Keys keys;
  keys.reserve(kKeysMax + 1);
  const bool good = text.size() <= kFileMax && parse_keys(text, &keys);
  tls_library().OPENSSL_cleanse(text.data(), text.size());
  if (!good) return bad(name + " has something else in it than ticket keys");
  if (keys[0].made > now + kFutureMax) return bad(name + " has a key of the day after tomorrow");
  keys_ = std::move(keys);
  version_ = version;
  return Read::kOk;
}

// The caller has the lock.
bool TlsTickets::write(std::string* error) {
  const std::string path = file_ + "." + std::to_string(::getpid()) + ".new";
  const auto failed = [&] {
    *error = failure("the ticket file " + file_ + " cannot be written", errno);
    ::unlink(path.c_str());
    return false;
  };
  ::unlink(path.c_str());
  const File file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file < 0) return failed();
  std::string text(kHead);
  for (const TlsTicketKey& key : keys_) text += line_of(key);
  const bool written = write_all(file, text) && ::fsync(file) == 0;
  tls_library().OPENSSL_cleanse(text.data(), text.size());
  if (!written || ::rename(path.c_str(), file_.c_str()) < 0) return failed();
  // What was written is read when it is looked at next; it is the same.
  version_ = {};
  return true;
}

void TlsTickets::complain(std::string problem) {
  if (problem == complaint_) return;
  complaint_ = problem;
  if (!problem.empty()) problem_ = std::move(problem);
}

std::string TlsTickets::take_problem() {
  const std::lock_guard guard(mutex_);
  return std::exchange(problem_, {});
}

namespace {

// SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 0, no such key; 1; 2, a new ticket is to follow; -1.
int on_ticket_key(ssl_st* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                  EVP_MAC_CTX* mac, int encrypts) {
  const TlsLibrary& tls = tls_library();
  TlsTickets* tickets = TlsSession::of(ssl)->tickets();
  if (tickets == nullptr) return 0;
  const WallMs now = wall_now();
  TlsTicketKey key{};
  int answer = 1;
  const EVP_CIPHER* algorithm = tls.EVP_aes_256_cbc();
  if (encrypts == 1) {
    key = tickets->newest(now);
    std::memcpy(name, key.name.data(), key.name.size());
    constexpr int kBlock = 16;  // of AES
    if (tls.RAND_bytes(iv, kBlock) != 1) return -1;
    if (tls.EVP_EncryptInit_ex(cipher, algorithm, nullptr, key.cipher.data(), iv) != 1) return -1;
  } else {
    answer = tickets->find(name, now, &key);
    if (answer == TlsTickets::kUnknown) return 0;
    // A client uses a ticket of TLS 1.3 once only (RFC 8446, appendix C.4).
    if (tls.SSL_version(ssl) >= TLS1_3_VERSION) answer = TlsTickets::kOlder;
    if (tls.EVP_DecryptInit_ex(cipher, algorithm, nullptr, key.cipher.data(), iv) != 1) return -1;
  }
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {
      tls.OSSL_PARAM_construct_octet_string("key", key.mac.data(), key.mac.size()),
      tls.OSSL_PARAM_construct_utf8_string("digest", digest, 0),
      tls.OSSL_PARAM_construct_end(),
  };
  const bool set = tls.EVP_MAC_CTX_set_params(mac, params) == 1;
  tls.OPENSSL_cleanse(&key, sizeof key);
  return set ? answer : -1;
}

}  // namespace

void use_tls_tickets(ssl_ctx_st* context, const TlsTickets* tickets, WallMs lifetime) {
  const TlsLibrary& tls = tls_library();
  tls.SSL_CTX_set_timeout(context, static_cast<long>(lifetime / 1'000));
  if (tickets != nullptr) {
    tls.SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket_key);
    return;
  }
  // TLS 1.3 would send tickets without what they resume in them, and nothing is kept here.
  tls.SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
  tls.SSL_CTX_set_num_tickets(context, 0);
}

}  // namespace multiloop

#endif
