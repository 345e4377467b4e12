// Bytes that may be moved, saved up at a rate. A bucket fills with the clock and not in steps, as
// libevent's does (bufferevent_ratelim.c), so that what one tick brings does not depend on when a
// tick begins.

import type { RateLimit } from './rate_limit.js';

export type Direction = 'read' | 'write';

/** Fewer bytes than this part of a tick's are not worth a system call. */
const WORTHWHILE = 1 / 4;

export class Bucket {
  readonly rate: number;
  readonly burst: number;
  #tokens: number;
  #at: number;
  /** What a tick brings, as far as it can be saved up. */
  readonly #ticks: number;

  /** As in libevent it begins with a tick's bytes, not with all that could be saved up. */
  constructor(rate: number, burst: number, tick: number, now: number, former?: Bucket) {
    this.rate = rate;
    this.burst = burst;
    this.#at = now;
    this.#ticks = Math.max(1, Math.min(burst, (rate * tick) / 1000));
    // Another limit is no way to new bytes.
    const had = former?.left(now) ?? Infinity;
    this.#tokens = Math.min(burst, had === Infinity ? (rate * tick) / 1000 : had);
  }

  /** Whole bytes; negative when more were taken than there were. */
  left(now: number): number {
    if (this.rate === Infinity) return Infinity;
    this.#tokens = Math.min(this.burst, this.#tokens + (this.rate * (now - this.#at)) / 1000);
    this.#at = now;
    return Math.floor(this.#tokens);
  }
  /** Bytes that may go now, or 0: then wait for `restMs`. */
  room(now: number): number {
    const left = this.left(now);
    return left >= Math.max(1, Math.floor(this.#ticks * WORTHWHILE)) ? left : 0;
  }
  /** Milliseconds until a tick's bytes are there. */
  restMs(now: number): number {
    this.left(now);
    return Math.max(1, ((this.#ticks - this.#tokens) * 1000) / this.rate);
  }
  /** Negative: gives back. */
  take(bytes: number): void {
    if (this.rate !== Infinity) this.#tokens = Math.min(this.burst, this.#tokens - bytes);
  }
}

/** The two buckets of a limit. */
export class Buckets {
  readonly limit: RateLimit;
  readonly read: Bucket;
  readonly write: Bucket;
  constructor(limit: RateLimit, now: number, former?: Buckets) {
    this.limit = limit;
    const { tick } = limit;
    this.read = new Bucket(limit.read, limit.readBurst, tick, now, former?.read);
    this.write = new Bucket(limit.write, limit.writeBurst, tick, now, former?.write);
  }
}
