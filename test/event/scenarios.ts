// What drive.serial.test.ts runs on the main thread and in a worker, under either drive. This module is
// also the worker: it runs the scenario that its workerData names and posts what that answers.

import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect, createServer as createTcpServer } from 'node:net';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isMainThread, MessageChannel, parentPort, workerData } from 'node:worker_threads';
import * as assert from 'uvu/assert';
import { type BackendName, Ev, LoopFlag } from '../../src/event/ev.js';
import { EventBase } from '../../src/event/event_base.js';
import type { EventHandle } from '../../src/event/event_handle.js';
import { sys } from '../../src/event/sys.js';
import { native } from '../../src/native.js';
import { beside, nestable } from '../machine.js';
import type { Setting } from './setting.js';
import { median, rejectionOf, spin } from './support.js';

const { READ, WRITE, TIMEOUT, PERSIST } = Ev;

/** What native.baseDrive() answers. */
const BY_ITSELF = 1;
const BY_LIBUV = 2;

const made: EventBase[] = [];

function make(setting: Setting): EventBase {
  const base = new EventBase(setting);
  made.push(base);
  return base;
}

/** The backend of a base beside another one. Its scenarios run where there is one. */
function nesting(): BackendName {
  if (beside === undefined) throw new Error('no backend here has a descriptor to nest by');
  return beside;
}

// ── what keeps a base busy ──────────────────────────────────────────────────────────────────────

type Load = 'every millisecond' | 'always active' | 'always readable';
export const loads: readonly Load[] = ['every millisecond', 'always active', 'always readable'];

/** Answers how often its callback has run, and ends it. */
function startLoad(base: EventBase, load: Load): { runs(): number; end(): void } {
  let runs = 0;
  if (load === 'every millisecond') {
    base.timer(() => runs++, { persist: true }).add(1);
    return { runs: () => runs, end: () => undefined };
  }
  if (load === 'always active') {
    const event = base.timer((_, self) => {
      runs++;
      self.activate(TIMEOUT);
    });
    event.activate(TIMEOUT);
    return { runs: () => runs, end: () => undefined };
  }
  const [a, b] = sys.socketPair();
  base.event(a, WRITE | PERSIST, () => runs++).add();
  const end = () => {
    sys.close(a);
    sys.close(b);
  };
  return { runs: () => runs, end };
}

// ── how late Node's own things are ──────────────────────────────────────────────────────────────

const port = () => {
  const { port1, port2 } = new MessageChannel();
  return { port1, port2 };
};

const probes: Record<string, (ports: ReturnType<typeof port>, served: () => void) => unknown> = {
  setImmediate: (_, served) => setImmediate(served),
  'setImmediate, unref’d': (_, served) => setImmediate(served).unref(),
  'setTimeout(5)': (_, served) => setTimeout(served, 5),
  message: ({ port1, port2 }, served) => {
    port2.once('message', served);
    port1.postMessage('x');
  },
};

/** How long this thread has been ready to run while the machine ran something else. */
function waitedForProcessor(): number {
  return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[1]) / 1e6;
}

/** Milliseconds until what `start` was given is called, without what the machine did instead. */
function latency(start: (served: () => void) => unknown): Promise<number> {
  return new Promise((resolve) => {
    const waited = waitedForProcessor();
    const begin = performance.now();
    start(() => {
      const passed = performance.now() - begin;
      resolve(passed - (waitedForProcessor() - waited));
    });
  });
}

const SAMPLES = 20;

/** One of many may meet a machine that stood still; a thread that is starved is late every time. */
function assertPrompt(what: string, late: number[]): void {
  const worst = Math.max(...late);
  const text = `${what}: median ${median(late).toFixed(2)}, worst ${worst.toFixed(2)} ms late`;
  assert.ok(median(late) <= 10 && worst <= 1_000, text);
}

