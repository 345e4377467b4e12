// Takes the body of a request out of the input of its stream, as far as it has come: a number of
// bytes, or chunks (RFC 9112 section 7.1), strictly: what is not a chunk is an error and not a
// guess. As of a head, what it makes of the bytes does not depend on how they were cut.

import type { EvBuffer } from '../buffer/ev_buffer.js';
import type { Segment } from '../buffer/segment.js';
import { CLASS, COLON, CR, FIELD, HEX, hexValue, LF, SEMICOLON, TOKEN } from './characters.js';
import { HttpHeaders, NO_HEADERS } from './headers.js';
import { RefusedError } from './http_errors.js';
import { type Refusal, Refusals } from './status.js';

/** Digits of a chunk's size: what is larger is larger than any limit. */
const SIZE_DIGITS_MAX = 12;
/** Bytes that are taken out of the input at a time. */
export const PIECE_BYTES = 64 * 1024;
/** Names that no trailer may have: framing, routing, and what decides about the request. */
const NOT_IN_TRAILERS = new Set(
  `transfer-encoding content-length host trailer te connection upgrade expect authorization cookie
  content-encoding content-type content-range range`.split(/\s+/),
);

const Phase = { DATA: 0, SIZE: 1, DATA_END: 2, TRAILERS: 3, DONE: 4 } as const;
type Phase = (typeof Phase)[keyof typeof Phase];

export interface BodyLimits {
  readonly bodyMax: number;
  readonly chunkExtensionsMax: number;
  readonly trailersMax: number;
  readonly headerCountMax: number;
}

export class BodyDecoder {
  readonly #limits: BodyLimits;
  readonly #chunked: boolean;
  #phase: Phase;
  /** Of the body, or of the chunk. */
  #left: number;
  #total = 0;
  #extensions = 0;
  #trailers: HttpHeaders = NO_HEADERS;

  /** `length` -1: it comes in chunks. */
  constructor(length: number, limits: BodyLimits) {
    this.#limits = limits;
    this.#chunked = length < 0;
    this.#left = this.#chunked ? 0 : length;
    this.#phase = this.#chunked ? Phase.SIZE : length === 0 ? Phase.DONE : Phase.DATA;
  }

