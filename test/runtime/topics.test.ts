// Publishing and subscribing across loops: who gets what, in which order, and that nobody misses
// anything or gets it twice while connections move, loops are reloaded and die.

import * as assert from 'uvu/assert';
import { type LoopGroup, type ServeOptions, serve } from '../../src/index.js';
import { codeOf, PATIENCE_MS, rejectionOf, thrownBy, within } from '../event/support.js';
import { test } from '../hooks.js';
import { until, workerFile } from './clients.js';
import { LineClient } from './lines.js';

let group: LoopGroup;
/** Loops that have died. */
let downs = 0;
const start = async (options: Partial<ServeOptions> = {}) => {
  group = await serve({ worker: workerFile('topics'), loops: 2, drainMs: 10_000, ...options });
  downs = 0;
  group.on('loop', (_, what) => {
    if (what === 'down') downs++;
  });
};
test.after.each(() => group.close());

async function subscriber(topic: string, loop?: number): Promise<LineClient> {
  const client = await LineClient.connect(group);
  if (loop !== undefined) {
    client.socket.write(`move ${loop}\n`);
    while (!(await client.ask('where')).startsWith(`loop ${loop} `));
  }
  assert.is(await client.ask(`sub ${topic}`), `sub ${topic} done`);
  return client;
}
const total = (key: 'published' | 'delivered' | 'missed') =>
  group.stats().loops.reduce((sum, loop) => sum + loop[key], 0);

test('to every subscriber on every loop, and to nobody else', async () => {
  await start({ loops: 3 });
  const [a, b, c] = await Promise.all([0, 1, 2].map((loop) => subscriber('news', loop)));
  const other = await subscriber('other');
  assert.is(await b.ask('pub news hello there'), 'hello there');
  assert.is(await b.line(), 'pub news done');
  for (const client of [a, c]) assert.is(await client.line(), 'hello there');
  group.publish('news', Buffer.from('from the group\n'));
  for (const client of [a, b, c]) assert.is(await client.line(), 'from the group');
  assert.is(await a.ask('unsub news'), 'unsub news done');
  group.publish('news', 'once more\n');
  for (const client of [b, c]) assert.is(await client.line(), 'once more');
  assert.is(await a.ask('where'), 'loop 0 0');
  assert.match(await other.ask('where'), /^loop/);
  assert.equal([total('published'), total('delivered'), total('missed')], [1, 8, 0]);
  await group.reload();
  // What the group published, and what loops did that are gone, counts on.
  const { published, delivered, missed } = group.stats();
  assert.equal([published, delivered, missed], [3, 8, 0]);
  for (const client of [a, b, c, other]) await client.end();
});

test('subscribing twice is once; a loop without subscribers is not woken', async () => {
  await start();
  const client = await subscriber('t', 0);
  assert.is(await client.ask('sub t'), 'sub t done');
  const turns = () => group.stats().loops[1].turns;
  const before = turns();
  for (let i = 0; i < 100; i++) group.publish('t', `${i}\n`);
  for (let i = 0; i < 100; i++) assert.is(await client.line(), String(i));
  assert.is(await client.ask('where'), 'loop 0 0');
  assert.ok(turns() - before < 20, `${turns() - before} turns`);
  await client.end();
});

