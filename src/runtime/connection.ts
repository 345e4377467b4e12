// A connection on its loop: a stream whose descriptor the ledger owns and whose callbacks are the
// worker's hooks. It belongs to its loop's thread, and no hook is called from inside a call.
//
//   kernel ─recv─► slab ─copy─► data hook             one recv a pass
//   write() ─► output ─end of pass─► one gathered write; WRITE is waited for after EAGAIN only

import type { Bytes, EvBuffer } from '../buffer/ev_buffer.js';
import type { Slab } from '../buffer/slab.js';
import { MultiloopError } from '../errors.js';
import { Ev } from '../event/ev.js';
import { native } from '../native.js';
import { type Address, toAddress } from '../stream/address.js';
import { type BevEvent, OUTPUT_HIGH_WATERMARK } from '../stream/bev_options.js';
import type { DuplexAdapter, DuplexOptions } from '../stream/duplex_adapter.js';
import { Hold } from '../stream/hold.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import { RateLimit } from '../stream/rate_limit.js';
import { SocketStream } from '../stream/socket_stream.js';
import type { TlsPlan } from '../stream/tls_options.js';
import { type HandshakeFailure, TlsTransport } from '../stream/tls_transport.js';
import { checkBytes, checkInteger } from '../validate.js';
import { type Departure, decodeBaggage, encodeBaggage, type Moved, NOT_MOVED } from './baggage.js';
import type { ConnectionHost } from './connection_host.js';
import { Mark } from './connection_marks.js';
import type { LoopTopics } from './topics.js';
import type { LoopContext } from './worker.js';

const FD_BITS = 20;
/** The descriptor in a connection's id (native/core/ledger.h). */
export const fdOf = (id: number): number => id % 2 ** FD_BITS;

/** With more output than this a connection writes first and moves then. */
const MOVE_OUTPUT_MAX = 256 * 1024;

/** A chunk of more bytes gets memory of its own instead of a part of Node's pool. */
const POOLED_CHUNK_MAX = 2_048;

export class Connection<State = unknown> extends SocketStream {
  /** Unique in the process while the connection lives. */
  readonly id: number;
  readonly listener: ListenOptions;
  /** The worker's own. */
  state: State = undefined as State;

  readonly #host: ConnectionHost;
  /** Hooks whose promise is open, and what hold() has answered; and of them, the hooks. */
  #holds = 0;
  #hooks = 0;
  #moving: Departure | undefined = undefined;

  /** @internal */
  constructor(host: ConnectionHost, id: number, fd: number) {
    super(host.context.base, fd | 0);
    this.#host = host;
    // A number from memory of doubles is one on V8's heap, unless an integer is made of it.
    this.id = id === (id | 0) ? id | 0 : id;
    const listener = native.ledgerListener(id);
    this.listener = host.listeners.get(listener) ?? {};
    if (host.tls.size > 0) this._plan = host.tls.get(listener);
  }

  /** @internal It may move, as pack() has all of it, but not be rescued. */
  get _unfinished(): boolean {
    return this._is(Mark.UNFINISHED);
  }
  set _unfinished(unfinished: boolean) {
    this._mark(Mark.UNFINISHED, unfinished);
  }

  get loop(): LoopContext {
    return this.#host.context;
  }
  /** @internal */
  get _topics(): LoopTopics {
    return this.#host.topics;
  }
  override get remoteAddress(): Address | undefined {
    return toAddress(native.ledgerPeer(this.id));
  }
  /** @internal */
  override get _name(): string {
    return `Connection ${this.id}`;
  }

  /** As BufferEvent.write(); after false the `writable` hook follows. */
  override write(data: Bytes | EvBuffer): boolean {
    this.#here();
    this.#offBoundary();
    if (super.write(data)) return true;
    this._mark(Mark.NEED_DRAIN, !this.closed);
    return false;
  }

  /** Stops reading; the kernel's buffer fills and the peer has to wait. */
  pause(): void {
    this.#here();
    this._holdReading(Hold.PAUSED);
  }
  resume(): void {
    this.#here();
    this._releaseReading(Hold.PAUSED);
  }
  override end(data?: Bytes): void {
    this.#here();
    super.end(data);
  }

