// An answer, as its handler gives it. A small one is one string and one write; what several
// requests of one pass are answered leaves in one system call.

import type { Bytes } from '../buffer/ev_buffer.js';
import { FileSegment } from '../buffer/file_segment.js';
import { MultiloopError } from '../errors.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { checkBytes, checkInteger, invalidType, invalidValue, outOfRange } from '../validate.js';
import { isFieldValue, isToken } from './characters.js';
import { beginning, isStatus } from './date.js';
import type { HttpConnection } from './http_connection.js';
import { asError } from './http_errors.js';
import type { HttpRequest } from './http_request.js';
import { isBodiless, reasonOf } from './status.js';

/** A string up to this long is joined to its head and written with it. */
const JOINED_MAX = 16 * 1024;
/** Headers of an answer at most: more are a mistake in a loop. */
const HEADERS_MAX = 1_000;

/** SENDING: a file, which is on its way. */
const Stage = { NEW: 0, BEGUN: 1, ENDED: 2, GONE: 3, SENDING: 4 } as const;
type Stage = (typeof Stage)[keyof typeof Stage];

// biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII is what is meant
const NOT_ASCII = /[^\x00-\x7f]/;

/** Bytes of a file. */
export interface FilePart {
  readonly file: FileSegment;
  readonly start: number;
  readonly length: number;
}

/** What may be sent as a body of unknown length. */
export type BodySource = AsyncIterable<Bytes> | Iterable<Bytes> | ReadableStream<Bytes>;

/** Belongs to its loop's thread. What is done with it after its peer has left has no effect. */
export class HttpResponse {
  /** 200 to 999, until the answer begins. */
  status = 200;

  readonly #connection: HttpConnection;
  readonly #request: HttpRequest;
  #stage: Stage = Stage.NEW;
  /** Names as they are written, and values. */
  #headers: string[] | undefined = undefined;
  #close = false;
  #chunked = false;
  /** Of a length that was declared: bytes that are still to be written. */
  #left = Number.POSITIVE_INFINITY;
  #length: number | undefined = undefined;
  #ownDate = false;
  #ascii = true;
  #whenGone: ((error: Error) => void) | undefined = undefined;
  #failure: Error | undefined = undefined;

  /** @internal */
  constructor(connection: HttpConnection, request: HttpRequest) {
    this.#connection = connection;
    this.#request = request;
  }

  /** Its head was sent, or is about to leave. */
  get begun(): boolean {
    return this.#stage !== Stage.NEW;
  }
  /** All of it was handed to the stream. */
  get ended(): boolean {
    return this.#stage === Stage.ENDED;
  }
  /** The peer left, or was cut off, before that. */
  get aborted(): boolean {
    return this.#stage === Stage.GONE;
  }

  // ── headers ──

  /**
   * Replaces every header of that name. Line ends and other control characters are refused
   * (ERR_INVALID_ARG_VALUE), and so is Transfer-Encoding, which is the server's; `Connection:
   * close` ends the connection after this answer. Characters are Latin-1, as for Node.
   */
  set(name: string, value: string | number): this {
    this.remove(name);
    return this.append(name, value);
  }

