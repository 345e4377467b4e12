#include "tls_bio.h"

#ifdef ML_HAVE_TLS

#include "check.h"
#include "tls_session.h"

namespace multiloop {

TlsSession* TlsBio::of(BIO* bio) {
  return static_cast<TlsSession*>(tls_library().BIO_get_data(bio));
}

TlsSession* TlsBio::begin(BIO* bio) {
  tls_library().BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
  return of(bio);
}

int TlsBio::retry(BIO* bio, TlsSession* session, bool reads) {
  session->waits_for_ = reads ? TlsSession::kReads : TlsSession::kWrites;
  const int why = reads ? BIO_FLAGS_READ : BIO_FLAGS_WRITE;
  tls_library().BIO_set_flags(bio, why | BIO_FLAGS_SHOULD_RETRY);
  return -1;
}

BIO_METHOD* TlsBio::make_method(const char* name, int (*read)(BIO*, char*, int),
                                int (*write)(BIO*, const char*, int)) {
  const auto control = [](BIO* bio, int what, long, void*) -> long {
    switch (what) {
      case BIO_CTRL_FLUSH:
      case BIO_CTRL_DUP:
        return 1;
      case BIO_CTRL_EOF:
        return of(bio)->ended_ ? 1 : 0;
      default:
        return 0;
    }
  };
  const TlsLibrary& tls = tls_library();
  BIO_METHOD* made = tls.BIO_meth_new(tls.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, name);
  ML_CHECK(made != nullptr);
  tls.BIO_meth_set_read(made, read);
  tls.BIO_meth_set_write(made, write);
  tls.BIO_meth_set_ctrl(made, control);
  return made;
}

}  // namespace multiloop

#endif
