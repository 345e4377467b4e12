// The harness of the core's tests. TEST(name) { … } registers itself; the EXPECT macros cannot be
// compiled out, may be used from any thread, print both values with their place, let the test go
// on, and answer whether they held: if (!EXPECT_TRUE(made)) return;
#pragma once

#include <string>
#include <type_traits>
#include <vector>

namespace check {

using Body = void (*)(const void* argument);

// Adds a test to those that main() runs, named after its file. Answers true.
bool add(const char* file, const std::string& name, Body body, const void* argument = nullptr);

// A number, a bool or an enumerator. This type holds all of them exactly, of either sign.
struct Value {
  template <typename T>
  requires(std::is_arithmetic_v<T> || std::is_enum_v<T>) Value(T value)
      : number(static_cast<long double>(value)) {}

  long double number;
};

// Defined once, so that the hundreds of places where they are used stay small.
bool expect_true(bool held, const char* text, const char* file, int line);
bool expect_eq(Value actual, Value expected, const char* text, const char* file, int line);
bool expect_eq(const std::vector<Value>& actual, const std::vector<Value>& expected,
               const char* text, const char* file, int line);
template <typename T>
bool expect_eq(const std::vector<T>& actual, const std::vector<T>& expected, const char* text,
               const char* file, int line) {
  const std::vector<Value> values(actual.begin(), actual.end());
  return expect_eq(values, {expected.begin(), expected.end()}, text, file, line);
}

}  // namespace check

#define TEST(name)                                              \
  static void name();                                           \
  [[maybe_unused]] static const bool registered_##name =        \
      check::add(__FILE__, #name, [](const void*) { name(); }); \
  static void name()
#define EXPECT_EQ(actual, expected) \
  check::expect_eq((actual), (expected), #actual " == " #expected, __FILE__, __LINE__)
#define EXPECT_TRUE(condition) \
  check::expect_true(static_cast<bool>(condition), #condition, __FILE__, __LINE__)
