#include "signal_box.h"

#include "check.h"

namespace multiloop {

void SignalBox::raise(int signal) {
  ML_CHECK(signal > 0 && signal <= kSignalsMax);
  counts_[signal].fetch_add(1, std::memory_order_relaxed);
  // Released after the count, so that whoever sees the bit finds it. A base that has not taken the
  // bit yet was woken for it.
  const std::uint64_t bit = 1ULL << (signal - 1);
  if (!(pending_.fetch_or(bit, std::memory_order_acq_rel) & bit)) waker_.wake();
}

std::uint32_t SignalBox::take(int signal) {
  ML_CHECK(signal > 0 && signal <= kSignalsMax);
  // The bit first: a signal that comes between the two sets it again, and wakes again.
  pending_.fetch_and(~(1ULL << (signal - 1)), std::memory_order_acq_rel);
  return counts_[signal].exchange(0, std::memory_order_acq_rel);
}

}  // namespace multiloop
