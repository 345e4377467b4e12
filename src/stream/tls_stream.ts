// TLS over any other stream: a pair's end, a filter, a Duplex of Node's, another TLS stream
// (libevent: bufferevent_openssl_filter_new).
//
//   under.input  ─records─► session ─► input     while it reads, below its high mark
//   under.output ◄─records─ session ◄─ output    at the end of a pass, while `under` has room
//
// It is what SocketStream is with TLS, to the codes of its errors; only where that one asks the
// socket this one asks the stream below.

import { MultiloopError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import { TlsCode } from '../native.js';
import {
  type BevEvent,
  type BevOptions,
  checkDirections,
  checkFlushMode,
  type FlushMode,
  TRANSFER_BYTES,
} from './bev_options.js';
import { type BufferEvent, EAGAIN } from './buffer_event.js';
import { HandshakeTurns } from './handshake_turns.js';
import { Hold } from './hold.js';
import { StackedStream, underGone } from './stacked_stream.js';
import { TlsMemory } from './tls_memory.js';
import type { TlsInfo, TlsPlan } from './tls_options.js';
import { type KeyUpdateOptions, updateKeys } from './tls_transport.js';

export class TlsStream extends StackedStream {
  readonly #tls: TlsMemory;
  readonly #plan: TlsPlan;
  /** It waits for the stream below to be connected, then its events are the handshake's. */
  #connecting: boolean;
  #shaking = true;
  /** It waits for what its name gets, and for nothing else. */
  #asking = false;
  #secured = false;
  /** Reading goes on when the stream below has written. */
  #readWantsWrite = false;
  /** The output is being taken: what is written meanwhile follows. */
  #pushing = false;

  /** @internal */
  constructor(under: BufferEvent, plan: TlsPlan, options: BevOptions = {}) {
    super(under, options);
    this.#plan = plan;
    this.#tls = TlsMemory.over(under, plan);
    this._readHeld = this._writeHeld = Hold.CONNECTING;
    this.#connecting = (under._readHeld & Hold.CONNECTING) !== 0;
    this._takeUnder(options.rateLimit);
    const late = () => this.#shaken(plan.timeoutMs, true);
    this.#tls.deadline = this.base.timer(late, { priority: this.priority });
    if (!this.#connecting) this.#begin();
  }

  /** What its handshake came to; undefined before that. */
  override get tls(): TlsInfo | undefined {
    return this.#secured && !this.closed ? this.#tls.info() : undefined;
  }
  /** Of a client: what a later stream resumes with; of TLS 1.3 there is none before data came. */
  get tlsSession(): Uint8Array | undefined {
    return this.#secured && !this.closed ? this.#tls.session() : undefined;
  }
  /** As of a SocketStream. */
  updateKeys(options: KeyUpdateOptions = {}): void {
    if (this.closed) return;
    updateKeys(this.#secured ? this.#tls : undefined, options);
    this.#handDown();
  }
  /** @internal */
  override get _name(): string {
    return 'The TLS stream';
  }

  // ── the handshake ──

  #begin(): void {
    this.#connecting = false;
    const { deadline } = this.#tls;
    if (!this._refed) deadline?.unref();
    deadline?.add(this.#plan.timeoutMs);
    this.#shake();
  }
  #shake(): void {
    if (this.#asking) return;
    const { under } = this;
    if (HandshakeTurns.of(this.base).mayStep(this)) this.#shakeNow();
    else if (!under.closed) under._holdReading(Hold.FILTER);
  }
  /** @internal Its turn has come. */
  _step(): void {
    const { deadline } = this.#tls;
    if (deadline !== undefined) this.base._runIn(deadline, () => this.#shakeNow());
  }
  #shakeNow(): void {
    const tls = this.#tls;
    let wants: number;
    try {
      tls.ends = this._end?.eof === true;
      wants = tls.handshake();
    } catch (error) {
      // Memory of the stream below that is gone.
      this.#broken(error as Error);
      return;
    }
    this.#handDown();
    if (!this.#shaking || this.closed) return;
    if (wants === 3) this.#findContext();
    else if (wants !== 1) this.#shaken(wants, false);
    else if (this._end?.error !== undefined) this.#broken(this._end.error);
    else this.under._releaseReading(Hold.FILTER);
  }
  /** The handshake rests; its deadline runs on. */
  async #findContext(): Promise<void> {
    this.#asking = true;
    this.under._holdReading(Hold.FILTER);
    const waits = () => this.#shaking && !this.closed && !this.base._closed;
    const found = await this.#tls.findContext(this.#plan.ask, waits);
    this.#asking = false;
    if (found) HandshakeTurns.of(this.base).stepLater(this);
  }
  /** `code`: of the handshake, or the milliseconds in which it was to be done. */
  #shaken(code: number, late: boolean): void {
    const tls = this.#tls;
    if (code === 0) {
      this.#over();
      this.#secured = true;
      this._releaseReading(Hold.CONNECTING);
      this._releaseWriting(Hold.CONNECTING);
      this._eventLater({ connected: true });
      return;
    }
    const text = `The TLS handshake was not done within ${code} ms`;
    const error = late ? new MultiloopError('ERR_TLS_HANDSHAKE', text) : tls.handshakeError(code);
    this.#failed(late ? { timeout: true, error } : { error });
  }
  /** The stream below has failed. */
  #broken(cause: Error): void {
    const message = `The TLS handshake has failed: ${cause.message}`;
    this.#failed({ error: new MultiloopError('ERR_TLS_HANDSHAKE', message, { cause }) });
  }
  #failed(event: BevEvent): void {
    this.#over();
    const { under } = this;
    if (!under.closed) {
      under._holdReading(Hold.FILTER);
      // The peer has been sent why, if anything.
      under.end();
    }
    this._neverOpened(event);
  }
  #over(): void {
    this.#shaking = this.#connecting = false;
    HandshakeTurns.of(this.base).forget(this);
    this.#tls.deadline?.free();
    this.#tls.deadline = undefined;
  }

  // ── what the stream below tells ──

  protected override _underReads(): void {
    if (this.#connecting) return;
    if (this.#shaking) this.#shake();
    else this.#pump(false, true);
  }
  protected override _underDrained(): void {
    if (this.#shaking) return;
    if (this.#readWantsWrite) {
      this.#readWantsWrite = false;
      this.#pump(false, true);
    }
    if (this.outputLength > 0) this.#push(false, true);
  }
  protected override _underTells(event: BevEvent): void {
    // `connected` of this one comes after the handshake.
    if (event.connected) {
      if (this.#connecting) this.#begin();
    } else if (!this.#shaking) {
      // What becomes of it after a failed handshake, or the peer's close_notify, is of no interest.
      const told = !this.#secured || (event.direction === 'read' && this._peerEnded);
      if (!told) super._underTells(event);
    } else if (this.#connecting) {
      this.#over();
      this._neverOpened(event);
    } else if (event.direction === 'read' && event.timeout === undefined) {
      this._end ??= event;
      this.#shake();
    } else this.#broken(event.error ?? new Error('the stream below has timed out'));
  }
  protected override _underGone(): void {
    if (this.#shaking) this.#failed({ error: underGone() });
    else if (this.#secured) super._underGone();
  }

  // ── reading ──

  protected override _startReading(timeout: number | undefined): void {
    this._timeReading(timeout);
    this.under._releaseReading(Hold.FILTER);
    if (this.under.inputLength > 0 || this.#tls.more || this._end !== undefined) this._wakeInput();
  }
  protected override _stopReading(): void {
    this._timeReading(undefined);
    if (!this.#shaking) this.under._holdReading(Hold.FILTER);
  }

  /** `all`: whatever the watermarks say, and whether or not it reads. */
  #pump(all: boolean, direct: boolean): void {
    const tls = this.#tls;
    while (this.#canRead(all)) {
      const most = all ? TRANSFER_BYTES : this._readRoom(TRANSFER_BYTES);
      if (most === 0) {
        if (this._mayRead()) this._holdReading(Hold.WATERMARK);
        return;
      }
      const count = this.#pull(most, direct);
      if (count === undefined || this.closed) return;
      if (count <= 0) {
        this.#readNothing(count, direct);
        return;
      }
      this.input._move(tls.opened, tls.opened.length);
      if (this.closed) return;
      this._timeReadingAnew();
      if (direct) this._received(count);
      else this._receivedLater(count);
      if (all) continue;
      // The others want their turn too.
      const more = tls.more || this._end !== undefined || this.under.inputLength > 0;
      if (more && this._mayRead()) this._wakeInput();
      return;
    }
  }
  #canRead(all: boolean): boolean {
    if (this.closed || this.#shaking) return false;
    return this._mayRead() || (all && !this._peerEnded);
  }
  /** Undefined after an error, which has been told. */
  #pull(most: number, direct: boolean): number | undefined {
    const { under } = this;
    const tls = this.#tls;
    tls.ends = this._end?.eof === true;
    try {
      const count = tls.pull(most, under.getWatermark('write').high + 1 - under.outputLength);
      this.#handDown();
      return count;
    } catch (error) {
      this._failed('read', { error: error as Error }, direct);
      return undefined;
    }
  }
  #readNothing(count: number, direct: boolean): void {
    if (count === 0) this._peerEnd(direct);
    else if (count === TlsCode.WANTS_OTHER) this.#readWantsWrite = true;
    else if (count !== -EAGAIN) {
      this._failed('read', { error: this.#tls.error(count, 'recv') }, direct);
    } else if (this._end?.error !== undefined) {
      this._failed('read', { ...this._end }, direct);
    }
  }

  // ── writing ──

  protected override _flush(): void {
    this.#push(false, false);
  }
  /** @internal */
  override _queueFlush(): void {
    if (!this.#pushing) super._queueFlush();
  }

  /** `all`: whatever the watermark of the stream below says. */
  #push(all: boolean, direct: boolean): void {
    const { under } = this;
    if (this.#pushing || !this._mayWrite()) return;
    if (under.closed) {
      this._failed('write', { error: underGone() }, direct);
      return;
    }
    const tls = this.#tls;
    const { high } = under.getWatermark('write');
    let count = 0;
    let sent = 0;
    let error: Error | undefined;
    this.#pushing = true;
    try {
      while (this.outputLength > 0 && (all || under.outputLength + tls.sealed.length <= high)) {
        count = tls.push(this.output, this.outputLength);
        if (count <= 0 || this.closed) break;
        sent += count;
      }
    } catch (thrown) {
      // A file that is shorter than it was, or cannot be read.
      error = thrown as Error;
    }
    this.#pushing = false;
    if (this.closed) return;
    this.bytesWritten += sent;
    this.#handDown();
    if (count < 0) error = tls.error(count, 'send');
    if (error !== undefined) {
      this._failed('write', { error }, direct);
      return;
    }
    this._timeWriting(sent > 0);
    if (sent > 0) this._wrote(direct);
  }
  /** The records that were made become the output of the stream below. */
  #handDown(): void {
    const { sealed } = this.#tls;
    if (sealed.length > 0 && !this.under.closed) this.under.output.addBuffer(sealed);
  }

  /**
   * 'flush' and 'finished' read and write whatever the watermarks say, and flush the stream below;
   * 'finished' ends the stream when it is for writing.
   */
  override flush(direction: EvMask, mode: FlushMode): void {
    checkDirections(direction);
    checkFlushMode(mode);
    if (this.closed) return;
    const all = mode !== 'normal';
    if (direction & Ev.READ) {
      this.under.flush(Ev.READ, mode);
      this.#pump(all, false);
    }
    if (this.closed || !(direction & Ev.WRITE)) return;
    this.#push(all, false);
    if (mode === 'finished') this.end();
    // What is below ends when this has given all that it has.
    if (!this.closed) this.under.flush(Ev.WRITE, all ? 'flush' : mode);
  }

  // ── ending ──

  protected override _finish(): void {
    const { under } = this;
    if (under.closed) {
      this._failed('write', { error: underGone() }, false);
      return;
    }
    this.#tls.finish();
    this.#handDown();
    under.end();
  }

  protected override _release(reset: boolean): void {
    this._freeTimers();
    HandshakeTurns.of(this.base).forget(this);
    // Not before the output was written: the peer would take what it has for all of it.
    if (!reset && !this.#shaking && !this._endTold && this.outputLength === 0) {
      this.#tls.finish();
      this.#handDown();
    }
    this.#tls.free();
    this._releaseUnder(reset);
  }
  protected override _refChanged(): void {
    super._refChanged();
    if (this._refed) this.#tls.deadline?.ref();
    else this.#tls.deadline?.unref();
  }
}
