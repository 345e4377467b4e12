// An event: a descriptor or a signal to wait for, or a timer, with the callback to run.
// It belongs to its base's thread.

import { AsyncResource } from 'node:async_hooks';
import { constants } from 'node:os';
import { MultiloopError, systemError } from '../errors.js';
import { native } from '../native.js';
import { checkFunction, checkInteger, checkMillis, invalidValue } from '../validate.js';
import { CommonQueue, type CommonTimeout } from './common_timeout.js';
import { keyText, maskText } from './dump.js';
import { Ev, type EvMask } from './ev.js';
import type { EventBase } from './event_base.js';
import { signalNumber } from './signals.js';

export type EventCallback = (what: EvMask, event: EventHandle) => void;

// What the native side answers of itself, besides what the kernel says.
const { ESTALE, EOPNOTSUPP, EPROTOTYPE } = constants.errno;

// The mask, the priority (PRIORITIES_MAX is 256), and two flags.
const MASK = 0xff;
const PRIORITY_SHIFT = 8;
const PRIORITY = 0xff << PRIORITY_SHIFT;
const BY_HAND = 1 << 16;
const FREED = 1 << 17;

interface Rare {
  finalizer?: () => void;
  callback?: EventCallback;
  freedAt?: Error;
  calls?: number;
}

const IO = Ev.READ | Ev.WRITE | Ev.CLOSED;

/** Each callback runs in its event's async context, so an event is a resource of Node's. */
export class EventHandle extends AsyncResource implements Disposable {
  // The fields that a dispatch touches come first, so that they share lines of the processor's
  // cache: with a million timers that fire in any order, each line is fetched from memory.
  /** @internal */ readonly _id: number;
  // Active state, owned by the base's dispatcher: why, the pass in which it ran last, and the
  // queue's links.
  /** @internal */ _active: EvMask = 0;
  /** What it is, in one number: an idle connection has an event, and there are thousands. */
  #bits: number;
  /** @internal */ _ranIn = 0;
  /** @internal */ _next: EventHandle | undefined = undefined;
  /** @internal */ _previous: EventHandle | undefined = undefined;
  /** @internal What the dispatcher calls: the callback, or the finalizer. */
  _callback: EventCallback;
  /** @internal `this` in there. A stream's events share its methods: no closure for each. */
  readonly _owner: object | undefined;

  readonly base: EventBase;
  /** The descriptor, the number of a signal, or -1 for a timer or a user event. */
  readonly fd: number;
  // What few events have: the end that was asked for, in debug mode where it was freed, and how
  // often a signal came.
  #rare: Rare | undefined;

  /** @internal Use `base.event()` or `base.timer()`. */
  constructor(
    base: EventBase,
    id: number,
    fd: number,
    mask: EvMask,
    callback: EventCallback,
    priority: number,
    owner: object | undefined,
  ) {
    super('multiloop.event');
    this._id = id;
    this.#bits = mask | (priority << PRIORITY_SHIFT);
    this._callback = callback;
    this._owner = owner;
    this.base = base;
    this.fd = fd;
  }

