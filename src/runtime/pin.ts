// Which processor each loop's thread is bound to.

import { stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { systemError } from '../errors.js';
import { native } from '../native.js';
import { checkInteger, invalidType, outOfRange } from '../validate.js';

/**
 * The processors to deal out, or undefined for no binding. Throws for one that this process may not
 * use (taskset(1), cpuset(7)), and ENOTSUP where threads cannot be bound.
 */
export async function checkPin(pin: unknown, worker: string): Promise<number[] | undefined> {
  if (pin === undefined || pin === false) return undefined;
  if (pin !== true && !Array.isArray(pin))
    throw invalidType('options.pin', 'of type boolean or an instance of Array', pin);
  const allowed = native.processors();
  if (typeof allowed === 'number') throw systemError(allowed, 'sched_getaffinity');
  // A thread inherits the binding of the one that starts it, and libuv starts all threads of its
  // pool with the first work: that must not be in a loop.
  await stat(fileURLToPath(worker)).catch(() => undefined);
  if (pin === true) return allowed;
  if (pin.length === 0) throw outOfRange('options.pin.length', '>= 1', 0);
  for (const [at, processor] of pin.entries()) {
    checkInteger(`options.pin[${at}]`, processor, 0);
    if (!allowed.includes(processor))
      throw outOfRange(`options.pin[${at}]`, `one of ${allowed.join(', ')}`, processor);
  }
  return pin;
}
