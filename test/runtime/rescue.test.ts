// A loop's thread dies: its connections at a boundary go on with another loop, with what they kept
// in their checkpoint; the others are reset at once.

import * as assert from 'uvu/assert';
import { type LoopGroup, serve } from '../../src/index.js';
import { test } from '../hooks.js';
import { descriptors, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

const LOOPS = 3;
let group: LoopGroup;
const rescuers = (loops: number) =>
  serve({
    worker: workerFile('rescuer'),
    loops,
    restart: { max: 1_000, backoff: 1 },
    resourceLimits: { maxOldGenerationSizeMb: 32 },
  });
test.before.each(async () => {
  group = await rescuers(LOOPS);
});
test.after.each(() => group.close());

/** `count` clients on each loop, each with its number of lines so far. */
async function clientsOn(count: number): Promise<LineClient[][]> {
  const loops = group.loops.length;
  const byLoop: LineClient[][] = Array.from({ length: loops }, () => []);
  for (let i = 0; i < count * loops; i++) {
    const client = await LineClient.connect(group);
    const [, loop] = (await client.ask('x')).split(' ');
    byLoop[Number(loop)].push(client);
  }
  return byLoop;
}

/**
 * A connection is at its boundary a moment after its answer has left. What another one of the same
 * loop is answered after that came from a later pass.
 */
async function settled(loop: number): Promise<void> {
  for (;;) {
    const witness = await LineClient.connect(group);
    const [, at] = numbers(await witness.ask('x'));
    await witness.end();
    if (at === loop) return;
  }
}

const numbers = (line: string) => line.split(' ').map(Number);

function balanced(): void {
  const { accepted, open, served, refused, lost } = group.stats();
  assert.is(accepted, open + served + refused + lost);
}

for (const way of ['throw', 'reject', 'leave', 'memory', 'terminate']) {
  test(`${way}: connections at a boundary go on, with their checkpoint`, async () => {
    const before = descriptors().length;
    const clients = await clientsOn(5);
    const [victims, ...others] = clients;
    const down = new Promise((resolve) => group.once('loop', resolve));
    await settled(0);
    if (way === 'terminate') await group.loops[0].terminate();
    else assert.is(await victims[0].ask(`die ${way}`), 'dying');
    await down;
    const dying = way === 'terminate' ? 0 : 1;
    for (const [i, client] of victims.entries()) {
      const [count, , rescues] = numbers(await client.ask('still here?'));
      assert.is(count, i === 0 ? 2 + dying : 2, `client ${i}`);
      assert.is(rescues, 1);
    }
    for (const client of others.flat()) assert.equal(numbers(await client.ask('you?'))[2], 0);
    const { lost, rescues } = group.stats();
    assert.is(lost, 0);
    assert.is(rescues, victims.length);
    await until(() => group.loops.every(({ state }) => state === 'serving'), 'replaced');
    for (const client of clients.flat()) await client.end();
    await until(() => group.stats().open === 0, 'all closed');
    balanced();
    await until(() => descriptors().length <= before, 'descriptors are back');
  });
}

test('what is not at a boundary is reset, and nothing else', async () => {
  const [victims, ...others] = await clientsOn(6);
  const [held, waiting, exits, released, ended, idle] = victims;
  assert.match(await held.ask('hold'), /^2 /);
  assert.match(await released.ask('hold'), /^2 /);
  assert.match(await released.ask('release'), /^3 /);
  waiting.socket.write('never\n');
  await until(() => group.stats().loops[0].bytesRead >= 6 * 2 + 5 + 5 + 8 + 6, 'the hook waits');
  assert.is(await ended.ask('end'), 'ended');
  assert.match(await idle.ask('x'), /^2 0 0$/);
  await settled(0);
  // It exits inside its hook, so what it had written there is not sent either.
  exits.socket.write('die exit\n');
  assert.is(await exits.line(), 'closed');
  assert.is(await held.line(), 'closed');
  assert.is(await waiting.line(), 'closed');
  assert.is(await ended.line(), 'closed');
  assert.match(await released.ask('y'), /^4 [12] 1$/);
  assert.match(await idle.ask('y'), /^3 [12] 1$/);
  for (const client of others.flat()) assert.match(await client.ask('y'), / 0$/);
  const { lost, rescues } = group.stats();
  assert.is(rescues, 2);
  assert.is(lost, 4);
  balanced();
  for (const client of [...others.flat(), released, idle]) await client.end();
});

test('a connection is rescued at most twice a minute', async () => {
  const client = await LineClient.connect(group);
  await client.ask('x');
  for (const rescue of [1, 2]) {
    const [, loop] = numbers(await client.ask('where'));
    await settled(loop);
    await group.loops[loop].terminate();
    const [, now, rescues] = numbers(await client.ask('where'));
    assert.is(rescues, rescue);
    assert.is.not(now, loop);
    await until(() => group.loops.every(({ state }) => state === 'serving'), 'replaced');
  }
  const [, loop] = numbers(await client.ask('where'));
  await group.loops[loop].terminate();
  assert.is(await client.line(), 'closed');
  assert.is(group.stats().lost, 1);
});

test('all loops die: the connections wait for the next that comes up', async () => {
  await group.close();
  // With three, one that is adopted by each of them in turn would have been rescued too often.
  group = await rescuers(2);
  const clients = (await clientsOn(4)).flat();
  for (const loop of [0, 1]) await settled(loop);
  await Promise.all(group.loops.map((loop) => loop.terminate()));
  for (const client of clients) assert.match(await client.ask('x'), /^2 \d [12]$/);
  balanced();
  for (const client of clients) await client.end();
});

test('a checkpoint that is too large costs its own connection', async () => {
  const errors: Error[] = [];
  group.on('workerError', (error) => errors.push(error));
  const client = await LineClient.connect(group);
  assert.match(await client.ask('long 256'), /^1 /);
  client.socket.write('long 257\n');
  assert.is(await client.line(), 'closed');
  await until(() => errors.length === 1, 'it is reported');
  assert.match(errors[0].message, /257 bytes is more than checkpointMax, 256/);
});

test('a worker without rescue opts out', async () => {
  const plain = await serve({ worker: workerFile('crash'), loops: 2, restart: { backoff: 1 } });
  const clients = [await LineClient.connect(plain), await LineClient.connect(plain)];
  assert.is(await clients[0].ask('x'), 'x');
  assert.is(await clients[1].ask('x'), 'x');
  await Promise.all(plain.loops.map((loop) => loop.terminate()));
  for (const client of clients) assert.is(await client.line(), 'closed');
  await until(() => plain.stats().lost === 2, 'both are lost');
  await plain.close();
});

test.run();
