// The secrets of sessions, in a file, for whoever debugs what was said over them: NSS's key log
// format (draft-ietf-tls-keylogfile), a line for each secret. Only when it was asked for.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace multiloop {

class TlsKeyLog {
 public:
  // The file is appended to, and made for its user alone; all who name it the same share its
  // descriptor. Null, and why in `error`.
  static std::shared_ptr<TlsKeyLog> open(const std::string& path, std::string* error);
  ~TlsKeyLog();
  TlsKeyLog(const TlsKeyLog&) = delete;
  TlsKeyLog& operator=(const TlsKeyLog&) = delete;

  // One write(2) a line, so that lines of several threads and processes do not mix. Any thread. A
  // line that the file does not take is lost: no connection fails for it.
  void add(std::string_view line) const;

 private:
  explicit TlsKeyLog(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace multiloop
