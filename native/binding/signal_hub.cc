#include "signal_hub.h"

#include <pthread.h>
#include <uv.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <utility>
#include <vector>

#include "../core/check.h"
#include "../core/sys.h"

namespace multiloop {

namespace {

// 65,536 signals that the hub's thread has not come to yet. More needs a privilege by default.
constexpr int kSignalPipeBytes = 1 << 20;

class SignalHub final : public SignalSource {
 public:
  int subscribe(SignalBox* box, int signal) override {
    std::unique_lock<std::mutex> lock(mutex_);
    if (const int status = start_thread(); status < 0) return status;
    return serve(&lock, {signal, box});
  }

  void unsubscribe(SignalBox* box, int signal) override {
    std::unique_lock<std::mutex> lock(mutex_);
    std::vector<SignalBox*>& boxes = watches_[signal].boxes;
    const auto at = std::find(boxes.begin(), boxes.end(), box);
    ML_CHECK(at != boxes.end());
    boxes.erase(at);
    if (boxes.empty()) ML_CHECK(serve(&lock, {signal, nullptr}) == 0);
  }

 private:
  // Each handle belongs to the hub's thread, the rest to whoever has the lock.
  struct Watch {
    uv_signal_t handle{};
    bool initialised = false;
    bool active = false;
    bool was_ignored = false;
    std::vector<SignalBox*> boxes;
  };

  // "This box waits for the signal", or, without one, "perhaps nobody does any more": in whatever
  // order threads ask, the last to be served leaves it right.
  struct Command {
    int signal;
    SignalBox* box;
    int status = 0;
    bool done = false;
  };

  int start_thread() {
    if (running_) return 0;
    if (!opened_) {
      if (const int status = uv_loop_init(&loop_); status < 0) return status;
      if (const int status = uv_async_init(&loop_, &wake_, on_wake); status < 0) {
        ML_CHECK(uv_loop_close(&loop_) == 0);
        return status;
      }
      ML_CHECK(uv_check_init(&loop_, &turn_end_) == 0);
      ML_CHECK(uv_check_start(&turn_end_, on_turn_end) == 0);
      wake_.data = turn_end_.data = this;
      // libuv's handler drops what its pipe has no room for; 64 KiB are 4,096 signals. The kernel
      // may refuse, and then it is those.
      sys::set_pipe_size(loop_.signal_pipefd[1], kSignalPipeBytes);
      opened_ = true;
    }
    // No signal is handled on the hub's thread: it inherits the mask in which all are blocked.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    ML_CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    uv_thread_t thread;
    const int status = uv_thread_create(
        &thread, [](void* loop) { uv_run(static_cast<uv_loop_t*>(loop), UV_RUN_DEFAULT); }, &loop_);
    ML_CHECK(pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
    if (status < 0) return status;
    pthread_detach(thread);
    running_ = true;
    return 0;
  }

  int serve(std::unique_lock<std::mutex>* lock, Command command) {
    commands_.push_back(&command);
    ML_CHECK(uv_async_send(&wake_) == 0);
    served_.wait(*lock, [&] { return command.done; });
    return command.status;
  }

  // A box is not told of what came before it asked. That may wait in libuv's pipe still, so a
  // command is served when the loop has polled once more, and has read what that has found.
  static void on_wake(uv_async_t* async) {
    auto* hub = static_cast<SignalHub*>(async->data);
    const std::lock_guard<std::mutex> lock(hub->mutex_);
    hub->due_ = std::exchange(hub->seen_, std::exchange(hub->commands_, {}));
    if (!hub->seen_.empty()) ML_CHECK(uv_async_send(async) == 0);
  }

  static void on_turn_end(uv_check_t* check) {
    auto* hub = static_cast<SignalHub*>(check->data);
    const std::lock_guard<std::mutex> lock(hub->mutex_);
    if (hub->due_.empty()) return;
    for (Command* command : hub->due_) {
      hub->obey(command);
      command->done = true;
    }
    hub->due_.clear();
    hub->served_.notify_all();
  }

  void obey(Command* command) {
    Watch& watch = watches_[command->signal];
    if (command->box == nullptr) {
      if (watch.boxes.empty() && watch.active && !watch.was_ignored) stop(&watch);
      return;
    }
    if (!watch.active) command->status = start(&watch, command->signal);
    if (command->status == 0) watch.boxes.push_back(command->box);
  }

  int start(Watch* watch, int signal) {
    if (!watch->initialised) {
      if (const int status = uv_signal_init(&loop_, &watch->handle); status < 0) return status;
      watch->handle.data = this;
      watch->initialised = true;
    }
    struct sigaction before {};
    watch->was_ignored = ::sigaction(signal, nullptr, &before) == 0 &&
                         !(before.sa_flags & SA_SIGINFO) && before.sa_handler == SIG_IGN;
    const int status = uv_signal_start(&watch->handle, on_signal, signal);
    watch->active = status == 0;
    return status;
  }

  // Never for a signal that was ignored, as Node ignores SIGPIPE. libuv knows no other end than the
  // default action, and another thread may write to a closed pipe before anybody could ignore it
  // again. Caught for nobody, it is ignored as well.
  static void stop(Watch* watch) {
    uv_signal_stop(&watch->handle);
    watch->active = false;
  }

  static void on_signal(uv_signal_t* handle, int signal) {
    auto* hub = static_cast<SignalHub*>(handle->data);
    const std::lock_guard<std::mutex> lock(hub->mutex_);
    for (SignalBox* box : hub->watches_[signal].boxes) box->raise(signal);
  }

  std::mutex mutex_;
  std::condition_variable served_;
  // On the stacks of those who wait: asked, seen by the loop in this turn, and due at its end.
  std::vector<Command*> commands_;
  std::vector<Command*> seen_;
  std::vector<Command*> due_;
  bool opened_ = false;
  bool running_ = false;
  uv_loop_t loop_{};
  uv_async_t wake_{};
  uv_check_t turn_end_{};
  Watch watches_[kSignalsMax + 1];
};

}  // namespace

SignalSource* signal_hub() {
  static SignalHub* const hub = new SignalHub;
  return hub;
}

}  // namespace multiloop
