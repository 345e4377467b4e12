// A request, as its handler sees it. What is made of bytes is made when it is asked for.

import { type Segment, tellLenders } from '../buffer/segment.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { checkFunction } from '../validate.js';
import { Body, type BodyWaiter, readsAlready, wasRead } from './body.js';
import { BodyDecoder, PIECE_BYTES } from './body_decoder.js';
import { HttpHeaders, NO_HEADERS } from './headers.js';
import type { HttpConnection } from './http_connection.js';
import { aborted } from './http_errors.js';
import type { HttpServer } from './http_server.js';
import type { Head } from './request_parser.js';

interface Waiter extends BodyWaiter {
  /** What forEach() shows it to; read() takes it. */
  see?: See;
}
type See = (piece: Uint8Array) => void;

const NOT_NOTED = { at: 0, written: 0 };
const NO_MORE = Promise.resolve(undefined);

/** Belongs to its loop's thread. */
export class HttpRequest extends Body implements AsyncIterable<Uint8Array> {
  /** As it was sent: methods are case-sensitive. */
  readonly method: string;
  /** As it was sent: a path with its query, a whole URL, or `*`. */
  readonly target: string;
  readonly version: '1.0' | '1.1';
  /** What a router found in the path. */
  params: Readonly<Record<string, string>> = NO_PARAMS;

  /** @internal */ readonly _wantsClose: boolean;
  /** @internal */ readonly _upgrades: boolean;
  /** @internal For the access log: when it began, and what the stream had been given by then. */
  readonly _began: { readonly at: number; readonly written: number } = NOT_NOTED;
  /** @internal Of the body, which is not whole yet or was not read; undefined without one. */
  _body: BodyDecoder | undefined;
  /** @internal The peer waits for leave to send it. */
  _mustContinue: boolean;
  readonly #connection: HttpConnection;
  readonly #head: string;
  readonly #headersAt: number;
  /** Where the value of Host is in the head. */
  readonly #hostAt: number;
  readonly #hostEnd: number;
  #headers: HttpHeaders | undefined = undefined;
  #trailers: HttpHeaders = NO_HEADERS;
  #used = false;
  #failure: Error | undefined = undefined;
  #waiter: Waiter | undefined = undefined;
  #abort: AbortController | undefined = undefined;
  #aborted: Error | undefined = undefined;

  /** @internal */
  constructor(connection: HttpConnection, bytes: Buffer, head: Head) {
    super();
    const { start, targetStart, targetEnd, headersStart, old } = head;
    const text = bytes.toString('latin1', start, head.headersEnd);
    this.#connection = connection;
    this.#head = text;
    this.#headersAt = headersStart - start;
    this.method = methodOf(bytes, text, head);
    this.target = text.slice(targetStart - start, targetEnd - start);
    this.version = old ? '1.0' : '1.1';
    const hosts = head.hosts === 1;
    this.#hostAt = hosts ? head.hostStart - start : 0;
    this.#hostEnd = hosts ? head.hostEnd - start : 0;
    this._wantsClose = head.close || (old && !head.keepAlive);
    this._upgrades = head.upgrade;
    if (connection.server._logs) {
      const { bytesWritten, outputLength } = connection.stream;
      this._began = { at: performance.now(), written: bytesWritten + outputLength };
    }
    const { contentLength, chunked } = head;
    this._body =
      chunked || contentLength > 0
        ? new BodyDecoder(chunked ? -1 : contentLength, connection.server._settings)
        : undefined;
    this._mustContinue = head.expectsContinue && this._body !== undefined;
  }

