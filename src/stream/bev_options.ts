// What a stream is made with, and what it tells.

import { MultiloopError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import { checkInteger, invalidType, outOfRange } from '../validate.js';
import type { BufferEvent } from './buffer_event.js';
import type { RateLimit } from './rate_limit.js';

/** Called with the stream; `this` is the object of handlers. None is called after close(). */
export interface BevHandlers {
  /** There is input, at least as much as the low watermark says. */
  read?(bev: BufferEvent): void;
  /** The output has drained to its low watermark (0). */
  write?(bev: BufferEvent): void;
  event?(bev: BufferEvent, event: BevEvent): void;
}

/** What happened besides data. With `direction`, only that one is over, and it is disabled. */
export interface BevEvent {
  connected?: true;
  eof?: true;
  timeout?: true;
  error?: Error;
  direction?: 'read' | 'write';
}

export type FlushMode = 'normal' | 'flush' | 'finished';

export interface BevOptions {
  handlers?: BevHandlers;
  /** Every callback waits for the next pass, and several reasons for one are one call. */
  defer?: boolean;
  /** True unless said otherwise: close() closes the descriptor, or what a filter is on. */
  closeFd?: boolean;
  /** Of its events; 0 is the most urgent, the middle one is the default. */
  priority?: number;
  rateLimit?: RateLimit;
}

export function checkDirections(mask: EvMask): void {
  checkInteger('mask', mask, 0, 0xff);
  if (mask & ~(Ev.READ | Ev.WRITE))
    throw new MultiloopError(
      'ERR_BAD_MASK',
      `A direction is Ev.READ, Ev.WRITE or both; got 0x${mask.toString(16)}`,
    );
}

export function checkFlushMode(mode: unknown): void {
  if (mode !== 'normal' && mode !== 'flush' && mode !== 'finished')
    throw invalidType('mode', "'normal', 'flush' or 'finished'", mode);
}

export function checkOrder(low: number, high: number): void {
  if (high > 0 && low > high) throw outOfRange('low', `<= ${high}, the high watermark`, low);
}
