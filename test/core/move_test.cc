// Live connections between loops: what they bring along, and what is left of them when a loop dies.
#include <cstring>
#include <string>
#include <vector>

#include "../../native/core/handoff.h"
#include "check.h"
#include "fixture.h"
#include "place.h"

namespace multiloop::test {

namespace {

std::string text_of(const Message& message) {
  return message.bytes == nullptr
             ? std::string()
             : std::string(reinterpret_cast<const char*>(message.bytes), message.length);
}

}  // namespace

TEST(a_move_gives_the_descriptor_and_what_it_brings_along) {
  const Place coordinator(8);
  Place from(8, coordinator.handle);
  Place to(8, coordinator.handle);
  TcpPair pair;
  const ConnectionId id = adopt(pair.near, from.handle);
  EXPECT_EQ(move(id, from.handle, to.handle, "state", 5), Delivery::kOk);
  EXPECT_EQ(Ledger::owner(id), to.handle);
  const Message message = to.pop();
  EXPECT_EQ(message.kind, MessageKind::kMove);
  EXPECT_EQ(message.id, id);
  EXPECT_TRUE(text_of(message) == "state");
  free_message(message);
  EXPECT_TRUE(Ledger::take(id, to.handle));
  EXPECT_EQ(from.inbox->counters().moved_out.load(), 1);
  EXPECT_TRUE(Ledger::close(id, to.handle, false));
  EXPECT_EQ(Ledger::owner(id), kNoInbox);
}

TEST(a_move_that_fails_changes_nothing) {
  const Place coordinator(8);
  Place from(8, coordinator.handle);
  Place full(2, coordinator.handle);
  Place gone(2, coordinator.handle);
  const InboxHandle gone_handle = gone.handle;
  gone.release();
  TcpPair pair;
  const ConnectionId id = adopt(pair.near, from.handle);
  while (post(from.handle, full.handle, "x", 1) == Delivery::kOk) {
  }
  EXPECT_EQ(move(id, from.handle, full.handle, "s", 1), Delivery::kFull);
  EXPECT_EQ(move(id, from.handle, gone_handle, "s", 1), Delivery::kGone);
  EXPECT_EQ(move(id, full.handle, from.handle, "s", 1), Delivery::kNotOwner);
  EXPECT_EQ(Ledger::owner(id), from.handle);
  EXPECT_EQ(from.inbox->counters().moved_out.load(), 0);
  EXPECT_TRUE(Ledger::close(id, from.handle, false));
}

TEST(a_move_to_a_loop_that_dies_comes_back_with_what_it_brought) {
  Place coordinator(8);
  Place from(8, coordinator.handle);
  Place to(8, coordinator.handle);
  TcpPair pair;
  const ConnectionId id = adopt(pair.near, from.handle);
  EXPECT_EQ(move(id, from.handle, to.handle, "state", 5), Delivery::kOk);
  to.release();
  const Message back = coordinator.pop();
  EXPECT_EQ(back.kind, MessageKind::kReturned);
  EXPECT_EQ(back.id, id);
  EXPECT_TRUE(text_of(back) == "state");
  free_message(back);
  EXPECT_TRUE(Ledger::take(id, coordinator.handle));
  EXPECT_EQ(coordinator.pop().kind, MessageKind::kReleased);
  EXPECT_TRUE(Ledger::close(id, coordinator.handle, false));
}

TEST(what_is_at_a_boundary_outlives_its_loop) {
  Place coordinator(8);
  Place loop(8, coordinator.handle);
  TcpPair kept;
  TcpPair busy;
  const int number = kept.near;
  const ConnectionId saved = adopt(kept.near, loop.handle);
  const ConnectionId lost = adopt(busy.near, loop.handle);
  std::vector<std::uint8_t> boundaries(4'096);
  boundaries[static_cast<std::size_t>(number)] = 1;
  loop.inbox->watch_boundaries(boundaries.data(), boundaries.size());
  EXPECT_TRUE(!Ledger::set_checkpoint(saved, coordinator.handle, "no", 2));
  EXPECT_TRUE(Ledger::set_checkpoint(saved, loop.handle, "first", 5));
  EXPECT_TRUE(Ledger::set_checkpoint(saved, loop.handle, "kept", 4));
  Inbox* const inbox = loop.inbox;
  release_loop(inbox, true);
  EXPECT_EQ(inbox->counters().moved_out.load(), 1);
  EXPECT_EQ(inbox->counters().lost.load(), 1);
  const Message rescued = coordinator.pop();
  EXPECT_EQ(rescued.kind, MessageKind::kRescued);
  EXPECT_EQ(rescued.id, saved);
  EXPECT_TRUE(text_of(rescued) == "kept");
  free_message(rescued);
  EXPECT_EQ(coordinator.pop().kind, MessageKind::kReleased);
  EXPECT_TRUE(Ledger::take(saved, coordinator.handle));
  EXPECT_EQ(read_some(busy.far), -ECONNRESET);
  EXPECT_EQ(Ledger::fd(lost), -1);
  // It lives: what the peer sends is still there to be read.
  EXPECT_EQ(sys::write(kept.far, "x", 1), 1);
  EXPECT_TRUE(Ledger::close(saved, coordinator.handle, false));
}

TEST(nothing_is_rescued_when_the_group_closes_or_twice_in_a_minute) {
  Place coordinator(8);
  std::vector<std::uint8_t> boundaries(4'096, 1);
  TcpPair pair;
  ConnectionId id = kNoConnection;
  for (int death = 0; death < 3; ++death) {
    Place loop(8, coordinator.handle);
    loop.inbox->watch_boundaries(boundaries.data(), boundaries.size());
    if (death == 0) {
      id = adopt(pair.near, loop.handle);
    } else {
      EXPECT_EQ(move(id, coordinator.handle, loop.handle, "", 0), Delivery::kOk);
      free_message(loop.pop());
      EXPECT_TRUE(Ledger::take(id, loop.handle));
    }
    loop.release();
    const Message message = coordinator.pop();
    if (death == 2) {
      EXPECT_EQ(message.kind, MessageKind::kReleased);
      break;
    }
    EXPECT_EQ(message.kind, MessageKind::kRescued);
    EXPECT_TRUE(message.bytes == nullptr);
    EXPECT_TRUE(Ledger::take(id, coordinator.handle));
    EXPECT_EQ(coordinator.pop().kind, MessageKind::kReleased);
  }
  EXPECT_EQ(read_some(pair.far), -ECONNRESET);

  Place loop(8, coordinator.handle);
  loop.inbox->watch_boundaries(boundaries.data(), boundaries.size());
  TcpPair other;
  static_cast<void>(adopt(other.near, loop.handle));
  loop.release(false);
  EXPECT_EQ(read_some(other.far), -ECONNRESET);
  EXPECT_EQ(coordinator.pop().kind, MessageKind::kReleased);
  EXPECT_EQ(Ledger::count(), 0);
}

TEST(what_was_rescued_is_at_its_boundary_when_the_next_loop_owns_it) {
  Place coordinator(8);
  std::vector<std::uint8_t> boundaries(4'096);
  TcpPair pair;
  const int number = pair.near;
  const ConnectionId id = adopt(pair.near, coordinator.handle);
  int error = 0;
  const BackendType& type = *find_backend("poll");
  Rig rig(type, type.create(&error));
  InboxHandle handle = kNoInbox;
  EXPECT_EQ(Inbox::create(8, Waker::preferred(), coordinator.handle, &handle), 0);
  Inbox* const inbox = Inbox::attach(handle);
  EXPECT_EQ(rig.base->attach(inbox), 0);
  inbox->watch_boundaries(boundaries.data(), boundaries.size());
  EXPECT_EQ(move(id, coordinator.handle, handle, "kept", 4, MessageKind::kRescued), Delivery::kOk);
  EXPECT_TRUE(!inbox->at_boundary(number));
  static_cast<void>(rig.base->poll(0));
  EXPECT_TRUE(inbox->at_boundary(number));
  // It dies before anything of it has looked.
  rig.base->detach();
  release_loop(inbox, true);
  EXPECT_EQ(coordinator.pop().kind, MessageKind::kRescued);
  EXPECT_EQ(coordinator.pop().kind, MessageKind::kReleased);
  EXPECT_TRUE(Ledger::take(id, coordinator.handle));
  EXPECT_TRUE(Ledger::close(id, coordinator.handle, false));
  inbox->unref();
  Inbox::release_creator(handle);
}

TEST(a_rescue_that_finds_no_loop_stays_a_rescue) {
  Place coordinator(8);
  Place loop(8, coordinator.handle);
  TcpPair pair;
  const ConnectionId id = adopt(pair.near, coordinator.handle);
  EXPECT_EQ(move(id, coordinator.handle, loop.handle, "kept", 4, MessageKind::kRescued),
            Delivery::kOk);
  loop.release();
  const Message back = coordinator.pop();
  EXPECT_EQ(back.kind, MessageKind::kRescued);
  EXPECT_TRUE(text_of(back) == "kept");
  free_message(back);
  EXPECT_EQ(coordinator.pop().kind, MessageKind::kReleased);
  EXPECT_TRUE(Ledger::take(id, coordinator.handle));
  EXPECT_TRUE(Ledger::close(id, coordinator.handle, false));
}

TEST(an_inbox_knows_nothing_of_who_had_its_place_before) {
  std::vector<std::uint8_t> boundaries(64, 1);
  Inbox* place = nullptr;
  {
    const Place first(8);
    place = first.inbox;
    first.inbox->watch_boundaries(boundaries.data(), boundaries.size());
    EXPECT_TRUE(first.inbox->at_boundary(3));
  }
  const Place second(8);
  EXPECT_TRUE(second.inbox == place);
  EXPECT_TRUE(!second.inbox->at_boundary(3));
}

TEST(a_connection_that_moves_to_nobody_is_closed) {
  const Place coordinator(8);
  InboxHandle handle = kNoInbox;
  EXPECT_EQ(Inbox::create(8, Waker::preferred(), kNoInbox, &handle), 0);
  TcpPair pair;
  const ConnectionId id = adopt(pair.near, coordinator.handle);
  EXPECT_EQ(move(id, coordinator.handle, handle, "s", 1), Delivery::kOk);
  Inbox::release_creator(handle);
  EXPECT_EQ(read_some(pair.far), -ECONNRESET);
  EXPECT_EQ(Ledger::count(), 0);
}

}  // namespace multiloop::test
