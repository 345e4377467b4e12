// What this machine and this build of the addon offer, for tests that ask for one thing or another
// by name: ML_PORTABLE leaves out what only Linux has, and a kernel may refuse what a build has.
// Workers of tests load it, so it stays small.

import type { BackendName, WakerName } from '../src/event/ev.js';
import { EventBase } from '../src/event/event_base.js';
import { native } from '../src/native.js';

export const allBackends: readonly BackendName[] = EventBase.backends()
  .filter(({ available }) => available)
  .map(({ name }) => name);

/** Set by test/run.mjs for the backends that have processes of their own. */
const asked = process.env.ML_TEST_BACKENDS?.split(',');

/** Those that tests go over. */
export const testedBackends = allBackends.filter((name) => asked?.includes(name) ?? true);

const wakers = native.wakers().filter(([, status]) => status === 0);

/** The wakers that a backend can be woken by. */
export function wakersOf(backend: BackendName): WakerName[] {
  const fits = wakers.filter(([, , only]) => only === '' || only === backend);
  return fits.map(([name]) => name as WakerName);
}

/** Those that are for any backend. */
export const wakersHere = wakers
  .filter(([, , only]) => only === '')
  .map(([name]) => name as WakerName);

export const isPortable = native.portable();

/** The backends whose descriptor libuv can wait for: those that can be a thread's second base. */
export const nestable: readonly BackendName[] = ['epoll', 'kqueue', 'io_uring', 'evport'];
/** One of them, for a base beside another. */
export const beside = allBackends.find((name) => nestable.includes(name));

/** What of a list is here: a test that deals out backends or wakers deals out what there is. */
export function ofThese<Name extends BackendName | WakerName>(...names: Name[]): Name[] {
  const here: readonly string[] = [...allBackends, ...wakersHere];
  return names.filter((name) => here.includes(name));
}

// Why a test is skipped, where it is.

export const withoutEpoll = allBackends.includes('epoll')
  ? undefined
  : `${isPortable ? 'this build' : 'this kernel'} has no epoll`;
export const withoutNesting =
  beside === undefined ? 'no backend here has a descriptor to nest by' : undefined;
