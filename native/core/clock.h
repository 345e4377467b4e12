// The monotonic clock, in whole microseconds. Wall time never enters the core.
#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>

namespace multiloop {

using Micros = std::int64_t;

// "No limit", for timeouts and deadlines alike.
constexpr Micros kForever = -1;

inline Micros monotonic_now() {
#ifdef _WIN32
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
#else
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<Micros>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1'000;
#endif
}

}  // namespace multiloop
