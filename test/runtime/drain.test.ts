// Draining: what is going on is finished, what is idle ends, and nothing new comes.

import { once } from 'node:events';
import net from 'node:net';
import * as assert from 'uvu/assert';
import { type DrainReport, type LoopGroup, type ServeOptions, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { rejectionOf } from '../event/support.js';
import { test } from '../hooks.js';
import { ask, connect, gone, portOf, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

let group: LoopGroup;
let report: DrainReport;
const start = async (options: Partial<ServeOptions> = {}) => {
  group = await serve({ worker: workerFile('talker'), loops: 2, ...options });
  group.on('drain', (one: DrainReport) => {
    report = one;
  });
};
const counts = () => [report.ended, report.drained, report.closed];
test.after.each(async () => {
  await group.close();
  assert.is(native.ledgerCount(), 0);
});

test('what is under way is finished, what is idle ends, and new ones are refused', async () => {
  await start();
  const idle = await LineClient.connect(group);
  const busy = await LineClient.connect(group);
  assert.is(await idle.ask('hi'), 'hi 1 0');
  assert.is(await busy.ask('begin'), 'begun');
  let reset: Error | undefined;
  for (const { socket } of [idle, busy])
    socket.on('error', (error) => {
      reset = error;
    });
  const port = portOf(group);
  const drained = group.drain();
  assert.is(await idle.line(), 'closed');
  const [refused] = (await once(net.connect(port, '127.0.0.1'), 'error')) as [{ code: string }];
  assert.is(refused.code, 'ECONNREFUSED');
  assert.is(group.loops[1].state, 'draining');
  // It goes on, also reading, until it says that it is done.
  assert.is(await busy.ask('more'), 'more 1 1');
  assert.is(await busy.ask('finish'), 'finished');
  assert.is(await busy.line(), 'closed');
  await drained;
  await group.closed;
  assert.equal(counts(), [0, 2, 0]);
  assert.ok(report.ms > 0);
  assert.is(reset, undefined);
  const { accepted, open, served } = group.stats();
  assert.equal([accepted, open, served], [2, 0, 2]);
});

test('a request that was on its way is answered', async () => {
  await start();
  const clients = await Promise.all(Array.from({ length: 8 }, () => LineClient.connect(group)));
  // Connected, as far as the clients know; the group may not have accepted all of them.
  const drained = group.drain();
  for (const one of clients) one.socket.write('hi\n');
  for (const one of clients) {
    assert.match(await one.line(), /^hi 1 [01]$/);
    assert.is(await one.line(), 'closed');
  }
  await drained;
  assert.is(group.stats().refused, 0);
  assert.equal(counts(), [0, 8, 0]);
});

test('who is busy at the deadline is closed, who ends by himself is counted as such', async () => {
  await start();
  const [stays, leaves] = [await LineClient.connect(group), await LineClient.connect(group)];
  for (const one of [stays, leaves]) await one.ask('begin');
  const began = performance.now();
  const drained = group.drain(200);
  leaves.socket.destroy();
  await drained;
  assert.ok(performance.now() - began >= 199);
  await gone(stays.socket);
  assert.equal(counts(), [1, 0, 1]);
});

test('drain(0) closes at once', async () => {
  await start();
  const one = await LineClient.connect(group);
  await one.ask('begin');
  await group.drain(0);
  assert.equal(counts(), [0, 0, 1]);
});

test('close() during a drain does not wait for boundaries', async () => {
  await start({ drainMs: 30 });
  const one = await LineClient.connect(group);
  await one.ask('begin');
  const drained = group.drain(600_000);
  await until(() => group.loops[0].state === 'draining', 'it drains');
  await group.close();
  await drained;
  assert.equal(counts(), [0, 0, 1]);
});

test('a Duplex is given its time, and close() does not wait for it', async () => {
  await start({ worker: workerFile('duplex') });
  const socket = await connect(group);
  // A beginning, which Node's http server waits with.
  socket.write('GET');
  await until(() => group.stats().loops[0].bytesRead === 3, 'it is there');
  const drained = group.drain(600_000);
  await until(() => group.loops[0].state === 'draining', 'it drains');
  assert.is(group.connections().length, 1);
  group.close();
  await drained;
  await gone(socket);
});

test('what else may happen during a drain', async () => {
  await start();
  const one = await LineClient.connect(group);
  await one.ask('begin');
  assert.is(((await rejectionOf(group.drain(-1))) as { code: string }).code, 'ERR_OUT_OF_RANGE');
  const drained = [group.drain(600_000), group.drain(0)];
  assert.is(((await rejectionOf(group.reload())) as { code: string }).code, 'ERR_RELOAD_FAILED');
  // A loop that dies is not replaced, and its connections are lost.
  await group.loops[0].terminate();
  await gone(one.socket);
  await Promise.all(drained);
  assert.is(group.stats().lost, 1);
  assert.equal(counts(), [0, 0, 0]);
});

test('a loop that is blocked is ended when the time is over', async () => {
  await start({ worker: workerFile('crash'), loops: 1 });
  const socket = await connect(group);
  socket.write('spin here');
  await until(() => group.stats().loops[0].bytesRead > 0, 'it spins');
  await group.drain(20);
  await gone(socket);
});

test('an aborted signal drains', async () => {
  const abort = new AbortController();
  await start({ signal: abort.signal });
  const socket = await connect(group);
  await ask(socket, 'begin\n');
  abort.abort();
  await until(() => group.loops[0].state === 'draining', 'it drains');
  assert.is(await ask(socket, 'finish\n'), 'finished\n');
  await group.closed;
  assert.equal(counts(), [0, 1, 0]);
  socket.destroy();
});

test.run();
