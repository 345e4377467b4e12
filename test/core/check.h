// The harness of the core's tests. TEST(name) { … } registers itself; the EXPECT macros cannot be
// compiled out, may be used from any thread, print both values with their place, let the test go
// on, and answer whether they held: if (!EXPECT_TRUE(made)) return;
#pragma once

#include <atomic>
#include <cstdio>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace check {

struct Test {
  std::string name;
  std::function<void()> body;
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
inline std::atomic<int> failures{0};

inline bool add(const char* file, const std::string& name, std::function<void()> body) {
  const std::string path = file;
  const std::string stem = path.substr(path.rfind('/') + 1);
  tests().push_back({stem.substr(0, stem.find("_test")) + ": " + name, std::move(body)});
  return true;
}

template <typename T>
constexpr bool kIsNumber =
    std::is_integral_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char>;

template <typename T>
std::string to_text(const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_enum_v<T>) {
    return std::to_string(static_cast<long long>(value));
  } else if constexpr (std::is_arithmetic_v<T>) {
    return std::to_string(value);
  } else if constexpr (std::is_convertible_v<T, std::string>) {
    return '"' + std::string(value) + '"';
  } else if constexpr (std::is_convertible_v<T, const void*>) {
    return static_cast<const void*>(value) == nullptr ? "null" : "a pointer";
  } else {
    std::string list;
    for (const auto& item : value) list += (list.empty() ? "" : ", ") + to_text(item);
    return "[" + list + "]";
  }
}

inline bool report(bool held, const char* file, int line, const std::string& what) {
  if (held) return true;
  failures.fetch_add(1);
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  return false;
}

template <typename A, typename B>
bool expect_eq(const A& actual, const B& expected, const char* text, const char* file, int line) {
  bool held;
  if constexpr (kIsNumber<A> && kIsNumber<B>)
    held = std::cmp_equal(actual, expected);
  else
    held = actual == expected;
  if (held) return true;
  return report(false, file, line,
                std::string(text) + ": " + to_text(actual) + " is not " + to_text(expected));
}

}  // namespace check

#define TEST(name)                                                                          \
  static void name();                                                                       \
  [[maybe_unused]] static const bool registered_##name = check::add(__FILE__, #name, name); \
  static void name()
#define EXPECT_EQ(actual, expected) \
  check::expect_eq((actual), (expected), #actual " == " #expected, __FILE__, __LINE__)
#define EXPECT_TRUE(condition) \
  check::report(static_cast<bool>(condition), __FILE__, __LINE__, #condition " does not hold")
