#include "quota.h"

#include <atomic>

#include "check.h"

namespace multiloop {

namespace {

struct Places {
  std::atomic<bool> held{false};  // by its creator
  std::atomic<std::uint32_t> max{0};
  std::atomic<std::uint32_t> used{0};
};

// Static memory without a destructor: a thread may close a connection while the process ends.
Places quotas[kQuotasMax];

Places& find(QuotaHandle quota) {
  ML_CHECK(quota != kNoQuota && quota <= kQuotasMax);
  return quotas[quota - 1];
}

}  // namespace

QuotaHandle Quota::create(std::uint32_t max) {
  for (QuotaHandle quota = 1; quota <= kQuotasMax; ++quota) {
    Places& places = find(quota);
    if (places.held.exchange(true)) continue;
    // Somebody else's; or given up, and some of its connections live on.
    if (places.used.load() != 0) {
      places.held.store(false);
      continue;
    }
    places.max.store(max);
    return quota;
  }
  return kNoQuota;
}

void Quota::release(QuotaHandle quota) { ML_CHECK(find(quota).held.exchange(false)); }

bool Quota::take(QuotaHandle quota) {
  if (quota == kNoQuota) return true;
  Places& places = find(quota);
  std::uint32_t used = places.used.load();
  do {
    if (used >= places.max.load()) return false;
  } while (!places.used.compare_exchange_weak(used, used + 1));
  return true;
}

void Quota::give(QuotaHandle quota) {
  if (quota == kNoQuota) return;
  ML_CHECK(find(quota).used.fetch_sub(1) > 0);
}

std::uint32_t Quota::used(QuotaHandle quota) { return find(quota).used.load(); }

}  // namespace multiloop
