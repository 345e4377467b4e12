// What a filter is: two functions that move bytes from one buffer to another and change them on
// the way. One that cannot answer within the call (see transform_filter.ts) has a lane besides.

import type { EvBuffer } from '../buffer/ev_buffer.js';
import { checkFunction, checkObject, invalidType } from '../validate.js';
import type { FlushMode } from './bev_options.js';

/**
 * 'ok': call again while there is data. 'need-more': what is left in `from` makes no sense yet, so
 * call again when there is more.
 */
export type FilterResult = 'ok' | 'need-more';

/**
 * Takes from the front of `from` and adds to the end of `to`: the stream's own buffers, so that
 * what is moved with addBuffer() is not copied. It is called within a pass, in write() and end()
 * outside a pass, and in flush(). What it throws is told as an event with the error.
 *
 * mode 'normal': there is data. 'flush': give out what you can, perhaps without new data.
 * 'finished': once, there will be no more; what is left in `from` then is an error.
 */
export type FilterFunction = (from: EvBuffer, to: EvBuffer, mode: FlushMode) => FilterResult;

/** A direction without a function is passed through. `this` of the functions is the object. */
export interface BevFilter {
  /** From the stream below to the filter's input. */
  input?: FilterFunction;
  /** From the filter's output to the stream below. */
  output?: FilterFunction;
}

/**
 * What a lane's function may answer besides. 'more': call again as long as there is room, with or
 * without data. 'later': the lane says so itself when there is more to come or more is wanted.
 */
export type LaneResult = FilterResult | 'more' | 'later';

/** The part of a filter function that works between its calls. */
export interface Lane {
  /** Something is going on that will call `again`, so the loop has to go on. */
  readonly busy: boolean;
  /** Once, by the stream that uses the function. */
  attach(again: () => void): void;
  close(): void;
}

/**
 * Bytes that wait for a filter that needs more of them, or for somebody to take them from a lane:
 * more is a broken filter or an attack. A high watermark of the stream below is the limit instead
 * of this one, for the input.
 */
export const FILTER_HELD_BYTES_MAX = 16 * 1024 * 1024;

const lanes = new WeakMap<FilterFunction, Lane>();

/** The function that is a lane's. */
export function laneFunction(
  lane: Lane,
  run: (from: EvBuffer, to: EvBuffer, mode: FlushMode) => LaneResult,
): FilterFunction {
  const filter = run as FilterFunction;
  lanes.set(filter, lane);
  return filter;
}
export function laneOf(filter: FilterFunction | undefined): Lane | undefined {
  return filter === undefined ? undefined : lanes.get(filter);
}

export function checkFilter(filter: BevFilter): BevFilter {
  checkObject('filter', filter);
  for (const name of ['input', 'output'] as const)
    if (filter[name] !== undefined) checkFunction(`filter.${name}`, filter[name]);
  return filter;
}

/** Node's error for a callback that answers what it must not. */
export function checkResult(name: string, result: unknown, lane: Lane | undefined): LaneResult {
  if (result === 'ok' || result === 'need-more') return result;
  if (lane !== undefined && (result === 'more' || result === 'later')) return result;
  const { message } = invalidType(`result of filter.${name}`, "'ok' or 'need-more'", result);
  throw Object.assign(new TypeError(message), { code: 'ERR_INVALID_RETURN_VALUE' });
}
