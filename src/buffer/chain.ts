// The segments of one buffer, in order, and what can be done with them without asking who may or
// telling anybody: EvBuffer does that. Every method leaves a whole chain behind, also when reading
// a file throws.

import { UTF8_MAX } from './bytes.js';
import { OWN_MEMORY_BYTES, Segment } from './segment.js';
import { leaveSlab, SLAB_BYTES, type Slab, slabWith } from './slab.js';

/** So much is copied piece by piece: calling what copies it would cost more (bench buffer). */
const LOOP_LENGTH = 24;
/** Bytes of a file that become memory at a time. */
const FILE_PIECE_BYTES = 64 * 1024;
/** Room behind a buffer's small data when others take the memory behind it: at least, at most. */
const ROOM_BYTES_MIN = 256;
const ROOM_BYTES_MAX = 4096;

/** Where the room of the segment that #tail answered last may begin to go back to the slab. */
let keep = 0;
/** What room() answered last is of #tail. */
let tailed = false;

export class Chain {
  first: Segment | undefined = undefined;
  last: Segment | undefined = undefined;
  length = 0;
  /** The first so many bytes have no line feed: a line that is not whole is looked at once. */
  clean = 0;
  /** Memory for what is added next, empty yet. */
  #ahead: Segment | undefined = undefined;

  // ── putting in ──

  /** Answers the bytes that the text takes. */
  addText(text: string): number {
    const units = text.length;
    if (units <= LOOP_LENGTH) {
      // Nearly all short text is ASCII; the first unit that is not starts over.
      const target = this.#target(units) ?? this.#tail(units);
      const { bytes } = target;
      const at = target.end;
      let i = 0;
      for (; i < units; i++) {
        const unit = text.charCodeAt(i);
        if (unit > 0x7f) break;
        bytes[at + i] = unit;
      }
      if (i === units) {
        this.#filled(target, units);
        return units;
      }
      this.#filled(target, 0);
    }
    const most = units * UTF8_MAX;
    if (most >= OWN_MEMORY_BYTES) {
      const bytes = Buffer.from(text);
      this.append(new Segment(bytes, 0, bytes.length));
      return bytes.length;
    }
    // Most text takes a third of the most that it could.
    const target = this.room(most);
    const count = target.bytes.write(text, target.end, most);
    this.fill(target, count);
    return count;
  }

  /**
   * Memory for `most` bytes at the end, to be written from the `end` of what this answers on;
   * fill() says how many there are, before anything else is done here.
   */
  room(most: number): Segment {
    const target = this.#target(most);
    tailed = target === undefined && most < OWN_MEMORY_BYTES;
    if (target !== undefined) return target;
    if (tailed) return this.#tail(most);
    const own = new Segment(Buffer.allocUnsafeSlow(most), 0, 0);
    own.room = most;
    return own;
  }
  fill(segment: Segment, count: number): void {
    const giveBack = tailed && count > 0;
    this.#filled(segment, count);
    if (giveBack) this.#giveBack(segment);
  }

  addCopy(data: Uint8Array): void {
    const count = data.length;
    if (count === 0) return;
    if (count >= OWN_MEMORY_BYTES && this.#target(count) === undefined) {
      const copy = Buffer.allocUnsafeSlow(count);
      copy.set(data);
      this.append(new Segment(copy, 0, count));
      return;
    }
    const target = this.#target(count) ?? this.#tail(count);
    const { bytes, end } = target;
    bytes.set(data, end);
    this.#filled(target, count);
  }

  /** The next `count` bytes of the slab, which somebody wrote there, are the last. */
  take(slab: Slab, count: number): void {
    const from = slab.used;
    const { last } = this;
    slab.used += count;
    this.length += count;
    if (last !== undefined && last.slab === slab && last.end === from) {
      last.end = last.room = slab.used;
      return;
    }
    this.#link(new Segment(slab.bytes, from, from + count, slab));
  }

  append(segment: Segment): void {
    this.length += segment.end - segment.start;
    this.#link(segment);
  }

  /** As `append`, but what goes on where the last segment ends makes that one longer. */
  join(segment: Segment): void {
    const { last } = this;
    const { slab } = segment;
    if (
      slab === undefined ||
      last === undefined ||
      last.slab !== slab ||
      last.end !== segment.start
    ) {
      this.append(segment);
      return;
    }
    this.length += segment.end - segment.start;
    last.end = segment.end;
    last.room = segment.room;
    // The last one of it stays.
    leaveSlab(slab);
  }

  prepend(data: Uint8Array): void {
    const segment = Segment.fresh(data.length);
    segment.bytes.set(data, segment.start);
    this.length += data.length;
    this.clean = 0;
    segment.next = this.first;
    this.first = segment;
    this.last ??= segment;
  }

