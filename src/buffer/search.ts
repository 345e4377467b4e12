// Finding bytes and line ends in a chain of segments, without joining them.

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
const CRLF = Buffer.from('\r\n');

/** A place in a chain. `base`: bytes before the segment. */
interface Place {
  segment: Segment | undefined;
  base: number;
}

function placeOf(first: Segment | undefined, at: number): Place {
  let segment = first;
  let base = 0;
  while (segment !== undefined && at >= base + segment.length) {
    base += segment.length;
    segment = segment.next;
  }
  return { segment, base };
}

function bytesOf(segment: Segment): { bytes: Buffer; start: number; end: number } {
  if (segment.file === undefined) return segment;
  return { bytes: segment.view(), start: 0, end: segment.length };
}

/** Whether `what` is in the chain at `at`, a position in `segment`, which begins at `base`. */
function matches(segment: Segment, base: number, at: number, what: Uint8Array): boolean {
  let seen = 0;
  let from = at - base;
  for (let one: Segment | undefined = segment; one !== undefined; one = one.next) {
    const { bytes, start, end } = bytesOf(one);
    for (let i = start + from; i < end; i++) {
      if (bytes[i] !== what[seen]) return false;
      if (++seen === what.length) return true;
    }
    from = 0;
  }
  return false;
}

/** The first match that begins at `from` or later and ends at `to` or before; -1 without one. */
export function find(
  first: Segment | undefined,
  what: Uint8Array,
  from: number,
  to: number,
): number {
  const last = to - what.length;
  if (what.length === 0) return from <= to ? from : -1;
  let { segment, base } = placeOf(first, from);
  let begin = from;
  for (; segment !== undefined && begin <= last; segment = segment.next) {
    const { bytes, start, end } = bytesOf(segment);
    let i = start + begin - base;
    while (i < end) {
      // Whole matches inside the segment are found at the processor's speed; the first byte alone
      // is looked for where a match could reach into the next.
      const inside = end - i >= what.length ? bytes.indexOf(what, i) : -1;
      if (inside !== -1 && inside + what.length <= end) {
        const at = base + inside - start;
        return at <= last ? at : -1;
      }
      i = Math.max(i, end - what.length + 1);
      while (i < end) {
        const hit = bytes.indexOf(what[0], i);
        if (hit === -1 || hit >= end) {
          i = end;
          break;
        }
        const at = base + hit - start;
        if (at > last) return -1;
        if (matches(segment, base, at, what)) return at;
        i = hit + 1;
      }
    }
    base += segment.length;
    begin = base;
  }
  return -1;
}

function byteAt(first: Segment | undefined, at: number): number {
  const { segment, base } = placeOf(first, at);
  if (segment === undefined) return -1;
  const { bytes, start } = bytesOf(segment);
  return bytes[start + at - base];
}

/** CR and LF in any number and order, as libevent's EVBUFFER_EOL_ANY. */
function findAny(first: Segment | undefined, from: number, to: number): Found | undefined {
  let { segment, base } = placeOf(first, from);
  let begin = from;
  let at = -1;
  for (; segment !== undefined; segment = segment.next) {
    const { bytes, start, end } = bytesOf(segment);
    for (let i = start + begin - base; i < end; i++) {
      const isEnd = bytes[i] === LF || bytes[i] === CR;
      if (isEnd && at === -1) at = base + i - start;
      if (!isEnd && at !== -1) return { at, length: base + i - start - at };
    }
    base += segment.length;
    begin = base;
  }
  return at === -1 ? undefined : { at, length: to - at };
}

/** The first line end at `from` or later in a chain of `length` bytes. */
export function findEol(
  first: Segment | undefined,
  eol: Eol,
  from: number,
  length: number,
): Found | undefined {
  if (eol === 'any') return findAny(first, from, length);
  if (eol === 'crlf-strict') {
    const at = find(first, CRLF, from, length);
    return at === -1 ? undefined : { at, length: 2 };
  }
  const at = findByte(first, eol === 'nul' ? NUL : LF, from);
  if (at === -1) return undefined;
  // CRLF: a line feed, and the carriage return before it if there is one; never one before `from`.
  if (eol === 'crlf' && at > from && byteAt(first, at - 1) === CR) return { at: at - 1, length: 2 };
  return { at, length: 1 };
}

function findByte(first: Segment | undefined, byte: number, from: number): number {
  let { segment, base } = placeOf(first, from);
  let begin = from;
  for (; segment !== undefined; segment = segment.next) {
    const { bytes, start, end } = bytesOf(segment);
    const hit = bytes.indexOf(byte, start + begin - base);
    // The memory goes on after the segment's end.
    if (hit !== -1 && hit < end) return base + hit - start;
    base += segment.length;
    begin = base;
  }
  return -1;
}
