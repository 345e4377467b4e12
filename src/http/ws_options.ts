// What a WebSocket can be told, and what those of one kind share: handlers, limits and deadlines.

import type { EventBase } from '../event/event_base.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { checkFunction, checkInteger, checkMillis, checkObject } from '../validate.js';
import { Deadlines } from './deadlines.js';
import type { HttpRequest } from './http_request.js';
import type { WebSocket } from './websocket.js';
import { type DeflateSettings, deflateSettings, type WebSocketDeflate } from './ws_deflate.js';
import type { TopicHub } from './ws_topics.js';

/**
 * Called with the WebSocket, in its loop's thread and never inside a call of its methods, but that
 * close() or terminate() may call `close`. `this` is the object of handlers. One that throws ends
 * the connection with 1011 and is told to `error`.
 */
export interface WebSocketHandlers<State = unknown> {
  /** The handshake is done. On the server with its request, whose stream is the WebSocket's now. */
  open?(ws: WebSocket<State>, request?: HttpRequest): void;
  /**
   * A whole message: text as a string, anything else as bytes, which are the handler's to keep.
   * After one that returns a promise nothing is delivered, and the connection is not moved, until
   * it settles.
   */
  message?(ws: WebSocket<State>, data: string | Uint8Array, binary: boolean): unknown;
  /** Answered already. */
  ping?(ws: WebSocket<State>, data: Uint8Array): void;
  pong?(ws: WebSocket<State>, data: Uint8Array): void;
  /** The output is empty again after a send() that answered false. */
  drain?(ws: WebSocket<State>): void;
  /**
   * Once. The peer's code and reason: 1005 if it gave none, 1006 if the stream ended without a
   * Close frame; or those with which it was failed here.
   */
  close?(ws: WebSocket<State>, code: number, reason: string): void;
  /** Before `close`: what a handler has thrown, what the peer did wrong, why connecting failed. */
  error?(ws: WebSocket<State>, error: Error): void;
}

export interface WebSocketLimits {
  /** Bytes of a message, of its fragments together, and of it inflated: 1 MiB; then 1009. */
  messageMax?: number;
  /** Bytes that may wait for the peer when send() is called: 16 MiB; then it throws. */
  outputMax?: number;
  /**
   * Milliseconds without anything from the peer after which it is cut off: 120 s, 0 for no limit.
   * After half of them it is sent a ping.
   */
  idleTimeout?: number;
  /** Milliseconds for the closing handshake and the end of the stream: 5 s. */
  closeTimeout?: number;
  /**
   * Offers, or accepts, permessage-deflate (RFC 7692): false. True compresses each message for
   * itself.
   */
  deflate?: boolean | WebSocketDeflate;
  /** Bytes from which on a message is compressed then: 1 KiB. */
  deflateMin?: number;
}

/** For a server. Its handlers are shared by all of its WebSockets. */
export interface WebSocketOptions<State = unknown, Packed = State>
  extends WebSocketHandlers<State>,
    WebSocketLimits {
  /** Upgrade requests for this path only; without it, for any. Others go to the request handler. */
  path?: string;
  /** Subprotocols; the first one of the client's list that is here is taken. */
  protocols?: readonly string[];
  /** Looks at Origin, cookies and the like; false is answered 403. */
  accept?(request: HttpRequest): boolean | Promise<boolean>;

  // Under serve(), as the hooks of LoopWorker.
  /** Before a move: what travels, by structured clone; without it `ws.state` does. */
  pack?(ws: WebSocket<State>): Packed;
  /** It came from another loop; without it, what was packed becomes `ws.state`. */
  unpack?(ws: WebSocket<State>, packed: Packed): void;
  /** It lives on another loop now. */
  left?(ws: WebSocket<State>): void;
  /** Its loop died between two messages; with the bytes of `ws.checkpoint()`. */
  rescue?(ws: WebSocket<State>, checkpoint: Uint8Array | undefined): void;
}

/** The defaults of every limit and timeout. */
export const WEBSOCKET_DEFAULTS = {
  messageMax: 1024 * 1024,
  outputMax: 16 * 1024 * 1024,
  idleTimeout: 120_000,
  closeTimeout: 5_000,
  deflate: false,
  deflateMin: 1024,
} as const;

