// TLS for TypeScript. A context is a handle of the process. A session is a number: above 0 the
// connection of the ledger that has it, which the base's loop must own; below 0 one of this
// thread's own. A session that is not the caller's answers kTlsNotOwned.

#include "../core/tls_session.h"

#include <cerrno>
#include <memory>
#include <string>

#include "../core/ledger.h"
#include "../core/tls_library.h"
#include "env_state.h"
#include "napi_util.h"

namespace multiloop {

namespace {

// tlsUnavailable() -> undefined, or why there is no TLS.
napi_value tls_unavailable_why(napi_env env, napi_callback_info) {
  const char* why = tls_unavailable();
  return why == nullptr ? js_undefined(env) : js(env, why);
}

#ifdef ML_HAVE_TLS

// Of tlsRead: there may be more inside. A read is shorter than this.
constexpr long kMore = 1L << 24;

std::string text_of(napi_env env, napi_value value) {
  std::size_t length = 0;
  ML_CHECK(napi_get_value_string_utf8(env, value, nullptr, 0, &length) == napi_ok);
  std::string text(length, '\0');
  ML_CHECK(napi_get_value_string_utf8(env, value, text.data(), length + 1, &length) == napi_ok);
  return text;
}

std::string binary_of(napi_env env, napi_value array) {
  const ByteSpan bytes = bytes_of(env, array);
  return bytes.length == 0 ? std::string()
                           : std::string(reinterpret_cast<const char*>(bytes.data), bytes.length);
}

// The properties of an object whose shape TypeScript has checked.
class Properties {
 public:
  Properties(napi_env env, napi_value object) : env_(env), object_(object) {}
  napi_value operator[](const char* name) const {
    napi_value value = nullptr;
    ML_CHECK(napi_get_named_property(env_, object_, name, &value) == napi_ok);
    return value;
  }
  std::string text(const char* name) const { return text_of(env_, (*this)[name]); }
  bool boolean(const char* name) const {
    bool value = false;
    ML_CHECK(napi_get_value_bool(env_, (*this)[name], &value) == napi_ok);
    return value;
  }
  std::int32_t integer(const char* name) const { return integer_of((*this)[name]); }
  std::int64_t long_integer(const char* name) const {
    std::int64_t number = 0;
    ML_CHECK(napi_get_value_int64(env_, (*this)[name], &number) == napi_ok);
    return number;
  }
  template <typename Visit>
  void each(const char* name, Visit visit) const {
    const napi_value array = (*this)[name];
    std::uint32_t length = 0;
    ML_CHECK(napi_get_array_length(env_, array, &length) == napi_ok);
    for (std::uint32_t i = 0; i < length; ++i) {
      napi_value element = nullptr;
      ML_CHECK(napi_get_element(env_, array, i, &element) == napi_ok);
      visit(i, element);
    }
  }
  std::int32_t integer_of(napi_value value) const {
    std::int32_t number = 0;
    ML_CHECK(napi_get_value_int32(env_, value, &number) == napi_ok);
    return number;
  }

