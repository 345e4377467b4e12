// The event base of this thread: TypeScript's half. The native half waits and writes records to
// the page; the dispatcher owns which events are active; this class is what a user has of both, and
// decides when a loop begins and ends. The rules of the loop are libevent's.

import { constants } from 'node:os';
import { isMainThread } from 'node:worker_threads';
import { MultiloopError, systemError } from '../errors.js';
import { native } from '../native.js';
import { checkInteger, checkMillis, checkObject, checkOneOf, checkSignal } from '../validate.js';
import { backendReports, chooseBackend, driveTaken } from './backends.js';
import { type CommonQueue, type CommonTimeout, commonTimeout } from './common_timeout.js';
import { readCounts, readMaxCounts } from './counts.js';
import { Dispatcher, dispatchLimits } from './dispatcher.js';
import { dump } from './dump.js';
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
import {
  type EventBaseOptions,
  type EventCounts,
  type PassEnd,
  PRIORITIES_MAX,
} from './options.js';
import { Found, Num, PAGE_BYTES, Reason, Watching, Word } from './page.js';
import { signalNumber } from './signals.js';
import { drainTicks } from './ticks.js';
import { chooseWaker } from './wakers.js';
import { type Watcher, Watchers } from './watchers.js';

/** How long loopSync stays below JavaScript at most, so that terminate() ends it: 100 ms. */
const SYNC_WAIT_MICROS = 100_000;

