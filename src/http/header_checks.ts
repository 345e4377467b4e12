// What may be sent as a header: the checks that answers and requests have in common.

import { invalidValue } from '../validate.js';
import { headerName } from './response_head.js';

/** Answers the value as text. */
export function checkHeader(name: string, value: unknown): string {
  return headerName(name).check(value);
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
