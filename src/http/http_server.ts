// A server of HTTP on one base: what all of its connections share, and, when it is asked to listen,
// the sockets that they come from. Under serve() there is one on every loop (runtime/http_worker).

import { Ev } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import type { Settings } from '../stream/bev_options.js';
import { checkBase } from '../stream/bev_options.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { BufferEvent as Streams } from '../stream/kinds.js';
import { Listener } from '../stream/listener.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import { checkFunction, invalidType, invalidValue } from '../validate.js';
import { AccessLog, type AccessLogOptions, entryOf } from './access_log.js';
import { beginning } from './date.js';
import { Deadlines } from './deadlines.js';
import { HttpConnection } from './http_connection.js';
import {
  type HttpOptions,
  type HttpSettings,
  httpSettings,
  type RequestHandler,
} from './http_options.js';
import type { HttpRequest } from './http_request.js';
import type { HttpResponse } from './http_response.js';
import { webHandler } from './web_handler.js';
import {
  checkWebSocketOptions,
  isWebSocketRequest,
  upgradeWebSocket,
  WebSocketContexts,
} from './ws_handshake.js';
import { type WebSocketOptions, webSocketSettings } from './ws_options.js';

/** After the last answer, in which the peer may see it and end the connection itself. */
const LINGER_MS = 2_000;
/** RFC 6455 section 7.4.1. */
const GOING_AWAY = 1_001;

/** Belongs to its base's thread. */
export class HttpServer implements Disposable {
  readonly base: EventBase;

  /** @internal */ readonly _settings: HttpSettings;
  /** @internal */ readonly _handler: RequestHandler;
  /** @internal Of the five deadlines, a connection has one at most. */
  readonly _heads: Deadlines;
  /** @internal */ readonly _requests: Deadlines;
  /** @internal */ readonly _answers: Deadlines;
  /** @internal */ readonly _idles: Deadlines;
  /** @internal */ readonly _lingers: Deadlines;
  /** @internal Keeps a stream from moving while a request is answered. */
  _hold: ((stream: BufferEvent) => Disposable) | undefined = undefined;

  /** @internal */ readonly _webSockets: WebSocketContexts;

  /** @internal Requests note when they began. */ readonly _logs: boolean;
  readonly #log: ((request: HttpRequest, response: HttpResponse) => void) | undefined;
  readonly #accessLog: AccessLog | undefined;

  readonly #connections = new Set<HttpConnection>();
  readonly #listeners: Listener[] = [];
  #closing = false;
  #emptied: (() => void) | undefined = undefined;
  /** What the streams of this server have for settings, made of those that they had before. */
  #settingsOf: Settings | undefined = undefined;
  #settingsFor: Settings | undefined = undefined;

  /** Wrong options throw ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE and ERR_OUT_OF_RANGE. */
  constructor(base: EventBase, options: HttpOptions) {
    checkBase(base);
    const settings = httpSettings(options);
    this.base = base;
    this._settings = settings;
    this._handler = handlerOf(options);
    this._webSockets = new WebSocketContexts(
      base,
      options.websocket,
      () => this.#tellEmptied(),
      (error) => this._failed(error, undefined),
    );
    const { accessLog = false } = options;
    this._logs = accessLog !== false;
    if (typeof accessLog === 'function')
      this.#log = (request, response) => accessLog(entryOf(request, response));
    else if (accessLog !== false) {
      const log = new AccessLog(logOptions(accessLog), (error) => this._failed(error, undefined));
      this.#accessLog = log;
      this.#log = (request, response) => log.add(entryOf(request, response));
    }
    this._heads = new Deadlines(base, settings.headersTimeout);
    this._requests = new Deadlines(base, settings.requestTimeout);
    this._answers = new Deadlines(base, settings.answerTimeout);
    this._idles = new Deadlines(base, settings.keepAliveTimeout);
    this._lingers = new Deadlines(base, LINGER_MS);
  }

  /** Accepts connections; several calls listen in several places. What bind(2) says is thrown. */
  listen(options: ListenOptions = {}, onError?: (error: Error) => void): Listener {
    const accept = (fd: number) => {
      this.attach(Streams.socket(this.base, fd));
    };
    const listener = new Listener(this.base, options, accept, onError);
    this.#listeners.push(listener);
    return listener;
  }

