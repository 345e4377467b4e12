#include "timers.h"

#include <algorithm>

#include "check.h"

namespace multiloop {

CommonId Timers::common(Micros duration) {
  ML_CHECK(duration >= 0);
  for (std::size_t i = 0; i < queues_.size(); ++i)
    if (queues_[i].duration == duration) return static_cast<CommonId>(i);
  if (queues_.size() >= kCommonsMax) return kNoCommon;
  queues_.push_back({duration});
  heads_.reserve(static_cast<std::uint32_t>(queues_.size()));
  if (nodes_.size() < owners_) nodes_.resize(owners_);
  return static_cast<CommonId>(queues_.size() - 1);
}

void Timers::reserve(std::uint32_t owners) {
  owners_ = std::max(owners_, owners);
  heap_.reserve(owners);
  if (!queues_.empty() && nodes_.size() < owners) nodes_.resize(owners);
}

bool Timers::contains(std::uint32_t owner) const { return heap_.contains(owner) || queued(owner); }

Micros Timers::deadline(std::uint32_t owner) const {
  return queued(owner) ? nodes_[owner].deadline : heap_.deadline(owner);
}

void Timers::set(std::uint32_t owner, Micros deadline, CommonId common) {
  if (queued(owner)) unlink(owner);
  if (common == kNoCommon) {
    heap_.set(owner, deadline);
    return;
  }
  ML_CHECK(common < queues_.size());
  if (heap_.contains(owner)) heap_.remove(owner);
  append(owner, deadline, common);
}

void Timers::remove(std::uint32_t owner) {
  if (queued(owner))
    unlink(owner);
  else
    heap_.remove(owner);
}

Timers::Due Timers::first() const {
  ML_CHECK(!empty());
  if (heads_.empty() || (!heap_.empty() && heap_.first().deadline <= heads_.first().deadline))
    return {heap_.first().deadline, heap_.first().owner};
  return {heads_.first().deadline, queues_[heads_.first().owner].first};
}

// A persistent event's next deadline counts from its last one and may be a little before that of
// the queue's last: it goes to its place from the end, which is near.
void Timers::append(std::uint32_t owner, Micros deadline, CommonId common) {
  Queue& queue = queues_[common];
  Node& node = nodes_[owner];
  std::uint32_t before = queue.last;
  while (before != kNone && nodes_[before].deadline > deadline) before = nodes_[before].previous;
  node = {deadline, before == kNone ? queue.first : nodes_[before].next, before, common};
  (before == kNone ? queue.first : nodes_[before].next) = owner;
  (node.next == kNone ? queue.last : nodes_[node.next].previous) = owner;
  ++queued_;
  if (queue.first == owner) lead(common);
}

void Timers::unlink(std::uint32_t owner) {
  Node& node = nodes_[owner];
  const CommonId common = node.queue;
  Queue& queue = queues_[common];
  const bool was_first = queue.first == owner;
  (node.previous == kNone ? queue.first : nodes_[node.previous].next) = node.next;
  (node.next == kNone ? queue.last : nodes_[node.next].previous) = node.previous;
  node.queue = kNoCommon;
  --queued_;
  if (was_first) lead(common);
}

// The queue's place among the others, after its first has changed.
void Timers::lead(CommonId common) {
  const Queue& queue = queues_[common];
  if (queue.first != kNone)
    heads_.set(common, nodes_[queue.first].deadline);
  else if (heads_.contains(common))
    heads_.remove(common);
}

bool Timers::valid() const {
  if (!heap_.valid() || !heads_.valid()) return false;
  std::size_t seen = 0;
  for (std::uint32_t i = 0; i < queues_.size(); ++i) {
    const Queue& queue = queues_[i];
    if ((queue.first == kNone) == heads_.contains(i)) return false;
    if (queue.first != kNone && heads_.deadline(i) != nodes_[queue.first].deadline) return false;
    std::uint32_t before = kNone;
    for (std::uint32_t at = queue.first; at != kNone; at = nodes_[at].next) {
      const Node& node = nodes_[at];
      if (node.queue != i || node.previous != before || heap_.contains(at)) return false;
      if (before != kNone && nodes_[before].deadline > node.deadline) return false;
      if (++seen > queued_) return false;
      before = at;
    }
    if (queue.last != before) return false;
  }
  return seen == queued_;
}

}  // namespace multiloop
