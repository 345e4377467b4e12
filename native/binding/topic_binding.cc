// What is published in a group, for TypeScript; see core/topic_log.h. A log that was released
// answers as one in which nothing is published.

#include <cstring>

#include "../core/topic_log.h"
#include "env_state.h"
#include "napi_util.h"

namespace multiloop {

namespace {

// One read takes so many bytes at most, and a message of so many is one by itself, since streams
// refer to its memory instead of copying it (src/stream/buffer_event.ts, REFERENCE_BYTES).
constexpr std::size_t kTopicReadBytes = 256 * 1024;
constexpr std::size_t kTopicLargeBytes = 4 * 1024;
constexpr std::size_t kTopicNameSize = 256;  // with its end

// Before each entry: payload's length and flags, topic's length, except; little-endian, packed.
constexpr std::size_t kTopicHead = 4 + 2 + 2 + 8;

// topicsNew(bytes, messages, kept bytes, kept messages) -> handle | -ENOSPC
napi_value topics_new(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  const TopicLogHandle log = TopicLog::create({args.u64(0), args.u64(1), args.u64(2), args.u64(3)});
  if (log == kNoTopicLog) return js(env, -ENOSPC);
  args.state().created_topic_logs.push_back(log);
  return js(env, log);
}

napi_value topics_free(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const TopicLogHandle log = args.u32(0);
  if (std::erase(args.state().created_topic_logs, log) > 0) TopicLog::release(log);
  return js_undefined(env);
}

// topicsAppend(log, from, bucket, flags, except, topic, payload) -> true | number[]: the inboxes
// that it would be too much for.
napi_value topics_append(napi_env env, napi_callback_info info) {
  const Args<7> args(env, info);
  const auto log = TopicLog::find(args.u32(0));
  napi_value done = nullptr;
  napi_get_boolean(env, true, &done);
  if (log == nullptr) return done;
  const ShortString<kTopicNameSize> topic(env, args[5]);
  const ByteSpan payload = bytes_of(env, args[6]);
  auto entry = std::make_shared<TopicLog::Entry>();
  entry->bucket = args.u32(2);
  entry->flags = args.u32(3);
  entry->except = args.u64(4);
  entry->topic.assign(topic.text, topic.length);
  entry->payload.assign(payload.data, payload.data + payload.length);
  std::vector<InboxHandle> full;
  if (log->append(args.u32(1), std::move(entry), &full)) return done;
  napi_value list = nullptr;
  napi_create_array_with_length(env, full.size(), &list);
  for (std::uint32_t i = 0; i < full.size(); ++i) napi_set_element(env, list, i, js(env, full[i]));
  return list;
}

// topicsJoin(log, inbox, join: boolean)
napi_value topics_join(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const auto log = TopicLog::find(args.u32(0));
  if (log == nullptr) return js_undefined(env);
  if (args.boolean(2))
    log->join(args.u32(1));
  else
    log->leave(args.u32(1));
  return js_undefined(env);
}

// topicsInterest(log, inbox, bucket, on)
napi_value topics_interest(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  const auto log = TopicLog::find(args.u32(0));
  if (log != nullptr) log->interest(args.u32(1), args.u32(2), args.boolean(3));
  return js_undefined(env);
}

// A Buffer of the entries: the place behind the last one as a double, then head, topic and payload
// of each.
napi_value pack_entries(napi_env env, const TopicLog::Entries& entries, std::uint64_t next) {
  std::size_t size = sizeof(double);
  for (const auto& entry : entries)
    size += kTopicHead + entry->topic.size() + entry->payload.size();
  void* data = nullptr;
  napi_value buffer = nullptr;
  ML_CHECK(napi_create_buffer(env, size, &data, &buffer) == napi_ok);
  auto* at = static_cast<std::byte*>(data);
  const auto put = [&at](const void* bytes, std::size_t length) {
    if (length > 0) std::memcpy(at, bytes, length);
    at += length;
  };
  const auto place = static_cast<double>(next);
  put(&place, sizeof place);
  for (const auto& entry : entries) {
    const auto length = static_cast<std::uint32_t>(entry->payload.size());
    const auto flags = static_cast<std::uint16_t>(entry->flags);
    const auto name = static_cast<std::uint16_t>(entry->topic.size());
    const auto except = static_cast<double>(entry->except);
    put(&length, sizeof length);
    put(&flags, sizeof flags);
    put(&name, sizeof name);
    put(&except, sizeof except);
    put(entry->topic.data(), entry->topic.size());
    put(entry->payload.data(), entry->payload.size());
  }
  return buffer;
}

// topicsRead(log, inbox, done) -> Buffer | number: the place up to which there is nothing to read.
napi_value topics_read(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const auto log = TopicLog::find(args.u32(0));
  if (log == nullptr) return js(env, args.number(2));
  TopicLog::Entries entries;
  const std::uint64_t next =
      log->read(args.u32(1), args.u64(2), kTopicReadBytes, kTopicLargeBytes, &entries);
  if (entries.empty()) return js(env, static_cast<double>(next));
  return pack_entries(env, entries, next);
}

// topicsReplay(log, from, to) -> Buffer; it has no entry when there is none, or none any more.
napi_value topics_replay(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const auto log = TopicLog::find(args.u32(0));
  TopicLog::Entries entries;
  std::uint64_t next = args.u64(2);
  if (log != nullptr)
    static_cast<void>(log->replay(args.u64(1), args.u64(2), kTopicReadBytes, &entries, &next));
  return pack_entries(env, entries, next);
}

// topicsNote(log, inbox, connection, topic, on)
napi_value topics_note(napi_env env, napi_callback_info info) {
  const Args<5> args(env, info);
  const auto log = TopicLog::find(args.u32(0));
  const ShortString<kTopicNameSize> topic(env, args[3]);
  if (log != nullptr)
    log->note(args.u32(1), args.u64(2), std::string(topic.text, topic.length), args.boolean(4));
  return js_undefined(env);
}

napi_value topics_forget(napi_env env, napi_callback_info info) {
  const Args<2> args(env, info);
  const auto log = TopicLog::find(args.u32(0));
  if (log != nullptr) log->forget(args.u64(1));
  return js_undefined(env);
}

// topicsUnderWay(log, connection, on)
napi_value topics_under_way(napi_env env, napi_callback_info info) {
  const Args<3> args(env, info);
  const auto log = TopicLog::find(args.u32(0));
  if (log != nullptr) log->under_way(args.u64(1), args.boolean(2));
  return js_undefined(env);
}

// topicsAdopt(log, inbox, connection, position: 0 if unknown) -> [position, topics]
napi_value topics_adopt(napi_env env, napi_callback_info info) {
  const Args<4> args(env, info);
  const auto log = TopicLog::find(args.u32(0));
  std::uint64_t position = args.u64(3);
  std::vector<std::string> topics;
  if (log != nullptr) topics = log->adopt(args.u32(1), args.u64(2), &position);
  napi_value list = nullptr;
  napi_create_array_with_length(env, topics.size(), &list);
  for (std::uint32_t i = 0; i < topics.size(); ++i)
    napi_set_element(env, list, i, js(env, topics[i].c_str()));
  napi_value pair = nullptr;
  napi_create_array_with_length(env, 2, &pair);
  napi_set_element(env, pair, 0, js(env, static_cast<double>(position)));
  napi_set_element(env, pair, 1, list);
  return pair;
}

// topicsSizes(log) -> [entries, readers, connections]
napi_value topics_sizes(napi_env env, napi_callback_info info) {
  const Args<1> args(env, info);
  const auto log = TopicLog::find(args.u32(0));
  napi_value list = nullptr;
  napi_create_array_with_length(env, 3, &list);
  if (log == nullptr) return list;
  std::uint32_t at = 0;
  for (const std::size_t size : log->sizes())
    napi_set_element(env, list, at++, js(env, static_cast<double>(size)));
  return list;
}

}  // namespace

}  // namespace multiloop
