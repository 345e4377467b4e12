// permessage-deflate (RFC 7692): messages are compressed and inflated at once, in order. Context
// of earlier messages is what deflate's window would hold of them, their last 32 KiB at most: given
// as a dictionary it is that window, on either side, so no zlib stream has to be kept, and what has
// to be known on another loop are these bytes alone. They are what the peer's compressor refers to;
// our own may forget at any time what it could refer to.

import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';
import { checkBoolean, checkInteger, checkObject, checkOneOf } from '../validate.js';
import {
  BITS_MAX,
  type DeflateAgreement,
  type DeflateWish,
  SEND_BITS_MIN,
} from './ws_negotiation.js';

/** How messages are compressed, and what is offered and accepted, of each direction by itself. */
export interface WebSocketDeflate {
  /**
   * The server's messages, and the client's, have those before them as context (RFC 7692's context
   * takeover), if the other side agrees: false. They are smaller for it, mostly if they are short
   * and alike. It costs the memory of a window at each end, and time: see the README. With context
   * of what has come (`contextBytes`) a connection is not rescued, and moves as `move` says.
   */
  serverContext?: boolean;
  clientContext?: boolean;
  /** The largest windows, as powers of two of bytes: 9 to 15, 15. */
  serverMaxWindowBits?: number;
  clientMaxWindowBits?: number;
  /**
   * Under serve(), what one with `contextBytes` does when move() or a reload wants it elsewhere.
   * 'carry', the default: it goes and takes them along, and who asked is told how many (`Moved`).
   * 'refuse': the move rejects with ERR_NOT_MOVABLE, and the connection goes on where it is; its
   * loop's next reload drains it, as a request in flight past the deadline: a Close of 1001.
   */
  move?: 'carry' | 'refuse';
  /** zlib's: 1 to 9, 6. */
  level?: number;
  /** zlib's: 1 to 9, 8. */
  memLevel?: number;
}

export type DeflateSettings = Required<WebSocketDeflate> & DeflateWish;

/** What `deflate: true` means. */
export const DEFLATE_DEFAULTS = {
  serverContext: false,
  clientContext: false,
  serverMaxWindowBits: BITS_MAX,
  clientMaxWindowBits: BITS_MAX,
  move: 'carry',
  level: 6,
  memLevel: 8,
} as const;

/** Undefined: no compression. */
export function deflateSettings(
  name: string,
  given: boolean | WebSocketDeflate,
): DeflateSettings | undefined {
  if (typeof given === 'boolean') return given ? { ...DEFLATE_DEFAULTS } : undefined;
  checkObject(name, given);
  const settings: DeflateSettings = { ...DEFLATE_DEFAULTS };
  for (const key of ['serverContext', 'clientContext'] as const)
    if (given[key] !== undefined) settings[key] = checkBoolean(`${name}.${key}`, given[key]);
  const { move } = given;
  if (move !== undefined)
    settings.move = checkOneOf(`${name}.move`, move, ['carry', 'refuse'] as const);
  for (const key of ['serverMaxWindowBits', 'clientMaxWindowBits', 'level', 'memLevel'] as const) {
    if (given[key] === undefined) continue;
    const [min, max] = key.endsWith('Bits') ? [SEND_BITS_MIN, BITS_MAX] : [1, 9];
    settings[key] = checkInteger(`${name}.${key}`, given[key], min, max);
  }
  return settings;
}

/** What a message compressed with a flush ends with, and the sender leaves out (section 7.2.1). */
const TAIL = Buffer.from([0, 0, 0xff, 0xff]);
const FLUSH = { finishFlush: constants.Z_SYNC_FLUSH };
/** Blocks of a message that are marked as the last one, with something behind them (7.2.3.4). */
const LAST_BLOCKS_MAX = 16;
const WINDOW_BYTES_MAX = 2 ** BITS_MAX;
const NO_BYTES = Buffer.alloc(0);

/** The end of all that was put into it. */
class Window {
  readonly #size: number;
  #bytes: Buffer = NO_BYTES;
  #length = 0;

