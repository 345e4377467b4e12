#include "change_list.h"

#include <cerrno>

#include "check.h"
#include "made.h"

namespace multiloop {

ChangeList::ChangeList(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {
  ML_CHECK(backend_ != nullptr);
}

ChangeList::Interest& ChangeList::at(int fd) {
  ML_CHECK(fd >= 0);
  const auto number = static_cast<std::size_t>(fd);
  if (number >= interests_.size()) interests_.resize(number + number / 2 + 16);
  return interests_[number];
}

int ChangeList::want(int fd, Mask mask, bool tell) {
  Interest& interest = at(fd);
  if (!interest.known && mask != 0 && !sys::was_made(fd)) {
    const int status = backend_->change(fd, interest.kernel, mask);
    if (status < 0) return status;
    interest.kernel = interest.want = mask;
    interest.known = true;
    return 0;
  }
  interest.known |= mask != 0;
  interest.suspect |= tell;
  interest.want = mask;
  touch(fd, interest);
  return 0;
}

void ChangeList::narrow(int fd, Mask mask) {
  Interest& interest = at(fd);
  interest.want &= mask;
  if (interest.known) touch(fd, interest);
}

int ChangeList::watch(int fd, Mask mask) {
  ML_CHECK(mask != 0);
  Interest& interest = at(fd);
  if (const int status = backend_->change(fd, interest.kernel, mask); status < 0) return status;
  interest.kernel = interest.want = mask;
  interest.known = true;
  interest.suspect = false;
  return 0;
}

void ChangeList::forget(int fd) {
  if (fd < 0 || static_cast<std::size_t>(fd) >= interests_.size()) return;
  Interest& interest = at(fd);
  if (interest.kernel != 0) static_cast<void>(backend_->change(fd, interest.kernel, 0));
  interest.kernel = interest.want = 0;
  interest.known = interest.suspect = false;
  backend_->wake_alone(fd, false);
}

Mask ChangeList::wanted(int fd) const {
  const auto number = static_cast<std::size_t>(fd);
  return fd >= 0 && number < interests_.size() ? interests_[number].want : Mask{0};
}

Mask ChangeList::in_kernel(int fd) const {
  const auto number = static_cast<std::size_t>(fd);
  return fd >= 0 && number < interests_.size() ? interests_[number].kernel : Mask{0};
}

void ChangeList::touch(int fd, Interest& interest) {
  if (interest.dirty) return;
  interest.dirty = true;
  dirty_.push_back(fd);
}

int ChangeList::apply(std::vector<int>* refused) {
  int failure = 0;
  std::size_t kept = 0;
  for (const int fd : dirty_) {
    Interest& interest = at(fd);
    interest.dirty = false;
    const Mask mask = interest.want;
    const bool suspect = interest.suspect;
    if (mask == interest.kernel && !suspect) continue;
    interest.suspect = false;
    // Nothing is left to take out of a set that does not have it.
    if (mask == 0 && interest.kernel == 0) continue;
    const int status = suspect ? backend_->change(fd, interest.kernel, mask)
                               : backend_->change_later(fd, interest.kernel, mask);
    if (status == 0) {
      interest.kernel = mask;
      continue;
    }
    // The interest is as it was (backend.h), and may be taken out before it is told again.
    if (status == -ENOMEM || status == -ENOSPC) {
      failure = status;
      interest.dirty = interest.suspect = true;
      dirty_[kept++] = fd;
      continue;
    }
    // What the kernel may still have of the number is an earlier file's, alive in a duplicate.
    if (interest.kernel != 0) static_cast<void>(backend_->change(fd, interest.kernel, 0));
    refuse(fd, interest, refused);
  }
  dirty_.resize(kept);
  return failure;
}

void ChangeList::take_refused(std::vector<int>* refused) {
  for (int fd = backend_->take_refused(); fd >= 0; fd = backend_->take_refused()) {
    refuse(fd, at(fd), refused);
  }
}

void ChangeList::refuse(int fd, Interest& interest, std::vector<int>* refused) {
  interest.kernel = 0;
  interest.known = false;
  // It was closed behind our back, so the next add is tried at once.
  sys::unmake(fd);
  if (interest.want != 0) refused->push_back(fd);
}

bool ChangeList::valid() const {
  std::size_t dirty = 0;
  for (const Interest& interest : interests_) {
    if (interest.dirty) ++dirty;
    if (interest.kernel != 0 && !interest.known) return false;
    if (!interest.dirty && interest.suspect) return false;
    // Where nothing waits to be told, the two agree; a refused one keeps what it wanted.
    if (!interest.dirty && interest.known && interest.kernel != interest.want) return false;
  }
  if (dirty != dirty_.size()) return false;
  for (const int fd : dirty_)
    if (!interests_[static_cast<std::size_t>(fd)].dirty) return false;
  return true;
}

}  // namespace multiloop
