// What bounds a pass, and what a base tells about itself: counts, times, events in words, versions.

import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import {
  Ev,
  EventBase,
  type EventBaseOptions,
  LoopFlag,
  version,
  versionNumber,
} from '../../src/index.js';
import { native } from '../../src/native.js';
import { test } from '../hooks.js';
import { behaviour } from './conformance.js';
import { codeOf, rejectionOf, spin } from './support.js';

const { READ, WRITE, TIMEOUT, PERSIST } = Ev;
const { ONCE, NONBLOCK } = LoopFlag;

// Who catches signals is started with the first one and stays.
test.before(() => {
  using base = new EventBase();
  base.signal('SIGUSR2', () => undefined).add();
});

// ── how much one pass runs ──────────────────────────────────────────────────────────────────────

/** Makes `count` events of `priority` active; each notes that it has run, and stays busy. */
function activateMany(base: EventBase, count: number, priority: number, busyMs = 0): number[] {
  const seen: number[] = [];
  for (let n = 0; n < count; n++)
    base
      .timer(
        () => {
          seen.push(n);
          spin(busyMs);
        },
        { priority },
      )
      .activate(TIMEOUT);
  return seen;
}

const limit = 'event_config_set_max_dispatch_interval';

behaviour(`${limit}: after so many callbacks the base polls again`, async (t) => {
  const base = t.base({ priorities: 2, maxDispatch: { callbacks: 4 } });
  const seen = activateMany(base, 10, 1);
  for (const ran of [4, 8, 10]) {
    assert.is(await t.run(base, NONBLOCK), 'passed');
    assert.is(seen.length, ran);
    assert.is(base.counts().active, 10 - ran);
  }
  assert.equal(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 'in the order of their activation');
});

behaviour(`${limit}: after so much time the base polls again`, async (t) => {
  const base = t.base({ priorities: 2, maxDispatch: { intervalMs: 3 } });
  const seen = activateMany(base, 10, 1, 1);
  let passes = 0;
  while (seen.length < 10) {
    const before = seen.length;
    assert.is(await t.run(base, NONBLOCK), 'passed');
    const ran = seen.length - before;
    // One runs always, since the time is looked at after a callback.
    assert.ok(ran >= 1 && ran <= 3, `${ran} callbacks of 1 ms in 3 ms`);
    passes++;
  }
  assert.ok(passes >= 4);
});

behaviour(`${limit}: without time one callback runs a pass`, async (t) => {
  const base = t.base({ priorities: 2, maxDispatch: { intervalMs: 0 } });
  const seen = activateMany(base, 3, 1);
  for (const ran of [1, 2, 3]) {
    assert.is(await t.run(base, NONBLOCK), 'passed');
    assert.is(seen.length, ran);
  }
});

behaviour(`${limit}: priorities below minPriority have no limit`, async (t) => {
  const cases: [EventBaseOptions['maxDispatch'], number[]][] = [
    [{ callbacks: 2 }, [5, 2, 2]],
    [{ callbacks: 2, minPriority: 0 }, [2, 2, 2]],
    [{ callbacks: 2, minPriority: 2 }, [5, 5, 2]],
    [{ callbacks: 2, minPriority: 255 }, [5, 5, 5]],
    [{ minPriority: 0 }, [5, 5, 5]],
    [{}, [5, 5, 5]],
    [undefined, [5, 5, 5]],
  ];
  for (const [maxDispatch, expected] of cases) {
    const base = t.base({ priorities: 3, maxDispatch });
    for (const priority of [0, 1, 2]) {
      const seen = activateMany(base, 5, priority);
      assert.is(await t.run(base, NONBLOCK), 'passed');
      assert.is(seen.length, expected[priority], `${JSON.stringify(maxDispatch)} at ${priority}`);
      for (const event of base.events()) event.free();
    }
    base.close();
  }
});

