// The Range header (RFC 9110 section 14): which bytes of how many are asked for.

export interface ByteRange {
  /** Of its first byte. */
  readonly start: number;
  /** Bytes; never 0. */
  readonly length: number;
}

/** `whole`: the header is to be ignored. `none`: no range of it has a byte (416). */
export type Ranges = readonly ByteRange[] | 'whole' | 'none';

/** What a position may have: more digits are no number that could be exact. */
const DIGITS_MAX = 15;
const SPEC = /^(\d*)-(\d*)$/;

/**
 * The ranges of a representation of `size` bytes, in the order in which they are asked for; those
 * that overlap or touch are one, and then all are in the order of their bytes (RFC 9110 section
 * 15.3.7.2). What is malformed, of another unit, of more than `max` ranges, or all there is anyway
 * is no range (section 14.2).
 */
export function rangesOf(header: string, size: number, max: number): Ranges {
  const unit = /^bytes[ \t]*=/i.exec(header);
  if (unit === null) return 'whole';
  const wanted: ByteRange[] = [];
  let count = 0;
  // An empty element of a list counts for nothing (section 5.6.1.2).
  for (const part of header.slice(unit[0].length).split(',', 4 * max + 1)) {
    const text = part.trim();
    if (text === '') continue;
    if (++count > max) return 'whole';
    const range = rangeOf(text, size);
    if (range === undefined) return 'whole';
    if (range.length > 0) wanted.push(range);
    // A suffix of what is empty is all of it, and no Content-Range can say so.
    else if (size === 0 && /^-0*[1-9]/.test(text)) return 'whole';
  }
  if (count === 0) return 'whole';
  if (wanted.length === 0) return 'none';
  const ranges = coalesced(wanted);
  return ranges.length === 1 && ranges[0].length === size ? 'whole' : ranges;
}

/** Undefined: malformed. Of no bytes: it cannot be satisfied. */
function rangeOf(text: string, size: number): ByteRange | undefined {
  const match = SPEC.exec(text);
  if (match === null) return undefined;
  const [, first, last] = match;
  if (first.length > DIGITS_MAX || last.length > DIGITS_MAX) return undefined;
  if (first === '') {
    if (last === '') return undefined;
    const length = Math.min(Number(last), size);
    return { start: size - length, length };
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return undefined;
  const end = last === '' ? size : Math.min(Number(last) + 1, size);
  return { start, length: Math.max(0, end - start) };
}

function coalesced(ranges: ByteRange[]): ByteRange[] {
  const sorted = [...ranges].sort((one, other) => one.start - other.start);
  const merged: ByteRange[] = [];
  for (const range of sorted) {
    const before = merged.at(-1);
    if (before === undefined || range.start > before.start + before.length) {
      merged.push(range);
      continue;
    }
    const end = Math.max(before.start + before.length, range.start + range.length);
    merged[merged.length - 1] = { start: before.start, length: end - before.start };
  }
  return merged.length === ranges.length ? ranges : merged;
}
