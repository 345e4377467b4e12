#include "tls_library.h"

#ifdef ML_HAVE_TLS

#include <dlfcn.h>

#include <cstdio>

#include "check.h"

namespace multiloop {

namespace {

TlsLibrary library;
char reason[160];
bool usable = false;

template <typename Function>
bool find(Function* place, const char* name) {
  *place = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  if (*place != nullptr) return true;
  if (reason[0] == '\0')
    std::snprintf(reason, sizeof reason, "this Node does not export OpenSSL 3: it has no %s", name);
  return false;
}

bool probe() {
  bool all = find(&library.OPENSSL_version_major, "OPENSSL_version_major");
  if (all && library.OPENSSL_version_major() != 3) {
    std::snprintf(reason, sizeof reason, "this Node carries OpenSSL %u, and 3 is needed",
                  library.OPENSSL_version_major());
    return false;
  }
#define ML_FIND(name) all = find(&library.name, #name) && all;
  ML_TLS_FUNCTIONS(ML_FIND)
  ML_TLS_SERVER_FUNCTIONS(ML_FIND)
#undef ML_FIND
  if (!all) return false;
  // Node has done it; a program of ours has not. Idempotent (OPENSSL_init_ssl(3)).
  usable = library.OPENSSL_init_ssl(0, nullptr) == 1;
  if (!usable) std::snprintf(reason, sizeof reason, "OpenSSL could not be initialized");
  return usable;
}

}  // namespace

const char* tls_unavailable() {
  // Not std::call_once: its templates are weak symbols that Node exports too, and with those of
  // Node 24 it looks for the function to call in Node's thread-local variables, not in ours.
  static const bool found = probe();
  return found ? nullptr : reason;
}

const TlsLibrary& tls_library() {
  ML_CHECK(usable);
  return library;
}

const char* take_tls_error(const char* fallback) {
  const unsigned long code = library.ERR_get_error();
  library.ERR_clear_error();
  if (code == 0) return fallback;
  const char* text = library.ERR_reason_error_string(code);
  return text != nullptr ? text : fallback;
}

}  // namespace multiloop

#else

namespace multiloop {

const char* tls_unavailable() {
  return "multiloop's native part was compiled without OpenSSL's headers, which come with Node's";
}

}  // namespace multiloop

#endif
