// Escaping of text for URIs, queries and HTML: evhttp_uriencode() and its relatives. Of bytes where
// a URI is of bytes: text is UTF-8, and what is no UTF-8 comes back as U+FFFD.

import { checkBytes, invalidType } from '../validate.js';
import { CLASS, HEX, hexValue } from './characters.js';

/** RFC 3986 section 2.3, the characters that mean the same with and without an escape. */
const UNRESERVED = /^[A-Za-z0-9\-._~]$/;
const PERCENT = 37;
const PLUS = 43;
const SPACE = 32;

const escapes = Array.from({ length: 256 }, (_, byte) => {
  const text = String.fromCharCode(byte);
  return UNRESERVED.test(text) ? text : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
});

/** Escapes everything but unreserved characters; `plus`: a space becomes `+`, as in forms. */
export function uriEncode(data: string | Uint8Array, { plus = false } = {}): string {
  const bytes = checkBytes('data', data);
  let text = '';
  for (const byte of bytes) text += plus && byte === SPACE ? '+' : escapes[byte];
  return text;
}

/** Undoes escapes; one that is malformed stays as it is. `plus`: `+` is a space, as in forms. */
export function uriDecode(text: string, options: { plus?: boolean } = {}): string {
  return uriDecodeBytes(text, options).toString();
}
/** The same as bytes, for what is no text. */
export function uriDecodeBytes(text: string, { plus = false }: { plus?: boolean } = {}): Buffer {
  if (typeof text !== 'string') throw invalidType('text', 'of type string', text);
  const from = Buffer.from(text);
  let to = 0;
  for (let at = 0; at < from.length; at++) {
    const byte = from[at];
    if (byte === PERCENT && at + 2 < from.length && isHex(from[at + 1]) && isHex(from[at + 2])) {
      from[to++] = hexValue(from[at + 1]) * 16 + hexValue(from[at + 2]);
      at += 2;
    } else from[to++] = plus && byte === PLUS ? SPACE : byte;
  }
  return from.subarray(0, to);
}
const isHex = (byte: number): boolean => (CLASS[byte] & HEX) !== 0;

export interface QueryOptions {
  /** Pairs without `=` have the value '', and pairs without a name are passed over. */
  nonconformant?: boolean;
  /** Of several values of one name the last counts, and the others are not there. */
  lastValue?: boolean;
  /** Pairs at most: 1,000. */
  pairsMax?: number;
}

const PAIRS_MAX = 1_000;

/**
 * The pairs of a query, `a=b&c=d`, in their order, decoded as those of a form. Undefined for one
 * that has a pair without a name or a `=`, unless `nonconformant`, or more than `pairsMax`.
 * URLSearchParams takes anything.
 */
export function parseQuery(
  query: string,
  { nonconformant = false, lastValue = false, pairsMax = PAIRS_MAX }: QueryOptions = {},
): [name: string, value: string][] | undefined {
  if (typeof query !== 'string') throw invalidType('query', 'of type string', query);
  if (query === '') return [];
  const parts = query.split('&', pairsMax + 1);
  if (parts.length > pairsMax) return undefined;
  const pairs: [string, string][] = [];
  for (const part of parts) {
    const equals = part.indexOf('=');
    if (!nonconformant && equals <= 0) return undefined;
    const name = uriDecode(equals < 0 ? part : part.slice(0, equals), { plus: true });
    if (name === '') continue;
    const value = equals < 0 ? '' : uriDecode(part.slice(equals + 1), { plus: true });
    pairs.push([name, value]);
  }
  if (!lastValue) return pairs;
  const last = new Map(pairs);
  return [...last];
}

const entities: Record<string, string> = {
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#039;',
  '&': '&amp;',
};

/** For the text of an element and for a quoted attribute. */
export function escapeHtml(text: string): string {
  if (typeof text !== 'string') throw invalidType('text', 'of type string', text);
  return text.replace(/[<>"'&]/g, (character) => entities[character]);
}
