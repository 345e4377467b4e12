#include "topic_log.h"

#include <algorithm>
#include <utility>

#include "check.h"

namespace multiloop {

namespace {

// Loops that are gone and whose place is known; more have not died since somebody was rescued.
constexpr std::size_t kGoneMax = 64;
// Connections that were closed with their thread are looked for when there are so many more.
constexpr std::size_t kSweepMin = 1'024;

struct Table {
  std::mutex mutex;
  std::shared_ptr<TopicLog> logs[kTopicLogsMax];
};

// Never destroyed: a thread may be inside while the process ends.
Table& table() {
  static auto* all = new Table();
  return *all;
}

std::uint64_t size_of(const TopicLog::Entry& entry) {
  return entry.topic.size() + entry.payload.size();
}

}  // namespace

TopicLogHandle TopicLog::create(const Limits& limits) {
  Table& all = table();
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (TopicLogHandle handle = 1; handle < kTopicLogsMax; ++handle) {
    if (all.logs[handle] != nullptr) continue;
    all.logs[handle] = std::make_shared<TopicLog>(limits);
    return handle;
  }
  return kNoTopicLog;
}

void TopicLog::release(TopicLogHandle handle) {
  Table& all = table();
  std::shared_ptr<TopicLog> gone;
  const std::lock_guard<std::mutex> lock(all.mutex);
  ML_CHECK(handle != kNoTopicLog && handle < kTopicLogsMax && all.logs[handle] != nullptr);
  gone.swap(all.logs[handle]);
}

std::shared_ptr<TopicLog> TopicLog::find(TopicLogHandle handle) {
  Table& all = table();
  const std::lock_guard<std::mutex> lock(all.mutex);
  return handle < kTopicLogsMax ? all.logs[handle] : nullptr;
}

bool TopicLog::append(InboxHandle from, std::shared_ptr<Entry> entry,
                      std::vector<InboxHandle>* full) {
  const std::lock_guard<std::mutex> lock(mutex_);
  drop_dead();
  const std::uint64_t size = size_of(*entry);
  for (const Reader& reader : readers_)
    if (end_ - reader.next >= limits_.messages ||
        bytes_ - bytes_before(reader.next) + size > limits_.bytes)
      full->push_back(reader.inbox);
  if (!full->empty()) return false;
  const std::uint32_t bucket = entry->bucket % kTopicBuckets;
  entry->before = bytes_;
  bytes_ += size;
  entries_.push_back(std::move(entry));
  const std::uint64_t place = end_++;
  for (Reader& reader : readers_) {
    if (!reader.interests[bucket]) {
      // There is nothing for it, and it has nothing else to read.
      if (reader.next == place) reader.next = end_;
    } else if (reader.inbox != from) {
      const InboxPin inbox(reader.inbox);
      if (inbox) inbox->announce();
    }
  }
  trim();
  return true;
}

void TopicLog::join(InboxHandle reader) {
  const std::lock_guard<std::mutex> lock(mutex_);
  drop_dead();
  if (reader_of(reader) == nullptr) readers_.push_back({reader, end_, {}});
}

void TopicLog::leave(InboxHandle reader) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (std::size_t i = 0; i < readers_.size(); ++i)
    if (readers_[i].inbox == reader) {
      retire(i);
      break;
    }
  trim();
}

void TopicLog::interest(InboxHandle reader, std::uint32_t bucket, bool on) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Reader* found = reader_of(reader);
  if (found != nullptr) found->interests[bucket % kTopicBuckets] = on;
}

std::uint64_t TopicLog::read(InboxHandle reader, std::uint64_t done, std::size_t bytes,
                             std::size_t large, Entries* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Reader* found = reader_of(reader);
  // Given up for lost, and still there: its place stays, for what it may yet pack.
  if (found == nullptr) return done;
  if (done > found->next) {
    found->next = done;
    trim();
  }
  std::uint64_t place = found->next;
  std::size_t total = 0;
  for (; place < end_; ++place) {
    const auto& entry = entries_[place - first_];
    if (!found->interests[entry->bucket % kTopicBuckets]) continue;
    const std::uint64_t size = size_of(*entry);
    if (!out->empty() && (total + size > bytes || entry->payload.size() >= large)) break;
    out->push_back(entry);
    total += size;
    if (entry->payload.size() >= large) {
      ++place;
      break;
    }
  }
  // What was passed over is dealt with.
  if (out->empty() && place > found->next) {
    found->next = place;
    trim();
  }
  return place;
}

bool TopicLog::replay(std::uint64_t from, std::uint64_t to, std::size_t bytes, Entries* out,
                      std::uint64_t* next) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::uint64_t end = std::min(to, end_);
  std::uint64_t place = std::max(from, first_);
  std::size_t total = 0;
  for (; place < end && total < bytes; ++place) {
    out->push_back(entries_[place - first_]);
    total += size_of(*out->back());
  }
  *next = std::max(place, from);
  return from >= first_ || from >= end;
}

