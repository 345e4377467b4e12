// What a group's thread reads of its loops and connections while these run, wait or are blocked;
// and the processors that threads run on.

#include <cerrno>
#include <cstring>
#include <vector>

#include "../core/ledger.h"
#include "../core/sys.h"
#include "env_state.h"
#include "napi_util.h"

namespace multiloop {

namespace {

// inboxNumbers(handle, boundaries: Uint8Array, bytes: Float64Array): see Inbox::show_numbers. To be
// called by the creator before the loop knows the handle; the memory is the creator's.
napi_value inbox_numbers(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const InboxPin inbox(args.u32(0));
  ML_CHECK(static_cast<bool>(inbox));
  const ByteSpan boundaries = bytes_of(env, args[1]);
  const auto traffic = elements_of<double>(env, args[2]);
  ML_CHECK(traffic.length == 2 * boundaries.length);
  inbox->show_numbers(reinterpret_cast<std::uint8_t*>(boundaries.data), traffic.data,
                      boundaries.length);
  return js_undefined(env);
}

// inboxTimes(handle, out: Float64Array(4)) -> boolean: false when it is gone. In microseconds: how
// long its loop has been there, how much of that it has waited, and the 50th and 99th percentile of
// what a handoff takes.
napi_value inbox_times(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const InboxPin inbox(args.u32(0));
  napi_value found = nullptr;
  napi_get_boolean(env, static_cast<bool>(inbox), &found);
  if (!inbox) return found;
  const auto [out, length] = elements_of<double>(env, args[1]);
  ML_CHECK(length >= 4);
  const Micros attached = inbox->counters().attached.load(std::memory_order_relaxed);
  // In this order: a wait that goes on between the two must not make it more than all.
  const Micros idle = inbox->counters().idle.total(monotonic_now());
  out[0] = attached == 0 ? 0 : static_cast<double>(monotonic_now() - attached);
  out[1] = static_cast<double>(idle);
  out[2] = static_cast<double>(inbox->handoff_latency().percentile(0.5));
  out[3] = static_cast<double>(inbox->handoff_latency().percentile(0.99));
  return found;
}

// ledgerList(inboxes: Float64Array) -> Float64Array: the connections of these owners, seven numbers
// each: id, owner, listener, microseconds since it was accepted, bytes read, bytes written, and 1
// for busy. What is under way is listed with whom it is under way to.
napi_value ledger_list(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const auto [inboxes, count] = elements_of<const double>(env, args[0]);
  const Micros now = monotonic_now();
  std::vector<double> rows;
  Ledger::Listed one{};
  for (int from = 0; Ledger::next(from, &one); from = Ledger::fd_of(one.id) + 1) {
    std::size_t at = 0;
    while (at < count && inboxes[at] != static_cast<double>(one.owner)) ++at;
    if (at == count) continue;
    bool busy = true;
    if (const InboxPin inbox(one.owner); !one.under_way && inbox && inbox->has_numbers()) {
      const int fd = Ledger::fd_of(one.id);
      one.traffic = inbox->traffic(fd);
      busy = inbox->busy(fd);
      // Closed, and the number taken, since it was found: the numbers may be the next one's.
      if (Ledger::owner(one.id) != one.owner) continue;
    }
    for (const double value :
         {static_cast<double>(one.id), static_cast<double>(one.owner),
          static_cast<double>(one.listener), static_cast<double>(now - one.accepted),
          one.traffic.read, one.traffic.written, busy ? 1.0 : 0.0})
      rows.push_back(value);
  }
  void* data = nullptr;
  napi_value buffer = nullptr;
  napi_value array = nullptr;
  const std::size_t bytes = rows.size() * sizeof(double);
  ML_CHECK(napi_create_arraybuffer(env, bytes, &data, &buffer) == napi_ok);
  if (bytes > 0) std::memcpy(data, rows.data(), bytes);
  ML_CHECK(napi_create_typedarray(env, napi_float64_array, rows.size(), buffer, 0, &array) ==
           napi_ok);
  return array;
}

// processors() -> number[] | -errno: those that this thread may run on.
napi_value processors(napi_env env, napi_callback_info) {
  std::vector<std::uint32_t> found(8'192);
  const int count = sys::processors(found.data(), found.size());
  if (count < 0) return js(env, count);
  napi_value list = nullptr;
  napi_create_array_with_length(env, static_cast<std::size_t>(count), &list);
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(count); ++i)
    napi_set_element(env, list, i, js(env, found[i]));
  return list;
}

// bindThread(processor) -> 0 | -errno
napi_value bind_thread(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, sys::bind_thread(args.u32(0)));
}

}  // namespace

}  // namespace multiloop
