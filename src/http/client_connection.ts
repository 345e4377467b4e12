// A client's HTTP on one stream: one request after the other, each when the answer before it is
// whole. It owns the stream, and tells its client how a request ended and when there is no stream
// any more; what happens then is the client's to decide.
//
//   connecting ─► idle ─start()─► busy ─answer whole─► idle            kept for the next request
//                                      ─it was the last─► gone         closed
//                                      ─101, CONNECT─► gone            the stream is the caller's

import { MultiloopError } from '../errors.js';
import { Ev } from '../event/ev.js';
import { guarded } from '../guard.js';
import { type BevEvent, CLOSED, type HandlersAbove } from '../stream/bev_options.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { Hold } from '../stream/hold.js';
import { checkBytes } from '../validate.js';
import { BodyDecoder } from './body_decoder.js';
import { type BodySource, reading } from './body_source.js';
import { LF } from './characters.js';
import type { ClientSettings } from './client_options.js';
import type { ClientRequest } from './client_request.js';
import { HttpClientResponse } from './client_response.js';
import { Deadlines, Timed } from './deadlines.js';
import { HttpHeaders } from './headers.js';
import { aborted, answerError, asError, badAnswer, RefusedError, timedOut } from './http_errors.js';
import { Head, INCOMPLETE, WHOLE } from './request_parser.js';
import { isGrown } from './reread.js';
import { readAnswerHead } from './response_parser.js';
import { isBodiless, type Refusal } from './status.js';

/** Of an answer's body, beside what the answer itself keeps: more stays with the server. */
const INPUT_MAX = 64 * 1024;
/** Answers before the answer. */
const INFORMATIONAL_MAX = 100;

const State = { CONNECTING: 0, IDLE: 1, BUSY: 2, GONE: 3 } as const;
type State = (typeof State)[keyof typeof State];

/** Of the thread: a head is done with before the next one is read. */
const head = new Head();

/** A request on its way, and who waits for it. */
export interface Exchange {
  readonly request: ClientRequest;
  resolve(response: HttpClientResponse): void;
  reject(error: Error): void;
  /** It was sent on a connection that had ended by then. */
  retried: boolean;
}

/** How a request ended without an answer, as far as whoever wants to repeat it has to know. */
export interface Failure {
  readonly error: Error;
  /** Nothing was sent and nothing came: it was not even connected. */
  readonly unconnected: boolean;
  /** It may be sent again: nobody can have acted on it, or acting twice makes no difference. */
  readonly repeatable: boolean;
}

export interface ConnectionOwner {
  readonly settings: ClientSettings;
  readonly deadlines: ClientDeadlines;
  /** It is connected, or has an answer whole: it takes the next request. */
  ready(connection: ClientConnection): void;
  /** There is no stream any more. */
  gone(connection: ClientConnection, error: Error | undefined, connected: boolean): void;
  answered(exchange: Exchange, response: HttpClientResponse): void;
  completed(exchange: Exchange, response: HttpClientResponse): void;
  /** After `gone`. `response`: its head had come. */
  failed(exchange: Exchange, failure: Failure, response: HttpClientResponse | undefined): void;
}

export interface ClientDeadlines {
  readonly answers: Deadlines;
  readonly reads: Deadlines;
  /** Of answers that nobody reads. */
  readonly unread: Deadlines;
  readonly continues: Deadlines;
  /** Of connections that are kept, for this long. */
  idles(ms: number): Deadlines;
}

/** Is the handlers of its stream. Belongs to its client's thread. */
export class ClientConnection extends Timed implements HandlersAbove {
  readonly stream: BufferEvent;
  /** Set while the body of a request waits for the output. */
  write: (() => void) | undefined = undefined;

