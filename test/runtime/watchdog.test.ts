// A loop whose turn takes too long is told of, ended and replaced; its connections at a boundary go
// on with others. One that goes on in time is left alone.

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { LoopGroup } from '../../src/index.js';
import { native } from '../../src/native.js';
import { descriptors, until } from './clients.js';
import { LineClient } from './lines.js';
import { balanced, clientsOn, nextLoop, numbers, settled, stalling } from './stalls.js';

interface Stall {
  loop: number;
  generation: number;
  blocked: boolean;
  ms: number;
}

/** Everything that the channel tells, and what the loop's handle said at that moment. */
function listen(group: () => LoopGroup): { told: [Stall, string][]; end(): void } {
  const told: [Stall, string][] = [];
  const heard = (message: unknown) => {
    const stall = message as Stall;
    told.push([stall, group().loops[stall.loop].state]);
  };
  subscribe('multiloop:stall', heard);
  return { told, end: () => unsubscribe('multiloop:stall', heard) };
}

test('a loop that is blocked for too long is ended, and its connections go on', async () => {
  const group = await stalling({ watchdogMs: 400 });
  const stalls = listen(() => group);
  // The first client of a process opens something for all that come.
  await (await LineClient.connect(group)).end();
  await until(() => group.stats().open === 0, 'it is gone');
  const before = descriptors().length;
  const [victims, others] = await clientsOn(group, 4);
  await settled(group, 0);
  const down = nextLoop(group, 'down');
  const [spinning, ...resting] = victims;
  spinning.socket.write('spin\n');
  const [loop, error] = await down;
  assert.is(loop.id, 0);
  assert.is(error.code, 'ERR_LOOP_BLOCKED');
  const ms = Number(
    /^Loop 0 was blocked for (\d+) ms .* watchdogMs is 400/.exec(error.message)?.[1],
  );
  assert.ok(ms >= 400, `${ms} ms`);
  assert.equal(stalls.told[0][0].blocked, true);
  assert.equal([stalls.told[0][0].loop, stalls.told[0][1]], [0, 'blocked']);
  assert.ok(stalls.told[0][0].ms >= 100 && stalls.told[0][0].ms <= ms);
  // It was inside its hook.
  assert.is(await spinning.line(), 'closed');
  for (const client of resting) assert.match(await client.ask('y'), /^2 1 1$/);
  for (const client of others) assert.match(await client.ask('y'), /^2 1 0$/);
  await until(() => group.loops[0].state === 'serving', 'replaced');
  assert.is(group.loops[0].generation, 1);
  await until(() => group.stats().lost === 1, 'one is lost');
  assert.is(group.stats().rescues, 3);
  balanced(group);
  for (const client of [...resting, ...others]) await client.end();
  await until(() => group.stats().open === 0, 'all closed');
  await until(() => descriptors().length <= before, 'descriptors are back');
  stalls.end();
  await group.close();
});

test('a loop that goes on in time is told of twice and left alone', async () => {
  const gate = new SharedArrayBuffer(4);
  const group = await stalling({ watchdogMs: 60_000, workerData: { gate }, loops: 1 });
  const stalls = listen(() => group);
  const [[client]] = await clientsOn(group, 1);
  client.socket.write('wait\n');
  await until(() => stalls.told.length > 0, 'it is told');
  assert.is(stalls.told[0][1], 'blocked');
  Atomics.store(new Int32Array(gate), 0, 1);
  Atomics.notify(new Int32Array(gate), 0);
  assert.match(await client.line(), /^2 0 0$/);
  await until(() => stalls.told.length > 1, 'and once more');
  assert.equal(
    stalls.told.map(([{ loop, generation, blocked }]) => [loop, generation, blocked]),
    [
      [0, 0, true],
      [0, 0, false],
    ],
  );
  assert.ok(stalls.told[1][0].ms >= stalls.told[0][0].ms);
  assert.is(stalls.told[1][1], 'serving');
  assert.is(group.loops[0].generation, 0);
  stalls.end();
  await client.end();
  await group.close();
});

test('a loop that takes its time to start is not judged', async () => {
  const group = await stalling({ watchdogMs: 100, workerData: { startMs: 400 }, loops: 1 });
  const [[client]] = await clientsOn(group, 1);
  assert.is(group.loops[0].generation, 0);
  await client.end();
  await group.close();
});

test('a draining loop that blocks is ended, and the next generation rescues', async () => {
  const group = await stalling({ watchdogMs: 300, drainMs: 30_000 });
  const [victims, others] = await clientsOn(group, 2);
  const [busy, spinning] = victims;
  assert.match(await busy.ask('hold'), /^2 0 0$/);
  assert.match(await spinning.ask('hold'), /^2 0 0$/);
  const reload = group.reload();
  await until(() => group.loops[0].generation === 1, 'the new loops serve');
  const resting = others.map((client) => client.ask('y'));
  for (const answer of await Promise.all(resting)) assert.is(numbers(answer)[2], 0);
  spinning.socket.write('spin\n');
  assert.is(await spinning.line(), 'closed');
  assert.is(await busy.line(), 'closed');
  const report = await reload;
  assert.is(report.generation, 1);
  await until(() => group.stats().lost === 2, 'both are lost');
  balanced(group);
  for (const client of others) await client.end();
  await group.close();
  assert.is(native.ledgerCount(), 0);
});

test.run();
