// The web's form of a handler, `fetch(request) → Response`, on the native one. Both of its objects
// are dear to make in Node (some 10 µs each), so a request is only made into a Request as far as it
// is looked at: method, URL, headers and whole bodies come from here, and everything else from a
// real Request that is made when it is needed.

import type { RequestHandler } from './http_options.js';
import type { HttpRequest } from './http_request.js';
import type { HttpResponse } from './http_response.js';
import { isBodiless } from './status.js';

/** What a handler is told beside the request. */
export interface FetchInfo {
  /** For the stream, its addresses and TLS, and the native view of all else. */
  readonly request: HttpRequest;
  /** For `inform()`, `upgrade()` and answers in the other form; else the answer is returned. */
  readonly response: HttpResponse;
}

/**
 * Answers a Request with a Response; undefined only where `info.response` has answered, as
 * upgrade() does, and what files() made. The request is
 * an instance of Request that makes most of itself when it is asked for it; where Node's Request
 * keeps its state in private fields, as newer ones do, `new Request(request)` and `fetch(request)`
 * need a real one, which `request.clone()` is.
 */
export type FetchHandler = (
  request: Request,
  info: FetchInfo,
) => Response | Promise<Response> | undefined | Promise<undefined>;

/** What a server between others does not pass on (RFC 9110 section 7.6.1). */
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'proxy-connection', 'te', 'upgrade']);
const NO_BODY = new Set(['GET', 'HEAD']);

export function webHandler(fetch: FetchHandler, scheme?: 'http' | 'https'): RequestHandler {
  prepare();
  return (request, response) => {
    const web = makeRequest(request, scheme) as unknown as Request;
    const result = fetch(web, { request, response });
    if (result instanceof Response || result === undefined) return reply(request, response, result);
    return (result as Promise<Response | undefined>).then((answer) =>
      reply(request, response, answer),
    );
  };
}

// ── requests ──

class WebRequest {
  readonly #request: HttpRequest;
  readonly #scheme: string;
  #url: string | undefined = undefined;
  #headers: Headers | undefined = undefined;
  #real: Request | undefined = undefined;
  /** The body was given out, and not by the real one. */
  #used = false;

  constructor(request: HttpRequest, scheme: string) {
    this.#request = request;
    this.#scheme = scheme;
  }

