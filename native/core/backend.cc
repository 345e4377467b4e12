#include "backend.h"

#include <cstring>

#include "platform.h"

namespace multiloop {

namespace {

// poll(2) of POSIX cannot tell an end of stream from data.
#ifdef ML_HAVE_POLLRDHUP
constexpr std::uint8_t kPollFeatures = kFeatureAnyFd | kFeatureEarlyClose;
#else
constexpr std::uint8_t kPollFeatures = kFeatureAnyFd;
#endif

// libevent's order of preference (event.c, eventops): evport, kqueue, epoll, devpoll, poll, select;
// then what it does not have. One guarded line for each.
// clang-format off
constexpr BackendType kTypes[] = {
#ifdef ML_HAVE_KQUEUE
    {"kqueue", kFeatureEdge | kFeatureConstant | kFeatureAnyFd | kFeatureEarlyClose, create_kqueue,
     kEmulated},
#endif
#ifdef ML_HAVE_EPOLL
    {"epoll", kFeatureEdge | kFeatureConstant | kFeatureEarlyClose, create_epoll},
#endif
    {"poll", kPollFeatures, create_poll},
    {"select", kFeatureAnyFd, create_select},
#ifdef ML_HAVE_IO_URING
    {"io_uring", kFeatureEdge | kFeatureConstant | kFeatureAnyFd | kFeatureEarlyClose,
     create_io_uring},
#endif
};
// clang-format on

}  // namespace

std::span<const BackendType> backend_types() { return kTypes; }

const BackendType* find_backend(const char* name) {
  for (const BackendType& type : kTypes)
    if (std::strcmp(type.name, name) == 0) return &type;
  return nullptr;
}

}  // namespace multiloop
