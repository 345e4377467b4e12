// Contexts by server name (RFC 6066 section 3), those that are configured and those that were asked
// for. Names are compared without regard to case, and may end with the root of the DNS.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiloop {

class TlsContext;
using TlsContextRef = std::shared_ptr<const TlsContext>;

// In lower case and without a dot at the end.
std::string plain_server_name(std::string_view name);

// Whether a name is asked for: printable ASCII and no longer than the DNS allows (RFC 1035 section
// 2.3.4), so that it may be shown and logged. Who sends another one gets the default.
bool is_askable_name(std::string_view name);

// The name in the body of a server_name extension; empty when there is none or it is malformed,
// which OpenSSL answers itself.
std::string_view server_name_in(const unsigned char* body, std::size_t length);

// Contexts by name, with the rules of certificates (RFC 6125 section 6.4): an exact name before a
// wildcard, which is the whole leftmost label and stands for one.
class TlsNames {
 public:
  void add(std::string_view pattern, TlsContextRef context);
  const TlsContextRef* find(std::string_view name) const;
  bool empty() const { return names_.empty(); }

 private:
  std::vector<std::pair<std::string, TlsContextRef>> names_;  // sorted, plain
};

// Contexts that a name was answered with while the listener runs; the one that was used longest ago
// goes when there are too many. Any thread.
class TlsLearnedNames {
 public:
  static constexpr std::size_t kMax = 512;

  void add(std::string_view name, TlsContextRef context);
  TlsContextRef find(std::string_view name);
  std::size_t size() const;

 private:
  using Entry = std::pair<std::string, TlsContextRef>;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // the latest first
  std::unordered_map<std::string, std::list<Entry>::iterator> places_;
};

// What a session has found out about its name so far.
struct TlsNaming {
  enum State { kOpen, kAsked, kAnswered, kRefused };
  State state = kOpen;
  std::string name;
  TlsContextRef context;  // of an answer; null: the listener's own
};

}  // namespace multiloop
