// What a buffer takes as data.

import { types } from 'node:util';
import { invalidType } from '../validate.js';

export type Bytes = Uint8Array | string;

/** Bytes of a string's UTF-8 for each of its units, at most; a lone surrogate takes as many. */
export const UTF8_MAX = 3;

/** Of any realm: `instanceof` knows one. */
export function checkBytes(
  name: string,
  value: unknown,
  expected = 'of type string or an instance of Uint8Array',
): Uint8Array {
  if (value instanceof Uint8Array || types.isUint8Array(value)) return value;
  throw invalidType(name, expected, value);
}
