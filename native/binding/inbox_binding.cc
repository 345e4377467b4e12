// Inboxes, the ledger and what moves between them, for TypeScript. A connection's id and an
// inbox's handle are plain numbers; a stale one is answered, never followed.

#include <cerrno>
#include <cstdlib>

#include "../core/handoff.h"
#include "env_state.h"
#include "napi_util.h"

namespace multiloop {

namespace {

// inboxNew(capacity, waker, parent) -> handle | -errno
napi_value inbox_new(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  InboxHandle handle = kNoInbox;
  const ShortString<16> name(env, args[1]);
  const WakerType* waker = find_waker(name.text);
  if (waker == nullptr) return js(env, -EINVAL);
  const int status = Inbox::create(args.u32(0), waker->kind, args.u32(2), &handle);
  if (status < 0) return js(env, status);
  args.state().created_inboxes.push_back(handle);
  return js(env, static_cast<std::int32_t>(handle));
}

// inboxFree(handle): the creator gives it up.
napi_value inbox_free(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  std::vector<InboxHandle>& created = args.state().created_inboxes;
  const InboxHandle handle = args.u32(0);
  for (std::size_t i = 0; i < created.size(); ++i) {
    if (created[i] != handle) continue;
    created[i] = created.back();
    created.pop_back();
    Inbox::release_creator(handle);
    break;
  }
  return js_undefined(env);
}

// inboxAttach(base, handle) -> 0 | -errno
napi_value inbox_attach(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr || host->base->inbox() != nullptr) return js(env, -EINVAL);
  Inbox* inbox = Inbox::attach(args.u32(1));
  if (inbox == nullptr) return js(env, -ENOENT);
  const int status = host->base->attach(inbox);
  if (status < 0) inbox->unref();
  args.state().settle(host);
  return js(env, status);
}

// inboxDetach(base): what waits in the inbox goes back to the coordinator; what the loop still
// owns is closed.
napi_value inbox_detach(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js_undefined(env);
  args.state().release_inbox(host);
  args.state().settle(host);
  return js_undefined(env);
}

// inboxAbandon(handle) -> connections severed, or -1; see abandon_loop. The creator's thread.
napi_value inbox_abandon(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, static_cast<std::int32_t>(abandon_loop(args.u32(0))));
}

napi_value inbox_ref(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js_undefined(env);
  host->base->ref_inbox(args.boolean(1));
  args.state().settle(host);
  return js_undefined(env);
}

// inboxPost(from, to, bytes) -> delivery
napi_value inbox_post(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const ByteSpan bytes = bytes_of(env, args[2]);
  const Delivery delivery = post(args.u32(0), args.u32(1), bytes.data, bytes.length);
  return js(env, static_cast<std::int32_t>(delivery));
}

// inboxTake(base, index) -> Buffer | undefined: the bytes of a message on the page. Of a handoff,
// this is the moment when it has arrived.
napi_value inbox_take(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js_undefined(env);
  const Base::Post post = host->base->take_post(args.u32(1));
  if (post.bytes == nullptr) return js_undefined(env);
  napi_value buffer = nullptr;
  const napi_status status =
      napi_create_buffer_copy(env, post.length, post.bytes, nullptr, &buffer);
  std::free(post.bytes);
  return status == napi_ok ? buffer : js_undefined(env);
}

// inboxHandoff(connection, from, to) -> delivery; the receiver is not woken.
napi_value inbox_handoff(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const Delivery delivery = hand_off(args.u64(0), args.u32(1), args.u32(2));
  return js(env, static_cast<std::int32_t>(delivery));
}

// ledgerMove(base, connection, to, bytes, rescued: boolean) -> delivery: out of this base's kernel
// set, and to the loop of `to`, which is woken. Not OK: the connection is this loop's as before.
napi_value ledger_move(napi_env env, napi_callback_info info) {
  const Args<5> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr || host->base->inbox() == nullptr)
    return js(env, static_cast<std::int32_t>(Delivery::kNotOwner));
  const ConnectionId id = args.u64(1);
  const ByteSpan bytes = bytes_of(env, args[3]);
  host->base->forget(Ledger::fd(id));
  const InboxHandle from = host->base->inbox()->handle();
  const MessageKind kind = args.boolean(4) ? MessageKind::kRescued : MessageKind::kMove;
  const Delivery delivery = move(id, from, args.u32(2), bytes.data, bytes.length, kind);
  return js(env, static_cast<std::int32_t>(delivery));
}

