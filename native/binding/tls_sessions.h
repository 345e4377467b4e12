// The TLS sessions of one thread's own, for descriptors that the ledger does not have. A number
// names a slot and its use, so that a stale one finds nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/check.h"
#include "../core/tls_session.h"

namespace multiloop {

class TlsSessions {
 public:
  TlsSessions() = default;
  TlsSessions(const TlsSessions&) = delete;
  TlsSessions& operator=(const TlsSessions&) = delete;
  ~TlsSessions() {
    for (const Slot& slot : slots_) free_tls_session(slot.session);
  }

  // Never 0; an exact integer of JavaScript.
  std::uint64_t add(TlsSession* session) {
    if (free_.empty()) {
      free_.push_back(static_cast<std::uint32_t>(slots_.size()));
      slots_.emplace_back();
      ML_CHECK(slots_.size() < 1U << kSlotBits);
    }
    const std::uint32_t at = free_.back();
    free_.pop_back();
    slots_[at].session = session;
    ++count_;
    return static_cast<std::uint64_t>(++slots_[at].use) << kSlotBits | at;
  }
  TlsSession* find(std::uint64_t id) const {
    const std::uint64_t at = id & ((1U << kSlotBits) - 1);
    return at < slots_.size() && slots_[at].use == id >> kSlotBits ? slots_[at].session : nullptr;
  }
  void remove(std::uint64_t id) {
    TlsSession* session = find(id);
    if (session == nullptr) return;
    const auto at = static_cast<std::uint32_t>(id & ((1U << kSlotBits) - 1));
    --count_;
    slots_[at].session = nullptr;
    // So a number is an exact integer for ever; a slot whose uses have run out rests.
    if (slots_[at].use < (1U << 30)) free_.push_back(at);
    free_tls_session(session);
  }
  // For tests and diagnosis.
  std::uint32_t count() const { return count_; }

 private:
  // As many as there are descriptors in the ledger.
  static constexpr unsigned kSlotBits = 20;
  struct Slot {
    TlsSession* session = nullptr;
    std::uint32_t use = 0;
  };
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::uint32_t count_ = 0;
};

}  // namespace multiloop
