// An answer, as it is read. Up to 64 KiB of its body are kept here for who does not ask, so that a
// short one never keeps the next request waiting; the rest stays with the server until it is read.

import { MultiloopError } from '../errors.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { Body, type BodyWaiter, readsAlready, wasRead } from './body.js';
import type { BodyDecoder } from './body_decoder.js';
import type { ClientConnection } from './client_connection.js';
import type { HttpRequestOptions } from './client_options.js';
import { HttpHeaders, NO_HEADERS } from './headers.js';
import { aborted, tooLarge } from './http_errors.js';
import type { Head } from './request_parser.js';

/** Bytes of a body that are kept for who does not ask. */
const KEPT_MAX = 64 * 1024;

/** Belongs to its client's thread. */
export class HttpClientResponse extends Body implements AsyncIterable<Uint8Array> {
  /** 200 to 999; 101 when what was asked for is another protocol. */
  readonly status: number;
  /** What the server calls it, perhaps ''. As Latin-1. */
  readonly reason: string;
  readonly version: '1.0' | '1.1';
  readonly headers: HttpHeaders;
  readonly request: HttpRequestOptions;

  readonly #connection: ClientConnection;
  /** Of what has not come yet; undefined when all has. */
  #decoder: BodyDecoder | undefined;
  #trailers: HttpHeaders = NO_HEADERS;
  readonly #kept: Uint8Array[] = [];
  #keptBytes = 0;
  #total = 0;
  #waiter: BodyWaiter | undefined = undefined;
  #failure: Error | undefined = undefined;
  #used = false;
  #stream: BufferEvent | undefined;

  /** @internal */
  constructor(
    connection: ClientConnection,
    request: HttpRequestOptions,
    bytes: Buffer,
    head: Head,
    decoder: BodyDecoder | undefined,
    stream?: BufferEvent,
  ) {
    super();
    this.#connection = connection;
    this.request = request;
    this.status = head.status;
    this.version = head.old ? '1.0' : '1.1';
    this.reason = bytes.toString('latin1', head.targetStart, head.targetEnd);
    this.headers = new HttpHeaders(bytes.toString('latin1', head.headersStart, head.headersEnd));
    this.#decoder = decoder;
    this.#stream = stream;
  }

  /** 200 to 299. */
  get ok(): boolean {
    return this.status >= 200 && this.status <= 299;
  }
  /** What came after a chunked body; empty until that is read. */
  get trailers(): HttpHeaders {
    return this.#trailers;
  }
  /** All of it has come, though perhaps not been read. */
  get complete(): boolean {
    return this.#decoder === undefined && this.#failure === undefined;
  }

  // ── the body ──

  /**
   * The next bytes of the body, at most 64 KiB; undefined after the last. One call at a time. What
   * nobody asks for is not read from the server, but for some 64 KiB. Rejects as request() does.
   */
  read(): Promise<Uint8Array | undefined> {
    if (this.#waiter !== undefined) return Promise.reject(readsAlready());
    const kept = this.#kept.shift();
    if (kept !== undefined) {
      this.#keptBytes -= kept.length;
      if (this.#decoder !== undefined) this.#connection._wanted(this);
      return Promise.resolve(kept);
    }
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#decoder === undefined) return Promise.resolve(undefined);
    const waiting = new Promise<Uint8Array | undefined>((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
    this.#connection._wanted(this);
    return waiting;
  }

  /** All of the body, once; ERR_HTTP_ANSWER_TOO_LARGE past `wholeBodyMax`. */
  async bytes(): Promise<Buffer> {
    this.#use();
    const most = this.#connection.settings.wholeBodyMax;
    const pieces: Uint8Array[] = [];
    let length = 0;
    for (let piece = await this.read(); piece !== undefined; piece = await this.read()) {
      pieces.push(piece);
      length += piece.length;
      if (length <= most) continue;
      const error = tooLarge(`its body is longer than wholeBodyMax, ${most} bytes`);
      this.cancel(error);
      throw error;
    }
    return Buffer.concat(pieces, length);
  }
  /** Who stops before the end cancels the rest. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    this.#use();
    try {
      for (;;) {
        const piece = await this.read();
        if (piece === undefined) return;
        yield piece;
      }
    } finally {
      this.cancel();
    }
  }
  /** Reads the rest and drops it, so that the connection can be used again. */
  async discard(): Promise<void> {
    this.#used = true;
    while ((await this.read()) !== undefined);
  }
  /** The rest is not wanted: unless all has come, the connection is cut. Idempotent. */
  cancel(error: Error = aborted('its answer was cancelled')): void {
    this.#used = true;
    this.#stream?.destroy();
    this.#stream = undefined;
    if (this.#decoder !== undefined) this.#connection._cancel(this, error);
  }
  /**
   * The stream after 101, or a 2xx to CONNECT, with what has come behind the head in its input:
   * HTTP knows it no more, and its handlers are the caller's to set. Once; ERR_HTTP_BODY_USED.
   */
  detach(): BufferEvent {
    const stream = this.#stream;
    if (stream === undefined)
      throw new MultiloopError(
        'ERR_HTTP_BODY_USED',
        'There is no stream to detach: the answer is no change of protocol, or it was detached',
      );
    this.#stream = undefined;
    return stream;
  }

  #use(): void {
    if (this.#used) throw wasRead('answer');
    this.#used = true;
  }

  // ── for the connection ──

  /** @internal It may have more of the body. */
  get _wants(): boolean {
    return (
      this.#decoder !== undefined && (this.#waiter !== undefined || this.#keptBytes < KEPT_MAX)
    );
  }
  /** @internal Takes what it may; whether all has come now. Throws a refusal. */
  _more(input: BufferEvent['input'], bodyMax: number): boolean {
    const decoder = this.#decoder;
    if (decoder === undefined) return true;
    while (this._wants) {
      const piece = decoder.take(input);
      if (piece === undefined) break;
      this.#total += piece.length;
      if (this.#total > bodyMax)
        throw tooLarge(`its body is longer than bodyMax, ${bodyMax} bytes`);
      const waiter = this.#waiter;
      this.#waiter = undefined;
      if (waiter !== undefined) waiter.resolve(piece);
      else {
        this.#kept.push(piece);
        this.#keptBytes += piece.length;
      }
    }
    if (!decoder.done) return false;
    this._end();
    return true;
  }
  /** @internal */
  _end(): void {
    this.#trailers = this.#decoder?.trailers ?? NO_HEADERS;
    this.#decoder = undefined;
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.resolve(undefined);
  }
  /** @internal */
  _fail(error: Error): void {
    this.#decoder = undefined;
    this.#failure = error;
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.reject(error);
  }
}
