// A request that a client sends: checked, and its head written, when it is asked for.

import { MultiloopError } from '../errors.js';
import {
  checkBoolean,
  checkFunction,
  checkSignal,
  invalidType,
  invalidValue,
} from '../validate.js';
import type { BodySource } from './body_source.js';
import { CLASS, isToken, TARGET } from './characters.js';
import type { HttpRequestOptions } from './client_options.js';
import { checkHeader, trailerLines } from './header_checks.js';
import { HEADER_LINES_MAX, pairsOf } from './header_list.js';

/** What a request may be sent twice for without doing it twice (RFC 9110 section 9.2.2). */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);
/** Without a body they say so (RFC 9110 section 8.6). */
const EXPECT_BODY = new Set(['POST', 'PUT', 'PATCH']);

export class ClientRequest {
  readonly options: HttpRequestOptions;
  readonly method: string;
  readonly head: string;
  /** All of the body; undefined if there is none, or a source. */
  readonly bytes: Uint8Array | undefined = undefined;
  readonly source: BodySource | undefined = undefined;
  /** That was declared: of a source without one, undefined. */
  readonly length: number | undefined;
  readonly trailers: string;
  readonly close: boolean;
  readonly upgrades: boolean;
  readonly waitsForLeave: boolean;
  readonly signal: AbortSignal | undefined;

  /** Throws ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE and ERR_HTTP_LENGTH. */
  constructor(options: HttpRequestOptions, authority: string) {
    const { method = 'GET', path = '/', body, expectContinue = false } = options;
    if (typeof method !== 'string') throw invalidType('options.method', 'of type string', method);
    if (!isToken(method)) throw invalidValue('options.method', 'is no method', method);
    checkTarget(path);
    if (options.inform !== undefined) checkFunction('options.inform', options.inform);
    checkBoolean('options.expectContinue', expectContinue);
    this.options = options;
    this.method = method;
    this.signal = checkSignal('options.signal', options.signal);
    if (typeof body === 'string') this.bytes = Buffer.from(body);
    else if (body instanceof Uint8Array) this.bytes = body;
    else if (body !== undefined) this.source = checkSource(body);
    const own = new OwnHeaders(options);
    this.close = own.close;
    this.upgrades = own.upgrades || method === 'CONNECT';
    this.length = this.bytes?.length ?? own.length;
    const { length = own.length } = this.bytes ?? {};
    if (own.length !== undefined && own.length !== length)
      throw new MultiloopError(
        'ERR_HTTP_LENGTH',
        `The request's Content-Length is ${own.length}, and its body has ${length} bytes`,
      );
    this.waitsForLeave = expectContinue && this.hasBody;
    this.trailers = trailerLines(options.trailers);
    if (this.trailers !== '' && !this.chunked)
      throw invalidValue('options.trailers', 'go with a body of unknown length alone', '...');
    this.head =
      `${method} ${path} HTTP/1.1\r\nHost: ${own.host ?? authority}\r\n` +
      `${own.lines}${this.#framing(own.length)}\r\n`;
  }

  #framing(declared: number | undefined): string {
    let lines = '';
    if (this.chunked) lines = 'Transfer-Encoding: chunked\r\n';
    else if (this.length !== undefined) lines = `Content-Length: ${this.length}\r\n`;
    else if (EXPECT_BODY.has(this.method)) lines = 'Content-Length: 0\r\n';
    if (declared !== undefined && !this.hasBody && declared > 0)
      throw invalidValue(
        'options.headers',
        'have a Content-Length, and there is no body',
        declared,
      );
    return this.waitsForLeave ? `${lines}Expect: 100-continue\r\n` : lines;
  }

  get hasBody(): boolean {
    return this.source !== undefined || (this.bytes !== undefined && this.bytes.length > 0);
  }
  get chunked(): boolean {
    return this.source !== undefined && this.length === undefined;
  }
  /** Whether it may be sent again when nobody can know whether it was received. */
  get repeatable(): boolean {
    return IDEMPOTENT.has(this.method) && this.source === undefined;
  }
}

function checkTarget(path: unknown): void {
  if (typeof path !== 'string') throw invalidType('options.path', 'of type string', path);
  let good = path !== '';
  for (let i = 0; i < path.length && good; i++) {
    const unit = path.charCodeAt(i);
    good = unit < 128 && (CLASS[unit] & TARGET) !== 0;
  }
  if (!good) throw invalidValue('options.path', 'is no target of a request', path);
}

function checkSource(body: object): BodySource {
  const isSource =
    typeof body === 'object' &&
    body !== null &&
    (Symbol.asyncIterator in body || Symbol.iterator in body || 'getReader' in body);
  if (!isSource)
    throw invalidType('options.body', 'a string, a Uint8Array, an iterable or a stream', body);
  return body as BodySource;
}

/** What a caller's headers say that the client has to know; the others are lines. */
class OwnHeaders {
  lines = '';
  host: string | undefined = undefined;
  length: number | undefined = undefined;
  close = false;
  upgrades = false;

  constructor({ headers = {} }: HttpRequestOptions) {
    let count = 0;
    for (const [name, value] of pairsOf(headers)) {
      const text = checkHeader(name, value);
      if (++count > HEADER_LINES_MAX)
        throw invalidValue('options.headers', `are more than ${HEADER_LINES_MAX}`, count);
      if (!this.#special(name.toLowerCase(), text)) this.lines += `${name}: ${text}\r\n`;
    }
  }

  #special(name: string, value: string): boolean {
    if (name === 'host') {
      if (this.host !== undefined) throw invalidValue('options.headers', 'have two Hosts', value);
      this.host = value;
      return true;
    }
    if (name === 'content-length') {
      if (!/^\d{1,15}$/.test(value) || this.length !== undefined)
        throw invalidValue('options.headers', 'have no Content-Length that is one number', value);
      this.length = Number(value);
      return true;
    }
    if (name === 'transfer-encoding' || name === 'expect')
      throw invalidValue('options.headers', 'have one that the client sets itself', name);
    if (name === 'connection') {
      this.close ||= /(^|[\s,])close($|[\s,])/i.test(value);
      this.upgrades ||= /(^|[\s,])upgrade($|[\s,])/i.test(value);
    }
    return false;
  }
}
