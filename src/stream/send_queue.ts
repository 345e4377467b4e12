// The messages that a datagram socket has to send: copies in one piece of memory, with records of
// where each is, as the native side reads them.

import { native } from '../native.js';

/** Messages that wait at most, and bytes of them with their addresses. */
export const QUEUE_MESSAGES_MAX = 1_024;
export const QUEUE_BYTES_MAX = 1024 * 1024;
/** native/core/datagram.h, kBatchMax. */
const BATCH_MAX = 64;

const FIRST_BYTES = 4_096;
const FIRST_MESSAGES = 16;
/** Numbers in a record: where the message is, its length, where its address is, and its length. */
const RECORD = 4;

export class SendQueue {
  #memory = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #records = new Int32Array(FIRST_MESSAGES * RECORD);
  #first = 0;
  #last = 0; // behind the last one
  #end = 0; // of what is used of the memory
  #name: Uint8Array | undefined; // of the last message, which the next one may share
  #nameAt = 0;

  /** How many messages wait. */
  get length(): number {
    return this.#last - this.#first;
  }

  /** Copies a message for `name` (empty: the connected peer). False: there is no room. */
  push(data: Uint8Array | string, bytes: number, name: Uint8Array): boolean {
    const shared = name === this.#name;
    if (!this.#room(bytes + (shared ? 0 : name.length))) return false;
    // Making room may have moved the name away.
    if (name !== this.#name) {
      this.#memory.set(name, this.#end);
      this.#name = name;
      this.#nameAt = this.#end;
      this.#end += name.length;
    }
    if (typeof data === 'string') this.#memory.write(data, this.#end);
    else this.#memory.set(data, this.#end);
    const at = this.#last++ * RECORD;
    const records = this.#records;
    records[at] = this.#end;
    records[at + 1] = bytes;
    records[at + 2] = this.#nameAt;
    records[at + 3] = name.length;
    this.#end += bytes;
    return true;
  }

  /** Sends a batch in one system call: how many messages the kernel took, or -errno. */
  send(fd: number): number {
    const count = Math.min(this.length, BATCH_MAX);
    const sent = native.datagramSend(fd, this.#memory, this.#records, this.#first, count);
    if (sent > 0) this.#take(sent);
    return sent;
  }

  /** Takes the first message out: how long it was, and the address that it was for. */
  drop(): { bytes: number; name: Uint8Array } {
    const [, bytes, nameAt, nameLength] = this.#records.subarray(this.#first * RECORD);
    const name = new Uint8Array(this.#memory.subarray(nameAt, nameAt + nameLength));
    this.#take(1);
    return { bytes, name };
  }

  clear(): void {
    this.#first = this.#last = this.#end = 0;
    this.#name = undefined;
  }

  #take(count: number): void {
    this.#first += count;
    if (this.#first === this.#last) this.clear();
  }

  /** Makes room behind what waits, by moving it to the front or into more memory. */
  #room(bytes: number): boolean {
    if (this.length >= QUEUE_MESSAGES_MAX) return false;
    const full = this.#last * RECORD === this.#records.length;
    if (!full && this.#end + bytes <= this.#memory.length) return true;
    const from = this.#begin();
    const used = this.#end - from;
    // An address that is not shared any more comes on top.
    const wanted = used + bytes + (this.#name?.length ?? 0);
    if (wanted > QUEUE_BYTES_MAX) return false;
    const records = this.length * 2 > FIRST_MESSAGES ? this.length * 2 : FIRST_MESSAGES;
    this.#move(from, used, grown(this.#memory.length, wanted), records);
    return true;
  }

  /** Where what waits begins: an address may be of a message that is gone. */
  #begin(): number {
    let from = this.#end;
    for (let at = this.#first * RECORD; at < this.#last * RECORD; at += RECORD)
      from = Math.min(from, this.#records[at], this.#records[at + 2]);
    return from;
  }

  #move(from: number, used: number, bytes: number, messages: number): void {
    const memory = bytes === this.#memory.length ? this.#memory : Buffer.allocUnsafeSlow(bytes);
    this.#memory.copy(memory, 0, from, from + used);
    this.#memory = memory;
    const waiting = this.#records.subarray(this.#first * RECORD, this.#last * RECORD);
    const records = new Int32Array(messages * RECORD);
    for (let at = 0; at < waiting.length; at += RECORD) {
      records[at] = waiting[at] - from;
      records[at + 1] = waiting[at + 1];
      records[at + 2] = waiting[at + 2] - from;
      records[at + 3] = waiting[at + 3];
    }
    this.#records = records;
    this.#last -= this.#first;
    this.#first = 0;
    this.#end = used;
    this.#name = undefined;
  }
}

function grown(bytes: number, wanted: number): number {
  let size = bytes;
  while (size < wanted) size *= 2;
  return size;
}
