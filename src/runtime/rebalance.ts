// Evening out how many connections each loop has, by moves of idle ones.

import type { LoopSlot } from './loop_slot.js';

/** So many idle connections of one loop are to go to another. */
export interface Transfer {
  from: LoopSlot;
  to: LoopSlot;
  count: number;
}

/** What brings every loop to the mean: from where there are more to where there are fewer. */
export function evenOut(serving: readonly LoopSlot[]): Transfer[] {
  for (const slot of serving) slot.refresh();
  const total = serving.reduce((sum, slot) => sum + slot.load, 0);
  const low = Math.floor(total / serving.length);
  const high = Math.ceil(total / serving.length);
  const room = serving.map((slot) => ({ slot, free: Math.max(0, high - slot.load) }));
  // Those below the mean are filled first, so that nobody ends above it while others are below.
  room.sort((a, b) => b.free - a.free);
  const transfers: Transfer[] = [];
  for (const slot of serving) {
    let extra = slot.load - high;
    for (const to of room) {
      const want = to.slot.load < low ? to.free : Math.min(to.free, extra);
      const count = Math.min(extra, want);
      if (count <= 0) continue;
      transfers.push({ from: slot, to: to.slot, count });
      to.free -= count;
      extra -= count;
    }
  }
  return transfers;
}