  readonly #owner: ConnectionOwner;
  /** It tells when it is connected. */
  readonly #connects: boolean;
  #state: State;
  #requests = 0;
  #exchange: Exchange | undefined = undefined;
  #response: HttpClientResponse | undefined = undefined;
  #running = false;
  #peerEnded = false;
  #writeFailure: Error | undefined = undefined;
  /** All of the request is with the stream. */
  #sent = false;
  #waitsForLeave = false;
  /** The source of a body that waits for leave. */
  #withheld: BodySource | undefined = undefined;
  /** Ends the source of the body that is being sent. */
  #stop: (() => void) | undefined = undefined;
  #keepAlive = false;
  #keepMs: number;
  #untilClose = false;
  #informational = 0;
  /** How much of a head that was not whole has been read. */
  #seen = 0;
  /** The stream's counters when the request began. */
  #wroteBefore = 0;
  #readBefore = 0;

  /** `connecting`: the stream will tell `connected`; it is used at once otherwise. */
  constructor(owner: ConnectionOwner, stream: BufferEvent, connecting: boolean) {
    super();
    this.#owner = owner;
    this.#connects = connecting;
    this.stream = stream;
    this.#state = connecting ? State.CONNECTING : State.IDLE;
    const { sendTimeout, keepAliveTimeout } = owner.settings;
    this.#keepMs = keepAliveTimeout;
    if (sendTimeout > 0) stream.setTimeouts(undefined, sendTimeout);
    stream.handlers = this as BufferEvent['handlers'];
  }

  get settings(): ClientSettings {
    return this.#owner.settings;
  }
  get idle(): boolean {
    return this.#state === State.IDLE;
  }

  start(exchange: Exchange): void {
    const { stream } = this;
    const { request } = exchange;
    Deadlines.clear(this);
    this.#state = State.BUSY;
    this.#exchange = exchange;
    this.#requests++;
    this.#sent = this.#untilClose = false;
    this.#waitsForLeave = request.waitsForLeave;
    this.#informational = this.#seen = 0;
    this.#wroteBefore = stream.bytesWritten;
    this.#readBefore = stream.bytesRead;
    stream.ref();
    stream.write(Buffer.from(request.head, 'latin1'));
    this.#withheld = this.#waitsForLeave ? request.source : undefined;
    if (this.#waitsForLeave) this.#owner.deadlines.continues.set(this);
    else this.#sendBody(exchange);
    stream.enable(Ev.READ);
  }

  // ── sending ──

  #sendBody(exchange: Exchange): void {
    const { bytes, source } = exchange.request;
    this.#waitsForLeave = false;
    this.#withheld = undefined;
    if (source !== undefined) {
      Deadlines.clear(this);
      void this.#pump(exchange);
      return;
    }
    if (bytes !== undefined && bytes.length > 0) this.stream.write(bytes);
    this.#requestSent();
  }

  async #pump(exchange: Exchange): Promise<void> {
    const { stream } = this;
    const { source, chunked, length, trailers } = exchange.request;
    let stop: (() => void) | undefined;
    try {
      const parts = reading(source as NonNullable<typeof source>);
      stop = parts.stop;
      this.#stop = stop;
      let left = length ?? Number.POSITIVE_INFINITY;
      for (;;) {
        const { done, value } = await parts.next();
        if (this.#stop !== stop) return;
        if (done) break;
        const bytes = checkBytes('options.body', value);
        if (bytes.length === 0) continue;
        if (bytes.length > left) throw wrongLength(length, 'there are more bytes than that');
        left -= bytes.length;
        if (chunked) stream.write(`${bytes.length.toString(16)}\r\n`);
        const more = stream.write(bytes);
        if (chunked) stream.write('\r\n');
        if (!more) await this.#drained();
        if (this.#stop !== stop) return;
      }
      if (length !== undefined && left > 0) throw wrongLength(length, `${left} bytes are missing`);
      this.#stop = undefined;
      if (chunked) stream.write(Buffer.from(`0\r\n${trailers}\r\n`, 'latin1'));
      this.#requestSent();
    } catch (thrown) {
      // Who was told to stop may fail as it likes.
      if (this.#exchange === exchange && this.#stop === stop) this.#fail(asError(thrown), false);
    }
  }
  #drained(): Promise<void> {
    return new Promise((resolve) => {
      this.write = () => {
        this.write = undefined;
        resolve();
      };
    });
  }
  #requestSent(): void {
    this.#sent = true;
    if (this.#response === undefined) this.#owner.deadlines.answers.set(this);
  }
  /** Nobody wants the rest of the request. */
  #stopSending(): void {
    const stop = this.#stop;
    const withheld = this.#withheld;
    this.#stop = this.#withheld = undefined;
    stop?.();
    if (withheld !== undefined) guarded(() => reading(withheld).stop());
    this.write?.();
  }

