// The log of what is published: every reader gets what it is interested in, once and in order,
// whoever else comes, leaves or dies; what connections under way need is kept, and no more.
#include "../../native/core/topic_log.h"

#include <poll.h>

#include <cstring>

#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

constexpr InboxHandle kNobody = kNoInbox;
constexpr std::size_t kRoom = 256 * 1024;
constexpr std::size_t kLarge = 4 * 1024;
constexpr std::uint32_t kBucket = 7;
constexpr TopicLog::Limits kRoomy{1 << 24, 1 << 16, 1 << 20, 1 << 12};

// A loop's inbox with both of its references.
class Loop {
 public:
  Loop() {
    EXPECT_EQ(Inbox::create(8, Waker::preferred(), kNoInbox, &handle), 0);
    inbox = Inbox::attach(handle);
    EXPECT_TRUE(inbox != nullptr);
  }
  ~Loop() { end(); }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  // As its release does; the slot is free then.
  void end() {
    if (inbox == nullptr) return;
    inbox->close();
    Inbox::release_creator(handle);
    std::exchange(inbox, nullptr)->unref();
  }
  Inbox* operator->() const { return inbox; }
  bool told() const {
    Message message{};
    if (!inbox->pop(&message)) return false;
    EXPECT_EQ(message.kind, MessageKind::kNews);
    return true;
  }

  InboxHandle handle = kNoInbox;
  Inbox* inbox = nullptr;
};

std::shared_ptr<TopicLog::Entry> entry(std::uint64_t number, std::uint32_t bucket = kBucket,
                                       std::size_t size = sizeof number, std::uint32_t flags = 0) {
  auto made = std::make_shared<TopicLog::Entry>();
  made->bucket = bucket;
  made->flags = flags;
  made->except = kNoConnection;
  made->topic = "t";
  made->payload.resize(std::max(size, sizeof number));
  std::memcpy(made->payload.data(), &number, sizeof number);
  return made;
}
std::uint64_t number_of(const TopicLog::Entry& one) {
  std::uint64_t number = 0;
  std::memcpy(&number, one.payload.data(), sizeof number);
  return number;
}
std::vector<std::uint64_t> numbers_of(const TopicLog::Entries& entries) {
  std::vector<std::uint64_t> numbers;
  for (const auto& one : entries) numbers.push_back(number_of(*one));
  return numbers;
}
std::vector<std::uint64_t> range(std::uint64_t from, std::uint64_t to) {
  std::vector<std::uint64_t> numbers;
  for (; from < to; ++from) numbers.push_back(from);
  return numbers;
}

// Whether it was refused to nobody's face.
bool append(TopicLog& log, std::uint64_t number, std::uint32_t bucket = kBucket,
            InboxHandle from = kNobody) {
  std::vector<InboxHandle> full;
  const bool appended = log.append(from, entry(number, bucket), &full);
  EXPECT_EQ(appended, full.empty());
  return appended;
}
void append_all(TopicLog& log, std::uint64_t from, std::uint64_t to) {
  for (; from < to; ++from) EXPECT_TRUE(append(log, from));
}
void join(TopicLog& log, InboxHandle reader, std::uint32_t bucket = kBucket) {
  log.join(reader);
  log.interest(reader, bucket, true);
}

// A loop's reading as TypeScript has it: until there is no more.
std::vector<std::uint64_t> read_all(TopicLog& log, InboxHandle reader, std::uint64_t* place,
                                    std::size_t bytes = kRoom) {
  std::vector<std::uint64_t> numbers;
  for (;;) {
    TopicLog::Entries entries;
    *place = log.read(reader, *place, bytes, kLarge, &entries);
    if (entries.empty()) return numbers;
    for (const std::uint64_t number : numbers_of(entries)) numbers.push_back(number);
  }
}
std::vector<std::uint64_t> replay_all(TopicLog& log, std::uint64_t from, std::uint64_t to) {
  std::vector<std::uint64_t> numbers;
  while (from < to) {
    TopicLog::Entries entries;
    std::uint64_t next = from;
    static_cast<void>(log.replay(from, to, 100, &entries, &next));
    if (next <= from) break;
    for (const std::uint64_t number : numbers_of(entries)) numbers.push_back(number);
    from = next;
  }
  return numbers;
}

