// A WebSocket (RFC 6455) on one stream, either side of it. It is the stream's handlers. What
// another loop would have to know is the stream's unread input, and a few fields, see _pack().
//
//   connecting ─► open ─close()─► closing ─Close─► lingering ─end of the stream─► closed
//                      ─────────Close, or failed─►

import { MultiloopError } from '../errors.js';
import { Ev } from '../event/ev.js';
import { guarded } from '../guard.js';
import { type BevEvent, CLOSED, type HandlersAbove } from '../stream/bev_options.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { Hold } from '../stream/hold.js';
import { PUBLISHED, type Published, TOO_SLOW } from '../stream/topic_table.js';
import { checkBytes, invalidValue, outOfRange } from '../validate.js';
import { type Deadlines, Timed } from './deadlines.js';
import { asError } from './http_errors.js';
import type { HttpRequest } from './http_request.js';
import { Deflate } from './ws_deflate.js';
import { CONTROL_MAX, FIN, isCloseCode, Opcode, RSV1, writeFrame } from './ws_frames.js';
import type { DeflateAgreement } from './ws_negotiation.js';
import type { WebSocketContext } from './ws_options.js';
import { CloseCode, Flaw, readClose } from './ws_payload.js';
import { Found, Receiver } from './ws_receiver.js';
import { packCheckpoint, type WebSocketPacked } from './ws_state.js';
import { framed, type TopicHub } from './ws_topics.js';

/** With more output than this a ping is answered later, and only the last one. */
const PONG_OUTPUT_MAX = 64 * 1024;
const NO_BYTES = Buffer.alloc(0);

const State = { CONNECTING: 0, OPEN: 1, CLOSING: 2, LINGERING: 3, CLOSED: 4 } as const;
type State = (typeof State)[keyof typeof State];

/** Belongs to its loop's thread. */
export class WebSocket<Kept = unknown> extends Timed implements HandlersAbove {
  readonly stream: BufferEvent;
  /** The user's own; it travels with a connection that moves. */
  state: Kept = undefined as Kept;
  /** @internal Set while somebody waits for the output. */
  write: (() => void) | undefined = undefined;
  /** @internal */ readonly _context: WebSocketContext;

  #state: State = State.CONNECTING;
  #subprotocol = '';
  readonly #receiver: Receiver;
  #needDrain = false;
  #pong: Uint8Array | undefined = undefined;
  #reading = false;
  /** A handler's promise is open. */
  #waiting = false;
  /** Part of a frame is in the input. */
  #cut = false;
  #rescuable = true;
  #hold: Disposable | undefined = undefined;

  /** @internal Use the `websocket` option, upgradeWebSocket() and connectWebSocket(). */
  constructor(context: WebSocketContext, stream: BufferEvent) {
    super();
    this._context = context;
    this.stream = stream;
    this.#receiver = new Receiver(context.client, context.settings.messageMax);
    context.add(this as WebSocket);
  }

  // ── for everybody ──

  /** What both sides agreed on; '' for none. */
  get subprotocol(): string {
    return this.#subprotocol;
  }
  /** Messages can be sent. */
  get open(): boolean {
    return this.#state === State.OPEN;
  }
  /** It is over: no handler will be called any more. */
  get closed(): boolean {
    return this.#state >= State.LINGERING;
  }
  /** Whether messages are compressed, if they are long enough. */
  get deflated(): boolean {
    return this.#receiver.deflate !== undefined;
  }
  /**
   * Bytes of the peer's earlier messages that later ones refer to: 32 KiB at most, and none unless
   * `deflate` has agreed on context. They go along when it moves, or keep it from moving: see
   * WebSocketDeflate.move. With any, `busy` is true of its connection, so rebalancing passes over
   * it, and it is not rescued.
   */
  get contextBytes(): number {
    return this.#receiver.deflate?.contextBytes ?? 0;
  }
  /** Bytes that wait for the peer. */
  get bufferedAmount(): number {
    return this.stream.outputLength;
  }

