// A stream's part of the limits: its own, its group, and the timer that wakes it. A stream asks for
// room before it reads or writes; without room it rests, and while it is idle it is asked nothing.

import { Ev } from '../event/ev.js';
import type { EventHandle } from '../event/event_handle.js';
import { invalidType } from '../validate.js';
import { Hold } from './hold.js';
import { type LimitedStream, RateLimit } from './rate_limit.js';
import type { RateLimitGroup } from './rate_limit_group.js';
import { Buckets, type Direction } from './token_bucket.js';

/** The longest rest: a limit that was overdrawn by far is looked at again. */
const REST_MS_MAX = 3_600_000;

export class StreamLimit {
  readonly stream: LimitedStream;
  /** @internal When it had its turn in a group that has not enough for all. */ _turn = 0;
  #own: Buckets | undefined;
  #group: RateLimitGroup | undefined;
  #timer: EventHandle | undefined;

  constructor(stream: LimitedStream) {
    this.stream = stream;
  }

  get own(): RateLimit | undefined {
    return this.#own?.limit;
  }
  get group(): RateLimitGroup | undefined {
    return this.#group;
  }
  get useless(): boolean {
    return this.#own === undefined && this.#group === undefined;
  }

  set(limit: RateLimit | undefined): void {
    if (limit !== undefined && limit === this.own) return;
    this.#own = limit && new Buckets(limit, this.stream.base.now(), this.#own);
    this.#changed();
  }
  join(group: RateLimitGroup | undefined): void {
    this.#group?._leave(this);
    this.#group = group;
    this.#changed();
  }
  #changed(): void {
    this.#timer?.del();
    if (this.useless) this.#freeTimer();
    this._wake();
  }
  /** The stream is closed. */
  leave(): void {
    this.#group?._leave(this);
    this.#group = undefined;
    this.#freeTimer();
  }
  #freeTimer(): void {
    this.#timer?.free();
    this.#timer = undefined;
  }

  readRoom(): number {
    const room = this.#room('read');
    if (room === 0) this.stream._holdReading(Hold.LIMIT);
    return room;
  }
  writeRoom(): number {
    const room = this.#room('write');
    if (room === 0) this.stream._holdWriting(Hold.LIMIT);
    return room;
  }
  took(direction: Direction, bytes: number): void {
    this.#own?.[direction].take(bytes);
    this.#group?._took(direction, this, bytes);
  }

  left(direction: Direction): number {
    return this.#own?.[direction].left(this.stream.base.now()) ?? Infinity;
  }
  /** As #room, without consequences. */
  peek(direction: Direction): number {
    const share = this.#group?._peek(direction, this) ?? Infinity;
    return Math.min(this.left(direction), share);
  }
  charge(direction: Direction, bytes: number): boolean {
    if (this.#own === undefined) return false;
    this.#own[direction].take(bytes);
    if (bytes < 0) this._wake();
    return true;
  }

  /** 0 when there is none: then something wakes the stream. */
  #room(direction: Direction): number {
    const { base } = this.stream;
    // Nothing wakes anybody any more; a stream that is closed tries once to write what it has.
    if (base._closed) return Infinity;
    const now = base.now();
    const bucket = this.#own?.[direction];
    const own = bucket?.room(now) ?? Infinity;
    if (own === 0) {
      this.#rest(bucket?.restMs(now) ?? 0);
      return 0;
    }
    // Who cannot move anything by its own limit takes nothing from the others either.
    return Math.min(own, this.#group?._share(direction, this, now) ?? Infinity);
  }

  #rest(ms: number): void {
    const { base, _refed } = this.stream;
    this.#timer ??= base.timer(() => this._wake());
    if (_refed) this.#timer.ref();
    else this.#timer.unref();
    const rest = Math.min(ms, REST_MS_MAX);
    const waits = this.#timer.pending(Ev.TIMEOUT) ? (this.#timer.remaining ?? 0) : Infinity;
    if (rest < waits) this.#timer.add(rest);
  }
  /** @internal There may be room again. */
  _wake(): void {
    if (this.stream.closed || this.stream.base._closed) return;
    this.stream._releaseReading(Hold.LIMIT);
    this.stream._releaseWriting(Hold.LIMIT);
  }
}

/** What limits the stream when its own limit is `limit`; undefined for nothing at all. */
export function limitOf(
  stream: LimitedStream,
  limit: RateLimit | undefined,
): StreamLimit | undefined {
  if (limit !== undefined && !(limit instanceof RateLimit))
    throw invalidType('limit', 'an instance of RateLimit', limit);
  const { _limit: former } = stream;
  if (stream.closed || (limit === undefined && former === undefined)) return former;
  const now = former ?? new StreamLimit(stream);
  now.set(limit);
  return now.useless ? undefined : now;
}
