#include "tls_key_log.h"

#include "platform.h"

#ifdef ML_HAVE_TLS

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

namespace multiloop {

namespace {

struct Logs {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<TlsKeyLog>> open;
};

// Never destroyed, as a context may outlive all statics.
Logs& logs() {
  static Logs* const made = new Logs;
  return *made;
}

}  // namespace

std::shared_ptr<TlsKeyLog> TlsKeyLog::open(const std::string& path, std::string* error) {
  Logs& all = logs();
  const std::lock_guard lock(all.mutex);
  for (auto place = all.open.begin(); place != all.open.end();)
    place = place->second.expired() ? all.open.erase(place) : std::next(place);
  std::weak_ptr<TlsKeyLog>& known = all.open[path];
  if (std::shared_ptr<TlsKeyLog> log = known.lock(); log != nullptr) return log;
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
  if (fd < 0) {
    *error = "the key log " + path + " cannot be opened: " + std::strerror(errno);
    return nullptr;
  }
  const std::shared_ptr<TlsKeyLog> log(new TlsKeyLog(fd));
  known = log;
  return log;
}

TlsKeyLog::~TlsKeyLog() { ::close(fd_); }

void TlsKeyLog::add(std::string_view line) const {
  std::string text(line);
  text += '\n';
  while (::write(fd_, text.data(), text.size()) < 0 && errno == EINTR) continue;
}

}  // namespace multiloop

#endif
