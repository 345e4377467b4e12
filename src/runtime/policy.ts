// Policies: how the coordinator picks a loop for a new connection.

import type { LoopSlot } from './loop_slot.js';

export type PolicyName = 'round-robin';
export const POLICY_NAMES: readonly PolicyName[] = ['round-robin'];

/** Answers the loops to try, best first; a loop that cannot serve is not among them. */
export type Policy = (slots: readonly LoopSlot[]) => Iterable<LoopSlot>;

export function roundRobin(): Policy {
  let next = 0;
  return function* (slots) {
    // A loop that is skipped because it cannot serve does not lose its turn to come.
    const first = next;
    for (let i = 0; i < slots.length; i++) {
      const at = (first + i) % slots.length;
      if (slots[at].state !== 'serving') continue;
      next = (at + 1) % slots.length;
      yield slots[at];
    }
  };
}
