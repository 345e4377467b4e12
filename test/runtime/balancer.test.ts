// Automatic rebalancing: it evens out within its budget, and then there is rest.

import * as assert from 'uvu/assert';
import { type LoopGroup, type ServeOptions, serve } from '../../src/index.js';
import { rejectionOf } from '../event/support.js';
import { test } from '../hooks.js';
import { until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

/** See workers/talker.ts. */
const Flag = { BLOCK: 0, LAG: 1 } as const;
const flags = new Int32Array(new SharedArrayBuffer(8));
/** In which the balancer looks twice. */
const SEVERAL_LOOKS_MS = 600;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const groups: LoopGroup[] = [];
const start = async (rebalance: ServeOptions['rebalance'], loops = 2) => {
  const group = await serve({
    worker: workerFile('talker'),
    workerData: { flags },
    loops,
    // Not even by itself.
    policy: () => 0,
    rebalance,
  });
  groups.push(group);
  return group;
};
test.after.each(async () => {
  flags.fill(0);
  Atomics.notify(flags, Flag.BLOCK);
  await Promise.all(groups.splice(0).map((group) => group.close()));
});

async function fill(group: LoopGroup, count: number): Promise<LineClient[]> {
  const clients: LineClient[] = [];
  for (let i = 0; i < count; i++) {
    clients.push(await LineClient.connect(group));
    await clients[i].ask('hi');
  }
  return clients;
}
const open = (group: LoopGroup) => group.stats().loops.map((loop) => loop.open);
/** Nobody is under way. */
const isEven = (group: LoopGroup) => {
  const all = open(group);
  const total = all.reduce((sum, one) => sum + one, 0);
  return total === group.stats().open && Math.max(...all) - Math.min(...all) <= 1;
};

test('it evens out within the budget and rests; off, nothing moves', async () => {
  const [on, off] = [await start({ auto: true, perSecond: 6 }, 3), await start({ auto: false })];
  const began = performance.now();
  const [clients] = await Promise.all([fill(on, 12), fill(off, 6)]);
  while (!isEven(on)) {
    const { moves } = on.stats();
    const seconds = (performance.now() - began) / 1_000;
    assert.ok(moves <= 6 * (seconds + 1), `${moves} moves in ${seconds} s`);
    await pause(5);
  }
  // A loop that was not given the time to serve for a moment is passed over by the policy.
  const elsewhere = on.stats().loops[1].accepted + on.stats().loops[2].accepted;
  const expected = 8 - elsewhere;
  assert.equal([on.stats().moves, open(on)], [expected, [4, 4, 4]]);
  // Each is served where it is, and one that a loop is about to finish with does not come back.
  const answers = await Promise.all(clients.map((client) => client.ask('hi')));
  assert.ok(answers.every((one) => /^hi 2 [012]$/.test(one)));
  await pause(SEVERAL_LOOKS_MS);
  assert.is(on.stats().moves, expected);
  assert.is(off.stats().moves, 0);
});

test('clients of one loop go, and the others are dealt out anew', async () => {
  const group = await start({ auto: true, perSecond: 1_000 });
  const clients = await fill(group, 16);
  await until(() => isEven(group), 'it is even');
  const { moves } = group.stats();
  const loops = await Promise.all(clients.map((client) => client.ask('hi')));
  const leaving = clients.filter((_, at) => loops[at].endsWith(' 1'));
  await Promise.all(leaving.map((client) => client.end()));
  assert.is(leaving.length, 8);
  // Only those who have not moved of late may; these have never moved.
  await until(() => isEven(group) && group.stats().open === 8, 'it is even again');
  assert.is(group.stats().moves, moves + 4);
});

test('not to a loop that is blocked, and a small difference is left alone', async () => {
  const group = await start({ auto: true, perSecond: 1_000, hysteresis: 0.5 });
  const clients = await fill(group, 8);
  await until(() => isEven(group), 'it is even');
  // It has to see that before it is at rest again.
  await pause(SEVERAL_LOOKS_MS);
  // Six and four: a fifth above the mean.
  await fill(group, 2);
  await pause(SEVERAL_LOOKS_MS);
  const { moves } = group.stats();
  assert.is(Math.abs(open(group)[0] - 5) <= 1 && moves <= 4, true);
  const there = await Promise.all(clients.map((client) => client.ask('hi')));
  const blocker = clients[there.findIndex((line) => line.endsWith(' 1'))];
  assert.is(await blocker.ask('block'), 'blocking');
  await until(() => group.loops[1].state === 'blocked', 'it is blocked');
  await fill(group, 12);
  await pause(SEVERAL_LOOKS_MS);
  assert.is(group.stats().moves, moves);
  Atomics.store(flags, Flag.BLOCK, 0);
  Atomics.notify(flags, Flag.BLOCK);
  await until(() => isEven(group), 'it is even');
});

test('a loop whose turns take long gives away idle connections, and gets none', async () => {
  const group = await start({ auto: true, perSecond: 1_000, hysteresis: 100 });
  await fill(group, 12);
  Atomics.store(flags, Flag.LAG, 1);
  // Half of what the other one has, and one more at most.
  await until(() => open(group)[0] <= 5 && open(group)[1] >= 7, 'it has given away');
  await pause(SEVERAL_LOOKS_MS);
  const { moves } = group.stats();
  Atomics.store(flags, Flag.LAG, 0);
  await pause(SEVERAL_LOOKS_MS);
  assert.is(group.stats().moves, moves);
});

test('options that make no sense are refused', async () => {
  const refused = async (rebalance: unknown) => {
    const error = await rejectionOf(start(rebalance as ServeOptions['rebalance']));
    return (error as { code: string }).code;
  };
  assert.is(await refused(true), 'ERR_INVALID_ARG_TYPE');
  assert.is(await refused({ auto: 1 }), 'ERR_INVALID_ARG_TYPE');
  assert.is(await refused({ perSecond: 0 }), 'ERR_OUT_OF_RANGE');
  assert.is(await refused({ hysteresis: -1 }), 'ERR_OUT_OF_RANGE');
});

test.run();
