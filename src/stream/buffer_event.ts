// A stream as libevent has it: an input buffer that fills by itself, an output buffer that empties
// by itself, and three callbacks. What moves the bytes (a socket, a partner, another stream under a
// filter, a Duplex of Node's) is a subclass; this class has what is the same for all of them: which
// direction is enabled and what holds it, watermarks, who is told what, and when.
//
// Callbacks run in a dispatch pass and never inside a call. What a subclass finds out in its own
// event's callback is told there and then; everything else waits for `#later`, a user event.

import { constants } from 'node:os';
import { type Bytes, EvBuffer } from '../buffer/ev_buffer.js';
import { MultiloopError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import type { PassEnd } from '../event/options.js';
import { checkInteger, checkMillis, checkObject, invalidType } from '../validate.js';
import type { Address } from './address.js';
import type { BevEvent, BevHandlers, BevOptions, FlushMode, TlsInfo } from './bev_options.js';
import {
  checkDirections,
  checkFlushMode,
  checkOptions,
  checkOrder,
  defaultSettings,
  type Settings,
  tellAbove,
} from './bev_options.js';
import { DuplexAdapter, type DuplexOptions } from './duplex_adapter.js';
import { Hold } from './hold.js';
import { Notices } from './notices.js';
import type { RateLimit } from './rate_limit.js';
import { limitOf } from './stream_limit.js';
import { Flag, StreamState } from './stream_state.js';

/** Data of at least this size is not copied by write(). */
const REFERENCE_BYTES = 4 * 1024;

const NO_HANDLERS: BevHandlers = {};

export const { EAGAIN } = constants.errno;

/** Belongs to its base's thread. */
export abstract class BufferEvent extends StreamState implements Disposable, PassEnd {
  readonly base: EventBase;
  handlers: BevHandlers;
  /** Bytes that came from and went to the other side, as this stream counts them. */
  bytesRead = 0;
  bytesWritten = 0;

  /** @internal */ _settings: Settings;
  #input: EvBuffer | undefined = undefined;
  #output: EvBuffer | undefined = undefined;

  /** @internal */
  constructor(base: EventBase, options: BevOptions = {}) {
    super();
    checkOptions(base, options);
    this.base = base;
    this.handlers = options.handlers ?? NO_HANDLERS;
    this._settings = defaultSettings(options.priority ?? base.priorities >> 1);
    if (options.defer === true) this._flags |= Flag.DEFER;
    if (options.closeFd === false) this._flags |= Flag.KEEPS;
  }

  // ── how a subclass moves bytes ──

  /** @internal Bytes may come: wait for them. Called again when the timeout has changed. */
  protected abstract _startReading(timeout: number | undefined): void;
  /** @internal */
  protected abstract _stopReading(): void;
  /** @internal Moves what can be moved out of the output now. */
  protected abstract _flush(): void;
  /** @internal Nothing is to leave now. */
  protected abstract _stopWriting(): void;
  /** @internal The output is empty and end() was called: tell the other side. */
  protected abstract _finish(): void;
  /** @internal Gives everything back. With `reset` the peer learns that something is missing. */
  protected abstract _release(reset: boolean): void;

  // ── buffers ──

  /** What has come. Take from it; only the stream adds. */
  get input(): EvBuffer {
    if (this.#input === undefined) {
      this.#input = new EvBuffer();
      this.#input.freeze('back');
      this.#input._owner = this;
    }
    return this.#input;
  }
  /** What is to go. Add to it, or call write(); only the stream takes. */
  get output(): EvBuffer {
    if (this.#output === undefined) {
      this.#output = new EvBuffer();
      this.#output.freeze('front');
      this.#output._owner = this;
    }
    return this.#output;
  }
  get inputLength(): number {
    return this.#input === undefined ? 0 : this.#input.length;
  }
  get outputLength(): number {
    return this.#output === undefined ? 0 : this.#output.length;
  }

  /**
   * Queues data; what one pass writes leaves in one gathered write at its end, and at once outside
   * a pass. Data of 4 KiB and more is not copied and must not change until it has left; an EvBuffer
   * is emptied. False: the output is above the high watermark (64 KiB), so wait for the `write`
   * callback. For a stream that is closed it is dropped; after end() ERR_STREAM_WRITE_AFTER_END.
   */
  write(data: Bytes | EvBuffer): boolean {
    if (this._flags & (Flag.CLOSED | Flag.ENDING)) return this.#refuse(data);
    const { output } = this;
    if (data instanceof EvBuffer) output.addBuffer(data);
    else if (typeof data === 'string' || !(data instanceof Uint8Array)) output._add(data);
    else if (data.length < REFERENCE_BYTES) output._add(data);
    else output.addReference(data);
    return output.length <= this._settings.writeHigh;
  }

  #refuse(data: Bytes | EvBuffer): boolean {
    if (!(data instanceof EvBuffer || data instanceof Uint8Array || typeof data === 'string'))
      throw invalidType('data', 'a string, a Uint8Array or an EvBuffer', data);
    if (this._flags & Flag.CLOSED) return false;
    throw new MultiloopError(
      'ERR_STREAM_WRITE_AFTER_END',
      `${this._name} was ended and takes no more data`,
    );
  }

  /** @internal A buffer of this stream has changed. */
  bufferChanged(buffer: EvBuffer, added: number, removed: number): void {
    if (this._flags & Flag.CLOSED) return;
    if (buffer === this.#output) {
      if (added > 0) this._queueFlush();
    } else if (removed > 0 && this._readHeld & Hold.WATERMARK) {
      if (buffer.length < this._settings.readHigh) this._releaseReading(Hold.WATERMARK);
    }
  }

  // ── what it does ──

  /** Ev.READ, Ev.WRITE or both. Writing is enabled from the beginning, reading is not. */
  enable(mask: EvMask): this {
    checkDirections(mask);
    if (this._flags & Flag.CLOSED) return this;
    this._enabled |= mask & ~this.#over();
    if (mask & Ev.READ) this._updateReading();
    if (mask & Ev.WRITE) this._queueFlush();
    return this;
  }
  /** What has come stays in the input, what was written in the output. */
  disable(mask: EvMask): this {
    checkDirections(mask);
    if (this._flags & Flag.CLOSED) return this;
    this._enabled &= ~mask;
    if (mask & Ev.READ) this._updateReading();
    if (mask & Ev.WRITE) this._stopWriting();
    return this;
  }
  /** The directions in which nothing will come or go any more. */
  #over(): EvMask {
    const read = this._flags & Flag.PEER_ENDED ? Ev.READ : 0;
    return this._flags & Flag.ENDED ? read | Ev.WRITE : read;
  }
  get enabled(): EvMask {
    return this._enabled;
  }

  /**
   * Milliseconds in which something must be read, or written, while that direction is enabled,
   * nothing holds it, and (for writing) something is queued; undefined for no limit. When it has
   * passed the direction is disabled and `event` told, once.
   */
  setTimeouts(read?: number, write?: number): this {
    if (read !== undefined) checkMillis('read', read);
    if (write !== undefined) checkMillis('write', write);
    if (this._flags & Flag.CLOSED) return this;
    this._settings = { ...this._settings, readTimeout: read, writeTimeout: write };
    this._timeoutsChanged();
    this._updateReading();
    return this;
  }
  get timeouts(): { readonly read: number | undefined; readonly write: number | undefined } {
    return { read: this._settings.readTimeout, write: this._settings.writeTimeout };
  }

  /**
   * Bytes. Reading: `read` is called from `low` on, and nothing is read while there are `high`
   * (0, the default: no limit). Writing: `write` is called at `low` or less, and write() answers
   * false above `high` (64 KiB).
   */
  setWatermark(mask: EvMask, low: number, high?: number): this {
    checkDirections(mask);
    checkInteger('low', low, 0);
    if (high !== undefined) checkInteger('high', high, 0);
    const marks = { ...this._settings };
    if (mask & Ev.READ) {
      marks.readLow = low;
      marks.readHigh = high ?? marks.readHigh;
      checkOrder(low, marks.readHigh);
    }
    if (mask & Ev.WRITE) {
      marks.writeLow = low;
      marks.writeHigh = high ?? Math.max(marks.writeHigh, low);
      checkOrder(low, marks.writeHigh);
    }
    this._settings = marks;
    if (this._flags & Flag.CLOSED) return this;
    const full = marks.readHigh > 0 && this.inputLength >= marks.readHigh;
    if (full) this._holdReading(Hold.WATERMARK);
    else this._releaseReading(Hold.WATERMARK);
    return this;
  }
  getWatermark(direction: 'read' | 'write'): { low: number; high: number } {
    const { readLow, readHigh, writeLow, writeHigh } = this._settings;
    if (direction === 'read') return { low: readLow, high: readHigh };
    if (direction === 'write') return { low: writeLow, high: writeHigh };
    throw invalidType('direction', "'read' or 'write'", direction);
  }

  /** Calls `read` or `write` in the next pass if the watermarks allow it, or in any case. */
  trigger(mask: EvMask, options: { ignoreWatermarks?: boolean } = {}): void {
    checkDirections(mask);
    checkObject('options', options);
    const all = options.ignoreWatermarks === true;
    const { readLow, writeLow } = this._settings;
    if (mask & Ev.READ && (all || this.inputLength >= readLow)) this._tellLater(Ev.READ);
    if (mask & Ev.WRITE && (all || this.outputLength <= writeLow)) this._tellLater(Ev.WRITE);
  }
  /** Calls `event` in the next pass. */
  triggerEvent(event: BevEvent): void {
    checkObject('event', event);
    this._eventLater(event);
  }

  /** Undefined for none. A filter has that of the stream under it; see also RateLimitGroup. */
  setRateLimit(limit: RateLimit | undefined): this {
    this._limit = limitOf(this, limit);
    return this;
  }
  get rateLimit(): RateLimit | undefined {
    return this._limit?.own;
  }

  /** What flushing means depends on the kind; a socket writes what it can. */
  flush(direction: EvMask, mode: FlushMode): void {
    checkDirections(direction);
    checkFlushMode(mode);
    if (direction & Ev.WRITE) this._flushNow();
  }

  /** Half-closes when the output is written; the peer may still send. Idempotent. */
  end(data?: Bytes): void {
    if (data !== undefined) this.write(data);
    if (this._flags & (Flag.CLOSED | Flag.ENDING)) return;
    this._flags |= Flag.ENDING;
    this._queueFlush();
  }

  /** Closes now, after one attempt to write what is queued. No callback follows. Idempotent. */
  close(): void {
    if (this._flags & Flag.CLOSED) return;
    if (this.outputLength > 0 && this._mayWrite()) this._flush();
    this.#shut(undefined);
  }
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Closes now and drops what is queued. With an error the peer sees a reset, and `event` is
   * called with it in the next pass, as the last callback.
   */
  destroy(error?: Error): void {
    if (!(this._flags & Flag.CLOSED)) this.#shut(error);
  }

  /** This stream for Node: it takes over the handlers and reads. Always the same one. */
  toDuplex(options?: DuplexOptions): DuplexAdapter {
    this._more.adapter ??= new DuplexAdapter(this, options);
    return this._more.adapter;
  }

  get closed(): boolean {
    return (this._flags & Flag.CLOSED) !== 0;
  }
  /** end() was called. */
  get ended(): boolean {
    return (this._flags & Flag.ENDING) !== 0;
  }

  get priority(): number {
    return this._settings.priority;
  }
  set priority(value: number) {
    checkInteger('priority', value, 0, this.base.priorities - 1);
    this._settings = { ...this._settings, priority: value };
    const notices = this._extras?.notices;
    if (notices !== undefined) notices.priority = value;
    this._priorityChanged(value);
  }

  /** An open stream that reads or has something to write keeps the process alive. */
  ref(): this {
    this._flags &= ~Flag.UNREFED;
    this._refChanged();
    return this;
  }
  unref(): this {
    this._flags |= Flag.UNREFED;
    this._refChanged();
    return this;
  }
  /** @internal */
  get _refed(): boolean {
    return (this._flags & Flag.UNREFED) === 0;
  }

  /** Of a socket, while it is connected. */
  get localAddress(): Address | undefined {
    return undefined;
  }
  get remoteAddress(): Address | undefined {
    return undefined;
  }

  get tls(): TlsInfo | undefined {
    return undefined;
  }
  // ── for subclasses: state ──

  /** @internal For messages. */
  get _name(): string {
    return 'The stream';
  }
  get _peerEnded(): boolean {
    return (this._flags & Flag.PEER_ENDED) !== 0;
  }
  get _endTold(): boolean {
    return (this._flags & Flag.ENDED) !== 0;
  }
  /** @internal Whether what it is on is closed with it. */
  protected get _closesUnder(): boolean {
    return (this._flags & Flag.KEEPS) === 0;
  }
  /** @internal What a subclass does when one of these has changed. */
  protected _timeoutsChanged(): void {}
  protected _priorityChanged(_value: number): void {}
  protected _refChanged(): void {}

  _updateReading(): void {
    if (this._mayRead()) this._startReading(this._settings.readTimeout);
    else this._stopReading();
  }
  _holdReading(why: number): void {
    if (this._readHeld & why) return;
    this._readHeld |= why;
    this._updateReading();
  }
  _releaseReading(why: number): void {
    if (!(this._readHeld & why)) return;
    this._readHeld &= ~why;
    this._updateReading();
  }
  _holdWriting(why: number): void {
    this._writeHeld |= why;
    this._stopWriting();
  }
  _releaseWriting(why: number): void {
    if (!(this._writeHeld & why)) return;
    this._writeHeld &= ~why;
    this._queueFlush();
  }

  /** @internal Bytes that may be read now: 0 when it is held by then. */
  _readRoom(most: number): number {
    let room = most;
    const { readHigh } = this._settings;
    if (readHigh > 0) room = Math.min(room, readHigh - this.inputLength);
    if (this._limit !== undefined) room = Math.min(room, this._limit.readRoom());
    return Math.max(0, room);
  }

  // ── for subclasses: what leaves ──

  get _flushQueued(): boolean {
    return (this._flags & Flag.FLUSH_QUEUED) !== 0;
  }
  _queueFlush(): void {
    if (this._flags & Flag.FLUSH_QUEUED || !this._mayWrite()) return;
    if (this.base._atPassEnd(this)) this._flags |= Flag.FLUSH_QUEUED;
    else this._flushNow();
  }
  passEnd(): void {
    this._flags &= ~Flag.FLUSH_QUEUED;
    this._flushNow();
  }
  _flushNow(): void {
    if (!this._mayWrite()) return;
    if (this.outputLength > 0) this._flush();
    else this._outputEmpty();
  }
  /** @internal There is nothing left to write. */
  _outputEmpty(): void {
    if ((this._flags & (Flag.ENDING | Flag.ENDED | Flag.CLOSED)) !== Flag.ENDING) return;
    this._flags |= Flag.ENDED;
    this._finish();
    this._adapter?.ended();
  }
  /** @internal Some of the output has gone. `direct`: this is a callback of the stream's own. */
  _wrote(direct: boolean): void {
    if (this.outputLength <= this._settings.writeLow && this.handlers.write !== undefined) {
      if (direct && !(this._flags & Flag.DEFER)) this._callWrite();
      else this._tellLater(Ev.WRITE);
    }
    this._adapter?.wrote();
    if (this.outputLength === 0) this._outputEmpty();
  }

  // ── for subclasses: who is told ──

  /** @internal Bytes have been added to the input, in a callback of the stream's own. */
  _received(count: number): void {
    this.bytesRead += count;
    const { readHigh, readLow } = this._settings;
    const length = this.inputLength;
    if (readHigh > 0 && length >= readHigh) this._holdReading(Hold.WATERMARK);
    if (length < readLow) return;
    if (this._flags & Flag.DEFER) this._tellLater(Ev.READ);
    else this._callRead();
  }
  /** @internal The same from inside a call. */
  _receivedLater(count: number): void {
    this.bytesRead += count;
    const { readHigh, readLow } = this._settings;
    const length = this.inputLength;
    if (readHigh > 0 && length >= readHigh) this._holdReading(Hold.WATERMARK);
    if (length >= readLow) this._tellLater(Ev.READ);
  }
  /** @internal */
  _callRead(): void {
    const { handlers } = this;
    const { read } = handlers;
    const { input } = this;
    if (read === undefined) {
      input._settle();
      return;
    }
    const { length } = input;
    try {
      read.call(handlers, this);
    } finally {
      // What it has left is above the mark, so nothing else will come and call it; and since it
      // has taken something, calling it again is of use. libevent calls it in any case, and spins.
      if (this._readHeld & Hold.WATERMARK && input.length < length) this._tellLater(Ev.READ);
      input._settle();
    }
  }
  /** @internal */
  _callWrite(): void {
    const { handlers } = this;
    handlers.write?.call(handlers, this);
  }

  /** @internal */
  _peerEnd(direct: boolean): void {
    this._flags |= Flag.PEER_ENDED;
    this._failed('read', { eof: true }, direct);
  }
  /** @internal There will never be another side. */
  _neverOpened(event: BevEvent): void {
    this._flags |= Flag.PEER_ENDED | Flag.ENDED;
    this._enabled = 0;
    this._eventLater(event);
  }
  /** @internal A direction is over for the reason in `event`, an object of this call's own. */
  _failed(direction: 'read' | 'write', event: BevEvent, direct: boolean): void {
    if (direction === 'read') {
      this._enabled &= ~Ev.READ;
      this._stopReading();
    } else {
      this._enabled &= ~Ev.WRITE;
      this._stopWriting();
    }
    event.direction = direction;
    if (direct) this._tellEvent(event);
    else this._eventLater(event);
  }
  /** @internal In a callback of the stream's own. */
  _tellEvent(event: BevEvent): void {
    if (this._flags & Flag.DEFER || this._extras?.notices?.empty === false) this._eventLater(event);
    else this._callEvent(event);
  }
  /** @internal */
  _callEvent(event: BevEvent): void {
    const { handlers } = this;
    handlers.event?.call(handlers, this, event);
  }
  /** @internal */
  _tellLater(what: EvMask): void {
    if (!(this._flags & Flag.CLOSED || this.base._closed)) this.#later.tell(what);
  }
  /** @internal */
  _eventLater(event: BevEvent): void {
    if (!(this._flags & Flag.CLOSED || this.base._closed)) this.#later.tellEvent(event);
  }

  get #later(): Notices {
    this._more.notices ??= this._inContext(() => new Notices(this));
    return this._more.notices;
  }
  /** @internal Runs `make` in the async context of the stream. */
  protected _inContext<T>(make: () => T): T {
    return make();
  }
  /** @internal Whether `_tellClosed` is called after every close. */
  protected get _tellsClosed(): boolean {
    return false;
  }
  /** @internal The last callback of a stream that is closed. */
  _tellClosed(error: Error | undefined): void {
    const { handlers } = this;
    this.handlers = NO_HANDLERS;
    if (error !== undefined) handlers.event?.call(handlers, this, { error });
  }

  /** @internal It goes on elsewhere: nothing is written, closed or told any more. */
  _leave(): void {
    this._flags |= Flag.CLOSED;
    this._limit?.leave();
    this._limit = undefined;
    this.#input?._discard();
    this.#output?._discard();
    this.handlers = NO_HANDLERS;
    this.#forgetNotices();
  }
  /** @internal What of its state another stream would have to know. */
  get _state(): number {
    return this._flags & (Flag.DEFER | Flag.ENDING | Flag.ENDED | Flag.PEER_ENDED);
  }
  set _state(flags: number) {
    this._flags |= flags;
  }

  #forgetNotices(): void {
    const extras = this._extras;
    extras?.notices?.free();
    if (extras !== undefined) extras.notices = undefined;
  }

  #shut(error: Error | undefined): void {
    this._flags |= Flag.CLOSED;
    this._enabled = 0;
    this._limit?.leave();
    this._limit = undefined;
    const tell = !this.base._closed && (this._tellsClosed || error !== undefined);
    if (tell) this.#later.tellClosed(error);
    this._release(error !== undefined);
    this._adapter?.shut(error);
    this.#input?._discard();
    this.#output?._discard();
    if (tell) return;
    tellAbove(this.handlers);
    this.handlers = NO_HANDLERS;
    this.#forgetNotices();
  }
}
