#include "backend.h"

#include "platform.h"

#ifdef ML_HAVE_IO_URING
#include <pthread.h>
#endif

#include <cstring>

namespace multiloop {

namespace {

// What the kernel tells by poll(2)'s bits: that of POSIX cannot tell an end of stream from data.
#ifdef ML_HAVE_POLLRDHUP
constexpr std::uint8_t kPollFeatures = kFeatureAnyFd | kFeatureEarlyClose;
#else
constexpr std::uint8_t kPollFeatures = kFeatureAnyFd;
#endif

// libevent's order of preference (event.c, eventops): evport, kqueue, epoll, devpoll, poll, select;
// then what it does not have. One guarded line for each.
// clang-format off
constexpr BackendType kTypes[] = {
#ifdef ML_HAVE_EVPORT
    {"evport", kFeatureConstant | kPollFeatures, create_evport, kEmulated},
#endif
#ifdef ML_HAVE_KQUEUE
    {"kqueue", kFeatureEdge | kFeatureConstant | kFeatureAnyFd | kFeatureEarlyClose, create_kqueue,
     kEmulated},
#endif
#ifdef ML_HAVE_EPOLL
    {"epoll", kFeatureEdge | kFeatureConstant | kFeatureEarlyClose, create_epoll},
#endif
#ifdef ML_HAVE_DEVPOLL
    {"devpoll", kFeatureConstant | kPollFeatures, create_devpoll, kEmulated},
#endif
    {"poll", kPollFeatures, create_poll},
#ifdef ML_HAVE_SELECT
    {"select", kFeatureAnyFd, create_select},
#endif
#ifdef ML_HAVE_IO_URING
    {"io_uring", kFeatureEdge | kFeatureConstant | kFeatureAnyFd | kFeatureEarlyClose,
     create_io_uring},
#endif
};
// clang-format on

}  // namespace

std::span<const BackendType> backend_types() { return kTypes; }

// On a thread of its own, since a ring of io_uring's that is closed interrupts the thread that had
// it once more, some 20 ms later (Linux, io_uring.c, io_ring_exit_work). Nobody asked for one here.
std::vector<int> try_backends() {
  std::vector<int> statuses;
  const auto body = [](void* into) -> void* {
    for (const BackendType& type : kTypes) {
      int error = 0;
      const bool made = type.create(&error) != nullptr;
      static_cast<std::vector<int>*>(into)->push_back(made ? 0 : error);
    }
    return nullptr;
  };
#ifdef ML_HAVE_IO_URING
  pthread_t thread;
  // Where there are no threads to be had, that one interruption is the lesser evil.
  if (pthread_create(&thread, nullptr, body, &statuses) == 0) {
    pthread_join(thread, nullptr);
    return statuses;
  }
#endif
  body(&statuses);
  return statuses;
}

const BackendType* find_backend(const char* name) {
  for (const BackendType& type : kTypes)
    if (std::strcmp(type.name, name) == 0) return &type;
  return nullptr;
}

}  // namespace multiloop
