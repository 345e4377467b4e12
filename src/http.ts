// The public surface of `multiloop/http`.

export type {
  AccessEntry,
  AccessLog,
  AccessLogOption,
  AccessLogOptions,
} from './http/access_log.js';
export type { BodySource } from './http/body_source.js';
export {
  HTTP_CLIENT_DEFAULTS,
  type HttpClientHooks,
  type HttpClientLimits,
  type HttpClientOptions,
  type HttpClientTimeouts,
  type HttpRequestOptions,
} from './http/client_options.js';
export type { HttpClientResponse } from './http/client_response.js';
export type { Encoding } from './http/encodings.js';
export {
  escapeHtml,
  parseQuery,
  type QueryOptions,
  uriDecode,
  uriDecodeBytes,
  uriEncode,
} from './http/escape.js';
export {
  EVENT_STREAM_DEFAULTS,
  EventStream,
  type EventStreamOptions,
  eventStream,
  type ServerSentEvent,
} from './http/event_stream.js';
export { type FileOptions, type FilesOptions, files, sendFile } from './http/files.js';
export { HeaderList, type HeadersInit } from './http/header_list.js';
export { HttpHeaders } from './http/headers.js';
export { HttpClient } from './http/http_client.js';
export type { HttpConnection } from './http/http_connection.js';
export { RefusedError } from './http/http_errors.js';
export { HttpListener } from './http/http_listener.js';
export {
  type ErrorBody,
  HTTP_DEFAULTS,
  type HttpHooks,
  type HttpLimits,
  type HttpOptions,
  type HttpTimeouts,
  type RequestHandler,
} from './http/http_options.js';
export type { HttpRequest } from './http/http_request.js';
export type { HttpResponse } from './http/http_response.js';
export { type HttpListenOptions, HttpServer, type StreamMaker } from './http/http_server.js';
export { Router } from './http/router.js';
export { Uri, type UriOptions } from './http/uri.js';
export type { FetchHandler, FetchInfo } from './http/web_handler.js';
export { WebSocket } from './http/websocket.js';
export { connectWebSocket, type WebSocketClientOptions } from './http/ws_client.js';
export { DEFLATE_DEFAULTS, type WebSocketDeflate } from './http/ws_deflate.js';
export { isWebSocketRequest, upgradeWebSocket } from './http/ws_handshake.js';
export type { DeflateAgreement } from './http/ws_negotiation.js';
export {
  WEBSOCKET_DEFAULTS,
  type WebSocketHandlers,
  type WebSocketLimits,
  type WebSocketOptions,
} from './http/ws_options.js';
export type { WebSocketPacked } from './http/ws_state.js';
export { type HttpPacked, type HttpWorkerOptions, httpWorker } from './runtime/http_worker.js';
