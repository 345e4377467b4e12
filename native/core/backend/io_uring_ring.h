// The two rings of an io_uring(7), by its system calls. Only backend/io_uring.cc includes this,
// where the kernel's headers are those of Linux 5.17 or later.
#pragma once

#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "../check.h"
#include "../clock.h"
#include "../sys.h"

// Younger than the headers of Linux 5.17, which have the rest.
#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#define IORING_SETUP_TASKRUN_FLAG (1U << 9)
#define IORING_SQ_TASKRUN (1U << 2)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif

namespace multiloop {

// Entries of a submission; more are submitted in several calls.
constexpr std::uint32_t kSubmissionsMax = 256;
// Completions that the kernel keeps in the ring; it puts more aside (IORING_FEAT_NODROP).
constexpr std::uint32_t kCompletionsMax = 2'048;
// Calls for what it has put aside, or for a submission that it takes in parts.
constexpr int kEnterCallsMax = 4'096;
constexpr std::uint32_t kNeeded =
    IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP;

// Two rings in memory that the kernel shares. Heads and tails are read and written with the order
// that the kernel pairs with (io_uring(7)).
class IoRing {
 public:
  ~IoRing() {
    if (rings_ != MAP_FAILED) ::munmap(rings_, rings_bytes_);
    if (entries_ != MAP_FAILED) ::munmap(entries_, entries_bytes_);
    if (fd_ >= 0) sys::close(fd_);
  }

  int open() {
    io_uring_params params{};
    // The kinds of kernels: 6.0, 5.19, and before.
    constexpr std::uint32_t kCooperative = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    for (const std::uint32_t kind : {IORING_SETUP_SINGLE_ISSUER | kCooperative, kCooperative, 0U}) {
      params = io_uring_params{};
      params.flags = kind | IORING_SETUP_CQSIZE;
      params.cq_entries = kCompletionsMax;
      fd_ = static_cast<int>(::syscall(__NR_io_uring_setup, kSubmissionsMax, &params));
      if (fd_ >= 0) break;
      if (errno != EINVAL) return -errno;
    }
    if (fd_ < 0) return -ENOSYS;
    if ((params.features & kNeeded) != kNeeded) return -ENOSYS;
    return map(params);
  }

  int fd() const { return fd_; }

  bool is_full() const { return tail_ - load(sq_head_) == sq_size_; }
  bool has_unsubmitted() const { return tail_ != load(sq_head_); }

  // The next entry, all zero. It goes to the kernel with the next enter().
  io_uring_sqe& add() {
    ML_CHECK(!is_full());
    io_uring_sqe& entry = entries_[tail_ & (sq_size_ - 1)];
    entry = io_uring_sqe{};
    store(sq_tail_, ++tail_);
    return entry;
  }

  // Submits all and waits for `answers` completions. 0, or -errno; -ETIME when the time was over.
  int enter(std::uint32_t answers, Micros timeout) {
    __kernel_timespec limit{timeout / 1'000'000, (timeout % 1'000'000) * 1'000};
    io_uring_getevents_arg argument{};
    if (timeout >= 0) argument.ts = reinterpret_cast<std::uintptr_t>(&limit);
    for (int call = 0; call < kEnterCallsMax; ++call) {
      const std::uint32_t count = tail_ - load(sq_head_);
      const long taken =
          ::syscall(__NR_io_uring_enter, fd_, count, answers,
                    IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument, sizeof argument);
      if (taken < 0) return -errno;
      // One that is malformed ends a submission (io_uring_enter(2)), and nothing was waited for.
      if (!has_unsubmitted()) return 0;
    }
    return -EAGAIN;
  }

  // Whether completions are to be had by entering the kernel alone.
  bool has_hidden() const {
    return (load(sq_flags_) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
  }

  const io_uring_cqe* first() const {
    return head_ == load(cq_tail_) ? nullptr : &completions_[head_ & (cq_size_ - 1)];
  }
  void pop() { store(cq_head_, ++head_); }

 private:
  static std::uint32_t load(const std::uint32_t* from) {
    return __atomic_load_n(from, __ATOMIC_ACQUIRE);
  }
  static void store(std::uint32_t* to, std::uint32_t value) {
    __atomic_store_n(to, value, __ATOMIC_RELEASE);
  }

  int map(const io_uring_params& params) {
    sq_size_ = params.sq_entries;
    cq_size_ = params.cq_entries;
    rings_bytes_ = std::max<std::size_t>(params.sq_off.array + sq_size_ * sizeof(std::uint32_t),
                                         params.cq_off.cqes + cq_size_ * sizeof(io_uring_cqe));
    entries_bytes_ = sq_size_ * sizeof(io_uring_sqe);
    rings_ = map_part(rings_bytes_, IORING_OFF_SQ_RING);
    if (rings_ == MAP_FAILED) return -errno;
    void* entries = map_part(entries_bytes_, IORING_OFF_SQES);
    if (entries == MAP_FAILED) return -errno;
    entries_ = static_cast<io_uring_sqe*>(entries);
    sq_head_ = part<std::uint32_t>(params.sq_off.head);
    sq_tail_ = part<std::uint32_t>(params.sq_off.tail);
    sq_flags_ = part<std::uint32_t>(params.sq_off.flags);
    cq_head_ = part<std::uint32_t>(params.cq_off.head);
    cq_tail_ = part<std::uint32_t>(params.cq_off.tail);
    completions_ = part<io_uring_cqe>(params.cq_off.cqes);
    // Entries are used in their own order.
    std::uint32_t* order = part<std::uint32_t>(params.sq_off.array);
    for (std::uint32_t i = 0; i < sq_size_; ++i) order[i] = i;
    return 0;
  }

  void* map_part(std::size_t bytes, off_t offset) const {
    return ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, offset);
  }

  template <typename Type>
  Type* part(std::uint32_t offset) const {
    return reinterpret_cast<Type*>(static_cast<char*>(rings_) + offset);
  }

  int fd_ = -1;
  void* rings_ = MAP_FAILED;
  std::size_t rings_bytes_ = 0;
  io_uring_sqe* entries_ = static_cast<io_uring_sqe*>(MAP_FAILED);
  std::size_t entries_bytes_ = 0;
  std::uint32_t sq_size_ = 0;
  std::uint32_t cq_size_ = 0;
  std::uint32_t* sq_head_ = nullptr;
  std::uint32_t* sq_tail_ = nullptr;
  std::uint32_t* sq_flags_ = nullptr;
  std::uint32_t* cq_head_ = nullptr;
  std::uint32_t* cq_tail_ = nullptr;
  const io_uring_cqe* completions_ = nullptr;
  std::uint32_t tail_ = 0;  // of submissions, ours
  std::uint32_t head_ = 0;  // of completions, ours
};

}  // namespace multiloop
