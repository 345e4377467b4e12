// The head of an answer as bytes, written where they leave from. Nearly all answers of a server
// have the same few headers, so their names are checked once, and a line that comes again and again
// is kept as it is sent.

import { invalidType, invalidValue } from '../validate.js';
import { isFieldValue, isToken } from './characters.js';

/** Names that are kept, of at most so many characters; others are made anew for each answer. */
const NAMES_MAX = 256;
const NAME_UNITS_MAX = 64;
/** A line with a longer value is not kept. */
const VALUE_UNITS_MAX = 128;
/** Text up to this long is copied here: calling what copies it would cost more. */
const LOOP_UNITS = 32;

/** Headers that decide something and are not just written. */
const SPECIAL = new Set(['date', 'connection', 'content-length', 'transfer-encoding']);

export class HeaderName {
  readonly text: string;
  readonly lower: string;
  readonly special: boolean;
  /** The name, a colon and a space. */
  readonly #begin: Buffer;
  // The line that is kept, and its value; and what the last other value looked like.
  #value = '';
  #line: Buffer | undefined = undefined;
  #look = -1;

  /** `text` has been checked. */
  constructor(text: string) {
    this.#begin = Buffer.from(`${text}: `, 'latin1');
    // Of its own: the caller's may be a part of a long string, which would be kept with it.
    this.text = this.#begin.toString('latin1', 0, text.length);
    this.lower = this.text.toLowerCase();
    this.special = SPECIAL.has(this.lower);
  }

  /** Answers the value as text. */
  check(value: unknown): string {
    if (value === this.#value) return value;
    if (typeof value === 'number') return String(value);
    if (typeof value !== 'string') throw invalidType('value', 'of type string or number', value);
    if (!isFieldValue(value)) {
      const problem = `of ${this.text} has a character that no header may have`;
      throw invalidValue('value', problem, value);
    }
    if (value.length <= VALUE_UNITS_MAX) this.#notice(value);
    return value;
  }

  /** What comes twice in a row will come again. */
  #notice(value: string): void {
    const { length } = value;
    const look =
      length * 2 ** 24 +
      value.charCodeAt(0) * 2 ** 16 +
      value.charCodeAt(length >> 1) * 2 ** 8 +
      value.charCodeAt(length - 1);
    if (look === this.#look) {
      const begin = this.#begin.length;
      this.#line = Buffer.from(`${this.text}: ${value}\r\n`, 'latin1');
      this.#value = this.#line.toString('latin1', begin, begin + length);
    }
    this.#look = look;
  }

  /** Bytes of the line. */
  lengthWith(value: string): number {
    return this.#begin.length + value.length + 2;
  }
  /** Writes the line, of a value that was checked; answers where it ends. */
  put(bytes: Buffer, at: number, value: string): number {
    const line = this.#line;
    if (line !== undefined && value === this.#value) return putBytes(bytes, at, line);
    const end = putLatin1(bytes, putBytes(bytes, at, this.#begin), value);
    bytes[end] = 13;
    bytes[end + 1] = 10;
    return end + 2;
  }
}

const names = new Map<string, HeaderName>();

/** What is no name of a header throws ERR_INVALID_ARG_TYPE or ERR_INVALID_ARG_VALUE. */
export function headerName(name: string): HeaderName {
  const known = names.get(name);
  if (known !== undefined) return known;
  if (typeof name !== 'string') throw invalidType('name', 'of type string', name);
  if (!isToken(name)) throw invalidValue('name', 'is no name of a header', name);
  const made = new HeaderName(name);
  if (names.size < NAMES_MAX && name.length <= NAME_UNITS_MAX) names.set(made.text, made);
  return made;
}

// Each writes to `bytes` from `at` on, where there is room, and answers where it ends.

export function putBytes(bytes: Buffer, at: number, more: Uint8Array): number {
  bytes.set(more, at);
  return at + more.length;
}

export function putLatin1(bytes: Buffer, at: number, text: string): number {
  const { length } = text;
  if (length > LOOP_UNITS) return at + bytes.write(text, at, length, 'latin1');
  for (let i = 0; i < length; i++) bytes[at + i] = text.charCodeAt(i);
  return at + length;
}

/** A whole number of at most 15 digits. */
export function putNumber(bytes: Buffer, at: number, value: number): number {
  let end = at + 1;
  for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) end++;
  let rest = value;
  for (let to = end - 1; to >= at; to--) {
    const tenth = Math.floor(rest / 10);
    bytes[to] = 48 + rest - 10 * tenth;
    rest = tenth;
  }
  return end;
}

/** Bytes of the text's UTF-8. */
export function utf8Length(text: string): number {
  const { length } = text;
  if (length > LOOP_UNITS) return Buffer.byteLength(text);
  for (let i = 0; i < length; i++) if (text.charCodeAt(i) > 0x7f) return Buffer.byteLength(text);
  return length;
}
/** `length`: what utf8Length() answers. */
export function putUtf8(bytes: Buffer, at: number, text: string, length: number): number {
  // As many bytes as units: then they are the same.
  if (length === text.length) return putLatin1(bytes, at, text);
  return at + bytes.write(text, at, length);
}
