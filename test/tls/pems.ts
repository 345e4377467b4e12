// The certificates of the tests, all from one authority and valid until 2125, but for `expired`.

import { readFileSync } from 'node:fs';

type Name = 'localhost' | 'wildcard' | 'www' | 'client' | 'expired' | 'rsa';

const read = (file: string) =>
  readFileSync(new URL(`../../../test/tls/${file}`, import.meta.url), 'utf8');

export const ca = read('ca.pem');
export const pair = (name: Name) => ({ cert: read(`${name}.pem`), key: read(`${name}-key.pem`) });
