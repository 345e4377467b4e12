// Memory that datagram sockets receive into, and the messages that are made of it.

import type { EventBase } from '../event/event_base.js';
import { native } from '../native.js';
import type { Address } from './address.js';
import { type AddressBook, NAME_BYTES } from './address_book.js';

/** A message that came. */
export interface DatagramMessage {
  /** The user's to keep; the messages of a batch share one piece of memory. */
  data: Uint8Array;
  /** Frozen. A unix socket without a name has the path ''. */
  from: Address;
  /** It was longer than `messageSize`, and the rest is lost. */
  truncated?: true;
}

/** Messages that one pass takes at most; more wait in the kernel for the next. */
export const RECEIVE_BATCH_MAX = 32;
/** What a message may have, unless a socket says otherwise: more than IP can carry. */
export const MESSAGE_BYTES = 64 * 1024;
/**
 * Between the places of two messages, beyond their size: at a power of two apart, the beginnings of
 * all of them would share one set of the processor's caches.
 */
const SKEW_BYTES = 576;
/** A batch up to this long is given out in memory of Node's pool. */
const POOLED_BATCH_MAX = 2_048;
/** Numbers in a record: the message's length, that of its name, and whether it was cut. */
const RECORD = 3;

export class ReceiveRoom {
  readonly #memory: Buffer;
  readonly #names = Buffer.from(new ArrayBuffer(RECEIVE_BATCH_MAX * NAME_BYTES));
  readonly #words = new Int32Array(this.#names.buffer);
  readonly #records = new Int32Array(RECEIVE_BATCH_MAX * RECORD);

  constructor(messageBytes: number) {
    // Zeroed memory is the kernel's until it is touched, and most messages are short.
    this.#memory = Buffer.from(new ArrayBuffer(RECEIVE_BATCH_MAX * (messageBytes + SKEW_BYTES)));
  }

  /** How many messages of up to `size` bytes came, at most `max`, or -errno. */
  receive(fd: number, size: number, max: number): number {
    return native.datagramReceive(fd, this.#memory, size, this.#names, this.#records, max);
  }

  /** The messages that receive() has counted, in memory that is nobody else's. */
  take(count: number, book: AddressBook): DatagramMessage[] {
    const records = this.#records;
    let total = 0;
    for (let i = 0; i < count; i++) total += records[i * RECORD];
    const own =
      total <= POOLED_BATCH_MAX ? Buffer.allocUnsafe(total) : Buffer.allocUnsafeSlow(total);
    this.#memory.copy(own, 0, 0, total);
    const batch: DatagramMessage[] = [];
    for (let i = 0, at = 0; i < count; i++) {
      const end = at + records[i * RECORD];
      const nameLength = records[i * RECORD + 1];
      const from = book.at(this.#names, this.#words, i * NAME_BYTES, nameLength);
      const message: DatagramMessage = { data: own.subarray(at, end), from };
      if (records[i * RECORD + 2] !== 0) message.truncated = true;
      batch.push(message);
      at = end;
    }
    return batch;
  }
}

/** What all datagram sockets of a base receive into. */
const rooms = new WeakMap<EventBase, ReceiveRoom>();

/** The base's, or one of the socket's own when its messages may be longer. */
export function roomOf(base: EventBase, messageSize: number): ReceiveRoom {
  if (messageSize > MESSAGE_BYTES) return new ReceiveRoom(messageSize);
  let room = rooms.get(base);
  if (room === undefined) {
    room = new ReceiveRoom(MESSAGE_BYTES);
    rooms.set(base, room);
  }
  return room;
}
