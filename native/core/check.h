// Assertions that stay on in every build. A broken invariant in a process that owns other people's
// sockets must stop at the first wrong step, not at the corruption that follows from it.
#pragma once

namespace multiloop {

[[noreturn]] void check_failed(const char* what, const char* file, int line);

}  // namespace multiloop

#define ML_CHECK(condition)                          \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::multiloop::check_failed(#condition, __FILE__, __LINE__))
