// A stream over a Duplex of Node's: a net.Socket, a TLS socket, zlib, whatever it is.
//
//   'readable' ─► next pass: read() ─► input      as far as the watermarks allow; the rest stays in
//                                                 the Duplex, which holds its own source then
//   output ─end of pass─► write()                 until it answers false, then from 'drain' on
//
// Node's events only activate events of the base, so every callback of this stream runs in a
// dispatch pass and in the async context in which the stream was made. What is read belongs to the
// input and is not copied. What is written Node may keep for as long as it likes (a PassThrough
// hands it on), so what is in a slab is copied first; memory that the user lent is given back when
// the Duplex has called back.

import type { Duplex } from 'node:stream';
import { EvBuffer } from '../buffer/ev_buffer.js';
import { isOfSlab } from '../buffer/slab.js';
import { MultiloopError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { invalidType, invalidValue } from '../validate.js';
import type { Address } from './address.js';
import { type BevOptions, checkBase, TRANSFER_BYTES } from './bev_options.js';
import { BufferEvent } from './buffer_event.js';
import { Hold } from './hold.js';
import { keepRunning } from './keep_running.js';
import type { TlsInfo } from './tls_options.js';

/** Milliseconds that a closed stream's Duplex may take to write what it has accepted. */
const LINGER_MS = 30_000;
const METHODS = ['read', 'write', 'end', 'destroy', 'on', 'cork'] as const;

type SocketLike = Duplex & {
  connecting?: boolean;
  tls?: TlsInfo;
  localAddress?: string;
  localPort?: number;
  remoteAddress?: string;
  remotePort?: number;
  ref?(): unknown;
  unref?(): unknown;
  resetAndDestroy?(): unknown;
};

export class DuplexStream extends BufferEvent {
  readonly #duplex: SocketLike;
  readonly #reader: EventHandle;
  readonly #writer: EventHandle;
  readonly #listeners: [name: string, listener: (error: Error) => void][];
  /** Still to be told: it is connected, or it is over. */
  #connected = false;
  #fate: Error | undefined = undefined;
  /** write() has answered false. */
  #full = false;
  #reading = false;
  #letGo: (() => void) | undefined = undefined;
  /** What destroy() was called with. */
  #cause: Error | undefined = undefined;

  /** @internal */
  constructor(base: EventBase, duplex: Duplex, options: BevOptions = {}) {
    checkBase(base);
    checkDuplex(duplex);
    super(base, options);
    this.#duplex = duplex as SocketLike;
    const { priority } = this;
    this.#reader = base.event(-1, Ev.PERSIST, (what) => this.#readable(what), { priority });
    this.#writer = base.event(-1, 0, (what) => this.#writable(what), { priority });
    this.#listeners = [
      ['readable', () => this.#wake()],
      ['end', () => this.#wake()],
      ['drain', () => this.#drained()],
      ['connect', () => this.#isConnected()],
      ['error', (error: Error) => this.#over(error)],
      ['close', () => this.#isClosed()],
    ];
    if (!this.#duplex.destroyed) this.#listen();
    else if (!this.#duplex.readableEnded) this.#over(this.#duplex.errored ?? prematureClose());
    if (options.rateLimit !== undefined) this.setRateLimit(options.rateLimit);
  }

  /** What is under it. */
  get duplex(): Duplex {
    return this.#duplex;
  }
  override get localAddress(): Address | undefined {
    const { localAddress, localPort } = this.#duplex;
    return addressOf(localAddress, localPort);
  }
  override get remoteAddress(): Address | undefined {
    const { remoteAddress, remotePort } = this.#duplex;
    return addressOf(remoteAddress, remotePort);
  }

  /** Of a Duplex over a stream with TLS. */
  override get tls(): TlsInfo | undefined {
    return this.closed ? undefined : this.#duplex.tls;
  }

  /** @internal */
  protected override _inContext<T>(make: () => T): T {
    return this.#reader.runInAsyncScope(make);
  }

  override destroy(error?: Error): void {
    this.#cause ??= error;
    super.destroy(error);
  }

  // ── what Node tells ──

  #listen(): void {
    for (const [name, listener] of this.#listeners) this.#duplex.on(name, listener);
  }

  #wake(): void {
    if (!this.closed && !this.base._closed) this.#reader.activate(Ev.READ);
  }
  #isConnected(): void {
    this.#connected = true;
    this.#wake();
  }
  #over(error: Error): void {
    this.#fate ??= error;
    this.#wake();
  }
  #isClosed(): void {
    if (!this.#duplex.readableEnded) this.#over(prematureClose());
    this.#drained();
  }
  #drained(): void {
    if (this.closed || this.base._closed) return;
    this.#full = false;
    this.#writer.activate(Ev.WRITE);
  }

  // ── reading ──

  protected override _startReading(timeout: number | undefined): void {
    this.#reading = true;
    this.#keep();
    if (timeout === undefined) this.#reader.removeTimer();
    else this.#reader.add(timeout);
    this.#reader.activate(Ev.READ);
  }
  protected override _stopReading(): void {
    this.#reading = false;
    this.#keep();
    this.#reader.del();
    if (this.#connected || this.#fate !== undefined) this.#wake();
  }

  #readable(what: EvMask): void {
    if (!(what & Ev.READ)) {
      this._failed('read', { timeout: true }, true);
      return;
    }
    if (this.#connected) {
      this.#connected = false;
      this._tellEvent({ connected: true });
    }
    this.#read();
    if (this.#fate === undefined || this.closed) return;
    const error = this.#fate;
    this.#fate = undefined;
    this.disable(Ev.READ | Ev.WRITE);
    this._tellEvent({ error });
  }

  #read(): void {
    const duplex = this.#duplex;
    let count = 0;
    while (this._mayRead()) {
      const room = this._readRoom(TRANSFER_BYTES - count);
      if (room === 0) {
        this.#noRoom(count === TRANSFER_BYTES);
        break;
      }
      // read(0) makes it get more, and notices its end.
      if (duplex.readableLength === 0) duplex.read(0);
      const length = Math.min(duplex.readableLength, room);
      const chunk = length === 0 ? null : duplex.read(length);
      if (chunk === null) break;
      count += this.#took(chunk);
    }
    if (count > 0) this._received(count);
    if (duplex.readableEnded && this._mayRead()) this._peerEnd(true);
  }

  /** `full`: the others want their turn too, and this goes on in the next pass. */
  #noRoom(full: boolean): void {
    if (full) this.#wake();
    else if (this._mayRead()) this._holdReading(Hold.WATERMARK);
  }

  #took(chunk: Buffer | string): number {
    const { readableEncoding } = this.#duplex;
    const bytes =
      typeof chunk === 'string' ? Buffer.from(chunk, readableEncoding ?? 'utf8') : chunk;
    this.input._addReference(bytes);
    this._limit?.took('read', bytes.length);
    return bytes.length;
  }

  // ── writing ──

  protected override _flush(): void {
    if (this.#full) this.#wait();
    else this._inContext(() => this.#write(false));
  }
  protected override _stopWriting(): void {
    this.#writer.del();
    this.#keep();
  }

  #writable(what: EvMask): void {
    if (!(what & Ev.WRITE)) this._failed('write', { timeout: true }, true);
    else if (!this.#full && this._mayWrite()) this.#write(true);
    this.#keep();
  }

  #write(direct: boolean): void {
    const duplex = this.#duplex;
    const before = this.bytesWritten;
    try {
      duplex.cork();
      try {
        while (this.outputLength > 0 && !this.#full && this._mayWrite()) {
          let most = Math.min(this.outputLength, TRANSFER_BYTES);
          if (this._limit !== undefined) most = Math.min(most, this._limit.writeRoom());
          if (most <= 0) break;
          if (!duplex.writable) throw prematureClose();
          this.#writePieces(most);
        }
      } finally {
        duplex.uncork();
      }
    } catch (error) {
      this._failed('write', { error: error as Error }, direct);
    }
    if (this.closed) return;
    if (this.#full && this.outputLength > 0) this.#wait();
    if (this.bytesWritten > before) this._wrote(direct);
  }

  #writePieces(most: number): void {
    const pieces = new EvBuffer();
    let lent = false;
    pieces._move(this.output, most);
    const views = pieces.peek();
    this.bytesWritten += most;
    this._limit?.took('write', most);
    for (const [at, view] of views.entries()) {
      const ofSlab = isOfSlab(view);
      lent ||= !ofSlab;
      const last = at === views.length - 1 && lent;
      const callback = last ? () => pieces._discard() : undefined;
      if (!this.#duplex.write(ofSlab ? Buffer.from(view) : view, callback)) this.#full = true;
    }
    if (!lent) pieces._discard();
  }

  /** Something is queued and the Duplex is full. */
  #wait(): void {
    const { write } = this.timeouts;
    if (write !== undefined && this.#writer.pending(Ev.TIMEOUT) === 0) this.#writer.add(write);
    this.#keep();
  }

  // ── ending ──

  protected override _finish(): void {
    this._inContext(() => this.#duplex.end());
  }

  protected override _release(reset: boolean): void {
    this.#reading = false;
    this.#letGo?.();
    this.#letGo = undefined;
    this.#reader.free();
    this.#writer.free();
    const duplex = this.#duplex;
    for (const [name, listener] of this.#listeners) duplex.off(name, listener);
    if (!this._closesUnder || duplex.destroyed) return;
    // Nobody else may be listening, and nobody of ours is to be told any more.
    duplex.on('error', () => undefined);
    if (reset) this.#reset();
    else linger(duplex);
  }

  #reset(): void {
    const duplex = this.#duplex;
    try {
      if (duplex.resetAndDestroy !== undefined) duplex.resetAndDestroy();
    } catch {
      // It has no socket of TCP under it.
    }
    if (!duplex.destroyed) duplex.destroy(this.#cause);
  }

  /** The loop goes on while there is something to wait for. */
  #keep(): void {
    const waits =
      !this.closed && ((this.#reading && !this.#duplex.readableEnded) || this.outputLength > 0);
    if (waits) this.#letGo ??= keepRunning(this.base);
    else {
      this.#letGo?.();
      this.#letGo = undefined;
    }
  }

  protected override _timeoutsChanged(): void {
    this.#writer.removeTimer();
    if (this.#full && this.outputLength > 0) this.#wait();
  }
  protected override _priorityChanged(value: number): void {
    for (const event of [this.#reader, this.#writer])
      if (!event._freed && event._active === 0) event.priority = value;
  }
  /** The Duplex keeps the process alive, or does not. */
  protected override _refChanged(): void {
    if (this.closed) return;
    if (this._refed) {
      this.#reader.ref();
      this.#writer.ref();
      this.#duplex.ref?.();
    } else {
      this.#reader.unref();
      this.#writer.unref();
      this.#duplex.unref?.();
    }
  }
}

/** As the kernel does with a socket: what it has accepted it still tries to write. */
function linger(duplex: Duplex): void {
  if (duplex.writable) duplex.end();
  if (duplex.writableFinished || !duplex.writableEnded) {
    duplex.destroy();
    return;
  }
  const late = setTimeout(() => duplex.destroy(), LINGER_MS).unref();
  duplex.once('finish', () => duplex.destroy());
  duplex.once('close', () => clearTimeout(late));
  // A transform does not finish before somebody has taken what it makes.
  duplex.resume();
}

function checkDuplex(duplex: unknown): void {
  const all = duplex as { readableObjectMode?: boolean; writableObjectMode?: boolean };
  const methods = duplex as Record<string, unknown> | null | undefined;
  if (typeof duplex !== 'object' || METHODS.some((name) => typeof methods?.[name] !== 'function'))
    throw invalidType('duplex', 'an instance of stream.Duplex', duplex);
  if (all.readableObjectMode || all.writableObjectMode)
    throw invalidValue('duplex', 'is in object mode and carries no bytes', duplex);
  const { readableEncoding } = duplex as Duplex;
  if (readableEncoding !== null && readableEncoding !== undefined)
    throw invalidValue('duplex', `decodes its bytes as ${readableEncoding}`, duplex);
}

function addressOf(host: string | undefined, port: number | undefined): Address | undefined {
  if (host === undefined || port === undefined) return undefined;
  return { host, port, family: host.includes(':') ? 6 : 4 };
}

function prematureClose(): Error {
  return new MultiloopError(
    'ERR_STREAM_PREMATURE_CLOSE',
    'The Duplex was closed before it had ended',
  );
}
