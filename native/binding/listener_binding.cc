// Accepting, for TypeScript: src/stream/listening_socket.ts has the rules.

#include <cerrno>

#include "../core/acceptor.h"
#include "env_state.h"
#include "napi_util.h"

namespace multiloop {

namespace {

// accept(listener) -> fd | -errno; listenerPeer() tells the address until the next accept.
napi_value listener_accept(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, acceptor::accept_next(args.i32(0), &args.state().last_peer));
}

napi_value listener_peer(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js_address(env, args.state().last_peer);
}

// adopt(fd, backlog) -> 0 | [-errno, syscall] | what else is wrong with it, in words.
napi_value listener_adopt(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  int status = 0;
  const char* failed = "";
  switch (acceptor::adopt(args.i32(0), args.i32(1), &status, &failed)) {
    case acceptor::Adopted::kReady:
      return js(env, 0);
    case acceptor::Adopted::kNotStream:
      return js(env, "is not a stream socket");
    case acceptor::Adopted::kUnbound:
      return js(env, "is bound to no address");
    case acceptor::Adopted::kConnected:
      return js(env, "is a connection");
    case acceptor::Adopted::kFailed:
      break;
  }
  return js_failure(env, status, failed);
}

napi_value listener_reserve(napi_env env, napi_callback_info) {
  return js(env, acceptor::open_reserve());
}

// refuse(listener, reserve, max) -> [how many, the new reserve or -errno]
napi_value listener_refuse(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const acceptor::Refusals done = acceptor::refuse(args.i32(0), args.i32(1), args.i32(2));
  napi_value out = nullptr;
  napi_create_array_with_length(env, 2, &out);
  napi_set_element(env, out, 0, js(env, done.count));
  napi_set_element(env, out, 1, js(env, done.reserve));
  return out;
}

}  // namespace

}  // namespace multiloop