 private:
  const napi_env env_;
  const napi_value object_;
};

// tlsContextNew(settings: TlsContextSettings) -> handle, or what is wrong.
napi_value tls_context_new(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const Properties from(env, args[0]);
  TlsSettings settings;
  const auto collect = [env, &from](const char* name, std::vector<std::string>* into) {
    from.each(name, [env, into](std::uint32_t, napi_value value) {
      into->push_back(binary_of(env, value));
    });
  };
  settings.server = from.boolean("server");
  collect("certificates", &settings.certificates);
  collect("keys", &settings.keys);
  collect("authorities", &settings.authorities);
  settings.version_min = from.integer("versionMin");
  settings.version_max = from.integer("versionMax");
  settings.ciphers = from.text("ciphers");
  settings.cipher_suites = from.text("cipherSuites");
  settings.groups = from.text("groups");
  settings.alpn = binary_of(env, from["alpn"]);
  settings.request_certificate = from.boolean("requestCertificate");
  settings.reject_unauthorized = from.boolean("rejectUnauthorized");
  settings.allow_dirty_shutdown = from.boolean("allowDirtyShutdown");
  from.each("names", [env, &settings](std::uint32_t, napi_value value) {
    settings.names.push_back({text_of(env, value), nullptr});
  });
  from.each("contexts", [&from, &settings](std::uint32_t i, napi_value value) {
    ML_CHECK(i < settings.names.size());
    settings.names[i].second =
        find_tls_context(static_cast<TlsContextHandle>(from.integer_of(value)));
  });
  collect("ocsp", &settings.ocsp);
  settings.asks_for_names = from.boolean("asksForNames");
  settings.tickets.on = from.boolean("tickets");
  settings.tickets.rotation = from.long_integer("ticketRotation");
  settings.tickets.lifetime = from.long_integer("sessionTimeout") * 1'000;
  settings.tickets.file = from.text("ticketFile");
  settings.tickets_of = find_tls_context(static_cast<TlsContextHandle>(from.integer("ticketsOf")));
  settings.request_ocsp = from.boolean("requestOcsp");
  settings.key_log = from.text("keyLog");
  for (const auto& [name, context] : settings.names)
    if (context == nullptr) return js(env, "the context of a name is gone");
  std::string error;
  TlsContextRef context = make_tls_context(settings, &error);
  if (context == nullptr) return js(env, error.c_str());
  const TlsContextHandle handle = share_tls_context(std::move(context));
  if (handle == kNoTlsContext) return js(env, "the process has as many contexts as there may be");
  args.state().created_tls_contexts.push_back(handle);
  return js(env, static_cast<std::int32_t>(handle));
}

// tlsContextExpired(handle) -> boolean: whether a certificate in it was not valid any more.
napi_value tls_context_expired(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const TlsContextRef context = find_tls_context(args.u32(0));
  napi_value expired = nullptr;
  napi_get_boolean(env, context != nullptr && context->expired(), &expired);
  return expired;
}

// tlsContextFree(handle): its maker gives it up; sessions keep what they have.
napi_value tls_context_free(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  std::vector<TlsContextHandle>& created = args.state().created_tls_contexts;
  const TlsContextHandle handle = args.u32(0);
  for (std::size_t i = 0; i < created.size(); ++i) {
    if (created[i] != handle) continue;
    created[i] = created.back();
    created.pop_back();
    drop_tls_context(handle);
    break;
  }
  return js_undefined(env);
}

// tlsContextLearn(context, name, named): what clients that ask `context` for the name get from now
// on; nothing when one of them is gone.
napi_value tls_context_learn(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const TlsContextRef context = find_tls_context(args.u32(0));
  TlsContextRef named = find_tls_context(args.u32(2));
  if (context != nullptr && named != nullptr && context != named)
    context->learn(text_of(env, args[1]), std::move(named));
  return js_undefined(env);
}

// tlsContextProblem(context) -> what is wrong with the file of its ticket keys since it was last
// asked, or undefined.
napi_value tls_context_problem(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const TlsContextRef context = find_tls_context(args.u32(0));
  if (context == nullptr || context->tickets() == nullptr) return js_undefined(env);
  const std::string problem = context->tickets()->take_problem();
  return problem.empty() ? js_undefined(env) : js(env, problem.c_str());
}

napi_value tls_context_count(napi_env env, napi_callback_info) {
  return js(env, count_tls_contexts());
}

InboxHandle loop_of(const EnvState& state, std::uint32_t base) {
  const BaseHost* host = const_cast<EnvState&>(state).host(base);
  return host == nullptr || host->base->inbox() == nullptr ? kNoInbox
                                                           : host->base->inbox()->handle();
}

// The first two arguments of most calls: (base, session).
template <std::size_t kCount>
TlsSession* session_of(const Args<kCount>& args) {
  const double id = args.number(1);
  if (id < 0) return args.state().tls_sessions.find(static_cast<std::uint64_t>(-id));
  return Ledger::tls(static_cast<ConnectionId>(id), loop_of(args.state(), args.u32(0)));
}

// tlsOpen(base, connection | 0, context, fd, serverName, identity, session) -> session, or what is
// wrong. For a connection of the ledger the session is the entry's, else this thread's.
napi_value tls_open(napi_env env, napi_callback_info info) {
  const Args<7> args(env, info);
  TlsContextRef context = find_tls_context(args.u32(2));
  if (context == nullptr) return js(env, "its TLS context is gone");
  const TlsPeer peer{text_of(env, args[4]), text_of(env, args[5]), binary_of(env, args[6])};
  std::string error;
  TlsSession* session = TlsSession::make(std::move(context), args.i32(3), peer, &error);
  if (session == nullptr) return js(env, error.c_str());
  const ConnectionId connection = args.u64(1);
  if (connection == kNoConnection)
    return js(env, -static_cast<double>(args.state().tls_sessions.add(session)));
  if (Ledger::set_tls(connection, loop_of(args.state(), args.u32(0)), session))
    return js(env, static_cast<double>(connection));
  free_tls_session(session);
  return js(env, "the connection is another loop's, or has TLS already");
}

// tlsFree(session): one of this thread's own.
napi_value tls_free(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  args.state().tls_sessions.remove(static_cast<std::uint64_t>(-args.number(0)));
  return js_undefined(env);
}

// tlsUnfinished(base, session) -> the bytes of a record that was begun and has not left; -1: there
// is no such session.
napi_value tls_unfinished(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const TlsSession* session = session_of(args);
  return js(env, session == nullptr ? -1L : static_cast<long>(session->unfinished()));
}

// tlsHandshake(base, session) -> 0: done; 1, 2: to go on when the socket can be read, or written;
// 3: when tlsAnswer() has said what to use for tlsAsked(); or a negative code.
napi_value tls_handshake(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  TlsSession* session = session_of(args);
  return js(env, session == nullptr ? kTlsNotOwned : session->handshake());
}

// tlsAsked(base, session) -> the name that its handshake waits for.
napi_value tls_asked(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  TlsSession* session = session_of(args);
  return js(env, session == nullptr ? "" : session->naming().name.c_str());
}

// tlsAnswer(base, session, context) -> whether there is such a context. 0: that of the listener;
// -1: the handshake is refused.
napi_value tls_answer(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  TlsSession* session = session_of(args);
  const std::int32_t handle = args.i32(2);
  TlsContextRef context =
      handle > 0 ? find_tls_context(static_cast<TlsContextHandle>(handle)) : nullptr;
  const bool known = handle <= 0 || (context != nullptr && context->server());
  if (session != nullptr && known && session->naming().state == TlsNaming::kAsked) {
    session->naming().state = handle < 0 ? TlsNaming::kRefused : TlsNaming::kAnswered;
    session->naming().context = std::move(context);
  }
  napi_value answered = nullptr;
  napi_get_boolean(env, known, &answered);
  return answered;
}

// tlsRead(base, session, offset, length) -> bytes that are in the slab, with kMore added if there
// may be more inside; 0 at the end; or a negative code.
napi_value tls_read(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  TlsSession* session = session_of(args);
  if (session == nullptr) return js(env, kTlsNotOwned);
  const ByteSpan& slab = args.state().slab;
  const std::size_t offset = args.u32(2);
  const std::size_t length = args.u32(3);
  ML_CHECK(offset + length <= slab.length && length < static_cast<std::size_t>(kMore));
  bool more = false;
  const long count = session->read(slab.data + offset, length, &more);
  return js(env, more ? count + kMore : count);
}

// tlsWrite(base, session, bytes, offset, length) -> count | a negative code
napi_value tls_write(napi_env env, napi_callback_info info) {
  const Args<5> args(env, info);
  TlsSession* session = session_of(args);
  if (session == nullptr) return js(env, kTlsNotOwned);
  const ByteSpan from = bytes_of(env, args[2]);
  const std::size_t offset = args.u32(3);
  const std::size_t length = args.u32(4);
  ML_CHECK(offset + length <= from.length);
  return js(env, session->write(from.data + offset, length));
}

napi_value tls_shutdown(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  TlsSession* session = session_of(args);
  return js(env, session == nullptr ? kTlsNotOwned : session->shutdown());
}

// tlsUpdateKeys(base, session, request) -> 0, -EAGAIN, or a negative code.
napi_value tls_update_keys(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  TlsSession* session = session_of(args);
  return js(env, session == nullptr ? kTlsNotOwned : session->update_keys(args.boolean(2)));
}

// What tlsStep does: one of the calls above.
enum class Step : std::uint32_t { kHandshake, kRead, kWrite, kShutdown, kUpdateKeys };

// Of a session over memory, tlsStep(base, session, moved, step, bytes, offset, length, flag, at,
// room, reply) -> what the call answers. In the slab, plain text that is read goes to the `room`
// bytes from `at` on, and records to the `reply` bytes behind them. `bytes` are the records that
// came, or what is to be written. `flag`: nothing follows those records, or the peer is asked for
// new keys too. `moved` is given the count of the bytes that were taken and that of the records'.
napi_value tls_step(napi_env env, napi_callback_info info) {
  const Args<11> args(env, info);
  TlsSession* session = session_of(args);
  const ByteSpan moved = bytes_of(env, args[2]);
  ML_CHECK(moved.length == 2);  // elements
  auto* counts = reinterpret_cast<std::uint32_t*>(moved.data);
  counts[0] = counts[1] = 0;
  if (session == nullptr) return js(env, kTlsNotOwned);
  const auto step = static_cast<Step>(args.u32(3));
  const ByteSpan bytes = bytes_of(env, args[4]);
  const std::size_t offset = args.u32(5);
  const std::size_t length = args.u32(6);
  ML_CHECK(offset + length <= bytes.length);
  const bool flag = args.boolean(7);
  const ByteSpan& slab = args.state().slab;
  const std::size_t at = args.u32(8);
  const std::size_t room = args.u32(9);
  const std::size_t reply = args.u32(10);
  ML_CHECK(at + room + reply <= slab.length && room < static_cast<std::size_t>(kMore));
  TlsMemory memory;
  const bool reads = step == Step::kHandshake || step == Step::kRead;
  if (reads) {
    memory.from = reinterpret_cast<const unsigned char*>(bytes.data) + offset;
    memory.from_length = length;
    memory.ends = flag;
  }
  memory.into = reinterpret_cast<unsigned char*>(slab.data) + at + room;
  memory.into_length = reply;
  session->lend(&memory);
  long result = kTlsFailed;
  bool more = false;
  switch (step) {
    case Step::kHandshake:
      result = session->handshake();
      break;
    case Step::kRead:
      result = session->read(slab.data + at, room, &more);
      break;
    case Step::kWrite:
      result = session->write(bytes.data + offset, length);
      break;
    case Step::kShutdown:
      result = session->shutdown();
      break;
    case Step::kUpdateKeys:
      result = session->update_keys(flag);
      break;
  }
  session->lend(nullptr);
  counts[0] = static_cast<std::uint32_t>(memory.taken);
  counts[1] = static_cast<std::uint32_t>(memory.given);
  return js(env, more ? result + kMore : result);
}

// tlsSessionCount() -> this thread's own ones.
napi_value tls_session_count(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, args.state().tls_sessions.count());
}

// tlsError(base, session) -> why a call has answered kTlsFailed.
napi_value tls_error(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const TlsSession* session = session_of(args);
  return js(env, session == nullptr ? "it is another thread's" : session->error().c_str());
}

napi_value bytes_in_javascript(napi_env env, const std::vector<unsigned char>& bytes) {
  if (bytes.empty()) return js_undefined(env);
  napi_value buffer = nullptr;
  ML_CHECK(napi_create_buffer_copy(env, bytes.size(), bytes.data(), nullptr, &buffer) == napi_ok);
  return buffer;
}

// tlsFacts(base, session) -> undefined before the handshake is done; [protocol, cipher, servername,
// alpn, reused, unauthorized, certificate, ocsp]
napi_value tls_facts(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const TlsSession* session = session_of(args);
  if (session == nullptr || !session->shaken()) return js_undefined(env);
  const TlsFacts facts = session->facts();
  napi_value reused = nullptr;
  napi_get_boolean(env, facts.reused, &reused);
  const napi_value values[] = {
      js(env, facts.protocol),
      js(env, facts.cipher),
      js(env, facts.server_name.c_str()),
      js(env, facts.alpn.c_str()),
      reused,
      js(env, facts.unauthorized == nullptr ? "" : facts.unauthorized),
      bytes_in_javascript(env, facts.certificate),
      bytes_in_javascript(env, facts.ocsp),
  };
  napi_value array = nullptr;
  napi_create_array_with_length(env, std::size(values), &array);
  for (std::uint32_t i = 0; i < std::size(values); ++i) napi_set_element(env, array, i, values[i]);
  return array;
}

// tlsSession(base, session) -> Buffer | undefined: to resume with.
napi_value tls_session(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const TlsSession* session = session_of(args);
  if (session == nullptr) return js_undefined(env);
  return bytes_in_javascript(env, session->export_session());
}

#endif

}  // namespace

}  // namespace multiloop
