#include "backend.h"

#include <cstring>

#include "platform.h"

namespace multiloop {

namespace {

// libevent's order of preference (event.c, eventops): evport, kqueue, epoll, devpoll, poll, select;
// then what it does not have. One guarded line for each.
// clang-format off
constexpr BackendType kTypes[] = {
#ifdef ML_HAVE_EPOLL
    {"epoll", kFeatureEdge | kFeatureConstant | kFeatureEarlyClose, create_epoll},
#endif
    {"poll", kFeatureAnyFd | kFeatureEarlyClose, create_poll},
    {"select", kFeatureAnyFd, create_select},
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
