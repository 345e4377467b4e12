// HTTP/1.1 on one stream: requests are read out of its input one after the other, and the next one
// is not looked at before the one before it has its answer, so answers are in order and whoever
// pipelines waits. Between two requests there is nothing here that another loop could not make
// anew: a head that is not whole stays in the input.
//
//   idle ─head─► busy ─answer─► idle             the next request
//                     ─answer─► discarding       a body that nobody wanted, if it is short
//                     ─last answer─► lingering   until the peer has seen it (RFC 9112 section 9.6)

import { Ev } from '../event/ev.js';
import type { BevEvent, BevHandlers } from '../stream/bev_options.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { Hold } from '../stream/hold.js';
import { PIECE_BYTES } from './body_decoder.js';
import { LF } from './characters.js';
import { beginning } from './date.js';
import { Deadlines, Timed } from './deadlines.js';
import { errorBodyOf } from './error_body.js';
import { aborted, asError, noAnswer, RefusedError } from './http_errors.js';
import { HttpRequest } from './http_request.js';
import { HttpResponse } from './http_response.js';
import type { HttpServer } from './http_server.js';
import { Head, INCOMPLETE, type Reading, readHead, WHOLE } from './request_parser.js';
import { isGrown } from './reread.js';
import { type Refusal, Refusals } from './status.js';

/** Input that waits while a request is answered: more stays with the peer. */
const INPUT_MAX = 64 * 1024;
/** Answers that wait for the peer: with more, its next request waits too. */
const OUTPUT_HIGH = 64 * 1024;
/** Bytes of a body that nobody read which are worth reading to keep the connection. */
const DISCARD_MAX = 256 * 1024;

const State = { IDLE: 0, BUSY: 1, DISCARDING: 2, LINGERING: 3, GONE: 4 } as const;
type State = (typeof State)[keyof typeof State];

const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n';

/** Of the thread: a head is done with before the next one is read. */
const head = new Head();

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

/** Is the handlers of its stream. Belongs to its loop's thread. */
export class HttpConnection extends Timed implements BevHandlers {
  readonly server: HttpServer;
  readonly stream: BufferEvent;
  /** Requests so far, also before it moved. */
  requests: number;
  /** The next answer is the last. */
  closing = false;
  /** Set while somebody waits for the output: being told of every answer would cost a callback. */
  write: (() => void) | undefined = undefined;

  #state: State = State.IDLE;
  /** read() is on the stack, and goes on when a handler returns. */
  #running = false;
  #peerEnded = false;
  #request: HttpRequest | undefined = undefined;
  #response: HttpResponse | undefined = undefined;
  #discarding: HttpRequest['_body'] = undefined;
  #discarded = 0;
  #hold: Disposable | undefined = undefined;
  /** How much of a head that was not whole has been read. */
  #seen = 0;
  /** The memory that a head is in, if it is not where the input's front is. */
  #pulled: Buffer | undefined = undefined;
  #drains: Waiter[] | undefined = undefined;
  #reported: Error | undefined = undefined;

  /** @internal Use `server.attach()`. */
  constructor(server: HttpServer, stream: BufferEvent, requests: number) {
    super();
    this.server = server;
    this.stream = stream;
    this.requests = requests;
  }

  /** Whether a request waits for its answer. */
  get busy(): boolean {
    return this.#state === State.BUSY || this.#state === State.DISCARDING;
  }

  // ── what the stream tells ──

