// A queue of bytes as a chain of segments: what is added at one end and taken from the other is
// not copied on the way, and neither is what moves from one buffer to another. libevent's evbuffer.
//
// This file says who may change a buffer, and tells who has to know; chain.ts changes it. Lenders
// and listeners are called when the chain is whole again, so they may use any buffer.

import { MultiloopError } from '../errors.js';
import { EventBase } from '../event/event_base.js';
import {
  checkFunction,
  checkInteger,
  checkObject,
  checkOneOf,
  invalidType,
  invalidValue,
  outOfRange,
} from '../validate.js';
import { type Bytes, checkBytes, UTF8_MAX } from './bytes.js';
import { Chain } from './chain.js';
import { type ChangeCallback, Changes } from './changes.js';
import { offerFrom, READ_BYTES, readTo, writeFrom } from './descriptor.js';
import { BACK, endBit, FRONT, frozen } from './ends.js';
import { FileSegment } from './file_segment.js';
import { EOLS, type Eol, type Found, find, findEol } from './search.js';
import { Loan, Segment, tellLenders } from './segment.js';
import type { Slab } from './slab.js';

export type { Bytes };

/** Bytes in one buffer; more is refused, since a number of that size is a mistake or an attack. */
export const BUFFER_BYTES_MAX = 2 ** 32;
const FD_MAX = 2 ** 31 - 1;
/** At most so many bytes are taken out of their slab when they stay longer than a pass. */
const SETTLE_BYTES_MAX = 16 * 1024;
const NO_BYTES = Buffer.alloc(0);

/** Who a stream's buffer belongs to, and what its owner has to know of every change. */
export interface BufferOwner {
  bufferChanged(buffer: EvBuffer, added: number, removed: number): void;
}

/**
 * Belongs to the thread that made it; positions and lengths are bytes. Every `Bytes` may be a
 * string, taken as UTF-8 (a lone surrogate as U+FFFD). What `peek`, `pullup` and `reserve` answer
 * is the buffer's own memory and valid until the buffer changes next; what `remove` and `copyOut`
 * answer is the caller's.
 *
 * Besides wrong arguments (ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE, ERR_OUT_OF_RANGE) and more
 * than 4 GiB (ERR_OUT_OF_RANGE), a method throws ERR_BUFFER_FROZEN for an end that is frozen,
 * ERR_BUFFER_DETACHED when it needs lent memory that was transferred, and ERR_FILE_TRUNCATED or
 * the error of pread(2) when it needs bytes of a file that are not there. What throws changes
 * nothing. The rules are those of libevent's event2/buffer.h; PARITY.md tells where they differ.
 */
export class EvBuffer implements Disposable {
  /** @internal */ _owner: BufferOwner | undefined = undefined;
  readonly #chain = new Chain();
  #frozen = 0;
  #reserved: Segment | undefined = undefined;
  #changes: Changes | undefined = undefined;

  get length(): number {
    return this.#chain.length;
  }

  /** Bytes that `pullup` answers without copying. (evbuffer_get_contiguous_space) */
  get contiguous(): number {
    const { first } = this.#chain;
    return first === undefined || first.file !== undefined ? 0 : first.length;
  }

  // ── putting in: the back must not be frozen ──

  /** Copies `data` to the end. */
  add(data: Bytes): this {
    this.#writable(BACK);
    return this._add(data);
  }

  /** @internal `add` for the one who froze the end. */
  _add(data: Bytes): this {
    const chain = this.#chain;
    const before = chain.length;
    if (typeof data === 'string') {
      this.#roomForText(data);
      const count = chain.addText(data);
      if (count > 0) this.#changed(before, count, 0);
      return this;
    }
    checkBytes('data', data);
    const { length } = data;
    if (length === 0) return this;
    this.#roomFor(length);
    chain.addCopy(data);
    this.#changed(before, length, 0);
    return this;
  }

  /** Copies several pieces to the end; listeners are told once. (evbuffer_add_iovec) */
  addAll(pieces: readonly Bytes[]): this {
    if (!Array.isArray(pieces)) throw invalidType('pieces', 'an instance of Array', pieces);
    let most = 0;
    for (const [i, piece] of pieces.entries()) {
      if (typeof piece === 'string') most += Buffer.byteLength(piece);
      else most += checkBytes(`pieces[${i}]`, piece).length;
    }
    this.#writable(BACK);
    this.#roomFor(most);
    const chain = this.#chain;
    const before = chain.length;
    for (const piece of pieces) {
      if (typeof piece === 'string') chain.addText(piece);
      else chain.addCopy(piece);
    }
    return this.#grew(before);
  }

