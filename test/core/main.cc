// Runs the tests whose names contain one of the arguments, or all. The last line is the count.
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <thread>

#include "../../native/core/clock.h"
#include "check.h"

namespace check {

namespace {

struct Test {
  std::string name;
  Body body;
  const void* argument;
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

std::atomic<int> failures{0};

bool fail(const char* file, int line, const std::string& what) {
  failures.fetch_add(1);
  std::printf("\n  %s:%d: %s ", file, line, what.c_str());
  return false;
}

std::string to_text(Value value) {
  char text[64];
  const bool whole = value.number == static_cast<long double>(static_cast<__int128>(value.number));
  std::snprintf(text, sizeof text, whole ? "%.0Lf" : "%Lg", value.number);
  return text;
}

std::string to_text(const std::vector<Value>& values) {
  std::string list;
  for (const Value& value : values) list += (list.empty() ? "" : ", ") + to_text(value);
  return '[' + list + ']';
}

bool is_asked(const std::string& name, int count, char** parts) {
  for (int i = 1; i < count; ++i)
    if (name.find(parts[i]) != std::string::npos) return true;
  return count <= 1;
}

bool run(const Test& test) {
  std::printf("%s … ", test.name.c_str());
  const int before = failures.load();
  const multiloop::Micros begin = multiloop::monotonic_now();
  // On a thread of its own: a ring of io_uring's that is closed interrupts the thread that had it
  // once more, some 20 ms later (Linux, io_uring.c, io_ring_exit_work).
  std::thread([&test] { test.body(test.argument); }).join();
  const auto millis = static_cast<long>((multiloop::monotonic_now() - begin) / 1'000);
  const bool held = failures.load() == before;
  std::printf("%s %ld ms\n", held ? "ok" : "FAILED", millis);
  return held;
}

}  // namespace

bool add(const char* file, const std::string& name, Body body, const void* argument) {
  const std::string path = file;
  const std::string stem = path.substr(path.rfind('/') + 1);
  tests().push_back({stem.substr(0, stem.find("_test")) + ": " + name, body, argument});
  return true;
}

bool expect_true(bool held, const char* text, const char* file, int line) {
  return held || fail(file, line, std::string(text) + " does not hold");
}

bool expect_eq(Value actual, Value expected, const char* text, const char* file, int line) {
  if (actual.number == expected.number) return true;
  return fail(file, line,
              std::string(text) + ": " + to_text(actual) + " is not " + to_text(expected));
}

bool expect_eq(const std::vector<Value>& actual, const std::vector<Value>& expected,
               const char* text, const char* file, int line) {
  const std::string told = to_text(actual);
  const std::string wanted = to_text(expected);
  return told == wanted || fail(file, line, std::string(text) + ": " + told + " is not " + wanted);
}

}  // namespace check

int main(int argc, char** argv) {
  // A test's name must be seen in front of its failures, also when it hangs or dies.
  std::setvbuf(stdout, nullptr, _IONBF, 0);
  // As Node does: a write to a closed pipe is an error and no signal.
  std::signal(SIGPIPE, SIG_IGN);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  int passed = 0;
  std::vector<std::string> failed;
  for (const check::Test& test : check::tests()) {
    if (!check::is_asked(test.name, argc, argv)) continue;
    if (check::run(test))
      ++passed;
    else
      failed.push_back(test.name);
  }
  for (const std::string& name : failed) std::printf("failed: %s\n", name.c_str());
  std::printf("%d passed, %zu failed\n", passed, failed.size());
  return failed.empty() && passed > 0 ? 0 : 1;
}
