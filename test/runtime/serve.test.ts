// serve() from outside: who answers, how connections are dealt out, and that the parts are real.

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { EventBase, LoopFlag, type LoopGroup, serve } from '../../src/index.js';
import { rejectionOf } from '../event/support.js';
import { test } from '../hooks.js';
import { ofThese, wakersHere, withoutEpoll } from '../machine.js';
import { testWhere } from '../where.js';
import {
  answer,
  ask,
  connect,
  descriptors,
  epollSets,
  fdOf,
  gone,
  portOf,
  until,
  workerFile,
} from './clients.js';

interface Who {
  loop: number;
  thread: number;
  main: boolean;
  backend: string;
  waker: string;
  connection: number;
  listener: { name?: string };
  remote: { host: string; port: number };
  local: { host: string; port: number };
  workerData: unknown;
}

let group: LoopGroup | undefined;
test.after.each(async () => {
  await group?.close();
  group = undefined;
});

async function whoAnswers(count: number): Promise<{ socket: net.Socket; who: Who }[]> {
  const all = [];
  for (let i = 0; i < count; i++) {
    const socket = await connect(group as LoopGroup);
    all.push({ socket, who: JSON.parse(await ask(socket, 'who')) as Who });
  }
  return all;
}

for (const { backend, waker } of [
  { backend: ofThese('epoll'), waker: 'eventfd' },
  { backend: ofThese('poll'), waker: 'pipe' },
  { backend: ofThese('select'), waker: 'eventfd' },
  { backend: ofThese('epoll', 'poll', 'select'), waker: 'pipe' },
  { backend: ofThese('poll', 'select'), waker: 'pipe' },
] as const) {
  if (backend.length === 0 || !wakersHere.includes(waker)) continue;
  test(`12 connections over 4 loops land in turn (${backend.join()}, ${waker})`, async () => {
    group = await serve({
      worker: workerFile('report'),
      loops: 4,
      backend: [...backend],
      waker,
      workerData: { greeting: 'hello' },
    });
    const all = await whoAnswers(12);
    const turns = all.map(({ who }) => who.loop);
    const first = turns[0];
    assert.equal(
      turns,
      turns.map((_, i) => (first + i) % 4),
    );
    assert.is(new Set(all.map(({ who }) => who.thread)).size, 4);
    for (const { who, socket } of all) {
      assert.not(who.main);
      assert.is(who.backend, backend[who.loop % backend.length]);
      assert.is(who.waker, waker);
      assert.equal(who.workerData, { greeting: 'hello' });
      assert.is(who.remote.port, socket.localPort);
      assert.is(who.local.port, socket.remotePort);
    }
    assert.equal(
      group.loops.map((loop) => loop.stats.open),
      [3, 3, 3, 3],
    );
    assert.equal(
      group.loops.map((loop) => loop.threadId),
      [0, 1, 2, 3].map((id) => all.find(({ who }) => who.loop === id)?.who.thread),
    );
    for (const { socket } of all) socket.destroy();
    const running = group;
    await until(() => running.stats().served === 12, 'all 12 served');
    const { accepted, open, refused, lost } = group.stats();
    assert.equal({ accepted, open, refused, lost }, { accepted: 12, open: 0, refused: 0, lost: 0 });
  });
}

testWhere(withoutEpoll, "each loop's epoll set holds exactly its own connections", async () => {
  group = await serve({ worker: workerFile('report'), loops: 4, backend: 'epoll' });
  const all = await whoAnswers(12);
  const byLoop = new Map<number, number[]>();
  for (const { who } of all)
    byLoop.set(who.loop, [...(byLoop.get(who.loop) ?? []), fdOf(who.connection)]);
  const served = new Set(all.map(({ who }) => fdOf(who.connection)));
  const sets = epollSets()
    .map((set) => set.filter((fd) => served.has(fd)).sort((a, b) => a - b))
    .filter((set) => set.length > 0);
  const expected = [...byLoop.values()].map((fds) => fds.sort((a, b) => a - b));
  const order = (a: number[], b: number[]) => a[0] - b[0];
  assert.equal(sets.sort(order), expected.sort(order));
  for (const { socket } of all) socket.destroy();
});

