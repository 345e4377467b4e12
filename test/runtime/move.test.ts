// Live connections that move between loops, and values that are sent between them.

import * as assert from 'uvu/assert';
import { type LoopGroup, serve } from '../../src/index.js';
import { rejectionOf } from '../event/support.js';
import { test } from '../hooks.js';
import { descriptors, until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

let group: LoopGroup;
test.before(async () => {
  group = await serve({ worker: workerFile('mover'), loops: 3 });
});
test.after(() => group.close());
test.after.each(() => until(() => group.stats().open === 0, 'every connection is closed'));

class Client {
  readonly lines: LineClient;
  private constructor(lines: LineClient) {
    this.lines = lines;
  }
  static async connect(): Promise<Client> {
    return new Client(await LineClient.connect(group));
  }
  get socket() {
    return this.lines.socket;
  }
  line(): Promise<string> {
    return this.lines.line();
  }
  ask(text: string): Promise<string> {
    return this.lines.ask(text);
  }
  /** The loop that serves it. */
  async loop(): Promise<number> {
    return Number((await this.ask('where')).split(' ')[2]);
  }
  /** Until it has left: a line that came in one piece with this one is answered where it was. */
  async move(loop: number): Promise<void> {
    const { moves } = group.stats();
    this.socket.write(`move ${loop}\n`);
    await until(() => group.stats().moves > moves, 'it has moved');
  }
  end(): Promise<void> {
    return this.lines.end();
  }
}

const other = (loop: number) => (loop + 1) % 3;

test('a connection moves with its state, and goes on', async () => {
  const client = await Client.connect();
  const from = await client.loop();
  await client.move(other(from));
  assert.is(await client.ask('next'), `next 3 ${other(from)}`);
  assert.is(await client.ask('hops'), String(other(from)));
  await client.end();
});

test('what was written before the move and read after it is in order', async () => {
  const client = await Client.connect();
  const from = await client.loop();
  // In one packet: a line, the move, lines that follow it, and a part of a line.
  client.socket.write(`a\nmove ${other(from)}\nb\nc\npart`);
  assert.is(await client.line(), `a 2 ${from}`);
  assert.is(await client.line(), `b 4 ${from}`);
  assert.is(await client.line(), `c 5 ${from}`);
  assert.is(await client.ask('ial'), `partial 6 ${other(from)}`);
  await client.end();
});

test('a large answer that is under way is not lost, repeated or cut', async () => {
  const client = await Client.connect();
  const from = await client.loop();
  client.socket.pause();
  client.socket.write(`big 3000000\nmove ${other(from)}\nafter\n`);
  // The loop cannot write all of it before the client reads.
  await until(() => group.stats().loops[from].bytesWritten > 0, 'it has begun to write');
  client.socket.resume();
  assert.is((await client.line()).length, 3_000_000);
  assert.match(await client.line(), /^after 4 /);
  assert.is(await client.loop(), other(from));
  await client.end();
});

test('a hundred moves in a row', async () => {
  const client = await Client.connect();
  let at = await client.loop();
  const before = group.stats().moves;
  for (let i = 0; i < 100; i++) {
    at = other(at);
    await client.move(at);
    assert.is(await client.loop(), at);
  }
  assert.is(group.stats().moves - before, 100);
  await client.end();
});

test('an async hook ends before its connection moves', async () => {
  const client = await Client.connect();
  const from = await client.loop();
  client.socket.write(`move ${other(from)}\nslow 30\n`);
  assert.is(await client.line(), 'begun');
  assert.is(await client.line(), 'done');
  assert.is(await client.loop(), other(from));
  await client.end();
});

test('after the move the old object answers ERR_CONNECTION_MOVED', async () => {
  const client = await Client.connect();
  const from = await client.loop();
  client.socket.write(`late ${other(from)}\n`);
  while ((await client.loop()) !== other(from));
  const witness = await Client.connect();
  await until(() => group.stats().moves > 0, 'it has moved');
  let said = '';
  while (!said.includes('stale')) said = await client.ask('posts');
  assert.match(said, /stale ERR_CONNECTION_MOVED/);
  await client.end();
  await witness.end();
});

test('a move to itself is done; to nowhere it is refused, and the connection stays', async () => {
  const client = await Client.connect();
  const from = await client.loop();
  client.socket.write(`move ${from}\n`);
  assert.is(await client.loop(), from);
  assert.is(await client.ask('move 77'), 'failed ERR_LOOP_GONE');
  assert.is(await client.ask(`bad ${other(from)}`), 'failed ERR_NOT_MOVABLE');
  assert.is(await client.loop(), from);
  await client.end();
});

test('group.move() and its errors', async () => {
  const ids: number[] = [];
  const client = await Client.connect();
  const from = await client.loop();
  for (let fd = 0; fd < 4_096; fd++) {
    // The test has no connections(); an id is generation and descriptor.
    for (let generation = 1; generation < 40; generation++) ids.push(generation * 2 ** 20 + fd);
  }
  const errors = await Promise.all(
    ids.slice(0, 10).map((id) => rejectionOf(group.move(id, other(from)))),
  );
  for (const error of errors) assert.is(error.code, 'ERR_NOT_MOVABLE');
  assert.is((await rejectionOf(group.move(1, 99))).code, 'ERR_OUT_OF_RANGE');
  await client.end();
});

test('rebalance() evens out where idle connections are', async () => {
  const clients = await Promise.all(Array.from({ length: 30 }, () => Client.connect()));
  for (const client of clients) {
    if ((await client.loop()) !== 0) client.socket.write('move 0\n');
    assert.is(await client.loop(), 0);
  }
  assert.is(group.stats().loops[0].open, 30);
  const moved = await group.rebalance();
  assert.is(moved, 20);
  await until(() => group.stats().loops.every((loop) => loop.open === 10), 'ten on each loop');
  for (const client of clients) await client.loop();
  assert.is(await group.rebalance(), 0);
  await Promise.all(clients.map((client) => client.end()));
});

test('post and broadcast reach the message hook, in order', async () => {
  const clients = await Promise.all(Array.from({ length: 3 }, () => Client.connect()));
  const byLoop: Client[] = [];
  for (const client of clients) byLoop[await client.loop()] = client;
  byLoop[0].socket.write('post 1\nbroadcast x\n');
  const posts = async (loop: number) => (await byLoop[loop].ask('posts')).split(',');
  let seen: string[] = [];
  while (!seen.includes('all: x')) seen = await posts(1);
  assert.ok(seen.indexOf('0 says hello') < seen.indexOf('all: x'));
  assert.not((await posts(0)).includes('all: x'), 'not to the one that sends');
  group.post(2, 'from the group');
  group.broadcast('to all');
  for (const loop of [0, 1, 2]) {
    while (!seen.includes('to all')) seen = await posts(loop);
    assert.is(seen.includes('from the group'), loop === 2);
    seen = [];
  }
  assert.throws(() => group.post(3, 1), /ERR_OUT_OF_RANGE|out of range/);
  assert.throws(() => group.post(0, () => 1), /could not be cloned/);
  await Promise.all(clients.map((client) => client.end()));
});

test('connections that talk while they are moved at random lose nothing', async () => {
  const before = descriptors().length;
  const clients = await Promise.all(Array.from({ length: 40 }, () => Client.connect()));
  const talk = async (client: Client, seed: number) => {
    let state = seed * 7919 + 1;
    const below = (n: number) => {
      state = (state * 48_271) % 2_147_483_647;
      return state % n;
    };
    let lines = 0;
    for (let i = 0; i < 100; i++) {
      const burst = 1 + below(4);
      let text = '';
      const moves = below(3) === 0;
      for (let k = 0; k < burst; k++) {
        if (moves && k === burst >> 1) text += `move ${below(3)}\n`;
        text += `${i}.${k}\n`;
      }
      client.socket.write(text);
      for (let k = 0; k < burst; k++) {
        lines++;
        if (moves && k === burst >> 1) lines++;
        const [what, number] = (await client.line()).split(' ');
        assert.is(what, `${i}.${k}`);
        assert.is(Number(number), lines);
      }
    }
    await client.end();
  };
  await Promise.all(clients.map(talk));
  await until(() => group.stats().open === 0, 'all are closed');
  const { accepted, served, refused, lost, moves } = group.stats();
  assert.is(accepted, served + refused + lost);
  assert.is(lost, 0);
  assert.ok(moves > 300, `${moves} moves`);
  await until(() => descriptors().length === before, 'every descriptor is given back');
});

test.run();
