// What a server of HTTP can be told, and what it does when it is told nothing. Everything that a
// peer could make large or slow has a limit; nothing of libevent's evhttp has one by default.

import { checkFunction, checkInteger, checkMillis, checkObject } from '../validate.js';
import { type AccessLogOption, checkAccessLog } from './access_log.js';
import type { HttpRequest } from './http_request.js';
import type { HttpResponse } from './http_response.js';
import type { FetchHandler } from './web_handler.js';
import type { WebSocketOptions } from './ws_options.js';

/** Answers a request; what it returns only matters if it is a promise, which may reject. */
export type RequestHandler = (request: HttpRequest, response: HttpResponse) => unknown;

export interface HttpLimits {
  /** Bytes of a request line: 8 KiB; a longer one is answered 414. */
  requestLineMax?: number;
  /** Bytes of the headers together: 16 KiB; more are answered 431. */
  headersMax?: number;
  /** How many headers, and how many trailers: 100; more are answered 431. */
  headerCountMax?: number;
  /** Bytes of a request's body: 16 MiB; a longer one is answered 413. Infinity for no limit. */
  bodyMax?: number;
  /** Bytes of the extensions of all chunks of a body: 4 KiB; more are answered 413. */
  chunkExtensionsMax?: number;
  /** Bytes of the trailers: 8 KiB; more are answered 431. */
  trailersMax?: number;
  /** Requests on one connection: no limit; the last one is answered with `Connection: close`. */
  requestsMax?: number;
  /** Bytes that wait for the peer when a handler writes on regardless: 16 MiB. */
  outputMax?: number;
  /** Connections at once: 65,536; one more is answered 503 and closed. */
  connectionsMax?: number;
}

/** Milliseconds; 0 for no limit. */
export interface HttpTimeouts {
  /** From the first byte of a request to the end of its headers: 30 s; then 408. */
  headersTimeout?: number;
  /** From the first byte of a request to the end of its body: 300 s; then 408. */
  requestTimeout?: number;
  /** Between two requests, and before the first: 60 s; then the connection is closed. */
  keepAliveTimeout?: number;
  /** From the end of a request to the beginning of its answer: 300 s; then 503. */
  answerTimeout?: number;
  /** In which the peer must take something of what waits for it: 60 s; then a reset. */
  sendTimeout?: number;
}

export interface HttpHooks {
  /**
   * Told what a handler throws or rejects with, that it gave no answer, that its peer left before
   * it, and why a request was refused (then without a request). What it throws itself is an
   * uncaught exception.
   */
  error?(error: Error, request: HttpRequest | undefined): void;
  /** Told of every request that has ended, also of one whose answer could not be sent whole. */
  complete?(request: HttpRequest, response: HttpResponse): void;
}

export interface HttpOptions extends HttpLimits, HttpTimeouts, HttpHooks {
  /** Answers requests in the fast form. */
  request?: RequestHandler;
  /** Answers them in the web's form. One of the two. */
  fetch?: FetchHandler;
  /**
   * Takes the requests that ask for a WebSocket, for all paths or for one, before the other two
   * handlers; and what upgradeWebSocket() takes its own handlers from.
   */
  // biome-ignore lint/suspicious/noExplicitAny: what its state is only its handlers know
  websocket?: WebSocketOptions<any, any>;
  /**
   * A line for every request that has ended: true for standard output, a path, options, or a
   * function that is called with each entry. false.
   */
  accessLog?: AccessLogOption;
  /** For the URLs of `fetch`: 'http' unless the stream is TLS. */
  scheme?: 'http' | 'https';
}

const KIB = 1024;
/** The defaults of every limit and timeout. */
export const HTTP_DEFAULTS = {
  requestLineMax: 8 * KIB,
  headersMax: 16 * KIB,
  headerCountMax: 100,
  bodyMax: 16 * KIB * KIB,
  chunkExtensionsMax: 4 * KIB,
  trailersMax: 8 * KIB,
  requestsMax: Number.POSITIVE_INFINITY,
  outputMax: 16 * KIB * KIB,
  connectionsMax: 65_536,
  headersTimeout: 30_000,
  requestTimeout: 300_000,
  keepAliveTimeout: 60_000,
  answerTimeout: 300_000,
  sendTimeout: 60_000,
} as const;

type Numbers = { readonly [Name in keyof typeof HTTP_DEFAULTS]: number };
/** The same with every default filled in. */
export interface HttpSettings extends Numbers {
  readonly error: HttpHooks['error'];
  readonly complete: HttpHooks['complete'];
}

const TIMEOUTS = [
  'headersTimeout',
  'requestTimeout',
  'keepAliveTimeout',
  'answerTimeout',
  'sendTimeout',
] as const;
const MAY_BE_INFINITE = new Set<string>(['bodyMax', 'requestsMax', 'outputMax', 'connectionsMax']);
/** A head is one piece of memory, so there is an end to what may be asked for. */
const HEAD_BYTES_MAX = 16 * KIB * KIB;
/** Limits on what is never 0, since nothing could be served then. */
const AT_LEAST_ONE = new Set<string>(['requestLineMax', 'headersMax', 'headerCountMax']);

export function httpSettings(options: HttpOptions): HttpSettings {
  checkObject('options', options);
  const settings: Record<string, unknown> = { ...HTTP_DEFAULTS };
  for (const name of Object.keys(HTTP_DEFAULTS) as (keyof Numbers)[]) {
    const value = options[name];
    if (value === undefined) continue;
    if ((TIMEOUTS as readonly string[]).includes(name)) checkMillis(`options.${name}`, value);
    else if (value !== Number.POSITIVE_INFINITY || !MAY_BE_INFINITE.has(name)) {
      const most = MAY_BE_INFINITE.has(name) ? undefined : HEAD_BYTES_MAX;
      checkInteger(`options.${name}`, value, AT_LEAST_ONE.has(name) ? 1 : 0, most);
    }
    settings[name] = value;
  }
  for (const name of ['error', 'complete'] as const) {
    const hook = options[name];
    if (hook !== undefined) checkFunction(`options.${name}`, hook);
    settings[name] = hook?.bind(options);
  }
  checkAccessLog('options.accessLog', options.accessLog);
  return settings as unknown as HttpSettings;
}