const limits: EventBaseOptions['maxDispatch'][] = [{ callbacks: 4 }, { intervalMs: 2 }];
for (const maxDispatch of [...limits, undefined]) {
  const [name] = Object.keys(maxDispatch ?? { none: 0 });
  const rule = maxDispatch ? 'lets in an urgent event' : 'keeps an urgent event waiting';
  behaviour(`${limit}: ${name}: a stream of callbacks ${rule}`, async (t) => {
    const [a, b] = t.pair();
    const base = t.base({ priorities: 2, maxDispatch });
    const seen: string[] = [];
    base.event(a, READ, () => seen.push('urgent'), { priority: 0 }).add();
    let left = 40;
    const streams = Array.from({ length: 20 }, () =>
      base.timer(
        (_, self) => {
          seen.push('stream');
          if (seen.length === 2) t.write(b);
          // Made active by each other, the queue never ends by itself.
          if (left-- > 0) self.activate(TIMEOUT);
          spin(0.5);
        },
        { priority: 1 },
      ),
    );
    for (const event of streams) event.activate(TIMEOUT);
    assert.is(await t.run(base), 'empty');
    assert.is(seen.length, 61);
    const urgent = seen.indexOf('urgent');
    if (maxDispatch) assert.ok(urgent >= 2 && urgent <= 8, `the urgent one came as ${urgent}`);
    else assert.is(urgent, 20);
  });
}

behaviour(`${limit}: ONCE goes on until nothing is active`, async (t) => {
  const base = t.base({ priorities: 2, maxDispatch: { callbacks: 3 } });
  const seen = activateMany(base, 10, 1);
  let turns = 0;
  base.check(() => turns++);
  base.timer(() => assert.unreachable()).add(60_000);
  assert.is(await t.run(base, ONCE), 'passed');
  assert.is(seen.length, 10);
  assert.is(turns, 4);
});

behaviour(
  `${limit}: timers that a callback sets anew wait for the next pass as ever`,
  async (t) => {
    const base = t.base({ priorities: 2, maxDispatch: { intervalMs: 1 } });
    let runs = 0;
    const done = base.timer(() => base.loopBreak());
    base
      .timer(
        (_, self) => {
          spin(0.3);
          // The clock was read again after each callback, so this is due at once.
          if (++runs < 20) self.add(0);
          else done.activate(TIMEOUT);
        },
        { priority: 1 },
      )
      .add(0);
    assert.is(await t.run(base), 'stopped');
    assert.is(runs, 20);
  },
);

test(`${limit}: values that make no sense are refused`, () => {
  const make = (maxDispatch: unknown) => () => new EventBase({ maxDispatch } as never).close();
  for (const wrong of [null, 5, 'all', true])
    assert.is(codeOf(make(wrong)), 'ERR_INVALID_ARG_TYPE', String(wrong));
  for (const name of ['intervalMs', 'callbacks', 'minPriority'])
    for (const wrong of ['1', {}, true, 1n])
      assert.is(codeOf(make({ [name]: wrong })), 'ERR_INVALID_ARG_TYPE', `${name} ${wrong}`);
  const ranges: [string, number[]][] = [
    ['intervalMs', [-1, Number.NaN, Infinity]],
    ['callbacks', [0, -1, 0.5, Number.NaN, Infinity]],
    ['minPriority', [-1, 256, 0.5, Number.NaN]],
  ];
  for (const [name, values] of ranges)
    for (const wrong of values)
      assert.is(codeOf(make({ [name]: wrong })), 'ERR_OUT_OF_RANGE', `${name} ${wrong}`);
});

// ── counts ──────────────────────────────────────────────────────────────────────────────────────

behaviour(
  'event_base_get_num_events: descriptor, timeout and activation are one each',
  async (t) => {
    const [a] = t.pair();
    const base = t.base();
    const event = base.event(a, WRITE | PERSIST, (_, self) => {
      // While its callback runs it waits and is not active.
      assert.equal(base.counts(), { added: 2, active: 0, virtual: 0 });
      self.del();
    });
    event.add(60_000);
    assert.equal(base.counts(), { added: 2, active: 0, virtual: 0 });
    let checked = 0;
    base.check(() => {
      if (checked++ === 0) assert.equal(base.counts(), { added: 3, active: 1, virtual: 0 });
    });
    assert.is(await t.run(base), 'empty');
    assert.equal(base.counts(), { added: 0, active: 0, virtual: 0 });
    assert.equal(base.maxCounts(), { added: 3, active: 1, virtual: 0 });
  },
);

