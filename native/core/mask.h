// The event bits, with libevent's values: shared by the core, the backends and, as `Ev`,
// TypeScript.
#pragma once

#include <cstdint>

namespace multiloop {

using Mask = std::uint8_t;

constexpr Mask kTimeout = 0x01;
constexpr Mask kRead = 0x02;
constexpr Mask kWrite = 0x04;
constexpr Mask kSignal = 0x08;
constexpr Mask kPersist = 0x10;
constexpr Mask kEdge = 0x20;
constexpr Mask kFinalize = 0x40;
constexpr Mask kClosed = 0x80;

// The bits that a backend understands; everything else is the base's business.
constexpr Mask kIoMask = kRead | kWrite | kClosed;

}  // namespace multiloop
