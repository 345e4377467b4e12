// Datagram sockets, for TypeScript: src/stream/datagram.ts has the rules, and owns the memory that
// messages and packed addresses (the kernel's sockaddr, as bytes) are in.

#include <net/if.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

#include "../core/datagram.h"
#include "env_state.h"
#include "napi_util.h"

namespace multiloop {

namespace {

// The families, as TypeScript writes them.
int family_of(std::uint32_t number) {
  return number == 4 ? AF_INET : number == 6 ? AF_INET6 : AF_UNIX;
}
std::int32_t family_number(int family) {
  return family == AF_INET ? 4 : family == AF_INET6 ? 6 : family == AF_UNIX ? 1 : 0;
}

// A packed address, or nothing for an empty one.
bool unpack(napi_env env, napi_value bytes, sys::SockAddr* out) {
  const ByteSpan span = bytes_of(env, bytes);
  ML_CHECK(span.length <= sizeof out->storage);
  *out = sys::SockAddr{};
  if (span.length > 0) std::memcpy(&out->storage, span.data, span.length);
  out->length = static_cast<socklen_t>(span.length);
  return span.length > 0;
}

// open(family, bind: packed, connect: packed, reuseAddress, reusePort, ipv6Only: -1 | 0 | 1)
//   -> fd | [-errno, syscall]
napi_value datagram_open(napi_env env, napi_callback_info info) {
  const Args<6> args(env, info);
  sys::SockAddr bound;
  sys::SockAddr peer;
  datagram::Open options{};
  options.family = family_of(args.u32(0));
  options.bind = unpack(env, args[1], &bound) ? &bound : nullptr;
  options.connect = unpack(env, args[2], &peer) ? &peer : nullptr;
  options.reuse_address = args.boolean(3);
  options.reuse_port = args.boolean(4);
  options.ipv6_only = args.i32(5);
  const char* failed = "";
  const int status = datagram::open(options, &failed);
  return status >= 0 ? js(env, status) : js_failure(env, status, failed);
}

// adopt(fd) -> family (0: not one of ours), plus 16 when it is connected | [-errno, syscall]
napi_value datagram_adopt(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const char* failed = "";
  const int family = datagram::adopt(args.i32(0), &failed);
  if (family < 0) return js_failure(env, family, failed);
  sys::SockAddr peer{};
  const bool connected = sys::peer_address(args.i32(0), &peer) == 0;
  return js(env, family_number(family) + (connected ? 16 : 0));
}

// option(fd, family, option, value) -> 0 | -errno
napi_value datagram_option(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  const auto option = static_cast<datagram::Option>(args.u32(2));
  return js(env, datagram::set(args.i32(0), family_of(args.u32(1)), option, args.i32(3)));
}

// membership(fd, group: packed, interface: index, joined) -> 0 | -errno
napi_value datagram_membership(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  sys::SockAddr group;
  ML_CHECK(unpack(env, args[1], &group));
  return js(env, datagram::set_membership(args.i32(0), group, args.u32(2), args.boolean(3)));
}

// ::ffff:a.b.c.d
sys::SockAddr mapped(const sys::SockAddr& address) {
  sockaddr_in v4;
  std::memcpy(&v4, &address.storage, sizeof v4);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = v4.sin_port;
  v6.sin6_addr.s6_addr[10] = v6.sin6_addr.s6_addr[11] = 0xff;
  std::memcpy(v6.sin6_addr.s6_addr + 12, &v4.sin_addr, sizeof v4.sin_addr);
  sys::SockAddr out{};
  std::memcpy(&out.storage, &v6, sizeof v6);
  out.length = sizeof v6;
  return out;
}

// pack(family, host | path, port, out: Uint8Array) -> length | -errno. For an IPv6 socket an IPv4
// address is mapped (RFC 4291 section 2.5.5.2). -EAFNOSUPPORT: of another family. -EINVAL: no IP.
napi_value datagram_pack(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  const int family = family_of(args.u32(0));
  const ShortString<256> name(env, args[1]);
  const auto port = static_cast<std::uint16_t>(args.u32(2));
  const ByteSpan out = bytes_of(env, args[3]);
  sys::SockAddr address;
  int status = 0;
  if (family == AF_UNIX) {
    status = sys::parse_unix(name.text, name.length, &address);
  } else {
    status = sys::parse_ip(name.text, port, &address);
    if (status == 0 && family == AF_INET6 && address.storage.ss_family == AF_INET)
      address = mapped(address);
    if (status == 0 && address.storage.ss_family != family) status = -EAFNOSUPPORT;
  }
  if (status < 0) return js(env, status);
  ML_CHECK(address.length <= out.length);
  std::memcpy(out.data, &address.storage, address.length);
  return js(env, static_cast<std::uint32_t>(address.length));
}

// name(memory: Uint8Array, at, length) -> address | undefined, of a packed one.
napi_value datagram_name(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const ByteSpan memory = bytes_of(env, args[0]);
  const std::size_t at = args.u32(1);
  const std::size_t length = args.u32(2);
  sys::SockAddr address{};
  ML_CHECK(at + length <= memory.length && length <= sizeof address.storage);
  std::memcpy(&address.storage, memory.data + at, length);
  address.length = static_cast<socklen_t>(length);
  return js_address(env, address);
}

// interface(name) -> its index, or 0.
napi_value datagram_interface(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const ShortString<256> name(env, args[0]);
  return js(env, static_cast<std::uint32_t>(::if_nametoindex(name.text)));
}

// receive(fd, memory: Uint8Array, size, names: Uint8Array, records: Int32Array, max)
//   -> count | -errno
// `records` has three numbers a message: its length, the length of its name, whether it was cut.
// `memory` is divided into as many places; messages are then moved together at its beginning.
// Names stay apart, each in its place of sizeof(sockaddr_storage).
napi_value datagram_receive(napi_env env, napi_callback_info info) {
  const Args<6> args(env, info);
  const ByteSpan memory = bytes_of(env, args[1]);
  const std::size_t size = args.u32(2);
  const ByteSpan names = bytes_of(env, args[3]);
  const auto records = elements_of<std::int32_t>(env, args[4]);
  const std::size_t places = records.length / 3;
  const std::size_t count = args.u32(5);
  ML_CHECK(count > 0 && count <= places && places <= datagram::kBatchMax);
  const std::size_t stride = memory.length / places;
  ML_CHECK(size <= stride && names.length == places * sizeof(sockaddr_storage));
  datagram::Message messages[datagram::kBatchMax];
  auto* name = reinterpret_cast<sockaddr_storage*>(names.data);
  for (std::size_t i = 0; i < count; ++i)
    messages[i] = {memory.data + i * stride, size, 0, name + i, sizeof *name, false};
  const int got = datagram::receive(args.i32(0), messages, static_cast<int>(count));
  std::size_t end = 0;
  for (int i = 0; i < got; ++i) {
    const datagram::Message& one = messages[i];
    if (i > 0 && one.length > 0) std::memmove(memory.data + end, one.data, one.length);
    end += one.length;
    std::int32_t* record = records.data + i * 3;
    record[0] = static_cast<std::int32_t>(one.length);
    record[1] = static_cast<std::int32_t>(one.name_length);
    record[2] = one.truncated ? 1 : 0;
  }
  return js(env, got);
}

// send(fd, memory: Uint8Array, records: Int32Array, first, count) -> count | -errno. `records` has
// four numbers a message: where in `memory` it begins, its length, where its packed address is, and
// that one's length, which is 0 on a connected socket.
napi_value datagram_send(napi_env env, napi_callback_info info) {
  const Args<5> args(env, info);
  const ByteSpan memory = bytes_of(env, args[1]);
  const auto records = elements_of<std::int32_t>(env, args[2]);
  const std::size_t first = args.u32(3);
  const std::size_t count = args.u32(4);
  ML_CHECK(count > 0 && count <= datagram::kBatchMax);
  ML_CHECK((first + count) * 4 <= records.length);
  datagram::Message messages[datagram::kBatchMax];
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t* record = records.data + (first + i) * 4;
    const auto at = static_cast<std::size_t>(record[0]);
    const auto length = static_cast<std::size_t>(record[1]);
    const auto name_at = static_cast<std::size_t>(record[2]);
    const auto name_length = static_cast<std::size_t>(record[3]);
    ML_CHECK(at + length <= memory.length && name_at + name_length <= memory.length);
    auto* name = reinterpret_cast<sockaddr_storage*>(memory.data + name_at);
    messages[i] = {memory.data + at,
                   0,
                   length,
                   name_length > 0 ? name : nullptr,
                   static_cast<socklen_t>(name_length),
                   false};
  }
  return js(env, datagram::send(args.i32(0), messages, static_cast<int>(count)));
}

}  // namespace

}  // namespace multiloop
