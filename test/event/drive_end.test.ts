// The end of a thread or a process in which bases run, in whatever state they are, under both
// drives: it comes at once, in Node's way, and leaves nothing open.

import { Worker } from 'node:worker_threads';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withoutNesting } from '../machine.js';
import { testWhere } from '../where.js';
import { runChild } from './child.js';
import { nameOf, type Setting, settings } from './setting.js';
import { assertNoneLeft, openDescriptors, PATIENCE_MS, within } from './support.js';
import type { State } from './victim.js';

// ── the end of a thread ─────────────────────────────────────────────────────────────────────────

interface End {
  code: number;
  error?: { value: unknown };
}

interface Started {
  worker: Worker;
  /** It is in its state. */
  there: Promise<void>;
  end: Promise<End>;
}

function start(state: State, setting: Setting): Started {
  const worker = new Worker(new URL('./victim.js', import.meta.url), {
    workerData: { state, setting },
  });
  let error: End['error'];
  worker.on('error', (value) => {
    error = { value };
  });
  const exit = new Promise<End>((resolve) => {
    worker.once('exit', (code) => resolve({ code, error }));
  });
  const end = within(PATIENCE_MS, exit, `the worker '${state}'`);
  const there = new Promise<void>((resolve, reject) => {
    worker.once('message', () => resolve());
    end.then((early) => reject(early.error?.value ?? new Error(`exit ${early.code}`)), reject);
  });
  there.catch(() => undefined);
  return { worker, there, end };
}

const AT_ONCE = 4;

/** Runs `body` for 0 to `rounds` - 1, a few at a time, and compares the open descriptors. */
async function rounds(
  count: number,
  body: (round: number) => Promise<void>,
  look = openDescriptors,
): Promise<void> {
  const before = look();
  let next = 0;
  const lane = async () => {
    while (next < count) await body(next++);
  };
  const lanes = await Promise.allSettled(Array.from({ length: AT_ONCE }, lane));
  for (const result of lanes) if (result.status === 'rejected') throw result.reason;
  assertNoneLeft(before, look());
}

const ended: [State, times: number][] = [
  ['waiting', 20],
  ['waiting for nothing', 8],
  ['running callbacks', 20],
  ['always active', 8],
  ['in an endless callback', 20],
  ['in an endless promise of a callback', 8],
  ['in a callback beside other bases', 8],
  ['in loopSync', 20],
  ['in an endless callback of loopSync', 8],
];

for (const [state, times] of ended) {
  const lacking = state === 'in a callback beside other bases' ? withoutNesting : undefined;
  testWhere(
    lacking,
    `terminate() ends a worker that is ${state}, and leaves nothing open`,
    async () => {
      await rounds(times, async (round) => {
        const { worker, there, end } = start(state, settings[round % settings.length]);
        await there;
        const begin = performance.now();
        await worker.terminate();
        const took = performance.now() - begin;
        assert.ok(took < 2000, `it took ${took} ms`);
        assert.equal(await end, { code: 1, error: undefined });
      });
    },
  );
}

/** Node leaves the files open that it was reading modules from when it was terminated. */
const withoutModules = () => openDescriptors().filter((one) => !one.endsWith('.js'));

const startable = ended.filter(
  ([state]) => withoutNesting === undefined || state !== 'in a callback beside other bases',
);

test('terminate() ends a worker at any moment of its start', async () => {
  await rounds(
    36,
    async (round) => {
      const [state] = startable[round % startable.length];
      const { worker, end } = start(state, settings[round % settings.length]);
      await new Promise((resolve) => setTimeout(resolve, round * 1.5));
      const begin = performance.now();
      await worker.terminate();
      assert.ok(performance.now() - begin < 2000);
      await end;
    },
    withoutModules,
  );
});

test('process.exit() in a callback ends the worker with that code', async () => {
  await rounds(16, async (round) => {
    const states: State[] = ['in an exit of its own', 'in an exit of its own below loopSync'];
    const { end } = start(states[round >> 3], settings[round % settings.length]);
    assert.equal(await end, { code: 3, error: undefined });
  });
});

test('a worker ends by itself when only unref’d events are left, or none', async () => {
  await rounds(16, async (round) => {
    const states: State[] = ['left with what is unref’d', 'closed in a callback'];
    const { end } = start(states[round >> 3], settings[round % settings.length]);
    assert.equal(await end, { code: 0, error: undefined });
  });
});

