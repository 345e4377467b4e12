// Rate limits: how many bytes a stream may move in a second (libevent's ev_token_bucket_cfg). What
// counts them is in token_bucket.ts, what holds a stream in stream_limit.ts.

import type { EventBase } from '../event/event_base.js';
import { checkInteger, checkObject, checkOneOf, invalidType, outOfRange } from '../validate.js';
import type { RateLimitGroup } from './rate_limit_group.js';
import type { StreamLimit } from './stream_limit.js';
import type { Direction } from './token_bucket.js';

/** Milliseconds that a stream without bytes rests, unless the limit says otherwise. */
const TICK_MS = 100;
const TICK_MS_MAX = 60_000;
/** Bytes a second and in a burst, at most: sums of them stay exact. */
const RATE_MAX = 2 ** 48;

export interface RateLimits {
  /** Bytes per second; undefined for no limit. */
  read?: number;
  /**
   * Bytes that may be saved up while nothing is read; one second's by default. A rate is kept up
   * only if it covers what comes while the stream rests, at least some milliseconds.
   */
  readBurst?: number;
  write?: number;
  writeBurst?: number;
  /** Milliseconds between two attempts of a stream that has used up its bytes: 100. */
  tick?: number;
}

/** What a limit has to know of a stream, and to do with it. */
export interface LimitedStream {
  readonly base: EventBase;
  readonly closed: boolean;
  /** A filter's limits are those of the stream below. */
  readonly under?: LimitedStream;
  readonly _refed: boolean;
  readonly _settings: { readonly maxRead: number; readonly maxWrite: number };
  _limit: StreamLimit | undefined;
  _holdReading(why: number): void;
  _holdWriting(why: number): void;
  _releaseReading(why: number): void;
  _releaseWriting(why: number): void;
}

/** What a stream may move. Any number of streams may have the same one, each for itself. */
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

  /** Bytes of the stream's own limit that are left; negative after too many, Infinity for none. */
  static left(bev: LimitedStream, direction: Direction): number {
    checkDirection(direction);
    return limited(bev)._limit?.left(direction) ?? Infinity;
  }
  /** Bytes that one read or write would move at most now, by its limit, its group and maxRead. */
  static room(bev: LimitedStream, direction: Direction): number {
    checkDirection(direction);
    const { _limit, _settings } = limited(bev);
    const most = direction === 'read' ? _settings.maxRead : _settings.maxWrite;
    return Math.max(0, Math.min(most, _limit?.peek(direction) ?? Infinity));
  }
  /**
   * Takes bytes off the stream's own limit as if they had been moved, or gives them back if there
   * are less than 0, which may wake it. False for a stream without a limit of its own.
   */
  static charge(bev: LimitedStream, direction: Direction, bytes: number): boolean {
    checkDirection(direction);
    checkInteger('bytes', bytes, -RATE_MAX, RATE_MAX);
    return limited(bev)._limit?.charge(direction, bytes) ?? false;
  }
  static group(bev: LimitedStream): RateLimitGroup | undefined {
    return limited(bev)._limit?.group;
  }
}

function rateOf(limits: RateLimits, name: Direction, burstName: 'readBurst' | 'writeBurst') {
  const { [name]: rate, [burstName]: burst } = limits;
  if (rate !== undefined) checkInteger(`limits.${name}`, rate, 1, RATE_MAX);
  if (burst === undefined) return [rate ?? Infinity, rate ?? Infinity];
  checkInteger(`limits.${burstName}`, burst, 1, RATE_MAX);
  if (rate === undefined || burst < rate / 1000)
    throw outOfRange(`limits.${burstName}`, `>= a millisecond of limits.${name}`, burst);
  return [rate, burst];
}

/** The stream whose bytes are counted. */
export function limited(bev: LimitedStream): LimitedStream {
  if (typeof bev?._holdReading !== 'function')
    throw invalidType('bev', 'an instance of BufferEvent', bev);
  let stream = bev;
  while (stream.under !== undefined) stream = stream.under;
  return stream;
}

export function checkDirection(direction: Direction): void {
  checkOneOf('direction', direction, ['read', 'write']);
}
