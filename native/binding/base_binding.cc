// Bases and their events, for TypeScript. Every function takes a base's id first; one that is
// closed answers -ESTALE. Times are microseconds, -1 is none.

#include <cerrno>

#include "env_state.h"
#include "napi_util.h"
#include "signal_hub.h"

namespace multiloop {

namespace {

constexpr std::int32_t kStale = -ESTALE;

// baseNew(backend, page: ArrayBuffer, waker) -> id | -errno. The waker, by name, is that of its
// signals.
napi_value base_new(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const ShortString<16> name(env, args[0]);
  const BackendType* type = find_backend(name.text);
  const ShortString<16> waker_name(env, args[2]);
  const WakerType* waker = find_waker(waker_name.text);
  if (type == nullptr || waker == nullptr) return js(env, -EINVAL);
  void* page = nullptr;
  std::size_t page_length = 0;
  ML_CHECK(napi_get_arraybuffer_info(env, args[1], &page, &page_length) == napi_ok);
  ML_CHECK(page_length == sizeof(Page));
  int error = 0;
  std::unique_ptr<Backend> backend = type->create(&error);
  if (backend == nullptr) return js(env, error);
  BaseHost* host = args.state().add_host();
  if (host == nullptr) return js(env, -EMFILE);
  host->page = static_cast<Page*>(page);
  const BaseOptions options{waker->kind, signal_hub()};
  host->base = std::make_unique<Base>(*type, std::move(backend), host->page, options);
  ML_CHECK(napi_create_reference(env, args[1], 1, &host->memory) == napi_ok);
  return js(env, static_cast<std::int32_t>(host->id));
}

napi_value base_close(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  if (BaseHost* host = args.state().host(args.u32(0))) args.state().close_host(host);
  return js_undefined(env);
}

// baseRun(id, preferBaseDrive, dispatcher, resource) -> 0 | -errno
napi_value base_run(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js(env, kStale);
  if (host->running()) return js(env, -EALREADY);
  return js(env, args.state().run(host, args.boolean(1), args[2], args[3]));
}

// The loop is over, whoever drove it.
napi_value base_stop(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  if (BaseHost* host = args.state().host(args.u32(0))) args.state().stop(host);
  return js_undefined(env);
}

// Which drive runs it: 0 none, 1 base, 2 nested in libuv.
napi_value base_drive(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const BaseHost* host = args.state().host(args.u32(0));
  return js(env, host == nullptr ? 0 : static_cast<std::int32_t>(host->drive));
}

napi_value base_settle(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  if (BaseHost* host = args.state().host(args.u32(0))) args.state().settle(host);
  return js_undefined(env);
}

// basePoll(id, limitMicros) -> found bits | -errno. One wait of loopSync: it blocks this thread.
napi_value base_poll(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js(env, kStale);
  const auto limit = static_cast<Micros>(args.number(1));
  host->base->end_of_pass();
  Micros timeout = host->base->next_timeout();
  if (timeout < 0 || timeout > limit) timeout = limit;
  return js(env, host->base->poll(timeout));
}

// baseTimeout(id) -> micros that the coming wait may take, or -1: for prepare watchers.
napi_value base_timeout(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  return js(env, host == nullptr ? -1.0 : static_cast<double>(host->base->next_timeout()));
}

// Puts timers that check watchers have made due on the page.
napi_value base_expire(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host != nullptr) host->base->expire_timers();
  return js_undefined(env);
}

// commonTimeout(id, micros) -> the queue's number | -errno
napi_value common_timeout(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js(env, kStale);
  const CommonId common = host->base->common_timeout(static_cast<Micros>(args.number(1)));
  return js(env, common == kNoCommon ? -ENOSPC : static_cast<std::int32_t>(common));
}

napi_value base_now(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  return js(env, host == nullptr ? -1.0 : static_cast<double>(host->base->now()));
}

// baseIdle(id) -> micros that it has waited since it was made
napi_value base_idle(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  return js(env, host == nullptr ? 0.0 : args.state().idle(host));
}

napi_value base_update_time(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  // Outside a pass nothing is cached, so there is nothing to refresh.
  if (host != nullptr && host->page->time_cached != 0) host->base->update_time();
  return js_undefined(env);
}

// reportException(error): as Node reports one that nobody caught. 'uncaughtException' sees it;
// without a handler it ends the process, or this thread.
napi_value report_exception(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  napi_fatal_exception(env, args[0]);
  return js_undefined(env);
}

napi_value base_check(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const BaseHost* host = args.state().host(args.u32(0));
  if (host != nullptr) host->base->check();
  return js_undefined(env);
}

// eventNew(base, fd, mask) -> event | -errno
napi_value event_new(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js(env, kStale);
  EventId id = 0;
  const int status = host->base->create(args.i32(1), static_cast<Mask>(args.u32(2)), &id);
  return js(env, status < 0 ? status : static_cast<std::int32_t>(id));
}

// eventAdd(base, event, timeoutMicros) -> 0 | -errno. -1 is no timeout, and -2 - n that of the
// queue of common timeouts with number n.
napi_value event_add(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js(env, kStale);
  auto timeout = static_cast<Micros>(args.number(2));
  CommonId common = kNoCommon;
  if (timeout < kForever) {
    common = static_cast<CommonId>(-2 - timeout);
    ML_CHECK(common < host->base->commons());
    timeout = host->base->common_duration(common);
  }
  const int status = host->base->add(args.u32(1), timeout, common);
  args.state().settle(host);
  return js(env, status);
}

// The functions of one event that take nothing else.
template <int (Base::*kFunction)(EventId)>
napi_value event_call(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js(env, kStale);
  const int status = ((*host->base).*kFunction)(args.u32(1));
  args.state().settle(host);
  return js(env, status);
}

napi_value event_ref(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js(env, kStale);
  const int status = host->base->set_ref(args.u32(1), args.boolean(2));
  args.state().settle(host);
  return js(env, status);
}

// eventAlone(base, event) -> 0 | -errno; see Base::wake_alone.
napi_value event_alone(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  return js(env, host == nullptr ? kStale : host->base->wake_alone(args.u32(1)));
}

// eventPending(base, event) -> mask | -errno
napi_value event_pending(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host == nullptr) return js(env, kStale);
  Micros remaining = kForever;
  return js(env, host->base->pending(args.u32(1), &remaining));
}

