// Addresses between text and the kernel's form.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "sockets.h"
#include "sys.h"
#include "sys_kernel.h"

namespace multiloop::sys {

namespace {

static_assert(sizeof(sockaddr_un::sun_path) <= kUnixPathMax);

// The BSDs have the length in the address too, and then SIN6_LEN is defined (RFC 3493 section 3.4).
// Their kernels write what the call says over it, but an address that is compared has it.
void set_length(SockAddr* address, std::size_t length) {
  address->length = static_cast<socklen_t>(length);
#ifdef SIN6_LEN
  address->storage.ss_len = static_cast<std::uint8_t>(length);
#endif
}

}  // namespace

int parse_ip(const char* host, std::uint16_t port, SockAddr* out) {
  *out = SockAddr{};
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out->storage);
  if (::inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    set_length(out, sizeof *v4);
    return 0;
  }
  char bare[INET6_ADDRSTRLEN];
  const char* zone = std::strchr(host, '%');
  const std::size_t length = zone ? static_cast<std::size_t>(zone - host) : std::strlen(host);
  if (length >= sizeof bare) return -EINVAL;
  std::memcpy(bare, host, length);
  bare[length] = '\0';
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out->storage);
  if (::inet_pton(AF_INET6, bare, &v6->sin6_addr) != 1) return -EINVAL;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  if (zone) {
    // A zone is an interface's name or its number (RFC 4007 section 11).
    unsigned long index = ::if_nametoindex(zone + 1);
    const char* end = zone + 1;
    while (*end >= '0' && *end <= '9') ++end;
    if (index == 0 && *end == '\0') index = std::strtoul(zone + 1, nullptr, 10);
    if (index == 0 || index > UINT32_MAX) return -EINVAL;
    v6->sin6_scope_id = static_cast<std::uint32_t>(index);
  }
  set_length(out, sizeof *v6);
  return 0;
}

int parse_unix(const char* path, std::size_t length, SockAddr* out) {
  *out = SockAddr{};
  auto* address = reinterpret_cast<sockaddr_un*>(&out->storage);
  if (length == 0) return -EINVAL;
  const bool abstract_name = path[0] == '@' || path[0] == '\0';
  if (abstract_name && !kernel::kAbstractNames) return -ENOTSUP;
  if (length >= sizeof address->sun_path) return -ENAMETOOLONG;
  address->sun_family = AF_UNIX;
  std::memcpy(address->sun_path, path, length);
  if (abstract_name) address->sun_path[0] = '\0';
  set_length(out, offsetof(sockaddr_un, sun_path) + length + (abstract_name ? 0 : 1));
  return 0;
}

std::size_t unix_path(const SockAddr& address, char* out) {
  const auto* name = reinterpret_cast<const sockaddr_un*>(&address.storage);
  const std::size_t header = offsetof(sockaddr_un, sun_path);
  const auto whole = static_cast<std::size_t>(address.length);
  if (whole <= header) return 0;
  std::size_t length = std::min(whole - header, sizeof name->sun_path);
  const bool abstract_name = name->sun_path[0] == '\0';
  // The BSDs tell of a socket without a name as of one whose name is empty.
  if (abstract_name && !kernel::kAbstractNames) return 0;
  if (!abstract_name) length = strnlen(name->sun_path, length);
  std::memcpy(out, name->sun_path, length);
  if (abstract_name) out[0] = '@';
  return length;
}

}  // namespace multiloop::sys
