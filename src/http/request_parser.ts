// Reads the head of a request: the request line and the headers, in one piece of memory. One look
// at each byte, no string made and nothing allocated; what it finds goes into a Head that is used
// again for the next request. It has no state: a head that is not whole is read again from its
// beginning when there is more of it, and whoever calls decides how often that is.
//
// The rules are those of RFC 9112 and RFC 9110, and where these leave a choice, the strict one is
// taken: what two readers could read in two ways is refused.

import {
  CLASS,
  COLON,
  CR,
  DIGIT,
  FIELD,
  HOST,
  LF,
  SPACE,
  TAB,
  TARGET,
  TOKEN,
} from './characters.js';
import { type Refusal, Refusals } from './status.js';

/** Empty lines before a request line that are passed over (RFC 9112 section 2.2), in bytes. */
const EMPTY_LINES_MAX = 16;
/** Digits of a Content-Length; a number with more is not exact. */
const LENGTH_DIGITS_MAX = 15;

export interface HeadLimits {
  readonly requestLineMax: number;
  readonly headersMax: number;
  readonly headerCountMax: number;
}

/** What there is to know of a head. Positions are of the memory that was read. */
export class Head {
  /** Of an answer (response_parser.ts); 0 of a request. */
  status = 0;
  /** Where the request line begins. */
  start = 0;
  /** Of the last word that was read. */
  wordEnd = 0;
  methodEnd = 0;
  targetStart = 0;
  targetEnd = 0;
  /** Where the first header begins, and where the empty line does. */
  headersStart = 0;
  headersEnd = 0;
  /** After the empty line. */
  end = 0;
  /** HTTP/1.0. */
  old = false;
  hostStart = 0;
  hostEnd = 0;
  hosts = 0;
  headers = 0;
  /** -1: there is none. */
  contentLength = -1;
  chunked = false;
  close = false;
  keepAlive = false;
  upgrade = false;
  expectsContinue = false;
  /** Why it is no request. */
  refusal: Refusal | undefined = undefined;
}

export const WHOLE = 1;
export const INCOMPLETE = 0;
export const REFUSED = -1;
export type Reading = typeof WHOLE | typeof INCOMPLETE | typeof REFUSED;

function refuse(head: Head, refusal: Refusal): typeof REFUSED {
  head.refusal = refusal;
  return REFUSED;
}

const VERSION_BYTES = 8;
const HTTP_SLASH = [72, 84, 84, 80, 47];

/** Reads from `from` to `to`. What it answers depends on these bytes alone. */
export function readHead(
  bytes: Uint8Array,
  from: number,
  to: number,
  limits: HeadLimits,
  head: Head,
): Reading {
  let at = from;
  while (at < to && bytes[at] === CR) {
    if (at - from >= EMPTY_LINES_MAX) return refuse(head, Refusals.METHOD);
    if (at + 1 === to) return INCOMPLETE;
    if (bytes[at + 1] !== LF) return refuse(head, Refusals.LINE_END);
    at += 2;
  }
  head.start = at;
  const line = readRequestLine(bytes, at, to, limits, head);
  if (line !== WHOLE) return line;
  const reading = readHeaders(bytes, head.headersStart, to, limits, head);
  return reading === WHOLE ? judge(bytes, head) : reading;
}

function readRequestLine(
  bytes: Uint8Array,
  from: number,
  to: number,
  limits: HeadLimits,
  head: Head,
): Reading {
  const most = from + limits.requestLineMax;
  const end = to < most ? to : most;
  let reading = readWord(bytes, from, end, to, TOKEN, Refusals.METHOD, head);
  if (reading !== WHOLE) return reading;
  head.methodEnd = head.wordEnd;
  head.targetStart = head.wordEnd + 1;
  reading = readWord(bytes, head.targetStart, end, to, TARGET, Refusals.TARGET, head);
  if (reading !== WHOLE) return reading;
  head.targetEnd = head.wordEnd;
  return readVersion(bytes, head.wordEnd + 1, end, to, head);
}

/** Characters of a kind, at least one, and the space behind them. */
function readWord(
  bytes: Uint8Array,
  from: number,
  end: number,
  to: number,
  kind: number,
  refusal: Refusal,
  head: Head,
): Reading {
  let at = from;
  while (at < end && CLASS[bytes[at]] & kind) at++;
  head.wordEnd = at;
  if (at === end) return short(end, to, head);
  return bytes[at] === SPACE && at > from ? WHOLE : refuse(head, refusal);
}

/** The line is longer than it may be, or there is not enough of it yet. */
function short(end: number, to: number, head: Head): Reading {
  return end < to ? refuse(head, Refusals.LINE_TOO_LONG) : INCOMPLETE;
}

