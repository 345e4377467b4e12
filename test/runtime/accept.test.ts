// The accept modes: the same worker, the same numbers and the same endurance, whoever accepts.

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type AcceptMode, type LoopGroup, type LoopHandle, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import type { ServeOptions } from '../../src/runtime/settings.js';
import { assertNoneLeft, openDescriptors, rejectionOf } from '../event/support.js';
import { test } from '../hooks.js';
import { allBackends, ofThese } from '../machine.js';
import { answer, ask, connect, gone, portOf, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

const modes: readonly AcceptMode[] = ['handoff', 'reuseport', 'shared'];

let group: LoopGroup;
let before: string[];

// What a process opens once and keeps.
test.before(async () => {
  await start({});
  (await connect(group)).destroy();
  await group.close();
});

// One that has failed leaves nothing to the next.
test.after.each(() => group.close());

async function start(options: Partial<ServeOptions>): Promise<LoopGroup> {
  before = openDescriptors();
  const restart = { max: 1_000, backoff: 1 };
  group = await serve({ worker: workerFile('report'), loops: 2, restart, ...options });
  return group;
}

/** Whatever a test has done with it, nothing of the group is left. */
async function close(): Promise<void> {
  await until(() => group.stats().open === 0, 'all closed');
  balanced();
  const addresses = group.addresses;
  await group.close();
  assert.is(native.ledgerCount(), 0);
  await descriptorsBack();
  for (const address of addresses) {
    const server = net.createServer().listen(address);
    await once(server, 'listening');
    await once(server.close(), 'close');
  }
}

async function descriptorsBack(): Promise<void> {
  await until(() => openDescriptors().length <= before.length, 'descriptors back').catch(() =>
    assertNoneLeft(before),
  );
}

function balanced(): void {
  const { accepted, open, served, refused, lost, loops } = group.stats();
  assert.is(accepted, open + served + refused + lost);
  for (const loop of loops)
    assert.is(
      loop.accepted + loop.movedIn,
      loop.open + loop.served + loop.lost + loop.movedOut + loop.rescued,
    );
}

const serving = () => group.loops.every((loop) => loop.state === 'serving');
const sum = (key: 'acceptedHere' | 'accepted' | 'shed') =>
  group.stats().loops.reduce((total, loop) => total + loop[key], 0);

for (const accept of modes) {
  // Where the coordinator accepts, serve.test.ts goes over the backends.
  const backends =
    accept === 'handoff' ? allBackends.slice(0, 1) : ofThese('epoll', 'poll', 'select');
  for (const backend of backends)
    test(`${accept}, ${backend}: connections are served, moved and counted`, async () => {
      await start({ worker: workerFile('mover'), accept, backend, listen: { port: 0 } });
      const clients = await Promise.all(
        Array.from({ length: 12 }, () => LineClient.connect(group)),
      );
      for (const [i, client] of clients.entries()) {
        const [, , loop] = (await client.ask('a')).split(' ');
        const other = 1 - Number(loop);
        client.socket.write(`move ${other}\n`);
        await until(() => group.stats().moves === i + 1, 'it moves');
        assert.is((await client.ask('b')).split(' ').at(-1), String(other));
      }
      balanced();
      assert.is(group.stats().open, 12);
      assert.is(sum('accepted'), 12);
      assert.is(sum('acceptedHere'), accept === 'handoff' ? 0 : 12);
      for (const client of clients) await client.end();
      await close();
    });

  test(`${accept}: a worker sees who connects, and where`, async () => {
    await start({ accept, listen: [{ name: 'one' }, { name: 'two' }] });
    assert.is(new Set(group.addresses.map((one) => 'port' in one && one.port)).size, 2);
    for (const [at, name] of ['one', 'two'].entries()) {
      const socket = net.connect(portOf(group, at), '127.0.0.1');
      await once(socket, 'connect');
      const { listener, remote, local } = JSON.parse(await ask(socket, 'who'));
      assert.is(listener.name, name);
      assert.is(remote.port, socket.localPort);
      assert.is(local.port, socket.remotePort);
      socket.destroy();
    }
    await close();
  });

  test(`${accept}: a reload refuses and resets nobody who connects`, async () => {
    await start({ worker: workerFile('mover'), accept });
    let going = true;
    let served = 0;
    const comeAndGo = async () => {
      while (going) {
        const client = await LineClient.connect(group);
        assert.match(await client.ask('a'), /^a /);
        served++;
        await client.end();
      }
    };
    const clients = Promise.all(Array.from({ length: 8 }, comeAndGo));
    for (let i = 0; i < 2; i++) {
      const goal = served + 20;
      await Promise.race([until(() => served >= goal, 'clients come'), clients]);
      await group.reload();
    }
    const goal = served + 20;
    await Promise.race([until(() => served >= goal, 'clients come'), clients]);
    going = false;
    await clients;
    if (accept !== 'handoff') assert.ok(sum('acceptedHere') > 0, 'the new loops accept');
    const { refused, lost } = group.stats();
    assert.equal([refused, lost], [0, 0]);
    await close();
  });

  test(`${accept}: threads die while clients connect, and nobody hangs`, async () => {
    await start({ worker: workerFile('crash'), accept });
    const rounds = 6;
    let round = 0;
    let answered = 0;
    const comeAndGo = async () => {
      while (round < rounds) {
        let socket: net.Socket;
        try {
          socket = await connect(group);
        } catch {
          continue; // its loop died before it was told
        }
        if ((await ask(socket, 'message')) !== 'closed') answered++;
        await gone(socket.end());
      }
    };
    const clients = Promise.all(Array.from({ length: 10 }, comeAndGo));
    for (; round < rounds; round++) {
      const loop = group.loops[round % 2];
      await until(() => loop.state === 'serving', 'a loop to terminate');
      const goal = answered + 5 + round;
      await until(() => answered >= goal, 'traffic');
      await loop.terminate();
    }
    await clients;
    await until(serving, 'both loops are back');
    // The threads that have taken their places accept.
    const own = sum('acceptedHere');
    const socket = await connect(group);
    assert.is(await ask(socket, 'x'), 'x');
    if (accept !== 'handoff')
      await until(
        () => sum('acceptedHere') > own || group.stats().open === 0,
        'accepted by a loop',
      );
    socket.destroy();
    await close();
  });

  test(`${accept}: maxConnections holds over all loops`, async () => {
    await start({ accept, maxConnections: 5 });
    const shed: [string, number][] = [];
    group.on('shed', (reason: string, count: number) => shed.push([reason, count]));
    const sockets = Array.from({ length: 20 }, () => {
      const socket = net.connect(portOf(group), '127.0.0.1').on('error', () => undefined);
      socket.write('who');
      return socket;
    });
    const answers = await Promise.all(sockets.map(answer));
    const kept = sockets.filter((_, i) => answers[i] !== 'closed');
    assert.is(kept.length, 5);
    // Closing comes before counting, so a client may know it first.
    await until(() => group.stats().refused === 15, 'all are counted');
    assert.is(group.stats().open, 5);
    balanced();
    const told = () => shed.reduce((total, [, count]) => total + count, 0);
    await until(() => told() === 15, 'the event tells all');
    assert.ok(shed.every(([reason]) => reason === 'maxConnections'));
    kept[0].destroy();
    await until(() => group.stats().open === 4, 'room again');
    const late = await connect(group);
    assert.not.equal(await ask(late, 'who'), 'closed');
    for (const socket of [...sockets, late]) socket.destroy();
    await close();
  });
}

for (const accept of ['reuseport', 'shared'] as const) {
  test(`${accept}: connections at a boundary outlive the thread that accepted them`, async () => {
    await start({ worker: workerFile('rescuer'), accept });
    const clients = await Promise.all(Array.from({ length: 8 }, () => LineClient.connect(group)));
    const loopOf = async (client: LineClient) => Number((await client.ask('x')).split(' ')[1]);
    const loops: number[] = [];
    for (const client of clients) loops.push(await loopOf(client));
    // What another one of the loop is answered came from a later pass: those before are settled.
    for (let at = -1; at !== loops[0]; ) {
      const witness = await LineClient.connect(group);
      at = await loopOf(witness);
      await witness.end();
    }
    await group.loops[loops[0]].terminate();
    const victims = loops.filter((loop) => loop === loops[0]).length;
    for (const [i, client] of clients.entries()) {
      const [count, , rescues] = (await client.ask('x')).split(' ').map(Number);
      assert.equal([count, rescues], [2, loops[i] === loops[0] ? 1 : 0]);
    }
    await until(() => group.stats().rescues === victims, 'the rescues are counted');
    balanced();
    for (const client of clients) await client.end();
    await until(serving, 'the loop is replaced');
    await close();
  });

  test(`${accept}: who waits in the queue of a loop that dies is served`, async () => {
    await start({ worker: workerFile('crash'), accept });
    const victim = await connect(group);
    await ask(victim, 'hi');
    victim.write('spin here');
    await until(() => group.loops.some((one) => one.stats.bytesRead > 2), 'it spins');
    const blocked = group.loops.find((one) => one.stats.bytesRead > 2) as LoopHandle;
    const waiting = await Promise.all(Array.from({ length: 20 }, () => connect(group)));
    // From one queue the other loop takes them all; from its own it takes what the kernel put there.
    const [free] = group.loops.filter((one) => one !== blocked);
    if (accept === 'shared') await until(() => free.stats.open === 20, 'the other loop takes all');
    await blocked.terminate();
    const answers = await Promise.all(waiting.map((socket) => ask(socket, 'served')));
    assert.equal(new Set(answers), new Set(['served']));
    await until(() => group.stats().lost === 1, 'the victim is counted');
    balanced();
    await until(serving, 'the loop is replaced');
    for (const socket of waiting) socket.destroy();
    await close();
  });
}

test('a unix socket is one queue: shared, and not one for each loop', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'multiloop-'));
  const path = join(folder, 'socket');
  await start({ accept: 'shared', listen: { path } });
  const clients = Array.from({ length: 4 }, () => net.connect({ path }));
  for (const client of clients) assert.is(JSON.parse(await ask(client, 'who')).local.path, path);
  assert.is(sum('acceptedHere'), 4);
  for (const client of clients) client.destroy();
  await close();
  const error = await rejectionOf(start({ accept: 'reuseport', listen: { path } }));
  assert.is(error.code, 'ERR_INVALID_ARG_VALUE');
  assert.match(error.message, /listen\.path.*one queue.*'shared' or 'handoff'/);
  rmSync(folder, { recursive: true });
});

test('what a mode cannot do is refused, and leaves nothing open', async () => {
  for (const accept of ['reuseport', 'shared'] as const) {
    const error = await rejectionOf(start({ accept, policy: 'round-robin' }));
    assert.is(error.code, 'ERR_INVALID_ARG_VALUE');
    assert.match(error.message, `with '${accept}' the kernel picks the loop`);
  }
  const fd = await rejectionOf(start({ accept: 'reuseport', listen: [{}, { fd: 0 }] }));
  assert.match(fd.message, /listen\.fd.*one queue/);
  const mode = await rejectionOf(start({ accept: 'both' as AcceptMode }));
  assert.is(mode.code, 'ERR_INVALID_ARG_VALUE');
  assert.match(mode.message, "'handoff', 'reuseport', 'shared'");
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  for (const accept of modes) {
    const taken = await rejectionOf(start({ accept, listen: { port } }));
    assert.is(taken.code, 'EADDRINUSE');
    await descriptorsBack();
  }
  server.close();
  assert.is(native.ledgerCount(), 0);
});

test.run();
