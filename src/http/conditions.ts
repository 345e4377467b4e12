// Conditional requests (RFC 9110 section 13): whether what a client has is what there is.

import type { HttpHeaders } from './headers.js';

/** What a representation is told apart by. */
export interface Validators {
  /** As it is sent, with its quotes and perhaps `W/`. */
  readonly etag: string;
  /** Milliseconds since 1970, whole seconds; undefined: not known. */
  readonly modified: number | undefined;
}

/** 200: the request is to be answered as if there were no condition. */
export type Verdict = 200 | 304 | 412;

const TAG = /(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"/y;

/**
 * What the conditions of a GET or HEAD request come to, in the order of section 13.2.2. A date that
 * is none is ignored, and so is one beside a list of tags that it is the old form of.
 */
export function judge(headers: HttpHeaders, { etag, modified }: Validators): Verdict {
  const match = headers.get('if-match');
  if (match !== undefined) {
    if (match.trim() !== '*' && !isListed(match, etag, true)) return 412;
  } else if (modified !== undefined) {
    const since = dateOf(headers.get('if-unmodified-since'));
    if (since !== undefined && modified > since) return 412;
  }
  const noneMatch = headers.get('if-none-match');
  if (noneMatch !== undefined)
    return noneMatch.trim() === '*' || isListed(noneMatch, etag, false) ? 304 : 200;
  if (modified === undefined) return 200;
  const since = dateOf(headers.get('if-modified-since'));
  return since !== undefined && modified <= since ? 304 : 200;
}

/**
 * Whether a Range holds beside this If-Range (section 13.1.5): the comparison is strong. A date is
 * strong if what it tells of was a second old at `now` (section 8.8.2.2).
 */
export function rangeHolds(
  header: string | undefined,
  { etag, modified }: Validators,
  now: number,
): boolean {
  if (header === undefined) return true;
  const text = header.trim();
  if (/^(W\/)?"/.test(text)) return !etag.startsWith('W/') && text === etag;
  const date = dateOf(text);
  return date !== undefined && date === modified && now - date >= 1_000;
}

/** Whether a list of tags has this one; what is malformed ends the list. */
function isListed(list: string, etag: string, strong: boolean): boolean {
  const wanted = opaque(etag);
  if (strong && wanted !== etag) return false;
  let at = 0;
  for (;;) {
    while (at < list.length && ', \t'.includes(list[at])) at++;
    TAG.lastIndex = at;
    const match = TAG.exec(list);
    if (match === null) return false;
    const [tag] = match;
    if (strong ? tag === etag : opaque(tag) === wanted) return true;
    at += tag.length;
    if (at < list.length && !', \t'.includes(list[at])) return false;
  }
}
const opaque = (tag: string): string => (tag.startsWith('W/') ? tag.slice(2) : tag);

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const MONTH = `(${MONTHS.join('|')})`;
const TIME = '(\\d\\d):(\\d\\d):(\\d\\d)';
const DAY = '(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)';
const LONG_DAY = '(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day';
const FIXED = new RegExp(`^${DAY}, (\\d\\d) ${MONTH} (\\d{4}) ${TIME} GMT$`);
const RFC_850 = new RegExp(`^${LONG_DAY}, (\\d\\d)-${MONTH}-(\\d\\d) ${TIME} GMT$`);
const ASCTIME = new RegExp(`^${DAY} ${MONTH} ([ \\d]\\d) ${TIME} (\\d{4})$`);

/** An HTTP-date in any of its three forms (section 5.6.7); undefined for anything else. */
export function dateOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const fixed = FIXED.exec(text);
  if (fixed !== null) return utc(fixed[3], fixed[2], fixed[1], fixed.slice(4));
  const asctime = ASCTIME.exec(text);
  if (asctime !== null) return utc(asctime[6], asctime[1], asctime[2], asctime.slice(3));
  const old = RFC_850.exec(text);
  if (old === null) return undefined;
  const now = new Date().getUTCFullYear();
  const year = now - (now % 100) + Number(old[3]);
  // More than 50 years ahead is the most recent year in the past with the same two digits.
  return utc(String(year > now + 50 ? year - 100 : year), old[2], old[1], old.slice(4));
}

function utc(year: string, month: string, day: string, time: string[]): number | undefined {
  const [hours, minutes, seconds] = time.map(Number);
  const at = new Date(
    Date.UTC(Number(year), MONTHS.indexOf(month), Number(day), hours, minutes, seconds),
  );
  // The 31st of February, and the 25th hour. A leap second is the next minute's first.
  const isReal = at.getUTCDate() === Number(day) && hours < 24 && minutes < 60 && seconds <= 60;
  return isReal || (seconds === 60 && hours < 24 && minutes < 60) ? at.getTime() : undefined;
}
