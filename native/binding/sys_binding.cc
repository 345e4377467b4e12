// Thin system calls for TypeScript: a count, a descriptor or -errno. No policy lives here.

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "../core/ledger.h"
#include "../core/sys.h"
#include "env_state.h"
#include "napi_util.h"

namespace multiloop {

namespace {

void set(napi_env env, napi_value object, const char* name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

// {host, port, family} or {path}; undefined for an unnamed socket.
napi_value js_address(napi_env env, const sys::SockAddr& address) {
  napi_value out = nullptr;
  char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 1] = "";
  napi_create_object(env, &out);
  if (address.storage.ss_family == AF_UNIX) {
    char path[sys::kUnixPathMax];
    const std::size_t length = sys::unix_path(address, path);
    if (length == 0) return js_undefined(env);
    napi_value value = nullptr;
    napi_create_string_utf8(env, path, length, &value);
    set(env, out, "path", value);
    return out;
  }
  const bool v6 = address.storage.ss_family == AF_INET6;
  std::uint16_t port = 0;
  if (v6) {
    const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
    inet_ntop(AF_INET6, &in6->sin6_addr, text, INET6_ADDRSTRLEN);
    port = ntohs(in6->sin6_port);
    char zone[IF_NAMESIZE];
    if (in6->sin6_scope_id != 0 && if_indextoname(in6->sin6_scope_id, zone) != nullptr)
      std::snprintf(text + std::strlen(text), sizeof zone + 1, "%%%s", zone);
  } else if (address.storage.ss_family == AF_INET) {
    const auto* in4 = reinterpret_cast<const sockaddr_in*>(&address.storage);
    inet_ntop(AF_INET, &in4->sin_addr, text, INET6_ADDRSTRLEN);
    port = ntohs(in4->sin_port);
  } else {
    return js_undefined(env);
  }
  set(env, out, "host", js(env, text));
  set(env, out, "port", js(env, static_cast<std::uint32_t>(port)));
  set(env, out, "family", js(env, v6 ? 6 : 4));
  return out;
}

// [-errno, the call that said no]
napi_value js_failure(napi_env env, int status, const char* failed) {
  napi_value failure = nullptr;
  napi_create_array_with_length(env, 2, &failure);
  napi_set_element(env, failure, 0, js(env, status));
  napi_set_element(env, failure, 1, js(env, failed));
  return failure;
}

napi_value sys_read(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  const ByteSpan into = bytes_of(env, args[1]);
  const std::size_t offset = args.u32(2);
  const std::size_t length = args.u32(3);
  ML_CHECK(offset + length <= into.length);
  return js(env, sys::read(args.i32(0), into.data + offset, length));
}

napi_value sys_write(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  const ByteSpan from = bytes_of(env, args[1]);
  const std::size_t offset = args.u32(2);
  const std::size_t length = args.u32(3);
  ML_CHECK(offset + length <= from.length);
  return js(env, sys::write(args.i32(0), from.data + offset, length));
}

// sysShare(bytes: Uint8Array): the memory that sysReadSmall and sysWriteSmall use. Naming memory in
// a call costs more than a small read does.
napi_value sys_share(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  EnvState& state = args.state();
  if (state.small_memory != nullptr) napi_delete_reference(env, state.small_memory);
  ML_CHECK(napi_create_reference(env, args[0], 1, &state.small_memory) == napi_ok);
  state.small = bytes_of(env, args[0]);
  return js_undefined(env);
}

// (fd, length) -> count | -errno
napi_value sys_read_small(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const ByteSpan& small = args.state().small;
  ML_CHECK(args.u32(1) <= small.length);
  return js(env, sys::read(args.i32(0), small.data, args.u32(1)));
}

napi_value sys_write_small(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const ByteSpan& small = args.state().small;
  ML_CHECK(args.u32(1) <= small.length);
  return js(env, sys::write(args.i32(0), small.data, args.u32(1)));
}

// Refuses, with -EPERM, what the ledger owns.
napi_value sys_close(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const int fd = args.i32(0);
  if (Ledger::owns(fd)) return js(env, -EPERM);
  args.state().forget(fd);
  return js(env, sys::close(fd));
}

napi_value sys_dup(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, sys::dup(args.i32(0)));
}

// Two descriptors, or -errno.
template <int (*kOpen)(int*)>
napi_value open_two(napi_env env, napi_callback_info) {
  int ends[2];
  if (const int status = kOpen(ends); status < 0) return js(env, status);
  napi_value pair = nullptr;
  napi_create_array_with_length(env, 2, &pair);
  napi_set_element(env, pair, 0, js(env, ends[0]));
  napi_set_element(env, pair, 1, js(env, ends[1]));
  return pair;
}

// sendv(fd, chunks: Uint8Array[], first, offset) -> count | -errno: the chunks from `first` on,
// without the first `offset` bytes, in one call.
napi_value sock_sendv(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  std::uint32_t length = 0;
  napi_get_array_length(env, args[1], &length);
  iovec vectors[sys::kVectorsMax];
  int count = 0;
  std::size_t offset = args.u32(3);
  for (std::uint32_t i = args.u32(2); i < length && count < sys::kVectorsMax; ++i) {
    napi_value chunk = nullptr;
    napi_get_element(env, args[1], i, &chunk);
    const ByteSpan span = bytes_of(env, chunk);
    ML_CHECK(offset <= span.length);
    vectors[count++] = {span.data + offset, span.length - offset};
    offset = 0;
  }
  return js(env, count == 0 ? 0L : sys::sendv(args.i32(0), vectors, count));
}

napi_value sock_non_blocking(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, sys::set_non_blocking(args.i32(0)));
}

