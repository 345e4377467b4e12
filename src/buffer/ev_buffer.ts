// A queue of bytes as a chain of segments: what is added at one end and taken from the other is
// not copied on the way, and neither is what moves from one buffer to another. libevent's evbuffer.

import { MultiloopError } from '../errors.js';
import type { EventBase } from '../event/event_base.js';
import { native } from '../native.js';
import {
  checkFunction,
  checkInteger,
  checkObject,
  checkOneOf,
  invalidType,
  outOfRange,
} from '../validate.js';
import { type ChangeCallback, Changes } from './changes.js';
import { FileSegment } from './file_segment.js';
import { EOLS, type Eol, type Found, find, findEol } from './search.js';
import { Loan, Segment } from './segment.js';
import { SLAB_BYTES, type Slab, slabWith } from './slab.js';
import { write } from './write.js';

export type Bytes = Uint8Array | string;

/** Bytes in one buffer; more is refused, since a number of that size is a mistake or an attack. */
export const BUFFER_BYTES_MAX = 2 ** 32;
/** Bytes that one read takes without being scattered. */
const READ_BYTES = 64 * 1024;
/** Data of at least this size gets memory of its own instead of a part of a slab. */
const OWN_MEMORY_BYTES = SLAB_BYTES / 4;
/** Bytes of a string's UTF-8 for each of its units, at most. */
const UTF8_MAX = 3;
/** At most so many bytes are taken out of their slab when they stay longer than a pass. */
const SETTLE_BYTES_MAX = 16 * 1024;

const FRONT = 1;
const BACK = 2;

/** Who a stream's buffer belongs to, and what its owner has to know of every change. */
export interface BufferOwner {
  bufferChanged(buffer: EvBuffer, added: number, removed: number): void;
}

/**
 * Belongs to the thread that made it. Every `Bytes` may be a string, taken as UTF-8. What `peek`,
 * `pullup` and `reserve` answer is the buffer's own memory and valid until the buffer changes next;
 * what `remove` and `copyOut` answer is the caller's. A frozen end throws ERR_BUFFER_FROZEN.
 */
export class EvBuffer {
  /** @internal */ _owner: BufferOwner | undefined = undefined;
  #length = 0;
  #first: Segment | undefined = undefined;
  #last: Segment | undefined = undefined;
  #frozen = 0;
  #reserved: Segment | undefined = undefined;
  #changes: Changes | undefined = undefined;

  get length(): number {
    return this.#length;
  }

  // ── putting in ──

  /** Copies `data` to the end. */
  add(data: Bytes): this {
    this.#writable(BACK);
    return this._add(data);
  }

  /** @internal `add` for the one who froze the end. */
  _add(data: Bytes): this {
    const before = this.#length;
    if (typeof data === 'string') this.#appendText(data);
    else this.#appendCopy(bytesIn('data', data));
    return this.#grew(before);
  }

  /** Copies `data` to the front. */
  prepend(data: Bytes): this {
    const bytes = typeof data === 'string' ? Buffer.from(data) : bytesIn('data', data);
    if (bytes.length === 0) return this;
    this.#writable(FRONT);
    this.#roomFor(bytes.length);
    const segment = copied(bytes);
    segment.next = this.#first;
    this.#first = segment;
    this.#last ??= segment;
    this.#length += bytes.length;
    this.#changed(this.#length - bytes.length, bytes.length, 0);
    return this;
  }

