// Common timeouts: durations that many events share. They behave as any other timeout does; what
// they cost is the business of the core's tests and of the benches.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Ev, type EventBase, type EventHandle, LoopFlag } from '../../src/index.js';
import { behaviour } from './conformance.js';
import { codeOf, spin, thrownBy } from './support.js';

const { READ, TIMEOUT, PERSIST } = Ev;

/** Deadlines are whole microseconds; a sum of two of them may be off by as much. */
const EXACT = 0.002;

function assertDue(base: EventBase, event: EventHandle, ms: number): void {
  const off = (event.remaining as number) - ms;
  assert.ok(Math.abs(off) <= EXACT, `${off} ms off, ${base.dump()}`);
}

/** Runs `body` in a pass, where the clock stands still. */
async function inPass(run: () => Promise<unknown>, base: EventBase, body: () => void) {
  base.once(-1, TIMEOUT, body);
  return await run();
}

// ── the durations ───────────────────────────────────────────────────────────────────────────────

behaviour('event_base_init_common_timeout: the same object for the same duration', (t) => {
  const base = t.base();
  const second = base.commonTimeout(1000);
  assert.is(second.ms, 1000);
  assert.is(base.commonTimeout(1000), second);
  assert.is(base.commonTimeout(1e3), second);
  assert.is.not(base.commonTimeout(1000.001), second);
  assert.is.not(t.base().commonTimeout(1000), second);
  // The queue's duration is whole microseconds, and so is what it says.
  const tenth = base.commonTimeout(0.0999);
  assert.is(base.commonTimeout(0.1), tenth);
  assert.is(tenth.ms, 0.1);
  assert.is(base.commonTimeout(0).ms, 0);
});

behaviour('event_base_init_common_timeout: a base has 1,024 of them', async (t) => {
  const base = t.base();
  const all = Array.from({ length: 1024 }, (_, i) => base.commonTimeout(i / 100));
  const error = thrownBy(() => base.commonTimeout(5000));
  assert.is(error.code, 'ENOSPC');
  assert.is(error.errno, -28);
  assert.is(error.syscall, 'event_base_init_common_timeout');
  assert.is(base.commonTimeout(3), all[300], 'those that there are go on');
  let fired = 0;
  for (const one of all) base.timer(() => fired++).add(one);
  assert.is(await t.run(base), 'empty');
  assert.is(fired, 1024);
});

behaviour('event_base_init_common_timeout: bad durations', (t) => {
  const base = t.base();
  for (const wrong of [undefined, null, '1', {}, [], true, 1n])
    assert.is(
      codeOf(() => base.commonTimeout(wrong as never)),
      'ERR_INVALID_ARG_TYPE',
    );
  for (const wrong of [-1, -0.001, Number.NaN, Infinity, 1e300])
    assert.is(
      codeOf(() => base.commonTimeout(wrong)),
      'ERR_OUT_OF_RANGE',
    );
  assert.is(base.commonTimeout(9_007_199_254_740).ms, 9_007_199_254_740);
});

