// The handshake of RFC 6455 section 4, on the server's side, and what both sides compute.

import { createHash } from 'node:crypto';
import { MultiloopError } from '../errors.js';
import type { EventBase } from '../event/event_base.js';
import { checkFunction, invalidType, invalidValue } from '../validate.js';
import { isToken } from './characters.js';
import type { HttpRequest } from './http_request.js';
import type { HttpResponse } from './http_response.js';
import { reasonOf } from './status.js';
import { WebSocket } from './websocket.js';
import { answerTo } from './ws_negotiation.js';
import { type StreamKeeper, WebSocketContext, type WebSocketOptions } from './ws_options.js';
import { SUBPROTOCOL_MAX } from './ws_state.js';
import { OwnTopics, type TopicHub } from './ws_topics.js';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const KEY = /^[A-Za-z0-9+/]{21}[AQgw]==$/;
/** Subprotocols of one handshake that are looked at. */
const SUBPROTOCOLS_MAX = 64;

/** Section 4.2.2, 5.4. */
export function acceptOf(key: string): string {
  return createHash('sha1').update(`${key}${GUID}`).digest('base64');
}

export function checkProtocols(name: string, protocols: readonly string[] | undefined): void {
  if (protocols === undefined) return;
  if (!Array.isArray(protocols)) throw invalidType(name, 'an instance of Array', protocols);
  for (const one of protocols)
    if (typeof one !== 'string' || !isToken(one) || one.length > SUBPROTOCOL_MAX)
      throw invalidValue(name, 'must be tokens of at most 255 characters', one);
  if (new Set(protocols).size < protocols.length)
    throw invalidValue(name, 'must not name one twice', protocols);
}

export function checkWebSocketOptions(name: string, options: WebSocketOptions): void {
  const { path, protocols, accept } = options;
  if (path !== undefined && typeof path !== 'string')
    throw invalidType(`${name}.path`, 'of type string', path);
  checkProtocols(`${name}.protocols`, protocols);
  if (accept !== undefined) checkFunction(`${name}.accept`, accept);
}

/** Whether a request asks for a WebSocket; if it does so wrongly, upgradeWebSocket() says so. */
export function isWebSocketRequest(request: HttpRequest): boolean {
  return (
    request._upgrades &&
    (request.headers.get('upgrade') ?? '')
      .split(',')
      .some((one) => one.trim().toLowerCase() === 'websocket')
  );
}

/** The contexts of one server: that of its option, and those that are in use beside it. */
export class WebSocketContexts {
  readonly #base: EventBase;
  readonly #own: WebSocketContext | undefined;
  readonly #others = new WeakMap<WebSocketOptions, WebSocketContext>();
  readonly #used = new Set<WebSocketContext>();
  readonly #emptied: () => void;
  readonly #failed: (error: Error) => void;
  #keeper: StreamKeeper | undefined = undefined;
  /** Of all WebSockets here, whatever their handlers. */
  #topics: TopicHub = new OwnTopics();

  constructor(
    base: EventBase,
    options: WebSocketOptions | undefined,
    emptied: () => void,
    failed: (error: Error) => void,
  ) {
    this.#base = base;
    this.#emptied = emptied;
    this.#failed = failed;
    if (options !== undefined) this.#own = this.#make('options.websocket', options);
  }

