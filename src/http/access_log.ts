// The access log: a line for every request that has ended, in the combined log format or as JSON.
// Lines are gathered and written together; the request never waits for the disk, and when the disk
// does not keep up, lines are dropped and counted instead of kept without end.

import { close, open, write } from 'node:fs';
import { systemError } from '../errors.js';
import { formatAddress } from '../stream/address.js';
import { checkInteger, checkObject, checkOneOf, invalidType } from '../validate.js';
import type { HttpRequest } from './http_request.js';
import type { HttpResponse } from './http_response.js';

/** A request that has ended, as the log has it. */
export interface AccessEntry {
  /** When it ended, in milliseconds since 1970. */
  time: number;
  /** The peer, as an address without its port; '-' when it is not known any more. */
  remote: string;
  method: string;
  target: string;
  version: '1.0' | '1.1';
  /** The host that it was for; '' for none. */
  host: string;
  status: number;
  /** Bytes of the answer that the connection took, its head included; not all have left yet. */
  bytes: number;
  /** Milliseconds from the request's head to the end of its answer. */
  ms: number;
  /** The answer could not be sent whole. */
  aborted: boolean;
  referer: string | undefined;
  userAgent: string | undefined;
}

export interface AccessLogOptions {
  /** A file that is appended to; standard output without it. */
  path?: string;
  /** 'combined', as Apache and nginx write it, with the milliseconds behind; or 'json'. */
  format?: 'combined' | 'json';
  /** Milliseconds in which lines are gathered: 200; 64 KiB are written at once. */
  flushMs?: number;
  /** Bytes of lines that may wait to be written: 4 MiB; lines beyond are dropped and counted. */
  bufferMax?: number;
}

/** true: combined, to standard output. A function is called with each entry, and writes nothing. */
export type AccessLogOption = boolean | string | AccessLogOptions | ((entry: AccessEntry) => void);

const FLUSH_BYTES = 64 * 1024;
const FLUSH_MS = 200;
const BUFFER_MAX = 4 * 1024 * 1024;
const STDOUT = 1;
/** open(2) when the file is made: it tells who asked for what. */
export const LOG_MODE = 0o640;
/** Characters of a target or a header that are kept. */
const FIELD_MAX = 4_096;

export class AccessLog {
  /** Lines that were dropped, because too many waited or could not be written. */
  dropped = 0;
  readonly #path: string | undefined;
  readonly #json: boolean;
  readonly #flushMs: number;
  readonly #bufferMax: number;
  readonly #failed: (error: Error) => void;
  #fd = -1;
  #lines = '';
  #count = 0;
  #timer: NodeJS.Timeout | undefined = undefined;
  #writing = false;
  #reopening = false;
  #closing: Promise<void> | undefined = undefined;
  /** Told once for as long as writing fails. */
  #told = false;
  #idle: (() => void)[] = [];

  constructor(options: AccessLogOptions, failed: (error: Error) => void) {
    const { path, format = 'combined', flushMs = FLUSH_MS, bufferMax = BUFFER_MAX } = options;
    this.#path = path;
    this.#json = format === 'json';
    this.#flushMs = flushMs;
    this.#bufferMax = bufferMax;
    this.#failed = failed;
    if (path === undefined) this.#fd = STDOUT;
  }

