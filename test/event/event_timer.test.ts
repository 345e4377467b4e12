// Timers and timeouts. The clock is read once a pass, so what is compared here are deadlines, which
// are exact, and never how long something took.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Ev, type EventBase, type EventHandle, LoopFlag } from '../../src/index.js';
import { behaviour } from './conformance.js';
import { spin } from './support.js';

const { READ, WRITE, TIMEOUT, PERSIST } = Ev;
/** Deadlines are whole microseconds; a sum of two of them may be off by as much. */
const EXACT = 0.002;

/** When a timer is due, by the clock of its base; exact within a pass. */
function deadlineOf(base: EventBase, event: EventHandle): number {
  return base.now() + (event.remaining as number);
}

function assertSame(actual: number, expected: number, what: string): void {
  const off = actual - expected;
  assert.ok(Math.abs(off) <= EXACT, `${what}: ${off} ms off`);
}

/** Runs `body` in the first pass, where the clock stands still: deadlines differ by their times. */
function standingStill(base: EventBase, body: () => void): void {
  base.once(-1, TIMEOUT, body);
}

// ── one-shot ────────────────────────────────────────────────────────────────────────────────────

behaviour('a timer fires once, with TIMEOUT, and never early', async (t) => {
  for (const ms of [0, 0.001, 0.3, 1, 7.25]) {
    const base = t.base();
    const seen: number[] = [];
    const before = performance.now();
    base
      .timer((what) => {
        seen.push(what);
        const passed = performance.now() - before;
        assert.ok(passed >= ms, `${ms} ms were over after ${passed}`);
      })
      .add(ms);
    assert.is(await t.run(base), 'empty');
    assert.equal(seen, [TIMEOUT]);
  }
});

behaviour('timers fire in the order of their deadlines', async (t) => {
  const base = t.base();
  const seen: number[] = [];
  standingStill(base, () => {
    for (const ms of [5, 1, 4, 2, 3]) base.timer(() => seen.push(ms)).add(ms);
  });
  await t.run(base);
  assert.equal(seen, [1, 2, 3, 4, 5]);
});

behaviour('timers of one deadline fire in the order they were set', async (t) => {
  const base = t.base();
  const seen: number[] = [];
  standingStill(base, () => {
    const timers = [0, 1, 2, 3, 4].map((n) => base.timer(() => seen.push(n)));
    for (const n of [3, 1, 4, 0, 2]) timers[n].add(1);
    timers[4].add(1);
  });
  await t.run(base);
  assert.equal(seen, [3, 1, 0, 2, 4]);
});

behaviour('more timers than the ring holds all fire, in order', async (t) => {
  const base = t.base();
  const count = 10_000;
  const seen: number[] = [];
  standingStill(base, () => {
    for (let i = 0; i < count; i++) base.timer(() => seen.push(i)).add((i % 7) / 100);
  });
  assert.is(await t.run(base), 'empty');
  const expected = Array.from({ length: count }, (_, i) => i);
  expected.sort((x, y) => (x % 7) - (y % 7) || x - y);
  assert.equal(seen, expected);
});

behaviour('a timer that is set anew fires once, at its last deadline', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  standingStill(base, () => {
    const moved = base.timer(() => seen.push('moved')).add(1);
    const sooner = base.timer(() => seen.push('sooner')).add(1000);
    base.timer(() => seen.push('middle')).add(4);
    moved.add(8);
    sooner.add(2);
  });
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['sooner', 'middle', 'moved']);
});

behaviour('a timer of zero set in a callback fires in a later pass', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const seen: string[] = [];
  const timer = base.timer(() => seen.push('timer'));
  base
    .event(a, READ, () => {
      seen.push('first');
      timer.add(0);
    })
    .add();
  base
    .event(a, READ, () => {
      seen.push('second');
      timer.add(0);
    })
    .add();
  t.write(b);
  await t.run(base);
  assert.equal(seen.at(-1), 'timer');
  assert.is(seen.length, 3);
});

behaviour('remaining counts down and ends with the timer', async (t) => {
  const base = t.base();
  const event = base.timer(() => undefined);
  assert.is(event.remaining, undefined);
  event.add(1000);
  const first = event.remaining as number;
  assert.ok(first <= 1000 && first > 0);
  spin(1);
  const second = event.remaining as number;
  assert.ok(second <= first - 1, `${first} became ${second}`);
  event.add(0);
  assert.is(event.remaining, 0);
  await t.run(base);
  assert.is(event.remaining, undefined);
});

