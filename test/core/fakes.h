// What stands in for the world outside a base: a backend that counts and fails when told to, a
// kernel of a few numbers, and a source of signals that the test itself raises.
#pragma once

#include <cerrno>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "../../native/core/backend.h"
#include "../../native/core/signal_box.h"
#include "check.h"

namespace multiloop::test {

// Counts what reaches a backend, and fails when told to.
class Watched final : public Backend {
 public:
  explicit Watched(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}
  int change(int fd, Mask before, Mask after) override {
    ++changes;
    return refusal != 0 ? refusal : inner_->change(fd, before, after);
  }
  void wake_alone(int fd, bool alone) override { inner_->wake_alone(fd, alone); }
  void flush() override { inner_->flush(); }
  bool has_unflushed() const override { return inner_->has_unflushed(); }
  bool holds_files() const override { return inner_->holds_files(); }
  int take_refused() override { return inner_->take_refused(); }
  int wait(Micros timeout, std::span<Ready> out) override {
    ++waits;
    return failure != 0 ? failure : inner_->wait(timeout, out);
  }
  int pollable_fd() const override { return inner_->pollable_fd(); }
  std::uint32_t renewals() const override { return inner_->renewals(); }

  int changes = 0;
  int waits = 0;
  int refusal = 0;  // of every change
  int failure = 0;  // of every wait

 private:
  const std::unique_ptr<Backend> inner_;
};

// A kernel without files: which file a number names is what the test says. As epoll's, its set
// goes by number and file, a closed file leaves it, and the backend repairs what it finds.
class FakeKernel final : public Backend {
 public:
  // `fd` names another file from now on.
  void open(int fd) {
    close(fd);
    files_[fd] = ++last_file_;
  }
  void close(int fd) {
    if (const int file = file_of(fd); file != 0) set_.erase({fd, file});
    files_[fd] = 0;
  }
  bool is_open(int fd) const { return file_of(fd) != 0; }
  // What it watches `fd` for.
  Mask mask(int fd) const {
    const auto at = set_.find({fd, file_of(fd)});
    return at == set_.end() ? Mask{0} : at->second;
  }
  std::size_t size() const { return set_.size(); }

  int change(int fd, Mask, Mask after) override {
    ++changes;
    if (refusal != 0) return refusal;
    if (!is_open(fd)) return after == 0 ? 0 : -EBADF;
    if (after == 0)
      set_.erase({fd, file_of(fd)});
    else
      set_[{fd, file_of(fd)}] = after;
    return 0;
  }
  int wait(Micros, std::span<Ready>) override { return 0; }

  int changes = 0;
  int refusal = 0;  // of every change

 private:
  int file_of(int fd) const {
    const auto at = files_.find(fd);
    return at == files_.end() ? 0 : at->second;
  }

  std::map<int, int> files_;  // by number; 0 is closed
  std::map<std::pair<int, int>, Mask> set_;
  int last_file_ = 0;
};

// Catches nothing: raise() is the signal.
class FakeSignals final : public SignalSource {
 public:
  int subscribe(SignalBox* box, int signal) override {
    ++subscribes;
    if (refusal != 0) return refusal;
    EXPECT_TRUE(caught_.insert({signal, box}).second);
    return 0;
  }
  void unsubscribe(SignalBox* box, int signal) override {
    ++unsubscribes;
    EXPECT_EQ(caught_.erase({signal, box}), 1);
  }
  // To every base that asked for it; answers how many did.
  int raise(int signal) const {
    int bases = 0;
    for (const auto& [number, box] : caught_) {
      if (number != signal) continue;
      box->raise(signal);
      ++bases;
    }
    return bases;
  }
  // The first box that asked for it, or null.
  SignalBox* box(int signal) const {
    for (const auto& [number, box] : caught_)
      if (number == signal) return box;
    return nullptr;
  }
  bool catches(int signal) const { return box(signal) != nullptr; }
  std::size_t caught() const { return caught_.size(); }

  int subscribes = 0;
  int unsubscribes = 0;
  int refusal = 0;  // of every subscription

 private:
  std::set<std::pair<int, SignalBox*>> caught_;
};

}  // namespace multiloop::test
