// A stream over a connected stream socket.
//
//   kernel ─recv─► slab ─► input ─► read callback            one recv a pass, into place
//   output ─end of pass─► sendmsg or sendfile ─► kernel      WRITE is waited for after EAGAIN only

import { type Slab, slabWith } from '../buffer/slab.js';
import { MultiloopError, systemError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { native, TlsCode } from '../native.js';
import { checkInteger } from '../validate.js';
import { type Address, toAddress } from './address.js';
import { type BevEvent, type BevOptions, TRANSFER_BYTES } from './bev_options.js';
import { BufferEvent, EAGAIN } from './buffer_event.js';
import { HandshakeTurns } from './handshake_turns.js';
import { Hold } from './hold.js';
import { Flag } from './stream_state.js';
import type { HandshakeFailure } from './tls_failures.js';
import type { TlsInfo, TlsPlan } from './tls_options.js';
import { type KeyUpdateOptions, TlsTransport, updateKeys } from './tls_transport.js';

/** System calls of one flush: more wait for the next turn, since others want to write too. */
const FLUSH_CALLS_MAX = 16;
const FD_MAX = 2 ** 31 - 1;
/** socket(2), SOCK_STREAM: 1 on Linux, macOS and the BSDs. */
const SOCK_STREAM = 1;

/** Among the flags: it is in its TLS handshake. */
const SHAKING = Flag.SUBCLASS;
/** The first one that is free for subclasses of this. */
export const SOCKET_SUBCLASS = 2 * SHAKING;

export class SocketStream extends BufferEvent {
  #fd: number;
  #readEvent: EventHandle | undefined = undefined;
  #writeEvent: EventHandle | undefined = undefined;
  /** @internal TLS over the socket; what is plain has none, and pays for asking only. */
  _tls: TlsTransport | undefined = undefined;

  /** @internal `fd` -1: it is still to be connected. */
  constructor(base: EventBase, fd: number, options: BevOptions = {}) {
    super(base, options);
    const { rateLimit } = options;
    this.#fd = fd;
    if (fd === -1) {
      this._readHeld = this._writeHeld = Hold.CONNECTING;
    }
    if (rateLimit !== undefined) this.setRateLimit(rateLimit);
  }

  /** @internal What TLS begins with when it has connected. */
  get _plan(): TlsPlan | undefined {
    return this._extras?.plan;
  }
  set _plan(plan: TlsPlan | undefined) {
    if (plan !== undefined) this._more.plan = plan;
  }
  /** @internal Called by close() while it is connecting or in the handshake after that. */
  set _cancel(cancel: () => void) {
    this._more.cancel = cancel;
  }

  /** The socket, or -1 before it is connected and after it is closed. */
  get fd(): number {
    return this.closed ? -1 : this.#fd;
  }
  override get localAddress(): Address | undefined {
    return this.fd < 0 ? undefined : toAddress(native.sockLocal(this.#fd));
  }
  override get remoteAddress(): Address | undefined {
    return this.fd < 0 ? undefined : toAddress(native.sockPeer(this.#fd));
  }

  /** Bytes of one read: 64 KiB; it is a matter of fairness between streams. */
  get maxRead(): number {
    return this._settings.maxRead;
  }
  set maxRead(value: number) {
    checkInteger('maxRead', value, 1, TRANSFER_BYTES);
    this._settings = { ...this._settings, maxRead: value };
  }
  /** Bytes of one write: no limit. */
  get maxWrite(): number {
    return this._settings.maxWrite;
  }
  set maxWrite(value: number) {
    if (value !== Infinity) checkInteger('maxWrite', value, 1);
    this._settings = { ...this._settings, maxWrite: value };
  }

  /**
   * Goes on with another socket; the old one stays open unless `close` is true. A stream with TLS
   * has its session with the one that it has: ERR_TLS_CONFIG.
   */
  setFd(fd: number, options: { close?: boolean } = {}): void {
    checkSocket(fd);
    if (this.closed) return;
    if (this._tls !== undefined || this._plan !== undefined)
      throw new MultiloopError('ERR_TLS_CONFIG', `${this._name} has TLS and stays on its socket`);
    const { maskRead, old } = { maskRead: this.#readEvent !== undefined, old: this.#fd };
    this.#freeEvents();
    this.#settled();
    if (options.close === true && old >= 0) native.sysClose(old);
    this.#connected(fd);
    if (maskRead) this._updateReading();
  }

  /** @internal A new connection: what was enabled and written before holds for it. */
  _connected(fd: number): void {
    if (this._plan === undefined) {
      this.#takeCancel();
      this.#connected(fd);
      this._eventLater({ connected: true });
      return;
    }
    this.#fd = fd;
    try {
      this._secure(this._plan, 0);
    } catch (error) {
      // OpenSSL refuses the name or the session to resume.
      this.#settled();
      this._neverOpened({ error: error as Error });
    }
  }
  /** @internal Every address has failed, or it took too long. */
  _notConnected(event: BevEvent): void {
    this.#takeCancel();
    if (this._shaking) this.#endShaking();
    if (this._tls !== undefined) native.sockShutdown(this.#fd);
    this._neverOpened(event);
  }
  /** It is connected, with TLS if it has that, or never will be. */
  #settled(): void {
    this.#takeCancel()?.();
  }
  #takeCancel(): (() => void) | undefined {
    const extras = this._extras;
    const cancel = extras?.cancel;
    if (extras !== undefined) extras.cancel = undefined;
    return cancel;
  }
  #connected(fd: number): void {
    this.#fd = fd;
    this._releaseReading(Hold.CONNECTING);
    this._releaseWriting(Hold.CONNECTING);
  }

  // ── TLS ──

  /** What its handshake came to; undefined for a plain stream and before that. */
  override get tls(): TlsInfo | undefined {
    return this._shaking || this.closed ? undefined : this._tls?.info();
  }
  /** Of a client: what a later stream resumes with; of TLS 1.3 there is none before data came. */
  get tlsSession(): Uint8Array | undefined {
    return this._shaking || this.closed ? undefined : this._tls?.session();
  }

  /**
   * New keys for what is sent from here on, and the peer is asked for the same with `peer`: for a
   * connection that lives long (RFC 8446 section 4.6.3). OpenSSL does it by itself when it must.
   * ERR_TLS_CONFIG without TLS 1.3, and before the handshake is done.
   */
  updateKeys(options: KeyUpdateOptions = {}): void {
    if (this.closed) return;
    if (!updateKeys(this._shaking ? undefined : this._tls, options)) this.#writer.add();
  }

  /** @internal Begins TLS; what is written meanwhile waits. `connection`: of the ledger, or 0. */
  _secure(plan: TlsPlan, connection: number): this {
    const tls = TlsTransport.open(this.base._id, plan, connection, this.#fd);
    this._tls = tls;
    if (plan.ask !== undefined) this._more.ask = plan.ask;
    this._flags |= SHAKING;
    this._readHeld |= Hold.CONNECTING;
    this._writeHeld |= Hold.CONNECTING;
    const late = () => this.#shaken(plan.timeoutMs, true, true);
    tls.deadline = this._inContext(() => this.base.timer(late, { priority: this.priority }));
    if (!this._refed) tls.deadline.unref();
    tls.deadline.add(plan.timeoutMs);
    this.#shake(false);
    return this;
  }
  /** @internal Whether it is in its handshake, and its events are that. */
  get _shaking(): boolean {
    return (this._flags & SHAKING) !== 0;
  }

  /** `direct`: in a callback of the stream's own. */
  #shake(direct: boolean): void {
    if (HandshakeTurns.of(this.base).mayStep(this)) {
      this.#shakeNow(direct);
      return;
    }
    // Or the socket would tell of itself in every turn.
    this.#readEvent?.del();
    this.#writeEvent?.del();
  }
  /** @internal Its turn has come. */
  _step(): void {
    this.base._runIn(this._reader, () => this.#shakeNow(true));
  }
  #shakeNow(direct: boolean): void {
    const wants = (this._tls as TlsTransport).handshake();
    if (wants === 1) {
      this.#writeEvent?.del();
      this._reader.add();
    } else if (wants === 2) {
      this.#readEvent?.del();
      this.#writer.add();
    } else if (wants === 3) {
      this.#readEvent?.del();
      this.#writeEvent?.del();
      this.#findContext(this._tls as TlsTransport);
    } else this.#shaken(wants, false, direct);
  }
  /** The handshake rests, out of the kernel's set and of the turns; its deadline runs on. */
  async #findContext(tls: TlsTransport): Promise<void> {
    const waits = () => this._tls === tls && this._shaking && !this.closed && !this.base._closed;
    if (await tls.findContext(this._extras?.ask, waits)) this._reader.activate(Ev.READ);
  }
  /** `code`: of the handshake, or the milliseconds in which it was to be done. */
  #shaken(code: number, late: boolean, direct: boolean): void {
    const tls = this._tls as TlsTransport;
    this.#endShaking();
    this.#settled();
    if (code === 0) {
      this.#connected(this.#fd);
      this._secured(direct);
      return;
    }
    const text = `The TLS handshake was not done within ${code} ms`;
    const error = late ? new MultiloopError('ERR_TLS_HANDSHAKE', text) : tls.handshakeError(code);
    // The peer has been sent why, if anything.
    native.sockShutdown(this.#fd);
    const reason = late ? 'timeout' : tls.handshakeFailure(code);
    this._notSecured(late ? { timeout: true, error } : { error }, reason);
  }
  #endShaking(): void {
    const tls = this._tls as TlsTransport;
    this._flags &= ~SHAKING;
    HandshakeTurns.of(this.base).forget(this);
    tls.deadline?.free();
    tls.deadline = undefined;
    this.#readEvent?.del();
    this.#writeEvent?.del();
  }
  /** @internal */
  protected _secured(direct: boolean): void {
    // Most streams are told nothing later than at once, and need nothing to remember it in.
    if (direct) this._tellEvent({ connected: true });
    else this._eventLater({ connected: true });
  }
  /** @internal */
  protected _notSecured(event: BevEvent, _reason: HandshakeFailure): void {
    this._neverOpened(event);
  }

  #readTls(tls: TlsTransport, most: number): void {
    const slab = slabWith(TRANSFER_BYTES);
    const count = tls.recv(slab.used, most);
    if (count > 0) {
      this._limit?.took('read', count);
      this._came(slab, count);
      if (tls.more && this._mayRead()) this.#readEvent?.activate(Ev.READ);
    } else if (count === 0) this._peerEnd(true);
    else if (count === TlsCode.WANTS_OTHER) {
      tls.readWantsWrite = true;
      this.#writer.add();
    } else if (count === -EAGAIN) this._readNothing();
    else this._failed('read', { error: tls.error(count, 'recv') }, true);
  }

  /** @internal */
  override get _name(): string {
    return this.#fd < 0 ? 'The stream' : `The stream on descriptor ${this.#fd}`;
  }

  // ── reading ──

  /** @internal The event whose async context is the stream's. */
  protected get _reader(): EventHandle {
    this.#readEvent ??= this.#event(Ev.READ | Ev.PERSIST, this.#readable);
    return this.#readEvent;
  }
  protected override _inContext<T>(make: () => T): T {
    return this.#readEvent === undefined ? make() : this.#readEvent.runInAsyncScope(make);
  }

  protected override _startReading(timeout: number | undefined): void {
    const reader = this._reader;
    reader.add(timeout);
    if (this._tls?.more) reader.activate(Ev.READ);
  }
  protected override _stopReading(): void {
    if (!this._shaking) this.#readEvent?.del();
  }

  #readable(what: EvMask): void {
    if (this._shaking) {
      this.#shake(true);
      return;
    }
    if (!(what & Ev.READ)) {
      this._failed('read', { timeout: true }, true);
      return;
    }
    if (!this._mayRead()) return;
    const most = this._readRoom(this._settings.maxRead);
    if (most === 0) {
      if (this._mayRead()) this._holdReading(Hold.WATERMARK);
      return;
    }
    this._reads();
    if (this._tls !== undefined) {
      this.#readTls(this._tls, most);
      return;
    }
    const slab = slabWith(TRANSFER_BYTES);
    const count = native.slabRecv(this.#fd, slab.used, most);
    if (count > 0) {
      this._limit?.took('read', count);
      this._came(slab, count);
    } else if (count === 0) this._peerEnd(true);
    else if (count === -EAGAIN) this._readNothing();
    else this._failed('read', { error: systemError(count, 'recv') }, true);
  }

  /** @internal The kernel is about to be asked for bytes. */
  protected _reads(): void {}
  protected _readNothing(): void {}
  /** @internal `count` bytes are where the slab's free memory begins. */
  protected _came(slab: Slab, count: number): void {
    this.input._received(slab, count);
    this._received(count);
  }

  // ── writing ──

  protected override _flush(): void {
    this.#write(false);
  }
  protected override _stopWriting(): void {
    if (!this._shaking) this.#writeEvent?.del();
  }

  /** @internal WRITE is armed: its callback writes what comes. */
  override _queueFlush(): void {
    if (this.#writeEvent === undefined || this.#writeEvent.pending(Ev.WRITE) === 0)
      super._queueFlush();
  }

  #write(direct: boolean): void {
    const { output } = this;
    let wrote = false;
    for (let calls = 0; output.length > 0; calls++) {
      let most = Math.min(output.length, this._settings.maxWrite);
      if (this._limit !== undefined) most = Math.min(most, this._limit.writeRoom());
      if (most <= 0) break;
      const count = calls < FLUSH_CALLS_MAX ? this.#writeOnce(most) : -EAGAIN;
      if (count === undefined) return;
      if (count < 0) {
        this.#armWrite();
        break;
      }
      wrote = true;
    }
    if (wrote) this._wrote(direct);
  }

  /** Bytes that went, or -EAGAIN; undefined after an error, which has been told. */
  #writeOnce(most: number): number | undefined {
    let count: number;
    try {
      const { output, _tls: tls } = this;
      count = tls === undefined ? output._writeTo(this.#fd, most, true) : tls.send(output, most);
    } catch (error) {
      // A file that is shorter than it was, or cannot be read.
      this._failed('write', { error: error as Error }, false);
      return undefined;
    }
    if (count >= 0) {
      this._sent(count);
    } else if (count !== -EAGAIN) {
      const error = this._tls?.error(count, 'send') ?? systemError(count, 'send');
      this._failed('write', { error }, false);
      return undefined;
    }
    return count;
  }

  /** @internal The kernel has taken so many. */
  protected _sent(count: number): void {
    this.bytesWritten += count;
    this._limit?.took('write', count);
  }

  #armWrite(): void {
    this.output._settle();
    this.#writer.add(this._settings.writeTimeout);
  }
  get #writer(): EventHandle {
    this.#writeEvent ??= this._inContext(() => this.#event(Ev.WRITE, this.#writable));
    return this.#writeEvent;
  }

  #writable(what: EvMask): void {
    const tls = this._tls;
    if (this._shaking) {
      this.#shake(true);
      return;
    }
    if (tls?.readWantsWrite) {
      tls.readWantsWrite = false;
      if (this._mayRead()) this._reader.activate(Ev.READ);
    }
    if (!(what & Ev.WRITE)) this._failed('write', { timeout: true }, true);
    else if (this._mayWrite()) this.#write(true);
    else if (tls?.finishing) this._finish();
    if (tls?.rekeying !== undefined && !this.closed) this.#rekey(tls);
  }
  #rekey(tls: TlsTransport): void {
    try {
      if (!tls.updateKeys()) this.#armWrite();
    } catch (error) {
      this._failed('write', { error: error as Error }, true);
    }
  }

  // ── ending ──

  protected override _finish(): void {
    if (this._tls?.finish() === false) {
      this.#writer.add(this._settings.writeTimeout);
      return;
    }
    const status = native.sockShutdown(this.#fd);
    if (status < 0) this._failed('write', { error: systemError(status, 'shutdown') }, false);
  }

  protected override _release(reset: boolean): void {
    this.#settled();
    this.#freeEvents();
    // Not before the output was written: the peer would take what it has for all of it.
    if (!reset && this.outputLength === 0) this._tls?.finish();
    this._tls?.free();
    if (this.#fd >= 0 && this._closesUnder) this._closeFd(this.#fd, reset);
  }
  /** @internal The one place where the socket is closed. */
  protected _closeFd(fd: number, reset: boolean): void {
    if (reset) native.sockResetOnClose(fd);
    native.sysClose(fd);
  }

  #event(mask: EvMask, callback: (what: EvMask) => void): EventHandle {
    const event = this.base._event(this.#fd, mask, callback, this.priority, this);
    return this._refed ? event : event.unref();
  }
  /** @internal */
  override _leave(): void {
    this.#freeEvents();
    this._tls?.free();
    super._leave();
  }
  /** @internal Its descriptor is out of the kernel's set; what is enabled is waited for again. */
  _stay(): void {
    this._updateReading();
    if (this.#writeEvent !== undefined && this.outputLength > 0) this.#armWrite();
  }
  /** @internal Before it leaves: nothing of it is waited for. */
  _unhook(): void {
    this.#readEvent?.del();
    this.#writeEvent?.del();
  }
  #freeEvents(): void {
    if (this._shaking) HandshakeTurns.of(this.base).forget(this);
    this.#readEvent?.free();
    this.#writeEvent?.free();
    this.#readEvent = this.#writeEvent = undefined;
  }
  protected override _timeoutsChanged(): void {
    if (this._settings.readTimeout === undefined) this.#readEvent?.removeTimer();
    if (this._settings.writeTimeout === undefined) this.#writeEvent?.removeTimer();
    else if (this.#writeEvent?.pending(Ev.WRITE)) this.#armWrite();
  }
  protected override _priorityChanged(value: number): void {
    for (const event of [this.#readEvent, this.#writeEvent])
      if (event !== undefined) event.priority = value;
  }
  protected override _refChanged(): void {
    for (const event of [this.#readEvent, this.#writeEvent, this._tls?.deadline]) {
      if (this._refed) event?.ref();
      else event?.unref();
    }
  }
}

/** Refuses what is no stream socket, so that its first read does not. */
export function checkSocket(fd: unknown): number {
  const number = checkInteger('fd', fd, 0, FD_MAX);
  const type = native.sockType(number);
  if (type === SOCK_STREAM) return number;
  if (type < 0) throw systemError(type, 'getsockopt', undefined, `descriptor ${number}`);
  throw new MultiloopError(
    'ERR_NOT_A_STREAM',
    `Descriptor ${number} is a socket of another type than SOCK_STREAM; use Datagram for it`,
  );
}
