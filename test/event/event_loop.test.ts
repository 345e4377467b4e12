// How a loop runs: which callbacks, in which order, how often, when it ends, and what an exception
// does to it.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Ev, EventBase, type EventHandle, LoopFlag } from '../../src/index.js';
import { asynchronous, behaviour } from './conformance.js';
import { codeOf, rejectionOf, spin } from './support.js';

const { READ, WRITE, TIMEOUT, PERSIST } = Ev;
const { ONCE, NONBLOCK, NO_EXIT_ON_EMPTY } = LoopFlag;

// ── the end of a loop ───────────────────────────────────────────────────────────────────────────

behaviour('an empty base has nothing to wait for', async (t) => {
  const base = t.base();
  for (const flags of [0, ONCE, NONBLOCK]) {
    assert.is(await t.run(base, flags), 'empty');
    assert.is(base.gotExit, false);
    assert.is(base.gotBreak, false);
  }
});

behaviour('a loop ends when its last event is over, and can be run again', async (t) => {
  const base = t.base();
  let runs = 0;
  const timer = base.timer(() => runs++);
  for (let i = 1; i <= 3; i++) {
    timer.add(1);
    assert.is(await t.run(base), 'empty');
    assert.is(runs, i);
  }
});

behaviour('a loop ends when its last event is deleted in a callback', async (t) => {
  const [a] = t.pair();
  const base = t.base();
  const waiting = base.event(a, READ, () => assert.unreachable()).add();
  base.timer(() => waiting.del()).add(1);
  assert.is(await t.run(base), 'empty');
});

behaviour(
  'a loop ends when its last event is deleted between two passes',
  async (t) => {
    const [a] = t.pair();
    const base = t.base();
    for (const end of ['del', 'free'] as const) {
      const waiting = base.event(a, READ, () => assert.unreachable()).add();
      const done = base.loop();
      setTimeout(() => waiting[end](), 2);
      assert.is(await done, 'empty');
    }
  },
  asynchronous,
);

behaviour('ONCE waits for something, runs it, and leaves the rest', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const seen: string[] = [];
  base.event(a, READ, () => seen.push('read')).add();
  base
    .timer(() => {
      seen.push('timer');
      t.write(b);
    })
    .add(2);
  assert.is(await t.run(base, ONCE), 'passed');
  assert.equal(seen, ['timer']);
  assert.is(await t.run(base, ONCE), 'passed');
  assert.equal(seen, ['timer', 'read']);
  assert.is(await t.run(base, ONCE), 'empty');
});

behaviour('ONCE goes on until nothing is active', async (t) => {
  const base = t.base({ priorities: 3 });
  const seen: number[] = [];
  for (const priority of [2, 0, 1])
    base.timer(() => seen.push(priority), { priority }).activate(TIMEOUT);
  base.timer(() => assert.unreachable()).add(10_000);
  assert.is(await t.run(base, ONCE), 'passed');
  assert.equal(seen, [0, 1, 2]);
});

behaviour('NONBLOCK does not wait', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  let runs = 0;
  base.event(a, READ, () => runs++).add(10_000);
  assert.is(await t.run(base, NONBLOCK), 'passed');
  assert.is(runs, 0);
  t.write(b);
  assert.is(await t.run(base, NONBLOCK), 'passed');
  assert.is(runs, 1);
});

behaviour('NONBLOCK does one pass, also when an event is always ready', async (t) => {
  // libevent goes on for as long as anything is ready, other than its documentation says.
  const [a] = t.pair();
  const base = t.base({ priorities: 2 });
  const seen: number[] = [];
  for (const priority of [1, 0])
    base.event(a, WRITE | PERSIST, () => seen.push(priority), { priority }).add();
  for (const flags of [NONBLOCK, NONBLOCK | ONCE]) assert.is(await t.run(base, flags), 'passed');
  assert.equal(seen, [0, 0], 'the most urgent ones, once a loop');
});

