#ifndef _WIN32

#include "datagram.h"

#include <cerrno>
#include <cstring>

#include "check.h"
#include "net.h"
#include "sys_kernel.h"

namespace multiloop::datagram {

namespace {

using sys::retried;
using sys::set_option;

int set_up(int fd, const Open& options, const char** failed) {
  int status = 0;
  *failed = "setsockopt";
  if (options.reuse_address) status = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (status == 0 && options.reuse_port) status = sys::kernel::share_port(fd);
  if (status == 0 && options.family == AF_INET6 && options.ipv6_only >= 0)
    status = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, options.ipv6_only);
  if (status != 0) return status;
  const auto* bound = options.bind;
  *failed = "bind";
  if (bound != nullptr)
    status = retried([=] {
      return ::bind(fd, reinterpret_cast<const sockaddr*>(&bound->storage), bound->length);
    });
  if (status != 0) return status;
  const auto* peer = options.connect;
  *failed = "connect";
  if (peer != nullptr)
    status = retried([=] {
      return ::connect(fd, reinterpret_cast<const sockaddr*>(&peer->storage), peer->length);
    });
  return status;
}

int outgoing_interface(int fd, int family, int index) {
  if (family == AF_INET6) return set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, index);
  ip_mreqn request{};
  request.imr_ifindex = index;
  return retried(
      [&] { return ::setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request); });
}

void fill(msghdr* header, iovec* vector, const Message& message, std::size_t length) {
  *vector = {message.data, length};
  *header = msghdr{};
  header->msg_iov = vector;
  header->msg_iovlen = 1;
  header->msg_name = message.name;
  header->msg_namelen = message.name_length;
}

void received(Message* message, const msghdr& header, std::size_t length) {
  message->length = length;
  message->name_length = header.msg_namelen;
  message->truncated = (header.msg_flags & MSG_TRUNC) != 0;
}

}  // namespace

int open(const Open& options, const char** failed) {
  *failed = "socket";
  const int fd = sys::kernel::open_socket(options.family, SOCK_DGRAM);
  if (fd < 0) return fd;
  const int status = set_up(fd, options, failed);
  if (status == 0) return fd;
  sys::close(fd);
  return status;
}

int adopt(int fd, const char** failed) {
  *failed = "getsockopt";
  const int type = sys::socket_type(fd);
  if (type < 0) return type;
  if (type != SOCK_DGRAM) return -EPROTOTYPE;
  sys::SockAddr address{};
  *failed = "getsockname";
  if (const int status = sys::local_address(fd, &address); status < 0) return status;
  *failed = "fcntl";
  if (const int status = sys::set_non_blocking(fd); status < 0) return status;
  if (const int status = sys::set_close_on_exec(fd); status < 0) return status;
  return address.storage.ss_family;
}

int set(int fd, int family, Option option, int value) {
  const bool v6 = family == AF_INET6;
  const int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
  switch (option) {
    case Option::kBroadcast:
      return set_option(fd, SOL_SOCKET, SO_BROADCAST, value);
    case Option::kReceiveBuffer:
      return set_option(fd, SOL_SOCKET, SO_RCVBUF, value);
    case Option::kSendBuffer:
      return set_option(fd, SOL_SOCKET, SO_SNDBUF, value);
    case Option::kTtl:
      return set_option(fd, level, v6 ? IPV6_UNICAST_HOPS : IP_TTL, value);
    case Option::kMulticastTtl:
      return set_option(fd, level, v6 ? IPV6_MULTICAST_HOPS : IP_MULTICAST_TTL, value);
    case Option::kMulticastLoopback:
      return set_option(fd, level, v6 ? IPV6_MULTICAST_LOOP : IP_MULTICAST_LOOP, value);
    case Option::kMulticastInterface:
      return outgoing_interface(fd, family, value);
  }
  return -EINVAL;
}

int set_membership(int fd, const sys::SockAddr& group, unsigned interface_index, bool joined) {
  group_req request{};
  request.gr_interface = interface_index;
  std::memcpy(&request.gr_group, &group.storage, sizeof group.storage);
  const int level = group.storage.ss_family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
  const int name = joined ? MCAST_JOIN_GROUP : MCAST_LEAVE_GROUP;
  return retried([&] { return ::setsockopt(fd, level, name, &request, sizeof request); });
}

int receive_each(int fd, Message* messages, int count) {
  ML_CHECK(count > 0 && count <= kBatchMax);
  for (int i = 0; i < count; ++i) {
    msghdr header;
    iovec vector;
    fill(&header, &vector, messages[i], messages[i].capacity);
    const ssize_t length =
        retried([&] { return ::recvmsg(fd, &header, sys::kernel::kReceiveFlags); });
    // The kernel tells a pending error before it gives out messages, so it nearly always comes
    // first. recvmmsg keeps one that comes between two messages; here it is lost.
    if (length < 0) return i > 0 ? i : static_cast<int>(length);
    received(&messages[i], header, static_cast<std::size_t>(length));
  }
  return count;
}

int send_each(int fd, const Message* messages, int count) {
  ML_CHECK(count > 0 && count <= kBatchMax);
  for (int i = 0; i < count; ++i) {
    msghdr header;
    iovec vector;
    fill(&header, &vector, messages[i], messages[i].length);
    const ssize_t status = retried([&] { return ::sendmsg(fd, &header, sys::kernel::kSendFlags); });
    if (status < 0) return i > 0 ? i : static_cast<int>(status);
  }
  return count;
}

#ifdef ML_LINUX

int receive(int fd, Message* messages, int count) {
  ML_CHECK(count > 0 && count <= kBatchMax);
  mmsghdr headers[kBatchMax];
  iovec vectors[kBatchMax];
  for (int i = 0; i < count; ++i)
    fill(&headers[i].msg_hdr, &vectors[i], messages[i], messages[i].capacity);
  const int got = retried([&] {
    return ::recvmmsg(fd, headers, static_cast<unsigned>(count), sys::kernel::kReceiveFlags,
                      nullptr);
  });
  for (int i = 0; i < got; ++i) received(&messages[i], headers[i].msg_hdr, headers[i].msg_len);
  return got;
}

int send(int fd, const Message* messages, int count) {
  // One message costs the kernel less this way.
  if (count == 1) return send_each(fd, messages, count);
  ML_CHECK(count > 0 && count <= kBatchMax);
  mmsghdr headers[kBatchMax];
  iovec vectors[kBatchMax];
  for (int i = 0; i < count; ++i)
    fill(&headers[i].msg_hdr, &vectors[i], messages[i], messages[i].length);
  return retried([&] {
    return ::sendmmsg(fd, headers, static_cast<unsigned>(count), sys::kernel::kSendFlags);
  });
}

#else

int receive(int fd, Message* messages, int count) { return receive_each(fd, messages, count); }
int send(int fd, const Message* messages, int count) { return send_each(fd, messages, count); }

#endif

}  // namespace multiloop::datagram

#endif
