// Policies: which loop gets a new connection.

import net from 'node:net';
import * as assert from 'uvu/assert';
import { type Distribute, type LoopGroup, type PolicyName, serve } from '../../src/index.js';
import { test } from '../hooks.js';
import { gone, portOf, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

let group: LoopGroup;
const start = async (policy: PolicyName | Distribute, loops = 3) => {
  group = await serve({ worker: workerFile('mover'), loops, policy });
};
test.after.each(() => group.close());

async function client(): Promise<{ lines: LineClient; loop: number }> {
  const lines = await LineClient.connect(group);
  const [, , loop] = (await lines.ask('where')).split(' ');
  return { lines, loop: Number(loop) };
}

/** How many of `count` connections, made one after another and kept, each loop gets. */
async function shares(count: number): Promise<{ lines: LineClient; loop: number }[][]> {
  const byLoop: { lines: LineClient; loop: number }[][] = group.loops.map(() => []);
  for (let i = 0; i < count; i++) {
    const one = await client();
    byLoop[one.loop].push(one);
  }
  return byLoop;
}

for (const policy of ['round-robin', 'least-connections', 'two-index'] as const)
  test(`${policy}: long connections are shared out evenly`, async () => {
    await start(policy);
    const byLoop = await shares(24);
    assert.equal(
      byLoop.map((all) => all.length),
      [8, 8, 8],
    );
  });

for (const policy of ['round-robin', 'least-connections', 'two-index'] as const)
  test(`${policy}: short connections take turns`, async () => {
    await start(policy);
    const counts = [0, 0, 0];
    for (let i = 0; i < 12; i++) {
      const { lines, loop } = await client();
      counts[loop]++;
      await lines.end();
      await until(() => group.stats().open === 0, 'it is closed');
    }
    assert.equal(counts, [4, 4, 4]);
  });

for (const policy of ['least-connections', 'two-index'] as const)
  test(`${policy}: a loop whose connections have gone gets the next ones`, async () => {
    await start(policy, 2);
    const [first, second] = await shares(20);
    assert.equal([first.length, second.length], [10, 10]);
    for (const { lines } of first) await lines.end();
    await until(() => group.stats().loops[0].open === 0, 'they are closed');
    const [again, other] = await shares(10);
    assert.ok(again.length > other.length, `${again.length} and ${other.length}`);
    assert.ok(policy === 'two-index' || other.length === 0);
  });

/** Numbers that look random and are the same in every run (Park and Miller's generator). */
function* dice(seed: number): Generator<number> {
  for (let x = seed; ; ) {
    x = (x * 48_271) % 2_147_483_647;
    yield x;
  }
}

// Of 48 connections half go, whichever, and as many come. What a policy promises then: the loads of
// least-connections are the same; two-index corrects whenever its indexes stand at loops that
// differ; taking turns corrects nothing, so chance decides how far it is off.
for (const [policy, most] of [
  ['least-connections', 16 / 16],
  ['two-index', 20 / 16],
  ['round-robin', 24 / 16],
] as const)
  test(`${policy}: after churn no loop has more than ${most} times the mean`, async () => {
    await start(policy);
    let all = (await shares(48)).flat();
    const random = dice(7);
    const leaving = new Set<LineClient>();
    while (leaving.size < 24) leaving.add(all[random.next().value % all.length].lines);
    await Promise.all([...leaving].map((lines) => lines.end()));
    all = all.filter(({ lines }) => !leaving.has(lines));
    await until(() => group.stats().open === 24, 'they are closed');
    for (let i = 0; i < 24; i++) all.push(await client());
    const open = group.stats().loops.map((loop) => loop.open);
    assert.is(
      open.reduce((sum, one) => sum + one, 0),
      48,
    );
    assert.ok(Math.max(...open) / 16 <= most, `${policy}: ${open}`);
  });

test('sticky: the same address, the same loop', async () => {
  await start('sticky');
  const byLoop = await shares(12);
  assert.equal(byLoop.map((all) => all.length).sort(), [0, 0, 12]);
});

for (const policy of ['round-robin', 'least-lag'] as const)
  test(`${policy}: a loop that is blocked gets nothing while another can serve`, async () => {
    await start(policy, 2);
    const { lines, loop } = await client();
    assert.is(await lines.ask('spin 3000'), 'spinning');
    await until(() => group.loops[loop].state === 'blocked', 'the loop is blocked');
    const byLoop = await shares(6);
    assert.is(byLoop[loop].length, 0);
    assert.is(byLoop[1 - loop].length, 6);
  });

test('round-robin: of a loop in a long turn no more than one connection has to wait', async () => {
  await start('round-robin', 2);
  const { lines, loop } = await client();
  assert.is(await lines.ask('spin 1000'), 'spinning');
  // More than the mean of its turns can be: this one is under way.
  await until(() => group.loops[loop].stats.lagMs >= 20, 'the turn is long');
  const clients: LineClient[] = [];
  for (let accepted = 2; accepted <= 7; accepted++) {
    clients.push(await LineClient.connect(group));
    await until(() => group.stats().accepted === accepted, 'it is accepted');
  }
  const answers = await Promise.all(clients.map((one) => one.ask('where')));
  const onIt = answers.filter((answer) => Number(answer.split(' ')[2]) === loop);
  assert.ok(onIt.length <= 1, `${onIt.length} have waited`);
});

test('a function picks by handle or id, sees the peer, and may refuse', async () => {
  const seen: unknown[] = [];
  let calls = 0;
  await start(({ remote, listener }, loops) => {
    seen.push([remote, listener.port]);
    calls++;
    if (calls === 3) return 'refuse';
    return calls === 1 ? loops[2] : 1;
  });
  assert.is((await client()).loop, 2);
  assert.is((await client()).loop, 1);
  // It may be reset before it knows that it was connected.
  const refused = net.connect({ port: portOf(group), host: '127.0.0.1' });
  refused.on('error', () => undefined);
  await gone(refused);
  assert.is(group.stats().refused, 1);
  const [[remote]] = seen as [{ host: string; family: number }][];
  assert.equal([remote.host, remote.family], ['127.0.0.1', 4]);
});

test('a function that throws or answers nonsense is an error, and the connection is served', async () => {
  const answers = [
    () => {
      throw new Error('of the policy');
    },
    () => 99,
    () => undefined,
    () => Promise.resolve(0),
  ] as unknown as (() => number)[];
  let next = 0;
  await start(() => answers[next++]());
  const errors: (Error & { code?: string })[] = [];
  group.on('error', (error) => errors.push(error));
  for (let i = 0; i < answers.length; i++) assert.ok((await client()).loop >= 0);
  assert.is(errors[0].message, 'of the policy');
  assert.equal(
    errors.slice(1).map(({ code }) => code),
    ['ERR_POLICY', 'ERR_POLICY', 'ERR_POLICY'],
  );
});

test.run();