behaviour('event_base_get_max_events: the most there has been, until cleared', async (t) => {
  const [a] = t.pair();
  const base = t.base();
  assert.equal(base.maxCounts(), { added: 0, active: 0, virtual: 0 });
  const event = base.event(a, READ, () => assert.unreachable()).add(60_000);
  const users = [1, 2, 3].map(() => base.timer(() => undefined));
  for (const user of users) user.activate(READ);
  const most = { added: 5, active: 3, virtual: 0 };
  assert.equal(base.maxCounts(), most);
  users[0].free();
  event.removeTimer();
  assert.equal(base.counts(), { added: 3, active: 2, virtual: 0 });
  assert.equal(base.maxCounts(), most);
  assert.equal(base.maxCounts(true), most, 'what it was before it is cleared');
  assert.equal(base.maxCounts(), { added: 3, active: 2, virtual: 0 });
  assert.is(await t.run(base, ONCE), 'passed');
  assert.equal(base.maxCounts(true), { added: 3, active: 2, virtual: 0 });
  event.del();
  assert.equal(base.maxCounts(), { added: 1, active: 0, virtual: 0 });
});

behaviour('event_base_get_num_events: an inbox counts as virtual and keeps a loop', async (t) => {
  const base = t.base();
  const inbox = native.inboxNew(8, 'pipe', 0);
  assert.is(native.inboxAttach(base._id, inbox), 0);
  assert.equal(base.counts(), { added: 0, active: 0, virtual: 1 });
  assert.is(await t.run(base, NONBLOCK), 'passed');
  native.inboxDetach(base._id);
  assert.equal(base.counts(), { added: 0, active: 0, virtual: 0 });
  assert.equal(base.maxCounts(true), { added: 0, active: 0, virtual: 1 });
  assert.equal(base.maxCounts(), { added: 0, active: 0, virtual: 0 });
  assert.is(await t.run(base, NONBLOCK), 'empty');
  base.close();
  native.inboxFree(inbox);
});

// ── which event runs, and when ──────────────────────────────────────────────────────────────────

behaviour('event_base_get_running_event: the event whose callback runs', async (t) => {
  const base = t.base();
  const other = new EventBase({ backend: t.backend });
  const seen: unknown[] = [];
  const inner = other.timer(() => seen.push(base.runningEvent, other.runningEvent));
  const outer = base.timer(() => {
    seen.push(base.runningEvent);
    inner.activate(TIMEOUT);
    assert.is(other.loopSync(), 'empty');
    seen.push(base.runningEvent, other.runningEvent);
  });
  outer.activate(TIMEOUT);
  const freed = base.timer((_, self) => {
    self.free();
    seen.push(base.runningEvent);
  });
  freed.activate(TIMEOUT);
  for (const watch of ['prepare', 'check'] as const)
    base[watch](() => assert.is(base.runningEvent, undefined));
  assert.is(await t.run(base), 'empty');
  assert.is(base.runningEvent, undefined);
  other.close();
  assert.is(seen.length, 6);
  assert.ok([outer, outer, inner, outer, undefined, freed].every((one, at) => one === seen[at]));
});

behaviour('event_base_gettimeofday_cached: stands still in a pass', async (t) => {
  const base = t.base();
  const inPass: number[] = [];
  const stamp = () => {
    inPass.push(base.wallTime());
    spin(3);
  };
  for (let i = 0; i < 3; i++) base.timer(stamp).activate(TIMEOUT);
  const before = Date.now();
  const outside = base.wallTime();
  assert.ok(outside >= before - 1);
  spin(3);
  assert.ok(base.wallTime() >= outside + 2, 'not cached outside');
  assert.is(await t.run(base), 'empty');
  assert.equal(new Set(inPass).size, 1);
  assert.ok(base.wallTime() >= inPass[0] + 8);
});

