// Watches how full this thread's heap is, so that a loop can be replaced before V8 ends it: past
// its limit a heap ends its thread, and one huge allocation there the whole process.
//
// What is used counts after a collection only, and only a full one makes room in the old
// generation. The end of one is learnt from an object that nothing refers to: V8 looks at a
// FinalizationRegistry in full collections only, so nothing runs in between, and a loop that
// allocates nothing is never woken.

import { getHeapSpaceStatistics } from 'node:v8';
import { resourceLimits } from 'node:worker_threads';

/** Of the limit: from here on the loop asks to be replaced. */
const FULL = 0.8;
/** How often it asks, at most. */
const ASK_MS = 1_000;

export class HeapGuard {
  readonly #registry = new FinalizationRegistry<undefined>(() => this.#collected());
  readonly #full: (used: number, limit: number) => void;
  readonly #limit = (resourceLimits.maxOldGenerationSizeMb ?? 0) * 2 ** 20;
  #asked = Number.NEGATIVE_INFINITY;

  /** `full` is called in a turn of its own, with bytes. */
  constructor(full: (used: number, limit: number) => void) {
    this.#full = full;
    if (this.#limit > 0) this.#arm();
  }

  #arm(): void {
    this.#registry.register({}, undefined);
  }

  #collected(): void {
    this.#arm();
    const used = oldGeneration();
    const now = performance.now();
    if (used < FULL * this.#limit || now - this.#asked < ASK_MS) return;
    this.#asked = now;
    this.#full(used, this.#limit);
  }
}

/** Bytes of what has lived long, or is large; what the limit counts. */
function oldGeneration(): number {
  let used = 0;
  for (const { space_name, space_used_size } of getHeapSpaceStatistics())
    if (!space_name.startsWith('new_') && !space_name.startsWith('read_only'))
      used += space_used_size;
  return used;
}
