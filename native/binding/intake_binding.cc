// Listening sockets of the ledger, and accepting from them, for TypeScript. `owner` is an inbox:
// the coordinator's, or that of the loop that accepts. Only the owner's thread may call.

#include <algorithm>
#include <cerrno>

#include "../core/handoff.h"
#include "../core/intake.h"
#include "env_state.h"
#include "napi_util.h"

namespace multiloop {

namespace {

// quotaNew(max) -> handle | -ENOSPC
napi_value quota_new(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const QuotaHandle quota = Quota::create(args.u32(0));
  if (quota == kNoQuota) return js(env, -ENOSPC);
  args.state().created_quotas.push_back(quota);
  return js(env, quota);
}

napi_value quota_free(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const QuotaHandle quota = args.u32(0);
  if (std::erase(args.state().created_quotas, quota) > 0) Quota::release(quota);
  return js_undefined(env);
}

// ledgerListen(fd, owner, listener number, quota) -> id | -errno: the ledger has it from now on.
napi_value ledger_listen(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  ConnectionId id = kNoConnection;
  const int status = Ledger::listen(args.i32(0), args.u32(1), args.u32(2), args.u32(3), &id);
  if (status < 0) return js(env, status);
  return js(env, static_cast<double>(id));
}

// ledgerPass(listening socket, from, to) -> delivery
napi_value ledger_pass(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const Delivery delivery = pass_listening(args.u64(0), args.u32(1), args.u32(2));
  return js(env, static_cast<std::int32_t>(delivery));
}

// ledgerUnlisten(listening socket, owner) -> boolean: whether it was the owner's, and is closed.
napi_value ledger_unlisten(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const ConnectionId id = args.u64(0);
  const InboxHandle owner = args.u32(1);
  bool ok = Ledger::listens(id, owner);
  if (ok) {
    args.state().forget(Ledger::fd_of(id));
    ok = Ledger::close_listening(id, owner);
  }
  napi_value closed = nullptr;
  napi_get_boolean(env, ok, &closed);
  return closed;
}

// ledgerReserve(listening socket): a descriptor to refuse connections with is kept.
napi_value ledger_reserve(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  keep_reserve(args.u64(0));
  return js_undefined(env);
}

// ledgerRefuse(listening socket, max) -> how many were closed, by giving up the reserve.
napi_value ledger_refuse(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  return js(env, turn_away(args.u64(0), args.i32(1)));
}

// ledgerAccept(listening socket, owner, is a loop: boolean, out: Float64Array) -> count | -errno.
// Accepts in one crossing as many connections as `out` has places for but one; they are `owner`'s,
// their ids are in `out`, and the last place is how many more were closed for want of quota.
napi_value ledger_accept(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  const auto [out, length] = elements_of<double>(env, args[3]);
  ML_CHECK(length > 1);
  const std::size_t max = length - 1;
  const InboxPin owner(args.u32(1));
  std::uint32_t count = 0;
  std::uint32_t refused = 0;
  int status = 0;
  while (count + refused < max) {
    ConnectionId id = kNoConnection;
    status = take_in(args.u64(0), args.u32(1), &id);
    if (status < 0) break;
    if (status == 0) {
      ++refused;
      continue;
    }
    if (owner && owner->has_numbers()) owner->set_traffic(Ledger::fd_of(id), {});
    out[count++] = static_cast<double>(id);
  }
  out[max] = refused;
  if (args.boolean(2)) {
    ML_CHECK(static_cast<bool>(owner));
    owner->counters().opened.fetch_add(count, std::memory_order_relaxed);
    owner->counters().accepted.fetch_add(count, std::memory_order_relaxed);
    owner->counters().shed.fetch_add(refused, std::memory_order_relaxed);
  }
  // What ended a batch is met again by the next one, as its first.
  return count + refused > 0 ? js(env, count) : js(env, status);
}

// inboxShed(inbox, count): so many who waited were refused for want of descriptors.
napi_value inbox_shed(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const InboxPin inbox(args.u32(0));
  if (inbox) inbox->counters().shed.fetch_add(args.u32(1), std::memory_order_relaxed);
  return js_undefined(env);
}

// inboxAccepts(inbox, out: Float64Array(2)) -> boolean: false when it is gone. What its loop has
// accepted itself, and how many more it has refused.
napi_value inbox_accepts(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const InboxPin inbox(args.u32(0));
  napi_value found = nullptr;
  napi_get_boolean(env, static_cast<bool>(inbox), &found);
  if (!inbox) return found;
  const auto [out, length] = elements_of<double>(env, args[1]);
  ML_CHECK(length >= 2);
  const InboxCounters& counters = inbox->counters();
  out[0] = static_cast<double>(counters.accepted.load(std::memory_order_relaxed));
  out[1] = static_cast<double>(counters.shed.load(std::memory_order_relaxed));
  return found;
}

}  // namespace

}  // namespace multiloop
