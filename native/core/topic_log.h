// What is published in a group, in one order for all of its loops: a log with a place for each
// loop that reads it. A loop with subscribers is announced what it is interested in (by the
// topic's bucket, so now and then for nothing) and reads from its place on; a loop without any is
// neither woken nor waited for. A connection that moves takes its place along, and the loop that it
// comes to writes it what is between that and its own place: so none is missed and none comes
// twice.
//
// In native memory and under a lock, because a thread may be ended between any two steps of
// JavaScript and the log must be whole then. No system call is made under the lock but a waker's.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "inbox.h"
#include "ledger.h"

namespace multiloop {

using TopicLogHandle = std::uint32_t;
constexpr TopicLogHandle kNoTopicLog = 0;

constexpr std::uint32_t kTopicLogsMax = 1'024;
constexpr std::uint32_t kTopicBuckets = 1'024;

class TopicLog {
 public:
  struct Limits {
    // What may wait for the slowest reader.
    std::uint64_t bytes;
    std::uint64_t messages;
    // What is kept of what all have read, for connections that are under way.
    std::uint64_t kept_bytes;
    std::uint64_t kept_messages;
  };
  struct Entry {
    std::uint32_t bucket;
    std::uint32_t flags;   // the sender's; not looked at here
    ConnectionId except;   // not to be written to this one
    std::uint64_t before;  // bytes of all entries before it
    std::string topic;
    std::vector<std::byte> payload;
  };
  using Entries = std::vector<std::shared_ptr<const Entry>>;

  // Any thread may call any of these.
  [[nodiscard]] static TopicLogHandle create(const Limits& limits);
  static void release(TopicLogHandle handle);
  // Null when it was released.
  [[nodiscard]] static std::shared_ptr<TopicLog> find(TopicLogHandle handle);

  explicit TopicLog(const Limits& limits) : limits_(limits) {}

  // Appends and announces to readers but `from`, which reads by itself. False: it would be too much
  // for the readers whose inboxes are in `full`, and nobody gets it.
  [[nodiscard]] bool append(InboxHandle from, std::shared_ptr<Entry> entry,
                            std::vector<InboxHandle>* full);

  // A loop's first subscriber has come: it reads from here on. Its last has gone.
  void join(InboxHandle reader);
  void leave(InboxHandle reader);
  void interest(InboxHandle reader, std::uint32_t bucket, bool on);

  // What `reader` is to read next: at most `bytes` together, but for a single one that is longer.
  // An entry of `large` bytes comes alone. All before `done`, which an earlier call has answered,
  // was dealt with. Answers up to where the reader is when it has dealt with these; `done` for one
  // that is no reader.
  std::uint64_t read(InboxHandle reader, std::uint64_t done, std::size_t bytes, std::size_t large,
                     Entries* out);
  // The same for somebody who has read up to `from`, up to `to`. False: some are not there any
  // more.
  bool replay(std::uint64_t from, std::uint64_t to, std::size_t bytes, Entries* out,
              std::uint64_t* next);

  // The topics of a connection, kept here because its loop's thread may die.
  void note(InboxHandle reader, ConnectionId id, const std::string& topic, bool on);
  void forget(ConnectionId id);
  // It leaves for another loop, or has what it missed on its way. While one is under way, what all
  // have read is kept up to the limits of what may wait.
  void under_way(ConnectionId id, bool on);
  // Its topics, when another loop has taken it. `position`: up to where it has everything, if that
  // came with it, or kNoPlace; answers that, or up to where the loop before had read. It is kept
  // until it is under way no more: this loop may die before it has written the rest.
  std::vector<std::string> adopt(InboxHandle reader, ConnectionId id, std::uint64_t* position);
  static constexpr std::uint64_t kNoPlace = 0;

  // For tests: entries that are there, readers, connections with topics.
  std::array<std::size_t, 3> sizes();

 private:
  struct Reader {
    InboxHandle inbox;
    std::uint64_t next;  // the first that it has not dealt with
    std::bitset<kTopicBuckets> interests;
  };
  struct Subscriptions {
    InboxHandle reader;
    std::vector<std::string> topics;
    // Of one that has been adopted and is under way still.
    std::uint64_t place = kNoPlace;
  };

  Reader* reader_of(InboxHandle inbox);
  // Up to where it has read, or had when it left; the log's end if nobody knows.
  std::uint64_t place_of(InboxHandle inbox);
  void retire(std::size_t index);
  void drop_dead();
  std::uint64_t slowest() const;
  std::uint64_t bytes_before(std::uint64_t place) const;
  void trim();
  void sweep();

  const Limits limits_;
  std::mutex mutex_;
  std::deque<std::shared_ptr<const Entry>> entries_;
  std::uint64_t first_ = 1;  // the place of entries_.front()
  std::uint64_t end_ = 1;    // of the next one
  std::uint64_t bytes_ = 0;  // of all that there ever were
  std::vector<Reader> readers_;
  // Where loops were that are gone, each once, the latest last.
  std::deque<std::pair<InboxHandle, std::uint64_t>> gone_;
  std::unordered_map<ConnectionId, Subscriptions> subscriptions_;
  // Those that left a loop, or whose loop died, and have not got everything again.
  std::unordered_set<ConnectionId> under_way_;
  std::size_t swept_ = 0;  // connections after the last sweep
};

}  // namespace multiloop
