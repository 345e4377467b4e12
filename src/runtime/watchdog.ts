// Looks at the present turn of every loop from the coordinator's thread: tells when one blocks and
// when it goes on, and has a loop ended that is blocked for too long.

import { channel } from 'node:diagnostics_channel';
import type { LoopSlot } from './loop_slot.js';

/** It looks at least so often, and four times within the time that a turn may take. */
const PERIOD_MS_MAX = 250;

/** Of the channel multiloop:stall: a loop blocks, or has stopped to. */
export interface Stall {
  loop: number;
  generation: number;
  /** true: its turn has taken `ms` and goes on. false: it took at least `ms` and is over. */
  blocked: boolean;
  ms: number;
}

const stalls = channel('multiloop:stall');

/** A turn that blocks its loop. */
interface Turn {
  number: number;
  ms: number;
  /** It was seen to be too long, by a watchdog that may have been stopped itself. */
  suspected: boolean;
}

export class Watchdog {
  readonly #limitMs: number;
  readonly #periodMs: number;
  readonly #slots: () => Iterable<LoopSlot>;
  readonly #tooLong: (slot: LoopSlot, ms: number) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #blocked = new Map<LoopSlot, Turn>();
  #last = performance.now();

  /** `tooLong` is called once for a turn. */
  constructor(
    limitMs: number,
    slots: () => Iterable<LoopSlot>,
    tooLong: (slot: LoopSlot, ms: number) => void,
  ) {
    this.#limitMs = limitMs;
    this.#periodMs = Math.max(1, Math.min(limitMs / 4, PERIOD_MS_MAX));
    this.#slots = slots;
    this.#tooLong = tooLong;
    this.#timer = setInterval(() => this.#look(), this.#periodMs).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const now = performance.now();
    // Then this thread was stopped, perhaps with the whole process (SIGSTOP, a debugger, a machine
    // that was asleep), and a loop gets another period to go on in.
    const late = now - this.#last > 2 * this.#periodMs + 50;
    this.#last = now;
    const slots = new Set(this.#slots());
    for (const slot of slots) this.#lookAt(slot, late);
    for (const slot of this.#blocked.keys()) if (!slots.has(slot)) this.#blocked.delete(slot);
  }

  #lookAt(slot: LoopSlot, late: boolean): void {
    slot.refresh();
    let turn = this.#blocked.get(slot);
    // One that starts has no turn yet, and one that is dead none any more.
    const serves = slot.phase === 'serving' || slot.phase === 'draining';
    const blocks = serves && slot.blocked;
    if (turn !== undefined && (!blocks || turn.number !== slot.turn)) {
      this.#blocked.delete(slot);
      if (serves) tell(slot, false, turn.ms);
      turn = undefined;
    }
    if (!blocks) return;
    const ms = slot.busyMs;
    if (turn === undefined) {
      turn = { number: slot.turn, ms, suspected: false };
      this.#blocked.set(slot, turn);
      tell(slot, true, ms);
    }
    turn.ms = ms;
    if (ms < this.#limitMs) return;
    const suspected = turn.suspected;
    turn.suspected = true;
    if (!late || suspected) this.#tooLong(slot, ms);
  }
}

function tell({ id, generation }: LoopSlot, blocked: boolean, ms: number): void {
  if (stalls.hasSubscribers) stalls.publish({ loop: id, generation, blocked, ms } satisfies Stall);
}
