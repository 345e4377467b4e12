// What a stream remembers of itself. Thousands of streams may wait for their peers, so this takes
// few words of memory: bits of two numbers, and what few streams have, or only for a time, in an
// object that is made when there is some of it.

import { Ev, type EvMask } from '../event/ev.js';
import type { DuplexAdapter } from './duplex_adapter.js';
import type { Notices } from './notices.js';
import type { StreamLimit } from './stream_limit.js';
import type { NameContext, TlsPlan } from './tls_options.js';

export const Flag = {
  DEFER: 1,
  CLOSED: 2,
  /** end() was called. */
  ENDING: 4,
  /** The other side has been told. */
  ENDED: 8,
  /** The peer sends no more. */
  PEER_ENDED: 16,
  FLUSH_QUEUED: 32,
  UNREFED: 64,
  /** What it is on stays open. */
  KEEPS: 128,
  /** The first one that is free for subclasses. */
  SUBCLASS: 256,
} as const;

// In one number: what is enabled, and the reasons that hold it (of `Hold`, 8 bits each).
const ENABLED = 0xff;
const READ_HELD_SHIFT = 8;
const READ_HELD = 0xff << READ_HELD_SHIFT;
const WRITE_HELD_SHIFT = 16;
const WRITE_HELD = 0xff << WRITE_HELD_SHIFT;

class StreamExtras {
  /** Of the stream and of its group. */
  limit: StreamLimit | undefined = undefined;
  /** The Duplex over the stream. */
  adapter: DuplexAdapter | undefined = undefined;
  notices: Notices | undefined = undefined;
  /** Of a socket: what TLS begins with when it has connected. */
  plan: TlsPlan | undefined = undefined;
  /** What to use for a name that the context of its TLS has nothing for; 0: that context. */
  ask: NameContext | undefined = undefined;
  /** Called by close() while it is connecting or in the handshake after that. */
  cancel: (() => void) | undefined = undefined;
  /** Of a connection: bytes of a compression context in what pack() has answered. */
  contextBytes = 0;
}

export abstract class StreamState {
  /** @internal Bits of `Flag`, and of subclasses from `Flag.SUBCLASS` on. */ _flags = 0;
  /** What is enabled, and why it is held nevertheless. */
  #gates: number = Ev.WRITE;
  /** @internal */ _extras: StreamExtras | undefined = undefined;

  /** @internal */
  _is(flag: number): boolean {
    return (this._flags & flag) !== 0;
  }
  protected _mark(flag: number, is: boolean): void {
    if (is) this._flags |= flag;
    else this._flags &= ~flag;
  }
  /** @internal */
  get _enabled(): EvMask {
    return this.#gates & ENABLED;
  }
  set _enabled(mask: EvMask) {
    this.#gates = (this.#gates & ~ENABLED) | mask;
  }
  /** @internal Reasons of `Hold`. */
  get _readHeld(): number {
    return (this.#gates & READ_HELD) >>> READ_HELD_SHIFT;
  }
  set _readHeld(why: number) {
    this.#gates = (this.#gates & ~READ_HELD) | (why << READ_HELD_SHIFT);
  }
  /** @internal */
  get _writeHeld(): number {
    return (this.#gates & WRITE_HELD) >>> WRITE_HELD_SHIFT;
  }
  set _writeHeld(why: number) {
    this.#gates = (this.#gates & ~WRITE_HELD) | (why << WRITE_HELD_SHIFT);
  }
  /** @internal Of this stream and of its group. */
  get _limit(): StreamLimit | undefined {
    return this._extras?.limit;
  }
  set _limit(limit: StreamLimit | undefined) {
    if (limit !== undefined || this._extras !== undefined) this._more.limit = limit;
  }
  /** @internal The Duplex over this stream. */
  get _adapter(): DuplexAdapter | undefined {
    return this._extras?.adapter;
  }
  /** @internal */
  get _contextBytes(): number {
    return this._extras?.contextBytes ?? 0;
  }
  set _contextBytes(count: number) {
    if (count !== 0 || this._extras !== undefined) this._more.contextBytes = count;
  }
  /** @internal To put something there. */
  protected get _more(): StreamExtras {
    this._extras ??= new StreamExtras();
    return this._extras;
  }

  /** @internal Whether bytes are wanted now. */
  _mayRead(): boolean {
    return (
      (this.#gates & (Ev.READ | READ_HELD)) === Ev.READ &&
      (this._flags & (Flag.CLOSED | Flag.PEER_ENDED)) === 0
    );
  }
  /** @internal Whether bytes may leave now. */
  _mayWrite(): boolean {
    return (
      (this.#gates & (Ev.WRITE | WRITE_HELD)) === Ev.WRITE &&
      (this._flags & (Flag.CLOSED | Flag.ENDED)) === 0
    );
  }
}
