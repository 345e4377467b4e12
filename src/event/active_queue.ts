// The events that wait for their callback, one queue a priority: an intrusive list, so that an
// event deleted by an earlier callback leaves it at once and nothing is allocated per activation.

import type { EventHandle } from './event_handle.js';

export class ActiveQueue {
  #first: EventHandle | undefined;
  #last: EventHandle | undefined;

  get first(): EventHandle | undefined {
    return this.#first;
  }

  push(event: EventHandle): void {
    event._previous = this.#last;
    event._next = undefined;
    if (this.#last === undefined) this.#first = event;
    else this.#last._next = event;
    this.#last = event;
  }

  remove(event: EventHandle): void {
    const { _next: next, _previous: previous } = event;
    if (previous === undefined) this.#first = next;
    else previous._next = next;
    if (next === undefined) this.#last = previous;
    else next._previous = previous;
    event._next = event._previous = undefined;
  }
}
