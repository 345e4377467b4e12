// What may be in a frame, and what a payload says: nothing here knows a stream.

import { isUtf8 } from 'node:buffer';
import type { Deflate } from './ws_deflate.js';
import { CONTROL_MAX, type FrameHead, isCloseCode, Opcode, RSV1 } from './ws_frames.js';
import type { Fragments } from './ws_state.js';

/** Codes of RFC 6455 section 7.4.1. */
export const CloseCode = {
  NORMAL: 1_000,
  PROTOCOL_ERROR: 1_002,
  NO_STATUS: 1_005,
  ABNORMAL: 1_006,
  INVALID_DATA: 1_007,
  POLICY: 1_008,
  TOO_BIG: 1_009,
  FAILED: 1_011,
} as const;

/** Why a WebSocket is failed, and with which code. */
export class Flaw {
  readonly code: number;
  readonly why: string;
  constructor(code: number, why: string) {
    this.code = code;
    this.why = why;
  }
}

const broken = (why: string) => new Flaw(CloseCode.PROTOCOL_ERROR, why);
export const Flaws = {
  RESERVED_BIT: broken('a reserved bit is set'),
  RSV1: broken('RSV1 is set, and no extension uses it here'),
  MASKED: broken('a server masks no frames'),
  UNMASKED: broken('a client has to mask its frames'),
  LENGTH: broken('the length is not in its shortest form'),
  OPCODE: broken('the opcode is reserved'),
  FRAGMENTED: broken('a control frame is fragmented'),
  CONTROL_LENGTH: broken('a control frame has more than 125 bytes'),
  CONTINUATION: broken('nothing is there to be continued'),
  WITHIN: broken('a message begins within another'),
  CLOSE_CODE: broken('the code of a Close is invalid'),
  REASON: new Flaw(CloseCode.INVALID_DATA, 'the reason of a Close is not UTF-8'),
  TEXT: new Flaw(CloseCode.INVALID_DATA, 'a text is not UTF-8'),
  DEFLATE: new Flaw(CloseCode.INVALID_DATA, 'a message is not deflate data'),
  TOO_BIG: new Flaw(CloseCode.TOO_BIG, 'a message is larger than messageMax'),
} as const;

/** Why a frame with this head is none (sections 5.2 to 5.5). */
export function flawOf(
  head: FrameHead,
  client: boolean,
  deflate: boolean,
  fragments: Fragments,
  most: number,
): Flaw | undefined {
  const { opcode, first, length } = head;
  if (first & 0x30) return Flaws.RESERVED_BIT;
  if (first & RSV1 && (!deflate || (opcode !== Opcode.TEXT && opcode !== Opcode.BINARY)))
    return Flaws.RSV1;
  if (head.masked === client) return client ? Flaws.MASKED : Flaws.UNMASKED;
  if (head.badLength) return Flaws.LENGTH;
  if (opcode >= Opcode.CLOSE) {
    if (opcode > Opcode.PONG) return Flaws.OPCODE;
    if (!head.fin) return Flaws.FRAGMENTED;
    return length > CONTROL_MAX ? Flaws.CONTROL_LENGTH : undefined;
  }
  if (opcode > Opcode.BINARY) return Flaws.OPCODE;
  if ((opcode === Opcode.CONTINUATION) !== fragments.begun)
    return fragments.begun ? Flaws.WITHIN : Flaws.CONTINUATION;
  return length + fragments.length > most ? Flaws.TOO_BIG : undefined;
}

/** A text as a string, anything else as bytes: `bytes` itself, unless `deflate` inflates it. */
export function readMessage(
  opcode: number,
  deflate: Deflate | undefined,
  bytes: Buffer,
  most: number,
): string | Buffer | Flaw {
  let whole = bytes;
  if (deflate !== undefined) {
    const inflated = deflate.unpack(bytes, most);
    if (inflated === 'large') return Flaws.TOO_BIG;
    if (inflated === 'bad') return Flaws.DEFLATE;
    whole = inflated;
  }
  if (opcode === Opcode.BINARY) return whole;
  return isUtf8(whole) ? whole.toString('utf8', 0, whole.length) : Flaws.TEXT;
}

/** The code and the reason of a Close (section 5.5.1). */
export function readClose(bytes: Buffer): { code: number; reason: string } | Flaw {
  if (bytes.length === 0) return { code: CloseCode.NO_STATUS, reason: '' };
  const code = bytes.length === 1 ? 0 : bytes.readUInt16BE(0);
  if (!isCloseCode(code)) return Flaws.CLOSE_CODE;
  const reason = bytes.subarray(2);
  return isUtf8(reason) ? { code, reason: reason.toString() } : Flaws.REASON;
}
