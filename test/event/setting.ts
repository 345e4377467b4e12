// Where a base runs in the tests of the drives: each backend under each drive that it has.

import type { BackendName } from '../../src/event/ev.js';
import { nestable, testedBackends } from '../machine.js';

export interface Setting {
  backend: BackendName;
  drive: 'base' | 'libuv';
}

export const settings: readonly Setting[] = testedBackends.flatMap((backend): Setting[] =>
  nestable.includes(backend)
    ? [
        { backend, drive: 'base' },
        { backend, drive: 'libuv' },
      ]
    : [{ backend, drive: 'base' }],
);
export const nameOf = ({ backend, drive }: Setting) => `${backend}, ${drive} drive`;