behaviour('event_base_update_cache_time: both clocks are read again in a pass', async (t) => {
  const base = t.base();
  const moved: number[] = [];
  const times = () => [base.now(), base.wallTime()];
  base
    .timer(() => {
      const before = times();
      spin(4);
      assert.equal(times(), before);
      base.updateTime();
      const after = times();
      for (const at of [0, 1]) moved.push(after[at] - before[at]);
      spin(4);
      assert.equal(times(), after);
    })
    .activate(TIMEOUT);
  base.updateTime();
  assert.is(await t.run(base), 'empty');
  assert.is(moved.length, 2);
  assert.ok(Math.min(...moved) >= 3, `moved by ${moved}`);
});

// ── events in words ─────────────────────────────────────────────────────────────────────────────

behaviour('event_base_foreach_event: every event that is added or active, once', (t) => {
  const [a] = t.pair();
  const base = t.base();
  const make = () => base.event(a, READ, () => undefined);
  const events = {
    descriptor: make().add(),
    both: make().add(60_000),
    common: base.timer(() => undefined).add(base.commonTimeout(60_000)),
    timer: base.timer(() => undefined).add(60_000),
    signal: base.signal('SIGUSR2', () => undefined).add(),
    active: base.timer(() => undefined),
    finalized: make(),
  };
  make();
  events.active.activate(READ);
  events.finalized.finalize();
  const listed = [...base.events()];
  assert.is(listed.length, 7);
  for (const [name, event] of Object.entries(events)) assert.ok(listed.includes(event), name);
});

behaviour('event_base_dump_events: a line an event, with all that matters of it', (t) => {
  const [a, b] = t.pair();
  const base = t.base({ priorities: 3 });
  assert.match(base.dump(), /^events: none$/m);
  base.event(a, READ | PERSIST, () => undefined).add(60_000);
  base.event(b, WRITE, () => undefined, { priority: 0 }).add();
  base.signal('SIGUSR2', () => undefined).add();
  base.timer(() => undefined).add(base.commonTimeout(60_000));
  base.event(-1, 0, () => undefined, { priority: 2 }).activate(READ | TIMEOUT);
  const text = base.dump();
  const has = (line: RegExp) => assert.match(text, new RegExp(`^${line.source}$`, 'm'));
  const due = /due in (60000\.000|59\d{3}\.\d{3}) ms/.source;
  const name = base.backend;
  has(new RegExp(`base on ${name} \\(features: .+\\), priorities 3`));
  has(/counts: 6 added \(most 6\), 1 active \(most 1\), 0 virtual \(most 0\)/);
  has(/turns: 0, busy \d+\.\d % of the time/);
  has(/events:/);
  has(new RegExp(`  fd ${a}, READ\\|PERSIST, added, ${due}, priority 1`));
  has(new RegExp(`  fd ${b}, WRITE, added, priority 0`));
  has(/ {2}SIGUSR2, SIGNAL\|PERSIST, added, priority 1/);
  has(new RegExp(`  no descriptor, none, ${due}, priority 1`));
  has(/ {2}no descriptor, none, active for TIMEOUT\|READ, priority 2/);
  assert.is(text.trimEnd().split('\n').length, 9);
});

test('a closed base tells nothing more', async () => {
  const base = new EventBase();
  base.close();
  for (const use of [
    () => base.dump(),
    () => base.wallTime(),
    () => base.maxCounts(),
    () => base.prepare(() => undefined),
    () => base.activateSignal('SIGUSR2'),
    () => base.signal('SIGUSR2', () => undefined),
  ])
    assert.is(codeOf(use), 'ERR_BASE_CLOSED', String(use));
  assert.is((await rejectionOf(base.wait(-1, 0))).code, 'ERR_BASE_CLOSED');
  assert.is(base.runningEvent, undefined);
});

test('event_get_version: the version is the package’s, in words and to compare', () => {
  const path = new URL('../../../package.json', import.meta.url);
  const own = JSON.parse(readFileSync(path, 'utf8'));
  assert.is(version, own.version);
  const [major, minor, patch] = version.split(/[.-]/).map(Number);
  assert.is(versionNumber, major * 2 ** 24 + minor * 2 ** 16 + patch * 2 ** 8);
  assert.is(EventBase.signalMethod, 'libuv');
});

test.run();
