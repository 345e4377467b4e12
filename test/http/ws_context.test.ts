// permessage-deflate with context between messages under serve(): what becomes of it in a move, a
// rebalancing, a reload and the death of a loop. The `ws` package's client has zlib's streams.

import { once } from 'node:events';
import * as assert from 'uvu/assert';
import { WebSocket as Peer, type PerMessageDeflateOptions } from 'ws';
import { type LoopGroup, serve } from '../../src/index.js';
import { PATIENCE_MS, rejectionOf, within } from '../event/support.js';
import { test } from '../hooks.js';
import { portOf, until } from '../runtime/clients.js';
import { nothing } from './rig.js';

let group: LoopGroup | undefined;
test.after.each(async () => {
  await group?.close();
  group = undefined;
});

const RECORD = '{"id":12345,"name":"somebody","tags":["red","green"],"at":"2020-01-01T00:00:00Z"},';

const start = async (move?: 'carry' | 'refuse') => {
  group = await serve({
    worker: new URL('./workers/context.js', import.meta.url),
    workerData: move,
    loops: 2,
    drainMs: 10_000,
  });
  return group;
};
interface Facts {
  data: string;
  seen: number;
  loop: number;
  generation: number;
  id: number;
}
/** Counts on its own what the other side must have seen. */
class Counter {
  readonly socket: Peer;
  closed: number | undefined = undefined;
  #sent = 0;
  readonly #answers: Facts[] = [];
  constructor(perMessageDeflate: PerMessageDeflateOptions = {}) {
    this.socket = new Peer(`ws://127.0.0.1:${portOf(group as LoopGroup)}/`, ['chat'], {
      perMessageDeflate: { threshold: 0, ...perMessageDeflate },
    });
    this.socket.on('message', (data) => this.#answers.push(JSON.parse(String(data))));
    this.socket.on('error', nothing);
    this.socket.on('close', (code) => {
      this.closed = code;
    });
  }
  async open(): Promise<this> {
    await within(PATIENCE_MS, once(this.socket, 'open'), 'open');
    return this;
  }
  ask(text: string): Promise<Facts> {
    this.socket.send(text);
    return this.answer(text);
  }
  async answer(text: string): Promise<Facts> {
    await until(() => this.#answers.length > 0 || this.closed !== undefined, 'an answer');
    const answer = this.#answers.shift();
    if (answer === undefined) throw new Error(`closed with ${this.closed}`);
    assert.equal([answer.seen, answer.data], [++this.#sent, text.slice(0, 20)]);
    return answer;
  }
  /** So that there is much to refer to. */
  async talk(): Promise<Facts> {
    for (let i = 0; i < 9; i++) await this.ask(`${RECORD.repeat(60)}${i}`);
    return this.ask('and now');
  }
}
const busyOf = ({ id }: Facts) => group?.connections().find((one) => one.id === id)?.busy;

test('it moves, with what the peer may refer to', async () => {
  const one = await start();
  const client = await new Counter().open();
  let facts = await client.talk();
  assert.is(busyOf(facts), true);
  for (let i = 0; i < 6; i++) {
    const there = 1 - facts.loop;
    const moved = await within(PATIENCE_MS, one.move(facts.id, there), 'a move');
    // Whoever asked is told what went along.
    assert.is(moved.contextBytes, 32_768);
    assert.ok(moved.bytes > 32_768 && moved.bytes < 40_000, `${moved.bytes} bytes`);
    facts = await client.talk();
    assert.is(facts.loop, there);
  }
  assert.equal(await one.move(facts.id, facts.loop), { bytes: 0, contextBytes: 0 });
  // Under way all the time: the order of messages and context is kept.
  for (let i = 0; i < 60; i++) await client.ask(i % 3 === 0 ? `move ${i % 2}` : `${RECORD}${i}`);
  client.socket.terminate();
});

test('rebalancing passes over it, but not over one with the server’s context alone', async () => {
  const one = await start();
  const all = await Promise.all(
    Array.from({ length: 6 }, (_, i) => new Counter({ clientNoContextTakeover: i >= 4 }).open()),
  );
  const facts: Facts[] = [];
  for (const client of all) {
    await client.ask('move 0');
    facts.push(await client.talk());
  }
  for (const { loop } of facts) assert.is(loop, 0);
  await until(() => facts.slice(4).every((fact) => busyOf(fact) === false), 'these are idle');
  assert.equal(
    facts.map((fact) => busyOf(fact)),
    [true, true, true, true, false, false],
  );
  assert.is(await within(PATIENCE_MS, one.rebalance(), 'rebalancing'), 2);
  const after = [];
  for (const client of all) after.push((await client.talk()).loop);
  assert.equal(after, [0, 0, 0, 0, 1, 1]);
  for (const client of all) client.socket.terminate();
});

test('it refuses to move, says why, and goes on with its context', async () => {
  const one = await start('refuse');
  const client = await new Counter().open();
  // Nothing to share so far.
  client.socket.send('plain', { compress: false });
  let facts = await client.answer('plain');
  assert.is((await one.move(facts.id, 1 - facts.loop)).contextBytes, 0);
  facts = await client.talk();
  for (let i = 0; i < 3; i++) {
    const refused = await rejectionOf(
      within(PATIENCE_MS, one.move(facts.id, 1 - facts.loop), 'a move'),
    );
    assert.equal(
      [refused.code, refused.message],
      [
        'ERR_NOT_MOVABLE',
        `Connection ${facts.id} cannot move: its WebSocket shares a compression context of ` +
          "32768 bytes with the peer, and deflate.move is 'refuse'",
      ],
    );
    const { loop, id } = await client.talk();
    assert.equal([loop, id], [facts.loop, facts.id]);
  }
  // Its own worker asks in vain, too.
  await client.ask(`move ${1 - facts.loop}`);
  assert.is((await client.talk()).loop, facts.loop);
  // Without the client's context there is nothing to refuse for.
  const other = await new Counter({ clientNoContextTakeover: true }).open();
  const there = await other.talk();
  assert.is((await one.move(there.id, 1 - there.loop)).contextBytes, 0);
  assert.is((await other.talk()).loop, 1 - there.loop);
  assert.is(one.stats().moves, 2);
  for (const { socket } of [client, other]) socket.terminate();
});

test('a reload drains one that refuses, after the deadline, and says how many did', async () => {
  const one = await start('refuse');
  const all = await Promise.all(
    [{}, { clientNoContextTakeover: true }].map((o) => new Counter(o).open()),
  );
  for (const client of all) await client.talk();
  const [refusing, other] = all;
  const reloading = one.reload({ deadlineMs: 5_000 });
  await until(() => one.stats().moves === 1, 'the other has moved');
  // Meanwhile it goes on as before.
  assert.is((await refusing.ask('still here')).generation, 0);
  assert.is((await other.talk()).generation, 1);
  const report = await within(PATIENCE_MS, reloading, 'the reload');
  const { moved, withContext, drained, closed, refused } = report;
  assert.equal([moved, withContext, drained, closed, refused], [1, 0, 1, 0, 1]);
  await until(() => refusing.closed !== undefined, 'its end');
  assert.is(refusing.closed, 1_001);
  assert.is((await other.talk()).generation, 1);
  other.socket.terminate();
});

test('a reload takes it along; a loop that dies does not, but for the server’s context', async () => {
  const one = await start();
  const all = await Promise.all(
    Array.from({ length: 4 }, (_, i) => new Counter({ clientNoContextTakeover: i >= 2 }).open()),
  );
  for (const client of all) {
    await client.ask('move 0');
    await client.talk();
  }
  const report = await within(PATIENCE_MS, one.reload(), 'the reload');
  assert.equal([report.moved, report.drained, report.closed], [4, 0, 0]);
  assert.equal([report.withContext, report.refused], [2, 0]);
  for (const client of all) {
    await client.ask('move 0');
    const { generation, loop } = await client.talk();
    assert.equal([generation, loop], [1, 0]);
  }
  const [killer, other, first, second] = all;
  const facts = await first.talk();
  await second.talk();
  await until(() => busyOf(facts) === false, 'it is at a boundary');
  killer.socket.send('die');
  await until(() => one.stats().rescues === 2, 'the rescue of two');
  for (const client of [first, second]) {
    await client.talk();
    assert.is(client.closed, undefined);
  }
  await until(() => killer.closed !== undefined && other.closed !== undefined, 'two ends');
  assert.equal([killer.closed, other.closed], [1_006, 1_006]);
  // The end of the group is told to who is still there.
  await within(PATIENCE_MS, one.close(), 'the end of the group');
  await until(() => second.closed !== undefined, 'its end');
  assert.equal([first.closed, second.closed], [1_001, 1_001]);
});

test.run();
