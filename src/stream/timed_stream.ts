// A stream without a descriptor of its own, whose events could time it: its timeouts are timers.
// As for every stream, each one runs only while its direction is enabled and nothing holds it, and
// that of writing only while something is queued (libevent: bufferevent_set_timeouts).

import { Ev } from '../event/ev.js';
import type { EventHandle } from '../event/event_handle.js';
import { BufferEvent } from './buffer_event.js';

export abstract class TimedStream extends BufferEvent {
  #readTimer: EventHandle | undefined = undefined;
  #writeTimer: EventHandle | undefined = undefined;

  /** @internal From now on, or for no time at all. */
  protected _timeReading(timeout: number | undefined): void {
    if (timeout === undefined || this.base._closed) {
      this.#readTimer?.del();
      return;
    }
    this.#readTimer ??= this.#timer('read');
    this.#readTimer.add(timeout);
  }

  /** @internal Something has been read. */
  protected _timeReadingAnew(): void {
    const { read } = this.timeouts;
    if (read !== undefined && this._mayRead()) this._timeReading(read);
  }

  /** @internal `anew`: something has been written. */
  protected _timeWriting(anew: boolean): void {
    const { write } = this.timeouts;
    const waits = this.outputLength > 0 && this._mayWrite() && !this.base._closed;
    if (write === undefined || !waits) {
      this.#writeTimer?.del();
      return;
    }
    this.#writeTimer ??= this.#timer('write');
    if (anew || this.#writeTimer.pending(Ev.TIMEOUT) === 0) this.#writeTimer.add(write);
  }
  protected override _stopWriting(): void {
    this.#writeTimer?.del();
  }
  protected override _timeoutsChanged(): void {
    this._timeWriting(true);
  }

  /** @internal */
  protected _freeTimers(): void {
    this.#readTimer?.free();
    this.#writeTimer?.free();
    this.#readTimer = this.#writeTimer = undefined;
  }

  #timer(direction: 'read' | 'write'): EventHandle {
    const late = () => this._failed(direction, { timeout: true }, true);
    const timer = this.base.timer(late, { priority: this.priority });
    return this._refed ? timer : timer.unref();
  }
  protected override _priorityChanged(value: number): void {
    for (const timer of [this.#readTimer, this.#writeTimer])
      if (timer !== undefined && timer._active === 0) timer.priority = value;
  }
  protected override _refChanged(): void {
    for (const timer of [this.#readTimer, this.#writeTimer]) {
      if (this._refed) timer?.ref();
      else timer?.unref();
    }
  }
}