  // ── what the stream tells ──

  read(): void {
    if (this.#running) return;
    // What nobody has asked for is no answer, and could be taken for the next one.
    if (this.#state === State.IDLE) this.#close(undefined);
    this.#running = true;
    try {
      while (this.#state === State.BUSY && this.#step());
    } catch (error) {
      this.#fail(error instanceof RefusedError ? answerError(error) : asError(error), false);
    } finally {
      this.#running = false;
    }
  }

  event(_stream: BufferEvent, { connected, eof, error, timeout, direction }: BevEvent): void {
    if (this.#state === State.GONE) return;
    if (connected) {
      if (this.#state !== State.CONNECTING) return;
      this.#state = State.IDLE;
      this.#rest();
      this.#owner.ready(this);
    } else if (error !== undefined && direction === 'write' && this.#state === State.BUSY) {
      // The server may have answered before it took no more, and what it said comes first.
      this.#writeFailure = error;
      this.#stopSending();
      if (this.#response === undefined) this.#owner.deadlines.answers.set(this);
    } else if (error !== undefined) this.#fail(error, true);
    else if (timeout)
      this.#fail(
        timedOut(direction === 'write' ? 'sendTimeout' : 'a timeout of its stream'),
        false,
      );
    else if (eof) {
      this.#peerEnded = true;
      if (this.#state === State.BUSY) this.read();
      else this.#close(undefined);
    }
  }
  [CLOSED](): void {
    this.#fail(aborted('the stream was closed'), false);
  }

  /** Whether there may be another. */
  #step(): boolean {
    const { input } = this.stream;
    const response = this.#response;
    if (response === undefined) return this.#readHead();
    if (response._more(input, this.settings.bodyMax)) {
      this.#complete();
      return false;
    }
    if (!response._wants) {
      if (input.length >= INPUT_MAX) this.stream._holdReading(Hold.HTTP);
      const { unread } = this.#owner.deadlines;
      // From the last piece that somebody took; what comes meanwhile counts for nothing.
      if (this._queue !== unread) unread.set(this);
    } else if (!this.#peerEnded) this.#owner.deadlines.reads.set(this);
    else if (this.#untilClose) {
      response._end();
      this.#complete();
    } else this.#fail(this.#ended('the end of its body'), false);
    return false;
  }
  #ended(what: string): Error {
    return aborted(`the server has ended the connection before ${what}`, this.#writeFailure);
  }

  #readHead(): boolean {
    const { input } = this.stream;
    const { length } = input;
    if (length > 0 && this.#worthReading(length)) {
      const most = this.settings.statusLineMax + this.settings.headersMax + 32;
      const bytes = input.pullup(Math.min(length, most)) as Buffer;
      const reading = readAnswerHead(bytes, 0, bytes.length, this.settings, head);
      this.#seen = reading === INCOMPLETE ? length : 0;
      if (reading === WHOLE) return this.#dispatch(bytes);
      if (reading !== INCOMPLETE) throw answerError(head.refusal as Refusal);
    }
    if (this.#peerEnded) this.#fail(this.#ended('its answer'), true);
    return false;
  }
  #worthReading(length: number): boolean {
    const seen = this.#seen;
    if (seen === 0 || isGrown(length, seen)) return true;
    return this.stream.input.copyOut(length - seen, seen).includes(LF);
  }

  /** Whether there may be more to read. */
  #dispatch(bytes: Buffer): boolean {
    const exchange = this.#exchange as Exchange;
    const { request } = exchange;
    const { status } = head;
    if (status < 200 && status !== 101) return this.#inform(exchange, bytes);
    if (status === 101 && !request.upgrades)
      throw badAnswer('it changes to another protocol, and nobody has asked for that');
    const connects = request.method === 'CONNECT' && status <= 299;
    if (status === 101 || connects) {
      this.#detach(exchange, bytes);
      return false;
    }
    const decoder = this.#decoderFor(request);
    const response = new HttpClientResponse(this, request.options, bytes, head, decoder);
    this.#keepAlive = !this.#untilClose && !request.close;
    this.#keepAlive &&= head.old ? head.keepAlive : !head.close;
    this.#noteKeepAlive(response.headers.get('keep-alive'));
    this.stream.input.drain(head.end);
    this.#response = response;
    // Who refuses what is being sent wants no more of it (RFC 9112 section 9.3).
    if (this.#waitsForLeave || (!this.#sent && status >= 400)) this.#stopSending();
    Deadlines.clear(this);
    this.#owner.answered(exchange, response);
    return this.#response === response;
  }

  /** RFC 9112 section 6.3. */
  #decoderFor({ method }: ClientRequest): BodyDecoder | undefined {
    const { contentLength, chunked, status } = head;
    if (method === 'HEAD' || isBodiless(status) || contentLength === 0) return undefined;
    const { bodyMax } = this.settings;
    if (contentLength > bodyMax)
      throw answerError({ status: 413, why: `its body is longer than bodyMax, ${bodyMax} bytes` });
    this.#untilClose = !chunked && contentLength < 0;
    const length = this.#untilClose ? Number.POSITIVE_INFINITY : contentLength;
    return new BodyDecoder(chunked ? -1 : length, this.settings);
  }

  /** A hint that is worth following: whoever sends on when the server ends is never sure. */
  #noteKeepAlive(hint: string | undefined): void {
    const { keepAliveTimeout } = this.settings;
    const seconds = /(?:^|[\s,])timeout=(\d{1,9})(?:$|[\s,;])/i.exec(hint ?? '')?.[1];
    if (seconds === undefined) return;
    const ms = Math.max(1, Number(seconds) * 1_000 - 1_000);
    this.#keepMs = keepAliveTimeout === 0 ? ms : Math.min(ms, keepAliveTimeout);
  }

  #inform(exchange: Exchange, bytes: Buffer): boolean {
    const { status, headersStart, headersEnd } = head;
    if (++this.#informational > INFORMATIONAL_MAX)
      throw badAnswer(`there are more than ${INFORMATIONAL_MAX} before it`);
    const headers = new HttpHeaders(bytes.toString('latin1', headersStart, headersEnd));
    this.stream.input.drain(head.end);
    if (this.#waitsForLeave && status === 100) this.#sendBody(exchange);
    else if (this.#sent) this.#owner.deadlines.answers.set(this);
    if (status !== 100) exchange.request.options.inform?.(status, headers);
    return this.#exchange === exchange;
  }

  #detach(exchange: Exchange, bytes: Buffer): void {
    const { stream } = this;
    const { options } = exchange.request;
    const response = new HttpClientResponse(this, options, bytes, head, undefined, stream);
    stream.input.drain(head.end);
    stream.handlers = {};
    stream.disable(Ev.READ).setTimeouts();
    this.#exchange = undefined;
    this.#leave(undefined);
    this.#owner.answered(exchange, response);
    this.#owner.completed(exchange, response);
  }

  /** The answer is whole. */
  #complete(): void {
    const exchange = this.#exchange as Exchange;
    const response = this.#response as HttpClientResponse;
    const { stream } = this;
    this.#exchange = this.#response = undefined;
    const sound = this.#sent && !this.#peerEnded && this.#writeFailure === undefined;
    const kept = this.#keepAlive && sound && stream.inputLength === 0 && !stream.closed;
    if (!this.#sent) this.#stopSending();
    if (kept) {
      this.#state = State.IDLE;
      this.#rest();
    } else this.#close(undefined);
    this.#owner.completed(exchange, response);
    if (this.#state === State.IDLE) this.#owner.ready(this);
  }
  /** It waits for a request, and notices its end; nobody waits for it. */
  #rest(): void {
    this.stream._releaseReading(Hold.HTTP);
    this.stream.enable(Ev.READ).unref();
    this.#owner.deadlines.idles(this.#keepMs).set(this);
  }

  // ── for the answer and the client ──

  /** @internal Somebody reads the body. */
  _wanted(response: HttpClientResponse): void {
    if (this.#response !== response) return;
    const { unread } = this.#owner.deadlines;
    if (this._queue === unread) unread.set(this);
    this.stream._releaseReading(Hold.HTTP);
    this.read();
  }
  /** @internal */
  _cancel(response: HttpClientResponse, error: Error): void {
    if (this.#response === response) this.#fail(error, false);
  }
  /** The request is not wanted any more. */
  cancel(exchange: Exchange, error: Error): void {
    if (this.#exchange === exchange) this.#fail(error, false);
  }
  /** Closes it: cut off, if a request is under way. */
  end(error: Error): void {
    if (this.#state === State.BUSY) this.#fail(error, false);
    else this.#close(undefined);
  }

  #close(error: Error | undefined): void {
    if (this.#state === State.GONE) return;
    const { stream } = this;
    stream.handlers = {};
    stream.close();
    this.#leave(error);
  }
  #leave(error: Error | undefined): void {
    const connected = this.#state !== State.CONNECTING;
    this.#state = State.GONE;
    Deadlines.clear(this);
    this.#stopSending();
    this.#owner.gone(this, error, connected);
  }

  /** `open`: whatever happened was the connection's end, and says nothing about the request. */
  #fail(error: Error, open: boolean): void {
    if (this.#state === State.GONE) return;
    const { stream } = this;
    const exchange = this.#exchange;
    const response = this.#response;
    this.#exchange = this.#response = undefined;
    const silent = open && response === undefined && stream.bytesRead === this.#readBefore;
    const unsent = silent && stream.bytesWritten === this.#wroteBefore;
    const failure: Failure = {
      error,
      unconnected: unsent && this.#requests <= 1 && !this.#connects,
      repeatable: this.#requests > 1 && silent && isRepeatable(exchange, unsent),
    };
    stream.handlers = {};
    stream.destroy(error);
    this.#leave(error);
    response?._fail(error);
    if (exchange !== undefined) this.#owner.failed(exchange, failure, response);
  }

  /** @internal */
  override _late(queue: Deadlines): void {
    const { answers, reads, unread, continues } = this.#owner.deadlines;
    if (queue === continues && this.#exchange !== undefined) this.#sendBody(this.#exchange);
    else if (queue === answers) this.#fail(timedOut('answerTimeout'), false);
    else if (queue === reads) this.#fail(timedOut('readTimeout'), false);
    else if (queue === unread) this.#fail(timedOut('unreadTimeout'), false);
    else this.#close(undefined);
  }
}

/** What was not sent at all can be sent again in any case, if it is all there. */
function isRepeatable(exchange: Exchange | undefined, unsent: boolean): boolean {
  if (exchange === undefined || exchange.retried) return false;
  const { request } = exchange;
  return request.repeatable || (unsent && request.source === undefined);
}

function wrongLength(length: number | undefined, why: string): MultiloopError {
  return new MultiloopError(
    'ERR_HTTP_LENGTH',
    `The request's Content-Length is ${length}, and ${why}`,
  );
}
