#include "waker.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "check.h"
#include "platform.h"
#include "sys.h"

namespace multiloop {

namespace {

constexpr std::size_t kDrainBytes = 1'024;
// A pipe holds 64 KiB by default, so this many reads empty any of them.
constexpr int kDrainReadsMax = 128;

constexpr WakerType kTypes[] = {
#ifdef ML_HAVE_EVENTFD
    {"eventfd", Waker::Kind::kEventfd, nullptr},
#endif
#ifdef ML_HAVE_KQUEUE
    {"evfilt_user", Waker::Kind::kUser, "kqueue"},
#endif
    {"pipe", Waker::Kind::kPipe, nullptr},
};

}  // namespace

std::span<const WakerType> waker_types() { return kTypes; }

const WakerType* find_waker(const char* name) {
  for (const WakerType& type : kTypes)
    if (std::strcmp(type.name, name) == 0) return &type;
  return nullptr;
}

bool WakerType::fits(const char* backend_name) const {
  return backend == nullptr || std::strcmp(backend, backend_name) == 0;
}

Waker::Kind Waker::preferred() {
  for (const WakerType& type : kTypes)
    if (type.backend == nullptr) return type.kind;
  return Kind::kPipe;
}

int Waker::open(Kind kind) {
  ML_CHECK(read_end_ == -1);
  kind_ = kind;
  if (kind == Kind::kUser) return 0;
  if (kind == Kind::kEventfd) {
    const int fd = sys::eventfd();
    if (fd < 0) return fd;
    read_end_ = write_end_ = fd;
    return 0;
  }
  int ends[2];
  const int status = sys::pipe(ends);
  if (status < 0) return status;
  read_end_ = ends[0];
  write_end_ = ends[1];
  return 0;
}

void Waker::bind(std::shared_ptr<const WakeTarget> target) {
  ML_CHECK(kind_ == Kind::kUser && target != nullptr && (bound_ == nullptr || bound_ == target));
  bound_ = std::move(target);
  target_.store(bound_.get(), std::memory_order_release);
}

void Waker::close() {
  target_.store(nullptr, std::memory_order_relaxed);
  bound_.reset();
  if (read_end_ < 0) return;
  sys::close(read_end_);
  if (write_end_ != read_end_) sys::close(write_end_);
  read_end_ = write_end_ = -1;
}

void Waker::wake() const {
  if (kind_ == Kind::kUser) {
    // A loop binds before it sleeps for the first time.
    if (const WakeTarget* target = target_.load(std::memory_order_acquire)) target->wake();
    return;
  }
  // EAGAIN means that the counter or the pipe is full of wake-ups that nobody has taken yet: the
  // sleeper is awake already.
  const std::uint64_t one = 1;
  const long status = kind_ == Kind::kEventfd ? sys::write(write_end_, &one, sizeof one)
                                              : sys::write(write_end_, &one, 1);
  ML_CHECK(status > 0 || status == -EAGAIN);
}

void Waker::drain() const {
  char bytes[kDrainBytes];
  for (int i = 0; i < kDrainReadsMax; ++i) {
    const long count = sys::read(read_end_, bytes, sizeof bytes);
    if (count < static_cast<long>(sizeof bytes)) return;
  }
}

}  // namespace multiloop
