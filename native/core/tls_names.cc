#include "tls_names.h"

#include <algorithm>

namespace multiloop {

namespace {

constexpr std::size_t kNameMax = 253;
// Of the list, of a name, and the name's type before its length (RFC 6066 section 3).
constexpr std::size_t kLengthBytes = 2;
constexpr unsigned char kHostName = 0;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::size_t length_at(const unsigned char* bytes) {
  return static_cast<std::size_t>(bytes[0]) << 8 | bytes[1];
}

}  // namespace

std::string plain_server_name(std::string_view name) {
  std::string out(name);
  for (char& c : out) c = lower(c);
  if (!out.empty() && out.back() == '.') out.pop_back();
  return out;
}

bool is_askable_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameMax &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~'; });
}

std::string_view server_name_in(const unsigned char* body, std::size_t length) {
  constexpr std::size_t kHead = kLengthBytes + 1 + kLengthBytes;
  if (length < kHead || length_at(body) != length - kLengthBytes) return {};
  if (body[kLengthBytes] != kHostName) return {};
  const std::size_t size = length_at(body + kLengthBytes + 1);
  if (size != length - kHead) return {};
  return {reinterpret_cast<const char*>(body + kHead), size};
}

void TlsNames::add(std::string_view pattern, TlsContextRef context) {
  std::string name = plain_server_name(pattern);
  const auto place = std::lower_bound(
      names_.begin(), names_.end(), name,
      [](const auto& entry, const std::string& wanted) { return entry.first < wanted; });
  names_.insert(place, {std::move(name), std::move(context)});
}

const TlsContextRef* TlsNames::find(std::string_view name) const {
  const auto exact = [this](const std::string& wanted) -> const TlsContextRef* {
    const auto place = std::lower_bound(
        names_.begin(), names_.end(), wanted,
        [](const auto& entry, const std::string& text) { return entry.first < text; });
    return place != names_.end() && place->first == wanted ? &place->second : nullptr;
  };
  const std::string wanted = plain_server_name(name);
  if (const TlsContextRef* found = exact(wanted); found != nullptr) return found;
  const std::size_t dot = wanted.find('.');
  if (dot == std::string::npos || dot == 0) return nullptr;
  return exact("*" + wanted.substr(dot));
}

void TlsLearnedNames::add(std::string_view name, TlsContextRef context) {
  std::string plain = plain_server_name(name);
  TlsContextRef last;  // freed when nobody waits
  const std::lock_guard lock(mutex_);
  if (const auto place = places_.find(plain); place != places_.end()) {
    last = std::exchange(place->second->second, std::move(context));
    entries_.splice(entries_.begin(), entries_, place->second);
    return;
  }
  if (entries_.size() == kMax) {
    last = std::move(entries_.back().second);
    places_.erase(entries_.back().first);
    entries_.pop_back();
  }
  entries_.emplace_front(plain, std::move(context));
  places_.emplace(std::move(plain), entries_.begin());
}

TlsContextRef TlsLearnedNames::find(std::string_view name) {
  const std::string plain = plain_server_name(name);
  const std::lock_guard lock(mutex_);
  const auto place = places_.find(plain);
  if (place == places_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, place->second);
  return place->second->second;
}

std::size_t TlsLearnedNames::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace multiloop
