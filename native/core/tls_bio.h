// What the BIOs of our own have in common: that of a session over a socket and that of one over
// memory differ in where they read and write, and in nothing else.
#pragma once

#include "tls_library.h"

#ifdef ML_HAVE_TLS

namespace multiloop {

class TlsSession;

struct TlsBio {
  static TlsSession* of(BIO* bio);
  // For the beginning of a read or a write: no word of the last one is left.
  static TlsSession* begin(BIO* bio);
  // What a read or a write answers that has to wait.
  static int retry(BIO* bio, TlsSession* session, bool reads);
  // For ever, as OpenSSL has only so many numbers for kinds of BIOs.
  static BIO_METHOD* make_method(const char* name, int (*read)(BIO*, char*, int),
                                 int (*write)(BIO*, const char*, int));
};

}  // namespace multiloop

#endif
