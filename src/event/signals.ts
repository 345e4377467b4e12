// Signals by name and by number.

import { constants } from 'node:os';
import { checkInteger, invalidType } from '../validate.js';

/** The highest signal that a base can wait for: SIGRTMAX of Linux. */
const SIGNALS_MAX = 64;

const numbers: Record<string, number> = constants.signals;
const names = new Map(Object.entries(numbers).map(([name, number]) => [number, name]));

/** The number of a signal. Whether it can be caught is the kernel's to say. */
export function signalNumber(signal: unknown): number {
  if (typeof signal === 'number') return checkInteger('signal', signal, 1, SIGNALS_MAX);
  if (typeof signal !== 'string') throw invalidType('signal', 'of type string or number', signal);
  if (Object.hasOwn(numbers, signal)) return numbers[signal];
  // Node's own code and words, as of process.kill().
  const error = new TypeError(`Unknown signal: ${signal}`);
  throw Object.assign(error, { code: 'ERR_UNKNOWN_SIGNAL' });
}

/** `SIGUSR1`, or `signal 40` for one without a name. */
export function signalName(number: number): string {
  return names.get(number) ?? `signal ${number}`;
}
