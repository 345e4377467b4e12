#include "signal_hub.h"

#include <fcntl.h>
#include <pthread.h>
#include <uv.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <vector>

#include "../core/check.h"

namespace multiloop {

namespace {

// 65,536 signals that the hub's thread has not come to yet. More needs a privilege by default.
constexpr int kSignalPipeBytes = 1 << 20;

class SignalHub final : public SignalSource {
 public:
  int subscribe(SignalBox* box, int signal) override {
    std::unique_lock<std::mutex> lock(mutex_);
    if (const int status = start_thread(); status < 0) return status;
    std::vector<SignalBox*>& boxes = watches_[signal].boxes;
    boxes.push_back(box);
    if (boxes.size() > 1 && watches_[signal].active) return 0;
    const int status = reconcile(&lock, signal);
    if (status < 0) boxes.erase(std::find(boxes.begin(), boxes.end(), box));
    return status;
  }

  void unsubscribe(SignalBox* box, int signal) override {
    std::unique_lock<std::mutex> lock(mutex_);
    std::vector<SignalBox*>& boxes = watches_[signal].boxes;
    const auto at = std::find(boxes.begin(), boxes.end(), box);
    ML_CHECK(at != boxes.end());
    boxes.erase(at);
    if (boxes.empty()) ML_CHECK(reconcile(&lock, signal) == 0);
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

  // "See to it that this signal is caught exactly if somebody wants it": whatever threads ask for
  // at one time, and in whatever order they are served, the last to be served leaves it right.
  struct Command {
    int signal;
    int status = 0;
    bool done = false;
  };

  int start_thread() {
    if (running_) return 0;
    if (!opened_) {
      if (const int status = uv_loop_init(&loop_); status < 0) return status;
      if (const int status = uv_async_init(&loop_, &wake_, on_command); status < 0) {
        ML_CHECK(uv_loop_close(&loop_) == 0);
        return status;
      }
      wake_.data = this;
      // libuv's handler drops what its pipe has no room for; 64 KiB are 4,096 signals. The kernel
      // may refuse, and then it is those.
      static_cast<void>(fcntl(loop_.signal_pipefd[1], F_SETPIPE_SZ, kSignalPipeBytes));
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

  int reconcile(std::unique_lock<std::mutex>* lock, int signal) {
    Command command{signal};
    commands_.push_back(&command);
    ML_CHECK(uv_async_send(&wake_) == 0);
    served_.wait(*lock, [&] { return command.done; });
    return command.status;
  }

  static void on_command(uv_async_t* async) {
    auto* hub = static_cast<SignalHub*>(async->data);
    const std::lock_guard<std::mutex> lock(hub->mutex_);
    for (Command* command : hub->commands_) {
      Watch& watch = hub->watches_[command->signal];
      const bool wanted = !watch.boxes.empty();
      if (wanted && !watch.active) command->status = hub->start(&watch, command->signal);
      if (!wanted && watch.active && !watch.was_ignored) stop(&watch);
      command->done = true;
    }
    hub->commands_.clear();
    hub->served_.notify_all();
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
  std::vector<Command*> commands_;  // on the stacks of those who wait
  bool opened_ = false;
  bool running_ = false;
  uv_loop_t loop_{};
  uv_async_t wake_{};
  Watch watches_[kSignalsMax + 1];
};

}  // namespace

SignalSource* signal_hub() {
  static SignalHub* const hub = new SignalHub;
  return hub;
}

}  // namespace multiloop
