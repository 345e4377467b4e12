// Numbers: what connections() and stats() say, also of a loop that is blocked, and what is told to
// who traces.

import { subscribe } from 'node:diagnostics_channel';
import net from 'node:net';
import * as assert from 'uvu/assert';
import { type LoopGroup, type ServeOptions, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { rejectionOf } from '../event/support.js';
import { test } from '../hooks.js';
import { isPortable } from '../machine.js';
import { testWhere } from '../where.js';
import { gone, portOf, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

/** What the worker reads: see workers/talker.ts. */
const BLOCK = 0;
const flags = new Int32Array(new SharedArrayBuffer(8));
/** Where the next connection goes. */
let next = 0;
let group: LoopGroup;

const start = async (options: Partial<ServeOptions> = {}) => {
  group = await serve({
    worker: workerFile('talker'),
    workerData: { flags },
    loops: 2,
    listen: { port: 0, host: '127.0.0.1', name: 'front' },
    policy: () => next,
    ...options,
  });
};
const unblock = () => {
  Atomics.store(flags, BLOCK, 0);
  Atomics.notify(flags, BLOCK);
};
test.before.each(() => {
  next = 0;
});
test.after.each(async () => {
  unblock();
  await group.close();
});

const to = (loop: number) => {
  next = loop;
  return LineClient.connect(group);
};
const infoOf = (client: LineClient) => {
  const port = client.socket.localPort;
  return group
    .connections()
    .find(({ remote }) => remote && 'port' in remote && remote.port === port);
};

test('connections(): who is where, and what each has moved', async () => {
  await start();
  assert.equal(group.connections(), []);
  const clients = [await to(1), await to(0), await to(1)];
  for (const client of clients) await client.ask('hi');
  await clients[0].ask('begin');
  // A client may have the answer before the loop has counted it.
  const written = () => group.connections().map(({ bytesWritten }) => bytesWritten);
  await until(() => String(written().sort()) === '13,7,7', 'all is counted');
  await until(() => group.connections().filter(({ busy }) => busy).length === 1, 'one is busy');
  const list = group.connections();
  assert.equal(
    list.map(({ id }) => id),
    list.map(({ id }) => id).sort((a, b) => a - b),
  );
  const [first, second] = clients.map(infoOf);
  const port = clients[0].socket.localPort;
  // 'hi' and 'begin', each with its line end; 'hi 1 1' and 'begun'.
  assert.equal(
    { ...first, id: 0, ageMs: 0 },
    {
      id: 0,
      loop: 1,
      remote: { host: '127.0.0.1', port, family: 4 },
      listener: 'front',
      ageMs: 0,
      bytesRead: 9,
      bytesWritten: 13,
      busy: true,
    },
  );
  assert.equal([second?.loop, second?.bytesRead, second?.busy], [0, 3, false]);
  assert.ok((first?.ageMs ?? -1) >= (second?.ageMs ?? 0), 'the first is older');
  await clients[2].end();
  await until(() => group.connections().length === 2, 'one has gone');
});

test('a connection keeps its numbers over moves and rescues', async () => {
  await start({ restart: { max: 5, within: 60_000, backoff: 0 } });
  const client = await to(0);
  await client.ask('hi');
  await until(() => infoOf(client)?.busy === false, 'it is at a boundary');
  const before = infoOf(client);
  await group.move(before?.id ?? 0, 1);
  await until(() => infoOf(client)?.busy === false, 'it has arrived');
  assert.equal({ ...infoOf(client), ageMs: 0 }, { ...before, loop: 1, ageMs: 0 });
  assert.is(await client.ask('bytes'), '9 7');
  await until(() => infoOf(client)?.busy === false, 'it is at a boundary');
  next = 0;
  await group.loops[1].terminate();
  await until(() => infoOf(client)?.loop === 0, 'it is on the other loop');
  // 'hi', 'bytes', and 'bytes' again; 'hi 1 0', '9 7'.
  assert.is(await client.ask('bytes'), '15 11');
  assert.ok((infoOf(client)?.ageMs ?? 0) >= (before?.ageMs ?? 0));
});

test('while a loop is blocked, it is all there, and what waits for it', async () => {
  // Alone: another one would be given what comes.
  await start({ loops: 1 });
  const served = await to(0);
  await served.ask('block');
  await until(() => group.loops[0].state === 'blocked', 'it is blocked');
  const waiting = await to(0);
  group.post(0, 'wait');
  await until(() => group.stats().accepted === 2, 'it is accepted');
  assert.equal(
    [served, waiting].map(infoOf).map((one) => [one?.loop, one?.bytesRead, one?.busy]),
    [
      // Under way: not opened yet.
      [0, 6, false],
      [0, 0, true],
    ],
  );
  const { inbox, lagMs, longestStallMs, open } = group.stats().loops[0];
  assert.is(inbox, 2);
  assert.is(open, 1);
  assert.ok(lagMs >= 100 && longestStallMs >= 100);
  await until(() => group.loops[0].utilization() > 0.9, 'it is busy');
  // How long a handoff takes is told when it is over.
  assert.is(group.stats().loops[0].handoffP99Us < 1e6, true);
  await new Promise((resolve) => setTimeout(resolve, 50));
  unblock();
  assert.match(await waiting.ask('hi'), /^hi 1 0$/);
  const { handoffP50Us, handoffP99Us } = group.stats().loops[0];
  assert.ok(handoffP99Us >= 50_000 && handoffP50Us > 0 && handoffP50Us < handoffP99Us);
});

test('two groups on one thread tell of their own', async () => {
  await start();
  const other = await serve({ worker: workerFile('report'), loops: 1 });
  const client = await LineClient.connect(other);
  await until(() => other.connections().length === 1, 'it is there');
  assert.equal(group.connections(), []);
  assert.is(other.connections()[0].listener, `127.0.0.1:${portOf(other)}`);
  await client.end();
  await other.close();
});

test('what waits because no loop serves is the coordinator’s', async () => {
  await start({ loops: 1, restart: { max: 5, within: 60_000, backoff: 60_000 } });
  const client = await to(0);
  await client.ask('hi');
  await until(() => group.connections()[0]?.busy === false, 'it is at a boundary');
  await group.loops[0].terminate();
  await until(() => group.connections()[0]?.loop === -1, 'it waits');
  assert.is(group.connections()[0].bytesRead, 3);
});

test('every number of a loop', async () => {
  await start({ inboxSize: 4, restart: { max: 5, within: 60_000, backoff: 0 } });
  group.on('workerError', () => undefined);
  const loop = (id = 0) => group.stats().loops[id];
  const a = await to(0);
  assert.is(await a.ask('hi'), 'hi 1 0');
  await until(() => loop().bytesWritten === 7, 'it is counted');
  assert.equal([loop().accepted, loop().open, loop().served, loop().bytesRead], [1, 1, 0, 3]);
  assert.is(loop(1).handoffP99Us, 0);
  await until(() => group.loops[1].utilization() < 0.1, 'the other one has nothing to do');
  assert.ok(loop().turns > 0 && loop().handoffP50Us > 0);
  const wake = () => {
    if (loop().inbox === 0) group.post(0, 'wake');
    return loop().wakesSent > 0;
  };
  await until(wake, 'somebody had to wake it');

  await group.move(group.connections()[0].id, 1);
  await until(() => loop(1).open === 1, 'it has moved');
  assert.equal([loop().movedOut, loop().open, loop(1).movedIn, loop(1).accepted], [1, 0, 1, 0]);
  assert.is(group.stats().moves, 1);
  await a.end();
  await until(() => loop(1).served === 1, 'it is served');

  const b = await to(0);
  b.socket.write('fail\n');
  await gone(b.socket);
  await until(() => loop().hookErrors === 1 && loop().served === 1, 'the hook has failed');

  const c = await to(0);
  await c.ask('block');
  await until(() => group.loops[0].state === 'blocked', 'it is blocked');
  const { wakesSaved } = loop();
  let full = 0;
  for (; full === 0; ) {
    try {
      group.post(0, 'x');
    } catch (error) {
      assert.is((error as { code: string }).code, 'ERR_INBOX_FULL');
      full++;
    }
  }
  assert.equal([loop().refused, loop().inbox], [1, 4]);
  assert.is(loop().wakesSaved, wakesSaved + 4, 'whoever is awake need not be woken');
  unblock();
  await until(() => loop().inbox === 0, 'it has taken them');
  assert.ok(loop().longestStallMs >= 100);

  const lost = await to(0);
  await lost.ask('begin');
  await until(() => infoOf(c)?.busy === false, 'the other one is at a boundary');
  next = 1;
  lost.socket.write('die\n');
  await gone(lost.socket);
  await until(() => loop(1).open === 1, 'the other one is rescued');
  await until(() => loop().lost === 1 && loop().rescued === 1, 'it is counted');
  assert.equal([loop().movedOut, loop(1).movedIn], [1, 2]);
  assert.is(group.stats().rescues, 1);
  const { accepted, open, served, refused, lost: all } = group.stats();
  assert.equal([accepted, open, served, refused, all], [4, 1, 2, 0, 1]);
});

test('the channels of diagnostics_channel', async () => {
  type Told = Record<string, unknown>;
  const told: Record<string, Told[]> = {};
  for (const name of ['accept', 'handoff', 'rescue', 'reload', 'shed', 'error', 'move'])
    subscribe(`multiloop:${name}`, (message) => {
      told[name] ??= [];
      told[name].push(message as Told);
    });
  await start({ maxConnections: 1, restart: { max: 5, within: 60_000, backoff: 0 } });
  group.on('workerError', () => undefined);
  const client = await to(0);
  await client.ask('hi');
  // It may be reset before it knows that it was connected.
  const second = net.connect(portOf(group), '127.0.0.1').on('error', () => undefined);
  await gone(second);
  const [{ id }] = group.connections();
  await group.move(id, 1);
  await group.move(id, 0);
  const moves: Told[] = JSON.parse(await client.ask('moves'));
  assert.equal(
    moves.map(({ bytes, ...others }) => ({ ...others, hasBytes: (bytes as number) > 0 })),
    [{ connection: id, from: 0, to: 1, contextBytes: 0, hasBytes: true }],
  );
  await until(() => group.connections()[0].busy === false, 'it is at a boundary');
  next = 1;
  await group.loops[0].terminate();
  await until(() => group.connections()[0].loop === 1, 'it is rescued');
  client.socket.write('fail\n');
  await gone(client.socket);
  await until(() => told.error !== undefined, 'the error is told');
  const { generation } = await group.reload();
  assert.ok((await rejectionOf(group.reload({ worker: workerFile('nowhere') }))) !== undefined);
  assert.equal(
    // The one past maxConnections never becomes a connection: the shed channel tells of it.
    [told.accept[0], told.accept.length].map((one) => (one as Told).connection ?? one),
    [id, 1],
  );
  assert.is((told.accept[0].listener as { name: string }).name, 'front');
  assert.equal(
    told.handoff.map(({ connection, loop }) => [connection, loop]),
    [[id, 0]],
  );
  assert.equal([told.shed[0].reason, told.shed[0].count], ['maxConnections', 1]);
  assert.equal([told.rescue[0].connection, told.rescue[0].loop], [id, 1]);
  assert.equal([told.error[0].connection, String(told.error[0].error)], [id, 'Error: of the hook']);
  assert.is(told.reload[0].generation, generation);
  assert.is((told.reload[1].error as { code: string }).code, 'ERR_WORKER_LOAD');
  assert.is(told.move, undefined, 'moves are told on their loops');
  assert.ok(Object.values(told).every((all) => all.every((one) => one.group === group)));
});

// ── binding to processors ──

const bindingHere = isPortable ? 'this build cannot bind threads' : undefined;

testWhere(bindingHere, 'pin: each loop on a processor, also after a reload', async () => {
  const allowed = native.processors() as number[];
  await start({ pin: true, loops: 3 });
  for (const loop of [0, 1, 2])
    assert.is(await (await to(loop)).ask('processors'), String(allowed[loop % allowed.length]));
  await group.reload();
  assert.is(await (await to(1)).ask('processors'), String(allowed[1 % allowed.length]));
  await group.close();
  const last = allowed[allowed.length - 1];
  await start({ pin: [last] });
  for (const loop of [0, 1]) assert.is(await (await to(loop)).ask('processors'), String(last));
  assert.equal(native.processors(), allowed, 'this thread is not bound');
});

testWhere(bindingHere, 'pin: what is no processor of ours is refused', async () => {
  await start();
  const refused = async (pin: unknown) =>
    (
      (await rejectionOf(
        serve({ worker: workerFile('talker'), pin: pin as number[] }),
      )) as Error & { code: string }
    ).code;
  assert.is(await refused([8_191]), 'ERR_OUT_OF_RANGE');
  assert.is(await refused([-1]), 'ERR_OUT_OF_RANGE');
  assert.is(await refused([]), 'ERR_OUT_OF_RANGE');
  assert.is(await refused(['0']), 'ERR_INVALID_ARG_TYPE');
  assert.is(await refused('0'), 'ERR_INVALID_ARG_TYPE');
});

testWhere(isPortable ? undefined : 'threads can be bound here', 'pin is refused', async () => {
  await start();
  const error = await rejectionOf(serve({ worker: workerFile('talker'), pin: true }));
  assert.is((error as Error & { code: string }).code, 'ENOTSUP');
});

test.run();
