// An event: a descriptor and what to wait for on it, or a timer, with the callback to run.
// It belongs to its base's thread.

import { AsyncResource } from 'node:async_hooks';
import { MultiloopError, systemError } from '../errors.js';
import { native } from '../native.js';
import { checkFunction, checkInteger, checkMillis } from '../validate.js';
import { Ev, type EvMask } from './ev.js';
import type { EventBase } from './event_base.js';

export type EventCallback = (what: EvMask, event: EventHandle) => void;

// From errno.h of Linux; the native side answers these three itself, so they are the same anywhere.
const ESTALE = 116;
const EOPNOTSUPP = 95;

const IO = Ev.READ | Ev.WRITE | Ev.CLOSED;

export class EventHandle implements Disposable {
  readonly base: EventBase;
  /** The descriptor, or -1 for a timer or a user event. */
  readonly fd: number;
  readonly mask: EvMask;

  /** @internal */ readonly _id: number;
  /** @internal */ readonly _resource = new AsyncResource('multiloop.event');
  /** @internal */ readonly _callback: EventCallback;
  // Active state, owned by the base's dispatcher: why, whether it still has to be removed or set
  // anew before its callback, the pass in which it ran last, and the queue's links.
  /** @internal */ _active: EvMask = 0;
  /** @internal */ _byHand = false;
  /** @internal */ _ranIn = 0;
  /** @internal */ _next: EventHandle | undefined;
  /** @internal */ _previous: EventHandle | undefined;
  /** @internal */ _freed = false;
  #priority: number;

  /** @internal Use `base.event()` or `base.timer()`. */
  constructor(
    base: EventBase,
    id: number,
    fd: number,
    mask: EvMask,
    callback: EventCallback,
    priority: number,
  ) {
    this.base = base;
    this._id = id;
    this.fd = fd;
    this.mask = mask;
    this._callback = callback;
    this.#priority = priority;
  }

  /** 0 is the most urgent. Throws while the event is active. */
  get priority(): number {
    return this.#priority;
  }
  set priority(value: number) {
    this.#alive();
    checkInteger('priority', value, 0, this.base.priorities - 1);
    if (this._active !== 0)
      throw new MultiloopError(
        'ERR_BAD_MASK',
        'The priority of an active event cannot change; change it in or after its callback',
      );
    this.#priority = value;
  }

  /**
   * Starts waiting. `timeout` in milliseconds; without it a running timer is left alone. A bad
   * descriptor throws the kernel's error (EBADF; EPERM for a file under epoll).
   */
  add(timeout?: number): this {
    this.#alive();
    const micros = timeout === undefined ? -1 : checkMillis('timeout', timeout);
    const status = native.eventAdd(this.base._id, this._id, micros);
    if (status < 0) throw this.#failure(status);
    // Not persistent: what has made it active is the end of this wait too.
    if (this._active !== 0) this._byHand ||= (this.mask & Ev.PERSIST) === 0;
    // Set anew, so a timeout that was waiting for its callback no longer holds; other reasons do.
    if (timeout !== undefined && this._active & Ev.TIMEOUT) this.base._deactivate(this, Ev.TIMEOUT);
    return this;
  }

  /** Stops waiting and cancels an activation that was not delivered yet. Idempotent. */
  del(): void {
    if (this._freed || this.base._closed) return;
    native.eventDel(this.base._id, this._id);
    if (this._active !== 0) this.base._deactivate(this, 0xff);
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

  /** Deletes the event for good. The descriptor stays open: it is the caller's. Idempotent. */
  free(): void {
    if (this._freed) return;
    this._freed = true;
    if (this.base._closed) return;
    if (this._active !== 0) this.base._deactivate(this, 0xff);
    native.eventFree(this.base._id, this._id);
    this.base._forgetHandle(this);
  }
  [Symbol.dispose](): void {
    this.free();
  }

  toString(): string {
    const names = Object.entries(Ev).filter(([, bit]) => this.mask & bit);
    const mask = names.map(([name]) => name).join('|') || 'none';
    return `event(${this.fd < 0 ? 'no descriptor' : `fd ${this.fd}`}, ${mask})`;
  }

  #alive(): void {
    this.base._checkOpen();
    if (this._freed) throw new MultiloopError('ERR_EVENT_FREED', `${this} was freed`);
  }

  #failure(status: number): Error {
    if (status === -ESTALE) return new MultiloopError('ERR_EVENT_FREED', `${this} was freed`);
    if (status !== -EOPNOTSUPP) return systemError(status, 'event_add');
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
  if (mask & Ev.SIGNAL)
    throw new MultiloopError(
      'ERR_BAD_MASK',
      mask & IO
        ? 'Ev.SIGNAL cannot be joined with READ, WRITE or CLOSED'
        : 'Signals are not events of a descriptor; use process.on() for them',
    );
  if (mask & Ev.ET && !(mask & IO))
    throw new MultiloopError('ERR_BAD_MASK', 'Ev.ET needs READ, WRITE or CLOSED beside it');
}
