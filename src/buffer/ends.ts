// The two ends of a buffer, which may be frozen.

import { MultiloopError } from '../errors.js';
import { checkOneOf } from '../validate.js';

export const FRONT = 1;
export const BACK = 2;

export function endBit(end: 'front' | 'back'): number {
  return checkOneOf('end', end, ['front', 'back']) === 'front' ? FRONT : BACK;
}

export function frozen(end: number): MultiloopError {
  return new MultiloopError(
    'ERR_BUFFER_FROZEN',
    `The ${end === FRONT ? 'front' : 'back'} of this buffer is frozen; that of a stream's ` +
      `${end === FRONT ? 'output is taken' : 'input is filled'} by the stream alone`,
  );
}
