// Runs the tests whose names contain one of the arguments, or all. The last line is the count.
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <cstring>

#include "check.h"

namespace {

bool is_asked(const std::string& name, int count, char** parts) {
  for (int i = 1; i < count; ++i)
    if (name.find(parts[i]) != std::string::npos) return true;
  return count <= 1;
}

}  // namespace

int main(int argc, char** argv) {
  // The names must be seen in the right place between the failures, also when a test hangs.
  std::setvbuf(stdout, nullptr, _IONBF, 0);
  // As Node does: a write to a closed pipe is an error and no signal.
  std::signal(SIGPIPE, SIG_IGN);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  int passed = 0;
  int failed = 0;
  for (const check::Test& test : check::tests()) {
    if (!is_asked(test.name, argc, argv)) continue;
    std::printf("%s … ", test.name.c_str());
    const int before = check::failures.load();
    const auto begin = std::chrono::steady_clock::now();
    test.body();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    const bool held = check::failures.load() == before;
    ++(held ? passed : failed);
    std::printf("%s %.0f ms\n", held ? "ok" : "FAILED", took.count());
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
