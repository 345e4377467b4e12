#include "tls_memory.h"

#ifdef ML_HAVE_TLS

#include <algorithm>
#include <cstring>

#include "check.h"
#include "tls_library.h"
#include "tls_session.h"

namespace multiloop {

struct TlsMemoryBio {
  static TlsSession* of(BIO* bio) {
    return static_cast<TlsSession*>(tls_library().BIO_get_data(bio));
  }

  static int retry(BIO* bio, TlsSession* session, bool reads) {
    session->waits_for_ = reads ? TlsSession::kReads : TlsSession::kWrites;
    const int why = reads ? BIO_FLAGS_READ : BIO_FLAGS_WRITE;
    tls_library().BIO_set_flags(bio, why | BIO_FLAGS_SHOULD_RETRY);
    return -1;
  }

  static int read(BIO* bio, char* into, int length) {
    TlsSession* session = of(bio);
    tls_library().BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    TlsMemory* memory = session->memory_;
    if (memory == nullptr || length <= 0) return retry(bio, session, true);
    const std::size_t left = memory->from_length - memory->taken;
    if (left == 0) {
      if (!memory->ends) return retry(bio, session, true);
      session->ended_ = true;
      return 0;
    }
    const std::size_t count = std::min(left, static_cast<std::size_t>(length));
    std::memcpy(into, memory->from + memory->taken, count);
    memory->taken += count;
    return static_cast<int>(count);
  }

  static int write(BIO* bio, const char* from, int length) {
    TlsSession* session = of(bio);
    tls_library().BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    TlsMemory* memory = session->memory_;
    const std::size_t room = memory == nullptr ? 0 : memory->into_length - memory->given;
    if (room == 0 || length <= 0) return retry(bio, session, false);
    const std::size_t count = std::min(room, static_cast<std::size_t>(length));
    std::memcpy(memory->into + memory->given, from, count);
    memory->given += count;
    return static_cast<int>(count);
  }

  static long control(BIO* bio, int what, long, void*) {
    switch (what) {
      case BIO_CTRL_FLUSH:
      case BIO_CTRL_DUP:
        return 1;
      case BIO_CTRL_EOF:
        return of(bio)->ended_ ? 1 : 0;
      default:
        return 0;
    }
  }

  static BIO_METHOD* make_method() {
    const TlsLibrary& tls = tls_library();
    BIO_METHOD* made =
        tls.BIO_meth_new(tls.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "multiloop memory");
    ML_CHECK(made != nullptr);
    tls.BIO_meth_set_read(made, read);
    tls.BIO_meth_set_write(made, write);
    tls.BIO_meth_set_ctrl(made, control);
    return made;
  }
};

const bio_method_st* tls_memory_method() {
  static const BIO_METHOD* const made = TlsMemoryBio::make_method();
  return made;
}

}  // namespace multiloop

#endif
