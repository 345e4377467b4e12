// The errors of this layer that are made in more than one place.

import { MultiloopError } from '../errors.js';
import type { Refusal } from './status.js';

/** A request that is none, or that is too large or too late, and what its sender is answered. */
export class RefusedError extends MultiloopError {
  readonly status: number;
  /** @internal */ readonly why: string;
  constructor({ status, why }: Refusal) {
    super('ERR_HTTP_REFUSED', `A request was refused with ${status}: ${why}`);
    this.status = status;
    this.why = why;
  }
}

export function aborted(why: string, cause?: unknown): MultiloopError {
  return new MultiloopError('ERR_HTTP_ABORTED', `The request was aborted: ${why}`, { cause });
}

export function noAnswer(why: string): MultiloopError {
  return new MultiloopError('ERR_HTTP_NO_ANSWER', `A request was not answered: ${why}`);
}

export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(`thrown: ${String(thrown)}`);
}

// ── a client's ──

/** What came is no answer. */
export function badAnswer(why: string): MultiloopError {
  return new MultiloopError('ERR_HTTP_ANSWER', `The server's answer is malformed: ${why}`);
}
export function tooLarge(why: string): MultiloopError {
  return new MultiloopError(
    'ERR_HTTP_ANSWER_TOO_LARGE',
    `The server's answer is too large: ${why}`,
  );
}
/** The same rules refuse answers; their statuses tell what is too large. */
export function answerError({ status, why }: Refusal): MultiloopError {
  return status === 413 || status === 431 ? tooLarge(why) : badAnswer(why);
}
export function timedOut(what: string): MultiloopError {
  return new MultiloopError('ERR_HTTP_TIMEOUT', `A request was given up: ${what} has passed`);
}