  /** Moves all of another chain to the front. */
  prependAll(from: Chain): void {
    if (from.last === undefined) return;
    from.last.next = this.first;
    this.first = from.first;
    this.last ??= from.last;
    this.length += from.length;
    this.clean = 0;
    from.#reset();
  }

  /** Moves the first `count` bytes of another chain, which has as many, to the end. */
  move(from: Chain, count: number): void {
    if (count === from.length) {
      if (this.last === undefined) this.first = from.first;
      else this.last.next = from.first;
      this.last = from.last;
      this.length += count;
      from.#reset();
      return;
    }
    let left = count;
    while (left > 0) {
      const segment = from.first as Segment;
      const size = segment.end - segment.start;
      if (size > left) {
        this.append(segment.range(segment.start, segment.start + left));
        segment.start += left;
        break;
      }
      left -= size;
      from.first = segment.next;
      segment.next = undefined;
      this.append(segment);
    }
    from.#shorter(count);
  }

  /** Appends what another chain has now, perhaps this one itself. */
  addView(of: Chain): void {
    const { last } = of;
    for (let one = of.first; one !== undefined; one = one.next) {
      this.append(one.range(one.start, one.end));
      // Of the chain itself: what was there is there twice.
      if (one === last) break;
    }
  }

  /** What is added next, up to `length` bytes, is contiguous. */
  expand(length: number): void {
    if (this.#target(length) !== undefined) return;
    this.#ahead?.drop();
    this.#ahead = Segment.fresh(length);
    this.#ahead.end = this.#ahead.start;
  }

  // ── taking out ──

  /** Drops the first `count` bytes, of as many or more. */
  drain(count: number): void {
    let left = count;
    let segment = this.first;
    while (left > 0 && segment !== undefined) {
      const size = segment.end - segment.start;
      if (size > left) {
        segment.start += left;
        break;
      }
      left -= size;
      const { next } = segment;
      segment.drop();
      segment = next;
    }
    this.first = segment;
    if (segment === undefined) this.last = undefined;
    this.#shorter(count);
  }

  /** Drops all, and the memory for what is to come. */
  clear(): void {
    if (this.length > 0) this.drain(this.length);
    this.#ahead?.drop();
    this.#ahead = undefined;
  }

  /** The bytes from `at` on, of which there are as many; a long part of a file is read into it. */
  copy(at: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    this.copyTo(bytes, 0, at, length);
    return bytes;
  }

  copyTo(target: Buffer, to: number, at: number, length: number): void {
    let base = 0;
    let done = 0;
    for (let one = this.first; one !== undefined && done < length; one = one.next) {
      const size = one.end - one.start;
      const skip = at + done - base;
      base += size;
      if (skip >= size) continue;
      if (one.file !== undefined && length - done < FILE_PIECE_BYTES) {
        // Who takes a little will take the next little soon.
        base -= size;
        this.load(one, skip + length - done);
        base += one.end - one.start;
      }
      const count = Math.min(one.end - one.start - skip, length - done);
      const from = one.start + skip;
      if (one.file !== undefined) {
        one.file._readInto(from, target, to + done, count);
      } else {
        one.checkThere();
        const { bytes } = one;
        const begin = to + done;
        if (count <= LOOP_LENGTH)
          for (let i = 0; i < count; i++) target[begin + i] = bytes[from + i];
        else bytes.copy(target, begin, from, from + count);
      }
      done += count;
    }
  }

  /** The memory of `length` bytes from `at` on, of which there are as many. */
  views(at: number, length: number): Buffer[] {
    const views: Buffer[] = [];
    let base = 0;
    let left = length;
    for (let one = this.first; one !== undefined && left > 0; one = one.next) {
      const skip = at + length - left - base;
      base += one.end - one.start;
      if (base <= at) continue;
      if (one.file !== undefined) {
        base -= one.end - one.start;
        this.load(one, skip + left);
        base += one.end - one.start;
      }
      one.checkThere();
      const from = one.start + skip;
      const count = Math.min(one.end - from, left);
      views.push(one.bytes.subarray(from, from + count));
      left -= count;
    }
    return views;
  }

  /** The first `length` bytes, of which there are as many, are one segment of memory. */
  pullup(length: number): Segment | undefined {
    const { first } = this;
    if (first === undefined || length === 0) return first;
    if (first.file === undefined && first.end - first.start >= length) return first;
    const have = first.end - first.start;
    if (first.file === undefined && first.start + length <= first.room) {
      // It has grown before: only what is new is copied.
      first.checkThere();
      this.copyTo(first.bytes, first.end, have, length - have);
      const rest = length - have;
      first.end += rest;
      this.#dropAfter(first, rest);
      return first;
    }
    // What is made contiguous a second time will be a third time: it gets room for that.
    const grown = first.slab === undefined && first.file === undefined && first.loan === undefined;
    return this.#rejoin(length, grown ? length + have : length);
  }

  /** Moves everything out of slabs that others may use, if that is all that it is in. */
  settle(): void {
    let inSlab = false;
    for (let one = this.first; one !== undefined; one = one.next) {
      if (one.loan !== undefined || one.file !== undefined) return;
      if (one.slab !== undefined) inSlab = true;
    }
    if (!inSlab) return;
    if (this.first?.slab !== undefined) this.#rejoin(this.length, this.length);
    else this.pullup(this.length);
  }

  /** The beginning of a file's part becomes memory; what is left of it follows. */
  load(segment: Segment, most = FILE_PIECE_BYTES): void {
    const { file, loan, start } = segment;
    if (file === undefined) return;
    const count = Math.min(segment.end - start, Math.max(most, FILE_PIECE_BYTES));
    const bytes = file._read(start, count);
    if (start + count < segment.end) {
      const rest = segment.range(start + count, segment.end);
      rest.next = segment.next;
      segment.next = rest;
      if (this.last === segment) this.last = rest;
    }
    segment.file = segment.loan = undefined;
    segment.bytes = bytes;
    segment.start = 0;
    segment.end = segment.room = count;
    loan?.leave();
  }

  // ── inside ──

  /** The memory behind the last segment, if it is long enough. */
  #target(most: number): Segment | undefined {
    const { last } = this;
    if (last !== undefined && last.room - last.end >= most) return last;
    const ahead = this.#ahead;
    return ahead !== undefined && ahead.room - ahead.end >= most ? ahead : undefined;
  }

