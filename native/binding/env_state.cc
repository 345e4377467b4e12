// The life of an environment: bases by id, and the order of things when its thread ends.

#include "env_state.h"

#include "../core/check.h"
#include "../core/handoff.h"
#include "drive.h"

namespace multiloop {

namespace {

constexpr std::uint32_t kHostSlotBits = 10;
constexpr std::uint32_t kHostsMax = 1U << kHostSlotBits;

}  // namespace

EnvState::EnvState(napi_env env, uv_loop_t* loop) : env_(env), loop_(loop) {
  napi_value probe = nullptr;
  ML_CHECK(napi_create_array(env, &probe) == napi_ok);
  ML_CHECK(napi_create_reference(env, probe, 1, &probe_) == napi_ok);
  // Asynchronous, since our libuv handles have to be closed before the environment goes: a worker
  // thread aborts the process when its loop still has open ones.
  ML_CHECK(napi_add_async_cleanup_hook(env, on_cleanup, this, &cleanup_) == napi_ok);
}

BaseHost* EnvState::host(std::uint32_t id) {
  const std::uint32_t slot = id & (kHostsMax - 1);
  if (slot >= hosts_.size() || hosts_[slot] == nullptr) return nullptr;
  BaseHost* host = hosts_[slot].get();
  return host->id == id && !host->closed ? host : nullptr;
}

BaseHost* EnvState::add_host() {
  std::uint32_t slot = 0;
  while (slot < hosts_.size() && hosts_[slot] != nullptr) ++slot;
  if (slot == kHostsMax) return nullptr;
  if (slot == hosts_.size()) {
    hosts_.emplace_back();
    uses_.push_back(0);
  }
  hosts_[slot] = std::make_unique<BaseHost>();
  BaseHost* host = hosts_[slot].get();
  host->env = this;
  host->id = (++uses_[slot] << kHostSlotBits & 0x7fff'ffff) | slot;
  return host;
}

void EnvState::close_host(BaseHost* host) {
  if (host->dispatching) {
    // The dispatcher is on the stack: it goes when that returns. Its signals take their default
    // action from now on, as whoever closes it may count on.
    host->closed = true;
    host->base->drop_signals();
    return;
  }
  stop(host);
  release_inbox(host);
  host->base.reset();
  if (host->memory != nullptr && !ending_) napi_delete_reference(env_, host->memory);
  hosts_[host->id & (kHostsMax - 1)].reset();
}

void EnvState::forget(int fd) {
  for (const std::unique_ptr<BaseHost>& host : hosts_)
    if (host != nullptr && host->base != nullptr) host->base->forget(fd);
}

void EnvState::release_inbox(BaseHost* host) {
  if (host->base == nullptr) return;
  Inbox* inbox = host->base->inbox();
  if (inbox == nullptr) return;
  host->base->detach();
  release_loop(inbox, true);
  inbox->unref();
}

void EnvState::release() {
  if (released_) return;
  released_ = true;
  for (const std::unique_ptr<BaseHost>& host : hosts_) {
    if (host == nullptr) continue;
    release_inbox(host.get());
    if (host->nested != nullptr) host->nested->stop();
  }
  driving_ = nullptr;
  if (!handles_open_) return;
  uv_prepare_stop(&prepare_);
  uv_idle_stop(&idle_);
}

void EnvState::on_cleanup(napi_async_cleanup_hook_handle handle, void* data) {
  static_cast<void>(handle);
  auto* state = static_cast<EnvState*>(data);
  state->ending_ = true;
  state->release();
  for (const InboxHandle inbox : state->created_inboxes) Inbox::release_creator(inbox);
  state->created_inboxes.clear();
  for (const TlsContextHandle context : state->created_tls_contexts) drop_tls_context(context);
  state->created_tls_contexts.clear();
  for (const QuotaHandle quota : state->created_quotas) Quota::release(quota);
  state->created_quotas.clear();
  for (const int fd : state->files) sys::close(fd);
  state->files.clear();
  for (const TopicLogHandle log : state->created_topic_logs) TopicLog::release(log);
  state->created_topic_logs.clear();
  // Held while the handles are closed one by one.
  state->closing_ += 1;
  for (std::size_t slot = 0; slot < state->hosts_.size(); ++slot) {
    BaseHost* host = state->hosts_[slot].get();
    if (host == nullptr) continue;
    host->dispatching = false;
    state->close_host(host);
  }
  state->close_handles();
  state->closed_one();
}

void EnvState::close_handles() {
  if (!handles_open_) return;
  handles_open_ = false;
  closing_ += 2;
  const auto closed = [](uv_handle_t* handle) {
    static_cast<EnvState*>(handle->data)->closed_one();
  };
  uv_close(reinterpret_cast<uv_handle_t*>(&prepare_), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&idle_), closed);
}

void EnvState::closed_one() {
  ML_CHECK(closing_ > 0);
  if (--closing_ > 0 || !ending_) return;
  // The last thing this environment does with us.
  napi_remove_async_cleanup_hook(cleanup_);
  delete this;
}

}  // namespace multiloop