  get done(): boolean {
    return this.#phase === Phase.DONE;
  }
  /** Bytes that are still to come; undefined when nobody can know. */
  get remaining(): number | undefined {
    if (this.#phase === Phase.DONE) return 0;
    return this.#chunked ? undefined : this.#left;
  }
  get trailers(): HttpHeaders {
    return this.#trailers;
  }

  /** The next bytes, at most 64 KiB; undefined: none yet, or no more. Throws a refusal. */
  take(input: EvBuffer): Uint8Array | undefined {
    if (!this.#chunked) {
      const count = Math.min(this.#left, input.length, PIECE_BYTES);
      if (count === 0) return undefined;
      this.#left -= count;
      if (this.#left === 0) this.#phase = Phase.DONE;
      return input.remove(count);
    }
    let first: Uint8Array | undefined;
    let more: Uint8Array[] | undefined;
    let room = PIECE_BYTES;
    while (room > 0 && this.#advance(input)) {
      const count = Math.min(this.#left, input.length, room);
      const piece = input.remove(count);
      room -= count;
      this.#left -= count;
      if (this.#left === 0) this.#phase = Phase.DATA_END;
      if (first === undefined) first = piece;
      else if (more === undefined) more = [first, piece];
      else more.push(piece);
    }
    return more === undefined ? first : Buffer.concat(more);
  }

  /**
   * The next bytes that are in one piece, as a segment of the same memory; whoever has looked at it
   * drops it. undefined: none yet, or no more. Throws a refusal.
   */
  lend(input: EvBuffer): Segment | undefined {
    if (this.#chunked ? !this.#advance(input) : this.#left === 0 || input.length === 0)
      return undefined;
    // A part of a file becomes memory.
    if (input.contiguous === 0) input.peek(1);
    const front = input._front as Segment;
    const count = Math.min(this.#left, front.length);
    const piece = front.range(front.start, front.start + count);
    this.#left -= count;
    if (this.#left === 0) this.#phase = this.#chunked ? Phase.DATA_END : Phase.DONE;
    input.drain(count);
    return piece;
  }

  /** Passes over what is no data. Whether there is some now. */
  #advance(input: EvBuffer): boolean {
    while (input.length > 0) {
      if (this.#phase === Phase.DATA) return true;
      if (this.#phase === Phase.DONE || !this.#step(input)) return false;
    }
    return false;
  }

  /** False: the input has not enough of it. */
  #step(input: EvBuffer): boolean {
    if (this.#phase === Phase.SIZE) return this.#readSize(input);
    if (this.#phase === Phase.TRAILERS) return this.#readTrailers(input);
    const bytes = input.pullup(Math.min(2, input.length)) as Uint8Array;
    if (bytes[0] !== CR || (bytes.length > 1 && bytes[1] !== LF)) throw refused(Refusals.CHUNK);
    if (bytes.length < 2) return false;
    input.drain(2);
    this.#phase = Phase.SIZE;
    return true;
  }

  /** `1f;name=value` and a line end. */
  #readSize(input: EvBuffer): boolean {
    const { chunkExtensionsMax, bodyMax } = this.#limits;
    const extensionsLeft = chunkExtensionsMax - this.#extensions;
    const most = SIZE_DIGITS_MAX + extensionsLeft + 2;
    const bytes = input.pullup(Math.min(input.length, most)) as Uint8Array;
    const { length } = bytes;
    let at = 0;
    let size = 0;
    while (at < length && CLASS[bytes[at]] & HEX) {
      if (at === SIZE_DIGITS_MAX) throw refused(Refusals.CHUNK);
      size = size * 16 + hexValue(bytes[at++]);
    }
    if (at === length) return false;
    if (at === 0) throw refused(Refusals.CHUNK);
    const digits = at;
    // RFC 9112 allows blanks before the semicolon, and asks nobody to send them.
    if (bytes[at] === SEMICOLON) {
      while (at < length && CLASS[bytes[at]] & FIELD) {
        if (at - digits >= extensionsLeft) throw refused(Refusals.EXTENSIONS_TOO_LARGE);
        at++;
      }
      if (at === length) return false;
    }
    if (bytes[at] !== CR) throw refused(Refusals.CHUNK);
    if (at + 1 === length) return false;
    if (bytes[at + 1] !== LF) throw refused(Refusals.CHUNK);
    this.#extensions += at - digits;
    this.#total += size;
    if (this.#total > bodyMax) throw refused(Refusals.BODY_TOO_LARGE);
    input.drain(at + 2);
    this.#left = size;
    this.#phase = size === 0 ? Phase.TRAILERS : Phase.DATA;
    return true;
  }

  #readTrailers(input: EvBuffer): boolean {
    const { trailersMax, headerCountMax } = this.#limits;
    const bytes = input.pullup(Math.min(input.length, trailersMax + 2)) as Uint8Array;
    const { length } = bytes;
    const short = (): false => {
      if (length < input.length) throw refused(Refusals.TRAILERS_TOO_LARGE);
      return false;
    };
    let at = 0;
    for (let count = 0; ; count++) {
      if (at === length) return short();
      const start = at;
      while (at < length && CLASS[bytes[at]] & TOKEN) at++;
      if (at === length) return short();
      if (at === start) {
        if (bytes[at] !== CR) throw refused(Refusals.TRAILER);
        if (at + 1 === length) return short();
        if (bytes[at + 1] !== LF) throw refused(Refusals.TRAILER);
        this.#finish(input, bytes, at);
        return true;
      }
      if (count === headerCountMax) throw refused(Refusals.TRAILERS_TOO_LARGE);
      if (bytes[at] !== COLON) throw refused(Refusals.TRAILER);
      const name = Buffer.from(bytes.subarray(start, at)).toString('latin1');
      if (NOT_IN_TRAILERS.has(name.toLowerCase())) throw refused(Refusals.TRAILER);
      at++;
      while (at < length && CLASS[bytes[at]] & FIELD) at++;
      if (at === length) return short();
      if (bytes[at] !== CR) throw refused(Refusals.TRAILER);
      if (++at === length) return short();
      if (bytes[at] !== LF) throw refused(Refusals.TRAILER);
      at++;
    }
  }

  #finish(input: EvBuffer, bytes: Uint8Array, end: number): void {
    if (end > 0) {
      const text = Buffer.from(bytes.subarray(0, end)).toString('latin1');
      this.#trailers = new HttpHeaders(text);
    }
    input.drain(end + 2);
    this.#phase = Phase.DONE;
  }
}

function refused(refusal: Refusal): RefusedError {
  return new RefusedError(refusal);
}
