// What of a WebSocket is not in its stream: the fragments of a message, and what travels.

import { isUtf8 } from 'node:buffer';
import { agreementFromByte, agreementToByte } from './ws_deflate.js';
import type { DeflateAgreement } from './ws_negotiation.js';

/** The first fragments get so much memory at once, later ones twice what there was. */
const FRAGMENTS_BYTES = 4 * 1024;
const NO_BYTES = Buffer.alloc(0);

export interface WebSocketPacked {
  subprotocol: string;
  deflate: DeflateAgreement | undefined;
  /** Of the peer's earlier messages, see WebSocket.contextBytes; what is sent begins anew. */
  context: Uint8Array | undefined;
  rescuable: boolean;
  needDrain: boolean;
  pong: Uint8Array | undefined;
  /** Of a message that is not whole; opcode 0 without one. */
  opcode: number;
  compressed: boolean;
  fragments: Uint8Array | undefined;
  /** The user's. */
  state: unknown;
}

/** A message in fragments. One piece of memory, however small they are. */
export class Fragments {
  opcode = 0;
  compressed = false;
  length = 0;
  #bytes: Buffer = NO_BYTES;
  /** Up to here there are whole characters. */
  #checked = 0;

  get begun(): boolean {
    return this.opcode !== 0;
  }
  begin(opcode: number, compressed: boolean): void {
    this.opcode = opcode;
    this.compressed = compressed;
  }
  add(bytes: Uint8Array): void {
    const needed = this.length + bytes.length;
    if (needed > this.#bytes.length) {
      const more = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.length, FRAGMENTS_BYTES));
      this.#bytes.copy(more, 0, 0, this.length);
      this.#bytes = more;
    }
    this.#bytes.set(bytes, this.length);
    this.length = needed;
  }
  /** Whether these may be the beginning of a text: what came with the last add() is looked at. */
  startsText(): boolean {
    const bytes = this.#bytes.subarray(this.#checked, this.length);
    const cut = cutCharacter(bytes);
    const whole = bytes.subarray(0, bytes.length - cut.length);
    this.#checked += whole.length;
    return isUtf8(whole) && canBeCompleted(cut);
  }
  /** The whole message. */
  take(): Buffer {
    const whole = this.#bytes.subarray(0, this.length);
    this.drop();
    return whole;
  }
  drop(): void {
    this.opcode = this.length = this.#checked = 0;
    this.#bytes = NO_BYTES;
  }

  pack(): Pick<WebSocketPacked, 'opcode' | 'compressed' | 'fragments'> {
    const { opcode, compressed, length } = this;
    const fragments = length === 0 ? undefined : this.#bytes.subarray(0, length);
    return { opcode, compressed, fragments };
  }
  unpack({ opcode, compressed, fragments }: WebSocketPacked): void {
    this.begin(opcode, compressed);
    if (fragments !== undefined) this.add(fragments);
  }
}

/** The bytes at the end that begin a character, if it is not whole. */
function cutCharacter(bytes: Buffer): Buffer {
  for (let count = 1; count <= Math.min(3, bytes.length); count++) {
    const byte = bytes[bytes.length - count];
    if (byte < 0x80) break;
    if (byte < 0xc0) continue;
    return sizeOf(byte) > count ? bytes.subarray(bytes.length - count) : NO_BYTES;
  }
  return NO_BYTES;
}
/** Of the character that this byte begins (RFC 3629 section 3). */
const sizeOf = (byte: number): number => (byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4);

/** Whether there are bytes that make a character of it. */
function canBeCompleted(cut: Buffer): boolean {
  if (cut.length === 0) return true;
  const [first] = cut;
  if (cut.length === 1) return first >= 0xc2 && first <= 0xf4;
  // Only the second byte's range depends on others (RFC 3629 section 4).
  return isUtf8(Buffer.concat([cut, Buffer.alloc(sizeOf(first) - cut.length, 0x80)]));
}

// A checkpoint: these four bytes, how it is compressed, the subprotocol's length and itself,
// and the user's bytes.
const MAGIC = Buffer.from('\0ws1');
/** Bytes of a subprotocol's name at most. */
export const SUBPROTOCOL_MAX = 255;

export function packCheckpoint(
  subprotocol: string,
  deflate: DeflateAgreement | undefined,
  user: Uint8Array,
): Buffer {
  const name = Buffer.from(subprotocol, 'latin1');
  const head = Buffer.from([agreementToByte(deflate), name.length]);
  return Buffer.concat([MAGIC, head, name, user]);
}

/** Undefined: it is not a WebSocket's. */
export function unpackCheckpoint(bytes: Uint8Array | undefined):
  | {
      subprotocol: string;
      deflate: DeflateAgreement | undefined;
      user: Uint8Array | undefined;
    }
  | undefined {
  if (bytes === undefined || !MAGIC.equals(bytes.subarray(0, 4))) return undefined;
  const userAt = 6 + bytes[5];
  return {
    subprotocol: Buffer.from(bytes.subarray(6, userAt)).toString('latin1'),
    deflate: agreementFromByte(bytes[4]),
    user: bytes.length > userAt ? bytes.slice(userAt) : undefined,
  };
}