test('names, sizes and arguments', async () => {
  await start({ topics: { topicsMax: 3, backlogBytes: 1_000 } });
  const codes = (topics: unknown[]) =>
    topics.map((topic) => codeOf(() => group.publish(topic as string, 'x')));
  assert.equal(codes(['', 'a\0b', 'x'.repeat(256), 'é'.repeat(128), '\ud800', 5]), [
    ...Array(5).fill('ERR_INVALID_ARG_VALUE'),
    'ERR_INVALID_ARG_TYPE',
  ]);
  for (const topic of ['x'.repeat(255), 'é'.repeat(127), '😀']) group.publish(topic, 'x');
  assert.is(
    codeOf(() => group.publish('t', 5 as never)),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(
    codeOf(() => group.publish('t', Buffer.alloc(1_001))),
    'ERR_OUT_OF_RANGE',
  );
  const client = await subscriber('a');
  for (const topic of ['b', 'c']) await client.ask(`sub ${topic}`);
  assert.is(await client.ask('sub d'), 'sub failed ERR_OUT_OF_RANGE');
  await client.ask('unsub b');
  assert.is(await client.ask('sub d'), 'sub d done');
  await client.end();
  const worker = workerFile('topics');
  for (const [topics, code] of [
    [{ slow: 'wait' }, 'ERR_INVALID_ARG_VALUE'],
    [{ outputMax: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ keptMax: 0.5 }, 'ERR_OUT_OF_RANGE'],
    [7, 'ERR_INVALID_ARG_TYPE'],
  ] as const)
    assert.is((await rejectionOf(serve({ worker, topics: topics as never }))).code, code);
});

/** Checks numbered lines of several publishers: what came is in order; answers what is missing. */
class Ledger {
  readonly next = new Map<string, number>();
  gaps = 0;
  twice = 0;
  count = 0;
  take(line: string): void {
    const [name, number] = line.split(' ');
    const expected = this.next.get(name) ?? 0;
    const got = Number(number);
    if (got > expected) this.gaps += got - expected;
    if (got < expected) this.twice++;
    this.next.set(name, Math.max(expected, got + 1));
    this.count++;
  }
}

/** Reads lines until `count` numbered ones have come. */
async function numbered(client: LineClient, count: number, ledger: Ledger): Promise<void> {
  while (ledger.count < count) {
    const line = await client.line();
    if (line === 'closed') throw new Error(`closed after ${ledger.count} of ${count} messages`);
    if (/^\w \d+$/.test(line)) ledger.take(line);
  }
}

const EACH = 3_000;

test('no gap and nothing twice, for those who stay and for those who move, through reloads', async () => {
  await start();
  const clients = await Promise.all(Array.from({ length: 6 }, (_, i) => subscriber('t', i % 2)));
  const publishers = await Promise.all([subscriber('p', 0), subscriber('q', 1)]);
  const ledgers = clients.map(() => new Ledger());
  const all = clients.map((client, i) => numbered(client, 3 * EACH, ledgers[i]));
  publishers.forEach((client, i) => {
    client.socket.write(`many t ${'ab'[i]} 0 ${EACH}\n`);
  });
  let sent = 0;
  let over = false;
  const moving = (async () => {
    for (let hops = 0; !over; hops++) {
      for (const client of clients.slice(2)) client.socket.write(`move ${hops % 2}\n`);
      for (let i = 0; i < 40 && sent < EACH; i++) group.publish('t', `c ${sent++}\n`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  })();
  for (let i = 0; i < 2; i++) {
    const report = await within(PATIENCE_MS, group.reload(), 'a reload');
    assert.equal([report.drained, report.closed], [0, 0]);
  }
  await within(3 * PATIENCE_MS, Promise.all(all), 'all messages');
  over = true;
  await moving;
  for (const { gaps, twice, count } of ledgers)
    assert.equal([gaps, twice, count], [0, 0, 3 * EACH]);
  assert.ok(group.stats().moves > 20, `${group.stats().moves} moves`);
  assert.is(total('missed'), 0);
  for (const client of [...clients, ...publishers]) client.socket.destroy();
});

test('a loop that dies: its subscribers are rescued with their topics, and miss nothing', async () => {
  await start();
  const clients = await Promise.all([subscriber('t', 0), subscriber('t', 0), subscriber('t', 1)]);
  const killer = await subscriber('k', 0);
  const ledgers = clients.map(() => new Ledger());
  const all = clients.map((client, i) => numbered(client, 2_000, ledgers[i]));
  let sent = 0;
  const publish = (count: number) => {
    for (let i = 0; i < count; i++) group.publish('t', `c ${sent++}\n`);
  };
  publish(500);
  await until(() => ledgers.every(({ count }) => count === 500), 'the first');
  killer.socket.write('die\n');
  for (let i = 0; i < 100; i++) {
    publish(10);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await until(() => group.stats().rescues >= 2, 'the rescue');
  publish(500);
  await within(PATIENCE_MS, Promise.all(all), 'all messages');
  for (const { gaps, twice } of ledgers) assert.equal([gaps, twice], [0, 0]);
  for (const client of [...clients, killer]) client.socket.destroy();
});

for (const way of ['move 1', 'die'])
  test(`a loop that dies while a subscriber arrives (${way}): it misses nothing`, async () => {
    await start({ loops: 3 });
    const client = await subscriber('t', 0);
    const other = await subscriber('t', 2);
    const ledgers = [client, other].map(() => new Ledger());
    const all = Promise.all([client, other].map((one, i) => numbered(one, 300, ledgers[i])));
    all.catch(() => undefined);
    let sent = 0;
    const publish = (count: number) => {
      for (let i = 0; i < count; i++) group.publish('t', `c ${sent++}\n`);
    };
    publish(100);
    await until(() => ledgers.every(({ count }) => count === 100), 'the first');
    // The others cannot take it in before the next ones are published.
    const blockers = await Promise.all([1, 2].map((loop) => subscriber('k', loop)));
    for (const blocker of blockers) assert.is(await blocker.ask('block 500'), 'blocking');
    const gone = () => group.stats().moves + group.stats().rescues;
    const before = gone();
    client.socket.write(`fatal ${way}\n`);
    await until(() => gone() > before, 'it is on its way');
    publish(100);
    const deaths = way === 'die' ? 2 : 1;
    await until(() => downs === deaths, `${deaths} loops died`);
    publish(100);
    const last = until(() => ledgers.every(({ next }) => next.get('c') === sent), 'the last');
    await Promise.race([last, all]);
    for (const { gaps, twice } of ledgers) assert.equal([gaps, twice], [0, 0]);
    await within(PATIENCE_MS, all, 'all messages');
    for (const one of [client, other, ...blockers]) one.socket.destroy();
  });

test('who does not read misses what is beyond outputMax, and others do not wait', async () => {
  await start({ topics: { outputMax: 100_000 } });
  const slow = await subscriber('t', 0);
  const fine = await subscriber('t', 0);
  slow.socket.pause();
  const piece = `${'x'.repeat(9_999)}\n`;
  let sent = 0;
  while (total('missed') < 10) {
    group.publish('t', piece);
    sent++;
    assert.is((await fine.line()).length, 9_999);
  }
  slow.socket.resume();
  // Behind what it got there is what comes now.
  let got = 0;
  while ((await slow.line()).length === 9_999) if (++got === sent - total('missed')) break;
  assert.ok(got > 10 && got < sent);
  group.publish('t', 'last\n');
  assert.is(await slow.line(), 'last');
  for (const client of [slow, fine]) await client.end();
});

test('or is cut off', async () => {
  await start({ topics: { outputMax: 50_000, slow: 'close' } });
  const slow = await subscriber('t', 0);
  const fine = await subscriber('t', 1);
  slow.socket.pause();
  const piece = `${'x'.repeat(9_999)}\n`;
  while (group.stats().open === 2) {
    group.publish('t', piece);
    await fine.line();
  }
  await fine.end();
  slow.socket.destroy();
});

test('a loop that is behind: nobody gets what does not fit, and it can be sent again', async () => {
  await start({ topics: { backlogMax: 100 } });
  const behind = await subscriber('t', 0);
  const fine = await subscriber('t', 1);
  assert.is(await behind.ask('block 300'), 'blocking');
  let sent = 0;
  const publish = () => {
    for (;;) {
      group.publish('t', `c ${sent}\n`);
      sent++;
    }
  };
  const error = thrownBy(publish);
  assert.is(error.code, 'ERR_INBOX_FULL');
  assert.match(error.message, /loop 0/);
  assert.ok(sent >= 100, `${sent}`);
  // The loop goes on, and what was refused was given to neither.
  await until(() => codeOf2(() => group.publish('t', `c ${sent}\n`)) === undefined, 'room');
  for (const client of [behind, fine]) {
    const ledger = new Ledger();
    await numbered(client, sent + 1, ledger);
    assert.equal([ledger.gaps, ledger.twice], [0, 0]);
    await client.end();
  }
});
function codeOf2(body: () => void): string | undefined {
  try {
    body();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code;
  }
}

test('a loop can publish more than a backlog in one turn: its own subscribers read along', async () => {
  await start({ loops: 1, topics: { backlogMax: 10 } });
  const client = await subscriber('t');
  client.socket.write('flood t 5000\n');
  for (let i = 0; i < 5_000; i++) assert.is(await client.line(), String(i));
  assert.is(await client.line(), 'flood t done');
  await client.end();
});

test.run();