behaviour('NO_EXIT_ON_EMPTY goes on with nothing to wait for', async (t) => {
  const base = t.base();
  let ends = 0;
  base.timer(() => (ends = base.counts().added)).add(1);
  base.loopExit(5);
  base.timer(() => undefined).add(2);
  assert.is(await t.run(base, NO_EXIT_ON_EMPTY), 'stopped');
  assert.ok(ends > 0);
  assert.is(base.gotExit, true);
});

behaviour(
  'NO_EXIT_ON_EMPTY waits for events that are added later',
  async (t) => {
    const base = t.base();
    const done = base.loop(NO_EXIT_ON_EMPTY);
    const [a, b] = t.pair();
    setTimeout(() => {
      t.write(b);
      base.event(a, READ, () => base.loopBreak()).add();
    }, 5);
    assert.is(await done, 'stopped');
    assert.is(base.gotBreak, true);
  },
  asynchronous,
);

// ── loopExit ────────────────────────────────────────────────────────────────────────────────────

behaviour(
  'loopExit lets the callbacks of its priority run, and those of lower ones not',
  async (t) => {
    const base = t.base({ priorities: 3 });
    const seen: string[] = [];
    const activate = (name: string, priority: number, then?: () => void) =>
      base
        .timer(
          () => {
            seen.push(name);
            then?.();
          },
          { priority },
        )
        .activate(TIMEOUT);
    activate('low', 2);
    activate('middle 1', 1, () => base.loopExit());
    activate('middle 2', 1);
    activate('urgent', 0);
    assert.is(await t.run(base), 'stopped');
    assert.equal(seen, ['urgent', 'middle 1', 'middle 2']);
    assert.is(base.gotExit, true);
    assert.is(base.gotBreak, false);
    // What did not run is still active.
    assert.is(await t.run(base), 'empty');
    assert.is(seen.at(-1), 'low');
    assert.is(base.gotExit, false);
  },
);

behaviour('loopExit before the loop gives it one pass', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  let runs = 0;
  base.event(a, READ | PERSIST, () => runs++).add();
  t.write(b);
  base.loopExit();
  assert.is(await t.run(base), 'stopped');
  assert.is(runs, 1);
  assert.is(base.gotExit, true);
});

behaviour('loopExit with a time ends the loop then', async (t) => {
  const base = t.base();
  let ticks = 0;
  base.timer(() => ticks++, { persist: true }).add(1);
  const before = performance.now();
  base.loopExit(8);
  assert.is(await t.run(base), 'stopped');
  assert.ok(performance.now() - before >= 8);
  assert.ok(ticks >= 1);
  assert.is(base.gotExit, true);
});

behaviour('of several loopExits the first ends this loop and the others later ones', async (t) => {
  const base = t.base();
  base.timer(() => undefined, { persist: true }).add(1);
  base.loopExit(30);
  base.loopExit(1);
  assert.is(await t.run(base), 'stopped');
  // Unless the machine was away for so long that both were due at once.
  if (base.counts().added === 2) assert.is(await t.run(base), 'stopped');
  assert.is(base.counts().added, 1);
});

behaviour(
  'loopExit between two passes ends the loop',
  async (t) => {
    const base = t.base();
    base.timer(() => assert.unreachable()).add(10_000);
    const done = base.loop();
    setTimeout(() => base.loopExit(), 2);
    assert.is(await done, 'stopped');
    assert.is(base.gotExit, true);
  },
  asynchronous,
);

// ── loopBreak and loopContinue ──────────────────────────────────────────────────────────────────

behaviour('loopBreak ends the loop after the callback; the rest stays active', async (t) => {
  const base = t.base();
  const seen: number[] = [];
  for (const n of [0, 1, 2, 3])
    base
      .timer(() => {
        seen.push(n);
        if (n === 1) base.loopBreak();
      })
      .activate(TIMEOUT);
  assert.is(await t.run(base), 'stopped');
  assert.equal(seen, [0, 1]);
  assert.is(base.gotBreak, true);
  assert.is(base.gotExit, false);
  assert.is(base.counts().active, 2);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [0, 1, 2, 3]);
  assert.is(base.gotBreak, false);
});

