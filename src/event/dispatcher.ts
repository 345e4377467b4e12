// The dispatcher: which events are active and what one pass runs. The native side writes what it
// found to the page; from there on active state is owned here and nowhere else. The order of a
// pass, the priority rule and the limits are libevent's (event.c, event_process_active).

import { native } from '../native.js';
import { checkInteger, checkMillis, checkObject } from '../validate.js';
import { ActiveQueue } from './active_queue.js';
import { Ev, type EvMask } from './ev.js';
import type { EventHandle } from './event_handle.js';
import { type EventBaseOptions, type PassEnd, PRIORITIES_MAX } from './options.js';
import { CALLS_SHIFT, MESSAGE_NUMBERS, Num, Watching, Word } from './page.js';
import { drainTicks } from './ticks.js';
import type { Watchers } from './watchers.js';

/**
 * Callbacks in one pass beyond those that were active when it began; what callbacks make active
 * after that runs in the next one, after a poll.
 */
const EXTRA_CALLBACKS = 1_024;
/** Places of what is called at the end of a pass that the next one finds. */
const PASS_ENDS_KEPT_MAX = 1_024;
const EVENT_SLOTS = 2 ** 21;
const MASK_BITS = 0xff;

/** When a pass polls again although events are active: `maxDispatch`, in numbers. */
export interface DispatchLimits {
  micros: number;
  callbacks: number;
  /** Priorities below this number (more urgent ones) have no limit. */
  minPriority: number;
}

export function dispatchLimits(given: EventBaseOptions['maxDispatch']): DispatchLimits {
  if (given === undefined) return { micros: Infinity, callbacks: Infinity, minPriority: 1 };
  checkObject('options.maxDispatch', given);
  const { intervalMs, callbacks, minPriority } = given;
  const name = 'options.maxDispatch';
  return {
    micros: intervalMs === undefined ? Infinity : checkMillis(`${name}.intervalMs`, intervalMs),
    callbacks: callbacks === undefined ? Infinity : checkInteger(`${name}.callbacks`, callbacks, 1),
    minPriority: checkInteger(`${name}.minPriority`, minPriority ?? 1, 0, PRIORITIES_MAX - 1),
  };
}

export class Dispatcher {
  /** By slot, the native side's number of an event. */
  readonly handles: (EventHandle | undefined)[] = [];
  /** The runtime's: reads one message on the page; its record begins at `at`. */
  onMessage: ((index: number, numbers: Float64Array, at: number) => void) | undefined;

  /** Callbacks that wait for the next pass. */
  active = 0;
  inPass = false;
  /** loopSync's: no tick or promise runs inside. */
  sync = false;
  /** Whether the last pass has run a callback. */
  ranCallback = false;
  breakAsked = false;
  continueAsked = false;
  /** The loop is over before its pass is: the call that runs now is the last one. */
  leaveAsked = false;
  closed = false;
  /** The event whose callback runs. */
  running: EventHandle | undefined;

  readonly #base: number;
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #queues: ActiveQueue[];
  readonly #limits: DispatchLimits;
  readonly #watchers: Watchers;
  readonly #debug: boolean;
  /** The first `#passEndCount` of them; an array that is emptied is allocated anew in each pass. */
  #passEnds: (PassEnd | undefined)[] = [];
  #passEndCount = 0;
  #messages = 0; // on the page, undelivered
  #current = -1; // priority of the callback that runs
  #passes = 0;

  constructor(
    base: number,
    page: { words: Int32Array; numbers: Float64Array },
    priorities: number,
    limits: DispatchLimits,
    watchers: Watchers,
    debug: boolean,
  ) {
    this.#base = base;
    this.#words = page.words;
    this.#numbers = page.numbers;
    this.#queues = Array.from({ length: priorities }, () => new ActiveQueue());
    this.#limits = limits;
    this.#watchers = watchers;
    this.#debug = debug;
  }

  // ── active state ──

  keep(event: EventHandle): void {
    this.handles[event._id % EVENT_SLOTS] = event;
  }
  forget(event: EventHandle): void {
    this.handles[event._id % EVENT_SLOTS] = undefined;
  }

