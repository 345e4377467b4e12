// Streams that share a limit. Time is divided into rounds of a tick. What there is at the beginning
// of a round is divided by the number of members that wanted more than they got in the round
// before, and each may take so much in it. So an idle member takes nothing from the others, and one
// that is new or wants little waits for a round at most; libevent divides by all members.

import { MultiloopError } from '../errors.js';
import { Ev } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { checkInteger, checkObject, invalidValue } from '../validate.js';
import {
  checkDirection,
  type LimitedStream,
  limited,
  RateLimit,
  type RateLimits,
} from './rate_limit.js';
import { StreamLimit } from './stream_limit.js';
import { type Bucket, Buckets, type Direction } from './token_bucket.js';

/** Bytes that a member may move at least, however many there are. */
const MIN_SHARE = 64;

/** One direction's part of a round. */
interface Part {
  share: number;
  /** Who may move anything, when there is not enough for all that want it. */
  turn: Set<StreamLimit> | undefined;
  readonly taken: Map<StreamLimit, number>;
  readonly hungry: Set<StreamLimit>;
}
const newPart = (): Part => ({
  share: 0,
  turn: undefined,
  taken: new Map(),
  hungry: new Set(),
});

/** For streams of one base, beside the limits that they may have each for itself. */
export class RateLimitGroup implements Disposable {
  readonly base: EventBase;
  #minShare: number;
  #buckets: Buckets;
  readonly #members = new Set<StreamLimit>();
  readonly #timer: EventHandle;
  #waiting = new Set<StreamLimit>();
  readonly #parts = { read: newPart(), write: newPart() };
  #roundEnds = -1;
  #turns = 0;
  #totals = { read: 0, written: 0 };

  constructor(base: EventBase, limits: RateLimits, options: { minShare?: number } = {}) {
    checkObject('options', options);
    this.base = base;
    this.#minShare = checkMinShare(options.minShare ?? MIN_SHARE);
    this.#buckets = new Buckets(new RateLimit(limits), base.now());
    this.#timer = base.timer(() => this.#wakeAll());
  }

