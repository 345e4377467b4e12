// How a base drives a Node thread (design.md §2). A dispatch is entered from libuv and never from
// a JavaScript frame: below one, no promise, tick, timer or message would run.
//
// Base drive: our backend does the blocking wait and libuv's own descriptor is one more in it.
// Nested drive: libuv waits, our backend's descriptor is one of its handles and our next deadline
// one of its timers.

#include "drive.h"

#include <algorithm>
#include <cerrno>

#include "../core/check.h"
#include "../core/handoff.h"

namespace multiloop {

namespace {

// After this many waits, or this long, libuv takes its turn even if it has nothing ready: an
// unref'd immediate, for one, is visible to nobody until it does.
constexpr int kRoundsMax = 16;
constexpr Micros kRoundsMicrosMax = 1'000;

// Whether the dispatcher is to be called although the wait has found nothing.
bool wants_turn(const Page& page) {
  return page.active > 0 || page.nonblock != 0 || (page.watching & kWatchCheck) != 0;
}

std::uint64_t to_millis(Micros micros) {
  return static_cast<std::uint64_t>((micros + 999) / 1'000);
}

}  // namespace

// ── entering JavaScript ─────────────────────────────────────────────────────────────────────

bool EnvState::enter(BaseHost* host, Reason reason) {
  napi_handle_scope scope = nullptr;
  ML_CHECK(napi_open_handle_scope(env_, &scope) == napi_ok);
  host->page->reason = static_cast<std::int32_t>(reason);
  host->dispatching = true;
  napi_value receiver = nullptr;
  napi_value dispatcher = nullptr;
  napi_value result = nullptr;
  napi_get_global(env_, &receiver);
  napi_get_reference_value(env_, host->dispatcher, &dispatcher);
  const napi_status status =
      napi_make_callback(env_, host->context, receiver, dispatcher, 0, nullptr, &result);
  host->dispatching = false;
  host->base->end_of_pass();
  const bool alive = status == napi_ok || report_pending();
  if (host->closed) close_host(host);
  napi_close_handle_scope(env_, scope);
  if (!alive) release();
  return alive;
}

// The dispatcher reports what callbacks throw itself, so a call that failed means that the thread
// is being terminated; V8 then leaves no exception or null. What a tick throws after the dispatcher
// has returned may be pending too, and may be null.
bool EnvState::report_pending() {
  bool pending = false;
  napi_value exception = nullptr;
  napi_valuetype type = napi_null;
  napi_is_exception_pending(env_, &pending);
  if (!pending) return false;
  napi_get_and_clear_last_exception(env_, &exception);
  if (napi_typeof(env_, exception, &type) != napi_ok) return false;
  if (type == napi_null && javascript_refused()) return false;
  napi_fatal_exception(env_, exception);
  return true;
}

bool EnvState::javascript_refused() {
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env_, &scope) != napi_ok) return true;
  napi_value probe = nullptr;
  bool has = false;
  // Any call that may run JavaScript answers that it cannot, once the environment is stopping.
  const bool refused = napi_get_reference_value(env_, probe_, &probe) != napi_ok ||
                       napi_has_element(env_, probe, 0, &has) != napi_ok;
  napi_close_handle_scope(env_, scope);
  return refused;
}

// ── base drive ──────────────────────────────────────────────────────────────────────────────

void EnvState::start_base_drive() {
  if (!handles_open_) {
    ML_CHECK(uv_prepare_init(loop_, &prepare_) == 0);
    ML_CHECK(uv_idle_init(loop_, &idle_) == 0);
    prepare_.data = idle_.data = this;
    uv_unref(reinterpret_cast<uv_handle_t*>(&idle_));
    handles_open_ = true;
    prepare_refd_ = true;
  }
  ML_CHECK(uv_prepare_start(&prepare_, on_prepare) == 0);
  // Where this one waits, libuv waits for the nested ones, so they tell the kernel before.
  for (const std::unique_ptr<BaseHost>& host : hosts_)
    if (host != nullptr && host->nested != nullptr) host->nested->start_before();
}

