// The event base of this thread: TypeScript's half. The native half waits and writes records to
// the page; this half owns which events are active, in which order they run, and when the loop
// ends. The order of a turn, the priority rule and the rules of the loop are libevent's.

import { isMainThread } from 'node:worker_threads';
import { MultiloopError, systemError } from '../errors.js';
import { native } from '../native.js';
import { checkInteger, checkMillis, checkObject, checkOneOf, checkSignal } from '../validate.js';
import { ActiveQueue } from './active_queue.js';
import { backendReports, chooseBackend } from './backends.js';
import {
  type BackendName,
  type BackendReport,
  Ev,
  type EvMask,
  type Feature,
  LoopFlag,
  type LoopResult,
  type WakerName,
} from './ev.js';
import { checkMask, type EventCallback, EventHandle } from './event_handle.js';
import { once, wait } from './one_shot.js';
import type { EventBaseOptions, EventCounts, PassEnd } from './options.js';
import { Found, MESSAGE_NUMBERS, Num, PAGE_BYTES, Reason, Word } from './page.js';
import { drainTicks } from './ticks.js';
import { WAKER_NAMES } from './wakers.js';

/** Bytes that one read takes at most: the memory that the base's streams read into. */
const SCRATCH_BYTES = 64 * 1024;
/**
 * Callbacks in one pass beyond those that were active when it began; what callbacks make active
 * after that runs in the next one, after a poll.
 */
const EXTRA_CALLBACKS = 1_024;
/** How long loopSync stays below JavaScript at most, so that terminate() ends it: 100 ms. */
const SYNC_WAIT_MICROS = 100_000;

const PRIORITIES_MAX = 256;
const EVENT_SLOTS = 2 ** 21;
const EBUSY = 16;

// A base that nobody closed gives its descriptors back when it is collected. A running one is
// held by the native side and never gets here.
const abandoned = new FinalizationRegistry<number>((id) => native.baseClose(id));

interface Run {
  flags: number;
  resolve(result: LoopResult): void;
  reject(error: Error): void;
}

export class EventBase implements Disposable {
  /** Preferred first, each one that is not available with its reason. Any thread. */
  static backends(): BackendReport[] {
    return backendReports();
  }

  readonly backend: BackendName;
  readonly waker: WakerName;
  readonly features: ReadonlySet<Feature>;
  readonly priorities: number;

  /** @internal */ readonly _id: number;
  /** @internal */ _closed = false;
  /** @internal What the last read of a stream of this base put there. */
  readonly _scratch: Uint8Array;
  /** @internal The runtime's: reads one message on the page; its record begins at `at`. */
  _onMessage: ((index: number, numbers: Float64Array, at: number) => void) | undefined;

  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #queues: ActiveQueue[];
  readonly #handles: (EventHandle | undefined)[] = [];
  readonly #preferBase: boolean;
  readonly #debug: boolean;
  readonly #passEnds: PassEnd[] = [];
  readonly #waits = new Set<(error: Error) => void>();
  readonly #made = performance.now();

  #active = 0;
  #messagesUndelivered = 0;
  #current = -1; // priority of the callback that runs
  #inPass = false;
  #passes = 0;
  #sync = false;
  #ranCallback = false;
  #run: Run | undefined;
  #exitAsked = false;
  #breakAsked = false;
  #continueAsked = false;
  #gotExit = false;
  #gotBreak = false;

  constructor(options: EventBaseOptions = {}) {
    checkObject('options', options);
    const report = chooseBackend(options);
    this.backend = report.name;
    this.features = new Set(report.features);
    this.priorities = checkInteger(
      'options.priorities',
      options.priorities ?? 1,
      1,
      PRIORITIES_MAX,
    );
    this.waker = checkOneOf('options.waker', options.waker ?? WAKER_NAMES[0], WAKER_NAMES);
    const drives = ['base', 'libuv'] as const;
    this.#preferBase =
      checkOneOf('options.drive', options.drive ?? defaultDrive(), drives) === 'base';
    this.#debug = options.debug ?? process.env.MULTILOOP_DEBUG === '1';
    const page = new ArrayBuffer(PAGE_BYTES);
    const scratch = new ArrayBuffer(SCRATCH_BYTES);
    this.#words = new Int32Array(page);
    this.#numbers = new Float64Array(page);
    this._scratch = new Uint8Array(scratch);
    this.#queues = Array.from({ length: this.priorities }, () => new ActiveQueue());
    this._id = native.baseNew(this.backend, page, scratch, [page, scratch]);
    if (this._id < 0) throw systemError(this._id, 'event_base_new');
    abandoned.register(this, this._id, this);
  }