  /** Takes the stream out of another group first. A filter stands for the stream below it. */
  add(bev: LimitedStream): void {
    const stream = limited(bev);
    if (stream.base !== this.base) throw invalidValue('bev', 'is a stream of another base', bev);
    if (this.#timer._freed && !this.base._closed)
      throw new MultiloopError('ERR_EVENT_FREED', 'The rate limit group was closed');
    if (stream.closed || stream._limit?.group === this) return;
    stream._limit ??= new StreamLimit(stream);
    stream._limit.join(this);
    this.#members.add(stream._limit);
  }
  remove(bev: LimitedStream): void {
    const { _limit: limit } = limited(bev);
    if (limit !== undefined && this.#members.has(limit)) this.#remove(limit);
  }
  #remove(limit: StreamLimit): void {
    limit.join(undefined);
    if (limit.useless) limit.stream._limit = undefined;
  }
  get size(): number {
    return this.#members.size;
  }

  /** Bytes of all members while they were in it. */
  get totals(): { readonly read: number; readonly written: number } {
    return { ...this.#totals };
  }
  resetTotals(): void {
    this.#totals = { read: 0, written: 0 };
  }

  get limits(): RateLimit {
    return this.#buckets.limit;
  }
  setLimits(limits: RateLimits): void {
    this.#buckets = new Buckets(new RateLimit(limits), this.base.now(), this.#buckets);
    this.#newRound();
  }
  /** Bytes that a member may move at least in a round in which there are so many: 64. */
  get minShare(): number {
    return this.#minShare;
  }
  set minShare(value: number) {
    this.#minShare = checkMinShare(value);
  }

  /** Bytes that are left to share; negative after too many, Infinity without a limit. */
  left(direction: Direction): number {
    checkDirection(direction);
    return this.#buckets[direction].left(this.base.now());
  }
  /** Takes bytes as if a member had moved them, or gives them back if there are less than 0. */
  charge(direction: Direction, bytes: number): void {
    checkDirection(direction);
    checkInteger('bytes', bytes, Number.MIN_SAFE_INTEGER);
    this.#buckets[direction].take(bytes);
    if (bytes < 0) this.#newRound();
  }

  /** Every member leaves. */
  close(): void {
    for (const limit of [...this.#members]) this.#remove(limit);
    this.#timer.free();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  // ── for members ──

  /** @internal 0 when there is nothing for it: then it is woken in the next round. */
  _share(direction: Direction, member: StreamLimit, now: number): number {
    const bucket = this.#buckets[direction];
    if (bucket.rate === Infinity) return Infinity;
    if (now >= this.#roundEnds) this.#beginRound(now);
    const room = this.#roomFor(direction, member, bucket.left(now));
    if (room > 0) return room;
    this.#parts[direction].hungry.add(member);
    this.#wait(member, now);
    return 0;
  }
  /** @internal As _share, without consequences. */
  _peek(direction: Direction, member: StreamLimit): number {
    const bucket = this.#buckets[direction];
    if (bucket.rate === Infinity) return Infinity;
    const now = this.base.now();
    const left = bucket.left(now);
    if (now < this.#roundEnds) return this.#roomFor(direction, member, left);
    return Math.min(left, this.#shareOf(this.#parts[direction], left));
  }
  #roomFor(direction: Direction, member: StreamLimit, left: number): number {
    const { share, taken, turn } = this.#parts[direction];
    if (turn?.has(member) === false) return 0;
    if (left < this.#least(direction)) return 0;
    return Math.max(0, Math.min(left, share - (taken.get(member) ?? 0)));
  }
  /** Crumbs of what others have taken are not worth a system call. */
  #least(direction: Direction): number {
    return Math.max(1, Math.min(this.#minShare, this.#buckets[direction].burst));
  }
  #shareOf({ hungry }: Part, left: number): number {
    return Math.max(this.#minShare, Math.floor(left / Math.max(1, hungry.size)));
  }

  #beginRound(now: number): void {
    this.#roundEnds = now + this.#roundMs();
    for (const direction of ['read', 'write'] as const) {
      const part = this.#parts[direction];
      const left = this.#buckets[direction].left(now);
      part.share = this.#shareOf(part, left);
      part.turn = this.#turnOf(direction, left);
      part.hungry.clear();
      part.taken.clear();
    }
  }
  /** Those that have waited longest, as many as there is a share for. */
  #turnOf(direction: Direction, left: number): Set<StreamLimit> | undefined {
    const { hungry, share } = this.#parts[direction];
    // Nobody's turn passes in a round in which there is nothing.
    const shares = left < this.#least(direction) ? 0 : Math.max(1, Math.floor(left / share));
    if (hungry.size <= shares) return undefined;
    const inTurn = [...hungry].sort((a, b) => a._turn - b._turn).slice(0, shares);
    for (const member of inTurn) member._turn = ++this.#turns;
    return new Set(inTurn);
  }
  /** A tick, or less where no more than that can be saved up. */
  #roundMs(): number {
    const { read, write, limit } = this.#buckets;
    const fills = ({ rate, burst }: Bucket) =>
      rate === Infinity ? Infinity : (burst * 1000) / rate;
    return Math.max(1, Math.min(limit.tick, fills(read), fills(write)));
  }

  /** @internal */
  _took(direction: Direction, member: StreamLimit, bytes: number): void {
    this.#buckets[direction].take(bytes);
    const { taken } = this.#parts[direction];
    taken.set(member, (taken.get(member) ?? 0) + bytes);
    if (direction === 'read') this.#totals.read += bytes;
    else this.#totals.written += bytes;
  }
  #wait(member: StreamLimit, now: number): void {
    const timer = this.#timer;
    if (this.#waiting.size === 0) timer.unref();
    this.#waiting.add(member);
    if (member.stream._refed) timer.ref();
    if (timer.pending(Ev.TIMEOUT) === 0) timer.add(Math.max(1, this.#roundEnds - now));
  }
  /** @internal */
  _leave(member: StreamLimit): void {
    this.#members.delete(member);
    this.#waiting.delete(member);
    for (const part of [this.#parts.read, this.#parts.write]) {
      part.hungry.delete(member);
      part.taken.delete(member);
    }
    // Nobody waits, so nothing has to stay awake.
    if (this.#waiting.size === 0) this.#timer.del();
  }

  #newRound(): void {
    this.#roundEnds = -1;
    this.#timer.del();
    this.#wakeAll();
  }
  /** In turn: who has waited longest is first, since a set keeps the order. */
  #wakeAll(): void {
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const member of waiting) member._wake();
  }
}

function checkMinShare(value: number): number {
  return checkInteger('minShare', value, 1);
}