void EnvState::on_prepare(uv_prepare_t* handle) {
  auto* state = static_cast<EnvState*>(handle->data);
  uv_idle_stop(&state->idle_);
  if (state->driving_ == nullptr) return;
  // While Node tears a thread down it still turns libuv's loop, and must not block in ours.
  if (state->javascript_refused()) {
    state->release();
    return;
  }
  state->in_prepare_ = true;
  state->drive_base(state->driving_);
  state->in_prepare_ = false;
  if (state->driving_ == nullptr) return;
  state->sync_liveness();
  // libuv polls once without blocking: all the waiting is done here.
  uv_idle_start(&state->idle_, [](uv_idle_t*) {});
}

void EnvState::drive_base(BaseHost* host) {
  Base& base = *host->base;
  const Micros entered = monotonic_now();
  for (int round = 0; driving_ == host; ++round) {
    if (base.empty() && host->page->no_exit == 0) {
      enter(host, Reason::kEmpty);
      return;
    }
    if (host->page->watching & kWatchPrepare) {
      base.apply_changes();
      host->page->timeout = static_cast<double>(base.next_timeout());
      if (!enter(host, Reason::kPrepare)) return;
      if (driving_ != host) return;
      // They may have taken out the last event.
      if (base.empty() && host->page->no_exit == 0) continue;
    }
    // libuv would not wait for a thread in which nothing is alive, and neither do we.
    sync_liveness();
    // Both again before every wait: timers that JavaScript just set count from libuv's time.
    uv_update_time(loop_);
    const int uv_timeout = uv_backend_timeout(loop_);
    const bool last = uv_timeout == 0 || round >= kRoundsMax ||
                      (round > 0 && base.now() - entered >= kRoundsMicrosMax);
    Micros timeout = last ? 0 : base.next_timeout();
    if (uv_timeout > 0) {
      const Micros uv_micros = static_cast<Micros>(uv_timeout) * 1'000;
      timeout = timeout < 0 ? uv_micros : std::min(timeout, uv_micros);
    }
    const std::uint32_t found = base.poll(timeout);
    const Reason reason = (found & kFoundError) ? Reason::kError : Reason::kPass;
    const bool work = (found & (kFoundWork | kFoundError)) || wants_turn(*host->page);
    if (work && !enter(host, reason)) return;
    if (!work) base.end_of_pass();
    if (last || (found & kFoundExternal)) return;
  }
}

void EnvState::sync_liveness() {
  if (!handles_open_) return;
  // An empty base is one that has yet to say so.
  const bool alive = driving_ != nullptr && (driving_->base->alive() || driving_->base->empty());
  if (alive == prepare_refd_) return;
  prepare_refd_ = alive;
  auto* handle = reinterpret_cast<uv_handle_t*>(&prepare_);
  if (alive)
    uv_ref(handle);
  else
    uv_unref(handle);
}

// ── nested drive ────────────────────────────────────────────────────────────────────────────

int NestedDrive::start(EnvState* state, BaseHost* host) {
  auto* drive = new NestedDrive;
  drive->state = state;
  drive->host = host;
  const int fd = host->base->backend().pollable_fd();
  if (const int status = uv_poll_init(state->loop(), &drive->poll, fd); status < 0) {
    delete drive;
    return status;
  }
  ML_CHECK(uv_timer_init(state->loop(), &drive->timer) == 0);
  ML_CHECK(uv_prepare_init(state->loop(), &drive->before) == 0);
  ML_CHECK(uv_idle_init(state->loop(), &drive->now) == 0);
  drive->poll.data = drive->timer.data = drive->before.data = drive->now.data = drive;
  uv_unref(reinterpret_cast<uv_handle_t*>(&drive->timer));
  uv_unref(reinterpret_cast<uv_handle_t*>(&drive->before));
  uv_unref(reinterpret_cast<uv_handle_t*>(&drive->now));
  drive->waiting_since = monotonic_now();
  host->nested = drive;
  drive->start_poll();
  drive->start_before();
  return 0;
}

