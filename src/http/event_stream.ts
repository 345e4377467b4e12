// An event stream (text/event-stream, WHATWG HTML section 9.2): an answer without an end, which its
// client asks for anew whenever it ends, saying which event it has seen last.
//
// It is a request that is under way, so its connection stays where it is. When its loop is replaced
// by a reload it ends between two events, having told the client to come back at once, and the
// connection moves; when the server stops it ends too, and the client comes back after its pause.

import type { EventHandle } from '../event/event_handle.js';
import {
  checkFunction,
  checkInteger,
  checkMillis,
  checkObject,
  invalidValue,
} from '../validate.js';
import { aborted } from './http_errors.js';
import type { HttpRequest } from './http_request.js';
import type { HttpResponse } from './http_response.js';
import type { HttpServer } from './http_server.js';

export interface EventStreamOptions {
  /** Milliseconds without an event after which a comment is sent, so that nobody in between takes
   * the connection for dead: 15,000; 0 for none. */
  heartbeatMs?: number;
  /** Milliseconds after which the client comes back when the connection is lost: 2,000. */
  retryMs?: number;
  /** Bytes that may wait for the client: 1 MiB. One that is further behind is cut off. */
  outputMax?: number;
  /** Called once, when there is nobody to send to any more. */
  close?(): void;
}

export const EVENT_STREAM_DEFAULTS = {
  heartbeatMs: 15_000,
  retryMs: 2_000,
  outputMax: 1024 * 1024,
} as const;

export interface ServerSentEvent {
  /** Lines of text; what is no string is sent as JSON. */
  data: unknown;
  /** Its type: one line; 'message' without one. */
  event?: string;
  /** What the client says that it has seen when it comes back: one line, without a NUL. */
  id?: string;
}

/** Belongs to its loop's thread. */
export class EventStream implements Disposable {
  /** What the client has seen last, on this stream or the one before; '' for nothing. */
  readonly lastEventId: string;

  readonly #response: HttpResponse;
  readonly #server: HttpServer;
  readonly #options: Required<Omit<EventStreamOptions, 'close'>>;
  readonly #stream: HttpRequest['stream'];
  readonly #outputMax: number;
  #close: (() => void) | undefined;
  #heartbeat: EventHandle | undefined = undefined;
  #closed = false;

  /** @internal Use eventStream(). */
  constructor(request: HttpRequest, response: HttpResponse, options: EventStreamOptions) {
    this.#options = { ...EVENT_STREAM_DEFAULTS, ...checked(options) };
    this.lastEventId = request.headers.get('last-event-id') ?? '';
    this.#response = response;
    this.#server = request._server;
    this.#outputMax = Math.min(this.#options.outputMax, this.#server._settings.outputMax);
    this.#stream = request.stream;
    this.#close = options.close?.bind(options);
    response.set('Content-Type', 'text/event-stream');
    if (response.get('cache-control') === undefined) response.set('Cache-Control', 'no-store');
    response.begin();
    // Of one that has only ended its side too: nobody else would find out that it has left.
    request.signal.addEventListener('abort', () => this.close());
    if (request.method === 'HEAD' || request.signal.aborted) {
      this.close();
      return;
    }
    const { heartbeatMs, retryMs } = this.#options;
    response.write(`retry: ${retryMs}\n\n`);
    this.#server._streams.add(this);
    if (heartbeatMs > 0) {
      this.#heartbeat = this.#stream.base.timer(() => this.#write(':\n\n')).unref();
      this.#heartbeat.add(heartbeatMs);
    }
    const { _leaving: leaving } = this.#server;
    if (leaving !== undefined) this.leave(leaving);
  }

  /** Its end has been sent, or its client has left. */
  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Sends an event; to a stream that is closed, nothing. False: more than 64 KiB wait for the
   * client, so leave out what it can do without.
   */
  send({ data, event, id }: ServerSentEvent): boolean {
    const text = typeof data === 'string' ? data : JSON.stringify(data);
    if (text === undefined) throw invalidValue('data', 'is nothing that JSON has', data);
    let lines = '';
    if (event !== undefined) lines += `event: ${line('event', event)}\n`;
    if (id !== undefined) lines += `id: ${line('id', id)}\n`;
    for (const part of text.split(/\r\n|\r|\n/)) lines += `data: ${part}\n`;
    return this.#write(`${lines}\n`);
  }

  /** Ends it after what was sent; the client will come back after its pause. Idempotent. */
  close(): void {
    if (this.#closed) return;
    if (!this.#response.ended && !this.#response.aborted) this.#response.end();
    this.#over();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  /** @internal */
  leave(atOnce: boolean): void {
    if (atOnce && !this.#closed) this.#response.write('retry: 0\n\n');
    this.close();
  }

  #write(text: string): boolean {
    if (this.#closed) return false;
    const { heartbeatMs } = this.#options;
    if (this.#stream.outputLength > this.#outputMax) {
      this.#response.destroy(aborted(`its client is ${this.#outputMax} bytes behind`));
      this.#over();
      return false;
    }
    if (heartbeatMs > 0) this.#heartbeat?.add(heartbeatMs);
    return this.#response.write(text);
  }

  #over(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#heartbeat?.free();
    this.#server._streams.delete(this);
    const close = this.#close;
    this.#close = undefined;
    close?.();
  }
}

/** Answers a request with an event stream. Wrong options throw before it has answered. */
export function eventStream(
  request: HttpRequest,
  response: HttpResponse,
  options: EventStreamOptions = {},
): EventStream {
  return new EventStream(request, response, options);
}

function checked(options: EventStreamOptions): EventStreamOptions {
  checkObject('options', options);
  const { heartbeatMs, retryMs, outputMax, close } = options;
  const given: EventStreamOptions = {};
  if (heartbeatMs !== undefined) {
    checkMillis('options.heartbeatMs', heartbeatMs);
    given.heartbeatMs = heartbeatMs;
  }
  if (retryMs !== undefined)
    given.retryMs = checkInteger('options.retryMs', retryMs, 0, 2 ** 31 - 1);
  if (outputMax !== undefined) given.outputMax = checkInteger('options.outputMax', outputMax, 1);
  if (close !== undefined) checkFunction('options.close', close);
  return given;
}

function line(name: string, text: string): string {
  if (typeof text !== 'string' || /[\r\n\0]/.test(text))
    throw invalidValue(name, 'is no line of text', text);
  return text;
}
