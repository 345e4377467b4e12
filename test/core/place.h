// An inbox whose thread is the test, and connections that it may own.
#pragma once

#include "../../native/core/handoff.h"
#include "check.h"
#include "fixture.h"

namespace multiloop::test {

struct Place {
  explicit Place(std::uint32_t capacity, InboxHandle parent = kNoInbox) {
    EXPECT_EQ(Inbox::create(capacity, Waker::preferred(), parent, &handle), 0);
    inbox = Inbox::attach(handle);
    EXPECT_TRUE(inbox != nullptr);
  }
  ~Place() {
    if (inbox != nullptr) release();
    Inbox::release_creator(handle);
  }
  // What the thread of a loop does when it ends.
  void release(bool redistribute = true) {
    release_loop(inbox, redistribute);
    inbox->unref();
    inbox = nullptr;
  }
  Message pop() {
    Message message{};
    EXPECT_TRUE(inbox->pop(&message));
    return message;
  }
  bool is_empty() const { return inbox->empty(); }

  InboxHandle handle = kNoInbox;
  Inbox* inbox = nullptr;
};

inline ConnectionId adopt(Fd& fd, InboxHandle owner) {
  ConnectionId id = kNoConnection;
  EXPECT_EQ(Ledger::adopt(fd.release(), owner, 1, {}, &id), 0);
  return id;
}

}  // namespace multiloop::test
