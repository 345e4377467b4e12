// Timeouts that many events share: a queue each, in which adding and removing cost the same however
// many wait. libevent hands out a magic timeval for this; here it is an object of its base.

import { systemError } from '../errors.js';
import { native } from '../native.js';
import { checkMillis } from '../validate.js';
import type { EventBase } from './event_base.js';

/** A duration with a queue of its own: `event.add(base.commonTimeout(30_000))`. */
export interface CommonTimeout {
  /** Milliseconds. */
  readonly ms: number;
}

/** @internal */
export class CommonQueue implements CommonTimeout {
  readonly ms: number;
  readonly _base: EventBase;
  /** What stands for it in a call of eventAdd. */
  readonly _code: number;

  constructor(base: EventBase, ms: number, index: number) {
    this._base = base;
    this.ms = ms;
    this._code = -2 - index;
  }
}

/** The same object for the same duration, of which a base has 1,024 at most (ENOSPC). */
export function commonTimeout(
  base: EventBase,
  known: Map<number, CommonQueue>,
  ms: number,
): CommonTimeout {
  const micros = checkMillis('ms', ms);
  const found = known.get(micros);
  if (found !== undefined) return found;
  const index = native.commonTimeout(base._id, micros);
  if (index < 0) throw systemError(index, 'event_base_init_common_timeout');
  const made = new CommonQueue(base, micros / 1000, index);
  known.set(micros, made);
  return made;
}
