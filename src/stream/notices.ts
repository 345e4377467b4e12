// What a stream has still to tell its handlers: callbacks run in a dispatch pass and never inside
// the call that caused them. Made when there is something to tell, so that an idle stream has none.

import { Ev, type EvMask } from '../event/ev.js';
import type { EventHandle } from '../event/event_handle.js';
import type { BevEvent } from './bev_options.js';
import type { BufferEvent } from './buffer_event.js';

/** What activates the event; nobody sees it. */
const WAKE = Ev.TIMEOUT;

export class Notices {
  readonly #stream: BufferEvent;
  readonly #event: EventHandle;
  #told = 0;
  #events: BevEvent[] = [];
  /** The stream is closed, and somebody wants to know that it is. */
  #last: { error: Error | undefined } | undefined = undefined;

  constructor(stream: BufferEvent) {
    this.#stream = stream;
    this.#event = stream.base._event(-1, 0, this.#deliver, stream.priority, this);
  }

  get empty(): boolean {
    return this.#told === 0 && this.#events.length === 0 && this.#last === undefined;
  }
  set priority(value: number) {
    // An active event keeps its place; it is told at the new priority the next time.
    if (!this.#event._freed && this.#event._active === 0) this.#event.priority = value;
  }

  tell(what: EvMask): void {
    this.#told |= what;
    this.#event.activate(WAKE);
  }
  tellEvent(event: BevEvent): void {
    if (event.connected) this.#events.unshift(event);
    else this.#events.push(event);
    this.#event.activate(WAKE);
  }
  /** Nothing but this is told any more. */
  tellClosed(error: Error | undefined): void {
    this.#told = 0;
    this.#events = [];
    this.#last = { error };
    this.#event.activate(WAKE);
  }
  free(): void {
    this.#event.free();
  }

  /** libevent's order of deferred callbacks: connected, read, write, the rest. */
  #deliver(): void {
    const stream = this.#stream;
    try {
      while (this.#tellNext()) if (stream.base._closed) return;
    } finally {
      if (!stream.base._closed) {
        // A callback that throws costs no other one.
        if (!this.empty) this.#event.activate(WAKE);
        else if (stream.closed) this.free();
      }
    }
  }

  #tellNext(): boolean {
    const stream = this.#stream;
    if (this.#last !== undefined) {
      const { error } = this.#last;
      this.#last = undefined;
      stream._tellClosed(error);
      return false;
    }
    if (this.#events[0]?.connected) stream._callEvent(this.#events.shift() as BevEvent);
    else if (this.#take(Ev.READ)) stream._callRead();
    else if (this.#take(Ev.WRITE)) stream._callWrite();
    else if (this.#events.length > 0) stream._callEvent(this.#events.shift() as BevEvent);
    else return false;
    return true;
  }
  #take(what: EvMask): boolean {
    const taken = (this.#told & what) !== 0;
    this.#told &= ~what;
    return taken;
  }
}
