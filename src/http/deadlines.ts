// Deadlines of connections. Those of one kind are all equally far away, so the one that was set
// first is due first: a queue of connections, and one timer for the first of them. Setting one
// anew, as every request does, moves a connection to the end of its queue and costs a few stores:
// no event of its own, and no call into the native part. As libevent's common timeouts, which are
// the same in C, but one crossing dearer.

import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';

/** What has a deadline: at most one at a time. */
export abstract class Timed {
  /** @internal */ _due = 0;
  /** @internal */ _queue: Deadlines | undefined = undefined;
  /** @internal */ _earlier: Timed | undefined = undefined;
  /** @internal */ _later: Timed | undefined = undefined;

  /** @internal */
  abstract _late(queue: Deadlines): void;
}

export class Deadlines {
  readonly #base: EventBase;
  readonly #ms: number;
  #first: Timed | undefined = undefined;
  #last: Timed | undefined = undefined;
  #timer: EventHandle | undefined = undefined;
  #armed = false;

  /** 0 milliseconds: there is no limit. */
  constructor(base: EventBase, ms: number) {
    this.#base = base;
    this.#ms = ms;
  }

  /** From now on it has this deadline and no other. */
  set(one: Timed): void {
    const due = this.#base.now() + this.#ms;
    if (one === this.#last) {
      one._due = due;
      return;
    }
    if (one._queue !== undefined) one._queue.#unlink(one);
    if (this.#ms === 0) return;
    one._due = due;
    one._queue = this;
    one._earlier = this.#last;
    if (this.#last === undefined) {
      this.#first = this.#last = one;
      this.#arm();
    } else {
      this.#last = this.#last._later = one;
    }
  }

  static clear(one: Timed): void {
    if (one._queue !== undefined) one._queue.#unlink(one);
  }

  close(): void {
    this.#timer?.free();
    this.#timer = undefined;
    this.#armed = false;
  }

  #unlink(one: Timed): void {
    const { _earlier, _later } = one;
    if (_earlier === undefined) this.#first = _later;
    else _earlier._later = _later;
    if (_later === undefined) this.#last = _earlier;
    else _later._earlier = _earlier;
    one._queue = one._earlier = one._later = undefined;
  }

  /** A timer that is there is early at worst, and sets itself anew. */
  #arm(): void {
    // Connections keep the process alive; their deadlines alone do not.
    if (this.#armed || this.#first === undefined || this.#base._closed) return;
    this.#timer ??= this.#base.timer(() => this.#expire()).unref();
    this.#armed = true;
    this.#timer.add(Math.max(0, this.#first._due - this.#base.now()));
  }

  #expire(): void {
    this.#armed = false;
    const now = this.#base.now();
    try {
      for (;;) {
        const first = this.#first;
        if (first === undefined || first._due > now) break;
        this.#unlink(first);
        first._late(this);
      }
    } finally {
      this.#arm();
    }
  }
}
