// Handshakes of one base, so many steps a turn: a signature takes as long as hundreds of messages,
// and a storm of new clients would stall those that are there.

import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';

/** Steps of handshakes that one turn does; the others wait for the next one, in order. */
export const HANDSHAKE_STEPS_MAX = 8;

export interface Handshaking {
  /** One step. */
  _step(): void;
}

export class HandshakeTurns {
  readonly #base: EventBase;
  readonly #waiting = new Set<Handshaking>();
  #done = 0;
  /** While a turn has done any, or some wait. */
  #turn: EventHandle | undefined = undefined;

  private constructor(base: EventBase) {
    this.#base = base;
  }
  static readonly #all = new WeakMap<EventBase, HandshakeTurns>();
  static of(base: EventBase): HandshakeTurns {
    const turns = HandshakeTurns.#all.get(base) ?? new HandshakeTurns(base);
    HandshakeTurns.#all.set(base, turns);
    return turns;
  }

  /** True: now. Else its step is done in a turn to come, after all that wait already. */
  mayStep(stream: Handshaking): boolean {
    this.#start();
    if (this.#waiting.size === 0 && this.#done < HANDSHAKE_STEPS_MAX) {
      this.#done++;
      return true;
    }
    this.#waiting.add(stream);
    return false;
  }
  /** Its step is done in a turn to come. */
  stepLater(stream: Handshaking): void {
    this.#start();
    this.#waiting.add(stream);
  }
  /** It waits no longer. */
  forget(stream: Handshaking): void {
    this.#waiting.delete(stream);
  }

  #start(): void {
    if (this.#turn !== undefined) return;
    // The streams' deadlines keep the base running.
    this.#turn = this.#base.timer(() => this.#next()).unref();
    this.#turn.add(0);
  }
  #next(): void {
    this.#done = 0;
    if (this.#waiting.size === 0) {
      this.#turn?.free();
      this.#turn = undefined;
      return;
    }
    this.#turn?.add(0);
    for (const stream of this.#waiting) {
      if (this.#done === HANDSHAKE_STEPS_MAX || this.#base._closed) break;
      this.#done++;
      this.#waiting.delete(stream);
      stream._step();
    }
  }
}