test('no socket of Node serves a connection', async () => {
  group = await serve({ worker: workerFile('report'), loops: 1 });
  // A client of its own process, so that this process holds no client sockets either.
  const client = `
    const s = require('node:net').connect(${portOf(group)}, '127.0.0.1', () => s.write('resources'));
    s.once('data', (d) => { process.stdout.write(d); s.write('resources'); });
    process.stdin.once('data', () => s.end());`;
  const { spawn } = await import('node:child_process');
  const child = spawn(process.execPath, ['-e', client], { stdio: ['pipe', 'pipe', 'inherit'] });
  const [reported] = (await once(child.stdout, 'data')) as [Buffer];
  const inLoop = JSON.parse(reported.toString()) as string[];
  for (const resources of [inLoop, process.getActiveResourcesInfo()]) {
    assert.not(resources.includes('TCPSocketWrap'));
    assert.not(resources.includes('TCPServerWrap'));
  }
  assert.is(group.stats().open, 1);
  child.stdin.end('done');
  await once(child, 'exit');
});

test('a burst of 100 accepts costs at most loops × batches wake-ups', async () => {
  const batch = 64;
  group = await serve({ worker: workerFile('report'), loops: 2, acceptBatch: batch });
  const port = portOf(group);
  const before = group.stats().loops.reduce((sum, loop) => sum + loop.wakesSent, 0);
  // This thread is the coordinator: while the client process connects, it stands still.
  const client = `
    const net = require('node:net');
    let left = 100;
    const all = [];
    for (let i = 0; i < 100; i++)
      all.push(net.connect(${port}, '127.0.0.1', () => { if (--left === 0) process.exit(); }));`;
  execFileSync(process.execPath, ['-e', client]);
  const running = group;
  await until(() => running.stats().accepted === 100, '100 accepted');
  const after = group.stats().loops.reduce((sum, loop) => sum + loop.wakesSent, 0);
  const most = 2 * Math.ceil(100 / batch);
  assert.ok(after - before >= 1 && after - before <= most, `${after - before} wake-ups`);
  await until(() => running.stats().served === 100, '100 served');
});

test('10,000 connections leave the descriptor count where it was', async () => {
  group = await serve({ worker: workerFile('report'), loops: 2 });
  const warm = await whoAnswers(2);
  for (const { socket } of warm) socket.destroy();
  const running = group;
  await until(() => running.stats().open === 0, 'warm-up closed');
  const before = descriptors().length;
  const total = 10_000;
  const abreast = 200;
  let started = 0;
  const one = async () => {
    while (started < total) {
      started++;
      const socket = await connect(running);
      socket.destroy();
      await gone(socket);
    }
  };
  await Promise.all(Array.from({ length: abreast }, one));
  await until(() => running.stats().served === total + 2, 'all served');
  await until(() => descriptors().length <= before, 'descriptors back');
  assert.equal(
    { ...running.stats(), handshakeFailures: undefined, loops: undefined },
    {
      accepted: total + 2,
      open: 0,
      served: total + 2,
      refused: 0,
      lost: 0,
      moves: 0,
      rescues: 0,
      handshakesFailed: 0,
      handshakeFailures: undefined,
      published: 0,
      delivered: 0,
      missed: 0,
      loops: undefined,
    },
  );
});