  /** Copies `data` to the front, which must not be frozen unless there is no data. */
  prepend(data: Bytes): this {
    const bytes = typeof data === 'string' ? Buffer.from(data) : checkBytes('data', data);
    if (bytes.length === 0) return this;
    this.#writable(FRONT);
    this.#roomFor(bytes.length);
    const before = this.#chain.length;
    this.#chain.prepend(bytes);
    return this.#grew(before);
  }

  /**
   * Moves `length` bytes, or all, from the front of another buffer to the end of this one, without
   * copying them. Answers how many: fewer if there are not so many. Both ends must not be frozen,
   * unless there is nothing to move. The other buffer's listeners are told first, with `length`
   * this one's (evbuffer_add_buffer, evbuffer_remove_buffer).
   */
  addBuffer(from: EvBuffer, length?: number): number {
    checkBuffer('from', from);
    if (length !== undefined) checkInteger('length', length, 0);
    const count = Math.min(length ?? from.length, from.length);
    if (from === this || count === 0) return 0;
    this.#writable(BACK);
    from.#writable(FRONT);
    return this.#moveFrom(from, count, length !== undefined);
  }

  /** @internal `addBuffer` of exactly `length` bytes, for whoever froze an end. */
  _move(from: EvBuffer, length: number): number {
    return length === 0 ? 0 : this.#moveFrom(from, length, false);
  }

