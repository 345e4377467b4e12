// OpenSSL as this process has it: Node's own, whose functions it exports for addons (nodejs.org,
// "C++ addons", Linking to libraries included with Node.js). They are looked up by name when TLS is
// used first, so that the addon loads and does all else where they are missing (a Node with
// BoringSSL) or another major version's. The core calls OpenSSL through this table alone, and only
// functions: a macro of its headers that is short for SSL_ctrl is written out.
#pragma once

#include "platform.h"

namespace multiloop {

// Null when TLS can be used, else why not. Probed once; any thread.
const char* tls_unavailable();

}  // namespace multiloop

#ifdef ML_HAVE_TLS

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

namespace multiloop {

// All of them are in OpenSSL 3.0 and later 3.x (the "Changes" of each manual page).
#define ML_TLS_FUNCTIONS(F)          \
  F(OPENSSL_version_major)           \
  F(OPENSSL_init_ssl)                \
  F(ERR_clear_error)                 \
  F(ERR_get_error)                   \
  F(ERR_peek_error)                  \
  F(ERR_reason_error_string)         \
  F(ERR_error_string_n)              \
  F(BIO_new)                         \
  F(BIO_new_mem_buf)                 \
  F(BIO_free)                        \
  F(BIO_get_new_index)               \
  F(BIO_meth_new)                    \
  F(BIO_meth_set_read)               \
  F(BIO_meth_set_write)              \
  F(BIO_meth_set_ctrl)               \
  F(BIO_set_data)                    \
  F(BIO_get_data)                    \
  F(BIO_set_init)                    \
  F(BIO_set_flags)                   \
  F(BIO_clear_flags)                 \
  F(PEM_read_bio_X509)               \
  F(PEM_read_bio_PrivateKey)         \
  F(EVP_PKEY_free)                   \
  F(X509_free)                       \
  F(X509_get0_notAfter)              \
  F(X509_cmp_current_time)           \
  F(X509_STORE_add_cert)             \
  F(X509_verify_cert_error_string)   \
  F(X509_VERIFY_PARAM_set1_host)     \
  F(X509_VERIFY_PARAM_set1_ip_asc)   \
  F(X509_VERIFY_PARAM_set_hostflags) \
  F(i2d_X509)                        \
  F(TLS_client_method)               \
  F(TLS_server_method)               \
  F(SSL_CTX_new)                     \
  F(SSL_CTX_free)                    \
  F(SSL_CTX_ctrl)                    \
  F(SSL_CTX_callback_ctrl)           \
  F(SSL_CTX_set_options)             \
  F(SSL_CTX_use_certificate)         \
  F(SSL_CTX_use_PrivateKey)          \
  F(SSL_CTX_check_private_key)       \
  F(SSL_CTX_set_cipher_list)         \
  F(SSL_CTX_set_ciphersuites)        \
  F(SSL_CTX_set_verify)              \
  F(SSL_CTX_set_session_id_context)  \
  F(SSL_CTX_set_alpn_protos)         \
  F(SSL_CTX_set_alpn_select_cb)      \
  F(SSL_CTX_add_client_CA)           \
  F(SSL_CTX_get_cert_store)          \
  F(SSL_select_next_proto)           \
  F(SSL_new)                         \
  F(SSL_free)                        \
  F(SSL_ctrl)                        \
  F(SSL_set_bio)                     \
  F(SSL_get_rbio)                    \
  F(SSL_set_default_read_buffer_len) \
  F(SSL_set_accept_state)            \
  F(SSL_set_connect_state)           \
  F(SSL_set_SSL_CTX)                 \
  F(SSL_get0_param)                  \
  F(SSL_do_handshake)                \
  F(SSL_is_init_finished)            \
  F(SSL_read)                        \
  F(SSL_write)                       \
  F(SSL_shutdown)                    \
  F(SSL_key_update)                  \
  F(SSL_get_error)                   \
  F(SSL_has_pending)                 \
  F(SSL_get_version)                 \
  F(SSL_get_current_cipher)          \
  F(SSL_CIPHER_get_name)             \
  F(SSL_get_servername)              \
  F(SSL_get0_alpn_selected)          \
  F(SSL_session_reused)              \
  F(SSL_get_verify_result)           \
  F(SSL_get0_peer_certificate)       \
  F(SSL_get1_session)                \
  F(SSL_set_session)                 \
  F(SSL_SESSION_free)                \
  F(SSL_SESSION_is_resumable)        \
  F(i2d_SSL_SESSION)                 \
  F(d2i_SSL_SESSION)

// Of what only servers do: names, tickets, stapling, the key log.
#define ML_TLS_SERVER_FUNCTIONS(F)        \
  F(OPENSSL_cleanse)                      \
  F(CRYPTO_malloc)                        \
  F(RAND_bytes)                           \
  F(EVP_aes_256_cbc)                      \
  F(EVP_EncryptInit_ex)                   \
  F(EVP_DecryptInit_ex)                   \
  F(EVP_MAC_CTX_set_params)               \
  F(OSSL_PARAM_construct_octet_string)    \
  F(OSSL_PARAM_construct_utf8_string)     \
  F(OSSL_PARAM_construct_end)             \
  F(d2i_OCSP_RESPONSE)                    \
  F(OCSP_RESPONSE_free)                   \
  F(OCSP_response_status)                 \
  F(OCSP_response_status_str)             \
  F(SSL_CTX_get0_certificate)             \
  F(SSL_CTX_set_client_hello_cb)          \
  F(SSL_CTX_set_keylog_callback)          \
  F(SSL_CTX_set_num_tickets)              \
  F(SSL_CTX_set_timeout)                  \
  F(SSL_CTX_set_tlsext_ticket_key_evp_cb) \
  F(SSL_version)                          \
  F(SSL_client_hello_get0_ext)            \
  F(SSL_get_certificate)

struct TlsLibrary {
#define ML_DECLARE(name) decltype(&::name) name = nullptr;
  ML_TLS_FUNCTIONS(ML_DECLARE)
  ML_TLS_SERVER_FUNCTIONS(ML_DECLARE)
#undef ML_DECLARE
};

// tls_unavailable() must have answered null.
const TlsLibrary& tls_library();

// Takes all errors of this thread out of OpenSSL's queue: the reason of the first, which is the
// cause, and `fallback` when there is none. Valid for ever.
const char* take_tls_error(const char* fallback);

}  // namespace multiloop

#endif
