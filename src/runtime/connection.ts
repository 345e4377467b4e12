// A connection on its loop: a stream whose descriptor the ledger owns and whose callbacks are the
// worker's hooks. It belongs to its loop's thread, and no hook is called from inside a call.
//
//   kernel ─recv─► slab ─copy─► data hook             one recv a pass
//   write() ─► output ─end of pass─► one gathered write; WRITE is waited for after EAGAIN only

import type { Bytes, EvBuffer } from '../buffer/ev_buffer.js';
import type { Slab } from '../buffer/slab.js';
import { Ev } from '../event/ev.js';
import { native } from '../native.js';
import { type Address, toAddress } from '../stream/address.js';
import { type BevEvent, OUTPUT_HIGH_WATERMARK } from '../stream/bev_options.js';
import { Hold } from '../stream/hold.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import { SocketStream } from '../stream/socket_stream.js';
import type { LoopContext, LoopWorker } from './worker.js';

/** A chunk of more bytes gets memory of its own instead of a part of Node's pool. */
const POOLED_CHUNK_MAX = 2_048;

/** What the connection needs of the loop that holds it. */
export interface ConnectionHost {
  readonly context: LoopContext;
  readonly worker: LoopWorker;
  readonly listeners: ReadonlyMap<number, ListenOptions>;
  readonly counters: LoopCounters;
  closed(conn: Connection): void;
  hookFailed(conn: Connection, error: unknown): void;
}

/** Counted by the loop, read by any thread. */
export interface LoopCounters {
  addRead(bytes: number): void;
  addWritten(bytes: number): void;
}

export class Connection<State = unknown> extends SocketStream {
  /** Unique in the process while the connection lives. */
  readonly id: number;
  readonly listener: ListenOptions;
  /** The worker's own. */
  state: State = undefined as State;

  readonly #host: ConnectionHost;
  #holds = 0;
  #needDrain = false;
  #whenIdle: (() => void) | undefined = undefined;

  /** @internal */
  constructor(host: ConnectionHost, id: number, fd: number) {
    super(host.context.base, fd);
    this.#host = host;
    this.id = id;
    this.listener = host.listeners.get(native.ledgerListener(id)) ?? {};
  }

  get loop(): LoopContext {
    return this.#host.context;
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
    if (super.write(data)) return true;
    this.#needDrain = !this.closed;
    return false;
  }

  /** Stops reading; the kernel's buffer fills and the peer has to wait. */
  pause(): void {
    this._holdReading(Hold.PAUSED);
  }
  resume(): void {
    this._releaseReading(Hold.PAUSED);
  }

  // ── for the loop ──

  /** @internal Calls the open hook and starts reading. */
  _open(): void {
    this.base._runIn(this._reader, () => {
      const { open } = this.#host.worker;
      if (open !== undefined) this.#call(open, undefined);
      this.enable(Ev.READ);
    });
  }

  /** @internal Ends the connection when what it is doing is done: its hooks and its output. */
  _drain(): void {
    if (this.closed) return;
    this.pause();
    if (this.#idle()) {
      this.close();
      return;
    }
    this.#whenIdle = () => this.close();
  }

  // ── what its stream finds out ──

  protected override _came(slab: Slab, count: number): void {
    this.#host.counters.addRead(count);
    const { data } = this.#host.worker;
    if (data === undefined) {
      super._came(slab, count);
      if (this.handlers.read === undefined && !this.closed) this.input.drain(this.inputLength);
      return;
    }
    this.bytesRead += count;
    const chunk =
      count <= POOLED_CHUNK_MAX ? Buffer.allocUnsafe(count) : Buffer.allocUnsafeSlow(count);
    chunk.set(slab.bytes.subarray(slab.used, slab.used + count));
    this.#call(data, chunk);
  }

  protected override _sent(count: number): void {
    super._sent(count);
    this.#host.counters.addWritten(count);
  }

  /** @internal */
  override _wrote(direct: boolean): void {
    super._wrote(direct);
    this.#becameIdle();
    if (!this.#needDrain || this.closed || this.outputLength > OUTPUT_HIGH_WATERMARK / 2) return;
    if (direct) this._callWrite();
    else this._tellLater(Ev.WRITE);
  }
  /** @internal */
  override _callWrite(): void {
    super._callWrite();
    if (!this.#needDrain || this.closed) return;
    this.#needDrain = false;
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
    if (event.eof === undefined || this.closed) return;
    if (this._endTold) {
      this.destroy();
      return;
    }
    const { end } = this.#host.worker;
    if (end === undefined) this.end();
    else this.#call(end, undefined);
  }

  protected override _finish(): void {
    if (this._peerEnded) this.destroy();
    else super._finish();
  }

  protected override _closeFd(_fd: number, reset: boolean): void {
    native.ledgerClose(this.base._id, this.id, reset);
  }

  /** @internal */
  protected override get _tellsClosed(): boolean {
    return true;
  }
  /** @internal */
  override _tellClosed(error: Error | undefined): void {
    this.#host.closed(this as Connection);
    super._tellClosed(error);
    const { close } = this.#host.worker;
    if (close === undefined) return;
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
    if (this.#whenIdle === undefined || !this.#idle()) return;
    const whenIdle = this.#whenIdle;
    this.#whenIdle = undefined;
    whenIdle();
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
    this.#holds++;
    this._holdReading(Hold.HOOK);
    const settled = () => {
      if (--this.#holds === 0) this._releaseReading(Hold.HOOK);
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