  #moveFrom(from: EvBuffer, length: number, tellFirst: boolean): number {
    this.#roomFor(length);
    const before = this.length;
    const fromBefore = from.length;
    this.#chain.move(from.#chain, length);
    if (tellFirst) this.#changed(before, length, 0);
    from.#changed(fromBefore, 0, length);
    if (!tellFirst) this.#changed(before, length, 0);
    return length;
  }

  /**
   * Moves all of another buffer to the front of this one, without copying; answers how many bytes.
   * Neither front may be frozen, unless there is nothing to move. (evbuffer_prepend_buffer)
   */
  prependBuffer(from: EvBuffer): number {
    checkBuffer('from', from);
    const count = from.length;
    if (from === this || count === 0) return 0;
    this.#writable(FRONT);
    from.#writable(FRONT);
    this.#roomFor(count);
    const before = this.length;
    this.#chain.prependAll(from.#chain);
    from.#changed(count, 0, count);
    this.#changed(before, count, 0);
    return count;
  }

  /**
   * Appends what another buffer has now, without copying and without taking it out there; of the
   * buffer itself, it is there twice. What is added and drained there later is not seen here.
   * (evbuffer_add_buffer_reference)
   */
  addView(of: EvBuffer): this {
    checkBuffer('of', of);
    this.#writable(BACK);
    this.#roomFor(of.length);
    const before = this.length;
    this.#chain.addView(of.#chain);
    return this.#grew(before);
  }

  /**
   * Appends memory of the caller without copying it; of a part of it, with a subarray. It must not
   * change until `release` is called: once, when no buffer has any of it, perhaps inside this call,
   * for memory of no bytes. If this throws it is not called. What `release` throws is an uncaught
   * exception and nothing else.
   */
  addReference(data: Uint8Array, release?: () => void): this {
    checkBytes('data', data, 'an instance of Uint8Array');
    if (release !== undefined) checkFunction('release', release);
    this.#writable(BACK);
    const bytes = Buffer.isBuffer(data)
      ? data
      : Buffer.from(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    return this._addReference(bytes, release);
  }

  /** @internal */
  _addReference(bytes: Buffer, release?: () => void): this {
    this.#roomFor(bytes.length);
    const before = this.length;
    const loan = release === undefined ? undefined : new Loan(release);
    const segment = new Segment(bytes, 0, bytes.length, undefined, loan);
    if (bytes.length > 0) {
      this.#chain.append(segment);
    } else {
      segment.drop();
      tellLenders();
    }
    return this.#grew(before);
  }

  /**
   * Appends a part of a file, `length` -1 meaning up to its end; `offset` of a FileSegment is
   * within the segment. A descriptor becomes the buffer's, which closes it when it is done, also
   * if this throws; a FileSegment stays the caller's to close. A socket is sent the file by the
   * kernel; whoever else needs the bytes makes the buffer read them, 64 KiB at a time.
   */
  addFile(file: number | FileSegment, offset = 0, length = -1): this {
    if (file instanceof FileSegment) return this.#addSegment(file, offset, length);
    if (typeof file !== 'number')
      throw invalidType('file', 'of type number or an instance of FileSegment', file);
    checkInteger('file', file, 0, FD_MAX);
    const segment = FileSegment._own(file, offset, length);
    try {
      return this.#addSegment(segment, 0, -1);
    } finally {
      segment.close();
    }
  }

  #addSegment(file: FileSegment, offset: number, length: number): this {
    const whole = file.length - checkInteger('offset', offset, 0, file.length);
    const count = checkInteger('length', length, -1, whole) === -1 ? whole : length;
    if (file.disposed)
      throw new MultiloopError(
        'ERR_SEGMENT_CLOSED',
        `The segment of descriptor ${file.fd} was closed; add it to every buffer before that`,
      );
    this.#writable(BACK);
    this.#roomFor(count);
    if (count === 0) return this;
    const before = this.length;
    const position = file.offset + offset;
    this.#chain.append(Segment.ofFile(file, position, position + count));
    return this.#grew(before);
  }

  /**
   * At least `length` bytes to write to; `commit` puts them at the end of the buffer. Called again
   * before that, it answers the same memory if that is long enough. What is added meanwhile comes
   * before it. (evbuffer_reserve_space, where that makes the reservation void.)
   */
  reserve(length: number): Uint8Array {
    checkInteger('length', length, 1, BUFFER_BYTES_MAX);
    this.#writable(BACK);
    this.#roomFor(length);
    if (this.#reserved === undefined || this.#reserved.length < length) {
      const memory = Segment.fresh(length);
      this.#dropReserved();
      this.#reserved = memory;
    }
    return this.#reserved.view();
  }

  /** The first `length` bytes of what `reserve` answered are data now; the rest is given up. */
  commit(length: number): void {
    const segment = this.#reserved;
    checkInteger('length', length, 0, segment?.length ?? 0);
    this.#writable(BACK);
    if (segment === undefined) return;
    this.#roomFor(length);
    if (length === 0) {
      this.#dropReserved();
      return;
    }
    segment.checkThere();
    this.#reserved = undefined;
    segment.cut(segment.start + length);
    const before = this.length;
    this.#chain.join(segment);
    this.#grew(before);
  }

  #dropReserved(): void {
    const segment = this.#reserved;
    if (segment === undefined) return;
    this.#reserved = undefined;
    segment.cut(segment.start);
    segment.drop();
  }

  /** Finds memory now, so that what is added next, up to `length` bytes, is contiguous. */
  expand(length: number): this {
    checkInteger('length', length, 0, BUFFER_BYTES_MAX);
    this.#roomFor(length);
    if (length > 0) this.#chain.expand(length);
    return this;
  }

  // ── taking out: the front must not be frozen, unless nothing is taken ──

  /** Takes `length` bytes, or all if there are fewer, off the front. */
  remove(length: number): Uint8Array {
    checkInteger('length', length, 0);
    const chain = this.#chain;
    const before = chain.length;
    const count = Math.min(length, before);
    if (count === 0) return NO_BYTES;
    this.#writable(FRONT);
    const bytes = chain.copy(0, count);
    chain.drain(count);
    tellLenders();
    this.#changed(before, 0, count);
    return bytes;
  }

  /** Copies `length` bytes, or as many as there are, from position `at` on; nothing changes. */
  copyOut(length: number, at = 0): Uint8Array {
    checkInteger('length', length, 0);
    checkInteger('at', at, 0, this.length);
    try {
      return this.#chain.copy(at, Math.min(length, this.length - at));
    } finally {
      tellLenders();
    }
  }

  /** Drops `length` bytes, or all if there are fewer, from the front. */
  drain(length: number): this {
    checkInteger('length', length, 0);
    const count = Math.min(length, this.#chain.length);
    if (count === 0) return this;
    this.#writable(FRONT);
    this._drain(count);
    return this;
  }

  /** @internal `drain` of at most what there is, for the one who froze the front. */
  _drain(count: number): void {
    const before = this.#chain.length;
    this.#chain.drain(count);
    tellLenders();
    this.#changed(before, 0, count);
  }

  /**
   * Makes the first `length` bytes, or all, contiguous and answers them; undefined if there are
   * fewer. Copies only what is not contiguous yet, also when it is called again and again while a
   * message grows. Nobody is told: the data is the same.
   */
  pullup(length = this.length): Uint8Array | undefined {
    checkInteger('length', length, 0);
    if (length > this.length) return undefined;
    try {
      const first = this.#chain.pullup(length);
      return first === undefined || length === 0 ? NO_BYTES : first.view(length);
    } finally {
      tellLenders();
    }
  }

  /**
   * The memory that `length` bytes, or all, from position `at` on are in, in order; a file's part
   * is read and becomes memory. (evbuffer_peek)
   */
  peek(length = this.length, at = 0): Uint8Array[] {
    checkInteger('length', length, 0);
    checkInteger('at', at, 0, this.length);
    try {
      return this.#chain.views(at, Math.min(length, this.length - at));
    } finally {
      tellLenders();
    }
  }

  /**
   * Takes a line off the front and answers it without its end; undefined while there is no whole
   * line. 'crlf' (the default) ends at a line feed, with or without one carriage return before it,
   * 'crlf-strict' with one, 'lf' without; 'nul' at a byte of 0; 'any' at any run of carriage
   * returns and line feeds, which may go on in bytes that are still to come. (evbuffer_readln)
   */
  readln(eol: Eol = 'crlf', encoding: BufferEncoding = 'utf8'): string | undefined {
    if (typeof encoding !== 'string') throw invalidType('encoding', 'of type string', encoding);
    if (encoding !== 'utf8' && !Buffer.isEncoding(encoding))
      throw invalidValue('encoding', 'is no encoding of Node', encoding);
    const found = this.indexOfEol(eol);
    if (found === undefined) return undefined;
    this.#writable(FRONT);
    const { first } = this.#chain;
    const { at } = found;
    let line: string;
    if (first !== undefined && first.file === undefined && first.length >= at)
      line = first.bytes.toString(encoding, first.start, first.start + at);
    else line = this.#chain.copy(0, at).toString(encoding);
    this._drain(at + found.length);
    return line;
  }

  // ── looking for ──

  /**
   * The first match that begins at `from` or later and ends at `to` or before; -1 without one. No
   * bytes are found at `from`. (evbuffer_search, evbuffer_search_range)
   */
  indexOf(what: Bytes, from = 0, to = this.length): number {
    const bytes = typeof what === 'string' ? Buffer.from(what) : checkBytes('what', what);
    checkInteger('from', from, 0);
    checkInteger('to', to, 0);
    try {
      return find(this.#chain, bytes, from, Math.min(to, this.length));
    } finally {
      tellLenders();
    }
  }

  /** The first line end that begins at `from` or later: see `readln`. (evbuffer_search_eol) */
  indexOfEol(eol: Eol, from = 0): Found | undefined {
    checkOneOf('eol', eol, EOLS);
    checkInteger('from', from, 0);
    try {
      return findEol(this.#chain, eol, from);
    } finally {
      tellLenders();
    }
  }

  // ── telling, refusing, ending ──

  /**
   * Calls back for every call that changed the buffer, once and before it returns, in the order of
   * listening; with `deferTo` from the next pass of that base, once for all that has come together.
   * A callback may change the buffer, which tells all listeners of that first. What one throws is
   * an uncaught exception, and the call and the others go on. Disposing of the result ends it.
   */
  onChange(callback: ChangeCallback, options: { deferTo?: EventBase } = {}): Disposable {
    checkFunction('callback', callback);
    checkObject('options', options);
    const { deferTo } = options;
    if (deferTo !== undefined && !(deferTo instanceof EventBase))
      throw invalidType('options.deferTo', 'an instance of EventBase', deferTo);
    this.#changes ??= new Changes();
    return this.#changes.listen(callback, deferTo);
  }

  /** Nothing can be put in or taken out at that end until `unfreeze`; freezing twice is once. */
  freeze(end: 'front' | 'back'): void {
    this.#frozen |= endBit(end);
  }
  unfreeze(end: 'front' | 'back'): void {
    this.#frozen &= ~endBit(end);
  }

  /**
   * Ends every listener, drops what is in the buffer and so releases what was lent to it. Without
   * it, or draining, lent memory and files are held for ever. The buffer is empty and usable
   * afterwards; with data in it the front must not be frozen.
   */
  close(): void {
    if (this.length > 0) this.#writable(FRONT);
    this.#changes?.end();
    this.#changes = undefined;
    this.drain(this.length);
    this._discard();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  // ── a descriptor ──

  /**
   * One read of at most `max` bytes (64 KiB) to the end of the buffer: how many, 0 at the end of
   * the file, or -errno. More than 64 KiB are scattered, up to about 1 MiB in one call.
   */
  readFrom(fd: number, max = READ_BYTES): number {
    checkInteger('fd', fd, 0, FD_MAX);
    checkInteger('max', max, 1);
    this.#writable(BACK);
    this.#roomFor(1);
    const before = this.length;
    const count = readTo(this.#chain, fd, Math.min(max, BUFFER_BYTES_MAX - before));
    this.#grew(before);
    return count;
  }

  /**
   * One write of at most `max` bytes, or all, from the front: how many the descriptor took, or
   * -errno. Up to 64 pieces of memory are gathered; a file is sent by the kernel where it can be.
   */
  writeTo(fd: number, max = this.length): number {
    checkInteger('fd', fd, 0, FD_MAX);
    checkInteger('max', max, 0);
    this.#writable(FRONT);
    return this._writeTo(fd, max, false);
  }

  /** @internal With `socket` by sendmsg, which neither blocks nor raises a signal. */
  _writeTo(fd: number, max: number, socket: boolean): number {
    if (this.#chain.length === 0 || max === 0) return 0;
    let count = 0;
    try {
      count = writeFrom(this.#chain, fd, max, socket);
    } finally {
      // A file's part may have become memory.
      tellLenders();
    }
    if (count > 0) this._drain(count);
    return count;
  }

  /** @internal As `_writeTo`, to whoever takes them: see offerFrom(). */
  _offer(max: number, whole: number, take: Parameters<typeof offerFrom>[3], least = 0): number {
    try {
      const count = offerFrom(this.#chain, max, whole, take, least);
      if (count > 0) this._drain(count);
      return count;
    } finally {
      tellLenders();
    }
  }

  // ── for streams ──

  /** @internal As Chain's room() and fill(), for the one who froze the end. */
  _room(most: number): Segment {
    this.#roomFor(most);
    return this.#chain.room(most);
  }
  _fill(segment: Segment, count: number): void {
    const before = this.length;
    this.#chain.fill(segment, count);
    this.#changed(before, count, 0);
  }
  /** @internal The memory that the front is in, to be looked at and not kept. */
  get _front(): Segment | undefined {
    return this.#chain.first;
  }

  /** @internal `count` bytes that a stream has read to the end of what `slab` has given out. */
  _received(slab: Slab, count: number): void {
    const before = this.length;
    this.#chain.take(slab, count);
    if (this.#changes !== undefined) this.#changes.tell(before, count, 0);
  }

  /** @internal A little data that stays longer than a pass leaves its slab for others to use. */
  _settle(): void {
    if (this.length > 0 && this.length <= SETTLE_BYTES_MAX) this.#chain.settle();
  }

  /** @internal Drops everything and tells nobody but lenders. */
  _discard(): void {
    this.#chain.clear();
    this.#dropReserved();
    tellLenders();
  }

  // ── inside ──

  #writable(end: number): void {
    if (this.#frozen & end) throw frozen(end);
  }

  #roomFor(bytes: number): void {
    const length = this.#chain.length + bytes;
    if (length > BUFFER_BYTES_MAX)
      throw outOfRange('length of the buffer', `<= ${BUFFER_BYTES_MAX}`, length);
  }

  /** Counts the bytes only when it matters. */
  #roomForText(text: string): void {
    if (this.#chain.length + text.length * UTF8_MAX > BUFFER_BYTES_MAX)
      this.#roomFor(Buffer.byteLength(text));
  }

  #grew(before: number): this {
    if (this.length > before) this.#changed(before, this.length - before, 0);
    return this;
  }

  #changed(before: number, added: number, removed: number): void {
    if (this._owner !== undefined) this._owner.bufferChanged(this, added, removed);
    if (this.#changes !== undefined) this.#changes.tell(before, added, removed);
  }
}

function checkBuffer(name: string, value: unknown): void {
  if (!(value instanceof EvBuffer)) throw invalidType(name, 'an instance of EvBuffer', value);
}
