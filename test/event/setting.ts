// Where a base runs in the tests of the drives: each backend under each drive that it has.

import type { BackendName } from '../../src/event/ev.js';

export interface Setting {
  backend: BackendName;
  drive: 'base' | 'libuv';
}

export const settings: readonly Setting[] = [
  { backend: 'epoll', drive: 'base' },
  { backend: 'epoll', drive: 'libuv' },
  { backend: 'poll', drive: 'base' },
  { backend: 'select', drive: 'base' },
];
export const nameOf = ({ backend, drive }: Setting) => `${backend}, ${drive} drive`;
