// How many connections a group may have open, over all threads that accept for it. A place is
// taken before a connection enters the ledger and given back when its descriptor is closed, so that
// two threads never both find the last place free (Envoy allocates its limit in the same way,
// source/common/network/tcp_listener_impl.cc). Any thread may call.
#pragma once

#include <cstdint>

namespace multiloop {

using QuotaHandle = std::uint32_t;
constexpr QuotaHandle kNoQuota = 0;  // no limit

constexpr std::uint32_t kQuotasMax = 1'024;

class Quota {
 public:
  // A quota of `max` places; kNoQuota when the table is full.
  [[nodiscard]] static QuotaHandle create(std::uint32_t max);
  // Its creator gives it up. Places that are taken stay so until their connections are closed, and
  // the quota's own place in the table is used again only then.
  static void release(QuotaHandle quota);

  [[nodiscard]] static bool take(QuotaHandle quota);
  static void give(QuotaHandle quota);
  // Places that are taken now.
  static std::uint32_t used(QuotaHandle quota);
};

}  // namespace multiloop