behaviour('what the kernel reported before a loopBreak is delivered later, once', async (t) => {
  const base = t.base();
  const seen = new Map<number, number>();
  for (let i = 0; i < 20; i++) {
    const [a, b] = t.pair();
    const count = () => {
      seen.set(a, (seen.get(a) ?? 0) + 1);
      base.loopBreak();
    };
    base.event(a, READ, count).add();
    t.write(b);
  }
  for (let i = 1; i <= 20; i++) {
    assert.is(await t.run(base), 'stopped');
    assert.is(seen.size, i);
  }
  assert.is(await t.run(base), 'empty');
  assert.ok([...seen.values()].every((n) => n === 1));
});

behaviour('loopBreak before the loop ends it before it begins', async (t) => {
  // libevent forgets it, other than a loopexit.
  const base = t.base();
  const event = base.timer(() => assert.unreachable()).add(0);
  base.loopBreak();
  assert.is(await t.run(base), 'stopped');
  assert.is(base.gotBreak, true);
  event.del();
  assert.is(await t.run(base), 'empty');
  assert.is(base.gotBreak, false);
});

behaviour(
  'loopBreak between two passes ends the loop',
  async (t) => {
    const [a] = t.pair();
    const base = t.base();
    base.event(a, READ, () => assert.unreachable()).add();
    const done = base.loop();
    setTimeout(() => base.loopBreak(), 2);
    assert.is(await done, 'stopped');
    assert.is(base.gotBreak, true);
    assert.is(base.counts().added, 1);
  },
  asynchronous,
);

behaviour('loopContinue polls again before the rest of its priority', async (t) => {
  for (const ask of [true, false]) {
    const [a, b] = t.pair();
    const base = t.base({ priorities: 2 });
    const seen: string[] = [];
    base.event(a, READ, () => seen.push('urgent'), { priority: 0 }).add();
    const first = () => {
      seen.push('first');
      t.write(b);
      if (ask) base.loopContinue();
    };
    base.timer(first).activate(TIMEOUT);
    base.timer(() => seen.push('second')).activate(TIMEOUT);
    assert.is(await t.run(base), 'empty');
    const rest = ask ? ['urgent', 'second'] : ['second', 'urgent'];
    assert.equal(seen, ['first', ...rest]);
  }
});

behaviour('loopContinue without a loop does nothing', async (t) => {
  const base = t.base();
  let runs = 0;
  base.timer(() => runs++).activate(TIMEOUT);
  base.timer(() => runs++).activate(TIMEOUT);
  base.loopContinue();
  assert.is(await t.run(base, NONBLOCK), 'passed');
  assert.is(runs, 2);
});

// ── priorities ──────────────────────────────────────────────────────────────────────────────────

behaviour('the most urgent events run first, one priority a pass', async (t) => {
  const base = t.base({ priorities: 4 });
  const seen: number[] = [];
  for (const priority of [3, 1, 2, 0, 3, 1])
    base.timer(() => seen.push(priority), { priority }).activate(TIMEOUT);
  for (const expected of [[0], [0, 1, 1], [0, 1, 1, 2], [0, 1, 1, 2, 3, 3]]) {
    assert.is(await t.run(base, ONCE | NONBLOCK), 'passed');
    assert.equal(seen, expected);
  }
});

behaviour('events that stay urgent keep the others from running', async (t) => {
  const [a] = t.pair();
  const base = t.base({ priorities: 2 });
  const seen: string[] = [];
  base
    .event(
      a,
      WRITE | PERSIST,
      (_, self) => {
        seen.push('urgent');
        if (seen.length === 10) self.del();
      },
      { priority: 0 },
    )
    .add();
  base.timer(() => seen.push('other'), { priority: 1 }).activate(TIMEOUT);
  await t.run(base);
  assert.is(seen.indexOf('other'), 10);
});

