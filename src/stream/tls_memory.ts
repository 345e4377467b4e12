// TLS over memory: records come from the input of another stream and go to its output, and where a
// socket would be asked, the session is lent the bytes for the time of one call.
//
//   under.input ─a piece at a time─► session ─► slab ─► opened       plain text, for the stream
//   output ─gathered, 16 KiB at a time─► session ─► slab ─► sealed   records, for under.output
//
// Both buffers are private and nobody is told of their changes, so nothing of the user's runs while
// what a call has left in the slab's free memory is not taken.

import { constants } from 'node:os';
import { EvBuffer } from '../buffer/ev_buffer.js';
import { slabWith } from '../buffer/slab.js';
import { native, TLS_MORE } from '../native.js';
import { TRANSFER_BYTES } from './bev_options.js';
import type { BufferEvent } from './buffer_event.js';
import type { TlsPlan } from './tls_options.js';
import { MEMORY, openSession, RECORD_BYTES, TlsTransport } from './tls_transport.js';

const { EAGAIN } = constants.errno;
/** What a call of tlsStep does. */
const Step = { HANDSHAKE: 0, READ: 1, WRITE: 2, SHUTDOWN: 3, UPDATE_KEYS: 4 } as const;
type Step = (typeof Step)[keyof typeof Step];
/** The room for records of one call, more than 64 KiB of plain text become. */
const SEALED_BYTES = 80 * 1024;
const NO_BYTES = Buffer.alloc(0);
/** Of the last call: bytes taken, bytes of records given. */
const moved = new Uint32Array(2);

export class TlsMemory extends TlsTransport {
  /** Nothing follows what the stream below has: it has ended. */
  ends = false;
  /** Plain text for the stream, and records for the one below, to be moved on after each call. */
  readonly opened = new EvBuffer();
  readonly sealed = new EvBuffer();
  readonly #base: number;
  readonly #id: number;
  readonly #under: BufferEvent;
  #unfinished = 0;
  #offered = 0;

  private constructor(base: number, id: number, under: BufferEvent) {
    super(base, id);
    this.#base = base;
    this.#id = id;
    this.#under = under;
  }
  static over(under: BufferEvent, plan: TlsPlan): TlsMemory {
    const base = under.base._id;
    return new TlsMemory(base, openSession(base, plan, 0, MEMORY), under);
  }

  /** 0: done; 1: it goes on when the stream below has more; or a negative code. */
  override handshake(): number {
    for (;;) {
      const wants = this.#feed(Step.HANDSHAKE, 0, SEALED_BYTES);
      // A flight that is longer than the room goes in parts.
      if (wants === 2 && moved[1] > 0) continue;
      if (wants !== 1 || moved[0] === 0 || this.#under.inputLength === 0) return wants;
    }
  }

  /**
   * Bytes that are in `opened` now, 0 at the end, or a negative code. `room`: bytes for what has to
   * be answered, which is little and seldom; without it, TlsCode.WANTS_OTHER then.
   */
  pull(most: number, room: number): number {
    let got = 0;
    while (got < most) {
      const count = this.#feed(Step.READ, most - got, this.sealed.length < room ? RECORD_BYTES : 0);
      this.more = count >= TLS_MORE;
      if (count > 0) got += this.more ? count - TLS_MORE : count;
      else if (count !== -EAGAIN) {
        // What comes before it is given first, and the session answers this again.
        this.more = got > 0;
        return got > 0 ? got : count;
      }
      if (this.more) break;
      if (this.#under.inputLength === 0 || (count < 0 && moved[0] === 0)) break;
    }
    return got > 0 ? got : -EAGAIN;
  }

  /** Bytes that left the output, now records in `sealed`, or a negative code. */
  push(output: EvBuffer, most: number): number {
    for (;;) {
      // What was begun with so many bytes goes on with them.
      const begun = this.#unfinished;
      const count = output._offer(Math.max(most, begun), RECORD_BYTES, this.#seal, begun);
      this.#unfinished =
        count === this.#offered ? 0 : Math.max(0, native.tlsUnfinished(this.#base, this.#id));
      if (count !== -EAGAIN || moved[1] === 0) return count;
    }
  }
  readonly #seal = (bytes: Uint8Array, offset: number, length: number): number => {
    this.#offered = Math.min(length, Math.max(TRANSFER_BYTES, this.#unfinished));
    return this.#step(Step.WRITE, bytes, offset, this.#offered, 0, SEALED_BYTES);
  };

  override finish(): boolean {
    this.#step(Step.SHUTDOWN, NO_BYTES, 0, 0, 0, SEALED_BYTES);
    return true;
  }
  protected override _updateKeys(asked: boolean): number {
    return this.#step(Step.UPDATE_KEYS, NO_BYTES, 0, 0, 0, SEALED_BYTES, asked);
  }

  /** A step with the first piece of what the stream below has. */
  #feed(step: Step, room: number, reply: number): number {
    const { input } = this.#under;
    const last = this.ends ? input.length : -1;
    let result = 0;
    const take = (bytes: Uint8Array, offset: number, length: number) => {
      result = this.#step(step, bytes, offset, length, room, reply, length === last);
      return moved[0];
    };
    if (input.length === 0) take(NO_BYTES, 0, 0);
    // Not gathered: that would be where the answer goes.
    else input._offer(TRANSFER_BYTES, 1, take);
    return result;
  }

  #step(
    step: Step,
    bytes: Uint8Array,
    offset: number,
    length: number,
    room: number,
    reply: number,
    flag = false,
  ): number {
    const slab = slabWith(room + reply + (step === Step.WRITE ? RECORD_BYTES : 0));
    const { used } = slab;
    // What was gathered to be written is in the free memory itself: records go behind it, since of
    // several the first ones would overwrite it.
    const gathered = step === Step.WRITE && bytes === slab.bytes && offset >= used;
    const free = gathered ? offset + length - used : room;
    const { tlsStep } = native;
    const result = tlsStep(
      this.#base,
      this.#id,
      moved,
      step,
      bytes,
      offset,
      length,
      flag,
      used,
      free,
      reply,
    );
    const records = slab.bytes.subarray(used + free, used + free + moved[1]);
    if (step === Step.READ) {
      const answer = records.length > 0 ? Buffer.from(records) : undefined;
      if (result > 0) this.opened._received(slab, result % TLS_MORE);
      if (answer !== undefined) this.sealed._addReference(answer);
    } else if (records.length > 0) {
      if (gathered) slab.bytes.set(records, used);
      this.sealed._received(slab, records.length);
    }
    return result;
  }

  override free(): void {
    super.free();
    this.opened._discard();
    this.sealed._discard();
  }
}