  /**
   * Serves a stream of this base, of any kind, which becomes the server's: its handlers are
   * replaced, and it is closed in the end. `requests`: how many it has served elsewhere.
   */
  attach(stream: BufferEvent, requests = 0): HttpConnection {
    if (stream.base !== this.base) throw invalidValue('stream', 'is of another base', stream);
    const connection = new HttpConnection(this, stream, requests);
    stream.handlers = connection as BufferEvent['handlers'];
    this.#setTimeout(stream);
    this.#connections.add(connection);
    if (this.connections > this._settings.connectionsMax || this.#closing)
      refuseConnection(stream, connection);
    else {
      // The first request has the time of a pause before it, and then that of its head.
      this._idles.set(connection);
      stream.enable(Ev.READ);
    }
    return connection;
  }

  /** How many streams there are, those of WebSockets included. */
  get connections(): number {
    return this.#connections.size + this._webSockets.size;
  }

  /**
   * Sends a message to every WebSocket of this server that has subscribed to the topic, a string as
   * text, bytes as binary; under serve(), to every subscriber of the group, as loop.publish() does.
   */
  publish(topic: string, data: string | Uint8Array): void {
    this._webSockets.topics.publish(topic, data, undefined);
  }

  /**
   * Closes what listens and what is idle, WebSockets with 1001; resolves when the others have their
   * answers and all are closed.
   */
  async drain(): Promise<void> {
    this.#closing = true;
    for (const listener of this.#listeners.splice(0)) listener.close();
    for (const connection of [...this.#connections]) connection.end();
    for (const ws of this._webSockets) ws.close(GOING_AWAY);
    if (this.connections === 0) return;
    await new Promise<void>((resolve) => {
      const before = this.#emptied;
      this.#emptied = () => {
        before?.();
        resolve();
      };
    });
  }

  /** At once: what is being answered is cut off. Idempotent. */
  close(): void {
    this.#closing = true;
    for (const listener of this.#listeners.splice(0)) listener.close();
    for (const connection of [...this.#connections]) connection._cut();
    for (const ws of this._webSockets) ws.terminate();
    for (const queue of [this._heads, this._requests, this._answers, this._idles, this._lingers])
      queue.close();
    void this.#accessLog?.close();
  }

  /** The access log, if it writes: to be flushed, and opened anew when its file was renamed. */
  get accessLog(): AccessLog | undefined {
    return this.#accessLog;
  }
  [Symbol.dispose](): void {
    this.close();
  }

  // ── for connections ──

  /** @internal Its loop stops: what is being answered is told so, and so are WebSockets. */
  _goAway(): void {
    for (const connection of this.#connections) connection.closing = true;
    for (const ws of this._webSockets) ws.close(GOING_AWAY);
  }

  /** @internal */
  _remove(connection: HttpConnection): void {
    if (this.#connections.delete(connection)) this.#tellEmptied();
  }
  #tellEmptied(): void {
    if (this.connections > 0) return;
    const emptied = this.#emptied;
    this.#emptied = undefined;
    emptied?.();
  }

  /** @internal */
  _failed(error: Error, request: HttpRequest | undefined): void {
    const { error: hook } = this._settings;
    if (hook !== undefined) guarded(() => hook(error, request));
  }
  /** @internal */
  _completed(request: HttpRequest, response: HttpResponse): void {
    const log = this.#log;
    if (log !== undefined) guarded(() => log(request, response));
    const { complete } = this._settings;
    if (complete !== undefined) guarded(() => complete(request, response));
  }

  /** One object for all streams that had the same settings before. */
  #setTimeout(stream: BufferEvent): void {
    const { sendTimeout } = this._settings;
    const before = stream._settings;
    const after = sendTimeout === 0 ? undefined : sendTimeout;
    if (before.writeTimeout === after || stream.timeouts.write === after) return;
    if (before !== this.#settingsOf) {
      this.#settingsOf = before;
      this.#settingsFor = { ...before, writeTimeout: after };
    }
    stream._settings = this.#settingsFor as Settings;
  }
}

function logOptions(option: true | string | AccessLogOptions): AccessLogOptions {
  if (option === true) return {};
  return typeof option === 'string' ? { path: option } : option;
}

/** Throws what a server with these options would. */
export function checkHttpOptions(options: HttpOptions): void {
  httpSettings(options);
  handlerOf(options);
}

function handlerOf(options: HttpOptions): RequestHandler {
  const { websocket } = options;
  const plain = plainHandlerOf(options);
  if (websocket === undefined) return plain;
  checkWebSocket(websocket);
  const { path } = websocket;
  return (request, response) =>
    isWebSocketRequest(request) && (path === undefined || path === request.path)
      ? upgradeWebSocket(request, response)
      : plain(request, response);
}

function checkWebSocket(options: WebSocketOptions): void {
  webSocketSettings('options.websocket', options);
  checkWebSocketOptions('options.websocket', options);
}

function plainHandlerOf({ request, fetch, scheme }: HttpOptions): RequestHandler {
  if (request !== undefined) checkFunction('options.request', request);
  if (fetch !== undefined) checkFunction('options.fetch', fetch);
  if (request !== undefined && fetch !== undefined)
    throw invalidValue('options.fetch', 'and options.request cannot both be given', fetch);
  if (request !== undefined) return request;
  if (fetch === undefined)
    throw invalidType('options.request', 'of type function, or options.fetch', request);
  if (scheme !== undefined && scheme !== 'http' && scheme !== 'https')
    throw invalidValue('options.scheme', "must be 'http' or 'https'", scheme);
  return webHandler(fetch, scheme);
}

function refuseConnection(stream: BufferEvent, connection: HttpConnection): void {
  stream.write(`${beginning(503, stream.base)}Content-Length: 0\r\nConnection: close\r\n\r\n`);
  connection.end();
}

/** A hook's exception is nobody's here: it is an uncaught one, and HTTP goes on. */
function guarded(hook: () => unknown): void {
  try {
    hook();
  } catch (error) {
    process.nextTick(() => {
      throw error;
    });
  }
}