test('what a callback throws and nobody catches is the worker’s error event', async () => {
  await rounds(8, async (round) => {
    const state = round < 4 ? 'throwing an error' : 'throwing below loopSync';
    const { code, error } = await start(state, settings[round % settings.length]).end;
    assert.is(code, 1);
    assert.instance(error?.value, RangeError);
    assert.match(String(error?.value), round < 4 ? 'a callback’s own' : 'below loopSync');
  });
  await rounds(8, async (round) => {
    const state = round < 4 ? 'throwing null' : 'throwing undefined';
    const { code, error } = await start(state, settings[round % settings.length]).end;
    assert.is(code, 1);
    assert.equal(error, { value: round < 4 ? null : undefined });
  });
});

test('50 workers with bases running come and go, whatever ends them', async () => {
  const ways: State[] = [
    'waiting',
    'running callbacks',
    'left with what is unref’d',
    'throwing null',
  ];
  await rounds(50, async (round) => {
    const state = ways[round % ways.length];
    const { worker, there, end } = start(state, settings[(round >> 2) % settings.length]);
    if (round % ways.length < 2) {
      await there;
      await worker.terminate();
    }
    await end;
  });
});

test('the addon stays loaded when the last thread that used it is gone', async () => {
  // The main thread of this process never loads it.
  const victim = new URL('./victim.js', import.meta.url).href;
  const workerData = JSON.stringify({ state: 'waiting', setting: settings[0] });
  const lines = `
    import { once } from 'node:events';
    import { Worker } from 'node:worker_threads';
    const loaded = () => process.report.getReport().sharedObjects
      .filter((path) => path.endsWith('multiloop.node')).length;
    const counts = [loaded()];
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(new URL('${victim}'), {
        workerData: ${workerData},
        execArgv: [],
      });
      await once(worker, 'message');
      await worker.terminate();
      counts.push(loaded());
    }
    console.log(counts.join());`;
  const { stdout, stderr } = await runChild(lines, { bare: true });
  assert.is(stderr + stdout, '0,1,1,1\n');
});

// ── the end of a process ────────────────────────────────────────────────────────────────────────

/** The lines of a child that ends by itself with code 0, under each drive. */
async function eachDrive(source: string): Promise<void> {
  await Promise.all(
    settings.map(async (setting) => {
      const head = `const base = new EventBase(${JSON.stringify(setting)});\n`;
      const { code, signal, stdout, stderr } = await runChild(head + source);
      const told = `${nameOf(setting)}: code ${code}, ${signal}, ${stdout}${stderr}`;
      assert.ok(code === 0 && stdout === 'as it should\n', told);
    }),
  );
}

test('a process ends when only unref’d events are left', () =>
  eachDrive(`
    base.timer(() => console.log('too long')).add(5000).unref();
    const persistent = base.timer(() => undefined, { persist: true }).unref();
    persistent.add(1);
    base.dispatch().then(() => console.log('and the loop did not'));
    process.on('exit', () => console.log('as it should'));
  `));

test('a process with NO_EXIT_ON_EMPTY ends when only unref’d events are left', () =>
  eachDrive(`
    base.timer(() => console.log('too long')).add(5000).unref();
    void base.loop(LoopFlag.NO_EXIT_ON_EMPTY);
    process.on('exit', () => console.log('as it should'));
  `));

// What is unref'd itself shows whether the process is kept by something else.
test('a ref’d event keeps the process alive', () =>
  eachDrive(`
    const event = base.timer(() => console.log('too long')).add(5000);
    setTimeout(() => { console.log('as it should'); event.free(); }, 50).unref();
    void base.dispatch();
  `));

test('ref() takes unref() back', () =>
  eachDrive(`
    const event = base.timer(() => console.log('too long')).unref().add(5000).ref();
    setTimeout(() => { console.log('as it should'); event.unref(); }, 50).unref();
    void base.dispatch();
  `));

test('a descriptor keeps the process alive as long as its event is added', () =>
  eachDrive(`
    const [a] = sys.socketPair();
    const event = base.event(a, Ev.READ, () => undefined).add();
    setTimeout(() => { console.log('as it should'); event.del(); }, 50).unref();
    void base.dispatch();
  `));