  get topics(): TopicHub {
    return this.#topics;
  }
  setKeeper(keeper: StreamKeeper, topics: TopicHub): void {
    this.#keeper = keeper;
    this.#topics = topics;
    if (this.#own === undefined) return;
    this.#own.keeper = keeper;
    this.#own.topics = topics;
    this.#own.movable = true;
  }
  get own(): WebSocketContext | undefined {
    return this.#own;
  }
  of(options: WebSocketOptions | undefined): WebSocketContext {
    if (options === undefined || options === this.#own?.handlers) {
      if (this.#own !== undefined) return this.#own;
      throw invalidType('options', 'of type object, or the websocket option', options);
    }
    const found = this.#others.get(options);
    if (found !== undefined) return found;
    const made = this.#make('options', options);
    this.#others.set(options, made);
    return made;
  }
  #make(name: string, options: WebSocketOptions): WebSocketContext {
    const made = new WebSocketContext(this.#base, name, options, false);
    checkWebSocketOptions(name, options);
    made.failed = this.#failed;
    made.keeper = this.#keeper;
    made.topics = this.#topics;
    made.changed = () => {
      if (made.sockets.size > 0) this.#used.add(made);
      else {
        this.#used.delete(made);
        this.#emptied();
      }
    };
    return made;
  }

  /** How many WebSockets there are. */
  get size(): number {
    let size = 0;
    for (const { sockets } of this.#used) size += sockets.size;
    return size;
  }
  *[Symbol.iterator](): IterableIterator<WebSocket> {
    for (const { sockets } of [...this.#used]) yield* [...sockets];
  }
}

/**
 * Answers a request that asks for a WebSocket, and calls `open` of the handlers; without `options`
 * they are those of the server's `websocket` option, and only with those a connection under serve()
 * can move. Other requests, and bad ones, are answered 400, 403 or 426, and what is answered here
 * is undefined. Wrong options throw ERR_INVALID_ARG_TYPE and the like.
 */
export function upgradeWebSocket<State = unknown, Packed = State>(
  request: HttpRequest,
  response: HttpResponse,
  options?: WebSocketOptions<State, Packed>,
): WebSocket<State> | undefined | Promise<WebSocket<State> | undefined> {
  const context = request._server._webSockets.of(options as WebSocketOptions | undefined);
  const { accept } = context.handlers;
  const key = checkRequest(request, response);
  if (key === undefined) return undefined;
  const finish = (accepted: boolean) => {
    if (response.aborted) return undefined;
    if (accepted === true) return upgrade(context, request, response, key) as WebSocket<State>;
    refuse(response, 403, 'this WebSocket is not for everybody');
    return undefined;
  };
  const accepted = accept === undefined || accept.call(context.handlers, request);
  return typeof accepted === 'boolean' ? finish(accepted) : accepted.then(finish);
}

/** The key, or the request was refused (section 4.2.1). */
function checkRequest(request: HttpRequest, response: HttpResponse): string | undefined {
  const { headers } = request;
  const keys = headers.getAll('sec-websocket-key');
  let status = 400;
  let why: string | undefined;
  if (!isWebSocketRequest(request) || request.version === '1.0') {
    status = 426;
    response.set('Upgrade', 'websocket').set('Connection', 'Upgrade');
    why = 'this resource is a WebSocket';
  } else if (request.method !== 'GET') why = 'a WebSocket begins with GET';
  else if (request._body !== undefined) why = 'the request has a body';
  else if (keys.length !== 1 || !KEY.test(keys[0])) why = 'Sec-WebSocket-Key is malformed';
  else if (headers.get('sec-websocket-version') !== '13') {
    status = 426;
    response.set('Sec-WebSocket-Version', '13');
    why = 'the version of WebSocket is 13';
  }
  if (why === undefined) return keys[0];
  refuse(response, status, why);
  return undefined;
}

function refuse(response: HttpResponse, status: number, why: string): void {
  response.status = status;
  response.send(`${reasonOf(status)}: ${why}.\n`);
}

function upgrade(
  context: WebSocketContext,
  request: HttpRequest,
  response: HttpResponse,
  key: string,
): WebSocket {
  if (response.begun)
    throw new MultiloopError('ERR_HTTP_ANSWERED', 'The request was answered already');
  const subprotocol = choose(request, context.handlers.protocols);
  const offers = request.headers.get('sec-websocket-extensions');
  const wish = context.settings.deflate;
  const deflate = wish && offers !== undefined ? answerTo(offers, wish) : undefined;
  const answer: Record<string, string> = { 'Sec-WebSocket-Accept': acceptOf(key) };
  if (subprotocol !== '') answer['Sec-WebSocket-Protocol'] = subprotocol;
  if (deflate !== undefined) answer['Sec-WebSocket-Extensions'] = deflate.answer;
  // Until the checkpoint says what it is, nobody is to adopt it.
  const hold = context.keeper?.hold(request.stream);
  const stream = response._upgrade('websocket', answer, context.movable);
  const ws = new WebSocket(context, stream);
  ws._open(subprotocol, deflate?.agreed, request);
  hold?.[Symbol.dispose]();
  return ws;
}

function choose(request: HttpRequest, known: readonly string[] | undefined): string {
  const offered = request.headers.get('sec-websocket-protocol');
  if (offered === undefined || known === undefined) return '';
  for (const one of offered.split(',', SUBPROTOCOLS_MAX))
    if (known.includes(one.trim())) return one.trim();
  return '';
}
