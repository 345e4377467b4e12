// Frames of RFC 6455 section 5: heads are read where they lie, payloads unmasked four bytes at a
// time, and a small frame is one write.

import { randomFillSync } from 'node:crypto';
import { EvBuffer } from '../buffer/ev_buffer.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { putUtf8, utf8Length } from './response_head.js';

export const Opcode = {
  CONTINUATION: 0,
  TEXT: 1,
  BINARY: 2,
  CLOSE: 8,
  PING: 9,
  PONG: 10,
} as const;

export const FIN = 0x80;
/** Of permessage-deflate (RFC 7692 section 6). */
export const RSV1 = 0x40;

/** Two bytes, eight of an extended length, four of a mask. */
export const FRAME_HEAD_MAX = 14;
/** Bytes of a control frame's payload (section 5.5). */
export const CONTROL_MAX = 125;
/** Bytes of a frame, head included, that is put together before it is written. */
const SMALL_FRAME_MAX = 4_095;
/** UTF-16 units that are never more bytes of UTF-8 than such a frame has. */
const SMALL_TEXT_MAX = Math.floor((SMALL_FRAME_MAX - FRAME_HEAD_MAX) / 3);
/** Below this an array of words costs more than it saves. */
const UNMASK_WORDS_MIN = 48;
const RANDOM_BYTES = 4_096;
const NO_BYTES = Buffer.alloc(0);
/** So much is copied byte by byte: calling what copies it would cost more. */
const LOOP_BYTES = 24;

/** A head, as readFrameHead leaves it. */
export class FrameHead {
  first = 0;
  masked = false;
  /** The four bytes, the first one lowest. */
  mask = 0;
  /** Of the payload. */
  length = 0;
  /** Bytes of the head. */
  size = 0;
  /** The length is not in its shortest form, or has its highest bit set (section 5.2). */
  badLength = false;

  get fin(): boolean {
    return (this.first & FIN) !== 0;
  }
  get opcode(): number {
    return this.first & 15;
  }
}

/** False: it is not whole. */
export function readFrameHead(
  bytes: Uint8Array,
  start: number,
  end: number,
  head: FrameHead,
): boolean {
  if (end - start < 2) return false;
  const second = bytes[start + 1];
  let length = second & 127;
  const extra = length === 126 ? 2 : length === 127 ? 8 : 0;
  const masked = second >= 128;
  const size = 2 + extra + (masked ? 4 : 0);
  if (end - start < size) return false;
  let at = start + 2;
  head.badLength = false;
  if (extra === 2) {
    length = bytes[at] * 256 + bytes[at + 1];
    head.badLength = length < 126;
  } else if (extra === 8) {
    length = word(bytes, at) * 2 ** 32 + word(bytes, at + 4);
    head.badLength = length < 2 ** 16 || bytes[at] >= 128;
  }
  at += extra;
  head.first = bytes[start];
  head.masked = masked;
  head.mask = masked
    ? bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)
    : 0;
  head.length = length;
  head.size = size;
  return true;
}

const word = (bytes: Uint8Array, at: number): number =>
  bytes[at] * 2 ** 24 + bytes[at + 1] * 2 ** 16 + bytes[at + 2] * 256 + bytes[at + 3];

/** Masks or unmasks in place (section 5.3). Words are little-endian, as on every machine here. */
export function applyMask(bytes: Uint8Array, start: number, end: number, mask: number): void {
  let at = start;
  let key = mask;
  if (end - start >= UNMASK_WORDS_MIN) {
    while ((bytes.byteOffset + at) & 3) {
      bytes[at++] ^= key;
      key = (key >>> 8) | (key << 24);
    }
    const count = (end - at) >> 2;
    const words = new Int32Array(bytes.buffer, bytes.byteOffset + at, count);
    for (let i = 0; i < count; i++) words[i] ^= key;
    at += 4 * count;
  }
  for (; at < end; at++) {
    bytes[at] ^= key;
    key = (key >>> 8) | (key << 24);
  }
}