  /**
   * Moves `length` bytes, or all, from the front of another buffer to the end of this one, without
   * copying them. Answers how many: fewer if there are not so many.
   */
  addBuffer(from: EvBuffer, length?: number): number {
    if (!(from instanceof EvBuffer)) throw invalidType('from', 'an instance of EvBuffer', from);
    if (length !== undefined) checkInteger('length', length, 0);
    if (from === this || from.#length === 0) return 0;
    this.#writable(BACK);
    from.#writable(FRONT);
    return this._move(from, Math.min(length ?? from.#length, from.#length));
  }

  /** @internal `addBuffer` of exactly `length` bytes, for whoever froze an end. */
  _move(from: EvBuffer, length: number): number {
    if (length === 0) return 0;
    this.#roomFor(length);
    const before = this.#length;
    const fromBefore = from.#length;
    if (length === from.#length) {
      this.#link(from.#first as Segment, from.#last as Segment);
      from.#first = from.#last = undefined;
    } else {
      let left = length;
      while (left > 0) {
        const segment = from.#first as Segment;
        if (segment.length > left) {
          this.#append(segment.range(segment.start, segment.start + left));
          segment.start += left;
          break;
        }
        left -= segment.length;
        from.#first = segment.next;
        segment.next = undefined;
        this.#append(segment);
      }
    }
    from.#length -= length;
    this.#length += length;
    // libevent's order for evbuffer_add_buffer: the source's callbacks first.
    from.#changed(fromBefore, 0, length);
    this.#changed(before, length, 0);
    return length;
  }

  /**
   * Appends what another buffer has now, without copying and without taking it out there. What
   * happens to that buffer later is not seen here.
   */
  addView(of: EvBuffer): this {
    if (!(of instanceof EvBuffer)) throw invalidType('of', 'an instance of EvBuffer', of);
    this.#writable(BACK);
    this.#roomFor(of.#length);
    const before = this.#length;
    const last = of.#last;
    for (let one = of.#first; one !== undefined; one = one.next) {
      this.#append(one.range(one.start, one.end));
      this.#length += one.length;
      // Of the buffer itself: what was there is there twice.
      if (one === last) break;
    }
    return this.#grew(before);
  }

  /**
   * Appends memory of the caller without copying it. It must not change until `release` is called,
   * once, when no buffer has any of it: perhaps inside this call, for memory of no bytes.
   */
  addReference(data: Uint8Array, release?: () => void): this {
    const bytes = bytesIn('data', data);
    if (release !== undefined) checkFunction('release', release);
    this.#writable(BACK);
    return this._addReference(bytes, release);
  }

  /** @internal */
  _addReference(bytes: Buffer, release?: () => void): this {
    this.#roomFor(bytes.length);
    const before = this.#length;
    if (bytes.length === 0) {
      release?.();
      return this;
    }
    const loan = release === undefined ? undefined : new Loan(release);
    this.#append(new Segment(bytes, 0, bytes.length, undefined, loan));
    this.#length += bytes.length;
    return this.#grew(before);
  }

  /**
   * Appends a part of a file, `length` -1 meaning up to its end. A descriptor becomes the buffer's,
   * which closes it when it is done, also if this throws; `offset` of a FileSegment is within the
   * segment. A socket is sent the file by the kernel; whoever else needs the bytes makes the buffer
   * read them, and throws ERR_FILE_TRUNCATED if they are no longer there.
   */
  addFile(file: number | FileSegment, offset = 0, length = -1): this {
    const own = typeof file === 'number';
    if (!own && !(file instanceof FileSegment))
      throw invalidType('file', 'of type number or an instance of FileSegment', file);
    const segment = own ? new FileSegment(file, offset, length, { closeFd: true }) : file;
    try {
      if (!own && file.disposed)
        throw new MultiloopError('ERR_FILE_TRUNCATED', 'The file segment was disposed of');
      const start = own ? 0 : checkInteger('offset', offset, 0, segment.length);
      const whole = segment.length - start;
      if (!own) checkInteger('length', length, -1, whole);
      const count = own || length === -1 ? whole : length;
      this.#writable(BACK);
      this.#roomFor(count);
      if (count === 0) return this;
      const before = this.#length;
      const position = segment.offset + start;
      this.#append(Segment.ofFile(segment, position, position + count));
      this.#length += count;
      return this.#grew(before);
    } finally {
      if (own) segment[Symbol.dispose]();
    }
  }

  /**
   * At least `length` bytes to write to; `commit` puts them at the end of the buffer. Called again
   * before that, it answers the same memory if that is long enough.
   */
  reserve(length: number): Uint8Array {
    checkInteger('length', length, 1, BUFFER_BYTES_MAX);
    this.#writable(BACK);
    this.#roomFor(length);
    if (this.#reserved === undefined || this.#reserved.length < length) {
      this.#reserved?.drop();
      this.#reserved = fresh(length);
    }
    return this.#reserved.view();
  }

  /** The first `length` bytes of what `reserve` answered last are data now. */
  commit(length: number): void {
    const segment = this.#reserved;
    checkInteger('length', length, 0, segment?.length ?? 0);
    this.#writable(BACK);
    if (segment === undefined) return;
    this.#reserved = undefined;
    const { slab } = segment;
    // What is left over goes back, unless somebody took memory behind it.
    if (slab?.used === segment.end) slab.used = segment.start + length;
    segment.end = segment.start + length;
    if (length === 0) {
      segment.drop();
      return;
    }
    const before = this.#length;
    this.#append(segment);
    this.#length += length;
    this.#grew(before);
  }

  // ── taking out ──

  /** Takes `length` bytes, or all if there are fewer, off the front. */
  remove(length: number): Uint8Array {
    const bytes = this.copyOut(length);
    this.drain(bytes.length);
    return bytes;
  }

  /** Copies `length` bytes, or as many as there are, from position `at` on; nothing changes. */
  copyOut(length: number, at = 0): Uint8Array {
    checkInteger('length', length, 0);
    checkInteger('at', at, 0, this.#length);
    return this.#copy(at, Math.min(length, this.#length - at));
  }

  /** Drops `length` bytes, or all if there are fewer, from the front. */
  drain(length: number): this {
    checkInteger('length', length, 0);
    const count = Math.min(length, this.#length);
    if (count === 0) return this;
    this.#writable(FRONT);
    this._drain(count);
    return this;
  }

  /** @internal `drain` of at most what there is, for the one who froze the front. */
  _drain(count: number): void {
    const before = this.#length;
    let left = count;
    for (let segment = this.#first; left > 0 && segment !== undefined; segment = this.#first) {
      if (segment.end - segment.start > left) {
        segment.start += left;
        break;
      }
      left -= segment.end - segment.start;
      this.#first = segment.next;
      if (segment.next === undefined) this.#last = undefined;
      segment.drop();
    }
    this.#length -= count;
    this.#changed(before, 0, count);
  }

  /**
   * Makes the first `length` bytes, or all, contiguous and answers them; undefined if there are
   * fewer. Copies only what is not contiguous yet.
   */
  pullup(length = this.#length): Uint8Array | undefined {
    checkInteger('length', length, 0);
    if (length > this.#length) return undefined;
    const first = this.#first;
    if (first === undefined || length === 0) return Buffer.alloc(0);
    if (first.file === undefined && first.length >= length)
      return first.bytes.subarray(first.start, first.start + length);
    const joined = new Segment(this.#copy(0, length), 0, length);
    this.#unlink(length);
    joined.next = this.#first;
    this.#first = joined;
    this.#last ??= joined;
    return joined.view();
  }

  /** The memory that the first `length` bytes, or all, are in; a file's part is read. */
  peek(length = this.#length): Uint8Array[] {
    checkInteger('length', length, 0);
    const views: Uint8Array[] = [];
    let left = Math.min(length, this.#length);
    for (let one = this.#first; one !== undefined && left > 0; one = one.next) {
      const view = one.view();
      views.push(view.length > left ? view.subarray(0, left) : view);
      left -= view.length;
    }
    return views;
  }

  /**
   * Takes a line off the front and answers it without its end; undefined while there is no whole
   * line. 'crlf' (the default) ends at a line feed, with or without a carriage return before it;
   * 'any' at any run of both, which may go on in bytes that are still to come.
   */
  readln(eol: Eol = 'crlf', encoding: BufferEncoding = 'utf8'): string | undefined {
    if (!Buffer.isEncoding(encoding))
      throw invalidType('encoding', 'the name of an encoding', encoding);
    const found = this.indexOfEol(eol);
    if (found === undefined) return undefined;
    this.#writable(FRONT);
    const first = this.#first as Segment;
    const { start } = first;
    const line =
      first.file === undefined && first.length >= found.at
        ? first.bytes.toString(encoding, start, start + found.at)
        : this.#copy(0, found.at).toString(encoding);
    this._drain(found.at + found.length);
    return line;
  }

  // ── looking for ──

  /** The first match that begins at `from` or later and ends at `to` or before; -1 without one. */
  indexOf(what: Bytes, from = 0, to = this.#length): number {
    checkInteger('from', from, 0);
    checkInteger('to', to, 0);
    const bytes = typeof what === 'string' ? Buffer.from(what) : bytesIn('what', what);
    return find(this.#first, bytes, from, Math.min(to, this.#length));
  }

  /** The first line end at `from` or later. */
  indexOfEol(eol: Eol, from = 0): Found | undefined {
    checkOneOf('eol', eol, EOLS);
    checkInteger('from', from, 0);
    return findEol(this.#first, eol, from, this.#length);
  }

  // ── telling and refusing ──

  /**
   * Calls back after every call that changed the buffer, inside that call; with `deferTo` from the
   * next pass of that base, once for all that has come together. Disposing of the result ends it.
   */
  onChange(callback: ChangeCallback, options: { deferTo?: EventBase } = {}): Disposable {
    checkFunction('callback', callback);
    checkObject('options', options);
    this.#changes ??= new Changes();
    return this.#changes.listen(callback, options.deferTo);
  }

  /** Nothing can be taken from the front, or added at the back, until `unfreeze`. */
  freeze(end: 'front' | 'back'): void {
    this.#frozen |= endBit(end);
  }
  unfreeze(end: 'front' | 'back'): void {
    this.#frozen &= ~endBit(end);
  }

  // ── a descriptor ──

  /**
   * One read of at most `max` bytes (64 KiB) to the end of the buffer: how many, 0 at the end of
   * the file, or -errno. Scattered over several pieces of memory if it is longer than one.
   */
  readFrom(fd: number, max = READ_BYTES): number {
    checkInteger('fd', fd, 0, 2 ** 31 - 1);
    checkInteger('max', max, 1, BUFFER_BYTES_MAX);
    this.#writable(BACK);
    this.#roomFor(max);
    const pieces = [fresh(Math.min(max, READ_BYTES))];
    for (let left = max - READ_BYTES; left > 0; left -= READ_BYTES * 4)
      pieces.push(fresh(Math.min(left, READ_BYTES * 4)));
    const count = native.sysReadv(
      fd,
      pieces.map((one) => one.view()),
    );
    const before = this.#length;
    let left = Math.max(0, count);
    for (const piece of pieces) {
      const { slab, length } = piece;
      const part = Math.min(length, left);
      left -= part;
      if (slab?.used === piece.end) slab.used = piece.start + part;
      piece.end = piece.start + part;
      if (part === 0) piece.drop();
      else this.#append(piece);
    }
    if (count <= 0) return count;
    this.#length += count;
    this.#grew(before);
    return count;
  }

  /**
   * One write of at most `max` bytes, or all, from the front: how many the descriptor took, or
   * -errno. Up to 64 pieces of memory are gathered; a file is sent by the kernel where it can be.
   */
  writeTo(fd: number, max = this.#length): number {
    checkInteger('fd', fd, 0, 2 ** 31 - 1);
    checkInteger('max', max, 0);
    this.#writable(FRONT);
    return this._writeTo(fd, max, false);
  }

  /** @internal With `socket` by sendmsg, which neither blocks nor raises a signal. */
  _writeTo(fd: number, max: number, socket: boolean): number {
    const first = this.#first;
    if (first === undefined || max === 0) return 0;
    const count = write(fd, first, max, socket);
    if (count > 0) this._drain(count);
    return count;
  }

  /** @internal `count` bytes that a stream has read to the end of what `slab` has given out. */
  _received(slab: Slab, count: number): void {
    const before = this.#length;
    this.#take(slab, count);
    this.#length += count;
    if (this.#changes !== undefined) this.#changes.tell(before, count, 0);
  }

  /** @internal A little data that stays longer than a pass leaves its slab for others to use. */
  _settle(): void {
    if (this.#length === 0 || this.#length > SETTLE_BYTES_MAX) return;
    for (let one = this.#first; one !== undefined; one = one.next)
      if (one.slab === undefined) return;
    const bytes = this.#copy(0, this.#length);
    this.#unlink(this.#length);
    this.#first = this.#last = new Segment(bytes, 0, bytes.length);
  }

  /** @internal Drops everything and tells nobody. */
  _discard(): void {
    this.#unlink(this.#length);
    this.#length = 0;
    this.#reserved?.drop();
    this.#reserved = undefined;
  }

  // ── inside ──

  #writable(end: number): void {
    if (this.#frozen & end)
      throw new MultiloopError(
        'ERR_BUFFER_FROZEN',
        end === FRONT
          ? 'The front of this buffer is frozen: only its stream takes data out'
          : 'The back of this buffer is frozen: only its stream adds data',
      );
  }

  #roomFor(bytes: number): void {
    if (this.#length + bytes > BUFFER_BYTES_MAX)
      throw outOfRange('length of the buffer', `<= ${BUFFER_BYTES_MAX}`, this.#length + bytes);
  }

  #appendText(text: string): void {
    const most = text.length * UTF8_MAX;
    if (most >= OWN_MEMORY_BYTES) {
      this.#appendCopy(Buffer.from(text), true);
      return;
    }
    const slab = slabWith(most);
    const count = slab.bytes.write(text, slab.used);
    if (count === 0) return;
    this.#take(slab, count);
    this.#length += count;
  }

  #appendCopy(bytes: Buffer, own = false): void {
    const count = bytes.length;
    if (count === 0) return;
    this.#roomFor(count);
    if (own || count >= OWN_MEMORY_BYTES) {
      this.#append(new Segment(own ? bytes : copyOf(bytes), 0, count));
    } else {
      const slab = slabWith(count);
      slab.bytes.set(bytes, slab.used);
      this.#take(slab, count);
    }
    this.#length += count;
  }

  /** The next `count` bytes of the slab are the buffer's last. */
  #take(slab: Slab, count: number): void {
    const from = slab.used;
    slab.used += count;
    const last = this.#last;
    if (last !== undefined && last.slab === slab && last.end === from) last.end += count;
    else this.#append(new Segment(slab.bytes, from, from + count, slab));
  }

  #append(segment: Segment): void {
    if (this.#last === undefined) this.#first = segment;
    else this.#last.next = segment;
    this.#last = segment;
  }

  #link(first: Segment, last: Segment): void {
    if (this.#last === undefined) this.#first = first;
    else this.#last.next = first;
    this.#last = last;
  }

  #copy(at: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    let done = 0;
    let base = 0;
    for (let one = this.#first; one !== undefined && done < length; one = one.next) {
      const skip = Math.max(0, at - base);
      base += one.length;
      if (skip < one.length) done += one.copyTo(bytes, done, skip, length - done);
    }
    return bytes;
  }

  /** Takes the first `count` bytes out of the chain; the length is the caller's to set. */
  #unlink(count: number): void {
    let left = count;
    while (left > 0) {
      const segment = this.#first as Segment;
      if (segment.length > left) {
        segment.start += left;
        return;
      }
      left -= segment.length;
      this.#first = segment.next;
      if (segment.next === undefined) this.#last = undefined;
      segment.drop();
    }
  }

  #grew(before: number): this {
    if (this.#length > before) this.#changed(before, this.#length - before, 0);
    return this;
  }

  #changed(before: number, added: number, removed: number): void {
    if (this._owner !== undefined) this._owner.bufferChanged(this, added, removed);
    if (this.#changes !== undefined) this.#changes.tell(before, added, removed);
  }
}

function endBit(end: 'front' | 'back'): number {
  return checkOneOf('end', end, ['front', 'back']) === 'front' ? FRONT : BACK;
}

function bytesIn(name: string, data: unknown): Buffer {
  if (Buffer.isBuffer(data)) return data;
  if (data instanceof Uint8Array)
    return Buffer.from(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  throw invalidType(name, 'of type string or an instance of Uint8Array', data);
}

function copyOf(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

/** Memory for `length` bytes, of a slab or its own. */
function fresh(length: number): Segment {
  if (length > OWN_MEMORY_BYTES) return new Segment(Buffer.allocUnsafeSlow(length), 0, length);
  const slab = slabWith(length);
  const start = slab.used;
  slab.used += length;
  return new Segment(slab.bytes, start, start + length, slab);
}

function copied(bytes: Buffer): Segment {
  if (bytes.length > OWN_MEMORY_BYTES) return new Segment(copyOf(bytes), 0, bytes.length);
  const segment = fresh(bytes.length);
  segment.bytes.set(bytes, segment.start);
  return segment;
}