  get method(): string {
    return this.#request.method;
  }
  get url(): string {
    this.#url ??= urlOf(this.#request, this.#scheme);
    return this.#url;
  }
  get headers(): Headers {
    if (this.#headers === undefined) {
      this.#headers = new Headers();
      for (const [name, value] of this.#request.headers) this.#headers.append(name, value);
    }
    return this.#headers;
  }
  get signal(): AbortSignal {
    return this.#request.signal;
  }
  get bodyUsed(): boolean {
    return this.#used || (this.#real?.bodyUsed ?? false);
  }
  get body(): ReadableStream<Uint8Array> | null {
    return this._real().body as ReadableStream<Uint8Array> | null;
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    const bytes = await this.bytes();
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
  }
  async bytes(): Promise<Uint8Array> {
    if (this.#real !== undefined) return new Uint8Array(await this.#real.arrayBuffer());
    if (this.#used) throw new TypeError('Body is unusable: Body has already been read');
    this.#used = true;
    return this.#request.bytes();
  }
  async text(): Promise<string> {
    if (this.#real !== undefined) return this.#real.text();
    const bytes = await this.bytes();
    return new TextDecoder().decode(bytes);
  }
  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }

  /** @internal */
  _real(): Request {
    if (this.#real !== undefined) return this.#real;
    const request = this.#request;
    const { method } = request;
    const init: RequestInit & { duplex?: 'half' } = {
      method,
      headers: this.headers,
      signal: request.signal,
    };
    if (request.hasBody && !NO_BODY.has(method) && !this.#used) {
      init.body = streamOf(request) as unknown as NonNullable<RequestInit['body']>;
      init.duplex = 'half';
    }
    this.#real = new Request(this.url, init);
    return this.#real;
  }
}

/** What comes from the real one. */
const DELEGATED = [
  'blob',
  'formData',
  'clone',
  'cache',
  'credentials',
  'destination',
  'duplex',
  'integrity',
  'isHistoryNavigation',
  'isReloadNavigation',
  'keepalive',
  'mode',
  'redirect',
  'referrer',
  'referrerPolicy',
] as const;

let prepared = false;

/** When somebody needs it: Node loads its fetch when it is first looked at, in some 40 ms. */
function prepare(): void {
  if (prepared) return;
  prepared = true;
  const fromReal = <Name extends string | symbol>(
    name: Name,
    get: (real: Record<Name, unknown>) => unknown,
  ) =>
    Object.defineProperty(WebRequest.prototype, name, {
      configurable: true,
      get(this: WebRequest) {
        return get(this._real() as unknown as Record<Name, unknown>);
      },
    });
  for (const name of DELEGATED) {
    if (!(name in Request.prototype)) continue;
    fromReal(name, (real) => {
      const value = real[name];
      return typeof value === 'function' ? value.bind(real) : value;
    });
  }
  // Node's own Request takes another one by what it keeps under symbols, where it has some.
  for (const symbol of Object.getOwnPropertySymbols(new Request('http://localhost/')))
    fromReal(symbol, (real) => real[symbol]);
  Object.setPrototypeOf(WebRequest.prototype, Request.prototype);
  bodyPlace = Object.getOwnPropertySymbols(new Response('')).find(
    (symbol) => symbol.description === 'state',
  );
}

function makeRequest(request: HttpRequest, scheme: string | undefined): WebRequest {
  return new WebRequest(request, scheme ?? (isTls(request) ? 'https' : 'http'));
}

function isTls({ stream }: HttpRequest): boolean {
  return (stream as { tls?: unknown }).tls !== undefined;
}

function urlOf(request: HttpRequest, scheme: string): string {
  const { target } = request;
  const path = target.startsWith('/') ? target : pathOf(request);
  return `${scheme}://${request.host === '' ? 'localhost' : request.host}${path}`;
}
function pathOf({ path, query }: HttpRequest): string {
  const whole = path === '*' ? '/' : path;
  return query === '' ? whole : `${whole}?${query}`;
}

/** Pulls as its reader does: nothing is read ahead. */
function streamOf(request: HttpRequest): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const piece = await request.read();
        if (piece === undefined) controller.close();
        else controller.enqueue(piece);
      },
    },
    { highWaterMark: 0 },
  );
}

// ── answers ──

/** Where Node keeps a response's body before anybody has read it, if it has such a place. */
let bodyPlace: symbol | undefined;
interface KnownBody {
  source?: unknown;
  length?: number | null;
}

/** The whole body of a response that was made of text or bytes: no stream has to be read then. */
function wholeBody(answer: Response): string | Uint8Array | undefined {
  if (bodyPlace === undefined) return undefined;
  const state = (answer as unknown as Record<symbol, { body?: KnownBody | null } | undefined>)[
    bodyPlace
  ];
  const source = state?.body?.source;
  if (source === undefined || source === null || answer.bodyUsed) return undefined;
  if (typeof source === 'string' || source instanceof Uint8Array) return source;
  return source instanceof ArrayBuffer ? new Uint8Array(source) : undefined;
}

function reply(
  request: HttpRequest,
  response: HttpResponse,
  answer: Response | undefined,
): void | Promise<void> {
  if (response.begun) {
    // It was upgraded, answered in the other form, or nobody is there any more.
    answer?.body?.cancel().catch(() => undefined);
    return undefined;
  }
  if (!(answer instanceof Response))
    throw new TypeError(`fetch() must answer a Response. Received ${String(answer)}`);
  response.status = answer.status;
  for (const [name, value] of answer.headers) copyHeader(response, name, value);
  // First, since each getter of a Response costs about a microsecond.
  const whole = wholeBody(answer);
  if (whole !== undefined) {
    response.remove('content-length');
    response.send(whole);
    return undefined;
  }
  const { body } = answer;
  if (body === null) {
    response.send();
    return undefined;
  }
  if (answer.bodyUsed) throw new TypeError('The body of the Response was read already');
  if (request.method === 'HEAD' || isBodiless(answer.status)) {
    body.cancel().catch(() => undefined);
    response.begin();
    response.end();
    return undefined;
  }
  return response.pipe(body as ReadableStream<Uint8Array>);
}

function copyHeader(response: HttpResponse, name: string, value: string): void {
  if (name === 'transfer-encoding') return;
  if (name === 'connection') {
    if (/(^|[\s,])close($|[\s,])/i.test(value)) response.append(name, 'close');
    return;
  }
  if (!HOP_BY_HOP.has(name)) response.append(name, value);
}
