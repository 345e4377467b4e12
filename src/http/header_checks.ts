// What may be sent as a header: the checks that answers and requests have in common.

import { invalidType, invalidValue } from '../validate.js';
import { isFieldValue, isToken } from './characters.js';

/** Answers the value as text. */
export function checkHeader(name: string, value: unknown): string {
  if (typeof name !== 'string') throw invalidType('name', 'of type string', name);
  if (!isToken(name)) throw invalidValue('name', 'is no name of a header', name);
  if (typeof value === 'number') return String(value);
  if (typeof value !== 'string') throw invalidType('value', 'of type string or number', value);
  if (!isFieldValue(value))
    throw invalidValue('value', `of ${name} has a character that no header may have`, value);
  return value;
}

/** Lines with their ends. */
export function trailerLines(trailers: Readonly<Record<string, string>> | undefined): string {
  if (trailers === undefined) return '';
  let lines = '';
  for (const [name, value] of Object.entries(trailers)) {
    if (/^(transfer-encoding|content-length|host|connection)$/i.test(name))
      throw invalidValue('trailers', 'have a name that no trailer may have', name);
    lines += `${name}: ${checkHeader(name, value)}\r\n`;
  }
  return lines;
}
