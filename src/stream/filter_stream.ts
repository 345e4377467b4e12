// A stream on another one: what that one reads goes through a function before it is this one's
// input, and what is written here goes through another on its way down (libevent's
// bufferevent_filter.c, whose filters cannot fail; ours can).
//
//   under.input  ─filter.input─►  input     while it reads, and its input is below its high mark
//   under.output ◄─filter.output─ output    at the end of a pass, below the high mark of `under`
//
// The stream below reads only while this one does, so nothing piles up there.

import type { EvBuffer } from '../buffer/ev_buffer.js';
import { MultiloopError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import type { EventHandle } from '../event/event_handle.js';
import { MILLIS_MAX } from '../validate.js';
import {
  type BevEvent,
  type BevOptions,
  checkDirections,
  checkFlushMode,
  type FlushMode,
} from './bev_options.js';
import type { BufferEvent } from './buffer_event.js';
import {
  type BevFilter,
  checkFilter,
  checkResult,
  FILTER_HELD_BYTES_MAX,
  type Lane,
  laneOf,
} from './filter.js';
import { Hold } from './hold.js';
import { StackedStream, underGone } from './stacked_stream.js';
import type { TlsInfo } from './tls_options.js';

/** Calls of one filter in one go that take nothing: what only ever adds is not called for ever. */
const IDLE_CALLS_MAX = 1024;

type Direction = 'read' | 'write';

interface Ran {
  result: ReturnType<typeof checkResult>;
  took: number;
  gave: number;
  /** What the filter has thrown. */
  failed?: Error;
}

export class FilterStream extends StackedStream {
  readonly #filter: BevFilter;
  readonly #lanes: Readonly<Record<Direction, Lane | undefined>>;
  /** Directions whose filter runs: it is not called again from inside. */
  #running: EvMask = 0;
  /** The input filter waits for more than there is. */
  #starved = false;
  /** The input filter has more to give than there was room for. */
  #unread = false;
  /** Directions whose filter was told that it is finished. */
  #finished: EvMask = 0;
  #alive: EventHandle | undefined = undefined;

  /** @internal */
  constructor(under: BufferEvent, filter: BevFilter, options: BevOptions = {}) {
    checkFilter(filter);
    super(under, options);
    this.#lanes = { read: laneOf(filter.input), write: laneOf(filter.output) };
    this.#lanes.read?.attach(() => this._wakeInput());
    this.#lanes.write?.attach(() => this.#outputAgain());
    this.#filter = filter;
    this._takeUnder(options.rateLimit);
  }

  /** That of the stream below. */
  override get tls(): TlsInfo | undefined {
    return this.closed ? undefined : this.under.tls;
  }
  /** @internal */
  override get _name(): string {
    return 'The filter';
  }

  /**
   * Calls the filters in that mode, whatever the watermarks say, and flushes the stream below.
   * 'finished' ends the stream when it is for writing.
   */
  override flush(direction: EvMask, mode: FlushMode): void {
    checkDirections(direction);
    checkFlushMode(mode);
    if (this.closed) return;
    if (direction & Ev.READ) {
      this.under.flush(Ev.READ, mode);
      // Only the end of the stream below is the end of what a filter gets.
      this.#pump(mode === 'normal' ? mode : 'flush', false);
    }
    if (this.closed || !(direction & Ev.WRITE)) return;
    this.#push(mode === 'normal' ? mode : 'flush', false);
    if (mode === 'finished') this.end();
    // What is below ends when the filter has given all that it has.
    if (!this.closed) this.under.flush(Ev.WRITE, mode === 'normal' ? mode : 'flush');
  }

  // ── reading ──

  protected override _startReading(timeout: number | undefined): void {
    this._timeReading(timeout);
    const { under } = this;
    under._releaseReading(Hold.FILTER);
    const has = under.inputLength > 0 && !this.#starved;
    const more = this.#unread || this.#lanes.read !== undefined;
    if (has || more || this._end !== undefined) this._wakeInput();
  }
  protected override _stopReading(): void {
    this._timeReading(undefined);
    this.under._holdReading(Hold.FILTER);
    this.#keepAlive();
  }
  protected override _underReads(): void {
    this.#starved = false;
    this.#pump('normal', true);
  }

  #pump(mode: 'normal' | 'flush', direct: boolean): void {
    if (this.#running & Ev.READ || this.closed) return;
    if (!this._mayRead() && (mode === 'normal' || this._peerEnded)) return;
    const { under } = this;
    if (!(this.#finished & Ev.READ)) {
      const ran = this.#runInput(mode);
      const { result } = ran;
      this.#starved = result === 'need-more';
      this.#deliver(ran, direct);
      if (this.closed || ran.failed !== undefined) return;
      if (result === 'need-more' && this.#tooMuch(under.inputLength)) {
        this._failed('read', { error: heldTooMuch('input', under.inputLength) }, direct);
        return;
      }
      this.#rest(result === 'later' && under.inputLength > 0);
      if (this._end === undefined || this.#unread) return;
      if (result !== 'need-more' && under.inputLength > 0) return;
    }
    if (this._end !== undefined && this._mayRead()) this.#finishInput(this._end, direct);
  }

  #full(): boolean {
    const { high } = this.getWatermark('read');
    return high > 0 && this.inputLength >= high;
  }
  /** Whether the stream below can never have what the filter waits for. */
  #tooMuch(length: number): boolean {
    const { high } = this.under.getWatermark('read');
    return length >= (high > 0 ? high : FILTER_HELD_BYTES_MAX);
  }
  /** A lane that is busy takes no more, so the stream below reads no more. */
  #rest(resting: boolean): void {
    if (this.under.closed || !this._mayRead()) return;
    if (resting) this.under._holdReading(Hold.FILTER);
    else this.under._releaseReading(Hold.FILTER);
  }

  #runInput(mode: FlushMode): Ran {
    const { under } = this;
    const total: Ran = { result: 'ok', took: 0, gave: 0 };
    const lane = this.#lanes.read !== undefined;
    let idle = 0;
    this.#unread = false;
    if (under.inputLength === 0 && mode === 'normal' && !lane) return total;
    for (;;) {
      const ran = this.#call('input', under.input, this.input, mode);
      total.result = ran.result;
      total.took += ran.took;
      total.gave += ran.gave;
      total.failed = ran.failed;
      if (ran.failed !== undefined || this.closed) break;
      const again = ran.result === 'more' || (ran.result === 'ok' && under.inputLength > 0);
      if (!again || (ran.took === 0 && ran.gave === 0)) break;
      idle = ran.took > 0 ? 0 : idle + 1;
      if (((mode === 'normal' || lane) && this.#full()) || idle >= IDLE_CALLS_MAX) {
        this.#unread = ran.result === 'more';
        break;
      }
    }
    this.#keepAlive();
    return total;
  }

  /** What the filter has given, then what it has thrown. */
  #deliver(ran: Ran, direct: boolean): void {
    if (this.closed) return;
    if (ran.gave > 0) {
      this._timeReadingAnew();
      if (direct) this._received(ran.gave);
      else this._receivedLater(ran.gave);
    }
    if (ran.failed !== undefined && !this.closed)
      this._failed('read', { error: ran.failed }, direct);
  }

  /** Everything that came is filtered: the filter's last call, then the event. */
  #finishInput(end: BevEvent, direct: boolean): void {
    const lane = this.#lanes.read;
    let ran: Ran = { result: 'ok', took: 0, gave: 0 };
    if (lane !== undefined || !(this.#finished & Ev.READ)) {
      this.#finished |= Ev.READ;
      ran = this.#runInput('finished');
      // A reset is the reason and not what it has cut off.
      if (end.error !== undefined) ran.failed = undefined;
      this.#deliver(ran, direct);
      if (this.closed || ran.failed !== undefined) return;
      if (this.#unread || ran.result === 'later') return;
    }
    this._end = undefined;
    const left = this.under.inputLength;
    if (end.error !== undefined) this._failed('read', { ...end }, direct);
    else if (left > 0) this._failed('read', { error: leftOver('input', left) }, direct);
    else this._peerEnd(direct);
  }

  // ── writing ──

  protected override _stopWriting(): void {
    super._stopWriting();
    this.#keepAlive();
  }

  protected override _flush(): void {
    this.#push('normal', false);
  }
  /** @internal What the filter itself adds waits for its next call. */
  override _queueFlush(): void {
    if (!(this.#running & Ev.WRITE)) super._queueFlush();
  }

  #push(mode: 'normal' | 'flush', direct: boolean): void {
    if (this.#running & Ev.WRITE || !this._mayWrite()) return;
    const { under } = this;
    if (under.closed) {
      this._failed('write', { error: underGone() }, direct);
      return;
    }
    const ran = this.#runOutput(mode);
    const { outputLength: left } = this;
    if (this.closed) return;
    this.bytesWritten += ran.took;
    if (ran.failed !== undefined) {
      this._failed('write', { error: ran.failed }, direct);
    } else if (ran.result === 'need-more' && this.ended && left > 0) {
      this.#finishOutput();
    } else if (ran.result === 'need-more' && left >= FILTER_HELD_BYTES_MAX) {
      this._failed('write', { error: heldTooMuch('output', left) }, direct);
    } else {
      this._timeWriting(ran.took > 0);
      if (ran.took > 0) this._wrote(direct);
    }
  }

  #runOutput(mode: FlushMode): Ran {
    const { under, output } = this;
    const total: Ran = { result: 'ok', took: 0, gave: 0 };
    const lane = this.#lanes.write !== undefined;
    const { high } = under.getWatermark('write');
    let idle = 0;
    // One system call for all that the filter adds, outside a pass too.
    under._writeHeld |= Hold.FILTER;
    try {
      for (let first = true; ; first = false) {
        const room = (mode !== 'normal' && !lane) || under.outputLength <= high;
        const due = output.length > 0 || lane || (first && mode !== 'normal');
        if (!room) total.result = 'more';
        if (!room || !due) break;
        const ran = this.#call('output', output, under.output, mode);
        total.result = ran.result;
        total.took += ran.took;
        total.failed = ran.failed;
        if (ran.failed !== undefined || this.closed || under.closed) break;
        if (ran.result !== 'ok' && ran.result !== 'more') break;
        if (ran.took === 0 && ran.gave === 0) break;
        idle = ran.took > 0 ? 0 : idle + 1;
        if (idle >= IDLE_CALLS_MAX) break;
      }
    } finally {
      if (!under.closed) under._releaseWriting(Hold.FILTER);
    }
    this.#keepAlive();
    return total;
  }

  protected override _underDrained(): void {
    if (this.#finished & Ev.WRITE) this.#finishOutput();
    else if (this.outputLength > 0 || this.#lanes.write !== undefined) this.#push('normal', true);
  }
  #outputAgain(): void {
    if (this.closed || this.base._closed) return;
    if (this.#finished & Ev.WRITE) this.#finishOutput();
    else this.#push('normal', false);
  }

  /** The output is empty, or the filter has had all of it, and nothing more can be written. */
  protected override _finish(): void {
    this.#finishOutput();
  }
  #finishOutput(): void {
    const { under } = this;
    if (this.#running & Ev.WRITE || this.closed) return;
    const lane = this.#lanes.write;
    if (under.closed) {
      this._failed('write', { error: underGone() }, false);
      return;
    }
    if (lane !== undefined || !(this.#finished & Ev.WRITE)) {
      this.#finished |= Ev.WRITE;
      const ran = this.#runOutput('finished');
      if (this.closed) return;
      this.bytesWritten += ran.took;
      const { outputLength: left } = this;
      const error = ran.failed ?? (left > 0 && !lane ? leftOver('output', left) : undefined);
      if (error !== undefined) {
        this._failed('write', { error }, false);
        return;
      }
      if (ran.result === 'later' || ran.result === 'more') return;
      // Which comes back here when the output had something left.
      if (ran.took > 0) this._wrote(false);
    }
    if (this._endTold && !under.closed) under.end();
  }

  // ── a call of the filter ──

  #call(name: 'input' | 'output', from: EvBuffer, to: EvBuffer, mode: FlushMode): Ran {
    const ran: Ran = { result: 'ok', took: 0, gave: 0 };
    const [mask, lane] =
      name === 'input'
        ? ([Ev.READ, this.#lanes.read] as const)
        : ([Ev.WRITE, this.#lanes.write] as const);
    const { length: had } = from;
    const { length: held } = to;
    this.#running |= mask;
    // The ends that are the stream's own are the filter's for the time of the call.
    if (name === 'input') to.unfreeze('back');
    else from.unfreeze('front');
    try {
      const filter = this.#filter[name];
      if (filter === undefined) to._move(from, this.#passed(name, had, held, mode));
      else ran.result = checkResult(name, filter.call(this.#filter, from, to, mode), lane);
    } catch (error) {
      ran.failed = asError(name, error);
    } finally {
      this.#running &= ~mask;
      if (name === 'input') to.freeze('back');
      else from.freeze('front');
    }
    ran.took = Math.max(0, had - from.length);
    ran.gave = Math.max(0, to.length - held);
    return ran;
  }
  /** Bytes that go through where there is no function. */
  #passed(name: 'input' | 'output', had: number, held: number, mode: FlushMode): number {
    const { high } = this.getWatermark('read');
    if (name === 'output' || mode !== 'normal' || high === 0) return had;
    return Math.min(had, Math.max(0, high - held));
  }

  /** Nothing but a lane's work may be going on; the loop is not empty then. */
  #keepAlive(): void {
    const { read, write } = this.#lanes;
    if ((read === undefined && write === undefined) || this.base._closed) return;
    const reads = read?.busy === true && this._mayRead();
    const writes = write?.busy === true && (this._mayWrite() || this._endTold);
    if (this.closed || !this._refed || !(reads || writes)) {
      this.#alive?.del();
      return;
    }
    this.#alive ??= this.base.timer(() => undefined);
    if (this.#alive.pending(Ev.TIMEOUT) === 0) this.#alive.add(MILLIS_MAX);
  }
  protected override _refChanged(): void {
    super._refChanged();
    this.#keepAlive();
  }

  // ── the end ──

  protected override _release(reset: boolean): void {
    this._freeTimers();
    this.#alive?.free();
    this.#lanes.read?.close();
    this.#lanes.write?.close();
    this._releaseUnder(reset);
  }
}

function asError(name: string, thrown: unknown): Error {
  if (thrown instanceof Error) return thrown;
  const text = `The ${name} filter has thrown what is no Error: ${String(thrown)}`;
  return new MultiloopError('ERR_FILTER_FAILED', text, { cause: thrown });
}
function heldTooMuch(name: string, bytes: number): Error {
  return new MultiloopError(
    'ERR_FILTER_HELD',
    `The ${name} filter needs more than the ${bytes} bytes that it may have at once; ` +
      (name === 'input' ? 'a high watermark of the stream below is that limit' : 'write less'),
  );
}
function leftOver(name: string, bytes: number): Error {
  return new MultiloopError(
    'ERR_FILTER_TRUNCATED',
    `The stream has ended, and the ${name} filter has left ${bytes} bytes that need more to follow`,
  );
}
