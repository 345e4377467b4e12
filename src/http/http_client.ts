// A client of HTTP: one server, one connection at a time, and a queue of requests that take turns
// on it (libevent's evhttp_connection). Whoever wants several at once makes several clients.

import { isIP } from 'node:net';
import { MultiloopError } from '../errors.js';
import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { guarded } from '../guard.js';
import type { Address } from '../stream/address.js';
import { checkBase } from '../stream/bev_options.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { checkAddress } from '../stream/connect.js';
import { BufferEvent as Streams } from '../stream/kinds.js';
import type { SocketStream } from '../stream/socket_stream.js';
import { planClient, type TlsClientOptions } from '../stream/tls_options.js';
import { checkObject, invalidType } from '../validate.js';
import { reading } from './body_source.js';
import {
  ClientConnection,
  type ConnectionOwner,
  type Exchange,
  type Failure,
} from './client_connection.js';
import {
  type ClientSettings,
  clientSettings,
  type HttpClientOptions,
  type HttpRequestOptions,
} from './client_options.js';
import { ClientRequest } from './client_request.js';
import type { HttpClientResponse } from './client_response.js';
import { Deadlines } from './deadlines.js';
import { checkHeader } from './header_checks.js';
import { aborted, asError } from './http_errors.js';

/** What twice as long ends with. */
const RETRY_DELAY_MAX = 3_600_000;
const PORT = 80;
const TLS_PORT = 443;

/** A request, and what ends with it. */
interface Waiting extends Exchange {
  forget(): void;
}

/** Belongs to its base's thread. */
export class HttpClient implements Disposable {
  readonly base: EventBase;
  /** Where it connects to; undefined for one that only has streams. */
  readonly to: Address | undefined;

  readonly #options: HttpClientOptions;
  readonly #settings: ClientSettings;
  readonly #authority: string;
  readonly #owner: ConnectionOwner;
  readonly #queue: Waiting[] = [];
  #current: Waiting | undefined = undefined;
  #connection: ClientConnection | undefined = undefined;
  /** To connect, since the last one that succeeded. */
  #attempts = 0;
  #retry: EventHandle | undefined = undefined;
  #retrying = false;
  /** Given, and not used yet. */
  #first: BufferEvent | undefined;
  /** The address that it was connected to, with `reuseAddress`. */
  #known: Address | undefined = undefined;
  /** Of TLS, from the connection that was answered last, for the next one to resume. */
  #session: Uint8Array | undefined = undefined;
  #sessionOf: ClientConnection | undefined = undefined;
  #ending = false;
  #closed = false;
  #ended: (() => void)[] = [];

  readonly #answers: Deadlines;
  readonly #reads: Deadlines;
  readonly #unread: Deadlines;
  readonly #continues: Deadlines;
  #idles: Deadlines | undefined = undefined;
  #idleMs = -1;