  read(): void {
    if (this.#running) return;
    this.#running = true;
    try {
      while (this.#step());
    } finally {
      this.#running = false;
    }
    this.#rest();
  }

  event(_stream: BufferEvent, { eof, error, timeout, direction }: BevEvent): void {
    if (error !== undefined) this.#broken(error);
    if (timeout && direction === 'write')
      this._cut(aborted('the peer has taken nothing for sendTimeout'));
    if (!eof || this.#state === State.GONE) return;
    this.#peerEnded = true;
    if (this.#state === State.BUSY) this.#request?._abort(aborted('the peer left'));
    else if (this.#state === State.LINGERING) this.#closeWhenWritten();
    else if (this.#state === State.IDLE && this.stream.inputLength > 0 && this.#seen === 0) {
      // Whole requests that wait for their turn; what follows them is the end.
      this.read();
    } else this.#finish();
  }

  /** A stream of serve() is closed by then, and any other one is not. */
  #broken(error: Error): void {
    const { stream } = this;
    if ((error as { code?: string }).code === 'ERR_TLS_HANDSHAKE') {
      // Nobody else is told of it. A reset could overtake what tells the peer why.
      this.#report(error, undefined);
      this._gone(() => error);
      stream.close();
    } else {
      this._gone(() => aborted('the connection failed', error));
      stream.destroy(error);
    }
  }

  /** The output is empty. */
  #written(): void {
    this.write = undefined;
    const drains = this.#drains;
    this.#drains = undefined;
    if (drains !== undefined) for (const { resolve } of drains) resolve();
    if (this.#state === State.LINGERING && this.#peerEnded) this.#close();
    else if (this.#state === State.IDLE) {
      this.stream._releaseReading(Hold.HTTP);
      this.read();
    }
  }
  #whenWritten(): void {
    this.write = this.#written;
  }

  // ── a step: whether there may be another ──

  #step(): boolean {
    const { input } = this.stream;
    switch (this.#state) {
      case State.IDLE:
        return this.#next();
      case State.BUSY:
        this.#request?._more();
        if (this.#state !== State.BUSY) return true;
        if (input.length >= INPUT_MAX) this.stream._holdReading(Hold.HTTP);
        return false;
      case State.DISCARDING:
        return this.#discard();
      case State.LINGERING:
        input.drain(input.length);
        return false;
      default:
        return false;
    }
  }

  /** Reads a head and has it answered. */
  #next(): boolean {
    const { stream } = this;
    if (stream.inputLength === 0) {
      this.#seen = 0;
      if (this.#peerEnded || this.closing) this.#finish();
      return false;
    }
    if (stream.outputLength > OUTPUT_HIGH) {
      // Who does not read answers gets no more of them.
      stream._holdReading(Hold.HTTP);
      this.#whenWritten();
      return false;
    }
    const reading = this.#readHead();
    if (reading === WHOLE) {
      this.#dispatch();
      return true;
    }
    if (reading === INCOMPLETE) {
      if (this.#peerEnded) this.#finish();
      return false;
    }
    this.#refuse(head.refusal as Refusal);
    return true;
  }

  #readHead(): Reading {
    const { input } = this.stream;
    const { _settings: settings } = this.server;
    const { length } = input;
    const { _front: first } = input;
    if (first === undefined) return INCOMPLETE;
    if (first.file === undefined && first.end - first.start === length) {
      if (this.#seen > 0 && !this.#worthReading(first.bytes, first.start, length))
        return INCOMPLETE;
      const reading = readHead(first.bytes, first.start, first.end, settings, head);
      this.#seen = reading === INCOMPLETE ? length : 0;
      return reading;
    }
    // The beginning may do, if many requests wait.
    if (first.file === undefined && this.#seen === 0) {
      const reading = readHead(first.bytes, first.start, first.end, settings, head);
      if (reading !== INCOMPLETE) return reading;
    }
    const most = settings.requestLineMax + settings.headersMax + 32;
    const bytes = input.pullup(Math.min(length, most)) as Buffer;
    if (this.#seen > 0 && !this.#worthReading(bytes, 0, bytes.length)) return INCOMPLETE;
    const reading = readHead(bytes, 0, bytes.length, settings, head);
    this.#seen = reading === INCOMPLETE ? length : 0;
    if (reading === WHOLE) this.#pulled = bytes;
    return reading;
  }
  #worthReading(bytes: Uint8Array, start: number, length: number): boolean {
    const seen = this.#seen;
    if (isGrown(length, seen)) return true;
    for (let at = start + seen; at < start + length; at++) if (bytes[at] === LF) return true;
    return false;
  }

  #dispatch(): void {
    const { stream, server } = this;
    const front = stream.input._front;
    const pulled = this.#pulled;
    this.#pulled = undefined;
    const bytes = pulled ?? (front as { bytes: Buffer }).bytes;
    const start = pulled === undefined ? (front as { start: number }).start : 0;
    const request = new HttpRequest(this, bytes, head);
    const { contentLength } = head;
    stream.input.drain(head.end - start);
    this.requests++;
    // The next head has a time of its own.
    if (this._queue === server._heads) Deadlines.clear(this);
    if (contentLength > server._settings.bodyMax) {
      this.#refuse(Refusals.BODY_TOO_LARGE);
      return;
    }
    const response = new HttpResponse(this, request);
    this.#request = request;
    this.#response = response;
    this.#state = State.BUSY;
    this.#answer(request, response);
    // What is not answered by now takes its time.
    if (this.#request === request) this.#suspend();
  }

  #answer(request: HttpRequest, response: HttpResponse): void {
    let result: unknown;
    try {
      result = this.server._handler(request, response);
    } catch (error) {
      this.#failed(request, response, error);
      return;
    }
    if (typeof (result as PromiseLike<unknown> | undefined)?.then !== 'function') return;
    (result as PromiseLike<unknown>).then(
      () => {
        if (!response.begun) this.#unanswered(request, response);
      },
      (error) => this.#failed(request, response, error),
    );
  }

  /** Keeps the connection here until the answer is given. */
  #suspend(): void {
    const { server } = this;
    this.#hold ??= server._hold?.(this.stream);
    if (this.#request?._body !== undefined) server._requests.set(this);
    else if (this.#response?.begun === false) server._answers.set(this);
    else Deadlines.clear(this);
  }

  // ── how a request ends ──

  /** @internal Its answer is with the stream. */
  _answered(close: boolean): void {
    const request = this.#request as HttpRequest;
    const body = request._body;
    const response = this.#endRequest(request) as HttpResponse;
    if (this.#state === State.GONE) return;
    // Told to end after the head was sent: what is pipelined still gets an answer, which says so.
    const ends = this.closing && this.stream.inputLength === 0;
    if (close || this.#peerEnded || ends) {
      this.#linger();
    } else if (body === undefined) {
      this.#state = State.IDLE;
    } else {
      this.#state = State.DISCARDING;
      this.#discarding = body;
      this.#discarded = 0;
      this.server._requests.set(this);
    }
    this.stream._releaseReading(Hold.HTTP);
    this.server._completed(request, response);
    if (this.#running) return;
    // Not here, in the context of the handler of the one before.
    if (this.stream.inputLength > 0 || this.#state === State.DISCARDING)
      this.stream.trigger(Ev.READ, { ignoreWatermarks: true });
    this.#rest();
  }

  #endRequest(request: HttpRequest): HttpResponse | undefined {
    const response = this.#response;
    this.#request = this.#response = undefined;
    request._close();
    const hold = this.#hold;
    this.#hold = undefined;
    if (hold !== undefined) hold[Symbol.dispose]();
    return response;
  }

  /** What the handler has thrown. */
  #failed(request: HttpRequest, response: HttpResponse, thrown: unknown): void {
    const error = asError(thrown);
    this.#report(error, request);
    if (response.ended || response.aborted || this.#response !== response) return;
    if (response.begun) this._cut(error);
    else this.#answerInstead(response, Refusals.FAILED);
  }
  /** A handler that fails for a reason that it was told fails for no other. */
  #report(error: Error, request: HttpRequest | undefined): void {
    if (error === this.#reported) return;
    this.#reported = error;
    this.server._failed(error, request);
  }
  #unanswered(request: HttpRequest, response: HttpResponse): void {
    if (response.aborted || this.#response !== response) return;
    this.#report(noAnswer('its handler has returned without one'), request);
    if (this.#response === response) this.#answerInstead(response, Refusals.FAILED);
  }

  #answerInstead(response: HttpResponse, { status, why }: Refusal): void {
    response.fail(status, why);
  }

  /** What was sent is no request, and where the next one begins is anybody's guess. */
  #refuse(refusal: Refusal): void {
    const { stream } = this;
    const { status, why } = refusal;
    const { type, body } = errorBodyOf(this.server, status, why, undefined);
    const head = `${beginning(status, stream.base)}Content-Type: ${type}\r\n`;
    const length = Buffer.byteLength(body);
    stream.write(`${head}Content-Length: ${length}\r\nConnection: close\r\n\r\n${body}`);
    this.#linger();
    this.#report(new RefusedError(refusal), undefined);
  }

  /** @internal The body is no body: its request is refused, unless its answer has begun. */
  _refuseBody(error: Error): void {
    const request = this.#request;
    const response = this.#response;
    if (request === undefined || response === undefined) return;
    request._failBody(error);
    this.#report(error, request);
    if (response.begun) this._cut(error);
    else if (error instanceof RefusedError) {
      this.closing = true;
      this.#answerInstead(response, { status: error.status, why: error.why });
    }
  }

  // ── for the request and the response ──

  /** @internal The handler waits for the body. */
  _wantBody(): void {
    const request = this.#request;
    if (request?._mustContinue) {
      request._mustContinue = false;
      if (this.#response?.begun === false && this.stream.inputLength === 0)
        this.stream.write(CONTINUE);
    }
    if (this.#peerEnded) request?._failBody(aborted('the peer left before the end of its body'));
    this.stream._releaseReading(Hold.HTTP);
  }
  /** @internal All of it was read. */
  _bodyRead(): void {
    if (this.#state === State.BUSY && this.#response?.begun === false)
      this.server._answers.set(this);
    else Deadlines.clear(this);
  }
  /** @internal The head of the answer was sent, and more will follow. */
  _begun(): void {
    // From here on sendTimeout watches the peer, and nobody the handler.
    if (this.#request?._body === undefined) Deadlines.clear(this);
  }

  /** @internal Whether the answer that is made now has to be the last. */
  _mustClose(): boolean {
    const request = this.#request;
    if (request === undefined || this.closing || this.#peerEnded || request._wantsClose)
      return true;
    if (this.requests >= this.server._settings.requestsMax) return true;
    if (request._body === undefined) return false;
    // Who waits for leave may send the body or not (RFC 9110 section 10.1.1).
    return request._mustContinue || (request._body.remaining ?? 0) > DISCARD_MAX;
  }

  /** @internal */
  _drained(): Promise<void> {
    if (this.stream.outputLength === 0 || this.#state === State.GONE) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#drains ??= [];
      this.#drains.push({ resolve, reject });
      this.#whenWritten();
    });
  }

  /** @internal The stream belongs to another protocol from now on. */
  _detach(movable: boolean): BufferEvent {
    const request = this.#request as HttpRequest;
    const response = this.#response as HttpResponse;
    const { stream } = this;
    this.#state = State.GONE;
    Deadlines.clear(this);
    this.server._remove(this);
    stream.handlers = {};
    stream._releaseReading(Hold.HTTP);
    // Another loop would take it for HTTP, so it stays where it is.
    if (!movable) {
      if (this.#hold === undefined) this.server._hold?.(stream);
      this.#hold = undefined;
    }
    this.#endRequest(request);
    this.server._completed(request, response);
    return stream;
  }

  // ── the end of the connection ──

  /** Ends it now if it is idle, and after the answer that is being made otherwise. */
  end(): void {
    this.closing = true;
    if (this.#state === State.IDLE && this.stream.inputLength === 0) this.#finish();
  }

  /** @internal Cuts it off: the peer sees a reset, and that something is missing. */
  _cut(error: Error = aborted('it was cut off')): void {
    if (this.#state === State.GONE) return;
    this._gone(() => error);
    this.stream.destroy(error);
  }

  /** @internal The stream is on another loop. */
  _left(): void {
    this.#state = State.GONE;
    Deadlines.clear(this);
    this.server._remove(this);
  }
  /** @internal The stream was closed by somebody else, or by this. */
  _lost(cause: Error | undefined): void {
    this._gone(() => aborted('the connection was closed', cause));
  }

  /** @internal There is no stream any more. */
  _gone(why: () => Error): void {
    if (this.#state === State.GONE) return;
    this.#state = State.GONE;
    Deadlines.clear(this);
    this.server._remove(this);
    const request = this.#request;
    const drains = this.#drains;
    this.#drains = undefined;
    // Most connections end between two requests, and nobody has to know why.
    if (request === undefined && drains === undefined) return;
    const error = why();
    if (drains !== undefined) for (const { reject } of drains) reject(error);
    if (request === undefined) return;
    const response = this.#response as HttpResponse;
    // First: what somebody who hears of it still sends has no effect.
    response._gone(error);
    request._abort(error);
    request._failBody(error);
    this.#endRequest(request);
    this.#report(error, request);
    this.server._completed(request, response);
  }

  /** Without an answer: nobody waits for one. */
  #finish(): void {
    if (this.stream.outputLength === 0) this.#close();
    else this.#linger();
  }
  #close(): void {
    const { stream } = this;
    this._gone(() => aborted('the connection was closed'));
    stream.close();
  }

  /** After the last answer: what the peer still sends would reset what it has not read yet. */
  #linger(): void {
    this.#state = State.LINGERING;
    const { stream } = this;
    stream.end();
    stream._releaseReading(Hold.HTTP);
    if (this.#peerEnded) this.#closeWhenWritten();
    this.server._lingers.set(this);
  }
  #closeWhenWritten(): void {
    if (this.stream.outputLength === 0) this.#close();
    else this.#whenWritten();
  }

  /** Nobody wanted the body, and the next request is behind it. */
  #discard(): boolean {
    const body = this.#discarding;
    const { input } = this.stream;
    try {
      while (body !== undefined && !body.done) {
        const piece = body.take(input);
        if (piece === undefined) break;
        this.#discarded += piece.length;
        if (this.#discarded > DISCARD_MAX + PIECE_BYTES) throw undefined;
      }
    } catch {
      this.#linger();
      return true;
    }
    if (body?.done === false) {
      if (this.#peerEnded) this.#finish();
      return false;
    }
    this.#discarding = undefined;
    this.#state = State.IDLE;
    return true;
  }

  // ── time ──

  /** Which deadline holds while nothing happens. */
  #rest(): void {
    if (this.#state !== State.IDLE) return;
    const { server } = this;
    if (this.stream.inputLength === 0) server._idles.set(this);
    else if (this._queue !== server._heads && this.#seen > 0) server._heads.set(this);
  }

  /** @internal */
  override _late(queue: Deadlines): void {
    const { server, stream } = this;
    if (queue === server._idles) this.#finish();
    else if (queue === server._heads) this.#refuse(Refusals.LATE);
    else if (queue === server._lingers) {
      // A slow reader is sendTimeout's to judge.
      if (stream.outputLength > 0) queue.set(this);
      else this.#close();
    } else if (this.#response === undefined || this.#response.begun) {
      this._cut(aborted('its body did not come in time'));
    } else if (queue === server._requests) {
      this._refuseBody(new RefusedError(Refusals.LATE));
    } else {
      const request = this.#request as HttpRequest;
      const response = this.#response;
      const error = noAnswer('answerTimeout has passed');
      this.#report(error, request);
      request._abort(error);
      if (this.#response === response) this.#answerInstead(response, Refusals.NO_ANSWER);
    }
  }
}
