// The certificates of the tests, all from one authority and valid until 2125, but for `expired`.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

type Name = 'localhost' | 'wildcard' | 'www' | 'client' | 'expired' | 'rsa';

const pathOf = (file: string) =>
  fileURLToPath(new URL(`../../../test/tls/${file}`, import.meta.url));
const read = (file: string) => readFileSync(pathOf(file), 'utf8');

export const ca = read('ca.pem');
export const pair = (name: Name) => ({ cert: read(`${name}.pem`), key: read(`${name}-key.pem`) });
/** The same as files. */
export const paths = (name: Name) => ({
  cert: pathOf(`${name}.pem`),
  key: pathOf(`${name}-key.pem`),
});