behaviour('a common timeout belongs to its base', (t) => {
  const [base, other] = [t.base(), t.base()];
  const event = base.timer(() => undefined);
  const error = thrownBy(() => event.add(other.commonTimeout(5)));
  assert.is(error.code, 'ERR_INVALID_ARG_VALUE');
  assert.match(error.message, 'is a common timeout of another base');
  // What only looks like one is none.
  const { ms } = base.commonTimeout(5);
  assert.is(
    codeOf(() => event.add({ ms })),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(event.pending(0xff), 0);
});

behaviour('after close there are none', (t) => {
  const base = t.base();
  const event = base.timer(() => assert.unreachable());
  const five = base.commonTimeout(5);
  event.add(five);
  base.close();
  assert.is(
    codeOf(() => base.commonTimeout(5)),
    'ERR_BASE_CLOSED',
  );
  assert.is(
    codeOf(() => event.add(five)),
    'ERR_BASE_CLOSED',
  );
});

// ── firing ──────────────────────────────────────────────────────────────────────────────────────

behaviour('a common timeout fires once, with TIMEOUT, and never early', async (t) => {
  for (const ms of [0, 0.3, 1, 7.25]) {
    const base = t.base();
    const seen: number[] = [];
    const common = base.commonTimeout(ms);
    const before = performance.now();
    base
      .timer((what) => {
        seen.push(what);
        assert.ok(performance.now() - before >= ms);
      })
      .add(common);
    assert.is(await t.run(base), 'empty');
    assert.equal(seen, [TIMEOUT]);
  }
});

behaviour('common timeouts and others fire in the order of their deadlines', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  const run = () => t.run(base);
  await inPass(run, base, () => {
    const add = (name: string, ms: number) => {
      base.timer(() => seen.push(name)).add(base.commonTimeout(ms));
      base.timer(() => seen.push(`${name} too`)).add(ms + 0.001);
    };
    for (const [name, ms] of [
      ['d', 4],
      ['a', 1],
      ['c', 3],
      ['e', 5],
      ['b', 2],
    ] as const)
      add(name, ms);
  });
  assert.equal(
    seen,
    ['a', 'b', 'c', 'd', 'e'].flatMap((name) => [name, `${name} too`]),
  );
});

behaviour('events of one common timeout fire in the order they were added', async (t) => {
  const base = t.base();
  const seen: number[] = [];
  const common = base.commonTimeout(1);
  await inPass(
    () => t.run(base),
    base,
    () => {
      const timers = [0, 1, 2, 3, 4].map((n) => base.timer(() => seen.push(n)));
      for (const n of [3, 1, 4, 0, 2]) timers[n].add(common);
      timers[4].add(common);
      timers[1].del();
      timers[0].del();
      timers[0].add(common);
    },
  );
  assert.equal(seen, [3, 2, 4, 0]);
});

behaviour('thousands of events of a few common timeouts all fire, in order', async (t) => {
  const base = t.base();
  const count = 10_000;
  const commons = [3, 1, 2].map((ms) => base.commonTimeout(ms));
  const seen: number[] = [];
  await inPass(
    () => t.run(base),
    base,
    () => {
      for (let i = 0; i < count; i++)
        base.timer(() => seen.push(i)).add(commons[i % commons.length]);
    },
  );
  const place = (i: number) => commons[i % commons.length].ms * count + i;
  const expected = Array.from({ length: count }, (_, i) => i);
  expected.sort((x, y) => place(x) - place(y));
  assert.equal(seen, expected);
});

behaviour('a persistent event of a common timeout repeats from when it was due', async (t) => {
  const base = t.base();
  const common = base.commonTimeout(3);
  let due = 0;
  let ticks = 0;
  base
    .timer(
      (_, self) => {
        const now = base.now();
        const next = now + (self.remaining as number);
        // A machine that was away for a whole interval drops ticks.
        const expected = due + 3 > now ? due + 3 : now + 3;
        if (due > 0) assert.ok(Math.abs(next - expected) <= EXACT, `tick ${ticks}`);
        due = next;
        spin(0.7);
        if (++ticks === 5) self.del();
      },
      { persist: true },
    )
    .add(common);
  // Others of the queue, before and behind.
  for (let i = 0; i < 3; i++) base.timer(() => undefined).add(common);
  assert.is(await t.run(base), 'empty');
  assert.is(ticks, 5);
});

behaviour('a persistent event that was ready starts its common timeout from now', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  base
    .event(a, READ | PERSIST, (what, self) => {
      assert.is(what, READ);
      assertDue(base, self, 60_000);
      self.del();
    })
    .add(base.commonTimeout(60_000));
  base.timer(() => t.write(b)).add(2);
  assert.is(await t.run(base), 'empty');
});