test('NO_EXIT_ON_EMPTY keeps the process alive with nothing added', () =>
  eachDrive(`
    setTimeout(() => { console.log('as it should'); base.loopBreak(); }, 50).unref();
    void base.loop(LoopFlag.NO_EXIT_ON_EMPTY);
  `));

test('an unref’d event fires as long as something else is alive', () =>
  eachDrive(`
    base.timer(() => console.log('as it should')).add(20).unref();
    base.timer(() => undefined).add(60);
    void base.dispatch();
  `));

test('the promise of a loop that runs empty is settled before the process ends', () =>
  eachDrive(`
    const [a] = sys.socketPair();
    const results = [await base.dispatch()];
    base.once(-1, Ev.TIMEOUT, () => undefined);
    results.push(await base.dispatch());
    const event = base.event(a, Ev.READ, () => undefined).add();
    setTimeout(() => event.free(), 10);
    results.push(await base.dispatch());
    if (results.join() === 'empty,empty,empty') console.log('as it should');
  `));

test('process.exit() in a callback ends the process with its code', () =>
  eachDrive(`
    base.once(-1, Ev.TIMEOUT, () => { console.log('as it should'); process.exit(); });
    base.timer(() => console.log('too long')).add(5000);
    void base.dispatch();
  `));

test('an uncaught exception in a callback ends the process as Node does it', async () => {
  for (const drive of ['base', 'libuv']) {
    const { code, stdout, stderr } = await runChild(`
      const base = new EventBase({ drive: '${drive}' });
      base.once(-1, Ev.TIMEOUT, () => { throw new RangeError('nobody catches this'); });
      base.once(-1, Ev.TIMEOUT, () => console.log('too long'));
      process.on('exit', (code) => console.log('exit', code));
      void base.dispatch();
    `);
    assert.is(code, 1);
    assert.is(stdout, 'exit 1\n');
    assert.match(stderr, /RangeError: nobody catches this\n +at .*\[eval1\]:\d+/);
  }
});

// One of poll or select has none.
testWhere(
  withoutNesting,
  'bases that nobody closed give their descriptors back when they are collected',
  async () => {
    for (const drive of ['base', 'libuv']) {
      const { stdout, stderr } = await runChild(
        `
      import { readdirSync } from 'node:fs';
      import { setImmediate as turn } from 'node:timers/promises';
      const count = () => readdirSync('/proc/self/fd').length;
      const before = count();
      async function make(i) {
        const base = new EventBase({ drive: '${drive}' });
        const event = base.timer(() => undefined).add(i % 2);
        // Some have never run; some have, and some wait for ever in a loop of their own.
        if (i % 3 === 1) await base.dispatch();
        if (i % 3 === 2) base.loopSync();
      }
      for (let i = 0; i < 30; i++) await make(i);
      const between = count();
      for (let i = 0; i < 200 && count() > before; i++) {
        await turn();
        gc();
      }
      console.log(between - before >= 20 ? count() - before : 'nothing to collect');
      // One that runs is nobody's to collect.
      let ticks = 0;
      void (() => {
        const base = new EventBase({ drive: '${drive}' });
        base.timer(() => { if (++ticks === 20) base.close(); gc(); }, { persist: true }).add(1);
        return base.dispatch();
      })().then((result) => console.log(result, ticks));
      `,
        { flags: ['--expose-gc'] },
      );
      assert.is(stderr + stdout, '0\nstopped 20\n');
    }
  },
);

test('on a Node whose ticks cannot be drained by us, they drain after the pass', async () => {
  for (const drive of ['base', 'libuv']) {
    const { stdout, stderr } = await runChild(
      `
      const base = new EventBase({ drive: '${drive}' });
      const seen = [];
      for (const n of [0, 1]) {
        base.once(-1, Ev.TIMEOUT, () => {
          process.nextTick(() => seen.push('tick' + n));
          Promise.resolve().then(() => seen.push('micro' + n));
          seen.push('cb' + n);
        });
      }
      await base.dispatch();
      process.nextTick(() => { throw null; });
      process.once('uncaughtException', (error) => {
        seen.push(String(error));
        base.once(-1, Ev.TIMEOUT, () => seen.push('goes on'));
        base.dispatch().then((result) => console.log(seen.join(' '), result));
      });`,
      { flags: ['--import', 'data:text/javascript,delete process._tickCallback'] },
    );
    assert.is(stdout + stderr, 'cb0 cb1 tick0 tick1 micro0 micro1 null goes on empty\n');
  }
});

test.run();
