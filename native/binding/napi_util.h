// The few Node-API idioms that the binding repeats. Hot functions use Node-API directly: the
// wrappers of node-addon-api re-throw through C++ objects, and abort the process when the thrown
// value is null (reference: node-addon-api, Napi::Error::ThrowAsJavaScriptException).
#pragma once

#include <node_api.h>

#include <cstddef>
#include <cstdint>

#include "../core/check.h"

namespace multiloop {

class EnvState;

// The arguments of a call from TypeScript, which has validated them: a wrong type here is a bug of
// ours, never a user's.
template <std::size_t kCount>
class Args {
 public:
  Args(napi_env env, napi_callback_info info) : env_(env) {
    std::size_t count = kCount;
    void* data = nullptr;
    ML_CHECK(napi_get_cb_info(env, info, &count, values_, nullptr, &data) == napi_ok);
    state_ = static_cast<EnvState*>(data);
  }
  napi_env env() const { return env_; }
  EnvState& state() const { return *state_; }
  napi_value operator[](std::size_t index) const { return values_[index]; }

  std::int32_t i32(std::size_t index) const {
    std::int32_t value = 0;
    ML_CHECK(napi_get_value_int32(env_, values_[index], &value) == napi_ok);
    return value;
  }
  std::uint32_t u32(std::size_t index) const {
    std::uint32_t value = 0;
    ML_CHECK(napi_get_value_uint32(env_, values_[index], &value) == napi_ok);
    return value;
  }
  double number(std::size_t index) const {
    double value = 0;
    ML_CHECK(napi_get_value_double(env_, values_[index], &value) == napi_ok);
    return value;
  }
  std::uint64_t u64(std::size_t index) const { return static_cast<std::uint64_t>(number(index)); }
  bool boolean(std::size_t index) const {
    bool value = false;
    ML_CHECK(napi_get_value_bool(env_, values_[index], &value) == napi_ok);
    return value;
  }

 private:
  napi_env env_;
  EnvState* state_ = nullptr;
  napi_value values_[kCount];
};

inline napi_value js(napi_env env, std::int32_t value) {
  napi_value out = nullptr;
  napi_create_int32(env, value, &out);
  return out;
}
inline napi_value js(napi_env env, std::uint32_t value) {
  napi_value out = nullptr;
  napi_create_uint32(env, value, &out);
  return out;
}
inline napi_value js(napi_env env, double value) {
  napi_value out = nullptr;
  napi_create_double(env, value, &out);
  return out;
}
// A count or -errno: nearly always a small integer, which costs JavaScript less than a double.
inline napi_value js(napi_env env, long value) {
  const auto narrow = static_cast<std::int32_t>(value);
  return narrow == value ? js(env, narrow) : js(env, static_cast<double>(value));
}
inline napi_value js(napi_env env, const char* text) {
  napi_value out = nullptr;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &out);
  return out;
}
inline napi_value js_undefined(napi_env env) {
  napi_value out = nullptr;
  napi_get_undefined(env, &out);
  return out;
}

// The elements of a typed array; they stay valid until control returns to JavaScript.
template <typename Element>
struct Span {
  Element* data;
  std::size_t length;
};
template <typename Element>
Span<Element> elements_of(napi_env env, napi_value array) {
  std::size_t length = 0;
  void* data = nullptr;
  ML_CHECK(napi_get_typedarray_info(env, array, nullptr, &length, &data, nullptr, nullptr) ==
           napi_ok);
  return {static_cast<Element*>(data), length};
}

// Those of a Uint8Array.
using ByteSpan = Span<std::byte>;
inline ByteSpan bytes_of(napi_env env, napi_value array) {
  return elements_of<std::byte>(env, array);
}

// A UTF-8 copy of a short string (a path, a host, a name), cut at the buffer's size.
template <std::size_t kSize>
struct ShortString {
  char text[kSize];
  std::size_t length = 0;
  ShortString(napi_env env, napi_value value) {
    ML_CHECK(napi_get_value_string_utf8(env, value, text, kSize, &length) == napi_ok);
  }
};

}  // namespace multiloop
