// Waits for the first bytes of accepted connections, on the coordinator's base, and leaves them in
// the kernel for the loop that gets the connection (recv(2), MSG_PEEK). Nothing is kept of a
// connection that waits but an event: each look is into one memory for all.
//
//   accepted ─► a look at once ─► enough? ─► handed on
//                     │ no
//                     ▼
//   watched: edge-triggered, a look whenever bytes come
//                     │ after PEEK_WAKES looks; where there is no edge trigger, after the first
//                     ▼
//   by the clock: each look when the connection is half as old again
//
// So a peer that sends a byte at a time costs a few looks, as many as its age has doublings, on any
// backend; and its bytes, once they are there, are seen before it is half as old again.

import { constants } from 'node:os';
import { performance } from 'node:perf_hooks';
import { Ev, type EvMask } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { native } from '../native.js';
import { fdOf } from './connection.js';
import {
  type PeekContext,
  type PeekEnd,
  type Peeked,
  type PeekFacts,
  type PeekSettings,
  readHead,
} from './peek.js';

/** Looks at a connection whenever bytes come; later ones are by the clock. */
const PEEK_WAKES = 16;
/** By the clock, but not sooner than that. */
const PEEK_REST_MS = 1;

const { EAGAIN } = constants.errno;

/** An accepted connection, with what was found out about it when the waiting is over. */
export interface Peekable {
  readonly id: number;
  peeked?: Peeked;
}

/** The group, as its peeker sees it. */
export interface PeekerHost<Parcel extends Peekable> {
  readonly base: EventBase;
  context(id: number): PeekContext;
  /** The waiting for these is over. Called in a callback of the base. */
  handOut(parcels: Parcel[]): void;
  failed(error: Error): void;
}

/** A connection that is waited for. */
class Waiting<Parcel extends Peekable> {
  readonly peeker: Peeker<Parcel>;
  readonly parcel: Parcel;
  readonly began = performance.now();
  /** Fewer bytes than that say nothing new. */
  need = 1;
  /** Bytes that were there when it was looked at last. */
  count = 0;
  /** How often there were bytes. */
  looks = 0;
  /** What the kernel wakes it by, and the timer when it goes by the clock. */
  event: EventHandle | undefined = undefined;
  timer: EventHandle | undefined = undefined;
  constructor(peeker: Peeker<Parcel>, parcel: Parcel) {
    this.peeker = peeker;
    this.parcel = parcel;
  }
}

export class Peeker<Parcel extends Peekable> {
  readonly #host: PeekerHost<Parcel>;
  readonly #settings: PeekSettings;
  readonly #memory: Uint8Array;
  readonly #isEdge: boolean;
  /** What is asked for besides readability, where the backend can. */
  readonly #also: EvMask;
  /** The oldest first, which is the first whose time is over. */
  readonly #waiting = new Set<Waiting<Parcel>>();
  /** Handed on in this pass. */
  readonly #ready: Parcel[] = [];
  readonly #handOut: EventHandle;
  readonly #deadline: EventHandle;
  /** Perhaps by a reader, in the middle of a look. */
  #closed = false;

  constructor(settings: PeekSettings, host: PeekerHost<Parcel>) {
    this.#settings = settings;
    this.#host = host;
    this.#memory = new Uint8Array(settings.bytes);
    const { features } = host.base;
    this.#isEdge = features.has('et');
    const early = features.has('early-close') ? Ev.CLOSED : 0;
    this.#also = Ev.PERSIST | early | (this.#isEdge ? Ev.ET : 0);
    // No event of a connection keeps the process alive, nor do these: the group does or does not.
    this.#handOut = host.base.event(-1, 0, () => this.#flush()).unref();
    this.#deadline = host.base.timer(() => this.#expire()).unref();
  }

  /** New connections; answers those that need not wait. */
  begin(parcels: readonly Parcel[]): Parcel[] {
    return parcels.filter((parcel) => {
      const waiting = new Waiting(this, parcel);
      return this.#look(waiting) || !this.#wait(waiting);
    });
  }

  /** A look without waiting: for one that has come back from a loop that did not get to it. */
  again(parcel: Parcel): void {
    this.#look(new Waiting(this, parcel), 'ms');
  }