const random = Buffer.alloc(RANDOM_BYTES);
let randomAt = RANDOM_BYTES;
/** Not to be guessed by who chooses the payload (section 10.3). */
function newMask(): number {
  if (randomAt === RANDOM_BYTES) {
    randomFillSync(random);
    randomAt = 0;
  }
  randomAt += 4;
  return random.readInt32LE(randomAt - 4);
}

/** Of the thread: the head of a frame whose payload is written by reference. */
const scratch = Buffer.alloc(FRAME_HEAD_MAX);

/**
 * Writes a frame; `first` is its first byte. Answers as the stream's write() does. An unmasked
 * payload of 4 KiB and more is not copied.
 */
export function writeFrame(
  stream: BufferEvent,
  first: number,
  data: Uint8Array | string,
  masked: boolean,
): boolean {
  let payload = data;
  if (typeof payload === 'string') {
    if (payload.length <= SMALL_TEXT_MAX)
      return writeSmall(stream, first, payload, utf8Length(payload), masked);
    payload = Buffer.from(payload);
  } else if (payload.length <= SMALL_FRAME_MAX - FRAME_HEAD_MAX) {
    return writeSmall(stream, first, payload, payload.length, masked);
  }
  const mask = masked ? newMask() : undefined;
  if (mask !== undefined) {
    const copy = typeof data === 'string' ? payload : Buffer.from(payload);
    applyMask(copy, 0, copy.length, mask);
    payload = copy;
  }
  const end = putHead(scratch, 0, first, payload.length, mask);
  const frame = new EvBuffer();
  frame.add(scratch.subarray(0, end)).addReference(payload);
  return stream.write(frame);
}

/** A whole frame without a mask, as a server sends it. */
export function frameOf(first: number, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(headLength(payload.length, undefined) + payload.length);
  frame.set(payload, putHead(frame, 0, first, payload.length, undefined));
  return frame;
}

/** Writes a frame where it leaves from. `length`: bytes of the payload. */
function writeSmall(
  stream: BufferEvent,
  first: number,
  payload: Uint8Array | string,
  length: number,
  masked: boolean,
): boolean {
  // First it notes that it is written to, or refuses that.
  stream.write(NO_BYTES);
  if (stream.closed) return false;
  const mask = masked ? newMask() : undefined;
  const { output } = stream;
  const room = output._room(headLength(length, mask) + length);
  const { bytes, end: start } = room;
  const from = putHead(bytes, start, first, length, mask);
  let end = from + length;
  if (typeof payload === 'string') end = putUtf8(bytes, from, payload, length);
  else if (length <= LOOP_BYTES) for (let i = 0; i < length; i++) bytes[from + i] = payload[i];
  else bytes.set(payload, from);
  if (mask !== undefined) applyMask(bytes, from, end, mask);
  output._fill(room, end - start);
  // It notes too that somebody waits.
  return output.length <= stream._settings.writeHigh || stream.write(NO_BYTES);
}

function headLength(length: number, mask: number | undefined): number {
  const size = length > 0xffff ? 10 : length > 125 ? 4 : 2;
  return mask === undefined ? size : size + 4;
}

/** Writes a head from `at` on; answers where the payload begins. */
function putHead(
  bytes: Buffer,
  start: number,
  first: number,
  length: number,
  mask: number | undefined,
): number {
  const flag = mask === undefined ? 0 : 128;
  let at = start;
  bytes[at++] = first;
  if (length > 0xffff) {
    bytes[at++] = flag | 127;
    at = bytes.writeBigUInt64BE(BigInt(length), at);
  } else if (length > 125) {
    bytes[at++] = flag | 126;
    bytes[at++] = length >> 8;
    bytes[at++] = length & 255;
  } else bytes[at++] = flag | length;
  return mask === undefined ? at : bytes.writeInt32LE(mask, at);
}

/** Whether a Close frame may carry the code (section 7.4, and IANA's registry up to 1014). */
export function isCloseCode(code: number): boolean {
  if (code >= 3_000) return code <= 4_999;
  return code >= 1_000 && code <= 1_014 && code !== 1_004 && code !== 1_005 && code !== 1_006;
}
