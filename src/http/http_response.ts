// An answer, as its handler gives it. Head and small body are written straight into the stream's
// output; what several requests of one pass are answered leaves in one system call.

import type { Bytes } from '../buffer/ev_buffer.js';
import { FileSegment } from '../buffer/file_segment.js';
import { MultiloopError } from '../errors.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { checkBytes, checkInteger, invalidType, invalidValue, outOfRange } from '../validate.js';
import { type BodySource, reading } from './body_source.js';
import { CR, LF } from './characters.js';
import { beginning, beginningBytes, isStatus } from './date.js';
import { errorBodyOf } from './error_body.js';
import { checkHeader, trailerLines } from './header_checks.js';
import { type HeadersInit, pairsOf } from './header_list.js';
import type { HttpConnection } from './http_connection.js';
import { asError } from './http_errors.js';
import type { HttpRequest } from './http_request.js';
import {
  type HeaderName,
  headerName,
  putBytes,
  putNumber,
  putUtf8,
  utf8Length,
} from './response_head.js';
import { isBodiless, reasonOf } from './status.js';

/** A string up to this long is written with its head, in one piece. */
const JOINED_MAX = 16 * 1024;
/** Headers of an answer at most: more are a mistake in a loop. */
const HEADERS_MAX = 1_000;

/** SENDING: a file, which is on its way. */
const Stage = { NEW: 0, BEGUN: 1, ENDED: 2, GONE: 3, SENDING: 4 } as const;
type Stage = (typeof Stage)[keyof typeof Stage];

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');
const CONTENT_LENGTH = latin1('Content-Length: ');
const CHUNKED = latin1('Transfer-Encoding: chunked\r\n');
const CLOSE = latin1('Connection: close\r\n');
const KEEP_ALIVE = latin1('Connection: keep-alive\r\n');
/** Bytes of these lines, of the longest length and of the last line end, at most. */
const OWN_LINES_MAX = 128;
const CONTENT_TYPE = headerName('Content-Type');

/** Bytes of a file. */
export interface FilePart {
  readonly file: FileSegment;
  readonly start: number;
  readonly length: number;
}

/** Belongs to its loop's thread. What is done with it after its peer has left has no effect. */
export class HttpResponse {
  /** 200 to 999, until the answer begins. */
  status = 200;

  readonly #connection: HttpConnection;
  readonly #request: HttpRequest;
  #stage: Stage = Stage.NEW;
  /** Each name and its value, as they are written. */
  #headers: (HeaderName | string)[] | undefined = undefined;
  #close = false;
  #chunked = false;
  /** Of a length that was declared: bytes that are still to be written. */
  #left = Number.POSITIVE_INFINITY;
  #length: number | undefined = undefined;
  #ownDate = false;
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
    const known = headerName(name);
    if (this.#headers !== undefined || known.special) this.#remove(known.lower);
    return this.#append(known, value);
  }

