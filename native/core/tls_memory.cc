#include "tls_memory.h"

#ifdef ML_HAVE_TLS

#include <algorithm>
#include <cstring>

#include "tls_bio.h"
#include "tls_session.h"

namespace multiloop {

struct TlsMemoryBio : TlsBio {
  static int read(BIO* bio, char* into, int length) {
    TlsSession* session = begin(bio);
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
    TlsSession* session = begin(bio);
    TlsMemory* memory = session->memory_;
    const std::size_t room = memory == nullptr ? 0 : memory->into_length - memory->given;
    if (room == 0 || length <= 0) return retry(bio, session, false);
    const std::size_t count = std::min(room, static_cast<std::size_t>(length));
    std::memcpy(memory->into + memory->given, from, count);
    memory->given += count;
    return static_cast<int>(count);
  }
};

const bio_method_st* tls_memory_method() {
  static const BIO_METHOD* const made =
      TlsMemoryBio::make_method("multiloop memory", TlsMemoryBio::read, TlsMemoryBio::write);
  return made;
}

}  // namespace multiloop

#endif
