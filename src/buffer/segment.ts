// A piece of a buffer's data: a range of a slab, of memory of its own, of memory that the caller
// lent, or of a file. Several segments may be ranges of the same memory (a view, a move of a part);
// whoever lent it is told when the last of them is gone.

import type { FileSegment } from './file_segment.js';
import { leaveSlab, type Slab } from './slab.js';

const NO_BYTES = Buffer.alloc(0);

/** What a lender is owed, counted over every segment of the memory. */
export class Loan {
  segments = 0;
  readonly #release: () => void;
  constructor(release: () => void) {
    this.#release = release;
  }
  leave(): void {
    if (--this.segments === 0) this.#release();
  }
}

export class Segment {
  bytes: Buffer;
  /** Of the memory; of a file, positions in it. */
  start: number;
  end: number;
  next: Segment | undefined = undefined;
  readonly slab: Slab | undefined;
  readonly loan: Loan | undefined;
  readonly file: FileSegment | undefined;

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
    this.slab = slab;
    this.loan = loan;
    this.file = file;
    if (slab !== undefined) slab.live++;
    if (loan !== undefined) loan.segments++;
  }

  static ofFile(file: FileSegment, start: number, end: number): Segment {
    return new Segment(NO_BYTES, start, end, undefined, file._loan, file);
  }

  get length(): number {
    return this.end - this.start;
  }

  /** The same memory, another range. */
  range(start: number, end: number): Segment {
    return new Segment(this.bytes, start, end, this.slab, this.loan, this.file);
  }

  /** It is in no buffer any more. */
  drop(): void {
    if (this.slab !== undefined) leaveSlab(this.slab);
    if (this.loan !== undefined) this.loan.leave();
  }

  /** The bytes, valid until the buffer changes. A file's are read now. */
  view(): Buffer {
    if (this.file !== undefined) return this.file._read(this.start, this.length);
    return this.bytes.subarray(this.start, this.end);
  }

  /** Copies from its `at`th byte on; answers how many were copied. */
  copyTo(target: Buffer, to: number, at: number, length: number): number {
    const count = Math.min(length, this.length - at);
    if (this.file !== undefined) this.file._readInto(this.start + at, target, to, count);
    else this.bytes.copy(target, to, this.start + at, this.start + at + count);
    return count;
  }
}