behaviour('the longest time is accepted and does not fire', async (t) => {
  const base = t.base();
  base.timer(() => assert.unreachable()).add(9_007_199_254_740);
  base.timer(() => base.loopBreak()).add(1);
  assert.is(await t.run(base), 'stopped');
});

// ── persistent ──────────────────────────────────────────────────────────────────────────────────

behaviour('a persistent timer ticks from the time it was due', async (t) => {
  const base = t.base();
  const interval = 4;
  let due = 0;
  let ticks = 0;
  const event = base.timer(
    (what, self) => {
      assert.is(what, TIMEOUT);
      // Set anew before the callback. A machine that was away for a whole interval drops ticks.
      const next = due + interval > base.now() ? due + interval : base.now() + interval;
      if (due > 0) assertSame(deadlineOf(base, self), next, `tick ${ticks}`);
      due = deadlineOf(base, self);
      spin(1.5);
      if (++ticks === 6) self.del();
    },
    { persist: true },
  );
  event.add(interval);
  assert.is(await t.run(base), 'empty');
  assert.is(ticks, 6);
});

behaviour('ticks that were missed are dropped, not made up for', async (t) => {
  const base = t.base();
  const interval = 2;
  const turns: number[] = [];
  let blocked = false;
  const event = base.timer(
    (_, self) => {
      turns.push(base.now());
      if (!blocked) {
        blocked = true;
        spin(5 * interval);
        return;
      }
      // Late by four ticks; the next is a whole interval away.
      if (turns.length === 2) assertSame(deadlineOf(base, self), base.now() + interval, 'next');
      if (turns.length === 3) self.del();
    },
    { persist: true },
  );
  event.add(interval);
  assert.is(await t.run(base), 'empty');
  assert.is(turns.length, 3);
  assert.ok(turns[2] - turns[1] >= interval - EXACT);
});

behaviour('a persistent timeout starts from now when the descriptor was ready', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  let whats = '';
  base
    .event(a, READ | PERSIST, (what, self) => {
      whats += `${what} `;
      assertSame(deadlineOf(base, self), base.now() + 100_000, 'deadline');
      t.read(a);
      self.del();
    })
    .add(100_000);
  base.timer(() => t.write(b)).add(3);
  await t.run(base);
  assert.is(whats, `${READ} `);
});

behaviour('a persistent timer activated by hand starts from now', async (t) => {
  const base = t.base();
  let runs = 0;
  const event = base.timer(
    (_, self) => {
      runs++;
      assertSame(deadlineOf(base, self), base.now() + 100_000, 'deadline');
      self.del();
    },
    { persist: true },
  );
  event.add(100_000);
  base.timer(() => event.activate(TIMEOUT)).add(2);
  assert.is(await t.run(base), 'empty');
  assert.is(runs, 1);
});

behaviour('adding without a time leaves a running timer alone', async (t) => {
  const [a] = t.pair();
  const base = t.base();
  standingStill(base, () => {
    const once = base.event(a, READ, () => undefined).add(50);
    const due = deadlineOf(base, once);
    base.updateTime();
    once.add();
    assertSame(deadlineOf(base, once), due, 'deadline');
    once.add(70);
    assertSame(deadlineOf(base, once), base.now() + 70, 'deadline');
    base.loopBreak();
  });
  await t.run(base);
});

behaviour('adding with a time replaces the interval', async (t) => {
  const base = t.base();
  const seen: number[] = [];
  const event = base.timer(
    (_, self) => {
      seen.push(Math.round((deadlineOf(base, self) - base.now()) * 1000));
      if (seen.length === 1) {
        self.add(100_000);
        self.activate(TIMEOUT);
      } else {
        self.del();
      }
    },
    { persist: true },
  );
  event.add(1);
  await t.run(base);
  assert.is(seen[1], 100_000_000);
});

behaviour('removeTimer keeps the descriptor and forgets the interval', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const seen: number[] = [];
  const event = base
    .event(a, READ | PERSIST, (what, self) => {
      seen.push(what, self.pending(READ | TIMEOUT));
      self.del();
    })
    .add(1);
  event.removeTimer();
  event.removeTimer();
  assert.is(event.pending(READ | TIMEOUT), READ);
  base.timer(() => t.write(b)).add(4);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [READ, READ]);
});

behaviour('removeTimer on a mere timer deletes it', async (t) => {
  const base = t.base();
  base
    .timer(() => assert.unreachable())
    .add(1)
    .removeTimer();
  assert.is(await t.run(base), 'empty');
});

