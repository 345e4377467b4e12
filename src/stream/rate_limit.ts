// Rate limits: token buckets, of one stream and of a group of them (libevent's
// bufferevent_ratelim.c, with two differences: a bucket fills with the clock and not in steps, and
// a group is shared by the members that have something to move, not by all of them).
//
// A stream asks for room before it reads or writes. Without room it rests until the next tick; it
// is asked for nothing while it is idle.

import { Ev } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { checkInteger, checkObject, invalidType, outOfRange } from '../validate.js';
import { Hold } from './hold.js';

/** Milliseconds that a stream without tokens rests, unless the limit says otherwise. */
const TICK_MS = 100;
const TICK_MS_MAX = 60_000;
/** Bytes that a group's member may move at least, however many there are. */
const MIN_SHARE = 64;

export interface RateLimits {
  /** Bytes per second; undefined for no limit. */
  read?: number;
  /** Bytes that may be saved up while nothing is read; one second's by default. */
  readBurst?: number;
  write?: number;
  writeBurst?: number;
  /** Milliseconds between two attempts of a stream that has used up its bytes: 100. */
  tick?: number;
}

type Direction = 'read' | 'write';

/** What a limit has to know of a stream, and to do with it. */
export interface LimitedStream {
  readonly base: EventBase;
  readonly closed: boolean;
  _limit: StreamLimit | undefined;
  _holdReading(why: number): void;
  _holdWriting(why: number): void;
  _releaseReading(why: number): void;
  _releaseWriting(why: number): void;
}

/** What a stream may read and write; many streams may have the same one, each for itself. */
export class RateLimit {
  readonly read: number;
  readonly readBurst: number;
  readonly write: number;
  readonly writeBurst: number;
  readonly tick: number;
  constructor(limits: RateLimits) {
    checkObject('limits', limits);
    [this.read, this.readBurst] = rateOf(limits, 'read', 'readBurst');
    [this.write, this.writeBurst] = rateOf(limits, 'write', 'writeBurst');
    this.tick = checkInteger('limits.tick', limits.tick ?? TICK_MS, 1, TICK_MS_MAX);
  }
}

function rateOf(limits: RateLimits, name: Direction, burstName: 'readBurst' | 'writeBurst') {
  const { [name]: rate, [burstName]: burst } = limits;
  if (rate !== undefined) checkInteger(`limits.${name}`, rate, 1);
  if (burst === undefined) return [rate ?? Infinity, rate ?? Infinity];
  checkInteger(`limits.${burstName}`, burst, 1);
  if (rate === undefined || burst < rate / 1000)
    throw outOfRange(`limits.${burstName}`, `>= a millisecond of limits.${name}`, burst);
  return [rate, burst];
}

class Bucket {
  #tokens: number;
  #at: number;
  readonly #rate: number;
  readonly #burst: number;
  constructor(rate: number, burst: number, tick: number, now: number) {
    this.#rate = rate;
    this.#burst = burst;
    this.#at = now;
    // As in libevent it begins with a tick's worth and not with all that could be saved up.
    this.#tokens = Math.min(burst, (rate * tick) / 1000);
  }
  /** Whole bytes that may go now. */
  room(now: number): number {
    if (this.#rate === Infinity) return Infinity;
    this.#tokens = Math.min(this.#burst, this.#tokens + (this.#rate * (now - this.#at)) / 1000);
    this.#at = now;
    return Math.floor(this.#tokens);
  }
  take(bytes: number): void {
    if (this.#rate !== Infinity) this.#tokens -= bytes;
  }
}

/** The two buckets of a limit. */
class Buckets {
  readonly limit: RateLimit;
  readonly read: Bucket;
  readonly write: Bucket;
  constructor(limit: RateLimit, now: number) {
    this.limit = limit;
    this.read = new Bucket(limit.read, limit.readBurst, limit.tick, now);
    this.write = new Bucket(limit.write, limit.writeBurst, limit.tick, now);
  }
}

/** A stream's part: its own limit, its group, and the timer that wakes it. */
export class StreamLimit {
  readonly #stream: LimitedStream;
  #own: Buckets | undefined;
  #group: RateLimitGroup | undefined;
  #timer: EventHandle | undefined;

  constructor(stream: LimitedStream) {
    this.#stream = stream;
  }

  get own(): RateLimit | undefined {
    return this.#own?.limit;
  }
  get group(): RateLimitGroup | undefined {
    return this.#group;
  }
  set(limit: RateLimit | undefined): void {
    this.#own = limit && new Buckets(limit, this.#stream.base.now());
    this.#release();
  }
  join(group: RateLimitGroup | undefined): void {
    this.#group?._leave(this);
    this.#group = group;
    this.#release();
  }
  get useless(): boolean {
    return this.#own === undefined && this.#group === undefined;
  }
  leave(): void {
    this.#group?._leave(this);
    this.#group = undefined;
    this.#timer?.free();
  }

  readRoom(): number {
    const room = this.#room('read');
    if (room <= 0) this.#stream._holdReading(Hold.LIMIT);
    return room;
  }
  writeRoom(): number {
    const room = this.#room('write');
    if (room <= 0) this.#stream._holdWriting(Hold.LIMIT);
    return room;
  }
  took(direction: Direction, bytes: number): void {
    this.#own?.[direction].take(bytes);
    this.#group?._took(direction, bytes);
  }
  /** What is left, negative after more was taken; Infinity without a limit. */
  left(direction: Direction): number {
    return this.#own?.[direction].room(this.#stream.base.now()) ?? Infinity;
  }

  #room(direction: Direction): number {
    const own = this.left(direction);
    const share = this.#group?._share(direction, this) ?? Infinity;
    const room = Math.min(own, share);
    if (room <= 0) this.#rest(own <= 0 ? (this.#own?.limit.tick ?? 0) : 0, share <= 0);
    return room;
  }

  /** The group wakes its members together; a limit of its own wakes the stream itself. */
  #rest(tick: number, inGroup: boolean): void {
    if (inGroup) this.#group?._wait(this);
    if (tick === 0) return;
    this.#timer ??= this.#stream.base.timer(() => this.#release());
    if (this.#timer.pending(Ev.TIMEOUT) === 0) this.#timer.add(tick);
  }
  /** @internal The group has something to share again. */
  _wake(): void {
    this.#release();
  }
  #release(): void {
    this.#stream._releaseReading(Hold.LIMIT);
    this.#stream._releaseWriting(Hold.LIMIT);
  }
}

/** Streams of one base that share a limit, beside those that they may have each for itself. */
export class RateLimitGroup implements Disposable {
  readonly base: EventBase;
  readonly minShare: number;
  #buckets: Buckets;
  readonly #members = new Map<LimitedStream, StreamLimit>();
  readonly #timer: EventHandle;
  #waiting = new Set<StreamLimit>();
  // Who has asked in this tick and in the one before: what there is is divided by their number.
  #asked = new Set<StreamLimit>();
  #askedBefore = 0;
  #tickEnds = 0;
  #totals = { read: 0, written: 0 };