// A connection in the ledger of a loop, closed in the end by whoever has it then.
class Connected {
 public:
  explicit Connected(InboxHandle owner) : owner_(owner) {
    EXPECT_EQ(Ledger::adopt(pair_.near.release(), owner, 7, sys::SockAddr{}, &id), 0);
  }
  ~Connected() { close(); }
  void close() {
    if (Ledger::owner(id) != kNoInbox) EXPECT_TRUE(Ledger::close(id, owner_, false));
  }
  void move_to(InboxHandle to) {
    EXPECT_TRUE(Ledger::send(id, owner_, to) && Ledger::take(id, to));
    owner_ = to;
  }

  ConnectionId id = kNoConnection;

 private:
  Pair pair_;
  InboxHandle owner_;
};

}  // namespace

TEST(every_reader_reads_on_from_where_it_came) {
  TopicLog log(kRoomy);
  const Loop a, b;
  std::uint64_t place_a = 0, place_b = 0;
  append_all(log, 0, 3);
  join(log, a.handle);
  append_all(log, 3, 5);
  join(log, b.handle);
  append_all(log, 5, 9);
  EXPECT_EQ(read_all(log, a.handle, &place_a), range(3, 9));
  EXPECT_EQ(read_all(log, b.handle, &place_b), range(5, 9));
  EXPECT_EQ(place_a, place_b);
  EXPECT_TRUE(read_all(log, a.handle, &place_a).empty());
  // Joining twice loses nothing.
  append_all(log, 9, 11);
  log.join(a.handle);
  EXPECT_EQ(read_all(log, a.handle, &place_a), range(9, 11));
}

TEST(what_was_read_and_not_dealt_with_is_read_again) {
  TopicLog log(kRoomy);
  const Loop loop;
  join(log, loop.handle);
  append_all(log, 0, 4);
  TopicLog::Entries first, again;
  const std::uint64_t next = log.read(loop.handle, 0, kRoom, kLarge, &first);
  EXPECT_EQ(log.read(loop.handle, 0, kRoom, kLarge, &again), next);
  EXPECT_EQ(numbers_of(first), numbers_of(again));
  std::uint64_t place = next;
  EXPECT_TRUE(read_all(log, loop.handle, &place).empty());
}

TEST(only_loops_that_are_interested_are_told_and_each_once) {
  TopicLog log(kRoomy);
  const Loop a, b, c;
  join(log, a.handle, 1);
  join(log, b.handle, 2);
  log.interest(b.handle, 1, true);
  log.interest(b.handle, 1, false);
  // Who has not joined has no interests.
  log.interest(c.handle, 1, true);
  for (std::uint64_t i = 0; i < 10; ++i) EXPECT_TRUE(append(log, i, 1));
  EXPECT_TRUE(a.told());
  EXPECT_TRUE(!a.told() && !b.told() && !c.told());
  // Buckets are counted round.
  EXPECT_TRUE(append(log, 10, 1 + kTopicBuckets));
  EXPECT_TRUE(a.told());
  // Its own loop reads by itself.
  EXPECT_TRUE(append(log, 11, 1, a.handle));
  EXPECT_TRUE(!a.told());
  std::uint64_t place_a = 0, place_b = 0;
  EXPECT_EQ(read_all(log, a.handle, &place_a), range(0, 12));
  EXPECT_TRUE(read_all(log, b.handle, &place_b).empty());
  EXPECT_EQ(place_a, place_b);
}

