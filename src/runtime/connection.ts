// A connection on its loop. The ledger owns its descriptor; this object reads, writes and calls
// the worker's hooks. It belongs to its loop's thread, and no hook is called from inside a call.
//
//   kernel ─recv─► scratch ─copy─► data hook          one recv a pass
//   write() ─► output chunks ─end of pass─► sendmsg    one gathered write a pass; WRITE is waited
//                                                      for only after the kernel took less

import { constants } from 'node:os';
import { MultiloopError, systemError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import type { EventHandle } from '../event/event_handle.js';
import type { PassEnd } from '../event/options.js';
import { native } from '../native.js';
import { type Address, toAddress } from '../stream/address.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import { checkBytes } from '../validate.js';
import type { LoopContext, LoopWorker } from './worker.js';

/** write() answers false above this many bytes of output, and `writable` follows below it. */
const OUTPUT_HIGH_WATERMARK = 64 * 1024;
/** A chunk that fills the scratch memory this far is large enough for memory of its own. */
const POOLED_CHUNK_MAX = 2_048;

const { EAGAIN } = constants.errno;

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

type Phase = 'open' | 'ending' | 'ended' | 'closed';

export class Connection<State = unknown> implements Disposable, PassEnd {
  /** Unique in the process while the connection lives. */
  readonly id: number;
  readonly listener: ListenOptions;
  /** The worker's own. */
  state: State = undefined as State;
  bytesRead = 0;
  bytesWritten = 0;

  readonly #host: ConnectionHost;
  readonly #fd: number;
  readonly #event: EventHandle;
  #writeEvent: EventHandle | undefined;
  #output: Uint8Array[] = [];
  #outputBytes = 0;
  #outputSent = 0; // of the first chunk
  #flushQueued = false;
  #phase: Phase = 'open';
  #peerEnded = false;
  #paused = false;
  #holds = 0;
  #needDrain = false;
  #error: Error | undefined;
  #whenIdle: (() => void) | undefined;

  /** @internal */
  constructor(host: ConnectionHost, id: number, fd: number) {
    this.#host = host;
    this.id = id;
    this.#fd = fd;
    this.listener = host.listeners.get(native.ledgerListener(id)) ?? {};
    this.#event = host.context.base.event(fd, Ev.READ | Ev.PERSIST, (what) => this.#ready(what));
  }

  get loop(): LoopContext {
    return this.#host.context;
  }
  get remoteAddress(): Address | undefined {
    return toAddress(native.ledgerPeer(this.id));
  }
  get localAddress(): Address | undefined {
    return this.#phase === 'closed' ? undefined : toAddress(native.sockLocal(this.#fd));
  }
  get closed(): boolean {
    return this.#phase === 'closed';
  }
  /** Bytes written that the kernel has not taken yet. */
  get outputLength(): number {
    return this.#outputBytes;
  }

  /**
   * Queues bytes; what one pass writes leaves in one system call at its end. False: the output is
   * above the high watermark (64 KiB), so wait for the `writable` hook. Bytes for a connection
   * that is closed already are dropped; after end() it throws ERR_STREAM_WRITE_AFTER_END.
   * The memory must not change until it is written.
   */
  write(data: Uint8Array | string): boolean {
    const bytes = checkBytes('data', data);
    if (this.#phase === 'closed') return false;
    if (this.#phase !== 'open')
      throw new MultiloopError(
        'ERR_STREAM_WRITE_AFTER_END',
        `Connection ${this.id} was ended and takes no more data`,
      );
    if (bytes.length > 0) {
      this.#output.push(bytes);
      this.#outputBytes += bytes.length;
      this.#queueFlush();
    }
    if (this.#outputBytes <= OUTPUT_HIGH_WATERMARK) return true;
    this.#needDrain = true;
    return false;
  }

  /** Half-closes when the output is written; the peer may still send. Idempotent. */
  end(data?: Uint8Array | string): void {
    if (data !== undefined) this.write(data);
    if (this.#phase !== 'open') return;
    this.#phase = 'ending';
    this.#queueFlush();
  }

  /** Closes now, after one attempt to write what is queued. The close hook follows. */
  close(): void {
    if (this.#phase === 'closed') return;
    if (this.#outputBytes > 0) this.#send();
    this.destroy();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  /** Closes now and drops the output. With an error the peer sees a reset. */
  destroy(error?: Error): void {
    if (this.#phase === 'closed') return;
    this.#phase = 'closed';
    this.#error = error;
    this.#output = [];
    this.#outputBytes = 0;
    this.#event.del();
    this.#writeEvent?.free();
    native.ledgerClose(this.#host.context.base._id, this.id, error !== undefined);
    // The close hook runs in a pass, in this connection's context.
    this.#event.activate(Ev.FINALIZE);
  }

  /** Stops reading; the kernel's buffer fills and the peer has to wait. */
  pause(): void {
    this.#paused = true;
    if (this.#phase !== 'closed') this.#event.del();
  }
  resume(): void {
    this.#paused = false;
    this.#read();
  }

  // ── for the loop ──

  /** @internal Calls the open hook and starts reading. */
  _open(): void {
    const { base } = this.loop;
    base._runIn(this.#event, () => {
      const { open } = this.#host.worker;
      if (open !== undefined) this.#call(open, undefined);
      this.#read();
    });
  }

  /** @internal Ends the connection when what it is doing is done: its hooks and its output. */
  _drain(): void {
    if (this.#phase === 'closed') return;
    this.pause();
    if (this.#idle()) {
      this.close();
      return;
    }
    this.#whenIdle = () => this.close();
  }

  /** @internal */
  passEnd(): void {
    this.#flushQueued = false;
    if (this.#phase !== 'closed') this.#flushNow();
  }

  // ── inside ──

  #idle(): boolean {
    return this.#holds === 0 && this.#outputBytes === 0;
  }

  #becameIdle(): void {
    if (this.#whenIdle === undefined || !this.#idle()) return;
    const whenIdle = this.#whenIdle;
    this.#whenIdle = undefined;
    whenIdle();
  }

  #read(): void {
    if (this.#phase === 'closed' || this.#peerEnded || this.#paused || this.#holds > 0) return;
    this.#event.add();
  }

  #ready(what: EvMask): void {
    if (what & Ev.FINALIZE) {
      this.#finalize();
      return;
    }
    if (this.#phase === 'closed' || this.#peerEnded) return;
    const { base } = this.loop;
    const count = native.sockRecv(base._id, this.#fd);
    if (count > 0) this.#received(base._scratch, count);
    else if (count === 0) this.#ended();
    else if (count !== -EAGAIN) this.destroy(systemError(count, 'read'));
  }

  #received(scratch: Uint8Array, count: number): void {
    this.bytesRead += count;
    this.#host.counters.addRead(count);
    const { data } = this.#host.worker;
    if (data === undefined) return;
    const chunk =
      count <= POOLED_CHUNK_MAX ? Buffer.allocUnsafe(count) : Buffer.allocUnsafeSlow(count);
    chunk.set(count === scratch.length ? scratch : scratch.subarray(0, count));
    this.#call(data, chunk);
  }

  #ended(): void {
    this.#peerEnded = true;
    this.#event.del();
    if (this.#phase === 'ended') {
      this.destroy();
      return;
    }
    const { end } = this.#host.worker;
    if (end === undefined) this.end();
    else this.#call(end, undefined);
  }

  /** Calls a hook. What it throws costs this connection and nothing else. */
  #call<Argument>(
    hook: (conn: Connection<State>, argument: Argument) => void | Promise<void>,
    argument: Argument,
  ): void {
    try {
      const result = hook.call(this.#host.worker, this, argument);
      if (result !== undefined && typeof result?.then === 'function') this.#hold(result);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** No further data while a hook's promise is open. */
  #hold(promise: Promise<void>): void {
    this.#holds++;
    if (this.#phase !== 'closed') this.#event.del();
    const settled = () => {
      this.#holds--;
      this.#read();
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

  #finalize(): void {
    this.#event.free();
    this.#host.closed(this as Connection);
    const { close } = this.#host.worker;
    if (close === undefined) return;
    try {
      close.call(this.#host.worker, this as Connection, this.#error);
    } catch (error) {
      this.#host.hookFailed(this as Connection, error);
    }
  }

  #queueFlush(): void {
    if (this.#flushQueued || this.#writeEvent?.pending(Ev.WRITE)) return;
    if (this.loop.base._atPassEnd(this)) this.#flushQueued = true;
    else this.#flushNow();
  }

  #flushNow(): void {
    this.#flush();
    // The kernel took at once what write() called too much: nothing else would tell the worker.
    if (this.#needDrain && this.#outputBytes === 0 && this.#phase === 'open')
      this.#whenWritable().activate(Ev.WRITE);
  }

  #flush(): void {
    if (this.#outputBytes > 0) {
      const error = this.#send();
      if (error !== undefined) {
        this.destroy(error);
        return;
      }
      if (this.#outputBytes > 0) {
        this.#whenWritable().add();
        return;
      }
    }
    if (this.#phase === 'ending') this.#shutdown();
    this.#becameIdle();
  }

  /** Writes what the kernel takes, in one call. */
  #send(): Error | undefined {
    const output = this.#output;
    const count =
      output.length === 1
        ? native.sockSend(this.#fd, output[0], this.#outputSent)
        : native.sockSendv(this.#fd, output, 0, this.#outputSent);
    if (count === -EAGAIN) return undefined;
    if (count < 0) return systemError(count, 'write');
    this.bytesWritten += count;
    this.#host.counters.addWritten(count);
    this.#outputBytes -= count;
    if (this.#outputBytes === 0) {
      output.length = 0;
      this.#outputSent = 0;
      return undefined;
    }
    let sent = this.#outputSent + count;
    let whole = 0;
    while (sent >= output[whole].length) sent -= output[whole++].length;
    output.splice(0, whole);
    this.#outputSent = sent;
    return undefined;
  }

  #whenWritable(): EventHandle {
    this.#writeEvent ??= this.loop.base.event(this.#fd, Ev.WRITE, () => this.#writable());
    return this.#writeEvent;
  }

  #writable(): void {
    if (this.#phase === 'closed') return;
    this.#flush();
    if (!this.#needDrain || this.closed || this.#outputBytes > OUTPUT_HIGH_WATERMARK / 2) return;
    this.#needDrain = false;
    const { writable } = this.#host.worker;
    if (writable !== undefined)
      this.#call(writable as (conn: Connection<State>) => void, undefined);
  }

  #shutdown(): void {
    this.#phase = 'ended';
    if (this.#peerEnded) {
      this.destroy();
      return;
    }
    const status = native.sockShutdown(this.#fd);
    if (status < 0) this.destroy(systemError(status, 'shutdown'));
  }
}