// libuv calls first the one that was started last.
void NestedDrive::start_before() {
  uv_prepare_stop(&before);
  ML_CHECK(uv_prepare_start(&before, [](uv_prepare_t* handle) {
             auto* self = static_cast<NestedDrive*>(handle->data);
             if (self->host != nullptr) self->state->prepare_nested(self->host);
           }) == 0);
}

void NestedDrive::start_poll() {
  renewals = host->base->backend().renewals();
  ML_CHECK(uv_poll_start(&poll, UV_READABLE, [](uv_poll_t* handle, int, int) {
             auto* self = static_cast<NestedDrive*>(handle->data);
             if (self->host != nullptr) self->state->turn_nested(self->host);
           }) == 0);
}

void NestedDrive::stop() {
  uv_timer_stop(&timer);
  uv_prepare_stop(&before);
  uv_idle_stop(&now);
  uv_poll_stop(&poll);
}

void NestedDrive::close() {
  host = nullptr;
  stop();
  closing = 4;
  state->closing_ += 1;
  const auto closed = [](uv_handle_t* handle) {
    auto* self = static_cast<NestedDrive*>(handle->data);
    if (--self->closing > 0) return;
    EnvState* owner = self->state;
    delete self;
    owner->closed_one();
  };
  uv_close(reinterpret_cast<uv_handle_t*>(&poll), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&timer), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&before), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&now), closed);
}

// libuv is about to wait for the base.
void EnvState::prepare_nested(BaseHost* host) {
  if (host->dispatching || !host->running() || released_) return;
  in_prepare_ = true;
  const bool goes_on = prepare_turn(host);
  in_prepare_ = false;
  if (goes_on) settle(host);
}

// What was changed from outside a turn is told to the kernel, and prepare watchers run, once for
// every turn. False: they have closed the base or stopped it, or JavaScript is refused.
bool EnvState::prepare_turn(BaseHost* host) {
  NestedDrive& drive = *host->nested;
  Base& base = *host->base;
  base.apply_changes();
  const bool finished = base.empty() && host->page->no_exit == 0;
  if (!(host->page->watching & kWatchPrepare) || drive.prepared || finished) return true;
  if (javascript_refused()) {
    release();
    return false;
  }
  drive.prepared = true;
  host->page->timeout = static_cast<double>(base.next_timeout());
  const std::uint32_t id = host->id;
  const Micros began = monotonic_now();
  if (!enter(host, Reason::kPrepare)) return false;
  if (this->host(id) == nullptr || host->nested != &drive) return false;
  drive.waiting_since += monotonic_now() - began;
  // What they have changed counts for the wait that comes.
  base.apply_changes();
  return true;
}

void EnvState::turn_nested(BaseHost* host) {
  if (host->dispatching || !host->running()) return;
  if (javascript_refused()) {
    release();
    return;
  }
  Base& base = *host->base;
  const std::uint32_t id = host->id;
  // libuv comes to a turn that is due at once without having been about to wait.
  if (!prepare_turn(host)) return;
  host->page->idle += static_cast<double>(monotonic_now() - host->nested->waiting_since);
  if (base.empty() && host->page->no_exit == 0) {
    if (!enter(host, Reason::kEmpty)) return;
  } else {
    const std::uint32_t found = base.poll(0);
    const Reason reason = (found & kFoundError) ? Reason::kError : Reason::kPass;
    host->nested->prepared = false;
    if (found != 0 || wants_turn(*host->page)) {
      if (!enter(host, reason)) return;
    } else {
      base.end_of_pass();
    }
  }
  // The dispatcher may have closed the base, or stopped it, or started it anew.
  BaseHost* still = this->host(id);
  if (still == nullptr) return;
  if (still->nested != nullptr) still->nested->waiting_since = monotonic_now();
  settle(still);
}