behaviour('activating a more urgent event puts off the rest of the priority', async (t) => {
  const base = t.base({ priorities: 3 });
  const seen: string[] = [];
  const make = (name: string, priority: number, then?: () => void) =>
    base.timer(
      () => {
        seen.push(name);
        then?.();
      },
      { priority },
    );
  const urgent = make('urgent', 0);
  const same = make('same', 1);
  const lower = make('lower', 2);
  make('first', 1, () => lower.activate(TIMEOUT)).activate(TIMEOUT);
  make('second', 1, () => same.activate(TIMEOUT)).activate(TIMEOUT);
  make('third', 1, () => urgent.activate(TIMEOUT)).activate(TIMEOUT);
  make('fourth', 1).activate(TIMEOUT);
  await t.run(base);
  assert.equal(seen, ['first', 'second', 'third', 'urgent', 'fourth', 'same', 'lower']);
});

behaviour('the default priority is the middle one', (t) => {
  for (const [priorities, middle] of [
    [1, 0],
    [2, 1],
    [3, 1],
    [256, 128],
  ]) {
    const base = t.base({ priorities });
    assert.is(base.priorities, priorities);
    assert.is(base.timer(() => undefined).priority, middle);
    base.close();
  }
});

behaviour('a priority changes while the event is added, not while it is active', async (t) => {
  const base = t.base({ priorities: 3 });
  const seen: string[] = [];
  const event = base.timer((_, self) => {
    seen.push('moved');
    self.priority = 2;
  });
  base.timer(() => seen.push('other')).activate(TIMEOUT);
  event.add(0);
  event.priority = 0;
  assert.is(event.priority, 0);
  event.activate(TIMEOUT);
  assert.is(
    codeOf(() => (event.priority = 1)),
    'ERR_BAD_MASK',
  );
  assert.is(event.priority, 0);
  await t.run(base);
  assert.equal(seen, ['moved', 'other']);
  assert.is(event.priority, 2);
});

behaviour('descriptors come before timers of the same pass and priority', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const seen: string[] = [];
  base.timer(() => seen.push('timer')).add(0);
  base.event(a, READ, () => seen.push('read')).add();
  t.write(b);
  spin(0.1);
  await t.run(base);
  assert.equal(seen, ['read', 'timer']);
});

// ── one loop at a time ──────────────────────────────────────────────────────────────────────────

behaviour('a base that dispatches refuses another loop, and goes on', async (t) => {
  const base = t.base();
  const codes: unknown[] = [];
  const pending: Promise<unknown>[] = [];
  base
    .timer(() => {
      codes.push(codeOf(() => base.loopSync()));
      pending.push(rejectionOf(base.loop()).then((error) => codes.push(error.code)));
    })
    .add(0);
  base.timer(() => codes.push('goes on')).add(2);
  assert.is(await t.run(base), 'empty');
  await Promise.all(pending);
  assert.equal(codes.sort(), ['ERR_LOOP_REENTERED', 'ERR_LOOP_REENTERED', 'goes on']);
});

behaviour(
  'a base that dispatches refuses another loop between two passes',
  async (t) => {
    const base = t.base();
    base.timer(() => undefined).add(5);
    const done = base.loop();
    assert.is((await rejectionOf(base.loop())).code, 'ERR_LOOP_REENTERED');
    assert.is((await rejectionOf(base.dispatch())).code, 'ERR_LOOP_REENTERED');
    assert.is(
      codeOf(() => base.loopSync()),
      'ERR_LOOP_REENTERED',
    );
    assert.is(await done, 'empty');
  },
  asynchronous,
);

behaviour('a callback may block on another base', async (t) => {
  const base = t.base();
  const other = new EventBase({ backend: t.backend, debug: true });
  const seen: string[] = [];
  base
    .timer(() => {
      other.timer(() => seen.push('inner')).add(1);
      assert.is(other.loopSync(), 'empty');
      seen.push('outer');
    })
    .add(0);
  await t.run(base);
  other.close();
  assert.equal(seen, ['inner', 'outer']);
});

behaviour(
  'a loop can be started again from where it ended',
  async (t) => {
    const base = t.base();
    const results: string[] = [];
    for (let i = 0; i < 20; i++) {
      base.timer(() => i % 3 === 1 && base.loopBreak()).add(i % 2);
      if (i % 3 === 2) base.loopExit();
      // The continuation runs in the very turn in which the loop ended.
      results.push(await base.loop());
    }
    const expected = ['empty', 'stopped', 'stopped'];
    assert.equal(
      results,
      results.map((_, i) => expected[i % 3]),
    );
  },
  asynchronous,
);

