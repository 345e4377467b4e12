// A thread that is stuck in native code does not end when it is told to. It is given up: its peers
// see that at once, others serve what waited for it, another thread takes its place and nobody
// waits for it. If it ever comes back, it closes what it had, once.

import * as assert from 'uvu/assert';
import { native } from '../../src/native.js';
import { test } from '../hooks.js';
import { connect, descriptors, until } from './clients.js';
import { LineClient } from './lines.js';
import { balanced, clientsOn, Fifo, nextLoop, settled, stalling } from './stalls.js';

const fifo = new Fifo();
test.after(() => fifo.remove());
const options = { workerData: { fifo: fifo.path }, killMs: 200, drainMs: 0 };

test('a lost thread costs its connections at once, and others take what waited for it', async () => {
  const group = await stalling(options);
  const before = descriptors().length;
  const [victims, others] = await clientsOn(group, 3);
  await settled(group, 0);
  victims[0].socket.write('stuck\n');
  await until(() => group.loops[0].state === 'blocked', 'it is stuck');
  // It is the only one that is asked, so connections are handed to it all the same.
  const down = nextLoop(group, 'down');
  const ended = group.loops[0].terminate();
  for (const client of victims) assert.is(await client.line(), 'closed');
  await ended;
  const [loop, error] = await down;
  assert.is(loop.id, 0);
  assert.is(error.code, 'ERR_LOOP_STUCK');
  assert.match(error.message, /loop 0 is lost: it did not end within 200 ms \(killMs\)/);
  assert.is(group.stats().lost, 3);
  assert.is(group.stats().rescues, 0);
  assert.is(group.loops[0].stats.open, 0);
  balanced(group);
  // Their numbers are still taken; the group's listening socket is in the ledger too.
  assert.is(native.ledgerCount(), 6 + 1);
  await until(() => group.loops[0].state === 'serving', 'another thread serves');
  assert.is(group.loops[0].generation, 1);
  const [[fresh]] = await clientsOn(group, 1);
  for (const client of others) assert.match(await client.ask('y'), /^2 1 0$/);
  assert.match(await fresh.ask('y'), /^2 0 0$/);

  fifo.free();
  await until(() => native.ledgerCount() === 5 + 1, 'its own release closes what it had');
  await until(() => group.loops[0].stats.lost === 3, 'its numbers are settled');
  assert.is(group.stats().lost, 3);
  balanced(group);
  for (const socket of others) await socket.end();
  await group.close();
  await until(() => native.ledgerCount() === 0, 'nothing is left');
  await until(() => descriptors().length < before, 'descriptors are back');
});

test('what waits in the inbox of a lost thread is served by another', async () => {
  const group = await stalling({ ...options, loops: 1, watchdogMs: 100 });
  const [[victim]] = await clientsOn(group, 1);
  const down = nextLoop(group, 'down');
  victim.socket.write('stuck\n');
  await until(() => group.loops[0].state !== 'serving', 'it is stuck');
  const waiting = [await LineClient.connect(group), await LineClient.connect(group)];
  const answers = waiting.map((client) => client.ask('x'));
  const [, error] = await down;
  assert.is(error.code, 'ERR_LOOP_STUCK');
  assert.is(error.cause?.code, 'ERR_LOOP_BLOCKED');
  assert.equal(await Promise.all(answers), ['1 0 0', '1 0 0']);
  balanced(group);
  fifo.free();
  await until(() => native.ledgerCount() === 2 + 1, 'it has come back');
  for (const client of waiting) await client.end();
  await group.close();
});

test('neither close() nor reload() waits for a lost thread', async () => {
  const group = await stalling(options);
  const [[victim], [other]] = await clientsOn(group, 1);
  victim.socket.write('stuck\n');
  await until(() => group.loops[0].state === 'blocked', 'it is stuck');
  const report = await group.reload({ deadlineMs: 0 });
  assert.is(report.generation, 1);
  assert.is(await victim.line(), 'closed');
  assert.is(group.stats().lost, 1);
  balanced(group);

  const [[again]] = await clientsOn(group, 1);
  again.socket.write('stuck\n');
  await until(() => group.loops[0].state === 'blocked', 'another one is stuck');
  const down = nextLoop(group, 'down');
  await group.close();
  assert.is((await down)[1].code, 'ERR_LOOP_STUCK');
  assert.is(await again.line(), 'closed');
  other.socket.destroy();
  assert.is(native.ledgerCount(), 2);
  fifo.free();
  fifo.free();
  await until(() => native.ledgerCount() === 0, 'both have come back');
});

test('a group that closes while a thread is given up ends once', async () => {
  const group = await stalling({ ...options, loops: 1 });
  const socket = await connect(group);
  socket.write('stuck\n');
  await until(() => group.loops[0].state === 'blocked', 'it is stuck');
  const ended = group.loops[0].terminate();
  await Promise.all([group.close(), group.close(), ended]);
  fifo.free();
  await until(() => native.ledgerCount() === 0, 'it has come back');
  socket.destroy();
});

test.run();
