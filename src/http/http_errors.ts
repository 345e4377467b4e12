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
