// HTTP under serve(): keep-alive connections that move, outlive a reload and the death of their
// loop between two requests; and what happens to requests that are under way then.

import * as assert from 'uvu/assert';
import { httpWorker } from '../../src/http.js';
import { type LoopGroup, serve } from '../../src/index.js';
import { codeOf, PATIENCE_MS, within } from '../event/support.js';
import { test } from '../hooks.js';
import { portOf, until } from '../runtime/clients.js';
import { type Client, HOST, Rig } from './rig.js';

const rig = new Rig();
test.after(() => rig.close());
let group: LoopGroup;
const start = async (loops = 2) => {
  const worker = new URL('./workers/site.js', import.meta.url);
  const shared = new SharedArrayBuffer(8);
  flags = new Int32Array(shared);
  group = await serve({ worker, loops, workerData: { shared }, drainMs: 10_000 });
};
/** How many requests wait, and whether they may go on. */
let flags: Int32Array;
test.after.each(() => group.close());

const get = (path: string) => `GET ${path} HTTP/1.1\r\n${HOST}\r\n`;
interface Facts {
  loop: number;
  generation: number;
  requests: number;
  id: number;
  body?: string;
}
async function facts(client: Client): Promise<Facts> {
  return JSON.parse((await client.answer()).body);
}
function ask(client: Client, path: string): Promise<Facts> {
  client.send(get(path));
  return facts(client);
}
const other = (loop: number) => 1 - loop;

test('a connection moves between two requests, also with a part of one', async () => {
  await start();
  const client = await rig.connect(portOf(group));
  const first = await ask(client, '/');
  const to = other(first.loop);
  assert.is((await ask(client, `/move?${to}`)).loop, first.loop);
  const moved = await ask(client, '/');
  assert.equal([moved.loop, moved.requests, moved.id], [to, 3, first.id]);
  // All in one packet: a move, requests behind it, and the beginning of one more.
  client.send(`${get(`/move?${first.loop}`)}${get('/a')}${get('/b')}GET /c HTT`);
  assert.is((await facts(client)).requests, 4);
  assert.is((await facts(client)).requests, 5);
  assert.is((await facts(client)).requests, 6);
  await until(() => group.stats().moves === 2, 'the move');
  client.send('P/1.1\r\nHost: a\r\n\r\n');
  const last = await facts(client);
  assert.equal([last.loop, last.requests], [first.loop, 7]);
  client.socket.destroy();
});

test('a reload between two requests; one that is under way ends first', async () => {
  await start();
  const clients = await Promise.all(Array.from({ length: 10 }, () => rig.connect(portOf(group))));
  for (const client of clients) assert.is((await ask(client, '/')).generation, 0);
  const [busy, ...idle] = clients;
  busy.send(get('/late') + get('/'));
  await until(() => Atomics.load(flags, 0) === 1, 'it waits');
  const reloading = group.reload();
  await until(() => group.stats().moves === 9, 'the idle ones are with the new code');
  for (const client of idle) {
    const { generation, requests } = await ask(client, '/');
    assert.equal([generation, requests], [1, 2]);
  }
  Atomics.store(flags, 1, 1);
  const late = await facts(busy);
  assert.equal([late.generation, late.requests], [0, 2]);
  // What was pipelined behind it is answered there too: its connection was at no boundary.
  assert.is((await facts(busy)).requests, 3);
  const report = await within(PATIENCE_MS, reloading, 'the reload');
  assert.equal([report.moved, report.drained, report.closed], [10, 0, 0]);
  assert.is((await ask(busy, '/')).generation, 1);
  for (const client of clients) client.socket.destroy();
});

test('a connection whose loop dies between two requests goes on elsewhere', async () => {
  await start();
  const client = await rig.connect(portOf(group));
  const { loop, id } = await ask(client, '/');
  const killer = await rig.connect(portOf(group));
  let killed = await ask(killer, '/');
  if (killed.loop !== loop) {
    await ask(killer, `/move?${loop}`);
    killed = await ask(killer, '/');
  }
  assert.is(killed.loop, loop);
  killer.send(get('/die'));
  await until(() => group.stats().rescues >= 1, 'the rescue');
  const rescued = await ask(client, '/');
  assert.is(rescued.id, id);
  client.socket.destroy();
  killer.socket.destroy();
});

test('a group that closes lets a request end whose body is on its way', async () => {
  await start(1);
  const client = await rig.connect(portOf(group));
  client.send(`POST /body HTTP/1.1\r\n${HOST}Content-Length: 6\r\n\r\nabc`);
  const idle = await rig.connect(portOf(group));
  await ask(idle, '/');
  await until(() => Atomics.load(flags, 0) === 1, 'it waits');
  const closing = group.close();
  await idle.all();
  client.send('def');
  const { headers, body } = await client.answer();
  assert.is(JSON.parse(body).body, 'abcdef');
  assert.is(headers.connection, 'close');
  client.socket.end();
  await within(PATIENCE_MS, closing, 'the end of the group');
});

test('options are checked where the worker is made', () => {
  assert.is(
    codeOf(() => httpWorker({})),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(
    codeOf(() => httpWorker({ request: () => 1, bodyMax: -1 })),
    'ERR_OUT_OF_RANGE',
  );
});

test.run();