  /** Has a last look at each, and hands them all on. */
  hurry(): void {
    for (const waiting of [...this.#waiting]) {
      this.#look(waiting, 'ms');
      this.#end(waiting);
    }
    this.#flush();
  }

  /** Ends the waiting for all; answers whom it was for. */
  close(): Parcel[] {
    this.#closed = true;
    const parcels = this.#ready.splice(0);
    for (const waiting of this.#waiting) {
      this.#release(waiting);
      parcels.push(waiting.parcel);
    }
    this.#waiting.clear();
    this.#handOut.free();
    this.#deadline.free();
    return parcels;
  }

  // ── one connection ──

  /** Whether it is waited for; else it is to be handed on as it is. */
  #wait(waiting: Waiting<Parcel>): boolean {
    if (this.#closed) return false;
    if (this.#waiting.size >= this.#settings.connections) this.#makeRoom();
    try {
      this.#watch(waiting, Ev.READ | this.#also);
    } catch (error) {
      // select() has no room for a descriptor with a large number, for one.
      this.#release(waiting);
      this.#look(waiting, 'error');
      this.#host.failed(error as Error);
      return false;
    }
    this.#waiting.add(waiting);
    if (this.#waiting.size === 1) this.#deadline.add(this.#settings.ms);
    return true;
  }

  #watch(waiting: Waiting<Parcel>, mask: EvMask): void {
    const { base } = this.#host;
    const fd = fdOf(waiting.parcel.id);
    waiting.event = base._event(fd, mask, wake, base.priorities >> 1, waiting);
    waiting.event.unref().add();
  }

  /** @internal Bytes have come, or the peer's end; or it is time to look. */
  _wake(waiting: Waiting<Parcel>, what: EvMask): void {
    const reason = what & Ev.CLOSED ? 'end' : undefined;
    const isOver = this.#look(waiting, reason);
    if (this.#closed) return;
    if (isOver) this.#end(waiting);
    else if (waiting.looks > 0) this.#stay(waiting);
  }

  /** It has sent something, and not enough. */
  #stay(waiting: Waiting<Parcel>): void {
    if (waiting.timer === undefined) {
      if (this.#isEdge && waiting.looks < PEEK_WAKES) return;
      waiting.timer = this.#host.base.timer(() => this._wake(waiting, 0)).unref();
      // The peer's end is worth knowing at once, and comes once.
      waiting.event?.free();
      waiting.event = undefined;
      if (this.#also & Ev.CLOSED) this.#watch(waiting, this.#also);
    }
    const age = performance.now() - waiting.began;
    waiting.timer.add(Math.max(PEEK_REST_MS, age / 2));
  }

  /**
   * Looks at what is there. Whether that is enough, or `reason` says that the waiting is over: then
   * the connection has what the policy is to see of it.
   */
  #look(waiting: Waiting<Parcel>, reason?: PeekEnd): boolean {
    const { parcel } = waiting;
    const fd = fdOf(parcel.id);
    const enough = (head: Uint8Array, peek: PeekEnd, found?: PeekFacts): true => {
      parcel.peeked = { ...found, head: head.slice(), peek };
      return true;
    };
    const count = native.sockPeek(fd, this.#memory);
    const there = this.#memory.subarray(0, Math.max(0, count));
    if (count === -EAGAIN) return reason !== undefined && enough(there, reason);
    // Of an error that was pending, which is told once, the loop sees an end too.
    if (count <= 0) return enough(there, 'end');
    waiting.looks++;
    // Bytes hide an error from recv(), and it may be what the kernel has woken us for.
    const isDead = count === waiting.count && native.sockError(fd) < 0;
    const over = isDead ? 'end' : reason;
    waiting.count = count;
    if (count < waiting.need && over === undefined) return false;
    const { verdict, found } = this.#read(parcel.id, there);
    if (typeof verdict !== 'number') return enough(there, verdict, found);
    waiting.need = verdict;
    if (Math.max(verdict, count + 1) > this.#settings.bytes) return enough(there, 'bytes', found);
    return over !== undefined && enough(there, over, found);
  }

  #read(id: number, there: Uint8Array): { verdict: PeekEnd | number; found: PeekFacts } {
    const { readers, bytes } = this.#settings;
    if (readers.length === 0)
      return { verdict: there.length === bytes ? 'done' : bytes, found: {} };
    try {
      return readHead(readers, there, () => this.#host.context(id));
    } catch (error) {
      this.#host.failed(error instanceof Error ? error : new Error(`thrown: ${String(error)}`));
      return { verdict: 'error', found: {} };
    }
  }

  // ── the end of the waiting ──

  #end(waiting: Waiting<Parcel>): void {
    if (this.#closed) return;
    this.#waiting.delete(waiting);
    this.#release(waiting);
    this.#ready.push(waiting.parcel);
    // Those of one pass are handed on together, and each loop is woken once.
    if (this.#ready.length === 1) this.#handOut.activate(Ev.READ);
  }

  #flush(): void {
    this.#host.handOut(this.#ready.splice(0));
  }

  /** Takes all that the coordinator's base has of it away: a loop is to have it next. */
  #release(waiting: Waiting<Parcel>): void {
    waiting.event?.free();
    waiting.timer?.free();
    native.fdForget(this.#host.base._id, fdOf(waiting.parcel.id));
  }

  /** The oldest is handed on: who has had the least time yet is the likeliest to send still. */
  #makeRoom(): void {
    const [oldest] = this.#waiting;
    this.#look(oldest, 'connections');
    this.#end(oldest);
  }

  #expire(): void {
    const now = performance.now();
    for (const waiting of this.#waiting) {
      const left = waiting.began + this.#settings.ms - now;
      if (left > 0) {
        this.#deadline.add(left);
        return;
      }
      this.#look(waiting, 'ms');
      this.#end(waiting);
    }
  }
}

/** One function for the events of all connections; `this` is the one that waits. */
function wake<Parcel extends Peekable>(this: Waiting<Parcel>, what: EvMask): void {
  this.peeker._wake(this, what);
}