function readVersion(
  bytes: Uint8Array,
  from: number,
  end: number,
  to: number,
  head: Head,
): Reading {
  for (let i = 0; i < VERSION_BYTES; i++) {
    if (from + i === end) return short(end, to, head);
    const byte = bytes[from + i];
    const right = i < 5 ? byte === HTTP_SLASH[i] : i === 6 ? byte === 46 : CLASS[byte] & DIGIT;
    if (!right) return refuse(head, Refusals.VERSION);
  }
  const at = from + VERSION_BYTES;
  if (at === end) return short(end, to, head);
  if (bytes[at] !== CR) {
    return refuse(head, bytes[at] === LF ? Refusals.LINE_END : Refusals.VERSION);
  }
  if (at + 1 === end) return short(end, to, head);
  if (bytes[at + 1] !== LF) return refuse(head, Refusals.LINE_END);
  // A later minor version is served as 1.1 (RFC 9110 section 2.5).
  if (bytes[from + 5] !== 49) return refuse(head, Refusals.WRONG_VERSION);
  head.old = bytes[from + 7] === 48;
  head.headersStart = at + 2;
  return WHOLE;
}

/** Those of an answer too: its framing is told in the same words. */
export function readHeaders(
  bytes: Uint8Array,
  from: number,
  to: number,
  limits: Omit<HeadLimits, 'requestLineMax'>,
  head: Head,
): Reading {
  head.hosts = head.headers = 0;
  head.contentLength = -1;
  head.chunked = head.close = head.keepAlive = head.upgrade = head.expectsContinue = false;
  const most = from + limits.headersMax;
  const end = to < most ? to : most;
  let at = from;
  for (;;) {
    if (at === end) break;
    const start = at;
    while (at < end && CLASS[bytes[at]] & TOKEN) at++;
    if (at === end) break;
    if (at === start) {
      if (bytes[at] !== CR) {
        const first = bytes[at];
        if (first === SPACE || first === TAB) return refuse(head, Refusals.FOLDED);
        return refuse(head, first === LF ? Refusals.LINE_END : Refusals.HEADER_NAME);
      }
      if (at + 1 === end) break;
      if (bytes[at + 1] !== LF) return refuse(head, Refusals.LINE_END);
      head.headersEnd = at;
      head.end = at + 2;
      return WHOLE;
    }
    const nameEnd = at;
    if (bytes[at] !== COLON) return refuse(head, Refusals.HEADER_NAME);
    if (++head.headers > limits.headerCountMax) return refuse(head, Refusals.TOO_MANY_HEADERS);
    at++;
    while (at < end && (bytes[at] === SPACE || bytes[at] === TAB)) at++;
    const valueStart = at;
    while (at < end && CLASS[bytes[at]] & FIELD) at++;
    if (at === end) break;
    if (bytes[at] !== CR)
      return refuse(head, bytes[at] === LF ? Refusals.LINE_END : Refusals.HEADER_VALUE);
    const valueEnd = at;
    if (++at === end) break;
    if (bytes[at] !== LF) return refuse(head, Refusals.LINE_END);
    at++;
    const refusal = note(bytes, start, nameEnd, valueStart, valueEnd, head);
    if (refusal !== undefined) return refuse(head, refusal);
  }
  return end < to ? refuse(head, Refusals.HEADERS_TOO_LARGE) : INCOMPLETE;
}

/** Whether the bytes are this text, which is in lower case. */
function is(bytes: Uint8Array, start: number, text: Uint8Array): boolean {
  for (let i = 0; i < text.length; i++) if ((bytes[start + i] | 0x20) !== text[i]) return false;
  return true;
}
const lower = (text: string) => Uint8Array.from(Buffer.from(text));
const HOST_NAME = lower('host');
const EXPECT = lower('expect');
const UPGRADE = lower('upgrade');
const CONNECTION = lower('connection');
const CONTENT_LENGTH = lower('content-length');
const TRANSFER_ENCODING = lower('transfer-encoding');
const CLOSE = lower('close');
const KEEP_ALIVE = lower('keep-alive');
const CHUNKED = lower('chunked');
const CONTINUE = lower('100-continue');

/** Few names matter here, and their lengths tell them apart from most others. */
function note(
  bytes: Uint8Array,
  start: number,
  nameEnd: number,
  valueStart: number,
  valueEnd: number,
  head: Head,
): Refusal | undefined {
  switch (nameEnd - start) {
    case 4:
      if (is(bytes, start, HOST_NAME)) {
        head.hosts++;
        head.hostStart = valueStart;
        head.hostEnd = trimmed(bytes, valueStart, valueEnd);
      }
      break;
    case 6:
      if (is(bytes, start, EXPECT)) return noteExpect(bytes, valueStart, valueEnd, head);
      break;
    case 7:
      if (is(bytes, start, UPGRADE)) head.upgrade = true;
      break;
    case 10:
      if (is(bytes, start, CONNECTION)) noteConnection(bytes, valueStart, valueEnd, head);
      break;
    case 14:
      if (is(bytes, start, CONTENT_LENGTH)) return noteLength(bytes, valueStart, valueEnd, head);
      break;
    case 17:
      if (is(bytes, start, TRANSFER_ENCODING)) return noteCoding(bytes, valueStart, valueEnd, head);
      break;
  }
  return undefined;
}

