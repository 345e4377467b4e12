// Where the loops of a group are: by a loop's number, the inbox of its present thread. In shared
// memory, written by the coordinator when a loop comes and goes and read by every loop, so that a
// loop that was replaced is found without anybody being told.

import { MultiloopError } from '../errors.js';
import { Delivery, native } from '../native.js';
import type { Delivered } from './connection_host.js';
import { encode, type ToLoop } from './control.js';

export class Directory {
  readonly memory: SharedArrayBuffer;
  readonly #inboxes: Int32Array;

  constructor(loops: number | SharedArrayBuffer) {
    this.memory = typeof loops === 'number' ? new SharedArrayBuffer(loops * 4) : loops;
    this.#inboxes = new Int32Array(this.memory);
  }

  get size(): number {
    return this.#inboxes.length;
  }
  /** 0: it has no thread, or there is no such loop. */
  inbox(loop: number): number {
    return loop < this.size ? Atomics.load(this.#inboxes, loop) : 0;
  }
  /** -1: no loop has it now. */
  loopOf(inbox: number): number {
    return this.#inboxes.indexOf(inbox);
  }
  set(loop: number, inbox: number): void {
    Atomics.store(this.#inboxes, loop, inbox);
  }

  /** Sends a value of the application from the thread of inbox `from`. */
  post(from: number, loop: number, value: unknown): void {
    const delivered = this.send(from, loop, encode({ type: 'post', value }));
    if (delivered !== 'ok') throw refused(delivered, [loop]);
  }

  /** To every loop but `except` that is alive. */
  broadcast(from: number, value: unknown, except = -1): void {
    const bytes = encode({ type: 'post', value });
    const full: number[] = [];
    for (let loop = 0; loop < this.size; loop++)
      if (loop !== except && this.send(from, loop, bytes) === 'full') full.push(loop);
    if (full.length > 0) throw refused('full', full);
  }

  tell(from: number, loop: number, message: ToLoop): Delivered {
    return this.send(from, loop, encode(message));
  }

  send(from: number, loop: number, bytes: Uint8Array): Delivered {
    const inbox = this.inbox(loop);
    if (inbox === 0) return loop < this.size ? 'gone' : 'no such loop';
    return delivered(native.inboxPost(from, inbox, bytes));
  }
}

export function delivered(delivery: number): Delivered {
  if (delivery === Delivery.OK) return 'ok';
  return delivery === Delivery.FULL ? 'full' : 'gone';
}

function refused(why: Delivered, loops: readonly number[]): MultiloopError {
  const names = `loop${loops.length > 1 ? 's' : ''} ${loops.join(', ')}`;
  if (why === 'full')
    return new MultiloopError('ERR_INBOX_FULL', `The message did not fit the inbox of ${names}`);
  const missing = why === 'gone' ? 'has no thread now' : 'does not exist';
  return new MultiloopError('ERR_LOOP_GONE', `The message was not sent: ${names} ${missing}`);
}
