// A stream on another one: it takes that one's handlers, reads it only while it reads itself, so
// that nothing piles up there, and closes it with itself. What it makes of the bytes is a subclass.

import { MultiloopError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import { invalidType, invalidValue } from '../validate.js';
import type { Address } from './address.js';
import {
  type BevEvent,
  type BevHandlers,
  type BevOptions,
  CLOSED,
  type HandlersAbove,
} from './bev_options.js';
import { BufferEvent } from './buffer_event.js';
import { Hold } from './hold.js';
import type { RateLimit } from './rate_limit.js';
import { TimedStream } from './timed_stream.js';

export abstract class StackedStream extends TimedStream {
  /** The stream below. */
  readonly under: BufferEvent;
  readonly #own: HandlersAbove;
  readonly #former: { handlers: BevHandlers; enabled: EvMask };
  /** @internal How the stream below has ended; told when what came before is taken. */
  protected _end: BevEvent | undefined = undefined;

  /** @internal The stream below is as it was before _takeUnder(). */
  constructor(under: BufferEvent, options: BevOptions) {
    if (!(under instanceof BufferEvent))
      throw invalidType('under', 'an instance of BufferEvent', under);
    super(under.base, options);
    if (under.closed) throw invalidValue('under', 'is closed', under);
    if (StackedStream.#taken.has(under)) throw invalidValue('under', 'has a filter', under);
    this.under = under;
    this.#former = { handlers: under.handlers, enabled: under.enabled };
    this.#own = {
      read: () => this._underReads(),
      write: () => this._underDrained(),
      event: (_, event) => this._underTells(event),
      [CLOSED]: () => this.#underClosed(),
    };
  }
  static readonly #taken = new WeakSet<BufferEvent>();

  /** @internal From here on the stream below is this one's. */
  protected _takeUnder(rateLimit: RateLimit | undefined): void {
    const { under } = this;
    StackedStream.#taken.add(under);
    if (rateLimit !== undefined) under.setRateLimit(rateLimit);
    under.handlers = this.#own;
    under._holdReading(Hold.FILTER);
    under.enable(Ev.READ | Ev.WRITE);
    if (under._peerEnded) this._end = { eof: true };
  }

  // ── what the stream below tells ──

  /** @internal In its callbacks: it has something, it has written what it had. */
  protected abstract _underReads(): void;
  protected abstract _underDrained(): void;
  /** @internal */
  protected _underTells(event: BevEvent): void {
    const { direction } = event;
    if (direction === 'read' && event.timeout === undefined) {
      this._end ??= event;
      const wanted = (this.enabled & Ev.READ) !== 0;
      if (this._mayRead()) this._underReads();
      // Who does not read at all learns of a failure now, and of the end when it reads.
      else if (event.error !== undefined && !wanted) this._failed('read', event, true);
    } else if (direction !== undefined) this._failed(direction, event, true);
    else this._tellEvent(event);
  }
  #underClosed(): void {
    if (!this.closed && !this.base._closed) this._underGone();
  }
  /** @internal Somebody else has closed it. */
  protected _underGone(): void {
    this._failed('read', { error: underGone() }, false);
    if (this.outputLength > 0) this._failed('write', { error: underGone() }, false);
  }
  /** @internal Has _underReads() called in a pass, since what is told there is the user's. */
  protected _wakeInput(): void {
    if (this.closed || this.base._closed) return;
    // The stream below tells nothing any more when it is closed, and has nothing either.
    if (!this.under.closed) this.under._tellLater(Ev.READ);
  }

  // ── what belongs to the stream below ──

  /** What was disabled below, by a timeout for example, goes on as well. */
  override enable(mask: EvMask): this {
    super.enable(mask);
    if (!this.closed) this.under.enable(mask);
    return this;
  }
  override setRateLimit(limit: RateLimit | undefined): this {
    if (this.closed) return this;
    this.under.setRateLimit(limit);
    return this;
  }
  override get rateLimit(): RateLimit | undefined {
    return this.under.rateLimit;
  }
  override get localAddress(): Address | undefined {
    return this.under.localAddress;
  }
  override get remoteAddress(): Address | undefined {
    return this.under.remoteAddress;
  }
  protected override _refChanged(): void {
    super._refChanged();
    if (this._refed) this.under.ref();
    else this.under.unref();
  }

  /** @internal Closes the stream below, or gives it back with the handlers that it had. */
  protected _releaseUnder(reset: boolean): void {
    const { under } = this;
    StackedStream.#taken.delete(under);
    if (under.closed) return;
    const mine = under.handlers === this.#own;
    if (this._closesUnder) {
      if (mine) under.handlers = {};
      if (reset) under.destroy(new Error('The filter on this stream was destroyed'));
      else under.close();
      return;
    }
    if (!mine) return;
    const { handlers, enabled } = this.#former;
    under.handlers = handlers;
    if (this.base._closed) return;
    if (!(enabled & Ev.READ)) under.disable(Ev.READ);
    under._releaseReading(Hold.FILTER);
    if (under.inputLength > 0) under.trigger(Ev.READ);
    if (this._end !== undefined) under.triggerEvent(this._end);
  }
}

export function underGone(): Error {
  return new MultiloopError('ERR_UNDERLYING_CLOSED', 'The stream below the filter was closed');
}
