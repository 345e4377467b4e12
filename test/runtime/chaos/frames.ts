// What the clients and the worker of the chaos test agree on: numbered frames whose bytes follow
// from their number, so that each side can check every byte without having kept any.
//
//   request  length, number, key, kind, argument    and `length` bytes of noise
//   answer   length, number, key, rescues           and `length` bytes of other noise

/** Random numbers that repeat (mulberry32). */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  /** From 0 to `limit` - 1. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  }
  /** True once in `times`. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}

export const HEADER = 20;
export const LENGTH_MAX = 400_000;

export const Kind = {
  PLAIN: 0,
  /** Answered after a turn of the event loop. */
  ASYNC: 1,
  /** The worker moves the connection to the loop that the argument says. */
  MOVE: 2,
  /** A long answer. */
  BIG: 3,
  /** Paused and held for a moment. */
  PAUSE: 4,
  /** The first: from here on the connection is a Duplex. */
  DUPLEX: 5,
} as const;

const noise = Buffer.allocUnsafe(2 * LENGTH_MAX);
const random = new Random(20_241_125);
for (let i = 0; i < noise.length; i += 4) noise.writeUInt32LE(random.below(2 ** 32), i);

function bytesOf(salt: number, key: number, number: number, length: number): Buffer {
  const at = (Math.imul(key ^ salt, 0x9e3779b1) + Math.imul(number, 0x85ebca6b)) >>> 0;
  const from = at % (noise.length - length + 1);
  return noise.subarray(from, from + length);
}

export interface Frame {
  length: number;
  number: number;
  key: number;
  /** Of a request its kind, of an answer how often the connection was rescued. */
  word: number;
  argument: number;
}

export function frame(salt: 'request' | 'answer', one: Frame): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER + one.length);
  bytes.writeUInt32LE(one.length, 0);
  bytes.writeUInt32LE(one.number, 4);
  bytes.writeUInt32LE(one.key, 8);
  bytes.writeUInt32LE(one.word, 12);
  bytes.writeUInt32LE(one.argument, 16);
  bytesOf(salt.length, one.key, one.number, one.length).copy(bytes, HEADER);
  return bytes;
}

/** The frame that `bytes` begins with, or undefined while it is not whole; throws if it is wrong. */
export function parse(salt: 'request' | 'answer', bytes: Buffer, at: number): Frame | undefined {
  if (bytes.length - at < HEADER) return undefined;
  const length = bytes.readUInt32LE(at);
  const number = bytes.readUInt32LE(at + 4);
  const key = bytes.readUInt32LE(at + 8);
  if (length > LENGTH_MAX) throw new Error(`a ${salt} of ${length} bytes after number ${number}`);
  if (bytes.length - at < HEADER + length) return undefined;
  const body = bytes.subarray(at + HEADER, at + HEADER + length);
  if (!body.equals(bytesOf(salt.length, key, number, length)))
    throw new Error(`the bytes of ${salt} ${number} are not those that were sent`);
  const [word, argument] = [bytes.readUInt32LE(at + 12), bytes.readUInt32LE(at + 16)];
  return { length, number, key, word, argument };
}