test('64 MiB come back intact through a slow reader, in bounded memory', async () => {
  group = await serve({ worker: new URL('../../workers/echo.js', import.meta.url), loops: 1 });
  const socket = await connect(group);
  const size = 64 * 1024 * 1024;
  const block = Buffer.alloc(1024 * 1024);
  for (let i = 0; i < block.length; i++) block[i] = (i * 31 + (i >> 8)) & 0xff;
  const running = group;
  // The reader stands still until the writer is stuck: everything in between is full then.
  socket.pause();
  let written = 0;
  const write = () => {
    while (written < size) {
      written += block.length;
      if (!socket.write(block)) return;
    }
    socket.end();
  };
  socket.on('drain', write);
  write();
  let seen = -1;
  await until(() => {
    const { bytesRead } = running.stats().loops[0];
    const still = bytesRead === seen && bytesRead > 0;
    seen = bytesRead;
    return still;
  }, 'the echo stands still');
  // What the loop holds: read from the one side and not yet taken by the other.
  let held = 0;
  const look = () => {
    const { bytesRead, bytesWritten } = running.stats().loops[0];
    held = Math.max(held, bytesRead - bytesWritten);
  };
  look();
  let received = 0;
  let wrong = 0;
  socket.on('data', (data) => {
    for (let i = 0; i < data.length; i += 997)
      if (data[i] !== block[(received + i) % block.length]) wrong++;
    received += data.length;
    look();
  });
  socket.resume();
  await once(socket, 'end');
  assert.is(received, size);
  assert.is(wrong, 0);
  assert.ok(held < 256 * 1024, `${held} bytes held`);
  socket.destroy();
});

// poll and select have no descriptor that libuv could wait for: the coordinator's base drives the
// main thread then, and Node's own sockets, here the clients, are served beside it.
test('a coordinator without a backend to nest by drives its thread', async () => {
  const env = { EVENT_NOEPOLL: '1' };
  Object.assign(process.env, env);
  try {
    group = await serve({ worker: workerFile('report'), loops: 2 });
    const all = await whoAnswers(4);
    assert.equal(
      all.map(({ who }) => who.backend),
      Array(4).fill('poll'),
    );
    for (const { socket } of all) socket.destroy();
    const running = group;
    await until(() => running.stats().served === 4, 'all 4 served');
    // It can be the only one that does.
    const base = new EventBase();
    base.timer(() => undefined).add(1);
    assert.is((await rejectionOf(base.loop())).code, 'ERR_DRIVE_TAKEN');
    await group.close();
    const before = descriptors().length;
    const driving = base.loop(LoopFlag.NO_EXIT_ON_EMPTY);
    const error = await rejectionOf(serve({ worker: workerFile('report'), loops: 1 }));
    assert.is(error.code, 'ERR_DRIVE_TAKEN');
    assert.match(error.message, 'close the first');
    assert.is(descriptors().length, before);
    base.close();
    await driving;
    group = await serve({ worker: workerFile('report'), loops: 1 });
    const [{ socket }] = await whoAnswers(1);
    socket.destroy();
  } finally {
    for (const name of Object.keys(env)) delete process.env[name];
  }
});

test('code in a loop is code in a Node thread', async () => {
  group = await serve({ worker: workerFile('report'), loops: 1 });
  const socket = await connect(group);
  const other = await connect(group);
  assert.ok(Number(await ask(socket, 'timeout')) >= 19);
  assert.is(await ask(socket, 'immediate'), '"immediate"');
  assert.is(await ask(socket, 'message'), '"message"');
  assert.is(await ask(socket, 'fetch'), '"fetched"');
  // One that waits holds up nobody else.
  socket.write('timeout');
  assert.is(JSON.parse(await ask(other, 'who')).loop, 0);
  await answer(socket);
  socket.destroy();
  other.destroy();
});

test('several listeners, by name, TCP and unix', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'multiloop-'));
  const path = join(folder, 'socket');
  group = await serve({
    worker: workerFile('report'),
    loops: 2,
    listen: [
      { port: 0, name: 'tcp' },
      { path, name: 'unix' },
      { host: '::1', name: 'six' },
    ],
  });
  assert.equal(group.addresses[1], { path });
  const client = net.connect({ path });
  await once(client, 'connect');
  assert.is(JSON.parse(await ask(client, 'who')).listener.name, 'unix');
  client.destroy();
  const six = net.connect({ port: portOf(group, 2), host: '::1' });
  await once(six, 'connect');
  const who = JSON.parse(await ask(six, 'who')) as Who;
  assert.is(who.listener.name, 'six');
  assert.is(who.remote.host, '::1');
  six.destroy();
  rmSync(folder, { recursive: true });
});

