// A WebSocket that connects: the handshake of RFC 6455 section 4.1 over a stream of any kind.

import { randomBytes } from 'node:crypto';
import { MultiloopError } from '../errors.js';
import { Ev } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import { type BevEvent, CLOSED, checkBase, type HandlersAbove } from '../stream/bev_options.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { BufferEvent as Streams } from '../stream/kinds.js';
import type { TlsClientOptions } from '../stream/tls_options.js';
import { checkMillis, checkObject, invalidType, invalidValue } from '../validate.js';
import { isFieldValue, isToken } from './characters.js';
import { Deadlines, Timed } from './deadlines.js';
import { HttpHeaders } from './headers.js';
import { WebSocket } from './websocket.js';
import type { DeflateSettings } from './ws_deflate.js';
import { acceptOf, checkProtocols } from './ws_handshake.js';
import { agreementOf, offerOf } from './ws_negotiation.js';
import {
  WebSocketContext,
  type WebSocketHandlers,
  type WebSocketLimits,
  type WebSocketOptions,
} from './ws_options.js';

/** Bytes of the server's answer. */
const ANSWER_MAX = 16 * 1024;
const TIMEOUT_MS = 30_000;

export interface WebSocketClientOptions<State = unknown>
  extends WebSocketHandlers<State>,
    WebSocketLimits {
  /** Subprotocols, the ones that are liked best first. */
  protocols?: readonly string[];
  /** Further headers of the request, such as Origin, Cookie and Authorization. */
  headers?: Readonly<Record<string, string>>;
  /** For wss:, as for BufferEvent.connect(). */
  tls?: TlsClientOptions;
  /** Milliseconds until the handshake must be done: 30 s; 0 for no limit. */
  timeout?: number;
  localAddress?: string;
  /** A stream that is connected, or connects, in place of one to the URL's host. */
  stream?: BufferEvent;
}

/** Headers that are the handshake's. */
const OWN = new Set(['host', 'connection', 'upgrade', 'content-length', 'transfer-encoding']);

/**
 * Connects to a ws: or wss: URL. What it answers is not open yet: `open` is called when it is, or
 * `error` (the system's, or ERR_WEBSOCKET_HANDSHAKE) and then `close` with 1006. Wrong arguments
 * throw ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE and ERR_OUT_OF_RANGE.
 */
export function connectWebSocket<State = unknown>(
  base: EventBase,
  url: string | URL,
  options: WebSocketClientOptions<State> = {},
): WebSocket<State> {
  checkBase(base);
  const place = placeOf(url);
  checkObject('options', options);
  const { protocols = [], timeout = TIMEOUT_MS, localAddress } = options;
  checkProtocols('options.protocols', protocols);
  checkMillis('options.timeout', timeout);
  const context = new WebSocketContext(base, 'options', options as WebSocketOptions, true);
  const key = randomBytes(16).toString('base64');
  const request = requestFor(place, key, options as WebSocketClientOptions, context);
  const stream =
    options.stream ??
    Streams.connect(
      base,
      { host: place.host, port: place.port },
      { localAddress, ...(place.secure ? { tls: options.tls ?? {} } : {}) },
    );
  const ws = new WebSocket(context, stream);
  stream.write(request);
  stream.handlers = new Opening(ws, context, key, protocols, timeout);
  stream.enable(Ev.READ);
  return ws as WebSocket<State>;
}

interface Place {
  secure: boolean;
  host: string;
  port: number;
  /** As the Host header has it. */
  authority: string;
  target: string;
}

function placeOf(given: string | URL): Place {
  if (typeof given !== 'string' && !(given instanceof URL))
    throw invalidType('url', 'of type string or an instance of URL', given);
  const url = URL.canParse(String(given)) ? new URL(given) : undefined;
  if (url === undefined || !/^wss?:$/.test(url.protocol) || url.hash !== '' || url.hostname === '')
    throw invalidValue('url', 'must be a ws: or wss: URL without a fragment', given);
  if (url.username !== '' || url.password !== '')
    throw invalidValue('url', 'must have no user; give options.headers an Authorization', '...');
  const secure = url.protocol === 'wss:';
  return {
    secure,
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
    authority: url.host,
    target: url.pathname + url.search,
  };
}