  add(entry: AccessEntry): void {
    if (this.#closing !== undefined) return;
    const line = this.#json ? jsonLine(entry) : combinedLine(entry);
    if (this.#lines.length + line.length > this.#bufferMax) {
      this.dropped++;
      return;
    }
    this.#lines += line;
    this.#count++;
    if (this.#lines.length >= FLUSH_BYTES) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), this.#flushMs).unref();
  }

  /** Opens the path anew, as after a rotation: what comes from now on is in the new file. */
  reopen(): void {
    if (this.#path === undefined) return;
    this.#reopening = true;
    this.#flush();
  }

  /** Resolves when all that was added is written, or could not be. */
  flush(): Promise<void> {
    this.#flush();
    if (!this.#writing) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Resolves when all is written, however often it is called. */
  close(): Promise<void> {
    this.#closing ??= this.flush().then(() => this.#letGo());
    return this.#closing;
  }

  #letGo(): void {
    const fd = this.#fd;
    this.#fd = -1;
    if (fd > STDOUT) close(fd, () => undefined);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#writing) return;
    if (this.#reopening && this.#fd >= 0) this.#letGo();
    this.#reopening = false;
    if (this.#lines === '') return;
    this.#writing = true;
    const bytes = Buffer.from(this.#lines);
    const count = this.#count;
    this.#lines = '';
    this.#count = 0;
    if (this.#fd >= 0) this.#write(bytes, 0, count);
    else
      open(this.#path as string, 'a', LOG_MODE, (error, fd) => {
        if (error !== null) {
          this.#lost(error, count);
          return;
        }
        this.#fd = fd;
        this.#write(bytes, 0, count);
      });
  }

  #write(bytes: Buffer, from: number, count: number): void {
    write(this.#fd, bytes, from, bytes.length - from, null, (error, written) => {
      // A terminal or a pipe that nobody reads, set to non-blocking by somebody.
      if (error?.code === 'EAGAIN') setTimeout(() => this.#write(bytes, from, count), 10).unref();
      else if (error !== null) this.#lost(error, count);
      else if (from + written < bytes.length) this.#write(bytes, from + written, count);
      else {
        this.#told = false;
        this.#wrote();
      }
    });
  }

  #lost(error: NodeJS.ErrnoException, count: number): void {
    this.dropped += count;
    // It may be another file by the next time.
    this.#letGo();
    if (this.#path === undefined) this.#fd = STDOUT;
    if (!this.#told) {
      this.#told = true;
      const what = `the access log ${this.#path ?? 'on standard output'}`;
      this.#failed(systemError(error.errno ?? 0, error.syscall ?? 'write', undefined, what));
    }
    this.#wrote();
  }

  #wrote(): void {
    this.#writing = false;
    if (this.#reopening || this.#lines.length >= FLUSH_BYTES || this.#idle.length > 0)
      this.#flush();
    else if (this.#lines !== '')
      this.#timer ??= setTimeout(() => this.#flush(), this.#flushMs).unref();
    if (this.#writing) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}

export function checkAccessLog(name: string, option: unknown): void {
  if (option === undefined || typeof option === 'boolean' || typeof option === 'function') return;
  if (typeof option === 'string') return;
  if (typeof option !== 'object' || option === null)
    throw invalidType(name, 'true, a path, a function or of type object', option);
  checkObject(name, option);
  const { path, format, flushMs, bufferMax } = option as AccessLogOptions;
  if (path !== undefined && typeof path !== 'string')
    throw invalidType(`${name}.path`, 'of type string', path);
  if (format !== undefined) checkOneOf(`${name}.format`, format, ['combined', 'json']);
  if (flushMs !== undefined) checkInteger(`${name}.flushMs`, flushMs, 0, 60_000);
  if (bufferMax !== undefined) checkInteger(`${name}.bufferMax`, bufferMax, 1);
}

export function entryOf(request: HttpRequest, response: HttpResponse): AccessEntry {
  const { headers, stream, _began: began } = request;
  const address = stream.remoteAddress;
  const remote =
    address === undefined ? '-' : 'host' in address ? address.host : formatAddress(address);
  return {
    time: Date.now(),
    remote,
    method: request.method,
    target: request.target,
    version: request.version,
    host: request.host,
    status: response.status,
    bytes: stream.bytesWritten + stream.outputLength - began.written,
    ms: performance.now() - began.at,
    aborted: response.aborted,
    referer: headers.get('referer'),
    userAgent: headers.get('user-agent'),
  };
}

const MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ');
let second = -1;
let date = '';
/** In UTC, made once a second. */
function dateOf(time: number): string {
  const now = Math.floor(time / 1_000);
  if (now === second) return date;
  second = now;
  const [year, month, day, ...rest] = new Date(time).toISOString().split(/[-T:.]/);
  date = `${day}/${MONTHS[Number(month) - 1]}/${year}:${rest.slice(0, 3).join(':')} +0000`;
  return date;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not reach the log
const UNSAFE = /[\x00-\x1f"\\\x7f-\x9f\u2028\u2029]/g;
/** As Apache escapes: nothing that a peer sends ends a field or a line, or moves a terminal. */
function quoted(text: string): string {
  return text.slice(0, FIELD_MAX).replace(UNSAFE, (one) => {
    if (one === '"' || one === '\\') return `\\${one}`;
    const code = one.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16)}`;
  });
}

export function combinedLine(entry: AccessEntry): string {
  const { remote, time, method, target, version, status, bytes, referer, userAgent, ms } = entry;
  return (
    `${remote} - - [${dateOf(time)}] "${quoted(`${method} ${target}`)} HTTP/${version}" ` +
    `${status} ${bytes} "${quoted(referer ?? '-')}" "${quoted(userAgent ?? '-')}" ` +
    `${ms.toFixed(3)}\n`
  );
}

export function jsonLine(entry: AccessEntry): string {
  const cut = (text: string | undefined) => text?.slice(0, FIELD_MAX);
  const line = JSON.stringify({
    ...entry,
    time: new Date(entry.time).toISOString(),
    target: cut(entry.target),
    referer: cut(entry.referer),
    userAgent: cut(entry.userAgent),
    ms: Number(entry.ms.toFixed(3)),
  });
  // JSON leaves these as they are.
  return `${line.replace(/[\x7f-\x9f\u2028\u2029]/g, (one) => {
    return `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`;
  })}\n`;
}
