// The memory that a TLS session without a socket reads records from and writes records to, lent for
// the time of a call: for TLS over a stream that is no descriptor.
#pragma once

#include <cstddef>

#include "platform.h"

namespace multiloop {

// In the place of a descriptor.
constexpr int kTlsMemory = -1;

struct TlsMemory {
  const unsigned char* from = nullptr;
  std::size_t from_length = 0;
  // Nothing comes behind `from`, as when a socket has ended.
  bool ends = false;
  unsigned char* into = nullptr;
  std::size_t into_length = 0;

  // What calls have taken and given since it was lent.
  std::size_t taken = 0;
  std::size_t given = 0;
};

}  // namespace multiloop

#ifdef ML_HAVE_TLS

struct bio_method_st;

namespace multiloop {

const bio_method_st* tls_memory_method();

}  // namespace multiloop

#endif
