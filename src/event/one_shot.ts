// Waiting once: libevent's event_base_once, and the same as a promise. The event is made here and
// freed when it has fired.

import { MultiloopError } from '../errors.js';
import { checkFunction, checkInteger, checkMillis, checkObject, checkSignal } from '../validate.js';
import { Ev, type EvMask } from './ev.js';
import type { EventBase } from './event_base.js';

export function once(
  base: EventBase,
  fd: number,
  mask: EvMask,
  callback: (what: EvMask) => void,
  timeout?: number,
): void {
  checkFunction('callback', callback);
  checkInteger('mask', mask, 0, 0xff);
  if (timeout !== undefined) checkMillis('timeout', timeout);
  if (mask & (Ev.SIGNAL | Ev.PERSIST) || !(mask & (Ev.TIMEOUT | Ev.READ | Ev.WRITE | Ev.CLOSED)))
    throw new MultiloopError(
      'ERR_BAD_MASK',
      'once() takes TIMEOUT, READ, WRITE or CLOSED, and neither SIGNAL nor PERSIST',
    );
  const event = base.event(fd, mask & ~Ev.TIMEOUT, (what) => {
    event.free();
    callback(what);
  });
  try {
    // Active at once, so that such callbacks run in the order of their calls.
    if (mask === Ev.TIMEOUT && (timeout ?? 0) === 0) event.activate(Ev.TIMEOUT);
    else event.add(timeout);
  } catch (error) {
    event.free();
    throw error;
  }
}

/** In `waits` is, while the promise is pending, the function that rejects it. */
export function wait(
  base: EventBase,
  waits: Set<(error: Error) => void>,
  fd: number,
  mask: EvMask,
  options: { timeout?: number; signal?: AbortSignal },
): Promise<EvMask> {
  return new Promise((resolve, reject) => {
    checkObject('options', options);
    const signal = checkSignal('options.signal', options.signal);
    signal?.throwIfAborted();
    checkInteger('mask', mask, 0, 0xff);
    const event = base.event(fd, mask & ~Ev.PERSIST, (what) => {
      end();
      resolve(what);
    });
    const end = () => {
      signal?.removeEventListener('abort', aborted);
      waits.delete(fail);
      event.free();
    };
    const fail = (error: Error) => {
      end();
      reject(error);
    };
    const aborted = () => fail(signal?.reason);
    try {
      event.add(options.timeout);
    } catch (error) {
      event.free();
      throw error;
    }
    waits.add(fail);
    signal?.addEventListener('abort', aborted, { once: true });
  });
}
