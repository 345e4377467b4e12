// Two streams that are each other's other side, without a descriptor between them. What one writes
// moves to the other's input, without a copy, as far as that one reads.

import { MultiloopError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import {
  type BevOptions,
  checkDirections,
  checkFlushMode,
  type FlushMode,
  TRANSFER_BYTES,
} from './bev_options.js';
import { BufferEvent } from './buffer_event.js';

export class PairStream extends BufferEvent {
  #partner: PairStream | undefined = undefined;

  /** @internal */
  static pair(base: EventBase, options: BevOptions = {}): [PairStream, PairStream] {
    const one = new PairStream(base, options);
    const other = new PairStream(base, options);
    one.#partner = other;
    other.#partner = one;
    return [one, other];
  }

  /** The other one, until either is closed. */
  get partner(): PairStream | undefined {
    return this.#partner;
  }

  /** 'flush' and 'finished' move past the other's watermarks; 'finished' ends the stream too. */
  override flush(direction: EvMask, mode: FlushMode): void {
    checkDirections(direction);
    checkFlushMode(mode);
    if (mode === 'normal' || this.closed) return;
    const partner = this.#partner;
    if (direction & Ev.READ && partner !== undefined) partner.#transfer(true);
    if (direction & Ev.WRITE) this.#transfer(true);
    if (mode !== 'finished') return;
    if (direction & Ev.READ) partner?.end();
    if (direction & Ev.WRITE) this.end();
  }

  protected override _startReading(): void {
    // From inside enable() or a drain: moving is no callback, so it may happen at once.
    this.#partner?._queueFlush();
  }
  protected override _stopReading(): void {}
  protected override _stopWriting(): void {}

  protected override _flush(): void {
    this.#transfer(false);
  }

  #transfer(all: boolean): void {
    const partner = this.#partner;
    if (partner === undefined) {
      if (this.outputLength > 0) this._failed('write', { error: partnerGone() }, false);
      return;
    }
    if (this.outputLength === 0 || (!all && !partner._mayRead())) return;
    let room = all ? this.outputLength : partner._readRoom(TRANSFER_BYTES * 1024);
    if (this._limit !== undefined) room = Math.min(room, this._limit.writeRoom());
    const count = partner.input._move(this.output, Math.min(room, this.outputLength));
    if (count === 0) return;
    this.bytesWritten += count;
    this._limit?.took('write', count);
    partner._limit?.took('read', count);
    // As if it had been read: the callback waits for the next pass.
    partner._receivedLater(count);
    this._wrote(false);
  }

  protected override _finish(): void {
    const partner = this.#partner;
    if (partner !== undefined) partner.#ended();
  }
  #ended(): void {
    if (!this.closed && !this._peerEnded) this._peerEnd(false);
  }

  protected override _release(reset: boolean): void {
    const partner = this.#partner;
    this.#partner = undefined;
    if (partner === undefined) return;
    partner.#partner = undefined;
    if (partner._peerEnded || partner.closed) return;
    // Nothing else would tell it: in libevent what it writes from now on waits for ever.
    if (reset || this.outputLength > 0) partner._failed('read', { error: partnerGone() }, false);
    else partner.#ended();
  }
}

function partnerGone(): Error {
  return new MultiloopError('ERR_PARTNER_GONE', 'The other stream of the pair was closed');
}