behaviour(
  'aborting rejects with the reason and leaves the events as they are',
  async (t) => {
    const base = t.base();
    const seen: string[] = [];
    const reason = new Error('enough');
    const early = base.loop(0, { signal: AbortSignal.abort(reason) });
    assert.is(await rejectionOf(early), reason);
    const controller = new AbortController();
    base
      .timer(() => {
        seen.push('abort');
        controller.abort(reason);
      })
      .activate(TIMEOUT);
    base.timer(() => seen.push('behind')).activate(TIMEOUT);
    const during = base.loop(0, { signal: controller.signal });
    assert.is(await rejectionOf(during), reason);
    assert.equal(seen, ['abort'], 'nothing runs after the callback that aborts');
    assert.is(base.counts().active, 1);

    assert.is(await base.loop(), 'empty');
    assert.equal(seen, ['abort', 'behind']);
    const later = new AbortController();
    base.timer(() => assert.unreachable()).add(10_000);
    setTimeout(() => later.abort(reason), 2);
    assert.is(await rejectionOf(base.dispatch({ signal: later.signal })), reason);
    assert.is(base.counts().added, 1);
  },
  asynchronous,
);

behaviour(
  'a signal that aborts after the loop has ended does nothing to the next one',
  async (t) => {
    const base = t.base();
    const controller = new AbortController();
    base.timer(() => undefined).add(0);
    assert.is(await base.loop(0, { signal: controller.signal }), 'empty');
    base.timer(() => controller.abort()).add(0);
    base.timer(() => undefined).add(1);
    assert.is(await base.loop(), 'empty');
  },
  asynchronous,
);

// ── exceptions ──────────────────────────────────────────────────────────────────────────────────

const thrown = [new Error('a callback’s own'), null, undefined, 0, 'text'];

behaviour(
  'loopSync throws what a callback throws; the rest stays active',
  async (t) => {
    for (const value of thrown) {
      const base = t.base({ priorities: 2 });
      const seen: string[] = [];
      const fail = () => {
        seen.push('fail');
        throw value;
      };
      base.timer(fail).activate(TIMEOUT);
      base.timer(() => seen.push('behind')).activate(TIMEOUT);
      base.timer(() => seen.push('urgent'), { priority: 0 }).activate(TIMEOUT);
      let caught: unknown = 'nothing';
      try {
        base.loopSync();
      } catch (error) {
        caught = error;
      }
      assert.is(caught, value);
      assert.equal(seen, ['urgent', 'fail']);
      assert.is(base.counts().active, 1);
      base.timer(() => seen.push('later')).add(1);
      assert.is(base.loopSync(), 'empty');
      assert.equal(seen, ['urgent', 'fail', 'behind', 'later']);
    }
  },
  { ways: ['loopSync'] },
);

behaviour(
  'uncaughtException sees what a callback throws; no other event is lost, the loop goes on',
  async (t) => {
    for (const value of thrown) {
      const base = t.base({ priorities: 2 });
      const seen: string[] = [];
      const caught: unknown[] = [];
      const handler = (error: unknown) => caught.push(error);
      process.on('uncaughtException', handler);
      try {
        const fail = () => {
          seen.push('fail');
          throw value;
        };
        base.timer(fail).activate(TIMEOUT);
        base.timer(() => seen.push('behind')).activate(TIMEOUT);
        base.timer(fail).activate(TIMEOUT);
        base.timer(() => seen.push('urgent'), { priority: 0 }).activate(TIMEOUT);
        base.timer(() => seen.push('later')).add(2);
        assert.is(await base.loop(), 'empty');
      } finally {
        process.off('uncaughtException', handler);
      }
      assert.equal(caught, [value, value]);
      assert.equal(seen, ['urgent', 'fail', 'behind', 'fail', 'later']);
    }
  },
  asynchronous,
);