function requestFor(
  place: Place,
  key: string,
  options: WebSocketClientOptions,
  { settings: { deflate } }: WebSocketContext,
): string {
  const lines = [
    `GET ${place.target} HTTP/1.1`,
    `Host: ${place.authority}`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    `Sec-WebSocket-Key: ${key}`,
  ];
  if (options.protocols !== undefined && options.protocols.length > 0)
    lines.push(`Sec-WebSocket-Protocol: ${options.protocols.join(', ')}`);
  if (deflate !== undefined) lines.push(`Sec-WebSocket-Extensions: ${offerOf(deflate)}`);
  for (const [name, value] of Object.entries(options.headers ?? {})) {
    if (!isToken(name)) throw invalidValue('options.headers', 'has a malformed name', name);
    if (OWN.has(name.toLowerCase()) || /^sec-websocket-/i.test(name))
      throw invalidValue('options.headers', 'has one that is the handshake’s own', name);
    if (typeof value !== 'string' || !isFieldValue(value))
      throw invalidValue(`options.headers.${name}`, 'is no value of a header', value);
    lines.push(`${name}: ${value}`);
  }
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/** Is the stream's handlers until the answer is there. */
class Opening extends Timed implements HandlersAbove {
  readonly #ws: WebSocket;
  readonly #key: string;
  readonly #protocols: readonly string[];
  readonly #deflate: DeflateSettings | undefined;
  readonly #deadlines: Deadlines;

  constructor(
    ws: WebSocket,
    context: WebSocketContext,
    key: string,
    protocols: readonly string[],
    timeout: number,
  ) {
    super();
    this.#ws = ws;
    this.#key = key;
    this.#protocols = protocols;
    this.#deflate = context.settings.deflate;
    this.#deadlines = new Deadlines(context.base, timeout);
    this.#deadlines.set(this);
    context.changed = () => this.#done();
  }

  read(stream: BufferEvent): void {
    const { input } = stream;
    const bytes = input.copyOut(Math.min(input.length, ANSWER_MAX));
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    const end = text.indexOf('\r\n\r\n');
    if (end < 0) {
      if (bytes.length === ANSWER_MAX) this.#fail('its head is too long');
      return;
    }
    const lineEnd = text.indexOf('\r\n') + 2;
    const lines = text.slice(lineEnd, end + 2);
    const status = /^HTTP\/1\.1 (\d{3})( |$)/.exec(text.slice(0, lineEnd - 2))?.[1];
    if (status !== '101') {
      this.#fail(`its status is ${status ?? 'malformed'}, and not 101`);
      return;
    }
    const headers = !/^([^\s:]+:[^\r\n]*\r\n)+$/.test(lines) ? undefined : new HttpHeaders(lines);
    const why = headers === undefined ? 'its headers are malformed' : this.#wrong(headers);
    if (headers === undefined || why !== undefined) {
      this.#fail(why as string);
      return;
    }
    input.drain(end + 4);
    this.#done();
    const extensions = headers.get('sec-websocket-extensions');
    const agreed = extensions && this.#deflate && agreementOf(extensions, this.#deflate);
    this.#ws._open(headers.get('sec-websocket-protocol') ?? '', agreed || undefined);
  }

  /** Section 4.1, what the client has to check. */
  #wrong(headers: HttpHeaders): string | undefined {
    const connection = (headers.get('connection') ?? '').toLowerCase();
    if (headers.get('upgrade')?.toLowerCase() !== 'websocket') return 'it upgrades to nothing';
    if (!connection.split(',').some((one) => one.trim() === 'upgrade'))
      return 'its Connection is not Upgrade';
    if (headers.get('sec-websocket-accept') !== acceptOf(this.#key))
      return 'its Sec-WebSocket-Accept is not that of the key';
    const protocol = headers.get('sec-websocket-protocol');
    if (protocol !== undefined && !this.#protocols.includes(protocol))
      return 'its subprotocol was not offered';
    const extensions = headers.get('sec-websocket-extensions');
    if (extensions !== undefined && !(this.#deflate && agreementOf(extensions, this.#deflate)))
      return 'its extensions were not offered';
    return undefined;
  }

  event(_stream: BufferEvent, event: BevEvent): void {
    if (event.error !== undefined) this.#ws.terminate(event.error);
    else if (event.eof) this.#fail('the connection has ended before it');
    else if (event.timeout) this.#fail('it does not come');
  }
  [CLOSED](): void {
    this.#ws._lost(undefined);
  }
  override _late(): void {
    this.#fail('it did not come in time');
  }

  #fail(why: string): void {
    this.#ws.terminate(
      new MultiloopError(
        'ERR_WEBSOCKET_HANDSHAKE',
        `The server's answer is no WebSocket's: ${why}`,
      ),
    );
  }
  #done(): void {
    Deadlines.clear(this);
    this.#deadlines.close();
  }
}