void TopicLog::note(InboxHandle reader, ConnectionId id, const std::string& topic, bool on) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!on) {
    const auto found = subscriptions_.find(id);
    if (found == subscriptions_.end()) return;
    std::erase(found->second.topics, topic);
    if (found->second.topics.empty()) subscriptions_.erase(found);
    return;
  }
  if (subscriptions_.size() > 2 * swept_ + kSweepMin) sweep();
  Subscriptions& mine = subscriptions_[id];
  mine.reader = reader;
  if (std::find(mine.topics.begin(), mine.topics.end(), topic) == mine.topics.end())
    mine.topics.push_back(topic);
}

void TopicLog::forget(ConnectionId id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  subscriptions_.erase(id);
  under_way_.erase(id);
}

void TopicLog::under_way(ConnectionId id, bool on) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (on) {
    under_way_.insert(id);
    return;
  }
  under_way_.erase(id);
  const auto found = subscriptions_.find(id);
  if (found != subscriptions_.end()) found->second.place = kNoPlace;
}

std::vector<std::string> TopicLog::adopt(InboxHandle reader, ConnectionId id,
                                         std::uint64_t* position) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::uint64_t brought = std::exchange(*position, end_);
  const auto found = subscriptions_.find(id);
  if (found == subscriptions_.end()) return {};
  Subscriptions& mine = found->second;
  if (brought != kNoPlace)
    *position = brought;
  else if (mine.place != kNoPlace)
    *position = mine.place;
  else
    *position = place_of(mine.reader);
  mine.reader = reader;
  mine.place = *position;
  under_way_.insert(id);
  return mine.topics;
}

std::array<std::size_t, 3> TopicLog::sizes() {
  const std::lock_guard<std::mutex> lock(mutex_);
  drop_dead();
  sweep();
  return {entries_.size(), readers_.size(), subscriptions_.size()};
}

TopicLog::Reader* TopicLog::reader_of(InboxHandle inbox) {
  for (Reader& reader : readers_)
    if (reader.inbox == inbox) return &reader;
  return nullptr;
}

std::uint64_t TopicLog::place_of(InboxHandle inbox) {
  if (const Reader* there = reader_of(inbox); there != nullptr) return there->next;
  for (const auto& [gone, next] : gone_)
    if (gone == inbox) return next;
  return end_;
}

void TopicLog::retire(std::size_t index) {
  const auto at = readers_.begin() + static_cast<std::ptrdiff_t>(index);
  // One place a loop, its latest: loops that leave and come again push none of the dead out.
  std::erase_if(gone_, [at](const auto& one) { return one.first == at->inbox; });
  gone_.emplace_back(at->inbox, at->next);
  if (gone_.size() > kGoneMax) gone_.pop_front();
  readers_.erase(at);
}

// Readers whose threads are gone hold nothing up.
void TopicLog::drop_dead() {
  for (std::size_t i = readers_.size(); i-- > 0;) {
    const InboxHandle reader = readers_[i].inbox;
    const InboxPin inbox(reader);
    if (inbox && !inbox->closed()) continue;
    for (const auto& [id, mine] : subscriptions_)
      if (mine.reader == reader) under_way_.insert(id);
    retire(i);
  }
}

std::uint64_t TopicLog::slowest() const {
  std::uint64_t place = end_;
  for (const Reader& reader : readers_) place = std::min(place, reader.next);
  return place;
}

std::uint64_t TopicLog::bytes_before(std::uint64_t place) const {
  ML_CHECK(place >= first_ && place <= end_);
  return place == end_ ? bytes_ : entries_[place - first_]->before;
}

void TopicLog::trim() {
  const std::uint64_t read = slowest();
  // Some may have been closed on their way.
  if (!under_way_.empty() && end_ % kSweepMin == 0) sweep();
  const bool all = !under_way_.empty();
  const std::uint64_t messages = all ? limits_.messages : limits_.kept_messages;
  const std::uint64_t bytes = all ? limits_.bytes : limits_.kept_bytes;
  while (first_ < read &&
         (read - first_ > messages || bytes_before(read) - bytes_before(first_) > bytes)) {
    entries_.pop_front();
    ++first_;
  }
}

void TopicLog::sweep() {
  std::erase_if(under_way_, [](ConnectionId id) { return Ledger::owner(id) == kNoInbox; });
  std::erase_if(subscriptions_,
                [](const auto& one) { return Ledger::owner(one.first) == kNoInbox; });
  swept_ = subscriptions_.size();
}

}  // namespace multiloop