  // ── events ──

  /** An event on `fd`; -1 makes a user event, which only `activate` and a timeout make active. */
  event(
    fd: number,
    mask: EvMask,
    callback: EventCallback,
    options: { priority?: number } = {},
  ): EventHandle {
    this._checkOpen();
    checkMask(fd, mask, callback);
    checkObject('options', options);
    const middle = this.priorities >> 1;
    const priority = checkInteger(
      'options.priority',
      options.priority ?? middle,
      0,
      this.priorities - 1,
    );
    const id = native.eventNew(this._id, fd, mask);
    if (id < 0) throw systemError(id, 'event_new');
    const event = new EventHandle(this, id, fd, mask, callback, priority);
    this.#handles[id % EVENT_SLOTS] = event;
    return event;
  }

  /** A timer; `add(ms)` starts it. With `persist` it repeats from the time it was due. */
  timer(
    callback: EventCallback,
    options: { persist?: boolean; priority?: number } = {},
  ): EventHandle {
    return this.event(-1, options?.persist === true ? Ev.PERSIST : 0, callback, options);
  }

  /** Runs `callback` once, then forgets it. There is no handle, so it cannot be cancelled. */
  once(fd: number, mask: EvMask, callback: (what: EvMask) => void, timeout?: number): void {
    once(this, fd, mask, callback, timeout);
  }