test('maxConnections refuses what is beyond, at once', async () => {
  group = await serve({ worker: workerFile('report'), loops: 2, maxConnections: 2 });
  const shed: [string, number][] = [];
  group.on('shed', (reason: string, count: number) => shed.push([reason, count]));
  const kept = await whoAnswers(2);
  const third = net.connect(portOf(group), '127.0.0.1').on('error', () => undefined);
  await gone(third);
  assert.equal(shed, [['maxConnections', 1]]);
  kept[0].socket.destroy();
  const running = group;
  await until(() => running.stats().open === 1, 'room again');
  assert.is((await whoAnswers(1)).length, 1);
  assert.is(group.stats().refused, 1);
});

const indexUrl = new URL('../../src/index.js', import.meta.url).href;

function runIn(folder: string, file: string, execArgv: string[] = []): string {
  return execFileSync(process.execPath, [...execArgv, file], { cwd: folder, timeout: 30_000 })
    .toString()
    .trim();
}

const oneFile = `
import { once } from 'node:events';
import net from 'node:net';
import { isMainThread } from 'node:worker_threads';
import { defineWorker, serve } from '${indexUrl}';

export default defineWorker({
  data: (conn, chunk) => void conn.write(\`\${isMainThread} \${chunk}\`),
});

const group = await serve({ worker: import.meta.url, loops: 2 });
const client = net.connect(group.addresses[0].port, '127.0.0.1');
client.write('hello');
console.log(String((await once(client, 'data'))[0]));
client.destroy();
await group.close();
`;

test('one file defines the worker and serves it; one is given relative to cwd', () => {
  const folder = mkdtempSync(join(tmpdir(), 'multiloop-'));
  const define = oneFile.slice(oneFile.indexOf('export default'), oneFile.indexOf('const group'));
  const relative = oneFile.replace(define, '').replace('import.meta.url', "'./worker.mjs'");
  writeFileSync(join(folder, 'one.mjs'), oneFile);
  writeFileSync(join(folder, 'relative.mjs'), relative);
  writeFileSync(
    join(folder, 'worker.mjs'),
    "export default { data: (conn, chunk) => void conn.write('plain ' + chunk) };",
  );
  assert.is(runIn(folder, 'one.mjs'), 'false hello');
  assert.is(runIn(folder, 'relative.mjs'), 'plain hello');
  rmSync(folder, { recursive: true });
});

test('a TypeScript worker runs where Node can, else the error says how', () => {
  const folder = mkdtempSync(join(tmpdir(), 'multiloop-'));
  writeFileSync(
    join(folder, 'typed.ts'),
    `const greeting: string = 'typed';
     export default { data: (conn: any, chunk: Uint8Array) => void conn.write(\`\${greeting} \${chunk}\`) };`,
  );
  writeFileSync(
    join(folder, 'main.mjs'),
    `import { once } from 'node:events';
     import net from 'node:net';
     import { serve } from '${indexUrl}';
     try {
       const group = await serve({ worker: 'typed.ts', loops: 1 });
       const client = net.connect(group.addresses[0].port, '127.0.0.1');
       client.write('hello');
       console.log(String((await once(client, 'data'))[0]));
       client.destroy();
       await group.close();
     } catch (error) { console.log(error.code, error.message); }`,
  );
  const said = runIn(folder, 'main.mjs');
  const strips = (process.features as { typescript?: unknown }).typescript;
  if (strips) assert.is(said, 'typed hello');
  else assert.match(said, /^ERR_WORKER_TYPESCRIPT .*typed\.ts.*tsx/);
  rmSync(folder, { recursive: true });
});

test.run();