  /** The target's path, as it was sent: nothing in it is decoded. */
  get path(): string {
    const local = this.#local();
    const mark = local.indexOf('?');
    return mark < 0 ? local : local.slice(0, mark);
  }
  /** What is behind the first `?`, without it; '' without one. */
  get query(): string {
    const mark = this.target.indexOf('?');
    return mark < 0 ? '' : this.target.slice(mark + 1);
  }
  #local(): string {
    const { target } = this;
    if (target.charCodeAt(0) === SLASH) return target;
    const path = /^https?:\/\/[^/?]*/i.exec(target);
    if (path === null) return target;
    const local = target.slice(path[0].length);
    return local.startsWith('/') ? local : `/${local}`;
  }

  /** Host and port, in lower case, of the target if it is a whole URL, else of Host; perhaps ''. */
  get host(): string {
    const { target } = this;
    // RFC 9112 section 3.2.2.
    const url = target.charCodeAt(0) === SLASH ? null : /^https?:\/\/([^/?]*)/i.exec(target);
    const host = url === null ? this.#head.slice(this.#hostAt, this.#hostEnd) : url[1];
    return host.toLowerCase();
  }

  get headers(): HttpHeaders {
    this.#headers ??= new HttpHeaders(this.#head.slice(this.#headersAt));
    return this.#headers;
  }
  /** What came after a chunked body; empty until that is read. */
  get trailers(): HttpHeaders {
    return this.#trailers;
  }
  /** The stream that it came over, for addresses, TLS and counters; what it carries is HTTP's. */
  get stream(): BufferEvent {
    return this.#connection.stream;
  }

  /** What it came over, as HTTP sees it: how many requests there were, and of which server. */
  get connection(): HttpConnection {
    return this.#connection;
  }

  /** @internal */
  get _server(): HttpServer {
    return this.#connection.server;
  }

  /** Aborted when the peer leaves before its answer, when it is cut off, and by answerTimeout. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#aborted !== undefined) this.#abort.abort(this.#aborted);
    }
    return this.#abort.signal;
  }

  // ── the body ──

  /** Whether there is one, perhaps of no bytes. */
  get hasBody(): boolean {
    return this._body !== undefined || this.#used;
  }

  /**
   * The next bytes of the body, at most 64 KiB; undefined after the last. What nobody asks for is
   * not read from the peer, but for some 64 KiB. Rejects with ERR_HTTP_REFUSED when the rest is no
   * body or too long, and ERR_HTTP_ABORTED when it does not come.
   */
  read(): Promise<Uint8Array | undefined> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this._body === undefined) return NO_MORE;
    if (this.#waiter !== undefined) return Promise.reject(readsAlready());
    let piece: Uint8Array | undefined;
    try {
      piece = this.#take(this._body);
    } catch (error) {
      this.#connection._refuseBody(error as Error);
      return Promise.reject(error);
    }
    if (piece !== undefined) return Promise.resolve(piece);
    if (this._body === undefined) return NO_MORE;
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const waiting = new Promise<Uint8Array | undefined>((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
    this.#connection._wantBody();
    return waiting;
  }

  #take(body: BodyDecoder): Uint8Array | undefined {
    const piece = body.take(this.#connection.stream.input);
    if (body.done) this.#whole(body);
    return piece;
  }
  #whole(body: BodyDecoder): void {
    this.#trailers = body.trailers;
    this._body = undefined;
    this.#used = true;
    this.#connection._bodyRead();
  }

  /**
   * Shows every piece of the body where it has come to lie, without a copy: it is the stream's
   * memory, and `see` must not keep it after it has returned. Resolves after the last one. What
   * `see` throws rejects, and the rest is not read; otherwise it rejects as read() does.
   */
  forEach(see: (piece: Uint8Array) => void): Promise<void> {
    checkFunction('see', see);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#used || this.#waiter !== undefined) return Promise.reject(wasRead('request'));
    this.#used = true;
    const { _body: body } = this;
    if (body === undefined) return NO_MORE;
    try {
      if (this.#show(body, see)) return NO_MORE;
    } catch (error) {
      return Promise.reject(error);
    }
    const waiting = new Promise<undefined>((resolve, reject) => {
      this.#waiter = { resolve: resolve as Waiter['resolve'], reject, see };
    });
    this.#connection._wantBody();
    return waiting;
  }
  /** What has come by now. Whether that was the end of it. */
  #show(body: BodyDecoder, see: See): boolean {
    const { input } = this.#connection.stream;
    for (;;) {
      let piece: Segment | undefined;
      try {
        piece = body.lend(input);
      } catch (error) {
        this.#connection._refuseBody(error as Error);
        throw error;
      }
      if (piece === undefined) break;
      try {
        see(piece.view());
      } finally {
        piece.drop();
        tellLenders();
      }
      if (this._body === body) continue;
      // It was answered there, or cut off.
      if (body.done) return true;
      throw this.#failure;
    }
    if (body.done) this.#whole(body);
    return body.done;
  }

  /** All of the body; of a request without one, no bytes. Once. */
  bytes(): Promise<Buffer> {
    const { _body: body } = this;
    // That of most requests has come with the head, and is taken at once.
    if (body !== undefined && this.#isHere(body, this.#connection.stream.inputLength)) {
      this.#used = true;
      return Promise.resolve(asBuffer(this.#take(body) as Uint8Array));
    }
    return this.#gather();
  }
  /** Whether nobody has begun to read it, and the `length` bytes that have come are all of it. */
  #isHere(body: BodyDecoder, length: number): boolean {
    if (this.#used || this.#waiter !== undefined || this.#failure !== undefined) return false;
    const count = body.remaining ?? Number.POSITIVE_INFINITY;
    return count <= PIECE_BYTES && count <= length;
  }
  async #gather(): Promise<Buffer> {
    this.#use();
    const first = await this.read();
    const pieces: Uint8Array[] = [];
    for (let piece = first; piece !== undefined; piece = await this.read()) pieces.push(piece);
    return pieces.length === 1 ? asBuffer(pieces[0]) : Buffer.concat(pieces);
  }
  override async text(): Promise<string> {
    const { _body: body } = this;
    // Where nobody keeps the bytes, they are not copied.
    if (body !== undefined && this.#isHere(body, this.#connection.stream.input.contiguous)) {
      let text = '';
      this.#used = true;
      this.#show(body, (piece) => {
        text = asBuffer(piece).toString();
      });
      return text;
    }
    return super.text();
  }
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    this.#use();
    for (;;) {
      const piece = await this.read();
      if (piece === undefined) return;
      yield piece;
    }
  }

  #use(): void {
    if (this.#used) throw wasRead('request');
    this.#used = true;
  }

  // ── for the connection ──

  /** @internal Somebody waits for the body. */
  get _waits(): boolean {
    return this.#waiter !== undefined;
  }
  /** @internal There is more input. */
  _more(): void {
    const { _body: body } = this;
    const see = this.#waiter?.see;
    if (body === undefined || this.#waiter === undefined) return;
    if (see !== undefined) {
      this.#showMore(body, see);
      return;
    }
    let piece: Uint8Array | undefined;
    try {
      piece = this.#take(body);
    } catch (error) {
      this.#connection._refuseBody(error as Error);
      return;
    }
    if (piece === undefined && !body.done) return;
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.resolve(piece);
  }
  #showMore(body: BodyDecoder, see: See): void {
    const waiter = this.#waiter;
    try {
      if (!this.#show(body, see)) return;
      waiter?.resolve(undefined);
    } catch (error) {
      waiter?.reject(error as Error);
    }
    this.#waiter = undefined;
  }
  /** @internal The body is of no interest any more: the answer is given. */
  _close(): void {
    if (this._body === undefined && this.#waiter === undefined) return;
    this._body = undefined;
    this.#failure ??= aborted('it was answered before its body was read');
    this.#reject(this.#failure);
  }
  /** @internal Nobody waits for its answer. What has come of its body can still be read. */
  _abort(error: Error): void {
    if (this.#aborted !== undefined) return;
    this.#aborted = error;
    this.#abort?.abort(error);
    if (this.#waiter !== undefined) this._failBody(error);
  }
  /** @internal */
  _failBody(error: Error): void {
    this.#failure ??= error;
    this.#reject(error);
  }
  #reject(error: Error): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.reject(error);
  }
}

const NO_PARAMS: Readonly<Record<string, string>> = Object.freeze(Object.create(null));
const SLASH = 47;

function asBuffer(bytes: Uint8Array): Buffer {
  if (Buffer.isBuffer(bytes)) return bytes;
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A string that is there already for the methods that nearly all requests have. */
function methodOf(bytes: Buffer, text: string, { start, methodEnd }: Head): string {
  const length = methodEnd - start;
  if (length === 3 && bytes[start] === 71 && bytes[start + 1] === 69 && bytes[start + 2] === 84)
    return 'GET';
  return text.slice(0, length);
}