async function promptUnder(load: Load, setting: Setting): Promise<void> {
  const base = make(setting);
  const { runs, end } = startLoad(base, load);
  const done = base.dispatch();
  const ports = port();
  for (const [name, probe] of Object.entries(probes)) {
    const late: number[] = [];
    const due = name === 'setTimeout(5)' ? 5 : 0;
    for (let i = 0; i < SAMPLES; i++)
      late.push((await latency((served) => probe(ports, served))) - due);
    assertPrompt(`${name} under ${load}`, late);
  }
  // The base was served as well, and not only now and then.
  assert.ok(runs() >= SAMPLES, `only ${runs()} callbacks ran meanwhile`);
  ports.port1.close();
  base.close();
  end();
  assert.is(await done, 'stopped');
}

async function longTimeout(setting: Setting): Promise<void> {
  const base = make(setting);
  base.timer(() => undefined, { persist: true }).add(1);
  const done = base.dispatch();
  const late: number[] = [];
  for (let i = 0; i < 3; i++) {
    late.push((await latency((served) => setTimeout(served, 50))) - 50);
  }
  base.close();
  await done;
  assertPrompt('setTimeout(50)', late);
}

// ── each callback is its own turn ───────────────────────────────────────────────────────────────

async function ownTurns(setting: Setting): Promise<void> {
  const base = make(setting);
  const seen: string[] = [];
  const callback = (n: number) => () => {
    process.nextTick(() => {
      seen.push(`tick${n}`);
      queueMicrotask(() => seen.push(`micro of tick${n}`));
    });
    Promise.resolve().then(() => {
      seen.push(`micro${n}`);
      process.nextTick(() => seen.push(`tick of micro${n}`));
    });
    seen.push(`cb${n}`);
  };
  const [a, b] = sys.socketPair();
  base.event(a, READ, callback(0)).add();
  base.event(a, WRITE, callback(1)).add();
  base.once(-1, TIMEOUT, callback(2));
  base.timer(callback(3)).add(0);
  sys.write(b, Buffer.from('x'));
  assert.is(await base.dispatch(), 'empty');
  sys.close(a);
  sys.close(b);
  base.close();
  const order = seen.filter((name) => name.startsWith('cb')).map((name) => name.slice(2));
  assert.is(new Set(order).size, 4);
  const expected = order.flatMap((n) => [
    `cb${n}`,
    `tick${n}`,
    `micro${n}`,
    `micro of tick${n}`,
    `tick of micro${n}`,
  ]);
  // Within a turn it is as in a turn of Node's own.
  const node: string[] = [];
  await new Promise<void>((resolve) => {
    setImmediate(() => {
      const before = seen.length;
      callback(9)();
      setImmediate(() => {
        node.push(...seen.slice(before));
        resolve();
      });
    });
  });
  assert.equal(
    node.map((name) => name.replace('9', '#')),
    expected.slice(0, 5).map((name) => name.replace(order[0], '#')),
    'this test knows Node’s order',
  );
  assert.equal(seen.slice(0, expected.length), expected);
}

async function localStorage(setting: Setting): Promise<void> {
  const store = new AsyncLocalStorage<string>();
  const base = make(setting);
  const seen: [string, string | undefined][] = [];
  const note = (name: string) => seen.push([name, store.getStore()]);
  const [a, b] = sys.socketPair();
  const leaking = (name: string) => () => {
    note(name);
    store.enterWith(`${name} leaks`);
    process.nextTick(() => note(`${name} tick`));
    Promise.resolve().then(() => note(`${name} promise`));
    setImmediate(() => note(`${name} immediate`));
  };
  // All in one pass, in this order.
  store.run('one', () => base.timer(leaking('one'))).activate(TIMEOUT);
  store.run('two', () => base.timer(leaking('two'))).activate(TIMEOUT);
  base.timer(leaking('none')).activate(TIMEOUT);
  store.run('once', () => base.once(-1, TIMEOUT, () => note('once')));
  // It was made in one context and is added in another.
  const read = store.run('read', () => base.event(a, READ, () => note('read')));
  store.run('elsewhere', () => read.add());
  const waited = store.run('waiter', async () => {
    await base.wait(a, WRITE);
    note('waiter');
  });
  sys.write(b, Buffer.from('x'));
  const result = store.run('dispatcher', async () => {
    await base.dispatch();
    note('dispatcher');
  });
  await Promise.all([result, waited]);
  await turn();
  base.close();
  sys.close(a);
  sys.close(b);
  const expected: typeof seen = [
    ['once', 'once'],
    ['read', 'read'],
    ['waiter', 'waiter'],
    ['dispatcher', 'dispatcher'],
  ];
  for (const [name, own] of [
    ['one', 'one'],
    ['two', 'two'],
    ['none', undefined],
  ] as const)
    expected.push(
      [name, own],
      [`${name} tick`, `${name} leaks`],
      [`${name} promise`, `${name} leaks`],
      [`${name} immediate`, `${name} leaks`],
    );
  assert.equal(seen.sort(byName), expected.sort(byName));
  assert.is(store.getStore(), undefined);
}

