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
  int closing = 0;

  static int start(EnvState* state, BaseHost* host);
  void close();
};

}  // namespace multiloop
