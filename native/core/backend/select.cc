// select(2), the oldest. Its sets are allocated here and grow with the highest descriptor: the
// kernel takes any size, only the C library's fd_set stops at 1,024 (select(2), BUGS), and loops
// that start late get higher numbers than that.

#include "../platform.h"

#ifdef ML_HAVE_SELECT

// macOS refuses more than FD_SETSIZE otherwise (select(2), "Limits and compatibility").
#define _DARWIN_UNLIMITED_SELECT 1
#include <sys/select.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "../backend.h"
#include "../check.h"
#include "../sys.h"

namespace multiloop {

namespace {

// Descriptors past this are refused with EMFILE: three such sets copied at every wait are no
// longer a sensible way to wait.
constexpr int kDescriptorsMax = 65'536;
// A wait that is over early is another wait. Systems need not take more than 31 days (POSIX,
// select), and macOS refuses what is above a hundred million seconds.
constexpr Micros kWaitMax = Micros{31} * 24 * 3'600 * 1'000'000;

timeval limit_of(Micros timeout) {
  const Micros limit = std::min(timeout, kWaitMax);
  timeval out{};
  out.tv_sec = static_cast<decltype(out.tv_sec)>(limit / 1'000'000);
  out.tv_usec = static_cast<decltype(out.tv_usec)>(limit % 1'000'000);
  return out;
}

class BitSet {
 public:
  void grow(std::size_t bits) { words_.resize((bits + kBits - 1) / kBits, 0); }
  void set(std::size_t bit) { words_[bit / kBits] |= 1UL << (bit % kBits); }
  void clear(std::size_t bit) { words_[bit / kBits] &= ~(1UL << (bit % kBits)); }
  bool test(std::size_t bit) const { return (words_[bit / kBits] >> (bit % kBits)) & 1; }
  fd_set* kernel() { return reinterpret_cast<fd_set*>(words_.data()); }
  std::size_t bits() const { return words_.size() * kBits; }

 private:
  static constexpr std::size_t kBits = 8 * sizeof(unsigned long);
  std::vector<unsigned long> words_;
};

class Select final : public Backend {
 public:
  int change(int fd, Mask before, Mask after) override {
    static_cast<void>(before);
    const auto number = static_cast<std::size_t>(fd);
    if (after != 0 && fd >= kDescriptorsMax) return -EMFILE;
    if (number >= read_.bits()) {
      if (after == 0) return 0;
      grow(number + 1);
    }
    if (after != 0 && !read_.test(number) && !write_.test(number)) {
      // select(2) would fail as a whole with EBADF; the one who adds is told instead.
      if (const int status = sys::check_open(fd); status < 0) return status;
    }
    read_.clear(number);
    write_.clear(number);
    // CLOSED has no bit of its own here: the feature is not claimed and the base refuses it.
    if (after & kRead) read_.set(number);
    if (after & kWrite) write_.set(number);
    if (after != 0 && fd >= limit_) limit_ = fd + 1;
    while (limit_ > 0 && !interested(static_cast<std::size_t>(limit_ - 1))) --limit_;
    return 0;
  }

  int wait(Micros timeout, std::span<Ready> out) override {
    ready_read_ = read_;
    ready_write_ = write_;
    timeval limit = limit_of(timeout);
    const int ready = ::select(limit_, ready_read_.kernel(), ready_write_.kernel(), nullptr,
                               timeout < 0 ? nullptr : &limit);
    if (ready == -1 && errno == EBADF) return look_around_closed(out);
    if (ready < 0) return errno == EINTR ? 0 : -errno;
    return ready == 0 ? 0 : collect(out);
  }

 private:
  bool interested(std::size_t number) const { return read_.test(number) || write_.test(number); }

  void grow(std::size_t bits) {
    const std::size_t size = bits + bits / 2 + 64;
    for (BitSet* set : {&read_, &write_, &ready_read_, &ready_write_}) set->grow(size);
  }

  int collect(std::span<Ready> out) {
    std::size_t count = 0;
    if (scan_ >= limit_) scan_ = 0;
    for (int seen = 0; seen < limit_ && count < out.size(); ++seen) {
      const auto number = static_cast<std::size_t>(scan_);
      Mask what = 0;
      if (ready_read_.test(number)) what |= kRead;
      if (ready_write_.test(number)) what |= kWrite;
      if (what != 0) out[count++] = {scan_, what};
      if (++scan_ == limit_) scan_ = 0;
    }
    return static_cast<int>(count);
  }

  // Somebody closed a descriptor that is still in the set. It is reported as ready, so that its
  // owner meets EBADF in the call it makes; the others are asked about without it, and go on.
  int look_around_closed(std::span<Ready> out) {
    closed_.clear();
    for (int fd = 0; fd < limit_; ++fd) {
      const auto number = static_cast<std::size_t>(fd);
      if (!interested(number) || sys::check_open(fd) == 0) continue;
      closed_.push_back(number);
      ready_read_.clear(number);
      ready_write_.clear(number);
    }
    timeval none{0, 0};
    if (::select(limit_, ready_read_.kernel(), ready_write_.kernel(), nullptr, &none) < 0)
      return errno == EINTR ? 0 : -errno;
    for (const std::size_t number : closed_) {
      ready_read_.set(number);
      ready_write_.set(number);
    }
    return collect(out);
  }

  BitSet read_, write_, ready_read_, ready_write_;
  std::vector<std::size_t> closed_;
  int limit_ = 0;  // one past the highest descriptor of interest
  int scan_ = 0;   // where the next scan starts, for fairness
};

}  // namespace

std::unique_ptr<Backend> create_select(int* error) {
  *error = 0;
  return std::make_unique<Select>();
}

}  // namespace multiloop

#endif  // ML_HAVE_SELECT
