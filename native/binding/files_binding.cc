// Files of a folder that is served. What a thread has opened here is closed with it.

#include <algorithm>
#include <cstring>

#include "../core/beneath.h"
#include "../core/sys.h"
#include "env_state.h"
#include "napi_util.h"

namespace multiloop {

namespace {

// PATH_MAX of Linux; a longer path is -ENAMETOOLONG, and one with a NUL in it -EINVAL.
constexpr std::size_t kPathBytes = 4'096;
using Path = ShortString<kPathBytes>;

int check_path(const Path& path) {
  if (path.length + 1 >= kPathBytes) return -ENAMETOOLONG;
  return path.length == 0 || std::strlen(path.text) != path.length ? -EINVAL : 0;
}

napi_value opened(const Args<3>& args, int fd) {
  if (fd >= 0) args.state().files.push_back(fd);
  return js(args.env(), fd);
}

// fileFolder(path) -> fd | -errno
napi_value file_folder(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const Path path(env, args[0]);
  const int status = check_path(path);
  return opened(args, status < 0 ? status : sys::open_folder(path.text));
}

// fileOpen(folder, path, links) -> fd | -errno
napi_value file_open(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const Path path(env, args[1]);
  const int status = check_path(path);
  return opened(args,
                status < 0 ? status : sys::open_beneath(args.i32(0), path.text, args.boolean(2)));
}

// fileClose(fd): of one that was opened here.
napi_value file_close(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const int fd = args.i32(0);
  std::vector<int>& files = args.state().files;
  const auto found = std::find(files.begin(), files.end(), fd);
  ML_CHECK(found != files.end());
  *found = files.back();
  files.pop_back();
  return js(env, sys::close(fd));
}

// fileFollows() -> whether links inside of a folder are followed
napi_value file_follows(napi_env env, napi_callback_info) {
  napi_value out = nullptr;
  napi_get_boolean(env, sys::follows_beneath(), &out);
  return out;
}

}  // namespace

}  // namespace multiloop