const { EBUSY } = constants.errno;

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

  /** Who catches signals for all bases: one libuv loop of the process, beside Node's own. */
  static readonly signalMethod = 'libuv';

  readonly backend: BackendName;
  /** What wakes this base for a signal. */
  readonly waker: WakerName;
  readonly features: ReadonlySet<Feature>;
  readonly priorities: number;

  /** @internal */ readonly _id: number;
  /** @internal */ _closed = false;
  /** @internal */ readonly _debug: boolean;
  /** @internal */ readonly _dispatcher: Dispatcher;

  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #preferBase: boolean;
  readonly #watchers: Watchers;
  readonly #commons = new Map<number, CommonQueue>();
  readonly #waits = new Set<(error: Error) => void>();
  readonly #made = performance.now();

  #sync = false;
  #run: Run | undefined;
  #exitAsked = false;
  #gotExit = false;
  #gotBreak = false;
  #wall = 0;
  #wallTurn = -1;

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
    this.waker = chooseWaker(options.waker, this.backend);
    const drives = ['base', 'libuv'] as const;
    this.#preferBase =
      checkOneOf('options.drive', options.drive ?? defaultDrive(), drives) === 'base';
    this._debug = options.debug ?? process.env.MULTILOOP_DEBUG === '1';
    const limits = dispatchLimits(options.maxDispatch);
    const page = new ArrayBuffer(PAGE_BYTES);
    this.#words = new Int32Array(page);
    this.#numbers = new Float64Array(page);
    this._id = native.baseNew(this.backend, page, this.waker);
    if (this._id < 0) throw systemError(this._id, 'event_base_new');
    this.#watchers = new Watchers(this.#words);
    this._dispatcher = new Dispatcher(
      this._id,
      { words: this.#words, numbers: this.#numbers },
      this.priorities,
      limits,
      this.#watchers,
      this._debug,
    );
    abandoned.register(this, this._id, this);
  }

  // ── events ──

  /**
   * An event on `fd`, which with Ev.SIGNAL is the number of a signal; -1 makes a user event, which
   * only `activate` and a timeout make active. `priority`: 0 is the most urgent, the middle one is
   * the default.
   */
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
    return this._event(fd, mask, callback, priority, undefined);
  }

  /** @internal `event` with arguments known to be right; `owner` is `this` in callbacks. */
  _event(
    fd: number,
    mask: EvMask,
    callback: EventCallback,
    priority: number,
    owner: object | undefined,
  ): EventHandle {
    const id = native.eventNew(this._id, fd, mask);
    if (id < 0) throw systemError(id, 'event_new');
    const event = new EventHandle(this, id, fd, mask, callback, priority, owner);
    this._dispatcher.keep(event);
    return event;
  }

  /** A timer; `add(ms)` starts it. With `persist` it repeats from the time it was due. */
  timer(
    callback: EventCallback,
    options: { persist?: boolean; priority?: number } = {},
  ): EventHandle {
    return this.event(-1, options?.persist === true ? Ev.PERSIST : 0, callback, options);
  }

  /**
   * A persistent event of a signal, whose callback runs once for each one that came; `add()` starts
   * it. While any base of the process waits for a signal, it does not take its default action.
   * Beside `process.on()`, and on any thread. add() throws EINVAL for one that cannot be caught.
   */
  signal(
    signal: NodeJS.Signals | number,
    callback: EventCallback,
    options: { priority?: number } = {},
  ): EventHandle {
    return this.event(signalNumber(signal), Ev.SIGNAL | Ev.PERSIST, callback, options);
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
    // As in libevent, TIMEOUT asks for timers alone.
    const what = mask & Ev.TIMEOUT || mask & ~Ev.SIGNAL;
    return this._dispatcher.activateWaiting(
      (event) => event.fd === fd && !(event.mask & Ev.SIGNAL),
      what,
    );
  }

  /** Makes the events that wait for `signal` active, as if it had come once; answers how many. */
  activateSignal(signal: NodeJS.Signals | number): number {
    this._checkOpen();
    const number = signalNumber(signal);
    return this._dispatcher.activateWaiting(
      (event) => event.fd === number && (event.mask & Ev.SIGNAL) !== 0,
      Ev.SIGNAL,
    );
  }

  /** The events that are added or active. */
  *events(): IterableIterator<EventHandle> {
    for (const event of [...this._dispatcher.handles])
      if (event !== undefined && !event._freed && (event._waitsFor() | event._active) !== 0)
        yield event;
  }

  /** The event whose callback runs now. */
  get runningEvent(): EventHandle | undefined {
    return this._dispatcher.running;
  }

  /**
   * A duration that many events share, to give to `add()`: they wait in a queue of their own, so
   * adding and removing cost the same however many there are. The same object for the same one.
   */
  commonTimeout(ms: number): CommonTimeout {
    this._checkOpen();
    return commonTimeout(this, this.#commons, ms);
  }

  /**
   * Called in every turn before the wait, with the milliseconds that it may take, or undefined when
   * nothing limits it. What it adds or activates counts for this wait already.
   */
  prepare(callback: (timeout: number | undefined) => void): Watcher {
    this._checkOpen();
    const watcher = this.#watchers.addPrepare(this, callback);
    this.#kick();
    return watcher;
  }
  /** Called in every turn after the wait and before the callbacks of what it has found. */
  check(callback: () => void): Watcher {
    this._checkOpen();
    return this.#watchers.addCheck(this, callback);
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
        this._dispatcher.leaveAsked = true;
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
        throw status === -EBUSY ? driveTaken(this.backend) : systemError(status, 'event_base_loop');
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
    const dispatcher = this._dispatcher;
    this.#sync = dispatcher.sync = true;
    try {
      for (;;) {
        if (this.#finished(flags)) return 'empty';
        if (this.#words[Word.WATCHING] & Watching.PREPARE) {
          this.#numbers[Num.TIMEOUT] = native.baseTimeout(this._id);
          const failed = this.#runPrepare();
          if (failed !== undefined) throw failed.error;
          const result = this.#asked();
          if (result !== undefined) return result;
          if (this.#finished(flags)) continue;
        }
        const found = native.basePoll(this._id, SYNC_WAIT_MICROS);
        if (found & Found.ERROR) throw systemError(this.#words[Word.ERROR], 'event_base_loop');
        dispatcher.pass();
        const result = this.#verdict(flags);
        if (result !== undefined) return result;
      }
    } finally {
      this.#sync = dispatcher.sync = dispatcher.breakAsked = false;
      this.#words[Word.NONBLOCK] = this.#words[Word.NO_EXIT] = 0;
      this.#words[Word.TIME_CACHED] = 0;
      if (this.#words[Word.UNSETTLED]) native.baseStop(this._id);
    }
  }

  /** Ends the loop after the pass that runs now, or `after` milliseconds from now. */
  loopExit(after?: number): void {
    this._checkOpen();
    if (after !== undefined) checkMillis('after', after);
    // As libevent does it: an event of middle priority, so that urgent callbacks still run before
    // and those of lower priority do not.
    const ask = () => {
      this.#exitAsked = true;
    };
    this.once(-1, Ev.TIMEOUT, ask, after);
  }

  /**
   * Ends the loop after the callback that runs now; what is active stays so for the next loop.
   * Without a loop, the next one ends before it begins.
   */
  loopBreak(): void {
    this._checkOpen();
    if (this._dispatcher.inPass || this.#run === undefined) {
      this._dispatcher.breakAsked = true;
      return;
    }
    // Between passes no callback of this base runs, so the loop is over now.
    this.#gotBreak = true;
    this.#finish('stopped');
  }

  /** Polls again after the callback that runs now, before the rest of its priority. */
  loopContinue(): void {
    this._checkOpen();
    this._dispatcher.continueAsked = true;
  }

  /** Whether the last loop ended by loopExit, or by loopBreak; until the next one starts. */
  get gotExit(): boolean {
    return this.#gotExit;
  }
  get gotBreak(): boolean {
    return this.#gotBreak;
  }

  /** Milliseconds of the monotonic clock, cached for one pass. */
  now(): number {
    this._checkOpen();
    const cached = this.#words[Word.TIME_CACHED] !== 0;
    return (cached ? this.#numbers[Num.NOW] : native.baseNow(this._id)) / 1000;
  }
  /** Milliseconds since 1970, cached for one pass. It steps when somebody sets the clock. */
  wallTime(): number {
    this._checkOpen();
    const turn = this._turns;
    if (this._dispatcher.inPass && this.#wallTurn === turn) return this.#wall;
    this.#wallTurn = turn;
    this.#wall = Date.now();
    return this.#wall;
  }
  /** Reads the clock again within a pass. */
  updateTime(): void {
    this._checkOpen();
    native.baseUpdateTime(this._id);
    this.#wallTurn = -1;
  }

  counts(): EventCounts {
    this._checkOpen();
    return readCounts(this.#words);
  }

  /** The most of each that there has been; with `clear` they start again from now. */
  maxCounts(clear = false): EventCounts {
    this._checkOpen();
    return readMaxCounts(this.#words, clear);
  }

  /** The base and its events in words, a line each; for people, not for programs. */
  dump(): string {
    this._checkOpen();
    return dump(this);
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

  /**
   * Frees the base. Events and watchers go with it, descriptors stay open. A running loop ends as
   * stopped. Finalizers that were still to come run when the current callback has returned, or not
   * at all with `finalize: false`.
   */
  close(options: { finalize?: boolean } = {}): void {
    checkObject('options', options);
    if (this._closed) return;
    this.#finish('stopped');
    for (const fail of [...this.#waits])
      fail(new MultiloopError('ERR_BASE_CLOSED', 'The event base was closed during the wait'));
    this.#watchers.close();
    this._closed = true;
    abandoned.unregister(this);
    native.baseClose(this._id);
    this._dispatcher.close(options.finalize !== false);
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
    this._dispatcher.activate(event, what);
    if (!this._dispatcher.inPass) this.#kick();
  }

  /** @internal Calls `passEnd` when this pass is over. False outside a pass: do it now. */
  _atPassEnd(item: PassEnd): boolean {
    return this._dispatcher.atPassEnd(item);
  }

  /** @internal Runs `callback` in `event`'s async context, then what it queued. `owner`: `this`. */
  _runIn(event: EventHandle, callback: () => void, owner?: object): void {
    event.runInAsyncScope(callback, owner);
    if (!this.#sync) drainTicks();
  }

  // ── inside ──

  /** True when there is nothing to start, since a break was asked for beforehand. */
  #start(flags: number): boolean {
    this._checkOpen();
    if (this.#run !== undefined || this.#sync)
      throw new MultiloopError('ERR_LOOP_REENTERED', 'This base is dispatching already');
    this.#exitAsked = this.#gotExit = false;
    this.#gotBreak = this._dispatcher.breakAsked;
    this._dispatcher.breakAsked = false;
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
    let thrown: { error: unknown } | undefined;
    if (reason === Reason.PREPARE) {
      thrown = this.#runPrepare();
    } else {
      try {
        this._dispatcher.pass();
      } catch (error) {
        thrown = { error };
      }
    }
    if (this.#run === run) {
      const result = reason === Reason.PREPARE ? this.#asked() : this.#verdict(run.flags);
      if (result !== undefined) this.#finish(result);
    }
    // From in here and not by throwing: a tick that threw leaves its async ids on Node's stack,
    // and the report clears it before the native side takes its own off.
    if (thrown !== undefined) native.reportException(thrown.error);
  };

  /** Watchers are told what the next wait may take. */
  #runPrepare(): { error: unknown } | undefined {
    const micros = this.#numbers[Num.TIMEOUT];
    return this.#watchers.runPrepare(micros < 0 ? undefined : micros / 1000, this.#sync);
  }

  #finished(flags: number): boolean {
    if (flags & LoopFlag.NO_EXIT_ON_EMPTY) return false;
    const words = this.#words;
    return words[Word.ADDED] === 0 && words[Word.ACTIVE] === 0 && words[Word.VIRTUAL] === 0;
  }

  /** Active from outside a pass: a nested base has to be given a turn. */
  #kick(): void {
    if (this.#run !== undefined) native.baseSettle(this._id);
  }

  /** Whether somebody has asked for the end. */
  #asked(): LoopResult | undefined {
    if (this._closed) return 'stopped';
    if (this._dispatcher.breakAsked) {
      this._dispatcher.breakAsked = false;
      this.#gotBreak = true;
      return 'stopped';
    }
    if (!this.#exitAsked) return undefined;
    this.#exitAsked = false;
    this.#gotExit = true;
    return 'stopped';
  }

  #verdict(flags: number): LoopResult | undefined {
    const asked = this.#asked();
    if (asked !== undefined) return asked;
    // Unlike libevent's, NONBLOCK alone is one pass also when there is always something to run.
    if (flags & LoopFlag.NONBLOCK) return 'passed';
    const { active, ranCallback } = this._dispatcher;
    if (flags & LoopFlag.ONCE && active === 0 && ranCallback) return 'passed';
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
