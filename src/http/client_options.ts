// What a client of HTTP can be told, and what one request is. The numbers are evhttp's where it has
// some; it has no limits unless it is given them, and here there are always some.

import type { Bytes } from '../buffer/ev_buffer.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import type { TlsClientOptions } from '../stream/tls_options.js';
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkMillis,
  checkObject,
} from '../validate.js';
import type { BodySource } from './body_source.js';
import type { HttpClientResponse } from './client_response.js';
import type { HeadersInit } from './header_list.js';
import type { HttpHeaders } from './headers.js';

export interface HttpClientLimits {
  /** Requests that wait for the connection: 1,000; one more is ERR_HTTP_QUEUE_FULL. */
  queueMax?: number;
  /** Bytes of a status line: 8 KiB. */
  statusLineMax?: number;
  /** Bytes of the headers of an answer together: 64 KiB. */
  headersMax?: number;
  /** How many headers, and how many trailers: 200. */
  headerCountMax?: number;
  /** Bytes of an answer's body, however it is read: Infinity. */
  bodyMax?: number;
  /** Bytes that `bytes()`, `text()` and `json()` gather: 64 MiB. */
  wholeBodyMax?: number;
  /** Bytes of the extensions of all chunks of a body: 16 KiB. */
  chunkExtensionsMax?: number;
  /** Bytes of the trailers: 16 KiB. */
  trailersMax?: number;
}

/** Milliseconds; 0 for no limit. */
export interface HttpClientTimeouts {
  /** Until it is connected, the name's look-up included: 45 s; then ETIMEDOUT. */
  connectTimeout?: number;
  /** From the end of a request to the head of its answer: 300 s; then ERR_HTTP_TIMEOUT. */
  answerTimeout?: number;
  /** Between two pieces of an answer's body, while there is room for them: 50 s. */
  readTimeout?: number;
  /**
   * How long an answer may keep the next request waiting because nobody reads on: 300 s. Then its
   * connection is cut, and reading it further rejects.
   */
  unreadTimeout?: number;
  /** In which the server must take something of what waits for it: 50 s; as those above. */
  sendTimeout?: number;
  /**
   * How long a connection is kept without a request: 30 s, or a second less than the server's
   * `Keep-Alive: timeout=` says.
   */
  keepAliveTimeout?: number;
  /** How long a body waits for `100 Continue` before it is sent regardless: 1 s. */
  continueTimeout?: number;
}

export interface HttpClientHooks {
  /** A request has failed: what its promise, or the reading of its answer, rejects with. */
  error?(error: Error, request: HttpRequestOptions): void;
  /** The answer has come whole, read or not. */
  complete?(response: HttpClientResponse): void;
  /** A connection has ended, with the error that ended it; the next request makes another. */
  close?(error: Error | undefined): void;
}

export interface HttpClientOptions extends HttpClientLimits, HttpClientTimeouts, HttpClientHooks {
  /** A name or an address; with `port`, or `path`, unless there are streams. */
  host?: string;
  /** 80, or 443 with `tls`. */
  port?: number;
  /** Of a unix socket, in place of host and port; the Host header is `host`, or localhost. */
  path?: string;
  /** 4 or 6 for addresses of one family alone. */
  family?: 0 | 4 | 6;
  /**
   * As for BufferEvent.connect(); the certificate must be that of `host`. Without a `session` here,
   * later connections resume that of the one before.
   */
  tls?: TlsClientOptions;
  localAddress?: string;
  localPort?: number;
  /** Later connections go to the address that the first one was made to; nothing is looked up. */
  reuseAddress?: boolean;
  /** A stream to begin with, which becomes the client's. It is replaced if there is a `host`. */
  stream?: BufferEvent;
  /** Makes every connection: through a proxy, over a filter. Its failure is one to connect. */
  makeStream?(): BufferEvent;
  /** How often connecting is tried again before those who wait are told: 0; Infinity for ever. */
  retries?: number;
  /** Before the first retry: 2 s; twice as long before each that follows, up to an hour. */
  retryDelay?: number;
}

export interface HttpRequestOptions {
  /** 'GET'. Any token. */
  method?: string;
  /** '/'. The target, with the query, as it is sent: nothing is escaped. */
  path?: string;
  headers?: HeadersInit;
  /** A string is UTF-8. What is not text or bytes is sent in chunks, or by a Content-Length. */
  body?: Bytes | BodySource;
  /** After a body that is sent in chunks. */
  trailers?: Readonly<Record<string, string>>;
  /** The body waits for the server's leave (RFC 9110 section 10.1.1). */
  expectContinue?: boolean;
  /** Told of answers before the answer, such as 103. */
  inform?(status: number, headers: HttpHeaders): void;
  /** Aborting it ends the request, wherever it is, with the signal's reason. */
  signal?: AbortSignal;
}

const KIB = 1024;
export const HTTP_CLIENT_DEFAULTS = {
  queueMax: 1_000,
  statusLineMax: 8 * KIB,
  headersMax: 64 * KIB,
  headerCountMax: 200,
  bodyMax: Number.POSITIVE_INFINITY,
  wholeBodyMax: 64 * KIB * KIB,
  chunkExtensionsMax: 16 * KIB,
  trailersMax: 16 * KIB,
  retries: 0,
  connectTimeout: 45_000,
  answerTimeout: 300_000,
  readTimeout: 50_000,
  unreadTimeout: 300_000,
  sendTimeout: 50_000,
  keepAliveTimeout: 30_000,
  continueTimeout: 1_000,
  retryDelay: 2_000,
} as const;

type Numbers = { readonly [Name in keyof typeof HTTP_CLIENT_DEFAULTS]: number };
export type ClientSettings = Numbers;

const MAY_BE_INFINITE = new Set(['bodyMax', 'wholeBodyMax', 'retries', 'queueMax']);
const AT_LEAST_ONE = new Set(['statusLineMax', 'headersMax', 'headerCountMax', 'queueMax']);
/** A head is one piece of memory, so there is an end to what may be asked for. */
const HEAD_BYTES_MAX = 16 * KIB * KIB;

export function clientSettings(options: HttpClientOptions): ClientSettings {
  checkObject('options', options);
  const settings: Record<string, number> = { ...HTTP_CLIENT_DEFAULTS };
  for (const name of Object.keys(HTTP_CLIENT_DEFAULTS) as (keyof Numbers)[]) {
    const value = options[name];
    if (value === undefined) continue;
    const label = `options.${name}`;
    if (/Timeout$|Delay$/.test(name)) checkMillis(label, value);
    else if (value !== Number.POSITIVE_INFINITY || !MAY_BE_INFINITE.has(name)) {
      const most = MAY_BE_INFINITE.has(name) ? undefined : HEAD_BYTES_MAX;
      checkInteger(label, value, AT_LEAST_ONE.has(name) ? 1 : 0, most);
    }
    settings[name] = value;
  }
  for (const name of ['error', 'complete', 'close', 'makeStream'] as const)
    if (options[name] !== undefined) checkFunction(`options.${name}`, options[name]);
  if (options.reuseAddress !== undefined)
    checkBoolean('options.reuseAddress', options.reuseAddress);
  return settings as unknown as ClientSettings;
}
