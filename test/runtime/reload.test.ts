// Reloads: new code takes over live connections, and the listening socket never closes.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import * as assert from 'uvu/assert';
import { type LoopGroup, serve } from '../../src/index.js';
import { rejectionOf } from '../event/support.js';
import { test } from '../hooks.js';
import { descriptors, until } from './clients.js';
import { LineClient } from './lines.js';

const folder = mkdtempSync(join(tmpdir(), 'multiloop-reload-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const file = join(folder, 'worker.mjs');
const worker = pathToFileURL(file);

/** The worker's code says its version; `more` are further hooks. */
function write(version: string, more = ''): void {
  writeFileSync(
    file,
    `export default {
      open(conn) { conn.state = { lines: 0, rest: '', held: false }; },
      data(conn, chunk) {
        const lines = (conn.state.rest + Buffer.from(chunk).toString('latin1')).split('\\n');
        conn.state.rest = lines.pop();
        for (const line of lines) {
          conn.state.lines++;
          if (line === 'hold') this.hold = conn.hold();
          if (line === 'release') this.hold[Symbol.dispose]();
          const shared = conn.loop.workerData?.shared;
          const count = shared ? Atomics.add(new Int32Array(shared), 0, 1) : '';
          conn.write(line + ' ' + conn.state.lines + ' ${version} ' + conn.loop.id + ' ' + count + '\\n');
        }
      },
      ${more}
    };`,
  );
}

let group: LoopGroup;
test.before.each(async () => {
  write('one');
  group = await serve({ worker, loops: 2, drainMs: 200 });
});
test.after.each(() => group.close());

const version = async (client: LineClient) => (await client.ask('v')).split(' ')[2];

test('every connection is served by the new code, with its state', async () => {
  const clients = await Promise.all(Array.from({ length: 20 }, () => LineClient.connect(group)));
  for (const client of clients) assert.is(await version(client), 'one');
  write('two');
  const report = await group.reload();
  assert.is(report.moved, 20);
  assert.equal([report.drained, report.closed, report.generation], [0, 0, 1]);
  for (const client of clients) assert.match(await client.ask('next'), /^next 2 two /);
  const fresh = await LineClient.connect(group);
  assert.is(await version(fresh), 'two');
  assert.equal(
    group.loops.map((loop) => [loop.generation, loop.state]),
    [
      [1, 'serving'],
      [1, 'serving'],
    ],
  );
  for (const client of [...clients, fresh]) await client.end();
  const { accepted, served, lost } = group.stats();
  assert.equal([accepted, lost], [21, 0]);
  await until(() => group.stats().served === 21, 'all closed');
  assert.ok(served <= 21);
});

test('code that does not load leaves the old one serving and says why', async () => {
  const client = await LineClient.connect(group);
  assert.is(await version(client), 'one');
  const before = descriptors().length;
  writeFileSync(file, 'export default {');
  const syntax = await rejectionOf(group.reload());
  assert.is(syntax.code, 'ERR_RELOAD_FAILED');
  assert.match(syntax.message, /old ones go on/);
  write('two', "start() { throw new Error('not ready'); },");
  const start = await rejectionOf(group.reload());
  assert.match(start.message, /not ready/);
  assert.is(await version(client), 'one');
  assert.is(await version(await LineClient.connect(group)), 'one');
  await until(() => descriptors().length <= before + 2, 'descriptors are back');
  write('three');
  await group.reload();
  assert.is(await version(client), 'three');
  await client.end();
});

test('a connection that is held moves when it is let go, and is drained if it is not', async () => {
  const held = await LineClient.connect(group);
  const never = await LineClient.connect(group);
  await held.ask('hold');
  await never.ask('hold');
  write('two');
  const reload = group.reload({ deadlineMs: 1_000 });
  await until(() => group.loops[0].generation === 1, 'the new loops serve');
  // The old code goes on with it meanwhile.
  assert.is(await version(never), 'one');
  assert.match(await held.ask('release'), / one /);
  assert.is(await version(held), 'two');
  const report = await reload;
  assert.is(report.moved, 1);
  assert.is(report.drained + report.closed, 1);
  assert.is(await never.line(), 'closed');
  await held.end();
});

test('one reload at a time; none of a group that is closing', async () => {
  const first = group.reload();
  assert.is((await rejectionOf(group.reload())).code, 'ERR_RELOAD_IN_PROGRESS');
  await first;
  const closing = group.close();
  assert.is((await rejectionOf(group.reload())).code, 'ERR_RELOAD_FAILED');
  await closing;
});

test('aborting gives a reload up while the new loops start', async () => {
  write('two', 'async start() { await new Promise((r) => setTimeout(r, 300)); },');
  const reload = group.reload({ signal: AbortSignal.timeout(20) });
  assert.is((await rejectionOf(reload)).name, 'TimeoutError');
  const client = await LineClient.connect(group);
  assert.is(await version(client), 'one');
  await client.end();
});

test('workerData: shared memory reaches the new loops, other data replaces the old', async () => {
  const shared = new SharedArrayBuffer(8);
  await group.close();
  group = await serve({ worker, loops: 2, workerData: { shared } });
  const client = await LineClient.connect(group);
  assert.match(await client.ask('x'), / 0$/);
  await group.reload();
  assert.match(await client.ask('x'), / 1$/);
  assert.is(new Int32Array(shared)[0], 2);
  await group.reload({ workerData: {} });
  assert.match(await client.ask('x'), / $/);
  await client.end();
});

test('reloads under load: nothing is lost, repeated or closed', async () => {
  const before = descriptors().length;
  let going = true;
  let lines = 0;
  const talk = async () => {
    const client = await LineClient.connect(group);
    for (let i = 1; going; i++) {
      const burst = 1 + (i % 3);
      client.socket.write('a\n'.repeat(burst));
      for (let k = 0; k < burst; k++) {
        const line = await client.line();
        lines++;
        if (!line.startsWith('a ')) throw new Error(`after ${i}: ${line}`);
      }
    }
    const [, count] = (await client.ask('end')).split(' ');
    await client.end();
    return Number(count);
  };
  const talkers = Array.from({ length: 30 }, talk);
  for (let i = 0; i < 5; i++) {
    write(`v${i}`);
    const report = await group.reload();
    assert.equal([report.drained, report.closed], [0, 0]);
  }
  going = false;
  const counts = await Promise.all(talkers);
  // What each connection counted, over all its threads, is what its client was answered.
  assert.is(
    counts.reduce((sum, count) => sum + count, 0),
    lines + 30,
  );
  await until(() => group.stats().open === 0, 'all closed');
  assert.is(group.stats().lost, 0);
  assert.ok(group.stats().moves >= 30 * 5);
  await until(() => descriptors().length <= before, 'descriptors are back');
});

test.run();
