// WebSockets under serve(): the `ws` package's client counts its messages through moves, a reload
// and the death of a loop, and never sees a close.

import { once } from 'node:events';
import type { Socket } from 'node:net';
import * as assert from 'uvu/assert';
import { WebSocket as Peer } from 'ws';
import { type LoopGroup, serve } from '../../src/index.js';
import { PATIENCE_MS, within } from '../event/support.js';
import { test } from '../hooks.js';
import { portOf, until } from '../runtime/clients.js';

let group: LoopGroup;
const start = async (loops = 2) => {
  const worker = new URL('./workers/chat.js', import.meta.url);
  group = await serve({ worker, loops, drainMs: 10_000 });
};
test.after.each(() => group.close());

interface Facts {
  data: string;
  length: number;
  seen: number;
  loop: number;
  generation: number;
  id: number;
  protocol: string;
}
const other = (loop: number) => 1 - loop;

class Client {
  readonly socket: Peer;
  closed: number | undefined = undefined;
  readonly #answers: Facts[] = [];

  constructor(socket: Peer) {
    this.socket = socket;
    socket.on('message', (data) => this.#answers.push(JSON.parse(String(data))));
    socket.on('close', (code) => {
      this.closed = code;
    });
    socket.on('error', () => undefined);
  }
  static async open(perMessageDeflate = true): Promise<Client> {
    const url = `ws://127.0.0.1:${portOf(group)}/`;
    const socket = new Peer(url, ['chat'], { perMessageDeflate });
    const client = new Client(socket);
    await within(PATIENCE_MS, once(socket, 'open'), 'open');
    return client;
  }
  async answer(): Promise<Facts> {
    await until(() => this.#answers.length > 0 || this.closed !== undefined, 'an answer');
    const answer = this.#answers.shift();
    if (answer === undefined) throw new Error(`closed with ${this.closed}`);
    return answer;
  }
  ask(text: string): Promise<Facts> {
    this.socket.send(text);
    return this.answer();
  }
  get raw(): Socket {
    return (this.socket as unknown as { _socket: Socket })._socket;
  }
}

test('moves between messages, within a message in fragments, within a frame', async () => {
  await start();
  const client = await Client.open(false);
  const first = await client.ask('a');
  assert.equal([first.seen, first.protocol], [1, 'chat']);
  const there = other(first.loop);
  const moves = group.stats().moves;
  assert.is((await client.ask(`move ${there}`)).loop, first.loop);
  const moved = await client.ask('b');
  assert.equal([moved.loop, moved.seen, moved.id, moved.protocol], [there, 3, first.id, 'chat']);
  // The order to move, then the first fragment of a message and half of its second frame.
  client.socket.send(`move ${first.loop}`);
  const whole = Buffer.from('80850000000068656c6c6f', 'hex');
  client.raw.write(Buffer.from('01840000000066726167', 'hex'));
  client.raw.write(whole.subarray(0, 8));
  assert.is((await client.answer()).loop, there);
  await until(() => group.stats().moves === moves + 2, 'the move');
  client.raw.write(whole.subarray(8));
  const joined = await client.answer();
  assert.equal([joined.data, joined.loop, joined.seen], ['fraghello', first.loop, 5]);
  // Many orders and numbers in one go: none is lost, none comes twice.
  for (let i = 0; i < 50; i++) client.raw.cork();
  for (let i = 0; i < 50; i++) client.socket.send(i % 5 === 0 ? `move ${i % 2}` : `n ${i}`);
  for (let i = 0; i < 50; i++) client.raw.uncork();
  for (let i = 0; i < 50; i++) assert.is((await client.answer()).seen, 6 + i);
  client.socket.close(3_000);
  await until(() => client.closed !== undefined, 'the end');
  assert.is(client.closed, 3_000);
});

test('one with handlers of its own stays where it is', async () => {
  await start();
  const socket = new Peer(`ws://127.0.0.1:${portOf(group)}/own`);
  const client = new Client(socket);
  await within(PATIENCE_MS, once(socket, 'open'), 'open');
  const { loop } = await client.ask('a');
  assert.is((await client.ask(`move ${other(loop)}`)).loop, loop);
  const { loop: still, seen } = await client.ask('b');
  assert.equal([still, seen, group.stats().moves], [loop, 3, 0]);
  await within(PATIENCE_MS, group.close(), 'the end of the group');
  await until(() => client.closed !== undefined, 'its end');
  assert.is(client.closed, 1_001);
});

test('a reload: all go on with the new code, also those within a message', async () => {
  await start();
  const clients = await Promise.all(Array.from({ length: 6 }, (_, i) => Client.open(i > 2)));
  for (const client of clients) assert.is((await client.ask('before')).generation, 0);
  const [open, cut] = clients;
  open.socket.send('frag', { fin: false });
  // Half of a frame is no boundary: its end is waited for.
  cut.raw.write(Buffer.from('818500000000686565', 'hex'));
  const reloading = group.reload();
  await until(() => group.stats().moves >= 5, 'the others are with the new code');
  open.socket.send('ment', { fin: true });
  const joined = await open.answer();
  assert.equal([joined.data, joined.generation, joined.seen], ['fragment', 1, 2]);
  cut.raw.write('ps');
  assert.is((await cut.answer()).data, 'heeps');
  const report = await within(PATIENCE_MS, reloading, 'the reload');
  assert.equal([report.moved, report.drained, report.closed], [6, 0, 0]);
  for (const client of clients) {
    const { generation, protocol } = await client.ask('after');
    assert.equal([generation, protocol, client.closed], [1, 'chat', undefined]);
  }
  // The end of the group is told.
  await within(PATIENCE_MS, group.close(), 'the end of the group');
  await until(() => clients.every(({ closed }) => closed === 1_001), 'their ends');
});

test('a loop that dies: who is between two messages goes on elsewhere, with what it kept', async () => {
  await start();
  const clients = await Promise.all(Array.from({ length: 6 }, (_, i) => Client.open(i % 2 === 0)));
  // One has moved before, and what it kept with it.
  const before = await clients[0].ask('zero');
  await clients[0].ask(`move ${other(before.loop)}`);
  const facts = await Promise.all(clients.map((client) => client.ask('one')));
  const { loop } = facts[0];
  const there = clients.filter((_, i) => facts[i].loop === loop);
  const killer = there.pop() as Client;
  const within2 = there.pop() as Client;
  // Whoever is within a message cannot be rescued: half of it was lost with the loop.
  within2.socket.send('frag', { fin: false });
  within2.socket.ping();
  await within(PATIENCE_MS, once(within2.socket, 'pong'), 'the pong behind the fragment');
  killer.socket.send('die');
  await until(() => group.stats().rescues >= there.length, 'the rescue');
  for (const client of there) {
    const { seen, protocol, data } = await client.ask('two');
    const expected = client === clients[0] ? 4 : 2;
    assert.equal([seen, protocol, data, client.closed], [expected, 'chat', 'two', undefined]);
  }
  await until(() => within2.closed !== undefined, 'the end of the other');
  assert.is(within2.closed, 1_006);
  for (const client of clients) client.socket.terminate();
});

test.run();