const byName = (one: [string, unknown], other: [string, unknown]) => (one[0] < other[0] ? -1 : 1);

// ── beside Node's own ───────────────────────────────────────────────────────────────────────────

/** Bytes go round through Node's sockets `rounds` times. */
async function tcpEcho(rounds: number): Promise<void> {
  const server = createTcpServer((socket) => socket.pipe(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect((server.address() as { port: number }).port, '127.0.0.1');
  for (let i = 0; i < rounds; i++) {
    socket.write(`round ${i}`);
    const [chunk] = await once(socket, 'data');
    assert.is(String(chunk), `round ${i}`);
  }
  socket.destroy();
  server.close();
  await once(server, 'close');
}

/** A byte goes to and fro between two events of `base`. */
function pingPong(base: EventBase, rounds: number): Promise<void> {
  const [a, b] = sys.socketPair();
  const byte = Buffer.alloc(1);
  let count = 0;
  return new Promise((resolve) => {
    const events = [a, b].map((fd) =>
      base.event(fd, READ | PERSIST, () => {
        assert.is(sys.read(fd, byte), 1);
        if (++count < rounds) {
          sys.write(fd, byte);
          return;
        }
        for (const event of events) event.free();
        sys.close(a);
        sys.close(b);
        resolve();
      }),
    );
    for (const event of events) event.add();
    sys.write(a, byte);
  });
}

async function ticks(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await sleep(1);
}

async function twoBases(setting: Setting): Promise<void> {
  const first = make(setting);
  const second = make({ backend: nesting(), drive: setting.drive });
  const results = [first.loop(LoopFlag.NO_EXIT_ON_EMPTY), second.loop(LoopFlag.NO_EXIT_ON_EMPTY)];
  assert.is(native.baseDrive(first._id), setting.drive === 'base' ? BY_ITSELF : BY_LIBUV);
  assert.is(native.baseDrive(second._id), BY_LIBUV);
  await Promise.all([pingPong(first, 200), pingPong(second, 200), tcpEcho(50), ticks(20)]);
  // Each ends for itself, and the other goes on.
  first.loopBreak();
  assert.is(await results[0], 'stopped');
  await Promise.all([pingPong(second, 20), tcpEcho(5)]);
  const again = first.loop(LoopFlag.NO_EXIT_ON_EMPTY);
  await Promise.all([pingPong(first, 20), pingPong(second, 20), ticks(3)]);
  second.close();
  first.close();
  assert.equal(await Promise.all([again, results[1]]), ['stopped', 'stopped']);
}

/** What a callback of one base does to another base, which runs as well. */
async function acrossBases(setting: Setting): Promise<void> {
  const bases = [make(setting), make({ backend: nesting(), drive: setting.drive })];
  const results = bases.map((base) => base.loop(LoopFlag.NO_EXIT_ON_EMPTY));
  // To and fro, by activation and by a timer.
  for (const start of [(event: EventHandle) => event.activate(TIMEOUT), addSoon]) {
    await new Promise<void>((resolve) => {
      let left = 100;
      const events: EventHandle[] = bases.map((base, at) =>
        base.timer(() => (--left > 0 ? start(events[1 - at]) : resolve())),
      );
      start(events[0]);
    });
  }
  // A base that another one's callback makes takes the place of the one that is closed there.
  const [first, second] = bases;
  const third = await new Promise<EventBase>((resolve) => {
    second.once(-1, TIMEOUT, () => {
      first.close();
      const next = make(setting);
      results.push(next.loop(LoopFlag.NO_EXIT_ON_EMPTY));
      resolve(next);
    });
  });
  assert.is(native.baseDrive(third._id), setting.drive === 'base' ? BY_ITSELF : BY_LIBUV);
  await Promise.all([pingPong(second, 20), pingPong(third, 20), ticks(2)]);
  third.once(-1, TIMEOUT, () => {
    second.close();
    third.close();
  });
  assert.equal(await Promise.all(results), ['stopped', 'stopped', 'stopped']);
}

const addSoon = (event: EventHandle) => event.add(0.1);

async function defaultDrive(): Promise<void> {
  const base = new EventBase();
  made.push(base);
  const done = base.loop(LoopFlag.NO_EXIT_ON_EMPTY);
  const nests = isMainThread && nestable.includes(base.backend);
  assert.is(native.baseDrive(base._id), nests ? BY_LIBUV : BY_ITSELF);
  base.close();
  await done;
}

/** poll and select have no descriptor, so only one of them can be on a thread. */
async function driveTaken(setting: Setting): Promise<void> {
  for (const backend of ['poll', 'select'] as const) {
    const first = make({ backend: setting.backend, drive: 'base' });
    const second = make({ backend, drive: setting.drive });
    const running = first.loop(LoopFlag.NO_EXIT_ON_EMPTY);
    second.timer(() => undefined).add(1);
    const error = await rejectionOf(second.loop());
    assert.is(error.code, 'ERR_DRIVE_TAKEN');
    // It was not started, and may block instead.
    assert.is(second.loopSync(), 'empty');
    await pingPong(first, 20);
    first.loopBreak();
    await running;
    second.timer(() => undefined).add(1);
    assert.is(await second.loop(), 'empty', 'the drive is free again');
    first.close();
    second.close();
  }
}

/** What is beside a base that libuv waits for may be of any backend. */
async function driveFree(setting: Setting): Promise<void> {
  const first = make({ backend: nesting(), drive: 'libuv' });
  const second = make({ backend: setting.backend, drive: 'base' });
  const results = [first.loop(LoopFlag.NO_EXIT_ON_EMPTY), second.loop(LoopFlag.NO_EXIT_ON_EMPTY)];
  await Promise.all([pingPong(first, 50), pingPong(second, 50), tcpEcho(10), ticks(5)]);
  second.close();
  first.close();
  assert.equal(await Promise.all(results), ['stopped', 'stopped']);
}

async function nodeBeside(setting: Setting): Promise<void> {
  for (const load of [undefined, ...loads]) {
    const base = make(setting);
    const running = load === undefined ? undefined : startLoad(base, load);
    const done = base.loop(LoopFlag.NO_EXIT_ON_EMPTY);
    const text = 'Node serves and fetches';
    const server = createServer((_, response) => response.end(text));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as { port: number }).port}/`;
    const own = fileURLToPath(import.meta.url);
    const work = async () => {
      for (let i = 0; i < 3; i++) {
        const response = await fetch(url);
        assert.is(await response.text(), text);
        assert.ok((await readFile(own, 'utf8')).includes(text));
      }
    };
    await Promise.all([work(), work(), ticks(5)]);
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
    base.close();
    running?.end();
    await done;
  }
}

// ── the ends of a loop ──────────────────────────────────────────────────────────────────────────

async function ends(setting: Setting): Promise<void> {
  const base = make(setting);
  assert.is(await base.dispatch(), 'empty', 'nothing was ever added');
  assert.is(await base.dispatch(), 'empty', 'at once after a loop');
  const [a, b] = sys.socketPair();
  for (const how of ['del', 'free'] as const) {
    const event = base.event(a, READ, () => undefined).add();
    const done = base.dispatch();
    // From libuv's side, when this is all that the thread still has to do.
    setTimeout(() => event[how](), 3);
    assert.is(await done, 'empty', `${how} between two passes`);
  }
  base.event(a, READ | PERSIST, () => base.close()).add();
  sys.write(b, Buffer.from('x'));
  assert.is(await base.dispatch(), 'stopped', 'closed in a callback');
  await turn();
  sys.close(a);
  sys.close(b);
}

/** Active at any time from Node's own callbacks, and told at once. */
async function fromOutside(setting: Setting): Promise<void> {
  const base = make(setting);
  const done = base.loop(LoopFlag.NO_EXIT_ON_EMPTY);
  const begin = performance.now();
  for (let i = 0; i < 50; i++) {
    await (i % 2 ? turn() : sleep(1));
    await new Promise<void>((resolve) => base.once(-1, TIMEOUT, () => resolve()));
    await new Promise<void>((resolve) => base.once(-1, TIMEOUT, () => resolve(), 0.2));
    await base.wait(-1, 0, { timeout: 0.2 });
  }
  assert.ok(performance.now() - begin < 5000, 'the base was not woken');
  base.close();
  await done;
}

async function idleShare(setting: Setting): Promise<void> {
  const waited = waitedForProcessor();
  const base = make(setting);
  const tick = base.timer(() => undefined, { persist: true }).add(10);
  const done = base.dispatch();
  const before = performance.eventLoopUtilization();
  await sleep(200);
  const nodes = performance.eventLoopUtilization(before);
  const { idleMs, activeMs, utilization } = base.utilization();
  const stolen = waitedForProcessor() - waited;
  const total = idleMs + activeMs;
  assert.ok(activeMs - stolen < 0.3 * total, `utilization is ${utilization} when idle`);
  assert.ok(Math.abs(utilization - activeMs / total) < 0.01);
  // Node's own figure holds where libuv waits; under the base drive it reads 1.
  if (setting.drive === 'libuv') assert.ok(nodes.active - stolen < 0.3 * total);
  else assert.ok(nodes.utilization > 0.9);
  await new Promise<void>((resolve) => {
    base.once(-1, TIMEOUT, () => {
      spin(100);
      resolve();
    });
  });
  assert.ok(base.utilization().activeMs >= activeMs + 100);
  assert.ok(base.utilization().idleMs >= idleMs);
  tick.free();
  assert.is(await done, 'empty');
  base.close();
}

/** A handler keeps the thread, the base and all other events. */
async function survives(setting: Setting): Promise<void> {
  const base = make(setting);
  const values = [new Error('mine'), null, undefined, 'text'];
  const caught: unknown[] = [];
  const handler = (error: unknown) => caught.push(error);
  process.on('uncaughtException', handler);
  let others = 0;
  for (const value of values) {
    base.once(-1, TIMEOUT, () => {
      throw value;
    });
    base.once(-1, TIMEOUT, () => others++);
  }
  base.once(-1, TIMEOUT, () => others++, 5);
  assert.is(await base.dispatch(), 'empty');
  process.off('uncaughtException', handler);
  assert.equal(caught, values);
  assert.is(others, values.length + 1);
  base.close();
}

// ── running them ────────────────────────────────────────────────────────────────────────────────

const scenarios = {
  ...(Object.fromEntries(
    loads.map((load) => [load, (setting: Setting) => promptUnder(load, setting)]),
  ) as Record<Load, (setting: Setting) => Promise<void>>),
  longTimeout,
  ownTurns,
  localStorage,
  twoBases,
  acrossBases,
  defaultDrive,
  driveTaken,
  driveFree,
  nodeBeside,
  ends,
  fromOutside,
  idleShare,
  survives,
};
export type ScenarioName = keyof typeof scenarios;
export const scenarioNames = Object.keys(scenarios) as ScenarioName[];

export async function runScenario(name: ScenarioName, setting: Setting): Promise<void> {
  try {
    await scenarios[name](setting);
  } finally {
    // One that fails must not disturb those after it.
    for (const base of made.splice(0)) base.close();
  }
}

if (!isMainThread && workerData?.scenario !== undefined) {
  const { scenario, setting } = workerData as { scenario: ScenarioName; setting: Setting };
  await runScenario(scenario, setting);
  // A thread that still has something alive after this does not exit, and the test sees it.
  parentPort?.postMessage('passed');
}
