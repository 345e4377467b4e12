// What the tests of the TLS engine have in common: contexts of the certificates in test/tls, and
// two ends of a connection.
#pragma once

#include <dlfcn.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "../../native/core/tls_library.h"
#include "../../native/core/tls_session.h"
#include "check.h"
#include "fixture.h"

#ifdef ML_HAVE_TLS

namespace multiloop::test {

// Node exports OpenSSL's functions; a program of ours has to load them first.
inline bool available() {
  static const bool loaded = dlopen("libssl.so.3", RTLD_NOW | RTLD_GLOBAL) != nullptr;
  const char* why = tls_unavailable();
  if (loaded && why == nullptr) return true;
  static bool told = false;
  if (!told) std::printf("Skipped: TLS: %s\n", loaded ? why : "there is no libssl.so.3 here");
  told = true;
  return false;
}

inline std::string file(const char* name) {
  std::string text;
  std::FILE* in = std::fopen((std::string("test/tls/") + name).c_str(), "r");
  if (!EXPECT_TRUE(in != nullptr)) return text;
  char piece[4'096];
  for (std::size_t n = 0; (n = std::fread(piece, 1, sizeof piece, in)) > 0;) text.append(piece, n);
  std::fclose(in);
  return text;
}

inline TlsSettings server_settings() {
  TlsSettings settings;
  settings.server = true;
  settings.certificates = {file("localhost.pem")};
  settings.keys = {file("localhost-key.pem")};
  return settings;
}
inline TlsContextRef make(const TlsSettings& settings) {
  std::string error;
  TlsContextRef context = make_tls_context(settings, &error);
  EXPECT_TRUE(context != nullptr);
  if (context == nullptr) std::printf("%s\n", error.c_str());
  return context;
}
inline TlsContextRef client_context() {
  TlsSettings settings;
  settings.authorities = {file("ca.pem")};
  return make(settings);
}
inline TlsSession* open(const TlsContextRef& context, int fd, const TlsPeer& peer = {}) {
  std::string error;
  TlsSession* session = TlsSession::make(context, fd, peer, &error);
  EXPECT_TRUE(session != nullptr);
  return session;
}

// Steps both until both are done or one has failed; what the worse one answered.
inline long shake(TlsSession* one, TlsSession* other) {
  for (int step = 0; step < 20; ++step) {
    const long first = one->handshake();
    const long second = other->handshake();
    if (first <= 0 && second <= 0) return first < second ? first : second;
  }
  return -ETIMEDOUT;
}

// Two ends of one connection, past their handshake.
struct Ends {
  Pair pair;
  TlsSession* server = open(make(server_settings()), pair.near);
  TlsSession* client = open(client_context(), pair.far, {"localhost", "localhost", ""});
  Ends() { EXPECT_EQ(shake(client, server), 0); }
  Ends(const Ends&) = delete;
  Ends& operator=(const Ends&) = delete;
  ~Ends() {
    free_tls_session(server);
    free_tls_session(client);
  }
};

inline std::string receive(TlsSession* from, std::size_t room = 100, bool* more = nullptr) {
  std::string text(room, '\0');
  bool rest = false;
  const long count = from->read(text.data(), room, &rest);
  if (more != nullptr) *more = rest;
  text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  return text;
}

}  // namespace multiloop::test

#endif
