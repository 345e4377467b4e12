#include "backend.h"

#include <cstring>

namespace multiloop {

namespace {

// libevent's order of preference (event.c, eventops).
constexpr BackendType kTypes[] = {
    {"epoll", kFeatureEdge | kFeatureConstant | kFeatureEarlyClose, create_epoll},
    {"poll", kFeatureAnyFd | kFeatureEarlyClose, create_poll},
    {"select", kFeatureAnyFd, create_select},
};

}  // namespace

std::span<const BackendType> backend_types() { return kTypes; }

const BackendType* find_backend(const char* name) {
  for (const BackendType& type : kTypes)
    if (std::strcmp(type.name, name) == 0) return &type;
  return nullptr;
}

}  // namespace multiloop