for (const persist of [0, PERSIST]) {
  const kind = persist ? 'a persistent' : 'a one-shot';
  behaviour(`${kind} event gets READ and its common timeout in one callback`, async (t) => {
    const [a, b] = t.pair();
    const base = t.base();
    const seen: number[] = [];
    base
      .event(a, READ | persist, (what, self) => {
        seen.push(what);
        self.del();
      })
      .add(base.commonTimeout(1));
    t.write(b);
    spin(2);
    assert.is(await t.run(base), 'empty');
    assert.equal(seen, [READ | TIMEOUT]);
  });
}

// ── changing ────────────────────────────────────────────────────────────────────────────────────

behaviour('an event goes from one kind of timeout to the other, and back', async (t) => {
  for (const persist of [false, true]) {
    const base = t.base();
    const seen: string[] = [];
    const [near, far] = [base.commonTimeout(1), base.commonTimeout(60_000)];
    const routes = {
      'heap to common': [60_000, near],
      'common to heap': [far, 1],
      'common to common': [far, near],
      'there and back': [near, far, 60_000, far, near],
      'to heap and to the same': [near, 60_000, near],
    };
    await inPass(
      () => t.run(base),
      base,
      () => {
        for (const [name, route] of Object.entries(routes)) {
          const event = base.timer(
            (_, self) => {
              seen.push(name);
              // A persistent one repeats with what it was added with last.
              if (persist) assert.ok((self.remaining as number) <= 1);
              self.del();
            },
            { persist },
          );
          for (const timeout of route) event.add(timeout);
          assertDue(base, event, 1);
          assert.is(event.pending(0xff), TIMEOUT);
        }
        assert.is(base.counts().added, Object.keys(routes).length);
      },
    );
    assert.equal(seen.sort(), Object.keys(routes).sort());
  }
});

behaviour('remaining and pending tell of a common timeout; add() leaves it alone', async (t) => {
  const [a] = t.pair();
  const base = t.base();
  const event = base.event(a, READ, () => assert.unreachable());
  await inPass(
    () => t.run(base, LoopFlag.NONBLOCK),
    base,
    () => {
      event.add(base.commonTimeout(60_000));
      assert.is(event.pending(0xff), READ | TIMEOUT);
      assertDue(base, event, 60_000);
      assert.equal(base.counts(), { added: 2, active: 0, virtual: 0 });
      spin(1);
      base.updateTime();
      event.add();
      assert.ok((event.remaining as number) <= 59_999);
    },
  );
});

behaviour('removeTimer takes a common timeout and leaves the descriptor', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const seen: number[] = [];
  const common = base.commonTimeout(1);
  const event = base.event(a, READ | PERSIST, (what, self) => {
    seen.push(what, self.pending(0xff));
    self.del();
  });
  event.add(common);
  event.removeTimer();
  event.removeTimer();
  assert.is(event.pending(0xff), READ);
  assert.is(event.remaining, undefined);
  base.timer(() => t.write(b)).add(4);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [READ, READ]);
});

behaviour(
  'an event is deleted from the middle of its queue, and freed in a callback',
  async (t) => {
    const base = t.base();
    const seen: number[] = [];
    const common = base.commonTimeout(1);
    const events: EventHandle[] = [];
    for (let n = 0; n < 9; n++)
      events.push(
        base.timer(() => {
          seen.push(n);
          if (n === 2) for (const at of [2, 3, 8]) events[at].free();
        }),
      );
    for (const event of events) event.add(common);
    for (const at of [0, 4, 5]) events[at].del();
    assert.is(await t.run(base), 'empty');
    assert.equal(seen, [1, 2, 6, 7]);
  },
);

behaviour('activation by hand starts a persistent common timeout from now', async (t) => {
  const base = t.base();
  let runs = 0;
  const event = base.timer(
    (_, self) => {
      runs++;
      assertDue(base, self, 60_000);
      self.del();
    },
    { persist: true },
  );
  event.add(base.commonTimeout(60_000));
  base.timer(() => event.activate(TIMEOUT)).add(1);
  assert.is(await t.run(base), 'empty');
  assert.is(runs, 1);
});

test.run();
