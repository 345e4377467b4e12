// The Date header (RFC 9110 section 6.6.1), made once a second; and what an answer begins with.

import type { EventBase } from '../event/event_base.js';
import { reasonOf } from './status.js';

const SECOND_MS = 1_000;
/** Statuses whose beginning is kept. */
const STATUS_MIN = 100;
const STATUS_MAX = 999;

let second = -1;
/** By status; emptied when the second is over. */
let beginnings: string[] = [];
let encoded: Buffer[] = [];
let date = '';

/** The status line and the Date header of an answer that is sent now. */
export function beginning(status: number, base: EventBase): string {
  const now = Math.floor(base.wallTime() / SECOND_MS);
  if (now !== second) {
    second = now;
    date = new Date(now * SECOND_MS).toUTCString();
    beginnings = [];
    encoded = [];
  }
  const known = beginnings[status - STATUS_MIN];
  if (known !== undefined) return known;
  const made = `HTTP/1.1 ${status} ${reasonOf(status)}\r\nDate: ${date}\r\n`;
  beginnings[status - STATUS_MIN] = made;
  return made;
}

/** The same as bytes, to be copied. */
export function beginningBytes(status: number, base: EventBase): Buffer {
  const text = beginning(status, base);
  const known = encoded[status - STATUS_MIN];
  if (known !== undefined) return known;
  const made = Buffer.from(text, 'latin1');
  encoded[status - STATUS_MIN] = made;
  return made;
}

export const isStatus = (status: number): boolean =>
  Number.isInteger(status) && status >= STATUS_MIN && status <= STATUS_MAX;
