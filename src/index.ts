// multiloop's public surface.

export type { BufferChange, ChangeCallback } from './buffer/changes.js';
export { type Bytes, EvBuffer } from './buffer/ev_buffer.js';
export { FileSegment, type FileSegmentOptions } from './buffer/file_segment.js';
export type { Eol } from './buffer/search.js';
export { type ErrorCode, MultiloopError, type SystemError } from './errors.js';
export type { CommonTimeout } from './event/common_timeout.js';
export * from './event/ev.js';
export { EventBase } from './event/event_base.js';
export { type EventCallback, EventHandle } from './event/event_handle.js';
export type { EventBaseOptions, EventCounts } from './event/options.js';
export { sys } from './event/sys.js';
export type { Watcher } from './event/watchers.js';
export type { AcceptMode } from './runtime/accept_mode.js';
export type { Moved } from './runtime/baggage.js';
export type { Connection } from './runtime/connection.js';
export type { ConnectionInfo } from './runtime/connection_list.js';
export {
  type DrainReport,
  type GroupStats,
  LoopGroup,
  type ReloadOptions,
  type ReloadReport,
} from './runtime/loop_group.js';
export type { LoopHandle, LoopState, LoopStats } from './runtime/loop_slot.js';
export type {
  PeekContext,
  PeekEnd,
  PeekFunction,
  PeekName,
  PeekOptions,
  PeekReader,
} from './runtime/peek.js';
export type { Distribute, Incoming, PolicyName } from './runtime/policy.js';
export { serve } from './runtime/serve.js';
export type { ServeOptions } from './runtime/settings.js';
export type { TopicOptions } from './runtime/topics.js';
export { defineWorker, type LoopContext, type LoopWorker } from './runtime/worker.js';
export { type Address, formatAddress, parseAddress } from './stream/address.js';
export type { BevEvent, BevHandlers, BevOptions, FlushMode } from './stream/bev_options.js';
export type { ConnectOptions } from './stream/connect.js';
export { Datagram } from './stream/datagram.js';
export type { DatagramOptions } from './stream/datagram_options.js';
export type { DuplexAdapter, DuplexOptions } from './stream/duplex_adapter.js';
export type { BevFilter, FilterFunction, FilterResult } from './stream/filter.js';
export type { FilterStream } from './stream/filter_stream.js';
export { type ClientHello, readClientHello } from './stream/heads/client_hello.js';
export type { Head, More } from './stream/heads/head.js';
export { type HttpHead, readHttpHead } from './stream/heads/http_head.js';
export { type ProxyHeader, readProxyHeader } from './stream/heads/proxy_header.js';
export { BufferEvent } from './stream/kinds.js';
export { Listener } from './stream/listener.js';
export type { ListenOptions } from './stream/listening_socket.js';
export type { PairStream } from './stream/pair_stream.js';
export { RateLimit, type RateLimits } from './stream/rate_limit.js';
export { RateLimitGroup } from './stream/rate_limit_group.js';
export type { DatagramMessage } from './stream/receive_room.js';
export type { SocketStream } from './stream/socket_stream.js';
export type { StackedStream } from './stream/stacked_stream.js';
export type {
  SniCallback,
  TlsCertificate,
  TlsClientOptions,
  TlsInfo,
  TlsServerOptions,
  TlsVersion,
} from './stream/tls_options.js';
export type { TlsStream } from './stream/tls_stream.js';
export type { KeyUpdateOptions } from './stream/tls_transport.js';
export type { TopicLimits } from './stream/topic_table.js';
export {
  type TransformFilterOptions,
  transformFilter,
  type ZlibFilterOptions,
  type ZlibFormat,
  zlibFilter,
} from './stream/transform_filter.js';
export { version, versionNumber } from './version.js';