  /** The end of the current slab, as room of the last segment or of a new one. */
  #tail(most: number): Segment {
    const slab = slabWith(most);
    const { last } = this;
    const { used } = slab;
    if (last !== undefined && last.slab === slab && last.room === used) {
      keep = used;
      slab.used = last.room = last.end + most;
      return last;
    }
    const segment = new Segment(slab.bytes, used, used, slab);
    // Others add to this slab in turn with this buffer: with some room it gets fewer segments.
    const size = last === undefined || last.slab === undefined ? 0 : last.end - last.start;
    const room = size === 0 ? 0 : Math.min(ROOM_BYTES_MAX, Math.max(ROOM_BYTES_MIN, 2 * size));
    keep = Math.min(SLAB_BYTES, used + room);
    slab.used = segment.room = Math.max(used + most, keep);
    return segment;
  }

  /** `count` bytes were written to the end of a segment that #target or #tail gave. */
  #filled(segment: Segment, count: number): void {
    segment.end += count;
    this.length += count;
    if (segment !== this.last) {
      if (count === 0) {
        if (segment !== this.#ahead) this.#unused(segment);
        return;
      }
      if (segment === this.#ahead) this.#ahead = undefined;
      this.#link(segment);
    }
  }

  /** Room that #tail made and nobody needed goes back, unless it is not the slab's last. */
  #giveBack(segment: Segment): void {
    const { slab } = segment;
    if (slab !== undefined && slab.used === segment.room)
      slab.used = segment.room = Math.max(segment.end, keep);
  }

  /** A segment of #tail in which there is nothing. */
  #unused(segment: Segment): void {
    keep = segment.start;
    this.#giveBack(segment);
    segment.drop();
  }

  #link(segment: Segment): void {
    if (this.last === undefined) this.first = segment;
    else this.last.next = segment;
    this.last = segment;
  }

  /** Drops `count` bytes after a segment that has a copy of them; the length stays. */
  #dropAfter(segment: Segment, count: number): void {
    let left = count;
    let next = segment.next;
    while (left > 0 && next !== undefined) {
      const size = next.end - next.start;
      if (size > left) {
        next.start += left;
        break;
      }
      left -= size;
      const dropped = next;
      next = next.next;
      dropped.drop();
    }
    segment.next = next;
    if (next === undefined) this.last = segment;
  }

  /** Copies the first `length` bytes to memory of `capacity`, which takes their place. */
  #rejoin(length: number, capacity: number): Segment {
    const bytes = Buffer.allocUnsafeSlow(capacity);
    this.copyTo(bytes, 0, 0, length);
    const joined = new Segment(bytes, 0, length);
    joined.room = capacity;
    const { clean, length: all } = this;
    this.drain(length);
    joined.next = this.first;
    this.first = joined;
    this.last ??= joined;
    this.length = all;
    this.clean = clean;
    return joined;
  }

  #shorter(count: number): void {
    this.length -= count;
    this.clean = Math.max(0, this.clean - count);
  }

  #reset(): void {
    this.first = this.last = undefined;
    this.length = this.clean = 0;
  }
}
