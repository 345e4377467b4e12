// A piece of a buffer's data: a range of a slab, of memory of its own, of memory that the caller
// lent, or of a file. Several segments may be ranges of the same memory (a view, a move of a part);
// whoever lent it is told when the last of them is gone.

import { MultiloopError } from '../errors.js';
import { guarded } from '../guard.js';
import type { FileSegment } from './file_segment.js';
import { leaveSlab, SLAB_BYTES, type Slab, slabWith } from './slab.js';

const NO_BYTES = Buffer.alloc(0);
/** Data of at least this size gets memory of its own instead of a part of a slab. */
export const OWN_MEMORY_BYTES = SLAB_BYTES / 4;

let due: (() => void)[] = [];

/** What a lender is owed, counted over every segment of the memory. */
export class Loan {
  segments = 0;
  readonly #release: () => void;
  constructor(release: () => void) {
    this.#release = release;
  }
  /** The lender is told by `tellLenders`, when no chain is half changed: he may use its buffer. */
  leave(): void {
    if (--this.segments === 0) due.push(this.#release);
  }
}

/** Calls back those whose memory nobody has any more. */
export function tellLenders(): void {
  while (due.length > 0) {
    const now = due;
    due = [];
    for (const release of now) guarded(release);
  }
}

export class Segment {
  bytes: Buffer;
  /** Of the memory; of a file, positions in it. */
  start: number;
  end: number;
  /** Up to here the memory after `end` is this segment's to grow into, and nobody else's. */
  room: number;
  next: Segment | undefined = undefined;
  readonly slab: Slab | undefined;
  loan: Loan | undefined;
  file: FileSegment | undefined;
  #window: Buffer | undefined = undefined;

  constructor(
    bytes: Buffer,
    start: number,
    end: number,
    slab?: Slab,
    loan?: Loan,
    file?: FileSegment,
  ) {
    this.bytes = bytes;
    this.start = start;
    this.end = end;
    this.room = end;
    this.slab = slab;
    this.loan = loan;
    this.file = file;
    if (slab !== undefined) slab.live++;
    if (loan !== undefined) loan.segments++;
  }

  static ofFile(file: FileSegment, start: number, end: number): Segment {
    return new Segment(NO_BYTES, start, end, undefined, file._loan, file);
  }

  /** Memory for `length` bytes, of a slab or its own. */
  static fresh(length: number): Segment {
    if (length >= OWN_MEMORY_BYTES)
      return new Segment(Buffer.allocUnsafeSlow(length), 0, length, undefined);
    const slab = slabWith(length);
    const start = slab.used;
    slab.used += length;
    return new Segment(slab.bytes, start, start + length, slab);
  }

  get length(): number {
    return this.end - this.start;
  }

  /** The same memory, another range; the room stays here. */
  range(start: number, end: number): Segment {
    return new Segment(this.bytes, start, end, this.slab, this.loan, this.file);
  }

  /** It ends earlier; what it had behind that is room, or goes back if it is the slab's last. */
  cut(end: number): void {
    const { slab } = this;
    this.end = end;
    if (slab === undefined || slab.used !== this.room) return;
    slab.used = end;
    this.room = end;
  }

  /** It is in no buffer any more. */
  drop(): void {
    if (this.slab !== undefined) leaveSlab(this.slab);
    if (this.loan !== undefined) this.loan.leave();
  }

  /** The first `length` bytes, of memory, valid until the buffer changes. */
  view(length = this.end - this.start): Buffer {
    this.checkThere();
    return this.bytes.subarray(this.start, this.start + length);
  }

  /** Its memory up to its end, to be searched from a position on and no further. */
  window(): Buffer {
    const { bytes, end } = this;
    if (bytes.length === end) return bytes;
    if (this.#window === undefined || this.#window.length !== end) {
      this.checkThere();
      this.#window = bytes.subarray(0, end);
    }
    return this.#window;
  }

  /** Lent memory may have been transferred or shrunk; then the kernel must not be given it. */
  checkThere(): void {
    if (this.bytes.length < this.end)
      throw new MultiloopError(
        'ERR_BUFFER_DETACHED',
        'Memory that this buffer refers to was transferred or made smaller before it was ' +
          'released; drain() gets rid of what is left of it',
      );
  }
}
