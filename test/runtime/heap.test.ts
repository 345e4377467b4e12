// A loop whose heap is nearly full is replaced before V8 ends it: another thread takes over its
// number and its connections, and the old one ends.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { native } from '../../src/native.js';
import { descriptors, until } from './clients.js';
import { LineClient } from './lines.js';
import { balanced, clientsOn, nextLoop, numbers, stalling } from './stalls.js';

const resourceLimits = { maxOldGenerationSizeMb: 32 };

test('a full heap is replaced and no connection notices', async () => {
  const group = await stalling({ resourceLimits, drainMs: 200 });
  // The first client of a process opens something for all that come.
  await (await LineClient.connect(group)).end();
  await until(() => group.stats().open === 0, 'it is gone');
  const before = descriptors().length;
  const downs: unknown[] = [];
  group.on('loop', (_, what) => what === 'down' && downs.push(what));
  const [[first, second, held], others] = await clientsOn(group, 3);
  const old = group.loops[0];
  assert.match(await held.ask('hold'), /^2 0 0$/);
  const restarted = nextLoop(group, 'restarted');
  assert.match(await first.ask('fill'), /^2 0 0$/);
  const [loop, reason] = await restarted;
  assert.is(reason.code, 'ERR_LOOP_HEAP_FULL');
  assert.match(reason.message, /^The heap of loop 0 is (8|9)\d % full .* of 32\.0 MiB/);
  assert.is(group.loops[0], loop);
  assert.is.not(loop, old);
  assert.equal([loop.id, loop.generation, loop.state], [0, 1, 'serving']);
  // Moved, not rescued: their state is what it was.
  for (const client of [first, second]) assert.is(numbers(await client.ask('y'))[2], 0);
  assert.equal(numbers(await first.ask('y')).slice(0, 2), [4, 0]);
  assert.is(await held.line(), 'closed');
  await held.end();
  for (const client of others) assert.match(await client.ask('y'), /^2 1 0$/);
  await until(() => old.state === 'dead', 'the old thread ends');
  await until(() => group.stats().served === 2, 'the one that was drained is counted');
  assert.equal([group.stats().lost, group.stats().moves, group.stats().open], [0, 2, 5]);
  // The loop's numbers go on.
  assert.equal([loop.stats.accepted, loop.stats.served], [4, 2]);
  balanced(group);
  assert.equal(downs, []);
  for (const client of [first, second, ...others]) await client.end();
  await until(() => group.stats().open === 0, 'all closed');
  await until(() => descriptors().length <= before, 'descriptors are back');

  // Once more, by the one that took its place.
  const [[third]] = await clientsOn(group, 1);
  const again = nextLoop(group, 'restarted');
  third.socket.write('fill\n');
  assert.is((await again)[0].generation, 2);
  assert.is(numbers(await third.ask('y'))[1], 0);
  await group.close();
  assert.is(native.ledgerCount(), 0);
});

test('a loop is not replaced more often than it may be restarted', async () => {
  const restart = { max: 0, within: 60_000, backoff: 1 };
  const group = await stalling({ resourceLimits, restart, loops: 1 });
  const [[client]] = await clientsOn(group, 1);
  const { threadId } = group.loops[0];
  const told: unknown[] = [];
  group.on('loop', (_, what) => told.push(what));
  for (const count of [2, 3, 4])
    assert.match(await client.ask('fill'), new RegExp(`^${count} 0 0`));
  // A replacement would be there before a whole new generation is.
  await group.reload();
  assert.is.not(group.loops[0].threadId, threadId);
  assert.equal(told, ['up']);
  await client.end();
  await group.close();
});

test('what cannot take the place of a full loop is told, and the old one goes on', async () => {
  const flag = new SharedArrayBuffer(4);
  const group = await stalling({ resourceLimits, loops: 1, workerData: { flag } });
  const [[client]] = await clientsOn(group, 1);
  Atomics.store(new Int32Array(flag), 0, 1);
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => group.once('error', resolve));
  client.socket.write('fill\n');
  const error = await failed;
  assert.is(error.code, 'ERR_LOOP_HEAP_FULL');
  assert.match(error.message, /no other thread could take its place: .* not to start/);
  assert.is((error.cause as NodeJS.ErrnoException).code, 'ERR_WORKER_LOAD');
  assert.match(await client.line(), /^2 0 0$/);
  assert.match(await client.ask('y'), /^3 0 0$/);
  assert.is(group.loops[0].generation, 0);
  await client.end();
  await group.close();
});

test.run();
