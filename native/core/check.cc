#include "check.h"

#include <cstdio>
#include <cstdlib>

namespace multiloop {

void check_failed(const char* what, const char* file, int line) {
  std::fprintf(stderr, "multiloop: internal invariant broken: %s (%s:%d)\n", what, file, line);
  std::abort();
}

}  // namespace multiloop
