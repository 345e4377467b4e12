// The libuv handles of a base that libuv waits for. They outlive the base by the time that
// uv_close takes.
#pragma once

#include "env_state.h"

namespace multiloop {

struct NestedDrive {
  EnvState* state = nullptr;
  BaseHost* host = nullptr;  // null once closed
  uv_poll_t poll{};
  uv_timer_t timer{};
  // Before libuv waits: the turn's changes are told to the kernel, and prepare watchers run.
  uv_prepare_t before{};
  // For a turn that is due at once. A timer of zero would fire again in the same round of libuv's
  // timers, and a base that is always active would let nothing else run.
  uv_idle_t now{};
  int closing = 0;
  bool prepared = false;       // prepare watchers have run since the last turn
  std::uint32_t renewals = 0;  // of the backend's descriptor, when `poll` was started
  Micros waiting_since = 0;

  static int start(EnvState* state, BaseHost* host);
  void start_poll();
  void start_before();
  void stop();
  void close();
};

}  // namespace multiloop
