#include "made.h"

#include <atomic>
#include <cstdint>

namespace multiloop::sys {

namespace {

// As many as the ledger has (ledger.cc); what is beyond is told at once. Only the part that is used
// is ever in memory.
constexpr std::uint32_t kNumbersMax = 1U << 20;

std::atomic<std::uint64_t> words[kNumbersMax / 64];

std::atomic<std::uint64_t>* word_of(int fd) {
  const auto number = static_cast<std::uint32_t>(fd);
  return fd >= 0 && number < kNumbersMax ? &words[number / 64] : nullptr;
}

std::uint64_t bit_of(int fd) { return 1ULL << (static_cast<std::uint32_t>(fd) % 64); }

}  // namespace

int made(int fd) {
  std::atomic<std::uint64_t>* word = word_of(fd);
  if (word != nullptr) word->fetch_or(bit_of(fd), std::memory_order_relaxed);
  return fd;
}

void unmake(int fd) {
  std::atomic<std::uint64_t>* word = word_of(fd);
  // Most numbers that are closed were made, but a load costs less than an exchange.
  if (word != nullptr && (word->load(std::memory_order_relaxed) & bit_of(fd)) != 0)
    word->fetch_and(~bit_of(fd), std::memory_order_relaxed);
}

bool was_made(int fd) {
  const std::atomic<std::uint64_t>* word = word_of(fd);
  return word != nullptr && (word->load(std::memory_order_relaxed) & bit_of(fd)) != 0;
}

}  // namespace multiloop::sys
