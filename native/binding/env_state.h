// Everything the addon keeps for one environment (one thread of Node): its bases, how they are
// driven, and what has to be released when the thread ends. All of it belongs to that thread.
#pragma once

#include <node_api.h>
#include <uv.h>

#include <memory>
#include <vector>

#include "../core/base.h"
#include "../core/inbox.h"
#include "../core/quota.h"
#include "../core/sys.h"
#include "../core/topic_log.h"
#include "napi_util.h"
#include "tls_sessions.h"

namespace multiloop {

class EnvState;

// Why the dispatcher is called, in Page::reason.
enum class Reason : std::int32_t { kPass = 0, kEmpty = 1, kError = 2, kPrepare = 3 };

// Who blocks while the base dispatches (design.md §2).
enum class Drive { kNone, kBase, kNested };

struct NestedDrive;

// A base and what binds it to JavaScript.
struct BaseHost {
  EnvState* env = nullptr;
  std::uint32_t id = 0;
  std::unique_ptr<Base> base;
  Page* page = nullptr;
  napi_ref memory = nullptr;      // keeps the page's memory alive
  napi_ref dispatcher = nullptr;  // TypeScript's function, while running
  napi_async_context context = nullptr;
  Drive drive = Drive::kNone;
  NestedDrive* nested = nullptr;
  bool dispatching = false;  // control is in the dispatcher
  bool closed = false;       // closed while dispatching: destroyed when it returns

  bool running() const { return drive != Drive::kNone; }
};

class EnvState {
 public:
  EnvState(napi_env env, uv_loop_t* loop);

  napi_env env() const { return env_; }
  uv_loop_t* loop() const { return loop_; }

  // Bases. An id names a slot and its use, so that a stale one finds nothing.
  BaseHost* host(std::uint32_t id);
  BaseHost* add_host();
  void close_host(BaseHost* host);
  // `fd` is about to be closed: no base of this thread keeps it in its kernel's set.
  void forget(int fd);

  // Drives. 0, or -EBUSY when the thread's base drive is taken and this base cannot nest.
  int run(BaseHost* host, bool prefer_base_drive, napi_value dispatcher, napi_value resource);
  void stop(BaseHost* host);
  // After a change from outside a pass: liveness, and the nested drive's timer.
  void settle(BaseHost* host);
  // How long the base has waited since it was made, the wait that is on included.
  double idle(BaseHost* host) const;

  // Inboxes created on this thread, given back when it ends.
  std::vector<InboxHandle> created_inboxes;
  // TLS contexts made on this thread, given up when it ends, and its own sessions.
  std::vector<TlsContextHandle> created_tls_contexts;
  TlsSessions tls_sessions;
  // And quotas.
  std::vector<QuotaHandle> created_quotas;
  // Descriptors of files that it serves.
  std::vector<int> files;
  // And what is published in groups of this thread.
  std::vector<TopicLogHandle> created_topic_logs;
  // Closes or passes on what this thread's loops own. Idempotent; see handoff.h.
  void release();
  void release_inbox(BaseHost* host);
  bool released() const { return released_; }

  // Memory of TypeScript's (src/event/sys.ts) for reads and writes of a few bytes.
  ByteSpan small{nullptr, 0};
  napi_ref small_memory = nullptr;
  // Memory of TypeScript's that streams read into (src/buffer/slab.ts).
  ByteSpan slab{nullptr, 0};
  napi_ref slab_memory = nullptr;
  // The peer of the last accept on this thread.
  sys::SockAddr last_peer{};

 private:
  friend struct NestedDrive;
  static void on_prepare(uv_prepare_t* handle);
  static void on_cleanup(napi_async_cleanup_hook_handle handle, void* data);

  void drive_base(BaseHost* host);
  void turn_nested(BaseHost* host);
  void prepare_nested(BaseHost* host);
  bool prepare_turn(BaseHost* host);
  // Calls the dispatcher. False: this thread can run no more JavaScript and was released.
  bool enter(BaseHost* host, Reason reason);
  bool report_pending();
  bool javascript_refused();
  void start_base_drive();
  void sync_liveness();
  void close_handles();
  void closed_one();

  const napi_env env_;
  uv_loop_t* const loop_;
  napi_ref probe_ = nullptr;
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
  std::vector<std::unique_ptr<BaseHost>> hosts_;
  std::vector<std::uint32_t> uses_;

  BaseHost* driving_ = nullptr;  // the one that blocks for this thread
  bool handles_open_ = false;
  bool prepare_refd_ = false;
  bool in_prepare_ = false;  // control is in a handler of libuv's prepare phase
  uv_prepare_t prepare_{};
  uv_idle_t idle_{};
  int closing_ = 0;  // libuv handles whose close callback is outstanding
  bool ending_ = false;
  bool released_ = false;
};

}  // namespace multiloop
