// Signals and threads: every base of the process hears what it waits for, whoever else waits for
// the same, comes, goes or is terminated.

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBase, LoopFlag } from '../../src/index.js';
import { wakersHere, wakersOf } from '../machine.js';
import { imports, runChild } from './child.js';
import { openOnce } from './conformance.js';
import { nameOf, settings } from './setting.js';
import type { Order } from './signal_worker.js';
import { HARMLESS, OTHER_REAL, REAL, raise } from './signals.js';
import { assertNoneLeft, openDescriptors, PATIENCE_MS, within } from './support.js';

/** Ends the workers that count. */
const STOP = 60;

/** Every backend with every waker, under the drives and in loopSync. */
const places = settings.flatMap((setting) =>
  wakersOf(setting.backend).flatMap((waker) =>
    (setting.drive === 'base' ? [true, false] : [false]).map((sync) => ({ setting, waker, sync })),
  ),
);
const textOf = ({ setting, waker, sync }: (typeof places)[number]) =>
  `${nameOf(setting)}, ${waker}${sync ? ', loopSync' : ''}`;

interface Started {
  worker: Worker;
  said: unknown[];
  end: Promise<unknown>;
}

/** Resolves when the worker has said that it is there. */
async function start(order: Partial<Order>): Promise<Started> {
  const whole: Order = {
    job: 'count',
    setting: settings[0],
    waker: wakersHere[0],
    sync: false,
    signals: [REAL],
    stop: STOP,
    rounds: 0,
    ...order,
  };
  const worker = new Worker(new URL('./signal_worker.js', import.meta.url), { workerData: whole });
  const said: unknown[] = [];
  worker.on('message', (value) => said.push(value));
  const there = once(worker, 'message');
  // once() rejects with what the worker throws.
  const end = within(PATIENCE_MS, once(worker, 'exit'), 'the worker');
  end.catch(() => undefined);
  await within(PATIENCE_MS, there, 'the worker');
  return { worker, said, end };
}

/** Calls of each signal on a base of this thread. */
function listen(...signals: number[]): { base: EventBase; counts(): number[] } {
  const base = new EventBase({ debug: true });
  const counts = new Map(signals.map((signal) => [signal, 0]));
  for (const signal of signals)
    base.signal(signal, (_, { fd }) => counts.set(fd, (counts.get(fd) ?? 0) + 1)).add();
  const deliver = () => {
    for (let calm = 0; calm < 2; calm++) base.loopSync(LoopFlag.NONBLOCK);
    return [...counts.values()];
  };
  return { base, counts: deliver };
}

test('a signal reaches the bases of all threads, whatever they wait in', async () => {
  openOnce();
  const before = openDescriptors();
  const mine = listen(REAL, HARMLESS);
  const workers = await Promise.all(
    places.map((place) => start({ ...place, signals: [REAL, HARMLESS] })),
  );
  for (let i = 0; i < 5; i++) {
    raise(REAL, 4);
    raise(HARMLESS);
  }
  raise(STOP);
  await Promise.all(workers.map(({ end }) => end));
  for (const [i, { said }] of workers.entries())
    assert.equal(said, ['there', 'stopped', [20, 5]], textOf(places[i]));
  assert.equal(mine.counts(), [20, 5]);
  mine.base.close();
  assertNoneLeft(before);
});

test('each thread hears its own signals and no others', async () => {
  const mine = listen(HARMLESS);
  const workers = await Promise.all(
    places.map((place, i) => start({ ...place, signals: [REAL + i, REAL - 1] })),
  );
  for (const i of places.keys()) raise(REAL + i, i + 1);
  raise(REAL - 1, 2);
  raise(STOP);
  await Promise.all(workers.map(({ end }) => end));
  for (const [i, { said }] of workers.entries()) assert.equal(said[2], [i + 1, 2]);
  assert.equal(mine.counts(), [0]);
  mine.base.close();
});

test('threads that come and go for a signal at once take nothing from one that stays', async () => {
  openOnce();
  const before = openDescriptors();
  const mine = listen(REAL, HARMLESS);
  const workers = await Promise.all(
    places
      .slice(0, 6)
      .map(({ setting, waker }) =>
        start({ job: 'come and go', setting, waker, signals: [REAL, HARMLESS, 1], rounds: 400 }),
      ),
  );
  const ends = Promise.all(workers.map(({ end }) => end));
  let over = false;
  const ended = ends.finally(() => {
    over = true;
  });
  let raised = 0;
  while (!over || raised < 100) {
    raise(REAL);
    raise(HARMLESS);
    raised++;
    await new Promise(setImmediate);
  }
  await ended;
  assert.equal(mine.counts(), [raised, raised]);
  mine.base.close();
  assertNoneLeft(before);
});

test('threads that are terminated while they come and go leave the signals as they were', async () => {
  openOnce();
  const before = openDescriptors();
  const mine = listen(REAL);
  for (const { setting, waker } of places) {
    const signals = [REAL, OTHER_REAL];
    const order: Partial<Order> = { job: 'come and go', setting, waker, signals, rounds: 1e9 };
    const workers = await Promise.all([start(order), start(order)]);
    raise(REAL);
    await Promise.all(workers.map(({ worker }) => worker.terminate()));
    raise(REAL);
  }
  assert.equal(mine.counts(), [places.length * 2]);
  mine.base.close();
  assertNoneLeft(before);
});

test('real-time signals that several threads raise at once are all counted by each base', async () => {
  const times = 1_000;
  const mine = listen(REAL, OTHER_REAL);
  const signals = [REAL, OTHER_REAL];
  const counting = await Promise.all(places.map((place) => start({ ...place, signals })));
  const raising = await Promise.all(
    [1, 2, 3].map(() => start({ job: 'raise', signals, rounds: times })),
  );
  await Promise.all(raising.map(({ end }) => end));
  // Those that are still under way have come when this thread has them.
  const all = [3 * times, 3 * times];
  const late = performance.now() + PATIENCE_MS;
  while (mine.counts().join() !== all.join() && performance.now() < late)
    await new Promise(setImmediate);
  raise(STOP);
  await Promise.all(counting.map(({ end }) => end));
  for (const [i, { said }] of counting.entries()) assert.equal(said[2], all, textOf(places[i]));
  assert.equal(mine.counts(), all);
  mine.base.close();
});

test('the default action is back when the last of many threads has gone', async () => {
  const lines = `
    import { Worker } from 'node:worker_threads';
    const lines = ${JSON.stringify(imports)} + \`
      for (let round = 0; round < 300; round++) {
        const base = new EventBase();
        base.signal('SIGTERM', () => undefined).add();
        const event = base.signal('SIGHUP', () => undefined).add();
        event.free();
        if (round % 2) base.loopSync(LoopFlag.NONBLOCK);
        base.close();
      }
    \`;
    const url = new URL('data:text/javascript,' + encodeURIComponent(lines));
    await Promise.all([1, 2, 3, 4].map(() => new Promise((resolve, reject) => {
      new Worker(url).on('exit', resolve).on('error', reject);
    })));
    console.log('gone');
  `;
  const kill = (signal: string) => `${lines} process.kill(process.pid, '${signal}');`;
  for (const signal of ['SIGTERM', 'SIGHUP']) {
    const ended = await runChild(`${kill(signal)} console.log('and it lives');`);
    assert.is(ended.stdout + ended.stderr, 'gone\n');
    assert.is(ended.signal, signal);
  }
});

test.run();
