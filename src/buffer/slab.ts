// The memory that buffers of this thread keep small data in, and that streams read into: slabs,
// filled from their beginning to their end. A segment of a buffer is a range of a slab; a slab
// whose last segment is gone is filled anew, so what comes and goes within a pass stays in the
// same few lines of the processor's cache and allocates nothing.
//
// The native side knows the current slab, so a system call on it names offsets and no object.
// A slab that nobody uses any more is either spare or garbage; nothing here keeps one alive that a
// forgotten buffer has pinned.

import { markAsUntransferable } from 'node:worker_threads';
import { native } from '../native.js';

export const SLAB_BYTES = 256 * 1024;
/** Slabs kept for later use beside the current one; more are left to the collector. */
const SPARE_SLABS_MAX = 4;

const memories = new WeakSet<ArrayBufferLike>();

export class Slab {
  /** With memory of its own, which never moves. */
  readonly bytes: Buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
  /** Bytes given out. */
  used = 0;
  /** Segments that are ranges of it. */
  live = 0;
  constructor() {
    // peek() shows it: a view that is posted with its memory in the transfer list would take away
    // what other buffers have there, and what the native side writes to.
    markAsUntransferable(this.bytes.buffer);
    memories.add(this.bytes.buffer);
  }
}

/** Whether what `bytes` shows is filled anew when the segment that it belongs to is gone. */
export function isOfSlab(bytes: Uint8Array): boolean {
  return memories.has(bytes.buffer);
}

let current = new Slab();
native.slabShare(current.bytes);
const spare: Slab[] = [];
/** Slabs that are neither current nor spare and have live segments. */
let retired = 0;

/** The current slab, with at least `room` bytes (at most SLAB_BYTES) left at its end. */
export function slabWith(room: number): Slab {
  if (SLAB_BYTES - current.used >= room) return current;
  // It is not empty, or it would have the room.
  retired++;
  current = spare.pop() ?? new Slab();
  native.slabShare(current.bytes);
  return current;
}

/** A whole slab that does not become the current one. */
export function wholeSlab(): Slab {
  retired++;
  return spare.pop() ?? new Slab();
}

/** Whether the native side's system calls on "the slab" are about this one. */
export function isCurrent(slab: Slab | undefined): boolean {
  return slab === current;
}

/** A segment of it is gone. */
export function leaveSlab(slab: Slab): void {
  if (--slab.live > 0) return;
  slab.used = 0;
  if (slab === current) return;
  retired--;
  if (spare.length < SPARE_SLABS_MAX) spare.push(slab);
}

/** A whole slab that nothing was put in. */
export function keepSlab(slab: Slab): void {
  slab.live++;
  leaveSlab(slab);
}

/** For tests: segments in the current slab, slabs held by other segments, slabs kept. */
export function slabUse(): { live: number; used: number; retired: number; spare: number } {
  return { live: current.live, used: current.used, retired, spare: spare.length };
}