// ── timeouts of descriptors ─────────────────────────────────────────────────────────────────────

behaviour('an event of a descriptor that is not ready in time gets TIMEOUT', async (t) => {
  const [a] = t.pair();
  const base = t.base();
  const seen: number[] = [];
  base.event(a, READ, (what, self) => seen.push(what, self.pending(READ | TIMEOUT))).add(2);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [TIMEOUT, 0]);
});

behaviour('a timeout leaves a persistent event waiting, for both', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const seen: number[] = [];
  base
    .event(a, READ | PERSIST, (what, self) => {
      seen.push(what);
      if (what & READ) return self.del();
      assert.is(self.pending(READ | TIMEOUT), READ | TIMEOUT);
      if (seen.length === 2) t.write(b);
    })
    .add(2);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen.slice(0, 2), [TIMEOUT, TIMEOUT]);
  assert.is((seen.at(-1) as number) & READ, READ);
});

for (const persist of [0, PERSIST]) {
  const kind = persist ? 'a persistent' : 'a one-shot';
  behaviour(`${kind} event gets READ and TIMEOUT of one pass in one callback`, async (t) => {
    const [a, b] = t.pair();
    const base = t.base();
    const seen: number[] = [];
    base
      .event(a, READ | persist, (what, self) => {
        seen.push(what);
        self.del();
      })
      .add(1);
    t.write(b);
    spin(2);
    assert.is(await t.run(base), 'empty');
    assert.equal(seen, [READ | TIMEOUT]);
  });
}

behaviour('setting a timeout anew cancels the one that waits for its callback', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  const second = base.timer(() => seen.push('second'));
  const first = base.timer(() => {
    seen.push('first');
    assert.is(second.pending(TIMEOUT), TIMEOUT);
    second.add(3);
    base.once(-1, TIMEOUT, () => seen.push('between'), 1);
  });
  first.add(1);
  second.add(1.1);
  spin(2);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['first', 'between', 'second']);
});

behaviour('setting a timeout anew keeps what else the event is active for', async (t) => {
  // libevent drops the READ too.
  const [a, b] = t.pair();
  const base = t.base();
  const seen: number[] = [];
  const event = base.event(a, READ | PERSIST, (what, self) => {
    seen.push(what);
    self.del();
  });
  event.add(1);
  const first = base.timer(() => event.add(1000));
  first.activate(TIMEOUT);
  t.write(b);
  spin(2);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [READ]);
});

// ── the clock ───────────────────────────────────────────────────────────────────────────────────

behaviour('now() stands still within a pass and goes on between passes', async (t) => {
  const base = t.base();
  const stamps: number[] = [];
  const outside = base.now();
  spin(1);
  assert.ok(base.now() >= outside + 1, 'not cached outside');
  const stamp = (_: number, self: EventHandle) => {
    stamps.push(base.now());
    spin(1);
    stamps.push(base.now());
    if (stamps.length < 6) self.add(0);
  };
  base.timer(stamp).add(0);
  base.timer(stamp).activate(TIMEOUT);
  await t.run(base, LoopFlag.ONCE);
  assert.ok(stamps.length >= 4);
  for (let i = 0; i < stamps.length; i += 2) assert.is(stamps[i + 1], stamps[i]);
});

behaviour('updateTime reads the clock again within a pass', async (t) => {
  const base = t.base();
  let moved = 0;
  base
    .timer(() => {
      const before = base.now();
      spin(1);
      base.updateTime();
      moved = base.now() - before;
      const after = base.now();
      spin(1);
      assert.is(base.now(), after, 'and it stands still again');
    })
    .add(0);
  await t.run(base);
  assert.ok(moved >= 1, `it moved by ${moved} ms`);
});

behaviour('the clock is not the last pass’s once the loop is over', async (t) => {
  const base = t.base();
  base.timer(() => undefined).add(0);
  await t.run(base);
  await null;
  const before = base.now();
  spin(2);
  assert.ok(base.now() >= before + 2, 'now() stands still after the loop');
  base.updateTime();
  const event = base.timer(() => undefined).add(5);
  spin(2);
  assert.ok((event.remaining as number) <= 3);
});

behaviour('WRITE with a timeout that is over before the first wait gets both', async (t) => {
  const [a] = t.pair();
  const base = t.base();
  const seen: number[] = [];
  base.event(a, WRITE, (what) => seen.push(what)).add(0);
  spin(1);
  await t.run(base);
  assert.equal(seen, [WRITE | TIMEOUT]);
});

test.run();
