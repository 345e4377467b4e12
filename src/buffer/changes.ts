// Who is told that a buffer has changed, with what was added and removed: inside the call, once a
// call, or from the base's next pass, once for all calls until then (libevent's
// evbuffer_defer_callbacks).

import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';

export interface BufferChange {
  /** The length before. */
  before: number;
  added: number;
  removed: number;
}
export type ChangeCallback = (change: BufferChange) => void;

interface Listener {
  callback: ChangeCallback;
  /** Deferred: the event whose callback tells it, and what has come together until then. */
  event?: EventHandle;
  pending?: BufferChange;
}

export class Changes {
  #listeners: readonly Listener[] = [];

  get empty(): boolean {
    return this.#listeners.length === 0;
  }

  listen(callback: ChangeCallback, base: EventBase | undefined): Disposable {
    const listener: Listener = { callback };
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
        listener.event?.free();
      },
    };
  }

  tell(before: number, added: number, removed: number): void {
    // Those that were there when it changed: a callback may add and remove any.
    for (const listener of this.#listeners) {
      const { event } = listener;
      if (event === undefined) {
        if (this.#listeners.includes(listener)) listener.callback({ before, added, removed });
        continue;
      }
      if (event.base._closed) continue;
      listener.pending ??= { before, added: 0, removed: 0 };
      listener.pending.added += added;
      listener.pending.removed += removed;
      event.activate(WAKE);
    }
  }
}

/** What activates the event of a deferred callback; nobody sees it. */
const WAKE = 0x01;
