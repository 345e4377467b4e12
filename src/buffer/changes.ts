// Who is told that a buffer has changed, with what was added and removed: inside the call, once a
// call, or from the base's next pass, once for all calls until then (libevent's
// evbuffer_defer_callbacks).

import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { guarded } from '../guard.js';

/** Bytes: `before + added - removed` is the length after it. */
export interface BufferChange {
  /** The length before; of a deferred callback, before the first of the changes it tells. */
  before: number;
  added: number;
  removed: number;
}
export type ChangeCallback = (change: BufferChange) => void;

interface Listener {
  callback: ChangeCallback;
  ended: boolean;
  /** Deferred: the event whose callback tells it, and what has come together until then. */
  event?: EventHandle;
  pending?: BufferChange;
}

export class Changes {
  #listeners: readonly Listener[] = [];

  listen(callback: ChangeCallback, base: EventBase | undefined): Disposable {
    const listener: Listener = { callback, ended: false };
    if (base !== undefined) {
      listener.event = base.event(-1, 0, () => {
        const { pending } = listener;
        listener.pending = undefined;
        if (pending !== undefined) callback(pending);
      });
    }
    this.#listeners = [...this.#listeners, listener];
    return {
      [Symbol.dispose]: () => {
        this.#listeners = this.#listeners.filter((one) => one !== listener);
        end(listener);
      },
    };
  }

  /** Nobody is told any more, also not what is pending. */
  end(): void {
    for (const listener of this.#listeners) end(listener);
    this.#listeners = [];
  }

  tell(before: number, added: number, removed: number): void {
    // Those that were there when it changed: a callback may add and remove any.
    for (const listener of this.#listeners) {
      const { event } = listener;
      if (listener.ended) continue;
      if (event === undefined) {
        guarded(() => listener.callback({ before, added, removed }));
        continue;
      }
      // Also when its base was closed.
      if (event._freed) continue;
      listener.pending ??= { before, added: 0, removed: 0 };
      listener.pending.added += added;
      listener.pending.removed += removed;
      event.activate(WAKE);
    }
  }
}

function end(listener: Listener): void {
  listener.ended = true;
  listener.event?.free();
}

/** What activates the event of a deferred callback; nobody sees it. */
const WAKE = 0x01;
