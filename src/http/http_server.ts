// A server of HTTP on one base: what all of its connections share, and, when it is asked to listen,
// the sockets that they come from. Under serve() there is one on every loop (runtime/http_worker).

import { Ev } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import { sys } from '../event/sys.js';
import type { Settings } from '../stream/bev_options.js';
import { checkBase } from '../stream/bev_options.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { BufferEvent as Streams } from '../stream/kinds.js';
import { Listener } from '../stream/listener.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import { checkFunction, invalidType, invalidValue } from '../validate.js';
import { AccessLog, type AccessLogOptions, entryOf } from './access_log.js';
import { isToken } from './characters.js';
import { beginning } from './date.js';
import { Deadlines } from './deadlines.js';
import { HttpConnection } from './http_connection.js';
import { asError, guarded } from './http_errors.js';
import { HttpListener } from './http_listener.js';
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

/** RFC 6455 section 7.4.1. */
const GOING_AWAY = 1_001;

/** Makes a stream of a connection that was accepted, whose descriptor it owns unless it throws. */
export type StreamMaker = (base: EventBase, fd: number) => BufferEvent;

export interface HttpListenOptions extends ListenOptions {
  /**
   * Makes the streams of what is accepted here: TLS (`BufferEvent.socket(base, fd, { tls })`), rate
   * limits, a filter. What it throws closes the connection and is told to the `error` hook.
   */
  makeStream?: StreamMaker;
}

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

  /** @internal What handlers keep for this server, until close(). */
  readonly _kept = new Map<object, { clear(): void }>();

  /** @internal Answers that have no end of their own. */
  readonly _streams = new Set<{ leave(atOnce: boolean): void }>();
  /** @internal Set when they are to end: whether there is somebody else to go to. */
  _leaving: boolean | undefined = undefined;

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
    this._lingers = new Deadlines(base, settings.lingerTimeout);
  }

  /**
   * Accepts connections, with `tls` over TLS; several calls listen in several places. What bind(2)
   * says is thrown, and ERR_TLS_CONFIG for a certificate, a key or a setting that cannot be used.
   * To listen there no more, close what this answers; connections that it has accepted go on.
   */
  listen(options: HttpListenOptions = {}, onError?: (error: Error) => void): HttpListener {
    const { makeStream, ...place } = options;
    checkMaker(makeStream, place.tls);
    const attach = (stream: BufferEvent) => {
      this.attach(stream);
    };
    const listener = HttpListener.open(this.base, place, attach, onError);
    if (makeStream !== undefined) listener.onAccept = (fd) => this.#attachMade(makeStream, fd);
    this.#listeners.push(listener);
    return listener;
  }
  /** The same with a listener of this base that is there already, which becomes the server's. */
  adopt(listener: Listener, makeStream?: StreamMaker): Listener {
    if (!(listener instanceof Listener))
      throw invalidType('listener', 'an instance of Listener', listener);
    if (listener.base !== this.base) throw invalidValue('listener', 'is of another base', listener);
    checkMaker(makeStream, undefined);
    const make = makeStream ?? Streams.socket;
    listener.onAccept = (fd) => this.#attachMade(make, fd);
    this.#listeners.push(listener);
    return listener;
  }
  #attachMade(makeStream: StreamMaker, fd: number): void {
    let stream: BufferEvent;
    try {
      stream = makeStream(this.base, fd);
    } catch (error) {
      sys.close(fd);
      this._failed(asError(error), undefined);
      return;
    }
    this.attach(stream);
  }
  /** Where it listens: those that are not closed. */
  get listeners(): Listener[] {
    return this.#listeners.filter((listener) => !listener.closed);
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
    this._endStreams(false);
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
    for (const kept of this._kept.values()) kept.clear();
    this._kept.clear();
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
    this._endStreams(false);
    for (const ws of this._webSockets) ws.close(GOING_AWAY);
  }

  /** @internal Event streams end; `atOnce`: their clients find another server if they ask now. */
  _endStreams(atOnce: boolean): void {
    this._leaving ??= atOnce;
    for (const stream of [...this._streams]) stream.leave(atOnce);
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

/** With a maker, TLS is its business. */
function checkMaker(makeStream: StreamMaker | undefined, tls: ListenOptions['tls']): void {
  if (makeStream === undefined) return;
  checkFunction('makeStream', makeStream);
  if (tls !== undefined) throw invalidValue('listen.tls', 'cannot go with makeStream', tls);
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
  const plain = onlyOf(options.methods, plainHandlerOf(options));
  if (websocket === undefined) return plain;
  checkWebSocket(websocket);
  const { path } = websocket;
  return (request, response) =>
    isWebSocketRequest(request) && (path === undefined || path === request.path)
      ? upgradeWebSocket(request, response)
      : plain(request, response);
}

/** Asked for these methods alone. */
function onlyOf(methods: readonly string[] | undefined, handler: RequestHandler): RequestHandler {
  if (methods === undefined) return handler;
  if (!Array.isArray(methods))
    throw invalidType('options.methods', 'an instance of Array', methods);
  for (const method of methods)
    if (typeof method !== 'string' || !isToken(method))
      throw invalidValue('options.methods', 'has one that is no method', method);
  const known = new Set(methods);
  const allow = methods.join(', ');
  return (request, response) => {
    if (known.has(request.method)) return handler(request, response);
    response.fail(405, `${request.method} is not allowed here`, { Allow: allow });
    return undefined;
  };
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