TEST(who_is_not_interested_holds_nothing_up) {
  TopicLog log({1'000, 10, 0, 0});
  const Loop a, b;
  join(log, a.handle, 1);
  join(log, b.handle, 2);
  std::uint64_t place_a = 0, place_b = 0;
  for (std::uint64_t i = 0; i < 100; ++i) {
    EXPECT_TRUE(append(log, i, 1));
    EXPECT_EQ(read_all(log, a.handle, &place_a), range(i, i + 1));
  }
  EXPECT_EQ(log.sizes()[0], 0);
  // What it has not read of its own lies before the rest, until it is told and reads.
  EXPECT_TRUE(append(log, 100, 2));
  EXPECT_TRUE(append(log, 101, 1));
  EXPECT_TRUE(b.told());
  EXPECT_EQ(read_all(log, b.handle, &place_b), range(100, 101));
  EXPECT_EQ(read_all(log, a.handle, &place_a), range(101, 102));
  EXPECT_EQ(log.sizes()[0], 0);
}

TEST(an_interest_that_ends_passes_over_what_waits) {
  TopicLog log({1'000, 4, 0, 0});
  const Loop loop;
  join(log, loop.handle, 1);
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_TRUE(append(log, i, i % 2 == 0 ? 1 : 2));
  log.interest(loop.handle, 1, false);
  log.interest(loop.handle, 2, true);
  std::uint64_t place = 0;
  EXPECT_EQ(read_all(log, loop.handle, &place), std::vector<std::uint64_t>({1, 3}));
  EXPECT_EQ(log.sizes()[0], 0);
}

TEST(a_full_backlog_names_those_who_are_behind_and_nobody_gets_it) {
  TopicLog log({1'000, 4, 0, 0});
  const Loop slow, fine;
  join(log, slow.handle);
  join(log, fine.handle);
  std::uint64_t place_slow = 0, place_fine = 0;
  append_all(log, 0, 4);
  EXPECT_EQ(read_all(log, fine.handle, &place_fine), range(0, 4));
  std::vector<InboxHandle> full;
  EXPECT_TRUE(!log.append(kNobody, entry(99), &full));
  EXPECT_EQ(full, std::vector<InboxHandle>({slow.handle}));
  EXPECT_TRUE(read_all(log, fine.handle, &place_fine).empty());
  // Room again as soon as it says what it has dealt with, one at a time.
  EXPECT_EQ(read_all(log, slow.handle, &place_slow, 1), range(0, 4));
  append_all(log, 4, 8);
  EXPECT_EQ(read_all(log, slow.handle, &place_slow), range(4, 8));
  EXPECT_EQ(read_all(log, fine.handle, &place_fine), range(4, 8));
}

TEST(a_full_backlog_in_bytes) {
  TopicLog log({100, 1'000, 0, 0});
  const Loop loop;
  join(log, loop.handle);
  std::uint64_t place = 0;
  for (int round = 0; round < 3; ++round) {
    std::vector<InboxHandle> full;
    // 1 byte of the topic's name each.
    EXPECT_TRUE(log.append(kNobody, entry(0, kBucket, 49), &full));
    EXPECT_TRUE(log.append(kNobody, entry(1, kBucket, 49), &full));
    EXPECT_TRUE(!log.append(kNobody, entry(2), &full));
    EXPECT_EQ(full.size(), 1);
    EXPECT_EQ(read_all(log, loop.handle, &place), range(0, 2));
    full.clear();
    EXPECT_TRUE(log.append(kNobody, entry(3, kBucket, 99), &full));
    EXPECT_EQ(read_all(log, loop.handle, &place), range(3, 4));
  }
}

TEST(a_read_is_bounded_and_what_is_large_comes_alone) {
  TopicLog log(kRoomy);
  const Loop loop;
  join(log, loop.handle);
  std::vector<InboxHandle> full;
  for (const std::size_t size : {10UL, 10UL, 10UL, kLarge, 10UL, 3 * kLarge, kLarge, 10UL})
    EXPECT_TRUE(log.append(kNobody, entry(0, kBucket, size), &full));
  std::vector<std::uint64_t> counts;
  std::uint64_t place = 0;
  for (;;) {
    TopicLog::Entries entries;
    place = log.read(loop.handle, place, 22, kLarge, &entries);
    if (entries.empty()) break;
    counts.push_back(entries.size());
  }
  EXPECT_EQ(counts, std::vector<std::uint64_t>({2, 1, 1, 1, 1, 1, 1}));
}

TEST(what_all_have_read_is_kept_up_to_its_limits) {
  TopicLog log({10'000, 1'000, 90, 5});
  const Loop loop;
  join(log, loop.handle);
  std::uint64_t place = 0;
  append_all(log, 0, 20);
  EXPECT_EQ(log.sizes()[0], 20);
  EXPECT_EQ(read_all(log, loop.handle, &place).size(), 20);
  EXPECT_EQ(log.sizes()[0], 5);
  EXPECT_EQ(replay_all(log, place - 5, place), range(15, 20));
  TopicLog::Entries entries;
  std::uint64_t next = 0;
  EXPECT_TRUE(log.replay(place - 5, place, kRoom, &entries, &next));
  // Some are not there any more: what is left comes, and it is said.
  entries.clear();
  EXPECT_TRUE(!log.replay(place - 7, place, kRoom, &entries, &next));
  EXPECT_EQ(numbers_of(entries), range(15, 20));
  EXPECT_EQ(next, place);
  // Nothing to come is nothing missing.
  entries.clear();
  EXPECT_TRUE(log.replay(place, place, kRoom, &entries, &next));
  EXPECT_TRUE(log.replay(1, 1, kRoom, &entries, &next));
  EXPECT_TRUE(entries.empty());
  // 90 bytes are ten of these, two of longer ones.
  std::vector<InboxHandle> full;
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(log.append(kNobody, entry(0, kBucket, 44), &full));
  read_all(log, loop.handle, &place);
  EXPECT_EQ(log.sizes()[0], 2);
  // Without readers it is the same.
  log.leave(loop.handle);
  append_all(log, 0, 20);
  EXPECT_EQ(log.sizes()[0], 5);
}

TEST(while_a_connection_is_under_way_more_is_kept) {
  TopicLog log({100'000, 50, 0, 0});
  const Loop a, b;
  Connected one(a.handle);
  join(log, a.handle);
  log.note(a.handle, one.id, "t", true);
  std::uint64_t place_a = 0, place_b = 0;
  append_all(log, 0, 10);
  EXPECT_EQ(read_all(log, a.handle, &place_a), range(0, 10));
  EXPECT_EQ(log.sizes()[0], 0);
  log.under_way(one.id, true);
  const std::uint64_t left = place_a;
  join(log, b.handle);
  append_all(log, 10, 40);
  read_all(log, a.handle, &place_a);
  EXPECT_EQ(read_all(log, b.handle, &place_b), range(10, 40));
  EXPECT_EQ(log.sizes()[0], 30);
  one.move_to(b.handle);
  std::uint64_t position = TopicLog::kNoPlace;
  EXPECT_EQ(log.adopt(b.handle, one.id, &position).size(), 1);
  EXPECT_EQ(position, place_a);
  EXPECT_EQ(replay_all(log, left, place_b), range(10, 40));
  log.under_way(one.id, false);
  append_all(log, 40, 41);
  read_all(log, a.handle, &place_a);
  read_all(log, b.handle, &place_b);
  EXPECT_EQ(log.sizes()[0], 0);
  // One that ends on its way holds up to the backlog's limits, and is found when there is much.
  log.under_way(one.id, true);
  one.close();
  for (std::uint64_t i = 0; i < 3'000; ++i) {
    append_all(log, i, i + 1);
    read_all(log, a.handle, &place_a);
    read_all(log, b.handle, &place_b);
    EXPECT_TRUE(log.sizes()[0] <= 50);
  }
  EXPECT_EQ(log.sizes()[0], 0);
}

TEST(a_reader_that_dies_holds_nothing_up_and_its_place_is_known) {
  for (const bool abandoned : {false, true}) {
    TopicLog log({100'000, 10, 0, 0});
    Loop dying;
    const Loop other;
    const InboxHandle was = dying.handle;
    Connected one(was);
    Connected two(was);
    join(log, was);
    join(log, other.handle);
    log.note(was, one.id, "t", true);
    log.note(was, one.id, "t", true);
    log.note(was, one.id, "u", true);
    log.note(was, two.id, "t", true);
    std::uint64_t place_was = 0, place = 0;
    append_all(log, 0, 4);
    EXPECT_EQ(read_all(log, was, &place_was), range(0, 4));
    read_all(log, other.handle, &place);
    append_all(log, 4, 6);
    if (abandoned)
      dying->abandon();
    else
      dying->close();
    // More than a backlog, since only the other one has to read.
    for (std::uint64_t i = 6; i < 12; ++i) {
      append_all(log, i, i + 1);
      read_all(log, other.handle, &place);
    }
    EXPECT_TRUE(log.sizes() == (std::array<std::size_t, 3>{8, 1, 2}));
    // A thread that was given up for lost, and goes on: nothing is for it, and it stays where it
    // was, for those that it may yet pack.
    std::uint64_t late = place_was;
    EXPECT_TRUE(read_all(log, was, &late).empty());
    EXPECT_EQ(late, place_was);
    // What others do meanwhile does not push its place out.
    for (int i = 0; i < 200; ++i) {
      log.leave(other.handle);
      join(log, other.handle);
    }
    place = 0;
    read_all(log, other.handle, &place);
    for (Connected* each : {&one, &two}) {
      each->move_to(other.handle);
      std::uint64_t position = TopicLog::kNoPlace;
      EXPECT_EQ(log.adopt(other.handle, each->id, &position).size(), each == &one ? 2 : 1);
      EXPECT_EQ(position, place_was);
      EXPECT_EQ(replay_all(log, position, place), range(4, 12));
      log.under_way(each->id, false);
    }
    append_all(log, 12, 13);
    EXPECT_EQ(read_all(log, other.handle, &place), range(12, 13));
    EXPECT_EQ(log.sizes()[0], 0);
  }
}

TEST(a_slot_that_is_used_again_is_another_reader) {
  TopicLog log({100'000, 10, 0, 0});
  Loop first;
  const InboxHandle was = first.handle;
  join(log, was);
  append_all(log, 0, 2);
  std::uint64_t place_was = 0;
  EXPECT_EQ(read_all(log, was, &place_was), range(0, 2));
  append_all(log, 2, 4);
  first.end();
  const Loop second;
  EXPECT_TRUE(second.handle != was);
  EXPECT_EQ(second.handle % kInboxesMax, was % kInboxesMax);
  append_all(log, 4, 5);
  // Not told what was for the other, nor given it.
  EXPECT_TRUE(!second.told());
  std::uint64_t place = 0;
  EXPECT_TRUE(read_all(log, second.handle, &place).empty());
  EXPECT_EQ(log.sizes()[1], 0);
  join(log, second.handle);
  append_all(log, 5, 6);
  EXPECT_TRUE(second.told());
  EXPECT_EQ(read_all(log, second.handle, &place), range(5, 6));
  log.leave(was);
  append_all(log, 6, 7);
  EXPECT_EQ(read_all(log, second.handle, &place), range(6, 7));
}

TEST(a_reader_that_ends_before_it_has_written_the_rest_takes_no_place_with_it) {
  for (const bool brought : {true, false}) {
    TopicLog log({100'000, 50, 0, 0});
    Loop a, b, c;
    Connected one(a.handle);
    join(log, a.handle);
    log.note(a.handle, one.id, "t", true);
    std::uint64_t place = 0;
    append_all(log, 0, 10);
    EXPECT_EQ(read_all(log, a.handle, &place), range(0, 10));
    const std::uint64_t left = place;
    if (brought)
      log.under_way(one.id, true);
    else
      a.end();
    append_all(log, 10, 15);
    // Two loops adopt it one after the other and die of it, far ahead of it.
    for (Loop* next : {&b, &c}) {
      one.move_to(next->handle);
      std::uint64_t position = brought && next == &b ? left : TopicLog::kNoPlace;
      EXPECT_EQ(log.adopt(next->handle, one.id, &position).size(), 1);
      EXPECT_EQ(position, left);
      join(log, next->handle);
      append_all(log, next == &b ? 15 : 20, next == &b ? 20 : 25);
      std::uint64_t ahead = 0;
      read_all(log, next->handle, &ahead);
      next->end();
    }
    Loop last;
    join(log, last.handle);
    one.move_to(last.handle);
    std::uint64_t position = TopicLog::kNoPlace;
    EXPECT_EQ(log.adopt(last.handle, one.id, &position).size(), 1);
    EXPECT_EQ(position, left);
    EXPECT_EQ(replay_all(log, position, 26), range(10, 25));
    // Once it has everything its loop's place is its own again.
    log.under_way(one.id, false);
    append_all(log, 25, 26);
    std::uint64_t position_now = TopicLog::kNoPlace;
    EXPECT_EQ(log.adopt(last.handle, one.id, &position_now).size(), 1);
    EXPECT_TRUE(position_now > left);
  }
}

TEST(topics_of_connections_end_with_them) {
  TopicLog log(kRoomy);
  const Loop loop;
  join(log, loop.handle);
  Connected one(loop.handle);
  std::uint64_t position = TopicLog::kNoPlace;
  log.note(loop.handle, one.id, "a", true);
  log.note(loop.handle, one.id, "b", true);
  log.note(loop.handle, one.id, "a", false);
  log.note(loop.handle, one.id, "never", false);
  const std::vector<std::string> topics = log.adopt(loop.handle, one.id, &position);
  EXPECT_TRUE(topics == std::vector<std::string>{"b"});
  log.note(loop.handle, one.id, "b", false);
  EXPECT_EQ(log.sizes()[2], 0);
  EXPECT_TRUE(log.adopt(loop.handle, one.id, &position).empty());
  log.note(loop.handle, one.id, "a", true);
  log.forget(one.id);
  EXPECT_EQ(log.sizes()[2], 0);
  // Closed by a thread that could not say so: found when there are many.
  log.note(loop.handle, one.id, "a", true);
  one.close();
  EXPECT_EQ(log.sizes()[2], 0);
}

TEST(a_log_that_was_released_is_not_found) {
  const TopicLogHandle handle = TopicLog::create(kRoomy);
  EXPECT_TRUE(handle != kNoTopicLog);
  const auto held = TopicLog::find(handle);
  EXPECT_TRUE(held != nullptr);
  TopicLog::release(handle);
  EXPECT_TRUE(TopicLog::find(handle) == nullptr);
  EXPECT_TRUE(TopicLog::find(kNoTopicLog) == nullptr);
  EXPECT_TRUE(TopicLog::find(kTopicLogsMax) == nullptr);
  // Whoever is inside goes on.
  EXPECT_TRUE(append(*held, 0));
  std::vector<TopicLogHandle> all;
  for (;;) {
    const TopicLogHandle more = TopicLog::create(kRoomy);
    if (more == kNoTopicLog) break;
    all.push_back(more);
  }
  EXPECT_EQ(all.size(), kTopicLogsMax - 1);
  for (const TopicLogHandle one : all) TopicLog::release(one);
}

TEST(news_is_found_once_beside_a_full_queue) {
  const Loop loop;
  while (loop->push({MessageKind::kPost, kNoInbox, 1, nullptr, 0}) == Inbox::Push::kOk) {
  }
  loop->announce();
  loop->announce();
  EXPECT_TRUE(!loop->empty() && !loop->prepare_to_sleep());
  std::uint32_t news = 0;
  std::uint32_t posts = 0;
  Message message{};
  while (loop->pop(&message)) ++(message.kind == MessageKind::kNews ? news : posts);
  EXPECT_EQ(news, 1);
  EXPECT_EQ(posts, loop->capacity());
  EXPECT_EQ(loop->depth(), 0);
  EXPECT_TRUE(loop->prepare_to_sleep());
  loop->announce();
  pollfd one{loop->waker().fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&one, 1, 0), 1);
  EXPECT_EQ(loop->counters().wakes_sent.load(), 1);
  loop->awake();
  loop->waker().drain();
  EXPECT_TRUE(loop.told());
}

namespace {

// Reads like a loop: sleeps, is told, reads all. Every publisher's numbers come in order and, from
// the first on, without a gap.
class ReadingLoop {
 public:
  ReadingLoop(TopicLog& log, int publishers) : log_(log), last_(publishers, 0) {}

  // Until it has `each` of every publisher.
  void run(std::uint64_t each) {
    join(log_, loop_.handle);
    joined.store(true);
    while (!has(each)) {
      if (loop_->prepare_to_sleep()) {
        pollfd one{loop_->waker().fd(), POLLIN, 0};
        if (!EXPECT_EQ(::poll(&one, 1, static_cast<int>(kPatience / 1'000)), 1)) break;
        loop_->awake();
        loop_->waker().drain();
      }
      Message message{};
      while (loop_->pop(&message)) {
      }
      if (!take(read_all(log_, loop_.handle, &place_))) break;
    }
    log_.leave(loop_.handle);
    loop_.end();
  }

  std::atomic<bool> joined{false};

 private:
  bool has(std::uint64_t each) const {
    for (const std::uint64_t one : last_)
      if (one < each) return false;
    return true;
  }
  bool take(const std::vector<std::uint64_t>& numbers) {
    for (const std::uint64_t number : numbers) {
      std::uint64_t& last = last_[number >> 32];
      const std::uint64_t count = number & UINT32_MAX;
      if (!(last == 0 ? EXPECT_TRUE(count > 0) : EXPECT_EQ(count, last + 1))) return false;
      last = count;
    }
    return true;
  }

  TopicLog& log_;
  Loop loop_;
  std::uint64_t place_ = 0;
  std::vector<std::uint64_t> last_;
};

// Publishes `each` numbers, from 1, as number `self` of them, waiting for room.
void publish_all(TopicLog& log, std::uint64_t self, std::uint64_t each) {
  for (std::uint64_t i = 1; i <= each; ++i)
    if (!EXPECT_TRUE(await([&] {
          std::vector<InboxHandle> full;
          return log.append(kNobody, entry(self << 32 | i), &full);
        })))
      return;
}

}  // namespace

TEST(publishers_and_readers_race_with_loops_that_come_leave_and_die) {
  constexpr std::uint64_t kEach = 4'000;
  constexpr int kPublishers = 2;
  TopicLog log({4'096, 64, 512, 32});
  std::vector<std::unique_ptr<ReadingLoop>> readers;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    readers.push_back(std::make_unique<ReadingLoop>(log, kPublishers));
    threads.emplace_back([&reader = *readers.back()] { reader.run(kEach); });
  }
  for (const auto& reader : readers) EXPECT_TRUE(await([&] { return reader->joined.load(); }));
  std::atomic<int> publishing{kPublishers};
  for (int i = 0; i < kPublishers; ++i)
    threads.emplace_back([&, i] {
      publish_all(log, static_cast<std::uint64_t>(i), kEach);
      publishing.fetch_sub(1);
    });
  // One that comes and goes, and dies with what it has not read, every other time without a word.
  int lives = 0;
  while (publishing.load() > 0) {
    Loop brief;
    join(log, brief.handle);
    const Connected one(brief.handle);
    log.note(brief.handle, one.id, "t", true);
    std::uint64_t place = 0;
    read_all(log, brief.handle, &place);
    if (lives % 4 == 0) log.leave(brief.handle);
    if (lives % 4 == 1) brief->abandon();
    std::uint64_t position = TopicLog::kNoPlace;
    EXPECT_EQ(log.adopt(brief.handle, one.id, &position).size(), 1);
    EXPECT_TRUE(position > 0);
    log.forget(one.id);
    ++lives;
    sched_yield();
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("(%d lives) ", lives);
  EXPECT_TRUE(lives > 0);
  EXPECT_EQ(log.sizes()[1], 0);
}

TEST(a_connection_that_hops_while_there_is_publishing_misses_nothing_and_gets_nothing_twice) {
  constexpr std::uint64_t kEach = 6'000;
  TopicLog log({1 << 16, 512, 0, 0});
  // Both loops on this thread, in turns; the publisher on another.
  const Loop loops[2];
  std::uint64_t places[2] = {0, 0};
  for (const Loop& loop : loops) join(log, loop.handle);
  Connected one(loops[0].handle);
  log.note(loops[0].handle, one.id, "t", true);
  std::thread publisher([&] { publish_all(log, 0, kEach); });
  Random random;
  std::uint64_t got = 0;
  int hops = 0;
  int here = 0;
  const auto take = [&](const std::vector<std::uint64_t>& numbers) {
    for (const std::uint64_t number : numbers)
      if (!EXPECT_EQ(number, ++got)) return false;
    return true;
  };
  const Micros limit = monotonic_now() + kPatience;
  while (got < kEach && EXPECT_TRUE(monotonic_now() < limit)) {
    const int there = 1 - here;
    if (random.below(3) == 0) read_all(log, loops[there].handle, &places[there]);
    if (!take(read_all(log, loops[here].handle, &places[here]))) break;
    if (random.below(2) == 0) continue;
    log.under_way(one.id, true);
    const std::uint64_t left = places[here];
    if (random.below(2) == 0) read_all(log, loops[here].handle, &places[here]);
    one.move_to(loops[there].handle);
    std::uint64_t position = TopicLog::kNoPlace;
    EXPECT_EQ(log.adopt(loops[there].handle, one.id, &position).size(), 1);
    read_all(log, loops[there].handle, &places[there]);
    if (!take(replay_all(log, left, places[there]))) break;
    log.under_way(one.id, false);
    here = there;
    ++hops;
  }
  std::printf("(%d hops) ", hops);
  // A publisher that waits for readers that stopped would wait for ever.
  for (const Loop& loop : loops) log.leave(loop.handle);
  publisher.join();
  EXPECT_EQ(got, kEach);
  EXPECT_TRUE(hops > 0);
}

}  // namespace multiloop::test
