// poll(2): the whole interest set goes to the kernel at every wait. Any descriptor is accepted,
// regular files (always ready) included.
#include <cerrno>
#include <vector>

#include "../backend.h"
#include "../check.h"
#include "../sys.h"
#include "poll_mask.h"

namespace multiloop {

namespace {

// A SOCKET on Windows (sockets.h).
int number_of(const pollfd& entry) { return static_cast<int>(entry.fd); }

class Poll final : public Backend {
 public:
  int change(int fd, Mask before, Mask after) override {
    static_cast<void>(before);
    const auto number = static_cast<std::size_t>(fd);
    const bool known = number < places_.size() && places_[number] != kNowhere;
    if (after == 0) {
      if (known) remove(number);
      return 0;
    }
    if (known) {
      set_[places_[number]].events = to_poll(after);
      return 0;
    }
    // poll(2) answers POLLNVAL only later; the caller is told now, as epoll would tell it.
    if (const int status = sys::check_open(fd); status < 0) return status;
    if (number >= places_.size()) places_.resize(number + number / 2 + 16, kNowhere);
    places_[number] = set_.size();
    pollfd entry{};
    entry.fd = static_cast<decltype(entry.fd)>(fd);
    entry.events = to_poll(after);
    set_.push_back(entry);
    return 0;
  }

  int wait(Micros timeout, std::span<Ready> out) override {
    const int ready = sys::poll(set_.data(), set_.size(), timeout);
    if (ready < 0) return ready == -EINTR ? 0 : ready;
    return collect(static_cast<std::size_t>(ready), out);
  }

 private:
  static constexpr std::size_t kNowhere = SIZE_MAX;

  // The scan starts where the last one stopped, so that descriptors in front cannot starve the
  // ones behind them when `out` is smaller than what is ready.
  int collect(std::size_t ready, std::span<Ready> out) {
    std::size_t count = 0;
    const std::size_t size = set_.size();
    if (scan_ >= size) scan_ = 0;
    std::size_t at = scan_;
    for (std::size_t seen = 0; seen < size && count < ready && count < out.size(); ++seen) {
      const pollfd& entry = set_[at];
      if (entry.revents != 0) out[count++] = {number_of(entry), from_poll(entry.revents)};
      if (++at == size) at = 0;
    }
    scan_ = at;
    return static_cast<int>(count);
  }

  void remove(std::size_t number) {
    const std::size_t place = places_[number];
    ML_CHECK(place < set_.size());
    set_[place] = set_.back();
    places_[static_cast<std::size_t>(number_of(set_[place]))] = place;
    places_[number] = kNowhere;
    set_.pop_back();
  }

  std::vector<pollfd> set_;
  std::vector<std::size_t> places_;  // by descriptor: its index in set_
  std::size_t scan_ = 0;
};

}  // namespace

std::unique_ptr<Backend> create_poll(int* error) {
  *error = 0;
  return std::make_unique<Poll>();
}

}  // namespace multiloop