// eventRemaining(base, event) -> micros | -1
napi_value event_remaining(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  Micros remaining = kForever;
  if (host == nullptr || host->base->pending(args.u32(1), &remaining) < 0) remaining = kForever;
  return js(env, static_cast<double>(remaining));
}

napi_value fd_forget(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  BaseHost* host = args.state().host(args.u32(0));
  if (host != nullptr) host->base->forget(args.i32(1));
  return js_undefined(env);
}

// backends() -> [name, features, status, emulated][]: 0 when one can be made here, else -errno.
napi_value backends(napi_env env, napi_callback_info) {
  napi_value list = nullptr;
  napi_create_array(env, &list);
  std::uint32_t at = 0;
  const std::vector<int> statuses = try_backends();
  for (const BackendType& type : backend_types()) {
    napi_value row = nullptr;
    napi_value emulated = nullptr;
    napi_get_boolean(env, type.emulated, &emulated);
    napi_create_array_with_length(env, 4, &row);
    napi_set_element(env, row, 0, js(env, type.name));
    napi_set_element(env, row, 1, js(env, static_cast<std::uint32_t>(type.features)));
    napi_set_element(env, row, 2, js(env, statuses[at]));
    napi_set_element(env, row, 3, emulated);
    napi_set_element(env, list, at++, row);
  }
  return list;
}

// Whether the kernel lets one be opened, and the only backend that it is for be woken by it.
int try_waker(const WakerType& type) {
  Waker waker;
  const int status = waker.open(type.kind);
  waker.close();
  if (status < 0 || type.backend == nullptr) return status;
  const BackendType* backend = find_backend(type.backend);
  int error = 0;
  const std::unique_ptr<Backend> made = backend == nullptr ? nullptr : backend->create(&error);
  if (made == nullptr) return error == 0 ? -ENOSYS : error;
  return made->wake_target() == nullptr ? -ENOSYS : 0;
}

// wakers() -> [name, status, backend][], of this build: 0 when one can be opened here, else -errno;
// and the only backend that it is for, or ''.
napi_value wakers(napi_env env, napi_callback_info) {
  napi_value list = nullptr;
  napi_create_array(env, &list);
  std::uint32_t at = 0;
  for (const WakerType& type : waker_types()) {
    napi_value row = nullptr;
    napi_create_array_with_length(env, 3, &row);
    napi_set_element(env, row, 0, js(env, type.name));
    napi_set_element(env, row, 1, js(env, try_waker(type)));
    napi_set_element(env, row, 2, js(env, type.backend == nullptr ? "" : type.backend));
    napi_set_element(env, list, at++, row);
  }
  return list;
}

// portable() -> boolean: whether this build leaves out what only its kernel has.
napi_value portable(napi_env env, napi_callback_info) {
  napi_value answer = nullptr;
#ifdef ML_PORTABLE
  napi_get_boolean(env, true, &answer);
#else
  napi_get_boolean(env, false, &answer);
#endif
  return answer;
}

// layout() -> byte offsets of the page, for src/event/page.ts to be compared with.
napi_value layout(napi_env env, napi_callback_info) {
  napi_value out = nullptr;
  napi_create_object(env, &out);
  const auto set = [&](const char* name, std::size_t value) {
    napi_set_named_property(env, out, name, js(env, static_cast<std::uint32_t>(value)));
  };
  set("active", offsetof(Page, active));
  set("activeMax", offsetof(Page, active_max));
  set("added", offsetof(Page, added));
  set("addedMax", offsetof(Page, added_max));
  set("noExit", offsetof(Page, no_exit));
  set("nonblock", offsetof(Page, nonblock));
  set("watching", offsetof(Page, watching));
  set("reason", offsetof(Page, reason));
  set("ready", offsetof(Page, ready));
  set("messages", offsetof(Page, messages));
  set("error", offsetof(Page, error));
  set("virtual", offsetof(Page, virtual_now));
  set("virtualMax", offsetof(Page, virtual_max));
  set("timeCached", offsetof(Page, time_cached));
  set("unsettled", offsetof(Page, unsettled));
  set("now", offsetof(Page, now));
  set("idle", offsetof(Page, idle));
  set("turns", offsetof(Page, turns));
  set("timeout", offsetof(Page, timeout));
  set("ring", offsetof(Page, ring));
  set("inbox", offsetof(Page, inbox));
  set("bytes", sizeof(Page));
  return out;
}

}  // namespace

}  // namespace multiloop