  constructor(base: EventBase, limits: RateLimits, options: { minShare?: number } = {}) {
    checkObject('options', options);
    this.base = base;
    this.minShare = checkInteger('options.minShare', options.minShare ?? MIN_SHARE, 1);
    this.#buckets = new Buckets(new RateLimit(limits), base.now());
    this.#timer = base.timer(() => this.#wakeAll());
  }

  /** Takes the stream out of another group first. */
  add(bev: LimitedStream): void {
    checkStream(bev);
    if (bev.base !== this.base) throw invalidType('bev', "a stream of the group's own base", bev);
    if (bev.closed || this.#members.has(bev)) return;
    bev._limit ??= new StreamLimit(bev);
    bev._limit.join(this);
    this.#members.set(bev, bev._limit);
  }
  remove(bev: LimitedStream): void {
    checkStream(bev);
    const limit = this.#members.get(bev);
    if (limit === undefined) return;
    limit.join(undefined);
    if (limit.useless) bev._limit = undefined;
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
    this.#buckets = new Buckets(new RateLimit(limits), this.base.now());
    this.#wakeAll();
  }
  /** What is left to share. */
  left(direction: Direction): number {
    return this.#buckets[direction].room(this.base.now());
  }

  /** Every member leaves. */
  close(): void {
    for (const bev of [...this.#members.keys()]) this.remove(bev);
    this.#timer.free();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  /** @internal */
  _share(direction: Direction, member: StreamLimit): number {
    const now = this.base.now();
    if (now >= this.#tickEnds) {
      this.#tickEnds = now + this.#buckets.limit.tick;
      this.#askedBefore = this.#asked.size;
      this.#asked = new Set();
    }
    this.#asked.add(member);
    const room = this.#buckets[direction].room(now);
    if (room <= 0 || room === Infinity) return room;
    const among = Math.max(this.#asked.size, this.#askedBefore);
    return Math.min(room, Math.max(this.minShare, Math.floor(room / among)));
  }
  /** @internal */
  _took(direction: Direction, bytes: number): void {
    this.#buckets[direction].take(bytes);
    if (direction === 'read') this.#totals.read += bytes;
    else this.#totals.written += bytes;
  }
  /** @internal */
  _wait(member: StreamLimit): void {
    this.#waiting.add(member);
    if (this.#timer.pending(Ev.TIMEOUT) === 0) this.#timer.add(this.#buckets.limit.tick);
  }
  /** @internal */
  _leave(member: StreamLimit): void {
    this.#waiting.delete(member);
    this.#asked.delete(member);
    for (const [bev, limit] of this.#members) if (limit === member) this.#members.delete(bev);
  }

  /** In turn: who waited longest is first, since a set keeps the order. */
  #wakeAll(): void {
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const member of waiting) member._wake();
  }
}

function checkStream(bev: unknown): void {
  if (typeof (bev as LimitedStream | undefined)?._holdReading !== 'function')
    throw invalidType('bev', 'an instance of BufferEvent', bev);
}
