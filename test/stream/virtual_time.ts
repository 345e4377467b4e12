// A clock that the tests of rate limits turn themselves, with timers on it, and streams that move
// nothing but a count.

import type { EventBase } from '../../src/index.js';
import type { LimitedStream } from '../../src/stream/rate_limit.js';
import type { StreamLimit } from '../../src/stream/stream_limit.js';

class VirtualTimer {
  due: number | undefined;
  _freed = false;
  readonly #clock: Clock;
  readonly callback: () => void;
  constructor(clock: Clock, callback: () => void) {
    this.#clock = clock;
    this.callback = callback;
  }
  add(ms: number): void {
    this.due = this.#clock.time + ms;
  }
  del(): void {
    this.due = undefined;
  }
  free(): void {
    this._freed = true;
    this.due = undefined;
  }
  pending(): number {
    return this.due === undefined ? 0 : 1;
  }
  get remaining(): number | undefined {
    return this.due === undefined ? undefined : this.due - this.#clock.time;
  }
  ref(): void {}
  unref(): void {}
}

export class Clock {
  time = 1000;
  readonly timers: VirtualTimer[] = [];
  /** What the limits use of a base. */
  readonly base = {
    _closed: false,
    now: () => this.time,
    timer: (callback: () => void) => {
      const timer = new VirtualTimer(this, callback);
      this.timers.push(timer);
      return timer;
    },
  } as unknown as EventBase;

  pass(ms: number): void {
    this.time += ms;
    for (const timer of this.timers) {
      if (timer.due === undefined || timer.due > this.time) continue;
      timer.due = undefined;
      timer.callback();
    }
  }
  get pending(): number {
    return this.timers.filter((timer) => timer.due !== undefined).length;
  }
}

export class CountedStream implements LimitedStream {
  readonly base: EventBase;
  closed = false;
  _refed = true;
  _settings = { maxRead: 65_536, maxWrite: Infinity };
  _limit: StreamLimit | undefined = undefined;
  held = { read: 0, write: 0 };
  moved = { read: 0, write: 0 };
  /** System calls that it would have made. */
  calls = 0;

  constructor(base: EventBase) {
    this.base = base;
  }
  _holdReading(why: number): void {
    this.held.read |= why;
  }
  _holdWriting(why: number): void {
    this.held.write |= why;
  }
  _releaseReading(why: number): void {
    this.held.read &= ~why;
  }
  _releaseWriting(why: number): void {
    this.held.write &= ~why;
  }

  /** As a stream that may move `most` bytes. */
  move(direction: 'read' | 'write', most: number): number {
    if (this.closed || this.held[direction] !== 0) return 0;
    const room = this._limit?.[direction === 'read' ? 'readRoom' : 'writeRoom']() ?? Infinity;
    const count = Math.min(room, most);
    if (count <= 0) return 0;
    this.calls++;
    this._limit?.took(direction, count);
    this.moved[direction] += count;
    return count;
  }
}