void EnvState::settle(BaseHost* host) {
  if (released_) return;
  // A loop that is over may still be on the stack.
  if (host->drive == Drive::kNone && host->page->time_cached == 0) host->base->release_files();
  if (host->dispatching) return;
  if (host->drive == Drive::kBase) {
    sync_liveness();
    return;
  }
  if (host->drive != Drive::kNested) return;
  Base& base = *host->base;
  NestedDrive& drive = *host->nested;
  auto* handle = reinterpret_cast<uv_handle_t*>(&drive.poll);
  if (drive.renewals != base.backend().renewals()) {
    // libuv remembers the file that had the number before.
    uv_poll_stop(&drive.poll);
    drive.start_poll();
  }
  if (base.alive() || base.empty())
    uv_ref(handle);
  else
    uv_unref(handle);
  Micros timeout = base.next_timeout();
  const bool finished = base.empty() && host->page->no_exit == 0;
  // From here on the base sleeps in libuv, and a push has to wake it.
  if (base.inbox() != nullptr && timeout != 0 && !base.inbox()->prepare_to_sleep()) timeout = 0;
  if (finished) timeout = 0;
  // Another base changed it when its own turn to tell the kernel was over.
  if (in_prepare_ && base.has_changes()) timeout = 0;
  uv_idle_stop(&drive.now);
  uv_timer_stop(&drive.timer);
  if (timeout == 0) {
    uv_idle_start(&drive.now, [](uv_idle_t* idle) {
      auto* self = static_cast<NestedDrive*>(idle->data);
      if (self->host != nullptr) self->state->turn_nested(self->host);
    });
  } else if (timeout > 0) {
    const auto due = [](uv_timer_t* timer) {
      auto* self = static_cast<NestedDrive*>(timer->data);
      if (self->host != nullptr) self->state->turn_nested(self->host);
    };
    uv_timer_start(&drive.timer, due, to_millis(timeout), 0);
  }
}

double EnvState::idle(BaseHost* host) const {
  double micros = host->page->idle;
  if (host->drive == Drive::kNested && !host->dispatching)
    micros += static_cast<double>(monotonic_now() - host->nested->waiting_since);
  return micros;
}

// ── running and stopping ────────────────────────────────────────────────────────────────────

int EnvState::run(BaseHost* host, bool prefer_base_drive, napi_value dispatcher,
                  napi_value resource) {
  ML_CHECK(!host->running());
  const bool nestable = host->base->backend().pollable_fd() >= 0;
  const bool base_drive = driving_ == nullptr && (prefer_base_drive || !nestable);
  if (!base_drive && !nestable) return -EBUSY;
  if (base_drive) {
    if (const int status = host->base->watch_external(uv_backend_fd(loop_)); status < 0)
      return status;
  } else if (const int status = NestedDrive::start(this, host); status < 0) {
    return status;
  }
  napi_value name = nullptr;
  napi_create_string_utf8(env_, "multiloop.base", NAPI_AUTO_LENGTH, &name);
  ML_CHECK(napi_async_init(env_, resource, name, &host->context) == napi_ok);
  ML_CHECK(napi_create_reference(env_, dispatcher, 1, &host->dispatcher) == napi_ok);
  if (base_drive) {
    driving_ = host;
    host->drive = Drive::kBase;
    start_base_drive();
  } else {
    host->drive = Drive::kNested;
  }
  settle(host);
  return 0;
}

void EnvState::stop(BaseHost* host) {
  // After its loop a base has no cached time, whatever of the pass is still on the stack.
  host->base->end_of_pass();
  if (!host->running()) {
    host->base->apply_changes();  // loopSync's last turn
    return;
  }
  if (host->drive == Drive::kBase) {
    driving_ = nullptr;
    static_cast<void>(host->base->watch_external(-1));
    uv_prepare_stop(&prepare_);
    uv_idle_stop(&idle_);
  } else {
    host->nested->close();
    host->nested = nullptr;
  }
  host->drive = Drive::kNone;
  // It may never wait again: what was removed in its last turn must not linger in the kernel.
  host->base->apply_changes();
  if (ending_) return;
  napi_delete_reference(env_, host->dispatcher);
  napi_async_destroy(env_, host->context);
  host->dispatcher = nullptr;
  host->context = nullptr;
}

}  // namespace multiloop
