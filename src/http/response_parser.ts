// Reads the head of an answer: the status line (RFC 9112 section 4) here, the headers as those of a
// request, with the same code and as strictly. It has no state either.

import { CLASS, CR, DIGIT, FIELD, LF, SPACE } from './characters.js';
import {
  type Head,
  type HeadLimits,
  INCOMPLETE,
  REFUSED,
  type Reading,
  readHeaders,
  WHOLE,
} from './request_parser.js';
import { type Refusal, Refusals, refusal } from './status.js';

export interface AnswerLimits extends Omit<HeadLimits, 'requestLineMax'> {
  readonly statusLineMax: number;
}

const STATUS_LINE = refusal(400, 'it does not begin with a status line');
const STATUS = refusal(400, 'its status is not a number from 100 to 999');
const REASON = refusal(400, 'the reason in its status line has a character that is not allowed');
const VERSION = refusal(505, 'its version is neither HTTP/1.1 nor HTTP/1.0');
const TOO_LONG = refusal(431, 'its status line is too long');

/** `HTTP/1.1 ` and `HTTP/1.1 200`, in bytes. */
const VERSION_BYTES = 9;
const STATUS_BYTES = 12;
/** 0: a digit. */
const PATTERN = [72, 84, 84, 80, 47, 0, 46, 0, SPACE, 0, 0, 0];
const ZERO = 48;
const ONE = 49;

function refuse(head: Head, why: Refusal): typeof REFUSED {
  head.refusal = why;
  return REFUSED;
}

/**
 * Reads from `from` to `to`; what it answers depends on these bytes alone. The reason is from
 * `targetStart` to `targetEnd`.
 */
export function readAnswerHead(
  bytes: Uint8Array,
  from: number,
  to: number,
  limits: AnswerLimits,
  head: Head,
): Reading {
  const line = readStatusLine(bytes, from, to, limits.statusLineMax, head);
  if (line !== WHOLE) return line;
  const reading = readHeaders(bytes, head.headersStart, to, limits, head);
  if (reading !== WHOLE || !head.chunked) return reading;
  if (head.contentLength >= 0) return refuse(head, Refusals.LENGTH_AND_CODING);
  return head.old ? refuse(head, Refusals.OLD_AND_CODED) : WHOLE;
}

function readStatusLine(
  bytes: Uint8Array,
  from: number,
  to: number,
  most: number,
  head: Head,
): Reading {
  const end = Math.min(to, from + most);
  const short = () => (end < to ? refuse(head, TOO_LONG) : INCOMPLETE);
  for (let i = 0; i < STATUS_BYTES; i++) {
    if (from + i === end) return short();
    const byte = bytes[from + i];
    if (PATTERN[i] === 0 ? CLASS[byte] & DIGIT : byte === PATTERN[i]) continue;
    return refuse(head, i < VERSION_BYTES ? STATUS_LINE : STATUS);
  }
  if (bytes[from + 5] !== ONE) return refuse(head, VERSION);
  if (bytes[from + VERSION_BYTES] === ZERO) return refuse(head, STATUS);
  head.start = from;
  head.old = bytes[from + 7] === ZERO;
  head.status = 0;
  for (let i = VERSION_BYTES; i < STATUS_BYTES; i++)
    head.status = head.status * 10 + (bytes[from + i] - ZERO);
  let at = from + STATUS_BYTES;
  if (at === end) return short();
  // The space belongs there without a reason too, but enough servers leave it out with that.
  if (bytes[at] === SPACE) at++;
  else if (bytes[at] !== CR && bytes[at] !== LF) return refuse(head, STATUS);
  head.targetStart = at;
  while (at < end && CLASS[bytes[at]] & FIELD) at++;
  if (at === end) return short();
  head.targetEnd = at;
  if (bytes[at] !== CR) return refuse(head, bytes[at] === LF ? Refusals.LINE_END : REASON);
  if (++at === end) return short();
  if (bytes[at] !== LF) return refuse(head, Refusals.LINE_END);
  head.headersStart = at + 1;
  return WHOLE;
}
