// System calls of buffers and streams for TypeScript: a count, a descriptor or -errno.

#include "../core/net.h"

#include <netinet/in.h>

#include "env_state.h"
#include "napi_util.h"

namespace multiloop {

namespace {

// slabShare(bytes: Uint8Array): what slabRecv and slabSend mean from now on (src/buffer/slab.ts).
napi_value slab_share(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  EnvState& state = args.state();
  if (state.slab_memory != nullptr) napi_delete_reference(env, state.slab_memory);
  ML_CHECK(napi_create_reference(env, args[0], 1, &state.slab_memory) == napi_ok);
  state.slab = bytes_of(env, args[0]);
  return js_undefined(env);
}

// (fd, offset, length) -> count | -errno
napi_value slab_recv(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const ByteSpan& slab = args.state().slab;
  const std::size_t offset = args.u32(1);
  const std::size_t length = args.u32(2);
  ML_CHECK(offset + length <= slab.length);
  return js(env, sys::recv(args.i32(0), slab.data + offset, length));
}

napi_value slab_send(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const ByteSpan& slab = args.state().slab;
  const std::size_t offset = args.u32(1);
  const std::size_t length = args.u32(2);
  ML_CHECK(offset + length <= slab.length);
  const iovec vector{slab.data + offset, length};
  return js(env, sys::sendv(args.i32(0), &vector, 1));
}

// (fd, into) -> count | -errno
napi_value sock_peek(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const ByteSpan into = bytes_of(env, args[1]);
  return js(env, sys::peek(args.i32(0), into.data, into.length));
}

// (fd, bytes, offset, length) -> count | -errno
napi_value sock_send_part(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  const ByteSpan from = bytes_of(env, args[1]);
  const std::size_t offset = args.u32(2);
  const std::size_t length = args.u32(3);
  ML_CHECK(offset + length <= from.length);
  const iovec vector{from.data + offset, length};
  return js(env, sys::sendv(args.i32(0), &vector, 1));
}

// (fd, pieces: Uint8Array[]) -> count | -errno
template <long (*kCall)(int, const iovec*, int)>
napi_value sys_vector(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  std::uint32_t length = 0;
  napi_get_array_length(env, args[1], &length);
  iovec vectors[sys::kVectorsMax];
  int count = 0;
  for (std::uint32_t i = 0; i < length && count < sys::kVectorsMax; ++i) {
    napi_value piece = nullptr;
    napi_get_element(env, args[1], i, &piece);
    const ByteSpan span = bytes_of(env, piece);
    vectors[count++] = {span.data, span.length};
  }
  return js(env, count == 0 ? 0L : kCall(args.i32(0), vectors, count));
}

// (fd, into, offset, length, position) -> count | -errno
napi_value sys_pread(napi_env env, napi_callback_info info) {
  const Args<5> args(env, info);
  const ByteSpan into = bytes_of(env, args[1]);
  const auto offset = static_cast<std::size_t>(args.u64(2));
  const auto length = static_cast<std::size_t>(args.u64(3));
  ML_CHECK(offset + length <= into.length);
  return js(env, sys::pread(args.i32(0), into.data + offset, length, args.u64(4)));
}

// (to, file, position, length) -> count | -errno
napi_value send_file(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  return js(env, sys::send_file(args.i32(0), args.i32(1), args.u64(2),
                                static_cast<std::size_t>(args.u64(3))));
}

// (kind, host | path, port, localHost, localPort) -> fd | [-errno, syscall]. `kind` is 0 for an IP
// address, 1 for a unix path; an empty local host leaves the choice to the kernel, as port 0 does.
napi_value sock_connect(napi_env env, napi_callback_info info) {
  const Args<5> args(env, info);
  const ShortString<256> name(env, args[1]);
  const ShortString<256> local(env, args[3]);
  sys::SockAddr to{};
  sys::SockAddr from{};
  const bool unix_path = args.u32(0) == 1;
  const char* failed = "connect";
  int status = unix_path ? sys::parse_unix(name.text, name.length, &to)
                         : sys::parse_ip(name.text, static_cast<std::uint16_t>(args.u32(2)), &to);
  const bool bound = status == 0 && local.length > 0;
  if (bound) {
    failed = "bind";
    status = sys::parse_ip(local.text, static_cast<std::uint16_t>(args.u32(4)), &from);
  }
  if (status == 0) status = sys::connect(to, bound ? &from : nullptr, &failed);
  if (status >= 0 && !unix_path) static_cast<void>(sys::no_delay(status));
  if (status >= 0) return js(env, status);
  return js_failure(env, status, failed);
}

// (fd) -> SOCK_STREAM, … | -errno
napi_value sock_type(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, sys::socket_type(args.i32(0)));
}

// (fd): the coming close sends a reset.
napi_value sock_reset_on_close(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, sys::reset_on_close(args.i32(0)));
}

}  // namespace

}  // namespace multiloop