  /**
   * Resolves with what became true; TIMEOUT is a result, not an error. Rejects with the signal's
   * reason, and with ERR_BASE_CLOSED when the base is closed meanwhile.
   */
  wait(
    fd: number,
    mask: EvMask,
    options: { timeout?: number; signal?: AbortSignal } = {},
  ): Promise<EvMask> {
    return wait(this, this.#waits, fd, mask, options);
  }

  /** Makes the events of `fd` that wait for any of `mask` active; answers how many. */
  activateFd(fd: number, mask: EvMask): number {
    this._checkOpen();
    checkInteger('fd', fd, -1, 2 ** 31 - 1);
    checkInteger('mask', mask, 0, 0xff);
    let count = 0;
    for (const event of this.events()) {
      if (event.fd !== fd) continue;
      // As in libevent, TIMEOUT asks for timers alone.
      const what = event._waitsFor() & (mask & Ev.TIMEOUT || mask);
      if (what === 0) continue;
      event.activate(what);
      count++;
    }
    return count;
  }

  /** The events that are added or active. */
  *events(): IterableIterator<EventHandle> {
    for (const event of [...this.#handles])
      if (event !== undefined && !event._freed && event.pending(0xff) !== 0) yield event;
  }

  // ── the loop ──

  /** `loop(0)`. */
  dispatch(options: { signal?: AbortSignal } = {}): Promise<LoopResult> {
    return this.loop(0, options);
  }

  /**
   * Dispatches until nothing is left, or until it is asked to stop; Node's own loop goes on
   * beside it. Aborting breaks the loop and rejects with the signal's reason.
   */
  loop(flags = 0, options: { signal?: AbortSignal } = {}): Promise<LoopResult> {
    return new Promise<LoopResult>((resolve, reject) => {
      checkInteger('flags', flags, 0, 7);
      checkObject('options', options);
      const signal = checkSignal('options.signal', options.signal);
      signal?.throwIfAborted();
      if (this.#start(flags)) {
        resolve('stopped');
        return;
      }
      const aborted = () => {
        // In a pass, the callback that runs now is the last one.
        this.#continueAsked = true;
        this.#finish();
        reject(signal?.reason);
      };
      const done = () => signal?.removeEventListener('abort', aborted);
      this.#run = {
        flags,
        resolve: (result) => {
          done();
          resolve(result);
        },
        reject: (error) => {
          done();
          reject(error);
        },
      };
      const status = native.baseRun(this._id, this.#preferBase, this.#dispatch, this);
      if (status < 0) {
        this.#run = undefined;
        throw status === -EBUSY
          ? new MultiloopError(
              'ERR_DRIVE_TAKEN',
              `Another base drives this thread, and ${this.backend} has no descriptor ` +
                'to nest by; use epoll for the second base, or close the first',
            )
          : systemError(status, 'event_base_loop');
      }
      signal?.addEventListener('abort', aborted, { once: true });
    });
  }

  /**
   * Dispatches as libevent does, blocking this thread: no promise, message or Node timer runs
   * inside. An exception of a callback is thrown from here; the other events stay active.
   */
  loopSync(flags = 0): LoopResult {
    checkInteger('flags', flags, 0, 7);
    if (this.#start(flags)) return 'stopped';
    this.#sync = true;
    try {
      for (;;) {
        if (
          this.#active === 0 &&
          native.baseEmpty(this._id) &&
          !(flags & LoopFlag.NO_EXIT_ON_EMPTY)
        )
          return 'empty';
        const found = native.basePoll(this._id, SYNC_WAIT_MICROS);
        if (found & Found.ERROR) throw systemError(this.#words[Word.ERROR], 'event_base_loop');
        this.#ranCallback = false;
        this.#pass();
        const result = this.#verdict(flags);
        if (result !== undefined) return result;
      }
    } finally {
      this.#sync = this.#breakAsked = false;
      this.#words[Word.NONBLOCK] = this.#words[Word.NO_EXIT] = 0;
      native.baseStop(this._id);
    }
  }

  /** Ends the loop after the pass that runs now, or `after` milliseconds from now. */
  loopExit(after?: number): void {
    this._checkOpen();
    if (after !== undefined) checkMillis('after', after);
    // As libevent does it: an event of middle priority, so that urgent callbacks still run before
    // and those of lower priority do not.
    this.once(
      -1,
      Ev.TIMEOUT,
      () => {
        this.#exitAsked = true;
      },
      after,
    );
  }

  /**
   * Ends the loop after the callback that runs now; what is active stays so for the next loop.
   * Without a loop, the next one ends before it begins.
   */
  loopBreak(): void {
    this._checkOpen();
    if (this.#inPass || this.#run === undefined) {
      this.#breakAsked = true;
      return;
    }
    // Between passes no callback of this base runs, so the loop is over now.
    this.#gotBreak = true;
    this.#finish('stopped');
  }

  /** Polls again after the callback that runs now, before the rest of its priority. */
  loopContinue(): void {
    this._checkOpen();
    this.#continueAsked = true;
  }

  /** Whether the last loop ended by loopExit; until the next one starts. */
  get gotExit(): boolean {
    return this.#gotExit;
  }
  get gotBreak(): boolean {
    return this.#gotBreak;
  }

  /** Milliseconds of the monotonic clock, cached for one pass. */
  now(): number {
    this._checkOpen();
    return native.baseNow(this._id) / 1000;
  }
  /** Reads the clock again within a pass. */
  updateTime(): void {
    this._checkOpen();
    native.baseUpdateTime(this._id);
  }

  /** As in libevent, descriptor, timeout and activation of an event count as added each. */
  counts(): EventCounts {
    this._checkOpen();
    const active = this.#active;
    return { added: native.baseAdded(this._id) + active, active, virtual: 0 };
  }

  /** Of the base's own waiting, since it was made. */
  utilization(): { idleMs: number; activeMs: number; utilization: number } {
    const idleMs = (this._closed ? this.#numbers[Num.IDLE] : native.baseIdle(this._id)) / 1000;
    const total = performance.now() - this.#made;
    const activeMs = Math.max(0, total - idleMs);
    return { idleMs, activeMs, utilization: total > 0 ? activeMs / total : 0 };
  }

  /** Turns so far. @internal */
  get _turns(): number {
    return this.#numbers[Num.TURNS];
  }

  /** Frees the base. Events go with it, descriptors stay open. A running loop ends as stopped. */
  close(): void {
    if (this._closed) return;
    this.#finish('stopped');
    for (const fail of [...this.#waits])
      fail(new MultiloopError('ERR_BASE_CLOSED', 'The event base was closed during the wait'));
    this._closed = true;
    abandoned.unregister(this);
    this.#handles.length = 0;
    native.baseClose(this._id);
  }
  [Symbol.dispose](): void {
    this.close();
  }

  // ── for events and streams ──

  /** @internal */
  _checkOpen(): void {
    if (this._closed) throw new MultiloopError('ERR_BASE_CLOSED', 'The event base is closed');
  }

  /** @internal */
  _activate(event: EventHandle, what: EvMask): void {
    if (event._active === 0) {
      this.#queues[event.priority].push(event);
      this.#setActive(this.#active + 1);
      // A more urgent event than the one that runs goes first (libevent's inversion guard).
      if (event.priority < this.#current) this.#continueAsked = true;
    }
    event._active |= what;
    if (!this.#inPass) this.#kick();
  }

  /** @internal */
  _deactivate(event: EventHandle, what: EvMask): void {
    event._active &= ~what;
    if (event._active !== 0) return;
    event._byHand = false;
    this.#queues[event.priority].remove(event);
    this.#setActive(this.#active - 1);
  }

  /** @internal */
  _forgetHandle(event: EventHandle): void {
    this.#handles[event._id % EVENT_SLOTS] = undefined;
  }

  /** @internal Calls `passEnd` when this pass is over. False outside a pass: do it now. */
  _atPassEnd(item: PassEnd): boolean {
    if (!this.#inPass) return false;
    this.#passEnds.push(item);
    return true;
  }

  /** @internal Runs `callback` in `event`'s async context, then what it queued. */
  _runIn(event: EventHandle, callback: () => void): void {
    event._resource.runInAsyncScope(callback);
    if (!this.#sync) drainTicks();
  }

  // ── inside ──

  /** True when there is nothing to start, since a break was asked for beforehand. */
  #start(flags: number): boolean {
    this._checkOpen();
    if (this.#run !== undefined || this.#sync)
      throw new MultiloopError('ERR_LOOP_REENTERED', 'This base is dispatching already');
    this.#exitAsked = this.#gotExit = false;
    this.#gotBreak = this.#breakAsked;
    this.#breakAsked = false;
    if (this.#gotBreak) return true;
    this.#words[Word.NONBLOCK] = flags & LoopFlag.NONBLOCK ? 1 : 0;
    this.#words[Word.NO_EXIT] = flags & LoopFlag.NO_EXIT_ON_EMPTY ? 1 : 0;
    return false;
  }

  /** Called by the native side, from libuv and never from a JavaScript frame. */
  readonly #dispatch = (): void => {
    const run = this.#run;
    if (run === undefined) return;
    const reason = this.#words[Word.REASON];
    if (reason === Reason.EMPTY) {
      this.#finish('empty');
      return;
    }
    if (reason === Reason.ERROR) {
      this.#finish(systemError(this.#words[Word.ERROR], 'event_base_loop'));
      return;
    }
    this.#ranCallback = false;
    let thrown: { error: unknown } | undefined;
    try {
      this.#pass();
    } catch (error) {
      thrown = { error };
    }
    if (this.#run === run) {
      const result = this.#verdict(run.flags);
      if (result !== undefined) this.#finish(result);
    }
    // From in here and not by throwing: a tick that threw leaves its async ids on Node's stack,
    // and the report clears it before the native side takes its own off.
    if (thrown !== undefined) native.reportException(thrown.error);
  };

  #pass(): void {
    this.#inPass = true;
    this.#passes++;
    this.#continueAsked = false;
    try {
      this.#collect();
      this.#deliverMessages();
      this.#runFirstQueue();
    } finally {
      this.#current = -1;
      this.#endPass();
      this.#inPass = false;
      if (this.#debug && !this._closed) native.baseCheck(this._id);
    }
  }

  /** Moves every record of the ring into its priority's queue, joining what is active already. */
  #collect(): void {
    const words = this.#words;
    const count = words[Word.READY];
    words[Word.READY] = 0;
    for (let i = 0, at: number = Word.RING; i < count; i++, at += 2) {
      const event = this.#handles[words[at] % EVENT_SLOTS];
      if (event === undefined || event._id !== words[at]) continue;
      if (event._active === 0) {
        this.#queues[event.priority].push(event);
        this.#active++;
      }
      event._byHand = false;
      event._active |= words[at + 1];
    }
    words[Word.ACTIVE] = this.#active;
    this.#messagesUndelivered = words[Word.MESSAGES];
    words[Word.MESSAGES] = 0;
  }

  #deliverMessages(): void {
    const count = this.#messagesUndelivered;
    if (count === 0 || this._onMessage === undefined) return;
    this.#messagesUndelivered = 0;
    this.#ranCallback = true;
    for (let i = 0, at: number = Num.INBOX; i < count; i++, at += MESSAGE_NUMBERS) {
      try {
        this._onMessage(i, this.#numbers, at);
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
    const limit = this.#active + EXTRA_CALLBACKS;
    for (let priority = 0; priority < this.#queues.length; priority++) {
      const queue = this.#queues[priority];
      if (queue.first === undefined) continue;
      this.#current = priority;
      for (let ran = 0; ran < limit; ran++) {
        const event = queue.first;
        if (event === undefined || event._ranIn === this.#passes) return;
        event._ranIn = this.#passes;
        this.#runCallback(queue, event);
        if (this.#breakAsked || this.#continueAsked || this._closed) return;
      }
      return;
    }
  }

  #runCallback(queue: ActiveQueue, event: EventHandle): void {
    const what = event._active;
    const byHand = event._byHand;
    queue.remove(event);
    event._active = 0;
    event._byHand = false;
    this.#setActive(this.#active - 1);
    this.#ranCallback = true;
    // What the kernel or the clock made active was removed or set anew by the native side.
    if (byHand && event.mask & Ev.PERSIST) native.eventRearm(this._id, event._id);
    else if (byHand) native.eventDel(this._id, event._id);
    event._resource.runInAsyncScope(event._callback, undefined, what, event);
    if (!this.#sync) drainTicks();
  }

  /** What the pass wrote leaves now, also when it ends by an exception. */
  #endPass(): void {
    const items = this.#passEnds;
    // passEnd() may add to the list; it runs no callback of the user.
    for (let i = 0; i < items.length; i++) items[i].passEnd();
    items.length = 0;
  }

  #setActive(active: number): void {
    this.#active = active;
    this.#words[Word.ACTIVE] = active;
  }

  /** Active from outside a pass: a nested base has to be given a turn. */
  #kick(): void {
    if (this.#run !== undefined) native.baseSettle(this._id);
  }

  #verdict(flags: number): LoopResult | undefined {
    if (this._closed) return 'stopped';
    if (this.#breakAsked) {
      this.#breakAsked = false;
      this.#gotBreak = true;
      return 'stopped';
    }
    if (this.#exitAsked) {
      this.#exitAsked = false;
      this.#gotExit = true;
      return 'stopped';
    }
    // Unlike libevent's, NONBLOCK alone is one pass also when there is always something to run.
    if (flags & LoopFlag.NONBLOCK) return 'passed';
    if (flags & LoopFlag.ONCE && this.#active === 0 && this.#ranCallback) return 'passed';
    return undefined;
  }

  #finish(outcome?: LoopResult | Error): void {
    const run = this.#run;
    if (run === undefined) return;
    this.#run = undefined;
    this.#words[Word.NONBLOCK] = this.#words[Word.NO_EXIT] = 0;
    native.baseStop(this._id);
    if (outcome instanceof Error) run.reject(outcome);
    else if (outcome !== undefined) run.resolve(outcome);
  }
}

function defaultDrive(): 'base' | 'libuv' {
  return isMainThread ? 'libuv' : 'base';
}