  activate(event: EventHandle, what: EvMask): void {
    if (event._active === 0) {
      this.#queues[event._priority].push(event);
      this.active++;
      this.#grown();
      // A more urgent event than the one that runs goes first (libevent's inversion guard).
      if (event._priority < this.#current) this.continueAsked = true;
    }
    event._active |= what;
  }

  deactivate(event: EventHandle, what: EvMask): void {
    event._active &= ~what;
    if ((event._active & Ev.SIGNAL) === 0) event._calls = 0;
    if (event._active !== 0) return;
    event._byHand = false;
    this.#queues[event._priority].remove(event);
    this.#words[Word.ACTIVE] = --this.active;
  }

  /** Activates by hand what waits for any of `mask` among the events that match; how many. */
  activateWaiting(matches: (event: EventHandle) => boolean, mask: EvMask): number {
    let count = 0;
    for (const event of this.handles) {
      const what = event !== undefined && matches(event) ? event._waitsFor() & mask : 0;
      if (what === 0) continue;
      event?.activate(what);
      count++;
    }
    return count;
  }

  /** Calls `passEnd` when this pass is over. False outside a pass: do it now. */
  atPassEnd(item: PassEnd): boolean {
    if (!this.inPass) return false;
    this.#passEnds[this.#passEndCount++] = item;
    return true;
  }

  /** The base is closed. Finalizers that did not come to run are called after this callback. */
  close(finalize: boolean): void {
    this.closed = true;
    for (const event of this.handles.splice(0)) {
      const finalizer = event?._abandon();
      if (finalizer !== undefined && finalize)
        process.nextTick(() => event?.runInAsyncScope(finalizer));
    }
  }

  // ── a pass ──

  /** Throws what a callback throws, after all that the pass has begun is finished. */
  pass(): void {
    this.inPass = true;
    this.#passes++;
    this.continueAsked = this.leaveAsked = this.ranCallback = false;
    try {
      this.#collect();
      const failed = this.#words[Word.WATCHING] & Watching.CHECK ? this.#check() : undefined;
      if (this.#messages > 0 && !this.closed) this.#deliverMessages();
      if (failed !== undefined) throw failed.error;
      // A check watcher or a message may have ended the loop: then no callback runs any more.
      if (!this.breakAsked && !this.closed) this.#runFirstQueue();
    } finally {
      this.#current = -1;
      this.running = undefined;
      if (this.#passEndCount > 0) this.#endPass();
      this.inPass = false;
      this.#words[Word.TIME_CACHED] = 0;
      if (this.#debug && !this.closed) this.check();
    }
  }

  /** Moves every record of the ring into its priority's queue, joining what is active already. */
  #collect(): void {
    const words = this.#words;
    const count = words[Word.READY];
    words[Word.READY] = 0;
    this.#messages += words[Word.MESSAGES];
    words[Word.MESSAGES] = 0;
    if (count === 0) return;
    for (let i = 0, at: number = Word.RING; i < count; i++, at += 2) {
      const event = this.handles[words[at] % EVENT_SLOTS];
      if (event === undefined || event._id !== words[at]) continue;
      if (event._active === 0) {
        this.#queues[event._priority].push(event);
        this.active++;
      }
      event._byHand = false;
      const what = words[at + 1];
      event._active |= what & MASK_BITS;
      if (what & Ev.SIGNAL) event._calls += what >>> CALLS_SHIFT;
    }
    this.#grown();
  }

  #grown(): void {
    const words = this.#words;
    const { active } = this;
    words[Word.ACTIVE] = active;
    if (active > words[Word.ACTIVE_MAX]) words[Word.ACTIVE_MAX] = active;
    const added = words[Word.ADDED] + active;
    if (added > words[Word.ADDED_MAX]) words[Word.ADDED_MAX] = added;
  }

  /** Check watchers run before timers expire, so theirs that are due at once run in this pass. */
  #check(): { error: unknown } | undefined {
    const failed = this.#watchers.runCheck(this.sync);
    if (this.closed) return failed;
    native.baseExpire(this.#base);
    this.#collect();
    return failed;
  }

  #deliverMessages(): void {
    const count = this.#messages;
    if (this.onMessage === undefined) return;
    this.#messages = 0;
    this.ranCallback = true;
    for (let i = 0, at: number = Num.INBOX; i < count; i++, at += MESSAGE_NUMBERS) {
      try {
        this.onMessage(i, this.#numbers, at);
      } catch (error) {
        // The others are on the page for this pass only, so they cannot wait for the next.
        this.#endPass();
        native.reportException(error);
      }
    }
  }

  /**
   * Strict priority: only the first queue that is not empty runs, then the base polls again. It
   * does so too before an event runs that has run in this pass: whatever activates itself for ever
   * keeps nothing else waiting.
   */
  #runFirstQueue(): void {
    for (let priority = 0; priority < this.#queues.length; priority++) {
      if (this.#queues[priority].first === undefined) continue;
      this.#current = priority;
      if (priority < this.#limits.minPriority) this.#runQueue(priority, Infinity, Infinity);
      else this.#runQueue(priority, this.#limits.callbacks, this.#limits.micros);
      return;
    }
  }

  /** libevent looks at its limits after a callback, so one runs always. */
  #runQueue(priority: number, callbacks: number, micros: number): void {
    const queue = this.#queues[priority];
    const limit = Math.min(this.active + EXTRA_CALLBACKS, callbacks);
    const end = this.#numbers[Num.NOW] + micros;
    for (let ran = 0; ran < limit; ran++) {
      const event = queue.first;
      if (event === undefined || event._ranIn === this.#passes) return;
      event._ranIn = this.#passes;
      this.#runCallback(queue, event);
      if (this.#over() || this.continueAsked) return;
      if (end === Infinity) continue;
      native.baseUpdateTime(this.#base);
      if (this.#numbers[Num.NOW] >= end) return;
    }
  }

  #over(): boolean {
    return this.breakAsked || this.leaveAsked || this.closed;
  }

  #runCallback(queue: ActiveQueue, event: EventHandle): void {
    const what = event._active;
    queue.remove(event);
    event._active = 0;
    this.#words[Word.ACTIVE] = --this.active;
    this.ranCallback = true;
    // What the kernel or the clock made active was removed or set anew by the native side.
    const { _byHand: byHand } = event;
    event._byHand = false;
    if ((event.mask & (Ev.SIGNAL | Ev.PERSIST)) === Ev.SIGNAL)
      native.eventBeginSignal(this.#base, event._id);
    else if (byHand && event.mask & Ev.PERSIST) native.eventRearm(this.#base, event._id);
    else if (byHand) native.eventDel(this.#base, event._id);
    this.running = event;
    if (what & Ev.SIGNAL) {
      this.#runSignal(event, what);
      return;
    }
    event.runInAsyncScope(event._callback, event._owner, what, event);
    if (!this.sync) drainTicks();
  }

  /**
   * A signal that came several times calls a persistent event as often, until it is deleted. One
   * that is not persistent was deleted before its first call.
   */
  #runSignal(event: EventHandle, what: EvMask): void {
    if (event._calls === 0 || !(event.mask & Ev.PERSIST)) event._calls = 1;
    let told = what;
    try {
      do {
        event._calls--;
        event.runInAsyncScope(event._callback, undefined, told, event);
        if (!this.sync) drainTicks();
        told = Ev.SIGNAL;
      } while (event._calls > 0 && !this.#over());
    } finally {
      // An end or an exception puts the rest off and loses none.
      if (event._calls > 0 && !this.closed) this.activate(event, Ev.SIGNAL);
    }
  }

  /** What the pass wrote leaves now, also when it ends by an exception. */
  #endPass(): void {
    const items = this.#passEnds;
    // passEnd() may add to the list; it runs no callback of the user.
    for (let i = 0; i < this.#passEndCount; i++) {
      const item = items[i];
      items[i] = undefined;
      item?.passEnd();
    }
    this.#passEndCount = 0;
    if (items.length > PASS_ENDS_KEPT_MAX) this.#passEnds = [];
  }

  /** Debug mode: walks both halves and stops at the first contradiction. */
  check(): void {
    native.baseCheck(this.#base);
    let active = 0;
    for (const [priority, queue] of this.#queues.entries()) {
      for (let event = queue.first; event !== undefined; event = event._next) {
        active++;
        const { _next: next } = event;
        const sound =
          event._active !== 0 &&
          event._priority === priority &&
          this.handles[event._id % EVENT_SLOTS] === event &&
          (next === undefined || next._previous === event);
        if (!sound) throw new Error(`multiloop: internal invariant broken: queue of ${event}`);
      }
    }
    if (active !== this.active || active !== this.#words[Word.ACTIVE])
      throw new Error(`multiloop: internal invariant broken: ${active} active events`);
  }
}