type Settings = Required<Omit<WebSocketLimits, 'deflate'>> & {
  deflate: DeflateSettings | undefined;
};
/** A message is one piece of memory, so there is an end to what may be asked for. */
const MESSAGE_BYTES_MAX = 2 ** 30;
const HOOKS = ['open', 'message', 'ping', 'pong', 'drain', 'close', 'error', 'accept'] as const;
const MOVING_HOOKS = ['pack', 'unpack', 'left', 'rescue'] as const;

export function webSocketSettings(name: string, options: WebSocketOptions): Settings {
  checkObject(name, options);
  const at = (key: string) => `${name}.${key}`;
  for (const hook of [...HOOKS, ...MOVING_HOOKS])
    if (options[hook] !== undefined) checkFunction(at(hook), options[hook]);
  const settings: Settings = { ...WEBSOCKET_DEFAULTS, deflate: undefined };
  const { messageMax, outputMax, idleTimeout, closeTimeout, deflate, deflateMin } = options;
  if (messageMax !== undefined)
    settings.messageMax = checkInteger(at('messageMax'), messageMax, 0, MESSAGE_BYTES_MAX);
  if (outputMax !== undefined) settings.outputMax = checkInteger(at('outputMax'), outputMax, 0);
  if (deflateMin !== undefined) settings.deflateMin = checkInteger(at('deflateMin'), deflateMin, 0);
  if (deflate !== undefined) settings.deflate = deflateSettings(at('deflate'), deflate);
  for (const [key, value] of Object.entries({ idleTimeout, closeTimeout })) {
    if (value === undefined) continue;
    checkMillis(at(key), value);
    settings[key as 'idleTimeout'] = value;
  }
  return settings;
}

/** What a runtime that can move streams does for a WebSocket on one. */
export interface StreamKeeper {
  hold(stream: BufferEvent): Disposable;
  /** It may be moved, since its pack() has all there is, but nobody could adopt it. */
  setUnfinished(stream: BufferEvent, unfinished: boolean): void;
  checkpoint(stream: BufferEvent, bytes: Uint8Array): void;
  /** The stream is this one's from now on. */
  upgraded(stream: BufferEvent, ws: WebSocket): void;
}

/** What the WebSockets of one object of handlers on one base share. */
export class WebSocketContext {
  readonly base: EventBase;
  readonly client: boolean;
  readonly handlers: WebSocketOptions;
  readonly settings: Settings;
  /** A WebSocket has one of these at most. */
  readonly quiet: Deadlines;
  readonly unanswered: Deadlines;
  readonly closings: Deadlines;
  readonly sockets = new Set<WebSocket>();
  /** Set under serve(). */
  keeper: StreamKeeper | undefined = undefined;
  /** Another loop has these handlers too. */
  movable = false;
  /** Of a server; a client has none. */
  topics: TopicHub | undefined = undefined;
  /** The first one has come, the last one has gone. */
  changed: (() => void) | undefined = undefined;
  /** Told errors for which there is no handler. */
  failed: ((error: Error) => void) | undefined = undefined;

  constructor(base: EventBase, name: string, options: WebSocketOptions, client: boolean) {
    this.base = base;
    this.client = client;
    this.handlers = options;
    this.settings = webSocketSettings(name, options);
    const { idleTimeout, closeTimeout } = this.settings;
    this.quiet = new Deadlines(base, idleTimeout / 2);
    this.unanswered = new Deadlines(base, idleTimeout / 2);
    this.closings = new Deadlines(base, closeTimeout);
  }

  add(ws: WebSocket): void {
    this.sockets.add(ws);
    if (this.sockets.size === 1) this.changed?.();
  }
  remove(ws: WebSocket): void {
    Deadlines.clear(ws);
    this.topics?.gone?.(ws);
    if (!this.sockets.delete(ws) || this.sockets.size > 0) return;
    // They are made anew when they are needed.
    for (const queue of [this.quiet, this.unanswered, this.closings]) queue.close();
    this.changed?.();
  }
}