  /** Adds a header beside others of the same name. */
  append(name: string, value: string | number): this {
    if (this.#stage === Stage.GONE) return this;
    if (this.#stage !== Stage.NEW) throw answered('its headers were sent');
    const text = checkHeader(name, value);
    const headers = this.#headers ?? [];
    this.#headers = headers;
    if (headers.length >= 2 * HEADERS_MAX)
      throw outOfRange('number of headers', `<= ${HEADERS_MAX}`, HEADERS_MAX + 1);
    if (name.length === 4 || name.length === 10 || name.length === 14 || name.length === 17) {
      if (this.#special(name.toLowerCase(), text)) return this;
    }
    if (NOT_ASCII.test(text)) this.#ascii = false;
    headers.push(name, text);
    return this;
  }

  /** Whether the header is one that decides something and is not just written. */
  #special(name: string, value: string): boolean {
    if (name === 'date') this.#ownDate = true;
    if (name === 'transfer-encoding')
      throw invalidValue('name', 'is a header that the server sets itself', name);
    if (name === 'connection') {
      if (/(^|[\s,])close($|[\s,])/i.test(value)) this.#close = true;
      return !/(^|[\s,])upgrade($|[\s,])/i.test(value);
    }
    if (name !== 'content-length') return false;
    if (!/^\d{1,15}$/.test(value)) throw invalidValue('value', 'is no length', value);
    this.#length = Number(value);
    return true;
  }

  /** The value, of several the first. */
  get(name: string): string | undefined {
    const wanted = name.toLowerCase();
    if (wanted === 'content-length')
      return this.#length === undefined ? undefined : String(this.#length);
    const headers = this.#headers ?? [];
    for (let i = 0; i < headers.length; i += 2)
      if (headers[i].toLowerCase() === wanted) return headers[i + 1];
    return undefined;
  }

  remove(name: string): this {
    if (typeof name !== 'string') throw invalidType('name', 'of type string', name);
    const headers = this.#headers;
    const wanted = name.toLowerCase();
    if (wanted === 'content-length') this.#length = undefined;
    if (wanted === 'date') this.#ownDate = false;
    if (headers === undefined) return this;
    for (let i = headers.length - 2; i >= 0; i -= 2)
      if (headers[i].toLowerCase() === wanted) headers.splice(i, 2);
    return this;
  }

  // ── answering ──

  /**
   * The whole answer. A string is UTF-8, and text/plain unless a Content-Type is set; memory of
   * 4 KiB and more must not change until it has left. To HEAD, and with a status that has no body,
   * the body is not sent. ERR_HTTP_ANSWERED if there was an answer already.
   */
  send(body: Bytes = ''): void {
    if (this.#stage !== Stage.NEW) {
      if (this.#stage === Stage.GONE) return;
      throw answered('it was answered already');
    }
    if (typeof body === 'string') {
      this.#sendText(body);
      return;
    }
    checkBytes('body', body);
    const head = this.#head(body.length);
    const { stream } = this.#connection;
    this.#writeHead(stream, head);
    if (this.#mayHaveBody() && body.length > 0) stream.write(body);
    this.#finish();
  }

  #sendText(body: string): void {
    if (body !== '' && !this.#has('content-type')) this.#typed('text/plain; charset=utf-8');
    const { stream } = this.#connection;
    const head = this.#head(Buffer.byteLength(body));
    if (!this.#mayHaveBody() || body === '') {
      this.#writeHead(stream, head);
    } else if (this.#ascii && body.length <= JOINED_MAX) {
      stream.write(head + body);
    } else {
      this.#writeHead(stream, head);
      stream.write(body);
    }
    this.#finish();
  }

  /** As application/json. */
  json(value: unknown): void {
    const text = JSON.stringify(value);
    if (text === undefined) throw invalidValue('value', 'is nothing that JSON has', value);
    if (this.#stage === Stage.NEW && !this.#has('content-type')) this.#typed('application/json');
    this.send(text);
  }

  /**
   * The whole answer: `length` bytes of a file from `offset` on, -1 meaning up to its end, which
   * the kernel sends (sendfile(2)). A descriptor is closed then, also if this throws; a FileSegment
   * stays the caller's to close. Until all of it has left the request is under way: its connection
   * stays where it is, and a file that has become shorter cuts it off (ERR_FILE_TRUNCATED, as the
   * cause of what the error hook is told). With ranges and conditions: the function sendFile().
   */
  sendFile(file: number | FileSegment, offset = 0, length = -1): void {
    if (file instanceof FileSegment) {
      const most = file.length - checkInteger('offset', offset, 0, file.length);
      const count = checkInteger('length', length, -1, most) === -1 ? most : length;
      this._sendParts([{ file, start: offset, length: count }], count);
      return;
    }
    checkInteger('file', file, 0, 2 ** 31 - 1);
    const own = FileSegment._own(file, offset, length);
    try {
      this._sendParts([{ file: own, start: 0, length: own.length }], own.length);
    } finally {
      own.close();
    }
  }
  /** @internal `length`: of all parts together. */
  _sendParts(parts: readonly (string | FilePart)[], length: number): void {
    if (this.#stage === Stage.GONE) return;
    if (this.#stage !== Stage.NEW) throw answered('it was answered already');
    const { stream } = this.#connection;
    this.#writeHead(stream, this.#head(length));
    if (!this.#mayHaveBody() || length === 0) {
      this.#finish();
      return;
    }
    for (const part of parts) {
      if (typeof part === 'string') stream.write(part);
      else if (!stream.closed) stream.output.addFile(part.file, part.start, part.length);
    }
    this.#stage = Stage.SENDING;
    this.#connection._begun();
    const sent = () => {
      if (this.#stage === Stage.SENDING) this.#finish();
    };
    // Whoever has to know of a failure is told by the connection.
    this.drained().then(sent, () => undefined);
  }

  /**
   * A part of the answer: the first one sends the head. Chunked, unless a Content-Length is set, or
   * the peer speaks HTTP/1.0: then the end of the connection is that of the body. False: more than
   * 64 KiB wait, so wait for `drained()`; past `outputMax` it throws ERR_HTTP_OUTPUT_FULL.
   * ERR_HTTP_LENGTH for more bytes than the Content-Length says.
   */
  write(chunk: Bytes): boolean {
    if (this.#stage === Stage.GONE) return false;
    if (this.#stage >= Stage.ENDED) throw answered('it was answered already');
    const { length } = checkChunk(chunk);
    if (this.#stage === Stage.NEW) this.begin();
    if (length === 0 || !this.#mayHaveBody()) return true;
    if (length > this.#left)
      throw new MultiloopError(
        'ERR_HTTP_LENGTH',
        `The answer's Content-Length is ${this.#length}, and there are more bytes than that`,
      );
    const { stream, server } = this.#connection;
    const { outputMax } = server._settings;
    if (stream.outputLength > outputMax)
      throw new MultiloopError(
        'ERR_HTTP_OUTPUT_FULL',
        `More than outputMax, ${outputMax} bytes, wait for the peer; await drained() after false`,
      );
    this.#left -= length;
    if (!this.#chunked) return stream.write(chunk);
    stream.write(`${length.toString(16)}\r\n`);
    stream.write(chunk);
    return stream.write('\r\n');
  }

  /** Sends the head now. */
  begin(): void {
    if (this.#stage === Stage.GONE) return;
    if (this.#stage !== Stage.NEW) throw answered('its headers were sent');
    const head = this.#head(undefined);
    this.#left = this.#length ?? Number.POSITIVE_INFINITY;
    this.#writeHead(this.#connection.stream, head);
    this.#stage = Stage.BEGUN;
    this.#connection._begun();
  }

  /** The last part. Trailers go out after a chunked body alone, to nobody else. */
  end(chunk?: Bytes, trailers?: Readonly<Record<string, string>>): void {
    if (this.#stage === Stage.GONE) return;
    if (this.#stage === Stage.NEW && trailers === undefined) {
      this.send(chunk);
      return;
    }
    if (this.#stage >= Stage.ENDED) throw answered('it was answered already');
    const lines = trailerLines(trailers);
    if (chunk !== undefined) this.write(chunk);
    else if (this.#stage === Stage.NEW) this.begin();
    const { stream } = this.#connection;
    const whole = !this.#mayHaveBody() || this.#length === undefined || this.#left === 0;
    if (!whole) {
      const error = new MultiloopError(
        'ERR_HTTP_LENGTH',
        `The answer's Content-Length is ${this.#length}, and ${this.#left} bytes are missing`,
      );
      // The peer must not take the next answer for the rest of this one.
      this.destroy(error);
      throw error;
    }
    if (this.#chunked && this.#mayHaveBody())
      stream.write(Buffer.from(`0\r\n${lines}\r\n`, 'latin1'));
    this.#finish();
  }

  /** Resolves when what was written has left; rejects with ERR_HTTP_ABORTED if it will not. */
  drained(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return this.#connection._drained();
  }

  /**
   * Sends every part of `source` as its peer takes it, and ends the answer; a source whose peer
   * leaves is told to return. What it throws cuts the answer off, and rejects.
   */
  async pipe(source: BodySource): Promise<void> {
    const { next, stop } = reading(source);
    if (this.#stage === Stage.GONE) {
      stop();
      throw this.#failure;
    }
    this.#whenGone = stop;
    try {
      // The peer may learn that there is an answer before there is anything in it.
      if (this.#stage === Stage.NEW) this.begin();
      for (;;) {
        const { done, value } = await next();
        if (this.#failure !== undefined) throw this.#failure;
        if (done) break;
        if (!this.write(value)) await this.drained();
      }
      this.#whenGone = undefined;
      this.end();
    } catch (thrown) {
      if (this.#failure === undefined) {
        this.#whenGone = undefined;
        stop();
        this.destroy(asError(thrown));
      }
      throw thrown;
    }
  }

  /** An answer before the answer, of status 102 to 199; 100 is sent when the body is read. */
  inform(status: number, headers: Readonly<Record<string, string>> = {}): void {
    if (!Number.isInteger(status) || status < 102 || status > 199)
      throw outOfRange('status', '>= 102 && <= 199', status);
    if (this.#stage === Stage.GONE || this.#request.version === '1.0') return;
    if (this.#stage !== Stage.NEW) throw answered('its headers were sent');
    let text = `HTTP/1.1 ${status} ${reasonOf(status)}\r\n`;
    for (const [name, value] of Object.entries(headers))
      text += `${name}: ${checkHeader(name, value)}\r\n`;
    this.#connection.stream.write(Buffer.from(`${text}\r\n`, 'latin1'));
  }

  /**
   * Answers 101 and gives the stream away, with what has come after the request in its input: HTTP
   * knows it no more, and its handlers are the caller's to set. Only for a request that asks for it
   * (ERR_INVALID_ARG_VALUE), and `protocol` is what it asked for.
   */
  upgrade(protocol: string, headers: Readonly<Record<string, string>> = {}): BufferEvent {
    return this._upgrade(protocol, headers, false);
  }
  /** @internal `movable`: another loop would know what it is. */
  _upgrade(
    protocol: string,
    headers: Readonly<Record<string, string>>,
    movable: boolean,
  ): BufferEvent {
    if (!this.#request._upgrades || this.#request.version === '1.0')
      throw invalidValue('protocol', 'is not what the request asks for', protocol);
    if (this.#stage !== Stage.NEW) throw answered('it was answered already');
    let text = `${beginning(101, this.#connection.stream.base)}Connection: Upgrade\r\n`;
    text += `Upgrade: ${checkHeader('Upgrade', protocol)}\r\n`;
    for (const [name, value] of Object.entries(headers))
      text += `${name}: ${checkHeader(name, value)}\r\n`;
    this.status = 101;
    this.#connection.stream.write(Buffer.from(`${text}\r\n`, 'latin1'));
    this.#stage = Stage.ENDED;
    return this.#connection._detach(movable);
  }

  /** Cuts the connection off, so that the peer sees that something is missing. */
  destroy(error?: Error): void {
    if (this.#stage === Stage.GONE || this.#stage === Stage.ENDED) return;
    this.#connection._cut(error);
  }

  // ── for the connection ──

  /** @internal */
  _gone(error: Error): void {
    if (this.#stage === Stage.ENDED) return;
    this.#stage = Stage.GONE;
    this.#failure = error;
    const whenGone = this.#whenGone;
    this.#whenGone = undefined;
    whenGone?.(error);
  }
  /** @internal What was prepared is not sent: something else is. */
  _discard(status: number): void {
    this.#headers = undefined;
    this.#length = undefined;
    this.#ownDate = false;
    this.#ascii = true;
    this.#close = true;
    this.status = status;
  }

  // ── inside ──

  #has(name: string): boolean {
    const headers = this.#headers;
    if (headers === undefined) return false;
    for (let i = 0; i < headers.length; i += 2)
      if (headers[i].length === name.length && headers[i].toLowerCase() === name) return true;
    return false;
  }
  #typed(type: string): void {
    this.#headers ??= [];
    this.#headers.push('Content-Type', type);
  }

  #mayHaveBody(): boolean {
    return this.#request.method !== 'HEAD' && !isBodiless(this.status);
  }

  /** The head, and what becomes of the connection. `length` undefined: it is not known. */
  #head(known: number | undefined): string {
    const connection = this.#connection;
    const { status } = this;
    if (!isStatus(status) || status < 200) throw outOfRange('status', '>= 200 && <= 999', status);
    if (known !== undefined && this.#length !== undefined && this.#length !== known)
      this.#checkLength(known);
    let text = this.#ownDate
      ? `HTTP/1.1 ${status} ${reasonOf(status)}\r\n`
      : beginning(status, connection.stream.base);
    const headers = this.#headers;
    if (headers !== undefined)
      for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
    const length = this.#length ?? known;
    const old = this.#request.version === '1.0';
    if (status !== 204) {
      if (length !== undefined) {
        if (status !== 304 || length > 0) text += `Content-Length: ${length}\r\n`;
      } else if (status !== 304) {
        if (old) this.#close = true;
        else {
          this.#chunked = true;
          text += 'Transfer-Encoding: chunked\r\n';
        }
      }
    }
    if (this.#close || connection._mustClose()) {
      this.#close = true;
      return `${text}Connection: close\r\n\r\n`;
    }
    return old ? `${text}Connection: keep-alive\r\n\r\n` : `${text}\r\n`;
  }

  /** To HEAD, a length may be told of a body that is not made. */
  #checkLength(known: number): void {
    if (!this.#mayHaveBody() && known === 0) return;
    throw new MultiloopError(
      'ERR_HTTP_LENGTH',
      `The answer's Content-Length is ${this.#length}, and its body has ${known} bytes`,
    );
  }

  #writeHead(stream: BufferEvent, head: string): void {
    stream.write(this.#ascii ? head : Buffer.from(head, 'latin1'));
  }

  #finish(): void {
    this.#stage = Stage.ENDED;
    this.#connection._answered(this.#close);
  }
}

function answered(why: string): MultiloopError {
  return new MultiloopError('ERR_HTTP_ANSWERED', `A request has one answer: ${why}`);
}

function checkChunk(chunk: Bytes): { length: number } {
  if (typeof chunk === 'string') return { length: Buffer.byteLength(chunk) };
  return checkBytes('chunk', chunk);
}

interface Reading {
  next(): Promise<IteratorResult<Bytes>> | IteratorResult<Bytes>;
  /** It is not wanted any more. */
  stop(): void;
}

function reading(source: BodySource): Reading {
  const ignore = () => undefined;
  if ('getReader' in source) {
    // Its own iterator would wait for a part that is on its way before it returned.
    const reader = source.getReader();
    return {
      next: () => reader.read() as Promise<IteratorResult<Bytes>>,
      stop: () => void reader.cancel().catch(ignore),
    };
  }
  const iterator =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  return {
    next: () => iterator.next(),
    stop: () => void Promise.resolve(iterator.return?.()).catch(ignore),
  };
}

/** Answers the value as text. */
export function checkHeader(name: string, value: unknown): string {
  if (typeof name !== 'string') throw invalidType('name', 'of type string', name);
  if (!isToken(name)) throw invalidValue('name', 'is no name of a header', name);
  if (typeof value === 'number') return String(value);
  if (typeof value !== 'string') throw invalidType('value', 'of type string or number', value);
  if (!isFieldValue(value))
    throw invalidValue('value', `of ${name} has a character that no header may have`, value);
  return value;
}

function trailerLines(trailers: Readonly<Record<string, string>> | undefined): string {
  if (trailers === undefined) return '';
  let lines = '';
  for (const [name, value] of Object.entries(trailers)) {
    if (/^(transfer-encoding|content-length|host|connection)$/i.test(name))
      throw invalidValue('trailers', 'have a name that no trailer may have', name);
    lines += `${name}: ${checkHeader(name, value)}\r\n`;
  }
  return lines;
}
