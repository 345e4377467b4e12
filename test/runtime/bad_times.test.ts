// Hooks, policies and moments that are not as they should be: each has a defined outcome, an error
// with a code to whoever asked, the connection served or visibly closed, and balanced accounts.

import * as assert from 'uvu/assert';
import { type LoopGroup, type LoopHandle, type ServeOptions, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { rejectionOf, spin, within } from '../event/support.js';
import { test } from '../hooks.js';
import { connect, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

let group: LoopGroup;
let workerErrors: Error[];
const start = async (options: Partial<ServeOptions> = {}) => {
  const restart = { max: 1_000, backoff: 1 };
  group = await serve({ worker: workerFile('hard_times'), loops: 2, restart, ...options });
  workerErrors = [];
  group.on('workerError', (error) => workerErrors.push(error));
};
test.after.each(async () => {
  await group.close();
  const { accepted, open, served, refused, lost } = group.stats();
  assert.is(open, 0);
  assert.is(accepted, served + refused + lost);
  assert.is(native.ledgerCount(), 0);
});

interface Said {
  word: string;
  lines: number;
  loop: number;
  id: number;
}
async function ask(client: LineClient, text: string): Promise<Said> {
  const [word, lines, loop, id] = (await client.ask(text)).split(' ');
  return { word, lines: Number(lines), loop: Number(loop), id: Number(id) };
}
const serving = () =>
  until(() => group.loops.every(({ state }) => state === 'serving'), 'every loop serves');

/** What was asked of a loop's connections before this is past its boundary. */
async function settled(loop: number): Promise<void> {
  for (let at = -1; at !== loop; ) {
    const witness = await LineClient.connect(group);
    at = (await ask(witness, 'x')).loop;
    await witness.end();
  }
}

// ── hooks ──

test('pack: what it throws or answers that cannot be cloned keeps the connection', async () => {
  await start();
  for (const mood of ['pack-throws', 'pack-function']) {
    const client = await LineClient.connect(group);
    const { loop, id } = await ask(client, `mood ${mood}`);
    const error = await rejectionOf(group.move(id, 1 - loop));
    assert.is(error.code, 'ERR_NOT_MOVABLE');
    assert.match(error.message, /could not be packed: (of pack|.*could not be cloned)/);
    assert.equal(await ask(client, 'x'), { word: 'x', lines: 2, loop, id });
    // It is at its boundary as before.
    await settled(loop);
    await group.loops[loop].terminate();
    assert.is((await ask(client, 'y')).lines, 3);
    await serving();
    await client.end();
  }
});

test('pack: what it writes travels, and a connection that it closes is closed', async () => {
  await start();
  const client = await LineClient.connect(group);
  const { loop, id } = await ask(client, 'mood pack-writes');
  await group.move(id, 1 - loop);
  assert.is(await client.line(), 'packed');
  assert.equal(await ask(client, 'x'), { word: 'x', lines: 2, loop: 1 - loop, id });
  await ask(client, 'mood pack-closes');
  assert.is((await rejectionOf(group.move(id, loop))).code, 'ERR_NOT_MOVABLE');
  assert.is(await client.line(), 'closed');
  assert.is(group.stats().lost, 0);
});

test('unpack and rescue: what they throw costs their connection and nothing else', async () => {
  await start();
  const witness = await LineClient.connect(group);
  const moved = await LineClient.connect(group);
  const { loop, id } = await ask(moved, 'mood unpack-throws');
  await group.move(id, 1 - loop);
  assert.is(await moved.line(), 'closed');
  const rescued = await LineClient.connect(group);
  const { loop: dying } = await ask(rescued, 'mood rescue-throws');
  await settled(dying);
  await group.loops[dying].terminate();
  assert.is(await rescued.line(), 'closed');
  await until(() => workerErrors.length === 2, 'both are reported');
  assert.equal(
    workerErrors.map(({ message }) => message),
    ['of unpack', 'of rescue'],
  );
  assert.is((await ask(witness, 'x')).lines, 1);
  await serving();
});

// ── moves ──

test('a connection that is held goes on reading, also when it is asked to move', async () => {
  await start();
  const client = await LineClient.connect(group);
  // The hold outlives the promise of the hook in which it was taken.
  const { loop, id } = await ask(client, 'hold');
  assert.is((await ask(client, 'x')).lines, 2);
  const moved = group.move(id, 1 - loop);
  assert.is((await ask(client, 'y')).loop, loop);
  assert.is((await ask(client, 'release')).loop, loop);
  await moved;
  assert.equal(await ask(client, 'z'), { word: 'z', lines: 5, loop: 1 - loop, id });
  await client.end();
});

test('a connection that closes before it has moved', async () => {
  await start();
  const client = await LineClient.connect(group);
  const { loop, id } = await ask(client, 'hold');
  const moved = rejectionOf(group.move(id, 1 - loop));
  client.socket.resetAndDestroy();
  assert.is((await moved).code, 'ERR_NOT_MOVABLE');
});

test('a move to a loop that dies before it takes the connection', async () => {
  await start({ loops: 3 });
  const client = await LineClient.connect(group);
  const { loop, id } = await ask(client, 'x');
  const target = (loop + 1) % 3;
  group.post(target, 60_000);
  await until(() => group.loops[target].state === 'blocked', 'the target is blocked');
  await group.move(id, target);
  await group.loops[target].terminate();
  const said = await ask(client, 'y');
  assert.is(said.lines, 2);
  assert.is(group.stats().lost, 0);
  await client.end();
});

test('a loop that dies before it has moved a connection answers ERR_LOOP_GONE', async () => {
  await start();
  const client = await LineClient.connect(group);
  const { loop, id } = await ask(client, 'hold');
  const moved = rejectionOf(group.move(id, 1 - loop));
  await group.loops[loop].terminate();
  assert.is((await moved).code, 'ERR_LOOP_GONE');
  assert.is(await client.line(), 'closed');
});

test('bytes that were read when the thread ended: a reset and no silence', async () => {
  await start();
  const client = await LineClient.connect(group);
  const { loop } = await ask(client, 'last');
  await settled(1 - loop);
  assert.is(await client.ask('x'), 'closed');
  await until(() => group.stats().lost === 1, 'it is counted');
});

// ── more than fits ──

test('connections that live wait for room in an inbox', async () => {
  await start({ inboxSize: 2 });
  const clients: LineClient[] = [];
  const all: Said[] = [];
  for (let i = 0; i < 24; i++) {
    const client = await LineClient.connect(group);
    clients.push(client);
    all.push(await ask(client, 'x'));
  }
  const [{ loop }] = all;
  for (const one of [0, 1]) await settled(one);
  group.post(1 - loop, 1_500);
  await until(() => group.loops[1 - loop].state === 'blocked', 'the other is blocked');
  // Twelve are rescued, and there is room for two until this loop is back.
  await group.loops[loop].terminate();
  for (const [i, client] of clients.entries())
    if (all[i].loop === loop) assert.is((await ask(client, 'y')).lines, 2);
  assert.is(group.stats().lost, 0);
});

test('a reload moves more connections than an inbox holds', async () => {
  await start({ inboxSize: 2, loops: 1 });
  const clients: LineClient[] = [];
  for (let i = 0; i < 40; i++) {
    const client = await LineClient.connect(group);
    await ask(client, 'x');
    clients.push(client);
  }
  const { moved, drained, closed } = await group.reload();
  assert.equal([moved, drained, closed], [40, 0, 0]);
  for (const client of clients) assert.is((await ask(client, 'y')).lines, 2);
});

// ── reloads ──

test('a connection with a Duplex over it is drained by a reload, and the others move', async () => {
  await start({ drainMs: 100 });
  const [plain, duplex] = [await LineClient.connect(group), await LineClient.connect(group)];
  await ask(plain, 'x');
  await ask(duplex, 'duplex');
  assert.is(await duplex.ask('hello'), 'of the duplex');
  const { moved, drained, closed } = await group.reload({ deadlineMs: 50 });
  assert.equal([moved, drained + closed], [1, 1]);
  assert.is(await duplex.line(), 'closed');
  assert.is((await ask(plain, 'y')).lines, 2);
});

test('an old loop dies at the moment when a reload is to retire it', async () => {
  const gate = new SharedArrayBuffer(4);
  await start({ workerData: { gate } });
  const client = await LineClient.connect(group);
  const { loop } = await ask(client, 'x');
  await settled(loop);
  const old = [...group.loops];
  const up = (handle: LoopHandle, what: string) => {
    if (what !== 'up' || handle.id !== 0) return;
    // Its release comes before the readiness of the second new loop, and both before the news of
    // its end, since this thread hears of nothing meanwhile.
    old[loop].terminate();
    spin(50);
    Atomics.store(new Int32Array(gate), 0, 1);
    Atomics.notify(new Int32Array(gate), 0);
    spin(150);
  };
  group.on('loop', up);
  const { generation } = await within(10_000, group.reload(), 'the reload');
  group.off('loop', up);
  assert.is(generation, 1);
  assert.is((await ask(client, 'y')).lines, 2);
  assert.is(group.stats().lost, 0);
});

test('loops of the new generation that die during a reload', async () => {
  await start();
  const clients = await Promise.all(Array.from({ length: 8 }, () => LineClient.connect(group)));
  for (const client of clients) await ask(client, 'hold');
  const reload = group.reload({ deadlineMs: 10_000 });
  await until(() => group.loops[0].generation === 1, 'the new loops serve');
  // The connections find no loop of their number for a while, or one that has another thread.
  await Promise.all(group.loops.map((one) => one.terminate()));
  for (const client of clients) await ask(client, 'release');
  const { moved, drained, closed } = await reload;
  assert.equal([moved, drained, closed], [8, 0, 0]);
  await serving();
  for (const client of clients) assert.is((await ask(client, 'y')).lines, 3);
});

test('a group is closed while a reload waits for its connections', async () => {
  await start({ drainMs: 20_000 });
  const client = await LineClient.connect(group);
  client.socket.write('slow 300\n');
  await until(() => group.stats().loops.some(({ bytesRead }) => bytesRead > 0), 'the hook runs');
  const reload = group.reload({ deadlineMs: 60_000 });
  await until(() => group.loops[0].generation === 1, 'the new loops serve');
  const began = performance.now();
  await group.close();
  await reload;
  assert.match(await client.line(), /^slow 1 /);
  assert.is(await client.line(), 'closed');
  assert.ok(performance.now() - began < 15_000, 'nobody waits for a deadline');
  assert.is(group.stats().lost, 0);
});

test('what waits in the inbox of a loop that has to be ended at a close is counted', async () => {
  await start({ drainMs: 20 });
  for (const loop of [0, 1]) group.post(loop, 60_000);
  await until(() => group.loops.every(({ state }) => state === 'blocked'), 'both are blocked');
  const sockets = await Promise.all(Array.from({ length: 6 }, () => connect(group)));
  await until(() => group.stats().accepted === 6, 'they are accepted');
  await group.close();
  const { open, refused, lost } = group.stats();
  assert.equal([open, refused + lost], [0, 6]);
  for (const socket of sockets) socket.destroy();
});

// ── policies ──

test('a policy that takes long is said once', async () => {
  let calls = 0;
  await start({
    policy: (_, loops) => {
      if (calls++ < 2) spin(120);
      return loops[0];
    },
  });
  const errors: NodeJS.ErrnoException[] = [];
  group.on('error', (error) => errors.push(error));
  for (let i = 0; i < 3; i++) assert.is((await ask(await LineClient.connect(group), 'x')).lines, 1);
  assert.equal(
    errors.map(({ code }) => code),
    ['ERR_POLICY'],
  );
  assert.match(errors[0].message, /took \d+ ms/);
});

test('a policy cannot refuse a connection that a loop has served', async () => {
  let refuses = false;
  await start({ policy: (_, loops) => (refuses ? 'refuse' : loops[0]) });
  const client = await LineClient.connect(group);
  const { loop } = await ask(client, 'x');
  await settled(loop);
  refuses = true;
  await group.loops[loop].terminate();
  assert.is((await ask(client, 'y')).lines, 2);
  assert.is(group.stats().lost, 0);
});

test.run();