  /**
   * Gives the connection to another loop, with its unread input, unsent output and state: when no
   * hook of it is running or waiting, and not before its output is below 256 KiB. Resolves when it
   * has left, with what went along; it is served there in any case from then on, or by a third loop
   * if that one dies. This object then answers ERR_CONNECTION_MOVED. Rejects with ERR_NOT_MOVABLE
   * if it was closed meanwhile, its state cannot be packed or it refuses (a WebSocket with
   * `deflate.move`), ERR_LOOP_GONE or ERR_INBOX_FULL; it stays here then.
   */
  move(loop: number): Promise<Moved> {
    this.#here();
    checkInteger('loop', loop, 0, 2 ** 16);
    if (this.closed) return Promise.reject(this.#notMovable('it is closed'));
    if (loop === this.loop.id && this.#moving === undefined) return Promise.resolve(NOT_MOVED);
    if (this.#moving !== undefined) {
      // The last word counts; who asked before is served by it too.
      this.#moving.loop = loop;
      return this.#moving.done;
    }
    return this.#startMoving(loop, false);
  }

  /** @internal At its next boundary it goes to the next generation's loop of this number. */
  _evict(loop: number): Promise<Moved> {
    if (this.#moving !== undefined) return this.#moving.done;
    return this.#startMoving(loop, true);
  }
  /** @internal */
  _stopEvicting(): void {
    const moving = this.#moving;
    this.#moving = undefined;
    moving?.reject(this.#notMovable('it reached no boundary in time'));
  }

  #startMoving(loop: number, evicted: boolean): Promise<Moved> {
    const moving = { loop, evicted } as Departure;
    moving.done = new Promise<Moved>((resolve, reject) => {
      moving.resolve = resolve;
      moving.reject = reject;
    });
    // Who does not wait for it does not want the thread to end for it.
    moving.done.catch(() => undefined);
    this.#moving = moving;
    // Not below a hook of its own, which may go on to use the connection.
    queueMicrotask(() => this.#depart());
    return moving.done;
  }

  /**
   * The connection is in the middle of something that is not to be seen in its buffers: it is not
   * moved and, if the thread dies, not rescued, until what this answers is disposed of.
   */
  hold(): Disposable {
    this.#here();
    this.#offBoundary();
    this.#holds++;
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        this.#holds--;
        this.#becameIdle();
      },
    };
  }

  /**
   * Keeps a few bytes outside this thread, which `rescue` is given on the loop that adopts the
   * connection if this one dies. Replaces the last; ERR_CHECKPOINT_TOO_LARGE past checkpointMax.
   */
  checkpoint(bytes: Uint8Array): void {
    this.#here();
    const { checkpointMax } = this.#host;
    const { length } = checkBytes('bytes', bytes);
    if (length > checkpointMax)
      throw new MultiloopError(
        'ERR_CHECKPOINT_TOO_LARGE',
        `A checkpoint of ${length} bytes is more than checkpointMax, ${checkpointMax} bytes`,
      );
    native.ledgerCheckpoint(this.base._id, this.id, bytes);
  }

  /**
   * Not at a boundary: held or about to move, a hook's promise is open, a buffer is not empty, or
   * what is over it (a Duplex, a WebSocket) has data of its own.
   */
  get busy(): boolean {
    return (
      this.#moving !== undefined ||
      this.#holds > 0 ||
      this._unfinished ||
      this.inputLength + this.outputLength > 0 ||
      this._adapter !== undefined
    );
  }

  /**
   * As BufferEvent.toDuplex(), in place of the `data` and `end` hooks; from then on it is neither
   * moved nor rescued.
   */
  override toDuplex(options?: DuplexOptions): DuplexAdapter {
    this.#here();
    this.#offBoundary();
    return super.toDuplex(options);
  }

  // ── for the loop ──

  /** @internal Calls the open hook and starts reading; with TLS, when the handshake is done. */
  _open(): void {
    this.base._runIn(this._reader, this.#opened, this);
  }
  #opened(): void {
    if (this._plan === undefined) this.#begin();
    else this.#handshake(this._plan);
  }
  #begin(): void {
    const { open } = this.#host.worker;
    if (open !== undefined) this.#call(open, undefined);
    this.enable(Ev.READ);
    this.#boundary();
  }
  #handshake(plan: TlsPlan): void {
    this._flags |= Mark.UNSEEN;
    // In the middle of something that only this thread has.
    this.#holds++;
    try {
      this._secure(plan, this.id);
    } catch (error) {
      this.#fail(error);
    }
  }
  protected override _secured(): void {
    this._flags &= ~Mark.UNSEEN;
    this.#holds--;
    this.#begin();
    this.#becameIdle();
  }
  protected override _notSecured(_: BevEvent, reason: HandshakeFailure): void {
    this.#host.counters.addHandshakeFailed(reason);
    this.close();
  }
  /** It comes from another loop, where its handshake was done. */
  #adoptTls(): void {
    if (this._plan !== undefined) this._tls = TlsTransport.adopt(this.base._id, this.id);
  }

  /** @internal Ends the connection when what it is doing is done: its hooks and its output. */
  _drain(): void {
    if (this.closed) return;
    if (this._is(Mark.UNSEEN) || this.#idle()) {
      this.close();
      return;
    }
    // Whoever holds it may need what is still to come.
    if (this.#holds === 0) this.pause();
    this._flags |= Mark.DRAINS;
  }

  // ── moving ──

  #here(): void {
    if (this._is(Mark.LEFT))
      throw new MultiloopError(
        'ERR_CONNECTION_MOVED',
        `Connection ${this.id} has moved to another loop; use the object that its worker has`,
      );
  }

  #depart(): void {
    const moving = this.#moving;
    if (moving === undefined) return;
    if (this.closed) {
      this.#moving = undefined;
      moving.reject(this.#notMovable('it was closed'));
      return;
    }
    if (this.#holds > 0) {
      // Who holds it may wait for what is still to come.
      this._releaseReading(Hold.MOVING);
      return;
    }
    // Its end is told, and has not left: nobody else would know.
    if (this._tls?.finishing) return;
    if (moving.evicted && this.inputLength + this.outputLength > 0) return;
    if (this.outputLength > MOVE_OUTPUT_MAX) {
      this._holdReading(Hold.MOVING);
      return;
    }
    this.#moving = undefined;
    if (moving.loop === this.loop.id && !moving.evicted) {
      this._releaseReading(Hold.MOVING);
      moving.resolve(NOT_MOVED);
      return;
    }
    let moved: Moved;
    try {
      moved = this.#send(moving.loop);
    } catch (error) {
      if (!this.closed) this._stay();
      this._releaseReading(Hold.MOVING);
      this.#boundary();
      moving.reject(error as Error);
      return;
    }
    const { left } = this.#host.worker;
    try {
      left?.call(this.#host.worker, this as Connection);
    } catch (error) {
      this.#host.hookFailed(this as Connection, error);
    }
    moving.resolve(moved);
  }

  /** Throws why it stays. */
  #send(loop: number): Moved {
    if (this._adapter !== undefined) throw this.#notMovable('a Duplex of this thread is over it');
    const bytes = this.#pack();
    if (this.closed) throw this.#notMovable('it was closed');
    this._unhook();
    this.#offBoundary();
    const delivered = this.#host.send(this as Connection, loop, bytes);
    if (delivered === 'ok') {
      this._flags |= Mark.LEFT;
      this._leave();
      return { bytes: bytes.length, contextBytes: this._contextBytes };
    }
    if (delivered === 'full')
      throw new MultiloopError('ERR_INBOX_FULL', `The inbox of loop ${loop} is full`);
    throw new MultiloopError(
      'ERR_LOOP_GONE',
      `There is no loop ${loop} to move to${delivered === 'gone' ? ': it died' : ''}`,
    );
  }

  #pack(): Buffer {
    const { pack } = this.#host.worker;
    try {
      const packed =
        pack === undefined ? this.state : pack.call(this.#host.worker, this as Connection);
      // The hook may have written, and what it wrote travels too.
      const { rateLimit: limit, inputLength, outputLength } = this;
      return encodeBaggage({
        packed,
        byPack: pack !== undefined,
        input: inputLength === 0 ? undefined : this.input.copyOut(inputLength),
        output: outputLength === 0 ? undefined : this.output.copyOut(outputLength),
        enabled: this.enabled,
        flags: this._state,
        settings: { ...this._settings },
        limit: limit === undefined ? undefined : { ...limit },
        read: this.bytesRead,
        written: this.bytesWritten,
        paused: (this._readHeld & Hold.PAUSED) !== 0,
        needDrain: this._is(Mark.NEED_DRAIN),
        published: this.#host.topics.pack(this),
      });
    } catch (cause) {
      this.#host.topics.stays(this);
      const said = cause instanceof Error ? cause.message : String(cause);
      const refused = (cause as { code?: unknown } | null)?.code === 'ERR_NOT_MOVABLE';
      throw this.#notMovable(refused ? said : `its state could not be packed: ${said}`, cause);
    }
  }

  #notMovable(why: string, cause?: unknown): MultiloopError {
    const message = `Connection ${this.id} cannot move: ${why}`;
    return new MultiloopError('ERR_NOT_MOVABLE', message, { cause });
  }

  /** @internal It comes from another loop. */
  _arrive(bytes: Buffer): void {
    const baggage = decodeBaggage(bytes);
    this.#adoptTls();
    this._settings = baggage.settings;
    this._state = baggage.flags;
    this.bytesRead = baggage.read;
    this.bytesWritten = baggage.written;
    this._mark(Mark.NEED_DRAIN, baggage.needDrain);
    if (baggage.limit !== undefined) this.setRateLimit(new RateLimit(baggage.limit));
    if (baggage.paused) this._holdReading(Hold.PAUSED);
    if (baggage.input !== undefined) this.input._add(baggage.input);
    this.disable(Ev.WRITE);
    if (baggage.output !== undefined) this.output._add(baggage.output);
    const { topics, worker } = this.#host;
    topics.arrive(this, baggage.published, false);
    this.base._runIn(this._reader, () => {
      if (worker.unpack === undefined) this.state = baggage.packed as State;
      else this.#call((conn) => worker.unpack?.(conn, baggage.packed), undefined);
      if (this.closed) return;
      topics.settle(this);
      if (baggage.input !== undefined) this.trigger(Ev.READ);
      this.enable(baggage.enabled);
      if (this._is(Mark.NEED_DRAIN) && this.outputLength === 0) this._tellLater(Ev.WRITE);
      this.#boundary();
    });
  }

  /** @internal Its loop's thread died while it was at a boundary. */
  _rescue(checkpoint: Uint8Array | undefined): void {
    const { traffic } = this.#host.numbers;
    this.bytesRead = traffic[2 * this.fd];
    this.bytesWritten = traffic[2 * this.fd + 1];
    this.#adoptTls();
    this.#host.topics.arrive(this, undefined, true);
    this.base._runIn(this._reader, () => {
      const { rescue } = this.#host.worker;
      // The worker here is another generation's, which has no such hook.
      if (rescue === undefined) this.destroy(new Error('its loop died'));
      else this.#call((conn) => rescue.call(this.#host.worker, conn as Connection, checkpoint), 0);
      this.#host.topics.settle(this);
      this.enable(Ev.READ);
      this.#boundary();
    });
  }

  // ── boundaries ──

  #offBoundary(): void {
    const { fd } = this;
    if (fd >= 0) this.#host.numbers.boundaries[fd] = 0;
  }
  /** After whatever may have brought it to one. */
  #boundary(): void {
    const { fd } = this;
    if (fd < 0) return;
    this.#host.numbers.boundaries[fd] = this.ended || this._peerEnded || this.busy ? 0 : 1;
  }
  /** @internal */
  override _flushNow(): void {
    super._flushNow();
    this.#boundary();
  }

  // ── what its stream finds out ──

  /** Before, since a thread may be ended between any call and the next. */
  protected override _reads(): void {
    this.#offBoundary();
  }
  protected override _readNothing(): void {
    this.#boundary();
  }
  protected override _came(slab: Slab, count: number): void {
    const { numbers, counters, worker } = this.#host;
    const { fd } = this;
    numbers.boundaries[fd] = 0;
    numbers.traffic[2 * fd] = this.bytesRead + count;
    counters.addRead(count);
    const { data } = worker;
    if (data === undefined || this._adapter !== undefined) {
      super._came(slab, count);
      if (this.handlers.read === undefined && !this.closed) this.input.drain(this.inputLength);
      if (!this._flushQueued) this.#boundary();
      return;
    }
    this.bytesRead += count;
    const chunk =
      count <= POOLED_CHUNK_MAX ? Buffer.allocUnsafe(count) : Buffer.allocUnsafeSlow(count);
    chunk.set(slab.bytes.subarray(slab.used, slab.used + count));
    this.#call(data, chunk);
    if (!this._flushQueued) this.#boundary();
  }

  protected override _sent(count: number): void {
    super._sent(count);
    const { numbers, counters } = this.#host;
    numbers.traffic[2 * this.fd + 1] = this.bytesWritten;
    counters.addWritten(count);
  }

  /** @internal */
  override _wrote(direct: boolean): void {
    super._wrote(direct);
    this.#becameIdle();
    if (!this._is(Mark.NEED_DRAIN) || this.closed || this.outputLength > OUTPUT_HIGH_WATERMARK / 2)
      return;
    if (direct) this._callWrite();
    else this._tellLater(Ev.WRITE);
  }
  /** @internal */
  override _callWrite(): void {
    super._callWrite();
    if (!this._is(Mark.NEED_DRAIN) || this.closed) return;
    this._mark(Mark.NEED_DRAIN, false);
    const { writable } = this.#host.worker;
    if (writable !== undefined)
      this.#call(writable as (conn: Connection<State>) => void, undefined);
  }

  /** @internal */
  override _failed(direction: 'read' | 'write', event: BevEvent, direct: boolean): void {
    if (event.error !== undefined) {
      this.destroy(event.error);
      return;
    }
    super._failed(direction, event, direct);
    // A Duplex over it decides itself, when what has come is read.
    if (event.eof === undefined || this.closed || this._adapter !== undefined) return;
    if (this._endTold) {
      this.destroy();
      return;
    }
    const { end } = this.#host.worker;
    if (end === undefined) this.end();
    else this.#call(end, undefined);
  }

  protected override _finish(): void {
    if (this._peerEnded && this._adapter === undefined) this.destroy();
    else {
      super._finish();
      if (this._tls !== undefined) this.#becameIdle();
    }
  }

  protected override _closeFd(fd: number, reset: boolean): void {
    this.#host.numbers.boundaries[fd] = 0;
    native.ledgerClose(this.base._id, this.id, reset);
  }

  /** @internal */
  protected override get _tellsClosed(): boolean {
    return true;
  }
  /** @internal */
  override _tellClosed(error: Error | undefined): void {
    this.#host.closed(this as Connection);
    this.#depart();
    super._tellClosed(error);
    const { close } = this.#host.worker;
    if (close === undefined || this._is(Mark.UNSEEN)) return;
    try {
      close.call(this.#host.worker, this as Connection, error);
    } catch (thrown) {
      this.#host.hookFailed(this as Connection, thrown);
    }
  }

  // ── hooks ──

  #idle(): boolean {
    return this.#holds === 0 && this.outputLength === 0;
  }
  #becameIdle(): void {
    this.#boundary();
    // Not below a hook of its own: what lets it go may be followed by a write.
    if (this.#moving !== undefined) queueMicrotask(() => this.#depart());
    if (!this._is(Mark.DRAINS) || !this.#idle()) return;
    this._flags &= ~Mark.DRAINS;
    this.close();
  }

  /** Calls a hook. What it throws costs this connection and nothing else. */
  #call<Argument>(
    hook: (conn: Connection<State>, argument: Argument) => void | Promise<void>,
    argument: Argument,
  ): void {
    try {
      const result = hook.call(this.#host.worker, this, argument);
      if (result !== undefined && typeof result?.then === 'function') this.#wait(result);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** No further data while a hook's promise is open. */
  #wait(promise: Promise<void>): void {
    this.#offBoundary();
    this.#holds++;
    this.#hooks++;
    this._holdReading(Hold.HOOK);
    const settled = () => {
      this.#holds--;
      if (--this.#hooks === 0) this._releaseReading(Hold.HOOK);
      this.#becameIdle();
    };
    promise.then(settled, (error) => {
      this.#fail(error);
      settled();
    });
  }

  #fail(error: unknown): void {
    this.#host.hookFailed(this as Connection, error);
    this.destroy(error instanceof Error ? error : new Error(`thrown: ${String(error)}`));
  }
}
