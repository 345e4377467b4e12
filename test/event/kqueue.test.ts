// kqueue where it has to be emulated: nobody gets it who has not asked for it, its waker is its own,
// and a group of loops serves over it. The behaviour of its events is the suite's (conformance.ts).

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBase, type EventBaseOptions, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { testedBackends, wakersOf } from '../machine.js';
import { ask, connect, workerFile } from '../runtime/clients.js';
import { testWhere } from '../where.js';
import { PATIENCE_MS, thrownBy, within } from './support.js';

const isEmulated = native.backends().some(([name, , , emulated]) => name === 'kqueue' && emulated);
const withoutEmulation =
  isEmulated && testedBackends.includes('kqueue') ? undefined : 'kqueue is not emulated here';

function made(options: EventBaseOptions): [backend: string, waker: string] {
  using base = new EventBase(options);
  return [base.backend, base.waker];
}

testWhere(withoutEmulation, 'it is taken by name only', () => {
  assert.is(EventBase.backends().find(({ name }) => name === 'kqueue')?.available, true);
  assert.not.equal(made({})[0], 'kqueue');
  assert.is(made({ backend: 'kqueue' })[0], 'kqueue');
  const error = thrownBy(() => made({ avoid: ['epoll', 'io_uring'], require: ['et', 'fds'] }));
  assert.is(error.code, 'ERR_BACKEND_UNAVAILABLE');
  assert.match(error.message, 'kqueue (emulated: by name only)');
});

testWhere(withoutEmulation, 'it has the features that the table of backends says', () => {
  using base = new EventBase({ backend: 'kqueue' });
  assert.equal([...base.features].sort(), ['early-close', 'et', 'fds', 'o1']);
});

testWhere(withoutEmulation, 'its waker is for it alone', () => {
  assert.ok(wakersOf('kqueue').includes('evfilt_user'));
  assert.not(wakersOf('epoll').includes('evfilt_user'));
  for (const waker of wakersOf('kqueue'))
    assert.equal(made({ backend: 'kqueue', waker }), ['kqueue', waker]);
  const error = thrownBy(() => made({ backend: 'poll', waker: 'evfilt_user' }));
  assert.is(error.code, 'ERR_WAKER_UNAVAILABLE');
  assert.match(
    error.message,
    'evfilt_user (for kqueue only; this base has poll). Available for poll',
  );
});

testWhere(withoutEmulation, 'loops serve over it, woken by it', async () => {
  const group = await serve({
    worker: workerFile('report'),
    loops: 3,
    backend: 'kqueue',
    waker: 'evfilt_user',
  });
  try {
    for (let i = 0; i < 9; i++) {
      const socket = await connect(group);
      const who = JSON.parse(await within(PATIENCE_MS, ask(socket, 'who'), 'the answer'));
      assert.equal([who.backend, who.waker], ['kqueue', 'evfilt_user']);
      socket.destroy();
    }
  } finally {
    await group.close();
  }
});

testWhere(
  wakersOf('kqueue').includes('evfilt_user') ? 'this kernel has it' : undefined,
  'its waker is refused with a reason where there is no kqueue',
  () => {
    const error = thrownBy(() => made({ waker: 'evfilt_user' }));
    assert.is(error.code, 'ERR_WAKER_UNAVAILABLE');
    assert.match(error.message, 'evfilt_user (for kqueue on macOS and the BSDs; this is');
  },
);

test.run();