  constructor(bits: number) {
    this.#size = 2 ** bits;
  }
  get length(): number {
    return this.#length;
  }
  /** Until the next add(). */
  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
  add(more: Uint8Array): void {
    const added = Math.min(more.length, this.#size);
    const kept = Math.min(this.#length, this.#size - added);
    const from = this.#length - kept;
    if (kept + added > this.#bytes.length) {
      // Memory by what was needed, and never more than a window.
      const room = Math.min(this.#size, 2 * (kept + added));
      const grown = Buffer.allocUnsafeSlow(room);
      this.#bytes.copy(grown, 0, from, this.#length);
      this.#bytes = grown;
    } else if (from > 0) this.#bytes.copyWithin(0, from, this.#length);
    this.#bytes.set(more.subarray(more.length - added), kept);
    this.#length = kept + added;
  }
}

/** Of one WebSocket, either side. */
export class Deflate {
  readonly agreed: DeflateAgreement;
  readonly #settings: DeflateSettings;
  #sent: Window | undefined;
  #received: Window | undefined;

  /** `settings`: of the loop it is on now, which need not be those that it was agreed with. */
  constructor(agreed: DeflateAgreement, settings: DeflateSettings = DEFLATE_DEFAULTS) {
    this.agreed = agreed;
    this.#settings = settings;
    if (agreed.sendContext) this.#sent = new Window(agreed.sendBits);
    if (agreed.receiveContext) this.#received = new Window(agreed.receiveBits);
  }

  /** What may be sent to others with the same window just as well; 0 for nothing. */
  get sharedBits(): number {
    return this.#sent === undefined ? this.agreed.sendBits : 0;
  }
  /** What has come that the peer may still refer to. */
  get received(): Buffer {
    return this.#received?.bytes ?? NO_BYTES;
  }
  get contextBytes(): number {
    return this.#received?.length ?? 0;
  }
  /** On another loop: what `received` was. */
  restore(received: Uint8Array): void {
    this.#received?.add(received);
  }

  /** Nothing will be sent or come any more. */
  drop(): void {
    this.#sent = this.#received = undefined;
  }

  /** Undefined: it is not shorter so, and is to be sent as it is. */
  pack(plain: Uint8Array): Buffer | undefined {
    const { sendBits } = this.agreed;
    // zlib has no smaller window.
    if (sendBits < SEND_BITS_MIN) return undefined;
    const { level, memLevel } = this.#settings;
    const whole = deflateRawSync(plain, {
      ...FLUSH,
      level,
      memLevel,
      windowBits: sendBits,
      dictionary: dictionaryOf(this.#sent?.bytes),
    });
    if (whole.length - TAIL.length >= plain.length) return undefined;
    this.#sent?.add(plain);
    return whole.subarray(0, whole.length - TAIL.length);
  }

  /** 'large': more than `most` bytes. 'bad': it is no deflate data. */
  unpack(bytes: Uint8Array, most: number): Buffer | 'large' | 'bad' {
    let rest: Uint8Array = Buffer.concat([bytes, TAIL]);
    let whole: Buffer = NO_BYTES;
    for (let blocks = 0; blocks < LAST_BLOCKS_MAX; blocks++) {
      const window = this.#received?.bytes ?? whole.subarray(-WINDOW_BYTES_MAX);
      const part = inflate(rest, window, most - whole.length);
      if (typeof part === 'string') return part;
      whole = whole.length === 0 ? part.buffer : Buffer.concat([whole, part.buffer]);
      if (whole.length > most) return 'large';
      this.#received?.add(part.buffer);
      if (part.taken >= rest.length) return whole;
      rest = rest.subarray(part.taken);
    }
    return 'bad';
  }
}

const dictionaryOf = (window: Buffer | undefined): Buffer | undefined =>
  window === undefined || window.length === 0 ? undefined : window;

/** Up to a block that is marked as the last one: `taken` is what of `bytes` was read. */
function inflate(
  bytes: Uint8Array,
  window: Buffer,
  most: number,
): { buffer: Buffer; taken: number } | 'large' | 'bad' {
  try {
    const { buffer, engine } = inflateRawSync(bytes, {
      ...FLUSH,
      maxOutputLength: Math.max(1, most),
      dictionary: dictionaryOf(window),
      info: true,
    }) as unknown as { buffer: Buffer; engine: { bytesWritten: number } };
    return { buffer, taken: engine.bytesWritten };
  } catch (error) {
    return (error as { code?: string }).code === 'ERR_BUFFER_TOO_LARGE' ? 'large' : 'bad';
  }
}

// One byte of a checkpoint, 0 for no compression: what is sent with, and whether there may be
// context of what comes, which is none yet: one that has some is not rescued. Its window is taken
// for the largest one, which costs memory only.
const SEND_CONTEXT = 16;
const RECEIVE_CONTEXT = 32;

export function agreementToByte(agreed: DeflateAgreement | undefined): number {
  if (agreed === undefined) return 0;
  const { sendContext, receiveContext, sendBits } = agreed;
  return sendBits | (sendContext ? SEND_CONTEXT : 0) | (receiveContext ? RECEIVE_CONTEXT : 0);
}

export function agreementFromByte(byte: number): DeflateAgreement | undefined {
  if (byte === 0) return undefined;
  return {
    sendContext: (byte & SEND_CONTEXT) !== 0,
    receiveContext: (byte & RECEIVE_CONTEXT) !== 0,
    sendBits: byte & 15,
    receiveBits: BITS_MAX,
  };
}