  get mask(): EvMask {
    return this.#bits & MASK;
  }
  /** @internal */
  get _priority(): number {
    return (this.#bits & PRIORITY) >>> PRIORITY_SHIFT;
  }
  /** @internal It has still to be removed or set anew before its callback. The dispatcher's. */
  get _byHand(): boolean {
    return (this.#bits & BY_HAND) !== 0;
  }
  set _byHand(byHand: boolean) {
    if (byHand) this.#bits |= BY_HAND;
    else this.#bits &= ~BY_HAND;
  }
  /** @internal */
  get _freed(): boolean {
    return (this.#bits & FREED) !== 0;
  }
  /** @internal How often its signal came. The dispatcher's. */
  get _calls(): number {
    return this.#rare?.calls ?? 0;
  }
  set _calls(calls: number) {
    if (calls > 0) this.#rare = { ...this.#rare, calls };
    else if (this.#rare !== undefined) this.#rare.calls = 0;
  }

  /** What `base.event()` was given. */
  get callback(): EventCallback {
    return this.#rare?.callback ?? this._callback;
  }

  /** 0 is the most urgent. Throws while the event is active. */
  get priority(): number {
    return this._priority;
  }
  set priority(value: number) {
    this.#alive();
    checkInteger('priority', value, 0, this.base.priorities - 1);
    if (this._active !== 0)
      throw new MultiloopError(
        'ERR_BAD_MASK',
        'The priority of an active event cannot change; change it in or after its callback',
      );
    this.#bits = (this.#bits & ~PRIORITY) | (value << PRIORITY_SHIFT);
  }

  /**
   * Starts waiting. `timeout` in milliseconds, or one of `base.commonTimeout()`; without it a
   * running timer is left alone. A descriptor that this base has not met yet throws the kernel's
   * error (EBADF; EPERM for a file under epoll); changes of one that it knows are told to the
   * kernel before the next wait, and if it is closed by then the event becomes active, so that its
   * callback meets the error. Edge and level-triggered events on one descriptor: ERR_BAD_MASK.
   */
  add(timeout?: number | CommonTimeout): this {
    this.#alive();
    const code = timeout === undefined ? -1 : this.#micros(timeout);
    const status = native.eventAdd(this.base._id, this._id, code);
    if (status < 0) throw this.#failure(status);
    if (this._active === 0) return this;
    // Not persistent: what has made it active is the end of this wait too.
    this._byHand ||= (this.mask & Ev.PERSIST) === 0;
    // Set anew, so a timeout that was waiting for its callback no longer holds; other reasons do.
    if (timeout !== undefined && this._active & Ev.TIMEOUT)
      this.base._dispatcher.deactivate(this, Ev.TIMEOUT);
    return this;
  }

  /** Stops waiting and cancels an activation that was not delivered yet. Idempotent. */
  del(): void {
    if (this._freed || this.base._closed || this.#rare?.finalizer !== undefined) return;
    native.eventDel(this.base._id, this._id);
    this._calls = 0;
    if (this._active !== 0) this.base._dispatcher.deactivate(this, 0xff);
  }

  /** Makes the event active by hand: its callback runs in the dispatch pass, never in here. */
  activate(what: EvMask): void {
    this.#alive();
    checkInteger('what', what, 1, 0xff);
    // What is active already was removed or set anew when it became so.
    if (this._active === 0) this._byHand = true;
    this.base._activate(this, what);
  }

  /** Which of `mask` the event waits for or is active for. */
  pending(mask: EvMask): EvMask {
    this.#alive();
    checkInteger('mask', mask, 0, 0xff);
    return (this._waitsFor() | this._active) & mask;
  }

  /** @internal `pending` without what it is active for. */
  _waitsFor(): EvMask {
    return native.eventPending(this.base._id, this._id);
  }

  /** Milliseconds until the timeout, or undefined without one. */
  get remaining(): number | undefined {
    if (this._freed || this.base._closed) return undefined;
    const micros = native.eventRemaining(this.base._id, this._id);
    return micros < 0 ? undefined : micros / 1000;
  }

  /** Drops the timeout and keeps waiting for the descriptor. */
  removeTimer(): void {
    this.#alive();
    native.eventRemoveTimer(this.base._id, this._id);
  }

  /** An added event keeps the process alive; after unref() it does not. */
  unref(): this {
    this.#alive();
    native.eventRef(this.base._id, this._id, false);
    return this;
  }
  ref(): this {
    this.#alive();
    native.eventRef(this.base._id, this._id, true);
    return this;
  }

  /**
   * @internal From the next add() on: other bases wait for the descriptor too, and the kernel may
   * wake any one of them (native/core/backend.h). It is the descriptor's only event on this base.
   */
  _wakeAlone(): void {
    native.eventAlone(this.base._id, this._id);
  }

  /**
   * Frees the event in the dispatch pass, at its priority, and calls `callback` then: once, and
   * never while the event's own callback runs. Until then no activation of it is delivered, and
   * add() and activate() throw ERR_EVENT_FREED. When the base is closed first, it is called too.
   */
  finalize(callback: () => void = () => undefined): void {
    this.#alive();
    checkFunction('callback', callback);
    this.del();
    this.#rare = { ...this.#rare, finalizer: callback, callback: this._callback };
    this._callback = () => {
      this.#release();
      callback();
    };
    this.base._activate(this, Ev.FINALIZE);
  }

  /**
   * Deletes the event for good, at any moment, its own callback included. The descriptor stays
   * open: it is the caller's. Idempotent; one that is being finalized frees itself.
   */
  free(): void {
    if (this.#rare?.finalizer === undefined) this.#release();
  }
  [Symbol.dispose](): void {
    this.free();
  }

  override toString(): string {
    return `event(${keyText(this.fd, this.mask)}, ${maskText(this.mask)})`;
  }

  /** @internal The base is closed: answers the finalizer that has not run yet. */
  _abandon(): (() => void) | undefined {
    const finalizer = this._freed ? undefined : this.#rare?.finalizer;
    this.#bits |= FREED;
    return finalizer;
  }

  #release(): void {
    if (this._freed) return;
    this.#bits |= FREED;
    this._calls = 0;
    const { base } = this;
    if (base._closed) return;
    if (base._debug) this.#rare = { ...this.#rare, freedAt: new Error('It was freed here') };
    if (this._active !== 0) base._dispatcher.deactivate(this, 0xff);
    native.eventFree(base._id, this._id);
    base._dispatcher.forget(this);
  }

  #alive(): void {
    this.base._checkOpen();
    if (this._freed)
      throw new MultiloopError('ERR_EVENT_FREED', `${this} was freed`, {
        cause: this.#rare?.freedAt,
      });
    if (this.#rare?.finalizer !== undefined)
      throw new MultiloopError('ERR_EVENT_FREED', `${this} is being finalized`);
  }

  #micros(timeout: number | CommonTimeout): number {
    if (!(timeout instanceof CommonQueue)) return checkMillis('timeout', timeout);
    if (timeout._base === this.base) return timeout._code;
    throw invalidValue('timeout', 'is a common timeout of another base', timeout);
  }

  #failure(status: number): Error {
    if (status === -ESTALE) return new MultiloopError('ERR_EVENT_FREED', `${this} was freed`);
    if (status === -EPROTOTYPE)
      return new MultiloopError(
        'ERR_BAD_MASK',
        `${this} cannot join the events of its descriptor: all of them must have Ev.ET, or none`,
      );
    if (status !== -EOPNOTSUPP) return systemError(status, 'event_add', undefined, `${this}`);
    return new MultiloopError(
      'ERR_BAD_MASK',
      `The ${this.base.backend} backend cannot wait for ${this}: ` +
        `it has only ${[...this.base.features].join(', ') || 'no features'}`,
    );
  }
}

/** Refuses masks that make no sense, before anything is made of them. */
export function checkMask(fd: number, mask: EvMask, callback: EventCallback): void {
  checkInteger('fd', fd, -1, 2 ** 31 - 1);
  checkInteger('mask', mask, 0, 0xff);
  checkFunction('callback', callback);
  if (mask & Ev.SIGNAL && mask & IO)
    throw new MultiloopError(
      'ERR_BAD_MASK',
      'Ev.SIGNAL cannot be joined with READ, WRITE or CLOSED',
    );
  if (mask & Ev.SIGNAL) signalNumber(fd);
  if (mask & Ev.ET && !(mask & IO))
    throw new MultiloopError('ERR_BAD_MASK', 'Ev.ET needs READ, WRITE or CLOSED beside it');
}
