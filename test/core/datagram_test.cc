// Batches of datagrams, in the form of this build and in the portable one, which answer alike; and
// what may be adopted.

#include <netinet/in.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "../../native/core/acceptor.h"
#include "../../native/core/datagram.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

sys::SockAddr local_port(std::uint16_t port) {
  sys::SockAddr address;
  EXPECT_EQ(sys::parse_ip("127.0.0.1", port, &address), 0);
  return address;
}

int open_at(const sys::SockAddr* bound, const sys::SockAddr* peer) {
  datagram::Open options{};
  options.family = AF_INET;
  options.bind = bound;
  options.connect = peer;
  options.ipv6_only = -1;
  const char* failed = nullptr;
  return datagram::open(options, &failed);
}

constexpr std::size_t kPlace = 16;

// Places to receive into.
struct Places {
  std::byte memory[datagram::kBatchMax * kPlace];
  sockaddr_storage names[datagram::kBatchMax];
  datagram::Message messages[datagram::kBatchMax];

  Places() {
    for (int i = 0; i < datagram::kBatchMax; ++i)
      messages[i] = {memory + i * kPlace, kPlace, 0, names + i, sizeof names[i], false};
  }
  std::string text(int i) const {
    return {reinterpret_cast<const char*>(messages[i].data), messages[i].length};
  }
};

using Receive = int (*)(int, datagram::Message*, int);
using Send = int (*)(int, const datagram::Message*, int);

std::vector<datagram::Message> to_send(std::vector<std::string>* texts, sys::SockAddr* to) {
  std::vector<datagram::Message> messages;
  for (std::string& text : *texts)
    messages.push_back({reinterpret_cast<std::byte*>(text.data()), 0, text.size(),
                        to ? &to->storage : nullptr, to ? to->length : 0, false});
  return messages;
}

void there(Send send, Receive receive) {
  const sys::SockAddr any = local_port(0);
  const Fd near(open_at(&any, nullptr));
  const Fd far(open_at(&any, nullptr));
  sys::SockAddr to{};
  sys::SockAddr from{};
  EXPECT_EQ(sys::local_address(far, &to), 0);
  EXPECT_EQ(sys::local_address(near, &from), 0);
  Places places;
  EXPECT_EQ(receive(far, places.messages, 3), -EAGAIN);
  std::vector<std::string> texts{"one", "", "exactly 16 bytes", "seventeen bytes!!", "five"};
  const std::vector<datagram::Message> messages = to_send(&texts, &to);
  EXPECT_EQ(send(near, messages.data(), 5), 5);
  EXPECT_EQ(receive(far, places.messages, 2), 2);
  EXPECT_TRUE(places.text(0) == "one");
  EXPECT_TRUE(places.text(1) == "");
  EXPECT_EQ(places.messages[0].name_length, sizeof(sockaddr_in));
  EXPECT_EQ(std::memcmp(places.messages[0].name, &from.storage, sizeof(sockaddr_in)), 0);
  EXPECT_EQ(receive(far, places.messages, datagram::kBatchMax), 3);
  EXPECT_TRUE(places.text(0) == "exactly 16 bytes");
  EXPECT_TRUE(!places.messages[0].truncated);
  EXPECT_TRUE(places.text(1) == "seventeen bytes!");
  EXPECT_TRUE(places.messages[1].truncated);
  EXPECT_TRUE(places.text(2) == "five");
  EXPECT_EQ(receive(far, places.messages, 1), -EAGAIN);
}

