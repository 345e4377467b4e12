// What keeps a base's loop from ending as empty while a stream of Node's hangs on it. Such a stream
// may have no event there for a while (its consumer is slow, or the other side has no descriptor)
// and goes on when Node says so; a loop that had ended by then would leave it standing.

import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { MILLIS_MAX } from '../validate.js';

interface Keeper {
  readonly timer: EventHandle;
  streams: number;
}

const keepers = new WeakMap<EventBase, Keeper>();

/**
 * The loop of `base` goes on until the answer is called, once. It does not keep the process alive:
 * that is for what the stream waits for.
 */
export function keepRunning(base: EventBase): () => void {
  let keeper = keepers.get(base);
  if (keeper === undefined) {
    keeper = { timer: base.timer(() => undefined).unref(), streams: 0 };
    keepers.set(base, keeper);
  }
  const { timer } = keeper;
  const kept = keeper;
  if (kept.streams++ === 0) timer.add(MILLIS_MAX);
  return () => {
    if (--kept.streams === 0) timer.del();
  };
}
