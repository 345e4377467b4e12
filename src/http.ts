// The public surface of `multiloop/http`.

export type {
  AccessEntry,
  AccessLog,
  AccessLogOption,
  AccessLogOptions,
} from './http/access_log.js';
export { HttpHeaders } from './http/headers.js';
export type { HttpConnection } from './http/http_connection.js';
export { RefusedError } from './http/http_errors.js';
export {
  HTTP_DEFAULTS,
  type HttpHooks,
  type HttpLimits,
  type HttpOptions,
  type HttpTimeouts,
  type RequestHandler,
} from './http/http_options.js';
export type { HttpRequest } from './http/http_request.js';
export type { BodySource, HttpResponse } from './http/http_response.js';
export { HttpServer } from './http/http_server.js';
export { Router } from './http/router.js';
export type { FetchHandler, FetchInfo } from './http/web_handler.js';
export { WebSocket } from './http/websocket.js';
export { connectWebSocket, type WebSocketClientOptions } from './http/ws_client.js';
export { isWebSocketRequest, upgradeWebSocket } from './http/ws_handshake.js';
export {
  WEBSOCKET_DEFAULTS,
  type WebSocketHandlers,
  type WebSocketLimits,
  type WebSocketOptions,
} from './http/ws_options.js';
export type { WebSocketPacked } from './http/ws_state.js';
export { type HttpPacked, type HttpWorkerOptions, httpWorker } from './runtime/http_worker.js';