  /**
   * Sends a message: a string as text, bytes as binary unless `binary` is false. Bytes of 4 KiB and
   * more must not change until they have left. False: more than 64 KiB wait, and `drain` will be
   * called; past `outputMax` it throws ERR_HTTP_OUTPUT_FULL. ERR_WEBSOCKET_NOT_OPEN before `open`;
   * after close() it is dropped, and the answer is false.
   */
  send(data: string | Uint8Array, binary = typeof data !== 'string'): boolean {
    if (typeof data !== 'string') checkBytes('data', data);
    if (!this.#mayWrite()) return false;
    const { settings } = this._context;
    if (this.stream.outputLength > settings.outputMax)
      throw new MultiloopError(
        'ERR_HTTP_OUTPUT_FULL',
        `More than outputMax, ${settings.outputMax} bytes, wait for the peer; wait for drain`,
      );
    let first: number = FIN | (binary ? Opcode.BINARY : Opcode.TEXT);
    let payload = data;
    const { deflate } = this.#receiver;
    if (deflate !== undefined && data.length >= settings.deflateMin) {
      const plain = typeof data === 'string' ? Buffer.from(data) : data;
      const packed = deflate.pack(plain);
      if (packed !== undefined) first |= RSV1;
      payload = packed ?? plain;
    }
    if (this.#frame(first, payload)) return true;
    this.#needDrain = true;
    this.write = this.#written;
    return false;
  }

  /** At most 125 bytes (ERR_OUT_OF_RANGE). */
  ping(data: string | Uint8Array = NO_BYTES): boolean {
    const bytes = typeof data === 'string' ? Buffer.from(data) : checkBytes('data', data);
    if (bytes.length > CONTROL_MAX)
      throw outOfRange('data.length', `<= ${CONTROL_MAX}`, bytes.length);
    return this.#mayWrite() && this.#frame(FIN | Opcode.PING, bytes);
  }

  /**
   * Begins the closing handshake: no message is sent any more, those that come are still delivered,
   * and `close` follows with the peer's answer, or with 1006 after closeTimeout. The code is one
   * that may be sent (ERR_OUT_OF_RANGE), the reason at most 123 bytes. Idempotent.
   */
  close(code: number = CloseCode.NORMAL, reason = ''): void {
    if (!Number.isInteger(code) || !isCloseCode(code))
      throw outOfRange('code', 'a status that a Close frame may carry', code);
    if (Buffer.byteLength(reason) > CONTROL_MAX - 2)
      throw invalidValue('reason', `must have at most ${CONTROL_MAX - 2} bytes`, reason);
    if (this.#state === State.CONNECTING) this.terminate();
    if (this.#state !== State.OPEN) return;
    this.#sendClose(code, reason);
    this.#state = State.CLOSING;
    this.#stay();
    this._context.closings.set(this);
  }

  /** Cuts the connection off, without a Close frame: the peer sees 1006. */
  terminate(error?: Error): void {
    if (this.#state === State.CLOSED) return;
    this._lost(error);
    this.stream.destroy(error);
  }

  /** Delivers nothing and reads nothing until resume(). */
  pause(): void {
    this.stream._holdReading(Hold.PAUSED);
  }
  resume(): void {
    this.stream._releaseReading(Hold.PAUSED);
    this.#goOn();
  }

  /**
   * Under serve(): bytes that the `rescue` hook is given if this thread dies, at most checkpointMax
   * less 6 and the subprotocol. Elsewhere it does nothing.
   */
  checkpoint(bytes: Uint8Array): void {
    checkBytes('bytes', bytes);
    if (!this.#rescuable) return;
    const packed = packCheckpoint(this.#subprotocol, this.#receiver.deflate?.agreed, bytes);
    this._context.keeper?.checkpoint(this.stream, packed);
  }

  // ── topics: of its server; under serve(), of the group ──

  /**
   * Has it sent what is published to the topic from now on, until it is closed; it stays subscribed
   * when it moves or is rescued. False: it was already, or it is not open. ERR_OUT_OF_RANGE past
   * topicsMax, ERR_INVALID_ARG_VALUE for a client, which has no topics.
   */
  subscribe(topic: string): boolean {
    return this.open && this.#hub().subscribe(this as WebSocket, topic);
  }
  /** Whether it had subscribed. */
  unsubscribe(topic: string): boolean {
    return this.#hub().unsubscribe(this as WebSocket, topic);
  }
  get topics(): string[] {
    return this.#hub().topicsOf(this as WebSocket);
  }
  /** To every other subscriber of the topic, as loop.publish(), which see. */
  publish(topic: string, data: string | Uint8Array): void {
    this.#hub().publish(topic, data, this as WebSocket);
  }
  #hub(): TopicHub {
    const { topics } = this._context;
    if (topics === undefined) throw invalidValue('this', 'is a client, which has no topics', this);
    return topics;
  }
  /** @internal */
  [PUBLISHED](published: Published): void {
    if (this.#state !== State.OPEN) return;
    const { deflateMin } = this._context.settings;
    const deflate = published.bytes.length < deflateMin ? undefined : this.#receiver.deflate;
    this.stream.write(framed(published, deflate));
  }
  /** @internal It has missed something that was published, and is not to go on. */
  [TOO_SLOW](error: MultiloopError): void {
    if (this.#state !== State.OPEN) return;
    if (this.stream.outputLength > this._context.settings.outputMax) {
      this.terminate(error);
      return;
    }
    this.#tell(error);
    this.#failWith(CloseCode.POLICY, 'too slow for what is published');
  }

  // ── for the handshakes and the worker ──

  /** @internal */
  _open(subprotocol: string, deflate: DeflateAgreement | undefined, request?: HttpRequest): void {
    this.#begin(subprotocol, deflate);
    const { keeper, handlers } = this._context;
    keeper?.upgraded(this.stream, this as WebSocket);
    try {
      this.checkpoint(NO_BYTES);
    } catch {
      // No room to say that it is a WebSocket: who adopted it would take it for HTTP.
      this.#rescuable = false;
      this.#mark();
    }
    if (handlers.open !== undefined) {
      try {
        handlers.open(this as WebSocket, request);
      } catch (error) {
        this.#thrown(error);
      }
    }
    this.#goOn();
  }
  #begin(subprotocol: string, agreed: DeflateAgreement | undefined): void {
    this.#subprotocol = subprotocol;
    if (agreed !== undefined)
      this.#receiver.deflate = new Deflate(agreed, this._context.settings.deflate);
    this.#state = State.OPEN;
    this.stream.handlers = this as HandlersAbove;
    this._context.quiet.set(this);
    this.stream.enable(Ev.READ);
  }

  /** @internal It was rescued. */
  _adopt(subprotocol: string, deflate: DeflateAgreement | undefined): void {
    this.#begin(subprotocol, deflate);
    this.#goOn();
  }
  /** @internal */
  _unpack(packed: WebSocketPacked): void {
    this.#receiver.fragments.unpack(packed);
    this.#rescuable = packed.rescuable;
    this.#needDrain = packed.needDrain;
    this.#pong = packed.pong;
    if (this.#needDrain || this.#pong !== undefined) this.write = this.#written;
    this.#begin(packed.subprotocol, packed.deflate);
    if (packed.context !== undefined) this.#receiver.deflate?.restore(packed.context);
    this.#mark();
    this.#goOn();
  }
  /** @internal Throws if it is not to move. */
  _checkMovable(): void {
    const { contextBytes } = this;
    if (contextBytes === 0 || this._context.settings.deflate?.move !== 'refuse') return;
    throw new MultiloopError(
      'ERR_NOT_MOVABLE',
      `its WebSocket shares a compression context of ${contextBytes} bytes with the peer, and ` +
        "deflate.move is 'refuse'",
    );
  }
  /** @internal */
  _pack(state: unknown): WebSocketPacked {
    const { deflate } = this.#receiver;
    return {
      ...this.#receiver.fragments.pack(),
      subprotocol: this.#subprotocol,
      deflate: deflate?.agreed,
      context: this.contextBytes === 0 ? undefined : deflate?.received,
      rescuable: this.#rescuable,
      needDrain: this.#needDrain,
      pong: this.#pong,
      state,
    };
  }
  /** @internal The stream is on another loop. */
  _left(): void {
    this.#state = State.CLOSED;
    this.#receiver.drop();
    this._context.remove(this as WebSocket);
  }
  /** @internal The stream is over, or about to be. */
  _lost(error: Error | undefined): void {
    if (this.#state === State.CLOSED) return;
    if (this.#state !== State.LINGERING) {
      if (error !== undefined) this.#tell(error);
      this.#tellClose(CloseCode.ABNORMAL, '');
    }
    this.#state = State.CLOSED;
    this.#receiver.drop();
    this.#hold = undefined;
    this._context.remove(this as WebSocket);
  }

  // ── what the stream tells ──

  /** @internal */
  read(): void {
    if (this.#reading) return;
    this.#reading = true;
    if (this.#state === State.OPEN) this._context.quiet.set(this);
    try {
      while (this.#step());
    } finally {
      this.#reading = false;
    }
    const cut = this.stream.inputLength > 0;
    // A part of a frame may have kept it from moving.
    if (this.#cut && !cut && this.#state === State.OPEN)
      this._context.keeper?.hold(this.stream)[Symbol.dispose]();
    this.#cut = cut;
  }

  /** @internal */
  event(stream: BufferEvent, { eof, error, timeout, direction }: BevEvent): void {
    if (error !== undefined) {
      this._lost(error);
      stream.destroy(error);
    } else if (timeout) this.terminate(late(`the peer takes nothing: ${direction} has timed out`));
    else if (eof) {
      this._lost(undefined);
      stream.close();
    }
  }

  /** @internal Somebody else has closed it. */
  [CLOSED](): void {
    this._lost(undefined);
  }

  /** The output is empty. */
  #written(): void {
    this.write = undefined;
    const pong = this.#pong;
    this.#pong = undefined;
    if (this.#state === State.OPEN && pong !== undefined) this.#frame(FIN | Opcode.PONG, pong);
    if (!this.#needDrain) return;
    this.#needDrain = false;
    const { handlers } = this._context;
    if (handlers.drain === undefined || this.#state !== State.OPEN) return;
    try {
      handlers.drain(this as WebSocket);
    } catch (error) {
      this.#thrown(error);
    }
  }

  #goOn(): void {
    if (this.stream.inputLength > 0) this.stream.trigger(Ev.READ, { ignoreWatermarks: true });
  }

  // ── a frame: whether there may be another ──

  #step(): boolean {
    const { input } = this.stream;
    if (this.#state >= State.LINGERING) {
      input.drain(input.length);
      return false;
    }
    if (this.#rests()) return false;
    const receiver = this.#receiver;
    const within = receiver.adoptable;
    const found = receiver.next(input);
    if (within !== receiver.adoptable) this.#mark();
    if (found === Found.MESSAGE) this.#message(receiver.data);
    else if (found === Found.CONTROL) this.#control(receiver.opcode, receiver.payload);
    else if (found === Found.FLAW) this.#fail(receiver.flaw as Flaw);
    return found !== Found.NOTHING;
  }

  #message(data: string | Uint8Array): void {
    const { handlers } = this._context;
    if (handlers.message === undefined) return;
    const binary = typeof data !== 'string';
    try {
      const result = handlers.message(this as WebSocket, data, binary) as PromiseLike<unknown>;
      if (typeof result?.then === 'function') this.#wait(result);
    } catch (error) {
      this.#thrown(error);
    }
  }

  #control(opcode: number, bytes: Buffer): void {
    if (opcode === Opcode.CLOSE) {
      this.#peerCloses(bytes);
      return;
    }
    const { handlers } = this._context;
    if (opcode === Opcode.PING && this.#state === State.OPEN) {
      if (this.stream.outputLength > PONG_OUTPUT_MAX) {
        this.#pong = bytes;
        this.write = this.#written;
      } else this.#frame(FIN | Opcode.PONG, bytes);
    }
    try {
      if (opcode === Opcode.PING) handlers.ping?.(this as WebSocket, bytes);
      else handlers.pong?.(this as WebSocket, bytes);
    } catch (error) {
      this.#thrown(error);
    }
  }

  #wait(promise: PromiseLike<unknown>): void {
    const { keeper } = this._context;
    const hold = keeper?.hold(this.stream);
    this.#waiting = true;
    this.stream._holdReading(Hold.HTTP);
    const settled = () => {
      this.#waiting = false;
      hold?.[Symbol.dispose]();
      this.stream._releaseReading(Hold.HTTP);
      this.#goOn();
    };
    promise.then(settled, (error) => {
      this.#thrown(error);
      settled();
    });
  }

  // ── how it ends ──

  #peerCloses(bytes: Buffer): void {
    const close = readClose(bytes);
    if (close instanceof Flaw) {
      this.#fail(close);
      return;
    }
    if (this.#state === State.OPEN) this.#frame(FIN | Opcode.CLOSE, bytes.subarray(0, 2));
    this.#end(close.code, close.reason);
  }

  /** The peer has broken the rules (section 7.1.7). */
  #fail({ code, why }: Flaw): void {
    if (this.#state >= State.LINGERING) return;
    this.#tell(
      new MultiloopError('ERR_WEBSOCKET_PROTOCOL', `A WebSocket was failed with ${code}: ${why}`),
    );
    this.#failWith(code, why);
  }
  #failWith(code: number, why: string): void {
    if (this.#state >= State.LINGERING) return;
    if (this.#state === State.OPEN) this.#sendClose(code, why);
    this.#end(code, why);
  }
  #thrown(error: unknown): void {
    this.#tell(asError(error));
    this.#failWith(CloseCode.FAILED, '');
  }

  /** Nothing is sent any more; the stream ends when the peer has seen what was. */
  #end(code: number, reason: string): void {
    this.#state = State.LINGERING;
    this.#stay();
    this.#receiver.drop();
    this._context.closings.set(this);
    this.stream.end();
    this.stream._releaseReading(Hold.HTTP | Hold.PAUSED);
    this.#tellClose(code, reason);
  }

  /** @internal */
  override _late(queue: Deadlines): void {
    const { quiet, unanswered, closings, settings } = this._context;
    if (queue === quiet) {
      // Nothing comes because nothing is read.
      if (this.#rests()) {
        quiet.set(this);
        return;
      }
      this.ping();
      unanswered.set(this);
    } else if (queue === closings) {
      if (this.#state === State.LINGERING && this.stream.outputLength === 0) {
        this._lost(undefined);
        this.stream.close();
      } else this.terminate(late('the closing handshake was not done in time'));
    } else this.terminate(late(`nothing came for ${settings.idleTimeout} ms`));
  }

  // ── inside ──

  #rests(): boolean {
    return this.#waiting || (this.stream._readHeld & Hold.PAUSED) !== 0;
  }
  #mayWrite(): boolean {
    if (this.#state === State.OPEN) return true;
    if (this.#state !== State.CONNECTING) return false;
    throw new MultiloopError(
      'ERR_WEBSOCKET_NOT_OPEN',
      'The handshake of the WebSocket is not done; wait for open',
    );
  }
  #frame(first: number, data: Uint8Array | string): boolean {
    return writeFrame(this.stream, first, data, this._context.client);
  }
  #sendClose(code: number, reason: string): void {
    const payload = Buffer.allocUnsafe(2 + Buffer.byteLength(reason));
    payload.writeUInt16BE(code);
    payload.write(reason, 2);
    this.#frame(FIN | Opcode.CLOSE, payload);
  }

  /** Its end is this loop's: the other side of a move would know nothing of it. */
  #stay(): void {
    this.#hold ??= this._context.keeper?.hold(this.stream);
  }
  #mark(): void {
    this._context.keeper?.setUnfinished(this.stream, !this.#receiver.adoptable || !this.#rescuable);
  }

  #tell(error: Error): void {
    const { handlers, failed } = this._context;
    if (handlers.error === undefined) failed?.(error);
    else guarded(() => handlers.error?.(this as WebSocket, error));
  }
  #tellClose(code: number, reason: string): void {
    const { handlers } = this._context;
    if (handlers.close !== undefined)
      guarded(() => handlers.close?.(this as WebSocket, code, reason));
  }
}

const late = (why: string) =>
  new MultiloopError('ERR_WEBSOCKET_TIMEOUT', `A WebSocket was cut off: ${why}`);
