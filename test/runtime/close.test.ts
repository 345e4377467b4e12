// Stopping: what is being written is finished within drainMs, then nothing is left.

import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { test } from '../hooks.js';
import { wakersHere } from '../machine.js';
import { answer, ask, connect, descriptors, gone, portOf, until, workerFile } from './clients.js';

const echo = new URL('../../workers/echo.js', import.meta.url);

// What Node opens once a process is open before anything is counted: libuv's reserve descriptor
// comes with the first socket of a thread.
test.before(async () => {
  const group = await serve({ worker: echo, loops: 2 });
  const socket = await connect(group);
  await ask(socket, 'hi');
  socket.destroy();
  await group.close();
});

test('no thread, descriptor or timer is left', async () => {
  const before = descriptors().length;
  for (let i = 0; i < 5; i++) {
    const group = await serve({ worker: echo, loops: 3, waker: wakersHere });
    const sockets = await Promise.all(Array.from({ length: 6 }, () => connect(group)));
    for (const socket of sockets) await ask(socket, 'hi');
    await group.close();
    await group.closed;
    for (const socket of sockets) {
      socket.destroy();
      await gone(socket);
    }
    assert.equal(
      group.loops.map((loop) => loop.state),
      ['dead', 'dead', 'dead'],
    );
    assert.is(native.ledgerCount(), 0);
  }
  await until(() => descriptors().length <= before, 'descriptors back');
  assert.not(process.getActiveResourcesInfo().includes('MessagePort'));
});

test('idle connections see an end, not a reset, and new ones are refused', async () => {
  const group = await serve({ worker: echo, loops: 2 });
  const port = portOf(group);
  const socket = await connect(group);
  let failed: Error | undefined;
  socket.on('error', (error) => {
    failed = error;
  });
  await ask(socket, 'hi');
  const ended = answer(socket);
  await group.close();
  assert.is(await ended, 'closed');
  assert.is(failed, undefined);
  socket.destroy();
  const late = net.connect(port, '127.0.0.1');
  const [error] = (await once(late, 'error')) as [NodeJS.ErrnoException];
  assert.is(error.code, 'ECONNREFUSED');
});

test('what is being written is finished', async () => {
  const group = await serve({ worker: workerFile('big'), loops: 1, drainMs: 20_000 });
  const socket = await connect(group);
  socket.pause();
  socket.write('33554432');
  await until(() => group.stats().loops[0].bytesWritten > 0, 'the answer has begun');
  const closing = group.close();
  let received = 0;
  socket.on('data', (data) => {
    received += data.length;
  });
  socket.resume();
  await once(socket, 'end');
  assert.is(received, 33_554_432);
  socket.destroy();
  await closing;
});

test('a hook whose promise is open is finished', async () => {
  const group = await serve({ worker: workerFile('report'), loops: 1 });
  const socket = await connect(group);
  socket.write('timeout');
  await until(() => group.stats().loops[0].bytesRead > 0, 'the hook has begun');
  const [said] = await Promise.all([answer(socket), group.close()]);
  assert.ok(Number(said) >= 19);
  socket.destroy();
});

test('what is not finished within drainMs is closed', async () => {
  const group = await serve({ worker: workerFile('big'), loops: 1, drainMs: 100 });
  const socket = await connect(group);
  socket.pause();
  socket.write('33554432');
  await until(() => group.stats().loops[0].bytesWritten > 0, 'the answer has begun');
  const started = performance.now();
  await group.close();
  const took = performance.now() - started;
  assert.ok(took >= 99 && took < 5_000, `${took} ms`);
  assert.is(native.ledgerCount(), 0);
  socket.destroy();
});

test('a loop that spins is terminated when the time is over', async () => {
  const group = await serve({ worker: workerFile('crash'), loops: 2, drainMs: 50 });
  const socket = await connect(group);
  socket.write('spin here');
  await until(() => group.stats().loops.some((loop) => loop.bytesRead > 0), 'it spins');
  await group.close();
  assert.is(native.ledgerCount(), 0);
  await gone(socket);
});

test('close() is idempotent, works while starting loops die, and by an abort signal', async () => {
  const abort = new AbortController();
  const group = await serve({ worker: echo, loops: 1, signal: abort.signal });
  abort.abort();
  await group.closed;
  await group.close();
  await group[Symbol.asyncDispose]();
  let reason: unknown;
  await serve({ worker: echo, signal: AbortSignal.abort('no') }).catch((error) => {
    reason = error;
  });
  assert.is(reason, 'no');
  const crashed = await serve({ worker: workerFile('crash'), loops: 2 });
  await Promise.all([crashed.loops[0].terminate(), crashed.close()]);
});

test('a group that was unref’d lets the process go', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'multiloop-'));
  const file = join(folder, 'main.mjs');
  writeFileSync(
    file,
    `import { serve } from '${new URL('../../src/index.js', import.meta.url).href}';
     const group = await serve({ worker: '${echo.href}', loops: 2 });
     group.unref();
     process.on('exit', () => console.log('gone'));`,
  );
  const { execFileSync } = await import('node:child_process');
  assert.is(execFileSync(process.execPath, [file], { timeout: 20_000 }).toString(), 'gone\n');
  rmSync(folder, { recursive: true });
});

test.run();
