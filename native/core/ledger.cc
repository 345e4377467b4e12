#include "ledger.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "check.h"
#include "clock.h"
#include "sockets.h"
#include "tls_session.h"

namespace multiloop {

namespace {

constexpr std::uint32_t kFdBits = 20;
constexpr std::uint32_t kFdsMax = 1U << kFdBits;
constexpr std::uint32_t kChunk = 1'024;
constexpr std::uint32_t kGenerationMask = (1U << 24) - 1;

// What identifies an entry's moment, in one word, so that a transition is one compare-exchange.
struct Word {
  std::uint32_t generation;
  FdState state;
  InboxHandle owner;

  std::uint64_t packed() const {
    return static_cast<std::uint64_t>(generation) << 40 | static_cast<std::uint64_t>(state) << 32 |
           owner;
  }
  static Word from(std::uint64_t packed) {
    return {static_cast<std::uint32_t>(packed >> 40), static_cast<FdState>(packed >> 32 & 0xff),
            static_cast<InboxHandle>(packed)};
  }
};

constexpr std::size_t kPeerWords = (sizeof(sockaddr_in6) + 7) / 8;

struct Entry {
  std::atomic<std::uint64_t> word{0};
  // Written before the word that makes the entry valid. Whoever reads them looks at the word
  // afterwards: a stale question may come while the number gets its next connection.
  std::atomic<std::uint32_t> listener{0};
  // The peer's address in as many bytes as an internet address needs; 0: none.
  std::atomic<std::uint32_t> peer_length{0};
  std::atomic<std::uint64_t> peer[kPeerWords];
  std::atomic<Micros> accepted{0};
  std::atomic<double> read{0};
  std::atomic<double> written{0};
  // The owner's alone.
  std::byte* checkpoint = nullptr;
  std::size_t checkpoint_length = 0;
  TlsSession* tls = nullptr;
  Micros rescued_before = 0;  // when it was rescued last, and the time before that
  Micros rescued = 0;
  QuotaHandle quota = kNoQuota;
  int reserve = -1;  // of a listening socket
};

constexpr Micros kRescuePeriod = 60'000'000;

struct Chunk {
  Entry entries[kChunk];
};

std::atomic<Chunk*> chunks[kFdsMax / kChunk];

Entry* find(int fd) {
  if (fd < 0 || static_cast<std::uint32_t>(fd) >= kFdsMax) return nullptr;
  const auto number = static_cast<std::uint32_t>(fd);
  Chunk* chunk = chunks[number / kChunk].load(std::memory_order_acquire);
  return chunk ? &chunk->entries[number % kChunk] : nullptr;
}

Entry* find_or_make(int fd) {
  if (static_cast<std::uint32_t>(fd) >= kFdsMax) return nullptr;
  std::atomic<Chunk*>& place = chunks[static_cast<std::uint32_t>(fd) / kChunk];
  if (place.load(std::memory_order_acquire) == nullptr) {
    Chunk* made = new Chunk;
    Chunk* expected = nullptr;
    // Chunks are never freed: the table is as large as the highest descriptor ever was.
    if (!place.compare_exchange_strong(expected, made)) delete made;
  }
  return find(fd);
}

int fd_of(ConnectionId id) { return static_cast<int>(id & (kFdsMax - 1)); }
std::uint32_t generation_of(ConnectionId id) { return static_cast<std::uint32_t>(id >> kFdBits); }

// Null unless `owner` owns it now.
Entry* find_owned(ConnectionId id, InboxHandle owner) {
  Entry* entry = find(fd_of(id));
  if (entry == nullptr) return nullptr;
  const std::uint64_t mine = Word{generation_of(id), FdState::kOwned, owner}.packed();
  return entry->word.load() == mine ? entry : nullptr;
}

bool transition(ConnectionId id, FdState from, InboxHandle from_owner, FdState to,
                InboxHandle to_owner) {
  Entry* entry = find(fd_of(id));
  if (entry == nullptr) return false;
  const std::uint32_t generation = generation_of(id);
  const std::uint64_t before = Word{generation, from, from_owner}.packed();
  const std::uint64_t severing = Word{generation, FdState::kSevering, from_owner}.packed();
  for (;;) {
    std::uint64_t expected = before;
    const std::uint64_t after = Word{generation, to, to_owner}.packed();
    if (entry->word.compare_exchange_strong(expected, after)) return true;
    // It is owned again in a moment. Closed now, the number could be another's below that thread.
    if (from != FdState::kOwned || expected != severing) return false;
    std::this_thread::yield();
  }
}

// The one place that closes an accepted descriptor. The entry is free before the number is, since
// another thread may be given the number by its accept at once.
void close_now(ConnectionId id, bool reset) {
  const int fd = fd_of(id);
  Entry* entry = find(fd);
  if (reset) sys::reset_on_close(fd);
  std::free(entry->checkpoint);
  entry->checkpoint = nullptr;
  entry->checkpoint_length = 0;
  entry->rescued = entry->rescued_before = 0;
  free_tls_session(entry->tls);
  entry->tls = nullptr;
  const QuotaHandle quota = entry->quota;
  const int reserve = entry->reserve;
  entry->quota = kNoQuota;
  entry->reserve = -1;
  entry->word.store(Word{generation_of(id), FdState::kFree, kNoInbox}.packed());
  const int status = sys::close(fd);
  ML_CHECK(status != -EBADF);
  if (reserve >= 0) sys::close(reserve);
  Quota::give(quota);
}

ConnectionId next_in(FdState state, InboxHandle owner, int from) {
  for (auto at = static_cast<std::uint32_t>(from); at < kFdsMax; ++at) {
    if (chunks[at / kChunk].load(std::memory_order_acquire) == nullptr) {
      at |= kChunk - 1;
      continue;
    }
    const Word word = Word::from(find(static_cast<int>(at))->word.load());
    const FdState now = word.state == FdState::kSevering ? FdState::kOwned : word.state;
    if (now == state && word.owner == owner)
      return static_cast<ConnectionId>(word.generation) << kFdBits | at;
  }
  return kNoConnection;
}

// A free entry for `fd`, with its next generation, or null for a number past the table.
Entry* begin_entry(int fd, std::uint32_t listener, std::uint32_t* generation, ConnectionId* out) {
  Entry* entry = find_or_make(fd);
  if (entry == nullptr) return nullptr;
  const Word last = Word::from(entry->word.load());
  ML_CHECK(last.state == FdState::kFree);
  // Generation 0 is never used, so that no id is kNoConnection.
  *generation = (last.generation + 1) & kGenerationMask;
  if (*generation == 0) *generation = 1;
  entry->listener.store(listener, std::memory_order_release);
  entry->accepted.store(monotonic_now(), std::memory_order_release);
  entry->read.store(0, std::memory_order_release);
  entry->written.store(0, std::memory_order_release);
  *out = static_cast<ConnectionId>(*generation) << kFdBits | static_cast<std::uint32_t>(fd);
  return entry;
}

}  // namespace

int Ledger::adopt(int fd, InboxHandle owner, std::uint32_t listener, const sys::SockAddr& peer,
                  ConnectionId* out, QuotaHandle quota) {
  std::uint32_t generation = 0;
  Entry* entry = begin_entry(fd, listener, &generation, out);
  if (entry == nullptr) return -EMFILE;
  const bool internet = peer.storage.ss_family == AF_INET || peer.storage.ss_family == AF_INET6;
  const std::uint32_t length = internet ? static_cast<std::uint32_t>(peer.length) : 0;
  std::uint64_t words[kPeerWords] = {};
  ML_CHECK(length <= sizeof words);
  std::memcpy(words, &peer.storage, length);
  entry->peer_length.store(length, std::memory_order_release);
  for (std::size_t i = 0; i < kPeerWords; ++i)
    entry->peer[i].store(words[i], std::memory_order_release);
  entry->quota = quota;
  entry->word.store(Word{generation, FdState::kOwned, owner}.packed());
  return 0;
}

int Ledger::listen(int fd, InboxHandle owner, std::uint32_t listener, QuotaHandle quota,
                   ConnectionId* out) {
  std::uint32_t generation = 0;
  Entry* entry = begin_entry(fd, listener, &generation, out);
  if (entry == nullptr) return -EMFILE;
  entry->peer_length.store(0, std::memory_order_release);
  entry->quota = quota;
  entry->word.store(Word{generation, FdState::kListening, owner}.packed());
  return 0;
}

bool Ledger::listens(ConnectionId id, InboxHandle owner) {
  const Entry* entry = find(fd_of(id));
  return entry != nullptr &&
         entry->word.load() == Word{generation_of(id), FdState::kListening, owner}.packed();
}

bool Ledger::pass(ConnectionId id, InboxHandle from, InboxHandle to) {
  return transition(id, FdState::kListening, from, FdState::kListening, to);
}

bool Ledger::close_listening(ConnectionId id, InboxHandle owner) {
  if (!transition(id, FdState::kListening, owner, FdState::kClosing, owner)) return false;
  // It took no place: that is for the connections.
  find(fd_of(id))->quota = kNoQuota;
  close_now(id, false);
  return true;
}

ConnectionId Ledger::next_listening(InboxHandle owner, int from) {
  return next_in(FdState::kListening, owner, from);
}

int Ledger::reserve(ConnectionId id) { return find(fd_of(id))->reserve; }

void Ledger::set_reserve(ConnectionId id, int fd) { find(fd_of(id))->reserve = fd; }

QuotaHandle Ledger::quota(ConnectionId id) { return find(fd_of(id))->quota; }

bool Ledger::send(ConnectionId id, InboxHandle from, InboxHandle to) {
  return transition(id, FdState::kOwned, from, FdState::kInbox, to);
}

bool Ledger::take(ConnectionId id, InboxHandle by) {
  return transition(id, FdState::kInbox, by, FdState::kOwned, by);
}

bool Ledger::redirect(ConnectionId id, InboxHandle from, InboxHandle to) {
  return transition(id, FdState::kInbox, from, FdState::kInbox, to);
}

bool Ledger::close(ConnectionId id, InboxHandle owner, bool reset) {
  if (!transition(id, FdState::kOwned, owner, FdState::kClosing, owner)) return false;
  close_now(id, reset);
  return true;
}

bool Ledger::close_undelivered(ConnectionId id, InboxHandle owner) {
  if (!transition(id, FdState::kInbox, owner, FdState::kClosing, owner)) return false;
  close_now(id, true);
  return true;
}

bool Ledger::sever(ConnectionId id, InboxHandle owner) {
  if (!transition(id, FdState::kOwned, owner, FdState::kSevering, owner)) return false;
  sys::sever(fd_of(id));
  find(fd_of(id))->word.store(Word{generation_of(id), FdState::kOwned, owner}.packed());
  return true;
}

ConnectionId Ledger::next_owned(InboxHandle owner, int from) {
  return next_in(FdState::kOwned, owner, from);
}

bool Ledger::set_checkpoint(ConnectionId id, InboxHandle owner, const void* bytes,
                            std::size_t length) {
  Entry* entry = find_owned(id, owner);
  if (entry == nullptr) return false;
  std::free(entry->checkpoint);
  entry->checkpoint = length == 0 ? nullptr : static_cast<std::byte*>(std::malloc(length));
  entry->checkpoint_length = length;
  ML_CHECK(length == 0 || entry->checkpoint != nullptr);
  if (length > 0) std::memcpy(entry->checkpoint, bytes, length);
  return true;
}

std::byte* Ledger::copy_checkpoint(ConnectionId id, std::size_t* length) {
  const Entry* entry = find(fd_of(id));
  ML_CHECK(entry != nullptr);
  *length = entry->checkpoint_length;
  if (*length == 0) return nullptr;
  auto* copy = static_cast<std::byte*>(std::malloc(*length));
  ML_CHECK(copy != nullptr);
  std::memcpy(copy, entry->checkpoint, *length);
  return copy;
}

bool Ledger::may_rescue(ConnectionId id) {
  Entry* entry = find(fd_of(id));
  ML_CHECK(entry != nullptr);
  const Micros now = monotonic_now();
  if (entry->rescued_before != 0 && now - entry->rescued_before < kRescuePeriod) return false;
  entry->rescued_before = entry->rescued;
  entry->rescued = now;
  return true;
}

void Ledger::set_traffic(ConnectionId id, InboxHandle owner, const Traffic& traffic) {
  Entry* entry = find(fd_of(id));
  if (entry == nullptr) return;
  if (entry->word.load() != Word{generation_of(id), FdState::kOwned, owner}.packed()) return;
  entry->read.store(traffic.read, std::memory_order_release);
  entry->written.store(traffic.written, std::memory_order_release);
}

Traffic Ledger::traffic(ConnectionId id) {
  const Entry* entry = find(fd_of(id));
  if (entry == nullptr) return {};
  const Traffic traffic{entry->read.load(std::memory_order_acquire),
                        entry->written.load(std::memory_order_acquire)};
  return fd(id) >= 0 ? traffic : Traffic{};
}

bool Ledger::next(int from, Listed* out) {
  for (auto at = static_cast<std::uint32_t>(from); at < kFdsMax; ++at) {
    if (chunks[at / kChunk].load(std::memory_order_acquire) == nullptr) {
      at |= kChunk - 1;
      continue;
    }
    const Entry* entry = find(static_cast<int>(at));
    const std::uint64_t before = entry->word.load();
    const Word word = Word::from(before);
    if (word.state != FdState::kOwned && word.state != FdState::kInbox) continue;
    *out = {static_cast<ConnectionId>(word.generation) << kFdBits | at,
            word.owner,
            word.state == FdState::kInbox,
            entry->listener.load(std::memory_order_acquire),
            entry->accepted.load(std::memory_order_acquire),
            {entry->read.load(std::memory_order_acquire),
             entry->written.load(std::memory_order_acquire)}};
    // Closed meanwhile, and the number perhaps accepted again: what was read is of both.
    const Word after = Word::from(entry->word.load());
    if (after.generation == word.generation && after.state != FdState::kFree) return true;
  }
  return false;
}

bool Ledger::set_tls(ConnectionId id, InboxHandle owner, TlsSession* session) {
  Entry* entry = find_owned(id, owner);
  if (entry == nullptr || entry->tls != nullptr) return false;
  entry->tls = session;
  return true;
}

TlsSession* Ledger::tls(ConnectionId id, InboxHandle owner) {
  const Entry* entry = find_owned(id, owner);
  return entry == nullptr ? nullptr : entry->tls;
}

int Ledger::fd_of(ConnectionId id) { return multiloop::fd_of(id); }

int Ledger::fd(ConnectionId id) {
  const Entry* entry = find(fd_of(id));
  if (entry == nullptr) return -1;
  const Word word = Word::from(entry->word.load());
  return word.generation == generation_of(id) && word.state != FdState::kFree ? fd_of(id) : -1;
}

bool Ledger::owns(int fd) {
  const Entry* entry = find(fd);
  return entry != nullptr && Word::from(entry->word.load()).state != FdState::kFree;
}

InboxHandle Ledger::owner(ConnectionId id) {
  const Entry* entry = find(fd_of(id));
  if (entry == nullptr) return kNoInbox;
  const Word word = Word::from(entry->word.load());
  return word.generation == generation_of(id) && word.state != FdState::kFree ? word.owner
                                                                              : kNoInbox;
}

std::uint32_t Ledger::listener(ConnectionId id) {
  const Entry* entry = find(fd_of(id));
  if (entry == nullptr) return 0;
  const std::uint32_t listener = entry->listener.load(std::memory_order_acquire);
  return fd(id) >= 0 ? listener : 0;
}

bool Ledger::peer(ConnectionId id, sys::SockAddr* out) {
  const Entry* entry = find(fd_of(id));
  if (entry == nullptr) return false;
  const std::uint32_t length = entry->peer_length.load(std::memory_order_acquire);
  std::uint64_t words[kPeerWords];
  for (std::size_t i = 0; i < kPeerWords; ++i)
    words[i] = entry->peer[i].load(std::memory_order_acquire);
  if (length == 0 || fd(id) < 0) return false;
  *out = sys::SockAddr{};
  std::memcpy(&out->storage, words, length);
  out->length = static_cast<socklen_t>(length);
  return true;
}

std::uint32_t Ledger::count() {
  std::uint32_t count = 0;
  for (std::uint32_t at = 0; at < kFdsMax; ++at) {
    if (chunks[at / kChunk].load(std::memory_order_acquire) == nullptr)
      at += kChunk - 1;
    else if (owns(static_cast<int>(at)))
      ++count;
  }
  return count;
}

}  // namespace multiloop
