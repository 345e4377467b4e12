// Two streams that are each other's other side, without a descriptor between them. What one writes
// moves to the other's input, without a copy, as far as that one reads.

import { MultiloopError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import { type BevOptions, checkDirections, checkFlushMode, type FlushMode } from './bev_options.js';
import { TimedStream } from './timed_stream.js';

/** Stream that is the other side of another one. */
export class PairStream extends TimedStream {
  #partner: PairStream | undefined = undefined;

  /** @internal */
  static pair(base: EventBase, options: BevOptions = {}): [PairStream, PairStream] {
    const one = new PairStream(base, options);
    const other = new PairStream(base, options);
    one.#partner = other;
    other.#partner = one;
    for (const stream of [one, other])
      if (options.rateLimit !== undefined) stream.setRateLimit(options.rateLimit);
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

  protected override _startReading(timeout: number | undefined): void {
    this._timeReading(timeout);
    // From inside enable() or a drain: moving is no callback, so it may happen at once.
    this.#partner?._queueFlush();
  }
  protected override _stopReading(): void {
    this._timeReading(undefined);
  }

  protected override _flush(): void {
    this.#transfer(false);
  }

  /** `all`: whatever the partner's watermarks say, and whether or not it reads. */
  #transfer(all: boolean): void {
    const partner = this.#partner;
    if (partner === undefined) {
      if (this.outputLength > 0) this._failed('write', { error: partnerGone() }, false);
      return;
    }
    let moved = 0;
    // Until there is no room: then whatever takes it away will give it back.
    for (let count = this.#room(partner, all); count > 0; count = this.#room(partner, all)) {
      partner.input._move(this.output, count);
      this._limit?.took('write', count);
      partner._limit?.took('read', count);
      // As if it had been read: the callback waits for the next pass.
      partner._receivedLater(count);
      moved += count;
    }
    this.bytesWritten += moved;
    if (moved > 0) partner._timeReadingAnew();
    this._timeWriting(moved > 0);
    if (moved > 0) this._wrote(false);
  }
  #room(partner: PairStream, all: boolean): number {
    let room = this.outputLength;
    if (room === 0) return 0;
    if (!all) room = partner._mayRead() ? partner._readRoom(room) : 0;
    else if (partner._limit !== undefined) room = Math.min(room, partner._limit.readRoom());
    if (room > 0 && this._limit !== undefined) room = Math.min(room, this._limit.writeRoom());
    return Math.max(0, room);
  }

  protected override _finish(): void {
    const partner = this.#partner;
    if (partner !== undefined) partner.#ended();
  }
  #ended(): void {
    if (!this.closed && !this._peerEnded) this._peerEnd(false);
  }

  protected override _release(reset: boolean): void {
    this._freeTimers();
    const partner = this.#partner;
    this.#partner = undefined;
    if (partner === undefined) return;
    partner.#partner = undefined;
    // Nothing else would tell it: in libevent what it writes from now on waits for ever.
    if (!partner.closed) partner.#left(reset || this.outputLength > 0);
  }
  /** The partner was closed; `short`: before this side had all that it wrote. */
  #left(short: boolean): void {
    if (!this._peerEnded) {
      if (short) this._failed('read', { error: partnerGone() }, false);
      else this._peerEnd(false);
    }
    if (this.outputLength > 0) this._failed('write', { error: partnerGone() }, false);
  }
}

function partnerGone(): Error {
  return new MultiloopError('ERR_PARTNER_GONE', 'The other stream of the pair was closed');
}