  /** Adds a header beside others of the same name. */
  append(name: string, value: string | number): this {
    return this.#append(headerName(name), value);
  }
  #append(name: HeaderName, value: string | number): this {
    if (this.#stage === Stage.GONE) return this;
    if (this.#stage !== Stage.NEW) throw answered('its headers were sent');
    const text = name.check(value);
    const headers = this.#headers;
    if (headers !== undefined && headers.length >= 2 * HEADERS_MAX)
      throw outOfRange('number of headers', `<= ${HEADERS_MAX}`, HEADERS_MAX + 1);
    if (name.special && this.#special(name.lower, text)) return this;
    if (headers === undefined) this.#headers = [name, text];
    else headers.push(name, text);
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
    const at = this.#find(wanted);
    return at < 0 ? undefined : (this.#headers?.[at + 1] as string);
  }
  /** Where it is among the headers, or -1. */
  #find(wanted: string): number {
    const headers = this.#headers;
    if (headers !== undefined)
      for (let i = 0; i < headers.length; i += 2)
        if ((headers[i] as HeaderName).lower === wanted) return i;
    return -1;
  }

  /** Every header that was set. */
  clear(): this {
    if (this.#stage === Stage.GONE) return this;
    if (this.#stage !== Stage.NEW) throw answered('its headers were sent');
    const { status } = this;
    this._discard(status);
    this.#close = false;
    return this;
  }

  remove(name: string): this {
    if (typeof name !== 'string') throw invalidType('name', 'of type string', name);
    this.#remove(name.toLowerCase());
    return this;
  }
  #remove(wanted: string): void {
    if (wanted === 'content-length') this.#length = undefined;
    if (wanted === 'date') this.#ownDate = false;
    const headers = this.#headers;
    if (headers === undefined) return;
    for (let i = headers.length - 2; i >= 0; i -= 2)
      if ((headers[i] as HeaderName).lower === wanted) headers.splice(i, 2);
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
    const { stream } = this.#connection;
    this.#writeHead(stream, this.#head(body.length));
    if (this.#mayHaveBody() && body.length > 0) stream.write(body);
    this.#finish();
  }

  #sendText(body: string): void {
    if (body !== '' && !this.#has('content-type'))
      this.#typed(this.#connection.server._settings.contentType ?? 'text/plain; charset=utf-8');
    const { stream } = this.#connection;
    const bytes = utf8Length(body);
    const length = this.#head(bytes);
    if (!this.#mayHaveBody()) {
      this.#writeHead(stream, length);
    } else if (body.length <= JOINED_MAX) {
      this.#writeHead(stream, length, body, bytes);
    } else {
      this.#writeHead(stream, length);
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
    const length = this.#head(undefined);
    this.#left = this.#length ?? Number.POSITIVE_INFINITY;
    this.#writeHead(this.#connection.stream, length);
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

  /**
   * Answers that something is wrong, in place of what was prepared: headers are dropped, the body
   * is the `errorBody` hook's or a line of text, and the connection ends after it.
   */
  fail(status: number, why = 'no reason was given', headers: HeadersInit = {}): void {
    if (this.#stage === Stage.GONE) return;
    if (this.#stage !== Stage.NEW) throw answered('it was answered already');
    if (!isStatus(status) || status < 400) throw outOfRange('status', '>= 400 && <= 999', status);
    const { server } = this.#connection;
    this._discard(status);
    const { type, body } = errorBodyOf(server, status, why, this.#request);
    this.append('Content-Type', type);
    for (const [name, value] of pairsOf(headers)) this.set(name, value);
    this.send(body);
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
    this.#close = true;
    this.status = status;
  }

  // ── inside ──

  #has(name: string): boolean {
    return this.#find(name) >= 0;
  }
  #typed(type: string): void {
    this.#append(CONTENT_TYPE, type);
  }

  #mayHaveBody(): boolean {
    return this.#request.method !== 'HEAD' && !isBodiless(this.status);
  }

  /**
   * Decides about the head, and what becomes of the connection. `known` undefined: nobody knows the
   * length. Answers the Content-Length, or -1 for none.
   */
  #head(known: number | undefined): number {
    const connection = this.#connection;
    const { status } = this;
    if (!isStatus(status) || status < 200) throw outOfRange('status', '>= 200 && <= 999', status);
    if (known !== undefined && this.#length !== undefined && this.#length !== known)
      this.#checkLength(known);
    const { contentType } = connection.server._settings;
    if (contentType !== undefined && known !== 0 && !this.#has('content-type'))
      if (!isBodiless(status)) this.#typed(contentType);
    const length = this.#length ?? known;
    let told = -1;
    if (status !== 204) {
      if (length !== undefined) {
        if (status !== 304 || length > 0) told = length;
      } else if (status !== 304) {
        if (this.#request.version === '1.0') this.#close = true;
        else this.#chunked = true;
      }
    }
    if (!this.#close && connection._mustClose()) this.#close = true;
    return told;
  }

  /** To HEAD, a length may be told of a body that is not made. */
  #checkLength(known: number): void {
    if (!this.#mayHaveBody() && known === 0) return;
    throw new MultiloopError(
      'ERR_HTTP_LENGTH',
      `The answer's Content-Length is ${this.#length}, and its body has ${known} bytes`,
    );
  }

  /** `length` as #head() answers it; `bytes` are those of the body that goes with the head. */
  #writeHead(stream: BufferEvent, length: number, body = '', bytes = 0): void {
    const { status } = this;
    const begin = this.#ownDate
      ? latin1(`HTTP/1.1 ${status} ${reasonOf(status)}\r\n`)
      : beginningBytes(status, stream.base);
    const headers = this.#headers;
    let most = begin.length + OWN_LINES_MAX + bytes;
    if (headers !== undefined)
      for (let i = 0; i < headers.length; i += 2)
        most += (headers[i] as HeaderName).lengthWith(headers[i + 1] as string);
    if (stream.closed || stream.ended) {
      // It drops what is written, or refuses it.
      stream.write('');
      return;
    }
    const room = stream.output._room(most);
    const { bytes: memory, end } = room;
    let at = putBytes(memory, end, begin);
    if (headers !== undefined)
      for (let i = 0; i < headers.length; i += 2)
        at = (headers[i] as HeaderName).put(memory, at, headers[i + 1] as string);
    if (length >= 0) {
      at = putNumber(memory, putBytes(memory, at, CONTENT_LENGTH), length);
      memory[at++] = CR;
      memory[at++] = LF;
    } else if (this.#chunked) at = putBytes(memory, at, CHUNKED);
    if (this.#close) at = putBytes(memory, at, CLOSE);
    else if (this.#request.version === '1.0') at = putBytes(memory, at, KEEP_ALIVE);
    memory[at++] = CR;
    memory[at++] = LF;
    if (bytes > 0) at = putUtf8(memory, at, body, bytes);
    stream.output._fill(room, at - end);
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
