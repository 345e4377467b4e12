// Topics of WebSockets: the `ws` package's clients on several loops and on one base, compressed and
// not, and what they get while they move, through a reload and the death of a loop.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import * as assert from 'uvu/assert';
import { WebSocket as Peer } from 'ws';
import type { WebSocket } from '../../src/http.js';
import { connectWebSocket } from '../../src/http.js';
import { type LoopGroup, serve, type TopicOptions } from '../../src/index.js';
import { codeOf, PATIENCE_MS, within } from '../event/support.js';
import { test } from '../hooks.js';
import { portOf, until } from '../runtime/clients.js';
import { nothing, Rig } from './rig.js';

class Member {
  readonly socket: Peer;
  readonly told: string[] = [];
  closed: number | undefined = undefined;
  constructor(socket: Peer) {
    this.socket = socket;
    socket.on('message', (data, binary) => this.told.push(`${binary ? 'bytes ' : ''}${data}`));
    socket.on('close', (code) => {
      this.closed = code;
    });
    socket.on('error', nothing);
  }
  static async open(port: number, perMessageDeflate = false): Promise<Member> {
    const socket = new Peer(`ws://127.0.0.1:${port}/`, { perMessageDeflate });
    const member = new Member(socket);
    await within(PATIENCE_MS, once(socket, 'open'), 'open');
    return member;
  }
  async next(): Promise<string> {
    await until(() => this.told.length > 0 || this.closed !== undefined, 'a message');
    return this.told.shift() ?? `closed ${this.closed}`;
  }
  ask(text: string): Promise<string> {
    this.socket.send(text);
    return this.next();
  }
}

let group: LoopGroup | undefined;
test.after.each(async () => {
  await group?.close();
  group = undefined;
});
async function members(count: number, topics: TopicOptions = {}): Promise<Member[]> {
  const worker = new URL('./workers/rooms.js', import.meta.url);
  group = await serve({ worker, loops: 2, drainMs: 10_000, topics });
  const port = portOf(group);
  const all = await Promise.all(
    Array.from({ length: count }, (_, i) => Member.open(port, i % 2 === 0)),
  );
  for (const [i, one] of all.entries()) {
    one.socket.send(`move ${(i >> 1) % 2}`);
    while (!(await one.ask('where')).startsWith(`loop ${(i >> 1) % 2}`));
    assert.is(await one.ask('join room'), 'join true room');
  }
  return all;
}

test('a message to all but its sender, compressed for some; a text and bytes of the loop', async () => {
  const all = await members(4);
  const [first, second] = all;
  const long = 'round and round '.repeat(1_000);
  for (const text of ['short', long]) {
    first.socket.send(`say room ${text}`);
    for (const one of all.slice(1)) assert.is(await one.next(), text);
  }
  second.socket.send('all room everybody');
  for (const one of all) assert.is(await one.next(), 'bytes everybody');
  group?.publish('room', 'from the group');
  for (const one of all) assert.is(await one.next(), 'from the group');
  assert.is(await first.ask('join room'), 'join false room');
  assert.is(await first.ask('join b'), 'join true room,b');
  assert.is(await first.ask('part room'), 'part true b');
  assert.is(await first.ask('part room'), 'part false b');
  group?.publish('room', long);
  for (const one of all.slice(1)) assert.is(await one.next(), long);
  assert.is(await first.ask('where'), 'loop 0 0');
});

test('moves, a reload, the death of a loop: every message once, in order', async () => {
  const all = await members(6);
  let sent = 0;
  let over = false;
  const publishing = (async () => {
    while (!over) {
      for (let i = 0; i < 10; i++) group?.publish('room', `n ${sent++} ${'x'.repeat(sent % 300)}`);
      for (const one of all.slice(0, 3)) one.socket.send(`move ${sent % 2}`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  })();
  const report = await within(PATIENCE_MS, group?.reload() ?? Promise.reject(), 'the reload');
  assert.equal([report.drained, report.closed], [0, 0]);
  await until(() => sent > 1_000, 'messages');
  over = true;
  await publishing;
  // Who is in the middle of being written to when its loop dies is lost with it.
  await until(() => all.every(({ told }) => told.length === sent), 'all so far');
  const killer = await Member.open(portOf(group as LoopGroup));
  killer.socket.send('die');
  await until(() => (group?.stats().rescues ?? 0) > 0, 'the rescue');
  for (let i = 0; i < 100; i++) group?.publish('room', `n ${sent++} `);
  for (const one of all) {
    await until(() => one.told.length >= sent || one.closed !== undefined, 'all messages');
    assert.equal(
      one.told.map((text) => Number(text.split(' ')[1])),
      Array.from({ length: sent }, (_, i) => i),
    );
    assert.is(one.closed, undefined);
  }
});

for (const [outputMax, code] of [
  [100_000, 1_008],
  // More than the WebSocket's own.
  [8_000_000, 1_006],
])
  test(`who is slower than it may be: closed with ${code}`, async () => {
    const [slow, fine] = await members(2, { outputMax, slow: 'close' });
    slow.socket.pause();
    const piece = randomBytes(50_000).toString('base64');
    let sent = 0;
    while (group?.stats().missed === 0) {
      group.publish('room', piece);
      sent++;
      assert.is(await fine.next(), piece);
    }
    slow.socket.resume();
    await until(() => slow.closed !== undefined, 'its end');
    assert.is(slow.closed, code);
    // All but the one that it was too slow for, or what had left when it was cut off.
    if (code === 1_008) assert.is(slow.told.length, sent - 1);
    else assert.ok(slow.told.length < sent - 1);
    assert.ok(slow.told.every((text) => text === piece));
    group?.publish('room', 'on');
    assert.is(await fine.next(), 'on');
    await until(() => group?.stats().open === 1, 'one is left');
  });

test('on a base without loops: the server’s own topics, and a client has none', async () => {
  const rig = new Rig();
  const sockets: WebSocket[] = [];
  const { port, server } = rig.serve({
    request: nothing,
    websocket: {
      open(ws) {
        sockets.push(ws);
        ws.subscribe('t');
      },
      message: (ws, data) => ws.publish('t', data),
    },
  });
  const [a, b] = [await Member.open(port), await Member.open(port)];
  a.socket.send('hello');
  assert.is(await b.next(), 'hello');
  server.publish('t', Buffer.from('all'));
  for (const one of [a, b]) assert.is(await one.next(), 'bytes all');
  assert.equal(sockets[0].topics, ['t']);
  a.socket.close();
  await until(() => sockets[0].closed, 'its end');
  server.publish('t', 'left');
  assert.is(await b.next(), 'left');
  assert.is(
    codeOf(() => server.publish('', 'x')),
    'ERR_INVALID_ARG_VALUE',
  );
  const own = connectWebSocket(rig.base, `ws://127.0.0.1:${port}`, {});
  assert.is(
    codeOf(() => own.publish('t', 'x')),
    'ERR_INVALID_ARG_VALUE',
  );
  own.terminate();
  b.socket.terminate();
  rig.close();
});

test.run();
