// Finding bytes and line ends in a chain of segments, without joining them. A file's part that is
// reached becomes memory piece by piece.

import type { Chain } from './chain.js';
import type { Segment } from './segment.js';

/** The five styles of libevent (event2/buffer.h, evbuffer_eol_style). */
export type Eol = 'any' | 'crlf' | 'crlf-strict' | 'lf' | 'nul';
export const EOLS: readonly Eol[] = ['any', 'crlf', 'crlf-strict', 'lf', 'nul'];

export interface Found {
  /** Bytes before it. */
  at: number;
  /** Bytes that the line end takes. */
  length: number;
}

const NUL = 0;
const LF = 10;
const CR = 13;

/** Ranges of at most so many bytes are looked through here: asking the processor costs more. */
const LOOP_BYTES = 32;

/** The first `byte` in a segment's memory from `start` to `end`, or -1. */
function byteIn(segment: Segment, byte: number, start: number, end: number): number {
  if (end - start <= LOOP_BYTES) {
    const { bytes } = segment;
    for (let i = start; i < end; i++) if (bytes[i] === byte) return i;
    return -1;
  }
  const hit = segment.window().indexOf(byte, start);
  return hit < end ? hit : -1;
}

/** Whether `what` is in the chain at position `at` of a segment's memory. */
function matches(chain: Chain, segment: Segment, at: number, what: Uint8Array): boolean {
  let seen = 0;
  let from = at;
  for (let one: Segment | undefined = segment; one !== undefined; ) {
    if (one.file !== undefined) {
      chain.load(one);
      from = one.start;
    }
    one.checkThere();
    const { bytes, end } = one;
    for (let i = from; i < end; i++) {
      if (bytes[i] !== what[seen]) return false;
      if (++seen === what.length) return true;
    }
    one = one.next;
    if (one !== undefined) from = one.start;
  }
  return false;
}

/** The first match that begins at `from` or later and ends at `to` or before; -1 without one. */
export function find(chain: Chain, what: Uint8Array, from: number, to: number): number {
  const count = what.length;
  if (count === 0) return from <= to ? from : -1;
  if (count === 1) return findByte(chain, what[0], from, to);
  const last = to - count;
  const head = what[0];
  let base = 0;
  for (let one = chain.first; one !== undefined && from <= last; one = one.next) {
    if (base + one.end - one.start <= from) {
      base += one.end - one.start;
      continue;
    }
    if (one.file !== undefined) chain.load(one);
    one.checkThere();
    const { bytes, start, end } = one;
    if (base + end - start <= from) {
      base += end - start;
      continue;
    }
    // Positions in the memory: where a match may begin, and up to where it may be looked for.
    let i = start + Math.max(0, from - base);
    const stop = Math.min(end, start + last + 1 - base);
    if (stop <= i) break;
    const whole = Math.min(end, start + to - base);
    if (whole - i >= count && whole - i > LOOP_BYTES) {
      const hit = one.window().indexOf(what, i);
      if (hit !== -1 && hit + count <= whole) return base + hit - start;
      i = whole - count + 1;
    }
    // Here a match may reach into the next segment.
    for (; i < stop; i++)
      if (bytes[i] === head && matches(chain, one, i, what)) return base + i - start;
    base += end - start;
  }
  return -1;
}

function findByte(chain: Chain, byte: number, from: number, to: number): number {
  // What is known not to have it is not looked at again, while a line comes in small pieces.
  const known = byte === LF ? chain.clean : 0;
  const begin = Math.max(from, known);
  let base = 0;
  let found = -1;
  for (let one = chain.first; one !== undefined && base < to; one = one.next) {
    if (one.file !== undefined && base + one.end - one.start > begin) chain.load(one);
    const { start, end } = one;
    const size = end - start;
    if (base + size > begin) {
      one.checkThere();
      const hit = byteIn(
        one,
        byte,
        start + Math.max(0, begin - base),
        Math.min(end, start + to - base),
      );
      if (hit !== -1) {
        found = base + hit - start;
        break;
      }
    }
    base += size;
  }
  if (byte === LF && from <= known) chain.clean = Math.max(known, found === -1 ? to : found);
  return found;
}

function byteAt(chain: Chain, at: number): number {
  let base = 0;
  for (let one = chain.first; one !== undefined; one = one.next) {
    const size = one.end - one.start;
    if (at < base + size) {
      if (one.file !== undefined) chain.load(one);
      if (at < base + one.end - one.start) return one.bytes[one.start + at - base];
    }
    base += one.end - one.start;
  }
  return -1;
}

/** CR and LF in any number and order, as libevent's EVBUFFER_EOL_ANY. */
function findAny(chain: Chain, from: number): Found | undefined {
  let base = 0;
  let at = -1;
  for (let one = chain.first; one !== undefined; one = one.next) {
    if (base + one.end - one.start <= from) {
      base += one.end - one.start;
      continue;
    }
    if (one.file !== undefined) chain.load(one);
    one.checkThere();
    const { bytes, start, end } = one;
    for (let i = start + Math.max(0, from - base); i < end; i++) {
      const byte = bytes[i];
      const isEnd = byte === LF || byte === CR;
      if (isEnd && at === -1) at = base + i - start;
      if (!isEnd && at !== -1) return { at, length: base + i - start - at };
    }
    base += end - start;
  }
  return at === -1 ? undefined : { at, length: chain.length - at };
}

/** The first line end at `from` or later. */
export function findEol(chain: Chain, eol: Eol, from: number): Found | undefined {
  if (eol === 'any') return findAny(chain, from);
  for (let begin = from; ; ) {
    const at = findByte(chain, eol === 'nul' ? NUL : LF, begin, chain.length);
    if (at === -1) return undefined;
    if (eol === 'lf' || eol === 'nul') return { at, length: 1 };
    // A carriage return belongs to the line end if it is at `from` or later.
    if (at > from && byteAt(chain, at - 1) === CR) return { at: at - 1, length: 2 };
    if (eol === 'crlf') return { at, length: 1 };
    begin = at + 1;
  }
}