  /**
   * Connects when there is a request. Wrong options throw ERR_INVALID_ARG_TYPE,
   * ERR_INVALID_ARG_VALUE, ERR_OUT_OF_RANGE and what TLS has to say (ERR_TLS_CONFIG).
   */
  constructor(base: EventBase, options: HttpClientOptions) {
    checkBase(base);
    const settings = clientSettings(options);
    const { tls, stream, makeStream } = options;
    this.base = base;
    this.#options = { ...options };
    this.#settings = settings;
    this.to = placeOf(options);
    if (this.to === undefined && stream === undefined && makeStream === undefined)
      throw invalidType('options.host', 'of type string, or path, stream or makeStream', undefined);
    if (tls !== undefined) planClient(tls, options.host);
    this.#first = stream;
    this.#authority = authorityOf(options);
    checkHeader('Host', this.#authority);
    this.#answers = new Deadlines(base, settings.answerTimeout);
    this.#reads = new Deadlines(base, settings.readTimeout);
    this.#unread = new Deadlines(base, settings.unreadTimeout);
    this.#continues = new Deadlines(base, settings.continueTimeout);
    this.#owner = this.#makeOwner();
  }

  /**
   * Sends a request when those before it have their answers, and resolves with the head of its own.
   * Read its body or `discard()` it: beyond 64 KiB, the next request waits for that, up to
   * `unreadTimeout`.
   *
   * Rejects with what the system says when connecting fails (all that wait, after `retries`), with
   * ERR_HTTP_ABORTED when the connection ends before the answer, ERR_HTTP_TIMEOUT, ERR_HTTP_ANSWER
   * and ERR_HTTP_ANSWER_TOO_LARGE for what is none, ERR_HTTP_QUEUE_FULL, ERR_HTTP_CLIENT_CLOSED,
   * ERR_HTTP_LENGTH, the signal's reason, what the body's source throws, and ERR_INVALID_ARG_TYPE
   * and ERR_INVALID_ARG_VALUE for wrong arguments.
   *
   * A request that finds a kept connection ended by the server before any byte of an answer is sent
   * once more on a new one, if its method is idempotent (RFC 9110 section 9.2.2) or none of it had
   * left, and its body is no source.
   */
  async request(options: HttpRequestOptions = {}): Promise<HttpClientResponse> {
    checkObject('options', options);
    const request = new ClientRequest(options, this.#authority);
    const { signal } = request;
    const { queueMax } = this.#settings;
    signal?.throwIfAborted();
    if (this.#ending)
      throw new MultiloopError('ERR_HTTP_CLIENT_CLOSED', 'The client takes no more requests');
    if (this.#queue.length >= queueMax)
      throw new MultiloopError(
        'ERR_HTTP_QUEUE_FULL',
        `${queueMax} requests wait already (queueMax): wait for answers, or make another client`,
      );
    return new Promise((resolve, reject) => {
      const abort = () => this.#abort(waiting, asError(signal?.reason));
      const waiting: Waiting = {
        request,
        resolve,
        reject,
        retried: false,
        forget: () => signal?.removeEventListener('abort', abort),
      };
      signal?.addEventListener('abort', abort, { once: true });
      this.#queue.push(waiting);
      this.#next();
    });
  }

  /** How many have no whole answer yet. */
  get pending(): number {
    return this.#queue.length + (this.#current === undefined ? 0 : 1);
  }
  /** The connection that there is now, for addresses, TLS and counters; it is HTTP's. */
  get stream(): BufferEvent | undefined {
    return this.#connection?.stream;
  }

  /** Takes no more requests; resolves when all have their answers and the connection is closed. */
  drain(): Promise<void> {
    this.#ending = true;
    return new Promise((resolve) => {
      this.#ended.push(resolve);
      if (this.pending === 0) this.close();
    });
  }

  /** At once: what waits, and what is under way, rejects with ERR_HTTP_ABORTED. Idempotent. */
  close(): void {
    this.#ending = this.#closed = true;
    const error = aborted('its client was closed');
    this.#first?.destroy();
    this.#first = undefined;
    this.#connection?.end(error);
    this.#failAll(error);
    this.#retry?.free();
    this.#retry = undefined;
    const { answers, reads, unread, continues } = this.#owner.deadlines;
    for (const queue of [answers, reads, unread, continues, this.#idles]) queue?.close();
    for (const ended of this.#ended.splice(0)) ended();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  // ── what is next ──

  #next(): void {
    if (this.#closed || this.#current !== undefined || this.#retrying) return;
    if (this.#queue.length === 0) {
      if (this.#ending) this.close();
      return;
    }
    const connection = this.#connection;
    if (connection === undefined) this.#connect();
    else if (connection.idle) {
      this.#current = this.#queue.shift() as Waiting;
      connection.start(this.#current);
    }
  }

  #connect(): void {
    const given = this.#first;
    this.#first = undefined;
    let stream: BufferEvent;
    const { makeStream } = this.#options;
    const own = given === undefined && makeStream === undefined;
    try {
      if (given !== undefined) stream = given;
      else if (makeStream !== undefined) stream = makeStream.call(this.#options);
      else stream = this.#open();
      this.#connection = new ClientConnection(this.#owner, stream, own);
    } catch (error) {
      this.#notConnected(asError(error));
      return;
    }
    if (!own) this.#next();
  }

  #open(): BufferEvent {
    const { localAddress, localPort, tls } = this.#options;
    const { connectTimeout } = this.#settings;
    if (this.to === undefined) throw aborted('its stream has ended, and there is no host');
    return Streams.connect(this.base, this.#known ?? this.to, {
      localAddress,
      localPort,
      ...(connectTimeout > 0 ? { timeout: connectTimeout } : {}),
      ...(tls === undefined ? {} : { tls: this.#tls(tls) }),
    });
  }
  /** The name stays what is asked for and checked when only its address is connected to. */
  #tls(tls: TlsClientOptions): TlsClientOptions {
    const { host } = this.#options;
    const named = host !== undefined && isIP(host) === 0 ? { servername: host } : {};
    return { ALPNProtocols: ['http/1.1'], session: this.#session, ...named, ...tls };
  }

  /** Once for each connection, when data has come: TLS 1.3 has its tickets before that. */
  #noteSession(): void {
    const connection = this.#connection;
    if (this.#options.tls === undefined || connection === this.#sessionOf) return;
    this.#sessionOf = connection;
    this.#session = (connection?.stream as Partial<SocketStream> | undefined)?.tlsSession;
  }

  #notConnected(error: Error): void {
    // If that was the reason, the next try is without.
    this.#session = this.#sessionOf = undefined;
    const { retries, retryDelay } = this.#settings;
    if (this.#attempts >= retries || this.#queue.length === 0) {
      this.#attempts = 0;
      this.#failAll(error);
      this.#next();
      return;
    }
    const delay = Math.min(retryDelay * 2 ** this.#attempts, RETRY_DELAY_MAX);
    this.#attempts++;
    this.#retrying = true;
    this.#retry ??= this.base.timer(() => {
      this.#retrying = false;
      this.#next();
    });
    this.#retry.add(delay);
  }

  // ── what the connection tells ──

  #makeOwner(): ConnectionOwner {
    const { base } = this;
    const idles = (ms: number): Deadlines => {
      if (this.#idleMs !== ms) {
        this.#idles?.close();
        this.#idles = undefined;
      }
      this.#idleMs = ms;
      this.#idles ??= new Deadlines(base, ms);
      return this.#idles;
    };
    return {
      settings: this.#settings,
      deadlines: {
        answers: this.#answers,
        reads: this.#reads,
        unread: this.#unread,
        continues: this.#continues,
        idles,
      },
      ready: (connection) => {
        this.#attempts = 0;
        if (this.#options.reuseAddress) this.#known ??= connection.stream.remoteAddress;
        this.#next();
      },
      gone: (connection, error, connected) => {
        if (this.#connection === connection) this.#connection = undefined;
        if (!connected && !this.#closed)
          this.#notConnected(error ?? aborted('it could not be connected'));
        guarded(() => this.#options.close?.(error));
      },
      answered: (exchange, response) => {
        this.#noteSession();
        exchange.resolve(response);
      },
      completed: (exchange, response) => {
        (exchange as Waiting).forget();
        this.#current = undefined;
        guarded(() => this.#options.complete?.(response));
        this.#next();
      },
      failed: (exchange, failure, response) => this.#failed(exchange as Waiting, failure, response),
    };
  }

  #failed(
    waiting: Waiting,
    { error, unconnected, repeatable }: Failure,
    response: HttpClientResponse | undefined,
  ): void {
    this.#current = undefined;
    if (!this.#closed && (repeatable || unconnected)) {
      this.#queue.unshift(waiting);
      if (unconnected) this.#notConnected(error);
      else {
        waiting.retried = true;
        this.#next();
      }
      return;
    }
    waiting.forget();
    if (response === undefined) waiting.reject(error);
    this.#tellError(error, waiting);
    this.#next();
  }

  #failAll(error: Error): void {
    for (const waiting of this.#queue.splice(0)) this.#reject(waiting, error);
  }
  /** A request that has not begun: its source has not been asked for anything. */
  #reject(waiting: Waiting, error: Error): void {
    const { request } = waiting;
    waiting.forget();
    if (request.source !== undefined) guarded(() => reading(request.source as never).stop());
    waiting.reject(error);
    this.#tellError(error, waiting);
  }
  #tellError(error: Error, { request }: Waiting): void {
    guarded(() => this.#options.error?.(error, request.options));
  }

  #abort(waiting: Waiting, reason: Error): void {
    const at = this.#queue.indexOf(waiting);
    if (at < 0) {
      this.#connection?.cancel(waiting, reason);
      return;
    }
    this.#queue.splice(at, 1);
    this.#reject(waiting, reason);
    if (this.pending > 0) return;
    // Nobody waits for the connection that is being made.
    this.#retry?.del();
    this.#retrying = false;
    if (this.#connection?.idle === false) this.#connection.end(reason);
    this.#next();
  }
}

/** Undefined if there is neither a host nor a path. */
function placeOf({ host, port, path, family, tls }: HttpClientOptions): Address | undefined {
  if (path !== undefined) {
    const place = { path };
    checkAddress(place);
    return place;
  }
  if (host === undefined) return undefined;
  const place = { host, port: port ?? (tls === undefined ? PORT : TLS_PORT), family };
  checkAddress(place);
  return place as Address;
}

/** The Host header (RFC 9110 section 7.2): without a port that goes without saying. */
function authorityOf({ host = 'localhost', port, path, tls }: HttpClientOptions): string {
  const name = isIP(host) === 6 ? `[${host}]` : host;
  const usual = tls === undefined ? PORT : TLS_PORT;
  return port === undefined || port === usual || path !== undefined ? name : `${name}:${port}`;
}
