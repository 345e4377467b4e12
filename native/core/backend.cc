#include "backend.h"

#include <cstring>

#include "platform.h"

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