// inboxBoundaries(base, bytes: Uint8Array): see Inbox::watch_boundaries. The memory is shared and
// the coordinator keeps it while the inbox lives.
napi_value inbox_boundaries(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  ML_CHECK(host != nullptr && host->base->inbox() != nullptr);
  const ByteSpan bytes = bytes_of(env, args[1]);
  host->base->inbox()->watch_boundaries(reinterpret_cast<std::uint8_t*>(bytes.data), bytes.length);
  return js_undefined(env);
}

// ledgerCheckpoint(base, connection, bytes) -> boolean: whether it was this base's loop's.
napi_value ledger_checkpoint(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  const ByteSpan bytes = bytes_of(env, args[2]);
  const bool ok =
      host != nullptr && host->base->inbox() != nullptr &&
      Ledger::set_checkpoint(args.u64(1), host->base->inbox()->handle(), bytes.data, bytes.length);
  napi_value stored = nullptr;
  napi_get_boolean(env, ok, &stored);
  return stored;
}

// ledgerOwner(connection) -> the inbox of the loop that has it or to which it is under way; 0.
napi_value ledger_owner(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, Ledger::owner(args.u64(0)));
}

napi_value inbox_wake(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  wake(args.u32(0));
  return js_undefined(env);
}

// inboxStats(handle, out: Float64Array(15)) -> boolean: false when it is gone. In this order:
// depth, capacity, opened, closed, lost, wakes sent, wakes saved, refused for want of room, moved
// in, moved out, rescued of those, turns, and in microseconds: how long it has been busy now (0: it
// waits), the mean turn, the longest turn.
napi_value inbox_stats(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const InboxPin inbox(args.u32(0));
  napi_value found = nullptr;
  napi_get_boolean(env, static_cast<bool>(inbox), &found);
  if (!inbox) return found;
  const auto [out, length] = elements_of<double>(env, args[1]);
  ML_CHECK(length >= 15);
  const InboxCounters& counters = inbox->counters();
  const auto read = [](const std::atomic<std::uint64_t>& counter) {
    return static_cast<double>(counter.load(std::memory_order_relaxed));
  };
  out[0] = inbox->depth();
  out[1] = inbox->capacity();
  out[2] = read(counters.opened);
  out[3] = read(counters.closed);
  out[4] = read(counters.lost);
  out[5] = read(counters.wakes_sent);
  out[6] = read(counters.wakes_saved);
  out[7] = read(counters.refused_full);
  out[8] = read(counters.moved_in);
  out[9] = read(counters.moved_out);
  out[10] = read(counters.rescued);
  out[11] = read(counters.turns);
  const Micros since = counters.busy_since.load(std::memory_order_relaxed);
  out[12] = since == 0 ? 0 : static_cast<double>(monotonic_now() - since);
  out[13] = static_cast<double>(counters.turn_mean.load(std::memory_order_relaxed));
  out[14] = static_cast<double>(counters.turn_longest.load(std::memory_order_relaxed));
  return found;
}

// ledgerClose(base, connection, reset) -> boolean: whether it was this base's loop's.
napi_value ledger_close(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  napi_value closed = nullptr;
  bool ok = false;
  if (host != nullptr && host->base->inbox() != nullptr) {
    Inbox* inbox = host->base->inbox();
    const ConnectionId id = args.u64(1);
    host->base->forget(Ledger::fd(id));
    ok = Ledger::close(id, inbox->handle(), args.boolean(2));
    if (ok) inbox->counters().closed.fetch_add(1, std::memory_order_relaxed);
  }
  napi_get_boolean(env, ok, &closed);
  return closed;
}

napi_value ledger_peer(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  sys::SockAddr peer;
  if (!Ledger::peer(args.u64(0), &peer)) return js_undefined(env);
  return js_address(env, peer);
}

napi_value ledger_listener(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  return js(env, Ledger::listener(args.u64(0)));
}

napi_value ledger_count(napi_env env, napi_callback_info) { return js(env, Ledger::count()); }

}  // namespace

}  // namespace multiloop
