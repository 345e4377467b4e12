// A connection and its hooks: their order, async ones, half-close, and what one that throws costs.

import { once } from 'node:events';
import type net from 'node:net';
import * as assert from 'uvu/assert';
import { type LoopGroup, serve } from '../../src/index.js';
import { test } from '../hooks.js';
import { answer, ask, connect, gone, until, workerFile } from './clients.js';

let group: LoopGroup;
const errors: string[] = [];
test.before(async () => {
  group = await serve({ worker: workerFile('hooks'), loops: 1 });
  group.on('workerError', (error: Error) => errors.push(error.message));
});
test.after(() => group.close());
test.before.each(() => {
  errors.length = 0;
});

/** Everything until the peer's end. */
async function rest(socket: net.Socket): Promise<string> {
  let all = '';
  socket.on('data', (data) => {
    all += data;
  });
  await once(socket, 'end');
  return all;
}

test('an async hook holds the connection, and data waits for open', async () => {
  const socket = await connect(group);
  for (let i = 0; i < 5; i++) socket.write('x'.repeat(1_000));
  socket.end();
  const log = JSON.parse(await rest(socket)) as { lines: string[]; overlapping: boolean };
  assert.not(log.overlapping);
  assert.is(log.lines[0], 'open');
  assert.is(log.lines[1], 'opened');
  assert.is(log.lines.at(-1), 'end');
  const bytes = log.lines
    .filter((line) => line.startsWith('data'))
    .reduce((sum, line) => sum + Number(line.split(' ')[1]), 0);
  assert.is(bytes, 5_000);
  socket.destroy();
});

for (const [text, says] of [
  ['throw', 'data hook'],
  ['reject', 'async data hook'],
]) {
  test(`a data hook that fails (${text}) costs its own connection`, async () => {
    const witness = await connect(group);
    const socket = await connect(group);
    const before = group.stats().loops[0].hookErrors;
    socket.write(text);
    await gone(socket);
    await until(() => errors.length === 1, 'the error is reported');
    assert.equal(errors, [says]);
    assert.is(group.stats().loops[0].hookErrors, before + 1);
    assert.match(await ask(witness, 'log'), /open/);
    assert.is(group.loops[0].generation, 0);
    witness.destroy();
  });
}

test('close is called exactly once for each connection', async () => {
  await until(() => group.stats().open === 0, 'nothing is open');
  const counter = await connect(group);
  const before = Number(await ask(counter, 'count'));
  const ends = [
    (socket: net.Socket) => socket.destroy(),
    (socket: net.Socket) => socket.resetAndDestroy(),
    (socket: net.Socket) => void socket.resume().end(),
    (socket: net.Socket) => void socket.write('close'),
    (socket: net.Socket) => void socket.write('throw'),
    (socket: net.Socket) => void socket.resume().end('after end'),
  ];
  for (const end of ends) {
    const socket = await connect(group);
    end(socket);
    await until(() => group.stats().open === 1, `closed after ${end}`);
    socket.destroy();
  }
  assert.is(Number(await ask(counter, 'count')) - before, ends.length);
  counter.destroy();
});

test('write after end throws in the worker, and the end is delivered', async () => {
  const socket = await connect(group);
  socket.write('after end');
  assert.is(await answer(socket), 'bye');
  const other = await connect(group);
  assert.is(await ask(other, 'refusal'), 'ERR_STREAM_WRITE_AFTER_END');
  other.destroy();
  socket.destroy();
});

test('an exception that a loop survives costs no other connection of the burst', async () => {
  const stubborn = await serve({ worker: workerFile('stubborn'), loops: 1 });
  const sockets = await Promise.all(Array.from({ length: 30 }, () => connect(stubborn)));
  const answers = await Promise.all(sockets.map((socket, i) => ask(socket, `${i}`)));
  assert.equal(
    answers,
    sockets.map((_, i) => `${i}`),
  );
  assert.is(stubborn.loops[0].generation, 0);
  for (const socket of sockets) socket.destroy();
  await stubborn.close();
});

test.run();
