// Which multiloop this is, from its package.json, so that there is one place to change it.

import { readFileSync } from 'node:fs';

/** `1.2.3`, by Semantic Versioning. */
export const version: string = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
).version;

/** The same to compare: 0x01020300 for 1.2.3, in libevent's form. */
export const versionNumber: number = version
  .split(/[.-]/, 3)
  .reduce((number, part) => (number | Number(part)) << 8, 0);