behaviour(
  'exceptions in ticks and promises of a callback are reported like Node’s own',
  async (t) => {
    const base = t.base();
    const seen: string[] = [];
    const caught: unknown[] = [];
    const handler = (error: unknown) => caught.push(error);
    process.on('uncaughtException', handler);
    try {
      const fail = (what: unknown) => () => {
        throw what;
      };
      base.timer(() => process.nextTick(fail('tick'))).activate(TIMEOUT);
      base.timer(() => process.nextTick(fail(null))).activate(TIMEOUT);
      base.timer(() => queueMicrotask(fail('microtask'))).activate(TIMEOUT);
      base.timer(() => void Promise.reject(new Error('rejected'))).activate(TIMEOUT);
      base.timer(() => seen.push('behind')).activate(TIMEOUT);
      base.timer(() => seen.push('later')).add(5);
      assert.is(await base.loop(), 'empty');
      // In the turn in which the loop ended, where only the continuation is on the stack.
      process.nextTick(fail(null));
      await new Promise((resolve) => setTimeout(resolve, 1));
      base.timer(() => seen.push('again')).add(0);
      assert.is(await base.loop(), 'empty');
    } finally {
      process.off('uncaughtException', handler);
    }
    assert.equal(seen, ['behind', 'later', 'again']);
    const texts = caught.map((one) => (one instanceof Error ? one.message : one));
    assert.equal(texts.map(String).sort(), ['microtask', 'null', 'null', 'rejected', 'tick']);
  },
  asynchronous,
);

behaviour('what a pass has gathered leaves before its exception is told', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  const item = (name: string) => ({
    passEnd: () => {
      seen.push(name);
      // What arises at the end of a pass is part of it.
      if (name === 'first') assert.is(base._atPassEnd(item('third')), true);
    },
  });
  const handler = () => seen.push('caught');
  process.on('uncaughtException', handler);
  base
    .timer(() => {
      assert.is(base._atPassEnd(item('first')), true);
      assert.is(base._atPassEnd(item('second')), true);
      seen.push('callback');
      throw new Error('after two');
    })
    .activate(TIMEOUT);
  base.timer(() => seen.push('next pass')).activate(TIMEOUT);
  await t.run(base).catch(handler);
  process.off('uncaughtException', handler);
  assert.equal(seen.slice(0, 5), ['callback', 'first', 'second', 'third', 'caught']);
  assert.is(base._atPassEnd(item('late')), false, 'outside a pass it is done at once');
});

behaviour('a callback that asks for an end and throws gets both', async (t) => {
  const seen: string[] = [];
  const base = t.base();
  const failure = new Error('and it throws');
  const caught: unknown[] = [];
  const handler = (error: unknown) => caught.push(error);
  process.on('uncaughtException', handler);
  const fail = () => {
    base.loopBreak();
    throw failure;
  };
  try {
    base.timer(fail).activate(TIMEOUT);
    base.timer(() => seen.push('behind')).activate(TIMEOUT);
    const result = await t.run(base).catch((error) => void caught.push(error));
    if (!t.sync) assert.is(result, 'stopped');
    assert.equal(seen, []);
    // The break was for that loop alone.
    assert.is(await t.run(base), 'empty');
    assert.equal(seen, ['behind']);
  } finally {
    process.off('uncaughtException', handler);
  }
  assert.equal(caught, [failure]);
});

behaviour('a persistent event that throws stays added', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  let runs = 0;
  const handler = () => undefined;
  process.on('uncaughtException', handler);
  try {
    const event: EventHandle = base.event(a, READ | PERSIST, () => {
      if (++runs === 3) event.del();
      throw new Error(`run ${runs}`);
    });
    event.add();
    t.write(b);
    if (t.sync) {
      for (const n of [1, 2, 3])
        assert.throws(() => base.loopSync(), new RegExp(`^Error: run ${n}$|run ${n}`));
    } else {
      assert.is(await base.loop(), 'empty');
    }
  } finally {
    process.off('uncaughtException', handler);
  }
  assert.is(runs, 3);
});

test.run();