napi_value sock_close_on_exec(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, sys::set_close_on_exec(args.i32(0)));
}

// keepAlive(fd, seconds) -> 0 | -errno; 0 seconds switches it off.
napi_value sock_keep_alive(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  return js(env, sys::set_keep_alive(args.i32(0), args.i32(1)));
}

napi_value sock_shutdown(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, sys::shutdown_write(args.i32(0)));
}

napi_value sock_error(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, sys::socket_error(args.i32(0)));
}

template <int (*kName)(int, sys::SockAddr*)>
napi_value sock_name(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  sys::SockAddr address{};
  if (kName(args.i32(0), &address) < 0) return js_undefined(env);
  return js_address(env, address);
}

// listen(kind, host | path, port, backlog, reusePort, ipv6Only, deferAccept)
//   -> fd | [-errno, syscall]. `kind` is 0 for an IP address, 1 for a unix path.
napi_value sock_listen(napi_env env, napi_callback_info info) {
  const Args<7> args(env, info);
  const ShortString<256> name(env, args[1]);
  sys::ListenOptions options{};
  const bool unix_path = args.u32(0) == 1;
  int status = unix_path ? sys::parse_unix(name.text, name.length, &options.address)
                         : sys::parse_ip(name.text, static_cast<std::uint16_t>(args.u32(2)),
                                         &options.address);
  const char* failed = "bind";
  options.backlog = args.i32(3);
  options.reuse_port = args.boolean(4);
  options.ipv6_only = args.boolean(5);
  options.defer_accept = args.boolean(6);
  if (status == 0) status = sys::listen(options, &failed);
  // Inherited by every accepted socket: what a pass wrote leaves in one call anyway, so there is
  // nothing for Nagle's algorithm to gather.
  if (status >= 0 && !unix_path) static_cast<void>(sys::no_delay(status));
  return status >= 0 ? js(env, status) : js_failure(env, status, failed);
}

// isIp(text) -> 0, 4 or 6, as the kernel's own parser sees it (a zone is allowed).
napi_value is_ip(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const ShortString<256> name(env, args[0]);
  // The kernel would read as far as a NUL, and we have only the beginning of a text that is long.
  if (std::strlen(name.text) != name.length || name.length + 1 == sizeof name.text)
    return js(env, 0);
  sys::SockAddr address{};
  if (sys::parse_ip(name.text, 0, &address) < 0) return js(env, 0);
  return js(env, address.storage.ss_family == AF_INET6 ? 6 : 4);
}

}  // namespace

}  // namespace multiloop