function trimmed(bytes: Uint8Array, start: number, end: number): number {
  let at = end;
  while (at > start && (bytes[at - 1] === SPACE || bytes[at - 1] === TAB)) at--;
  return at;
}

function noteLength(
  bytes: Uint8Array,
  start: number,
  valueEnd: number,
  head: Head,
): Refusal | undefined {
  const end = trimmed(bytes, start, valueEnd);
  const digits = end - start;
  if (head.contentLength >= 0 || digits === 0) return Refusals.LENGTH;
  let length = 0;
  for (let at = start; at < end; at++) {
    if (!(CLASS[bytes[at]] & DIGIT)) return Refusals.LENGTH;
    length = length * 10 + (bytes[at] - 48);
  }
  // What is that large is larger than any limit, and only has to stay so.
  head.contentLength = digits > LENGTH_DIGITS_MAX ? Number.MAX_VALUE : length;
  return undefined;
}

function noteExpect(
  bytes: Uint8Array,
  start: number,
  valueEnd: number,
  head: Head,
): Refusal | undefined {
  // Nobody expects anything of who has asked.
  if (head.status > 0) return undefined;
  const end = trimmed(bytes, start, valueEnd);
  if (end - start !== CONTINUE.length || !is(bytes, start, CONTINUE)) return Refusals.EXPECTATION;
  head.expectsContinue = true;
  return undefined;
}

/** Each element of a list (RFC 9110 section 5.6.1). */
function noteConnection(bytes: Uint8Array, from: number, end: number, head: Head): void {
  let at = from;
  while (at < end) {
    while (at < end && (bytes[at] === SPACE || bytes[at] === TAB || bytes[at] === 44)) at++;
    const start = at;
    while (at < end && bytes[at] !== 44) at++;
    const length = trimmed(bytes, start, at) - start;
    if (length === CLOSE.length && is(bytes, start, CLOSE)) head.close = true;
    else if (length === KEEP_ALIVE.length && is(bytes, start, KEEP_ALIVE)) head.keepAlive = true;
  }
}

/** Chunked, once and last; another coding before it is one that nobody here undoes. */
function noteCoding(
  bytes: Uint8Array,
  start: number,
  valueEnd: number,
  head: Head,
): Refusal | undefined {
  const end = trimmed(bytes, start, valueEnd);
  const length = CHUNKED.length;
  const from = end - length;
  const ends = from >= start && is(bytes, from, CHUNKED);
  const alone = from === start;
  const before = from > start ? bytes[from - 1] : 0;
  const isLast = ends && (alone || before === 44 || before === SPACE || before === TAB);
  if (!isLast || head.chunked) return Refusals.NOT_CHUNKED;
  head.chunked = true;
  if (alone) return undefined;
  // Chunked twice is malformed, whatever else is said (RFC 9112 section 6.1).
  const text = Buffer.from(bytes.subarray(start, from)).toString('latin1').toLowerCase();
  return /(^|[,\s])chunked([,\s]|$)/.test(text) ? Refusals.NOT_CHUNKED : Refusals.CODING;
}

const SLASH = 47;
const STAR = 42;

/** What only the whole head tells. */
function judge(bytes: Uint8Array, head: Head): Reading {
  if (head.hosts !== 1 && !(head.old && head.hosts === 0)) return refuse(head, Refusals.HOST);
  if (head.hosts === 1)
    for (let at = head.hostStart; at < head.hostEnd; at++)
      if (!(CLASS[bytes[at]] & HOST)) return refuse(head, Refusals.HOST);
  if (head.chunked) {
    if (head.contentLength >= 0) return refuse(head, Refusals.LENGTH_AND_CODING);
    if (head.old) return refuse(head, Refusals.OLD_AND_CODED);
  }
  // Who speaks HTTP/1.0 does not know it (RFC 9110 section 10.1.1).
  if (head.old) head.expectsContinue = false;
  if (bytes[head.targetStart] === SLASH) return WHOLE;
  return judgeTarget(bytes, head);
}

/** RFC 9112 section 3.2: a URL for a proxy's sake, a host for CONNECT, `*` for OPTIONS. */
function judgeTarget(bytes: Uint8Array, head: Head): Reading {
  const { targetStart: start, targetEnd: end } = head;
  const text = (from: number, to: number) =>
    Buffer.from(bytes.subarray(from, to)).toString('latin1');
  const method = text(head.start, head.methodEnd);
  if (method === 'CONNECT') return refuse(head, Refusals.CONNECT);
  if (bytes[start] === STAR)
    return end - start === 1 && method === 'OPTIONS' ? WHOLE : refuse(head, Refusals.TARGET);
  const absolute = /^https?:\/\/[A-Za-z0-9\-._~%!$&'()*+,;=:[\]]+([/?]|$)/i;
  return absolute.test(text(start, end)) ? WHOLE : refuse(head, Refusals.TARGET);
}
