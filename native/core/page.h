// The page: memory that a base shares with TypeScript, which reads and writes it directly, so that
// a turn costs one crossing however much it found. Both halves run on one thread; nothing here is
// atomic. src/event/page.ts mirrors the layout, and a test compares the two.
#pragma once

#include <cstdint>

namespace multiloop {

constexpr std::uint32_t kRingRecords = 4'096;
constexpr std::uint32_t kMessagesPerTurn = 64;

struct Page {
  // What became of one event: the mask in the low 8 bits, above it how often its signal came.
  struct Record {
    std::uint32_t event;
    std::uint32_t what;
  };
  struct MessageRecord {
    double kind;
    double from;
    double id;
    double fd;
  };
  std::int32_t active;       // TypeScript: callbacks that wait for the next pass
  std::int32_t active_max;   // TypeScript: its high-water mark
  std::int32_t added;        // descriptors, signals and timers of events, each counted
  std::int32_t added_max;    // the high-water mark of added + active; TypeScript raises it too
  std::int32_t no_exit;      // TypeScript: NO_EXIT_ON_EMPTY is in force
  std::int32_t nonblock;     // TypeScript: never block, and call the dispatcher after every wait
  std::int32_t watching;     // TypeScript: kWatchPrepare, kWatchCheck
  std::int32_t reason;       // why the dispatcher is called, one of Reason
  std::int32_t ready;        // records in `ring`
  std::int32_t messages;     // records in `inbox`
  std::int32_t error;        // -errno of a wait that failed
  std::int32_t virtual_now;  // what keeps the loop going without an event: an inbox
  std::int32_t virtual_max;
  std::int32_t time_cached;  // `now` holds for this pass; TypeScript ends that with the pass
  std::int32_t unsettled;    // changes wait to be told to the kernel
  std::int32_t spare;
  double now;      // microseconds, monotonic: the turn's cached time
  double idle;     // microseconds spent waiting since the base was made
  double turns;    // waits since the base was made
  double timeout;  // microseconds that the coming wait may take, or -1; for prepare watchers
  Record ring[kRingRecords];
  MessageRecord inbox[kMessagesPerTurn];
};

// Bits of Page::watching: the dispatcher wants to be called before, or after, every wait.
constexpr std::int32_t kWatchPrepare = 1;
constexpr std::int32_t kWatchCheck = 2;

constexpr std::uint32_t kCallsShift = 8;
constexpr std::uint32_t kCallsMax = (1U << (32 - kCallsShift)) - 1;

}  // namespace multiloop
