// Frames out of a stream's input. A frame stays there until all of it is, and only its head is
// looked at meanwhile; what is kept here are the fragments of a message that is not whole.

import type { EvBuffer } from '../buffer/ev_buffer.js';
import type { Deflate } from './ws_deflate.js';
import { applyMask, FRAME_HEAD_MAX, FrameHead, Opcode, RSV1, readFrameHead } from './ws_frames.js';
import { Flaw, Flaws, flawOf, readMessage } from './ws_payload.js';
import { Fragments } from './ws_state.js';

/** A text up to this long is unmasked in memory of the thread's. */
const TEXT_BYTES = 64 * 1024;

/** What a look at the input has found; what it is, is in the receiver. */
export const Found = { NOTHING: 0, FRAGMENT: 1, MESSAGE: 2, CONTROL: 3, FLAW: 4 } as const;
export type Found = (typeof Found)[keyof typeof Found];

/** Of the thread: a frame is done with before the next head is read. */
const head = new FrameHead();
const text = Buffer.alloc(TEXT_BYTES);
const NO_BYTES = Buffer.alloc(0);

export class Receiver {
  readonly fragments = new Fragments();
  /** Messages may be compressed. */
  deflate: Deflate | undefined = undefined;
  /** Of the frame that was found. */
  opcode = 0;
  /** Of a message. */
  data: string | Uint8Array = '';
  /** Of a control frame. */
  payload: Buffer = NO_BYTES;
  flaw: Flaw | undefined = undefined;
  readonly #client: boolean;
  readonly #most: number;

  /** `most`: bytes of a message. */
  constructor(client: boolean, most: number) {
    this.#client = client;
    this.#most = most;
  }

  /** What of the peer's messages is still needed is in the stream. */
  get adoptable(): boolean {
    return !this.fragments.begun && (this.deflate?.contextBytes ?? 0) === 0;
  }

  /** Nothing will be looked at any more. */
  drop(): void {
    this.fragments.drop();
    this.deflate?.drop();
  }

  /** Takes the next frame out of the input, if it is whole. */
  next(input: EvBuffer): Found {
    const { length } = input;
    if (length < 2) return Found.NOTHING;
    const front = input._front as { bytes: Buffer; start: number; end: number; file?: unknown };
    const near = front.file === undefined ? front.end - front.start : 0;
    if (near >= FRAME_HEAD_MAX || near === length) {
      if (!readFrameHead(front.bytes, front.start, front.end, head)) return Found.NOTHING;
    } else {
      const copy = input.copyOut(FRAME_HEAD_MAX);
      if (!readFrameHead(copy, 0, copy.length, head)) return Found.NOTHING;
    }
    const flaw = flawOf(head, this.#client, this.deflate !== undefined, this.fragments, this.#most);
    if (flaw !== undefined) return this.#fail(flaw);
    const { opcode, fin, mask, size, length: count } = head;
    const whole = size + count;
    if (length < whole) return Found.NOTHING;
    const compressed = (head.first & RSV1) !== 0;
    let bytes: Buffer;
    if (near >= whole) {
      const from = front.start + size;
      const passing = count <= TEXT_BYTES && opcode === Opcode.TEXT && fin && !compressed;
      bytes = passing ? text.subarray(0, count) : Buffer.allocUnsafe(count);
      front.bytes.copy(bytes, 0, from, from + count);
      input.drain(whole);
    } else {
      input.drain(size);
      bytes = asBuffer(input.remove(count));
    }
    if (mask !== 0) applyMask(bytes, 0, count, mask);
    this.opcode = opcode;
    if (opcode >= Opcode.CLOSE) {
      this.payload = bytes;
      return Found.CONTROL;
    }
    if (fin && opcode !== Opcode.CONTINUATION) return this.#message(opcode, compressed, bytes);
    return this.#fragment(opcode, compressed, fin, bytes);
  }

  #fragment(opcode: number, compressed: boolean, fin: boolean, bytes: Buffer): Found {
    const { fragments } = this;
    if (opcode !== Opcode.CONTINUATION) fragments.begin(opcode, compressed);
    fragments.add(bytes);
    const { opcode: kind, compressed: packed } = fragments;
    if (!fin) {
      if (kind === Opcode.TEXT && !packed && !fragments.startsText()) return this.#fail(Flaws.TEXT);
      return Found.FRAGMENT;
    }
    return this.#message(kind, packed, fragments.take());
  }

  #message(opcode: number, compressed: boolean, bytes: Buffer): Found {
    const data = readMessage(opcode, compressed ? this.deflate : undefined, bytes, this.#most);
    if (data instanceof Flaw) return this.#fail(data);
    this.data = data;
    return Found.MESSAGE;
  }
  #fail(flaw: Flaw): Found {
    this.flaw = flaw;
    return Found.FLAW;
  }
}

const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
