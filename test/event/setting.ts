// Where a base runs in the tests of the drives: each backend under each drive that it has.

import type { BackendName } from '../../src/event/ev.js';
import { allBackends } from '../machine.js';

export interface Setting {
  backend: BackendName;
  drive: 'base' | 'libuv';
}

const all: readonly Setting[] = [
  { backend: 'epoll', drive: 'base' },
  { backend: 'epoll', drive: 'libuv' },
  { backend: 'poll', drive: 'base' },
  { backend: 'select', drive: 'base' },
];
export const settings = all.filter(({ backend }) => allBackends.includes(backend));
export const nameOf = ({ backend, drive }: Setting) => `${backend}, ${drive} drive`;
