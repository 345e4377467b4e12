// What a loop's thread writes of its own time and any other thread reads, also while that thread
// waits or is blocked.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>

#include "clock.h"

namespace multiloop {

// How long a thread has waited in all. One word, so that a reader never sees half of a change:
// the total while it works, the total less the moment when the wait began (which is negative, since
// nobody has waited for longer than the clock runs) while it waits.
class IdleClock {
 public:
  // The thread's own.
  void begin_wait(Micros now) { word_.store(word_.load(kRelaxed) - now, kRelaxed); }
  void end_wait(Micros now) { word_.store(word_.load(kRelaxed) + now, kRelaxed); }

  // Any thread.
  Micros total(Micros now) const {
    const Micros word = word_.load(kRelaxed);
    return word < 0 ? std::max<Micros>(0, word + now) : word;
  }

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  std::atomic<Micros> word_{0};
};

// How long things took, in microseconds, to one part in eight: exact below 8, then eight buckets
// for each power of two (Gil Tene's HdrHistogram). Of fixed size, and it forgets: when so many are
// counted, every count is halved, so that what is read is of the last tens of thousands.
class LatencyHistogram {
 public:
  static constexpr std::uint32_t kCountedMax = 65'536;

  // One thread.
  void record(Micros micros) {
    std::atomic<std::uint32_t>& bucket = buckets_[index_of(micros)];
    bucket.store(bucket.load(kRelaxed) + 1, kRelaxed);
    if (++counted_ < kCountedMax) return;
    counted_ = 0;
    for (std::atomic<std::uint32_t>& each : buckets_) {
      const std::uint32_t half = each.load(kRelaxed) / 2;
      each.store(half, kRelaxed);
      counted_ += half;
    }
  }

  // Any thread: the largest value of the bucket that has the share's last one; 0 when empty.
  Micros percentile(double share) const {
    std::uint32_t counts[kBuckets];
    std::uint64_t total = 0;
    for (std::uint32_t i = 0; i < kBuckets; ++i) total += counts[i] = buckets_[i].load(kRelaxed);
    const double rank = std::max(1.0, std::ceil(share * static_cast<double>(total)));
    std::uint64_t below = 0;
    for (std::uint32_t i = 0; i < kBuckets; ++i) {
      below += counts[i];
      if (static_cast<double>(below) >= rank) return largest_in(i);
    }
    return 0;
  }

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  static constexpr std::uint32_t kFineBits = 3;
  static constexpr std::uint32_t kFine = 1U << kFineBits;
  // More than an hour is an hour.
  static constexpr std::uint32_t kBuckets = (32 - kFineBits + 1) * kFine;

  static std::uint32_t index_of(Micros micros) {
    const auto value = static_cast<std::uint32_t>(std::clamp<Micros>(micros, 0, 0xffff'ffff));
    if (value < kFine) return value;
    const auto shift = static_cast<std::uint32_t>(std::bit_width(value)) - 1 - kFineBits;
    return (shift + 1) * kFine + (value >> shift & (kFine - 1));
  }
  static Micros largest_in(std::uint32_t index) {
    if (index < kFine) return index;
    const std::uint32_t shift = index / kFine - 1;
    return ((static_cast<Micros>(kFine) + index % kFine + 1) << shift) - 1;
  }

  std::atomic<std::uint32_t> buckets_[kBuckets] = {};
  std::uint32_t counted_ = 0;
};

}  // namespace multiloop
