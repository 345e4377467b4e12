// The memory that buffers of this thread keep small data in, and that streams read into: slabs,
// filled from their beginning to their end. A segment of a buffer is a range of a slab; a slab
// whose last segment is gone is filled anew, so what comes and goes within a pass stays in the
// same few lines of the processor's cache and allocates nothing.
//
// The native side knows the current slab, so a system call on it names offsets and no object.

import { native } from '../native.js';

export const SLAB_BYTES = 256 * 1024;
/** Slabs kept for later use beside the current one; more are left to the collector. */
const SPARE_SLABS_MAX = 4;

export class Slab {
  /** With memory of its own, which never moves. */
  readonly bytes: Buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
  /** Bytes given out. */
  used = 0;
  /** Segments that are ranges of it. */
  live = 0;
}

let current = new Slab();
native.slabShare(current.bytes);
const spare: Slab[] = [];

/** The current slab, with at least `room` bytes (at most SLAB_BYTES) left at its end. */
export function slabWith(room: number): Slab {
  if (SLAB_BYTES - current.used >= room) return current;
  current = spare.pop() ?? new Slab();
  native.slabShare(current.bytes);
  return current;
}

/** Whether the native side's system calls on "the slab" are about this one. */
export function isCurrent(slab: Slab | undefined): boolean {
  return slab === current;
}

/** A segment of it is gone. */
export function leaveSlab(slab: Slab): void {
  if (--slab.live > 0) return;
  slab.used = 0;
  if (slab !== current && spare.length < SPARE_SLABS_MAX) spare.push(slab);
}