// An error belongs to the message that is first; those before it have left.
void refused(Send send) {
  const sys::SockAddr any = local_port(0);
  const Fd far(open_at(&any, nullptr));
  sys::SockAddr to{};
  EXPECT_EQ(sys::local_address(far, &to), 0);
  const Fd near(open_at(nullptr, &to));
  std::vector<std::string> texts{"a", "b", std::string(70'000, 'x'), "c"};
  const std::vector<datagram::Message> messages = to_send(&texts, nullptr);
  EXPECT_EQ(send(near, messages.data(), 4), 2);
  EXPECT_EQ(send(near, messages.data() + 2, 2), -EMSGSIZE);
  EXPECT_EQ(send(near, messages.data() + 3, 1), 1);
  Places places;
  EXPECT_EQ(datagram::receive(far, places.messages, 8), 3);
  EXPECT_TRUE(places.text(2) == "c");
}

// Nobody is at the other end: the kernel says so once, and the message after that leaves.
void icmp(Send send, Receive receive) {
  sys::SockAddr gone{};
  {
    const sys::SockAddr any = local_port(0);
    const Fd far(open_at(&any, nullptr));
    EXPECT_EQ(sys::local_address(far, &gone), 0);
  }
  const Fd near(open_at(nullptr, &gone));
  std::vector<std::string> texts{"a"};
  const std::vector<datagram::Message> messages = to_send(&texts, nullptr);
  EXPECT_EQ(send(near, messages.data(), 1), 1);
  EXPECT_EQ(send(near, messages.data(), 1), -ECONNREFUSED);
  EXPECT_EQ(send(near, messages.data(), 1), 1);
  Places places;
  EXPECT_EQ(receive(near, places.messages, 4), -ECONNREFUSED);
  EXPECT_EQ(receive(near, places.messages, 4), -EAGAIN);
}

sys::SockAddr bound_to(int fd) {
  sys::SockAddr address{};
  EXPECT_EQ(sys::local_address(fd, &address), 0);
  return address;
}

// A listener, and a client whose connection waits.
struct Door {
  Fd listener;
  std::vector<Fd> clients;

  explicit Door(int count) {
    sys::ListenOptions options{local_port(0), 16, false, false, false};
    const char* failed = nullptr;
    listener = Fd(sys::listen(options, &failed));
    const sys::SockAddr address = bound_to(listener);
    for (int i = 0; i < count; ++i) {
      clients.emplace_back(::socket(AF_INET, SOCK_STREAM, 0));
      EXPECT_EQ(::connect(clients.back(), reinterpret_cast<const sockaddr*>(&address.storage),
                          address.length),
                0);
    }
  }
};

}  // namespace

TEST(datagrams_go_there_in_batches) { there(datagram::send, datagram::receive); }
TEST(datagrams_go_there_one_by_one) { there(datagram::send_each, datagram::receive_each); }
TEST(datagrams_of_both_forms_meet) { there(datagram::send_each, datagram::receive); }

TEST(a_message_that_is_refused_ends_its_batch) {
  refused(datagram::send);
  refused(datagram::send_each);
}

TEST(what_icmp_says_is_met_once) {
  icmp(datagram::send, datagram::receive);
  icmp(datagram::send_each, datagram::receive_each);
}

TEST(only_datagram_sockets_are_adopted) {
  const char* failed = nullptr;
  int ends[2];
  EXPECT_EQ(sys::socket_pair(ends), 0);
  const Fd a(ends[0]);
  const Fd b(ends[1]);
  EXPECT_EQ(datagram::adopt(a, &failed), -EPROTOTYPE);
  EXPECT_EQ(datagram::adopt(-1, &failed), -EBADF);
  const Fd own(::socket(AF_INET6, SOCK_DGRAM, 0));
  EXPECT_EQ(datagram::adopt(own, &failed), AF_INET6);
}

TEST(only_sockets_to_listen_on_are_adopted) {
  using acceptor::Adopted;
  int status = 0;
  const char* failed = nullptr;
  const auto adopt = [&](int fd) { return acceptor::adopt(fd, 8, &status, &failed); };
  const sys::SockAddr any = local_port(0);
  const Fd datagrams(open_at(&any, nullptr));
  EXPECT_TRUE(adopt(datagrams) == Adopted::kNotStream);
  const Fd socket(::socket(AF_INET, SOCK_STREAM, 0));
  EXPECT_TRUE(adopt(socket) == Adopted::kUnbound);
  EXPECT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&any.storage), any.length), 0);
  EXPECT_TRUE(adopt(socket) == Adopted::kReady);
  EXPECT_EQ(sys::is_listening(socket), 1);
  EXPECT_TRUE(adopt(socket) == Adopted::kReady);
  const Door door(1);
  EXPECT_TRUE(adopt(door.clients[0]) == Adopted::kConnected);
  EXPECT_TRUE(adopt(-1) == Adopted::kFailed);
  EXPECT_EQ(status, -EBADF);
}

TEST(a_reserve_is_given_up_and_taken_back) {
  const Door door(3);
  const int reserve = acceptor::open_reserve();
  EXPECT_TRUE(reserve >= 0);
  acceptor::Refusals done = acceptor::refuse(door.listener, reserve, 2);
  EXPECT_EQ(done.count, 2);
  EXPECT_EQ(done.reserve, reserve);
  // Whoever is refused is told: the end of the stream.
  char byte = 0;
  EXPECT_EQ(sys::read(door.clients[0], &byte, 1), 0);
  EXPECT_EQ(sys::read(door.clients[1], &byte, 1), 0);
  // Without one it is tried all the same.
  sys::close(done.reserve);
  done = acceptor::refuse(door.listener, -1, 8);
  EXPECT_EQ(done.count, 1);
  sys::close(done.reserve);
  sys::SockAddr peer;
  EXPECT_EQ(acceptor::accept_next(door.listener, &peer), -EAGAIN);
}

}  // namespace multiloop::test
