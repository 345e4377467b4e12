// Signals on a base: what their events are told, how often and when, with every backend and waker.
// Other threads, Node's own listeners and the ends of processes have files of their own.

import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Ev, type EventBase, type EventHandle, LoopFlag } from '../../src/index.js';
import { asynchronous, behaviour, type Trial } from './conformance.js';
import { HARMLESS, HARMLESS_NAME, OTHER_REAL, REAL, raise } from './signals.js';
import { codeOf, rejectionOf, spin, thrownBy } from './support.js';

const { READ, WRITE, TIMEOUT, SIGNAL, PERSIST, CLOSED, ET } = Ev;

/** Delivers all that has come, also what comes in the callbacks of that; waits for nothing. */
async function settle(t: Trial, base: EventBase): Promise<void> {
  for (let calm = 0; calm < 2; calm += base.counts().active > 0 ? 0 : 1)
    await t.run(base, LoopFlag.NONBLOCK);
}

/** Runs what may throw from loopSync, or else reach uncaughtException; answers what did. */
async function throwing(t: Trial, base: EventBase): Promise<unknown[]> {
  const caught: unknown[] = [];
  const handler = (error: unknown) => caught.push(error);
  process.on('uncaughtException', handler);
  await t.run(base, LoopFlag.NONBLOCK).catch(handler);
  process.off('uncaughtException', handler);
  return caught;
}

// ── what is told to whom ────────────────────────────────────────────────────────────────────────

behaviour('a signal runs the callback with SIGNAL and the event', async (t) => {
  const base = t.base();
  const seen: unknown[] = [];
  const event = base.signal(HARMLESS, (what, self) => {
    seen.push(what, self);
    assert.is(base.runningEvent, event);
  });
  assert.is(event.fd, HARMLESS);
  assert.is(event.mask, SIGNAL | PERSIST);
  event.add();
  raise(HARMLESS);
  assert.equal(seen, [], 'callbacks run in the loop alone');
  await t.run(base, LoopFlag.ONCE);
  assert.equal(seen, [SIGNAL, event]);
});

behaviour('a signal wakes a base that waits for it', async (t) => {
  const base = t.base();
  let calls = 0;
  const timer = base.timer(() => process.kill(process.pid, REAL)).add(1);
  base
    .signal(REAL, (_, event) => {
      if (++calls === 5) event.free();
      else timer.add(1);
    })
    .add();
  assert.is(await t.run(base), 'empty');
  assert.is(calls, 5);
});

behaviour('a signal is named by its name or by its number', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  base.signal(HARMLESS_NAME, () => seen.push('name')).add();
  base.signal(HARMLESS, () => seen.push('number')).add();
  base.event(HARMLESS, SIGNAL | PERSIST, () => seen.push('event')).add();
  raise(HARMLESS);
  await settle(t, base);
  assert.equal(seen.sort(), ['event', 'name', 'number']);
  assert.is(base.activateSignal(HARMLESS_NAME), 3);
});

behaviour('every event of a signal is told, however many there are', async (t) => {
  const base = t.base();
  const calls = new Array<number>(1000).fill(0);
  for (const i of calls.keys()) {
    const persist = i % 2 === 0 ? PERSIST : 0;
    base.event(HARMLESS, SIGNAL | persist, () => calls[i]++).add();
  }
  raise(HARMLESS);
  await settle(t, base);
  assert.ok(calls.every((count) => count === 1));
  raise(HARMLESS);
  await settle(t, base);
  assert.ok(calls.every((count, i) => count === (i % 2 === 0 ? 2 : 1)));
});

behaviour('several signals on one base each reach their own events', async (t) => {
  const base = t.base();
  const counts = new Map<number, number>();
  const signals = [HARMLESS, REAL, OTHER_REAL, 1, 12, 64];
  for (const signal of signals)
    base.signal(signal, (_, { fd }) => counts.set(fd, (counts.get(fd) ?? 0) + 1)).add();
  for (const [i, signal] of signals.entries()) raise(signal, i + 1);
  await settle(t, base);
  assert.equal([...counts].sort(), signals.map((signal, i) => [signal, i + 1]).sort());
});

behaviour('several bases of a thread each hear their signals', async (t) => {
  const seen: string[] = [];
  const bases = ['one', 'two', 'three'].map((name, i) => {
    const base = t.base();
    base.signal(REAL, () => seen.push(name)).add();
    if (i > 0) base.signal(HARMLESS, () => seen.push(`${name}, other`)).add();
    return base;
  });
  raise(REAL, 2);
  raise(HARMLESS);
  for (const base of bases) await settle(t, base);
  const all = ['one', 'one', 'two', 'two', 'two, other', 'three', 'three', 'three, other'];
  assert.equal([...seen].sort(), all.sort());

  // One that is gone takes nothing from the others.
  seen.length = 0;
  bases[0].close();
  raise(REAL);
  for (const base of bases.slice(1)) await settle(t, base);
  assert.equal(seen, ['two', 'three']);
});

behaviour('a signal that came before its event was added is not told to it', async (t) => {
  const base = t.base();
  let calls = 0;
  const first = base.signal(REAL, () => assert.unreachable()).add();
  raise(REAL, 3);
  first.free();
  base.signal(REAL, () => calls++).add();
  await settle(t, base);
  assert.is(calls, 0);
  raise(REAL);
  await settle(t, base);
  assert.is(calls, 1);
});

behaviour('a signal event keeps the loop going until it is deleted', async (t) => {
  const base = t.base();
  const event = base.signal(HARMLESS, () => assert.unreachable()).add();
  base.timer(() => event.del()).add(2);
  assert.is(await t.run(base), 'empty');
});

behaviour('a descriptor with the number of a signal is another key', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  let [a, b] = t.pair();
  while (a <= 19 || a === 32 || a === 33) [a, b] = t.pair(); // no signals to be caught
  base.event(a, READ | PERSIST, () => seen.push(`read ${t.read(a)}`)).add();
  base.event(a, SIGNAL | PERSIST, () => seen.push('signal')).add();
  t.write(b);
  raise(a);
  await settle(t, base);
  assert.equal(seen.sort(), ['read x', 'signal']);
  assert.is(base.activateFd(a, READ | WRITE), 1);
  assert.is(base.activateFd(a, SIGNAL), 0);
  assert.is(base.activateSignal(a), 1);
});

// ── how often ───────────────────────────────────────────────────────────────────────────────────

behaviour('a persistent event’s callback runs once for each signal that came', async (t) => {
  const base = t.base();
  const whats: number[] = [];
  let standard = 0;
  base.signal(REAL, (what) => whats.push(what)).add();
  base.signal(HARMLESS, () => standard++).add();
  raise(REAL, 5);
  for (let i = 0; i < 3; i++) raise(HARMLESS);
  raise(REAL, 2);
  await settle(t, base);
  assert.equal(whats, new Array(7).fill(SIGNAL));
  assert.is(standard, 3);
  await settle(t, base);
  assert.is(whats.length + standard, 10, 'and none is told twice');
});

const stops: [string, (event: EventHandle) => void][] = [
  ['del()', (event) => event.del()],
  ['free()', (event) => event.free()],
  ['finalize()', (event) => event.finalize()],
  ['close() of its base', (event) => event.base.close()],
];
for (const [name, stop] of stops) {
  behaviour(`${name} in the callback stops the remaining calls`, async (t) => {
    const base = t.base();
    let calls = 0;
    base
      .signal(REAL, (_, event) => {
        if (++calls === 2) stop(event);
      })
      .add();
    raise(REAL, 5);
    await t.run(base);
    assert.is(calls, 2);
  });
}

behaviour('del() and add() in the callback begin anew: the remaining calls are gone', async (t) => {
  const base = t.base();
  let calls = 0;
  base
    .signal(REAL, (_, event) => {
      if (++calls > 1) return;
      event.del();
      event.add();
    })
    .add();
  raise(REAL, 5);
  await settle(t, base);
  assert.is(calls, 1);
  raise(REAL, 2);
  await settle(t, base);
  assert.is(calls, 3);
});

behaviour('an event that another callback of the pass has deleted is not told', async (t) => {
  const base = t.base();
  let calls = 0;
  const events = [0, 1, 2].map(() =>
    base.signal(REAL, () => {
      calls++;
      for (const event of events) event.del();
    }),
  );
  for (const event of events) event.add();
  raise(REAL, 3);
  await t.run(base);
  assert.is(calls, 1);
});

behaviour('loopBreak puts the remaining calls off and loses none', async (t) => {
  const base = t.base();
  const calls = { broken: 0, behind: 0 };
  base
    .signal(REAL, (_, event) => {
      if (++calls.broken === 2) base.loopBreak();
      if (calls.broken === 7) event.free();
    })
    .add();
  const behind = base.signal(OTHER_REAL, () => calls.behind++).add();
  raise(REAL, 5);
  raise(OTHER_REAL, 2);
  assert.is(await t.run(base), 'stopped');
  assert.equal(calls, { broken: 2, behind: 0 });
  assert.is(base.counts().active, 2);
  // They join what comes meanwhile.
  raise(REAL, 2);
  raise(OTHER_REAL);
  behind.unref();
  await settle(t, base);
  assert.equal(calls, { broken: 7, behind: 3 });
});

behaviour('an exception in the callback loses no call', async (t) => {
  const base = t.base();
  const failure = new Error('a callback’s own');
  const calls = { thrower: 0, behind: 0 };
  base
    .signal(REAL, () => {
      if (++calls.thrower % 2 === 0) throw failure;
    })
    .add();
  base.signal(OTHER_REAL, () => calls.behind++).add();
  raise(REAL, 5);
  raise(OTHER_REAL, 2);
  const caught: unknown[] = [];
  for (let i = 0; i < 3; i++) caught.push(...(await throwing(t, base)));
  assert.equal(caught, [failure, failure]);
  assert.equal(calls, { thrower: 5, behind: 2 });
});

behaviour(
  'aborting the loop in the callback puts the remaining calls off',
  async (t) => {
    const base = t.base();
    const controller = new AbortController();
    let calls = 0;
    base
      .signal(REAL, () => {
        if (++calls === 2) controller.abort('enough');
      })
      .add();
    raise(REAL, 5);
    const loop = base.loop(0, { signal: controller.signal });
    assert.is(await rejectionOf(loop), 'enough');
    await turn(); // The callback's own ticks have gone on with this test.
    assert.is(calls, 2);
    await settle(t, base);
    assert.is(calls, 5);
  },
  asynchronous,
);

behaviour('what a signal callback adds and activates runs in the same loop', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  const user = base.timer(() => seen.push('user'));
  base
    .signal(REAL, (what, event) => {
      seen.push(`signal ${what}`);
      if (seen.length === 1) event.activate(SIGNAL);
      user.activate(TIMEOUT);
    })
    .add();
  raise(REAL, 2);
  await settle(t, base);
  // The activation by hand is one call more.
  assert.equal(seen, ['signal 8', 'signal 8', 'signal 8', 'user']);
});

// ── one-shot events ─────────────────────────────────────────────────────────────────────────────

behaviour('a one-shot signal event is removed before its callback', async (t) => {
  const base = t.base();
  let calls = 0;
  const event = base.event(HARMLESS, SIGNAL, (what) => {
    calls++;
    assert.is(what, SIGNAL);
    assert.is(event.pending(0xff), 0);
  });
  event.add();
  raise(HARMLESS, 3);
  assert.is(await t.run(base), 'empty');
  assert.is(calls, 1, 'once, however many came');
});

behaviour('a one-shot signal event may be added again in its callback', async (t) => {
  const base = t.base();
  let calls = 0;
  const event = base.event(REAL, SIGNAL, () => {
    if (++calls === 4) return;
    // What comes between the event and its being added again is not lost.
    if (calls % 2 === 0) raise(REAL);
    event.add();
    if (calls % 2 === 1) raise(REAL);
  });
  event.add();
  raise(REAL);
  assert.is(await t.run(base), 'empty');
  assert.is(calls, 4);
});

behaviour(
  'a signal that comes while a one-shot event waits for its callback is not lost',
  async (t) => {
    const base = t.base({ priorities: 2 });
    const seen: string[] = [];
    const event = base.event(
      HARMLESS,
      SIGNAL,
      () => {
        seen.push('signal');
        if (seen.length < 6) event.add();
      },
      { priority: 1 },
    );
    event.add();
    base
      .timer(
        (_, urgent) => {
          seen.push('urgent');
          if (seen.length === 2) raise(HARMLESS);
          if (seen.length < 4) urgent.activate(TIMEOUT);
        },
        { priority: 0 },
      )
      .activate(TIMEOUT);
    raise(HARMLESS);
    await settle(t, base);
    assert.equal(seen, ['urgent', 'urgent', 'urgent', 'urgent', 'signal', 'signal']);
  },
);

behaviour('a one-shot event that a break put off still has its signal', async (t) => {
  const base = t.base();
  let calls = 0;
  const event = base.event(HARMLESS, SIGNAL, () => {
    if (++calls === 1) event.add();
  });
  base.timer(() => base.loopBreak()).activate(TIMEOUT);
  event.add();
  raise(HARMLESS);
  assert.is(await t.run(base), 'stopped');
  assert.is(calls, 0);
  raise(HARMLESS);
  await settle(t, base);
  assert.is(calls, 2);
});

behaviour('wait() for a signal resolves with SIGNAL, or with TIMEOUT', async (t) => {
  const base = t.base();
  const signal = base.wait(REAL, SIGNAL);
  raise(REAL);
  assert.is(await t.run(base), 'empty');
  assert.is(await signal, SIGNAL);
  const timeout = base.wait(REAL, SIGNAL, { timeout: 1 });
  assert.is(await t.run(base), 'empty');
  assert.is(await timeout, TIMEOUT);
  const controller = new AbortController();
  const aborted = base.wait(REAL, SIGNAL, { signal: controller.signal });
  controller.abort('enough');
  assert.is(await rejectionOf(aborted), 'enough');
  const closed = base.wait(REAL, SIGNAL);
  base.close();
  assert.is((await rejectionOf(closed)).code, 'ERR_BASE_CLOSED');
});

// ── timeouts and priorities ─────────────────────────────────────────────────────────────────────

behaviour('a signal event with a timeout gets TIMEOUT when no signal comes', async (t) => {
  const base = t.base();
  const seen: number[] = [];
  base.event(HARMLESS, SIGNAL, (what) => seen.push(what)).add(1);
  assert.is(await t.run(base), 'empty');
  base
    .signal(HARMLESS, (what, event) => {
      if (seen.push(what) === 4) event.del();
    })
    .add(1);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [TIMEOUT, TIMEOUT, TIMEOUT, TIMEOUT]);
});

behaviour('a signal starts the timeout of a persistent event again', async (t) => {
  const base = t.base();
  const seen: number[] = [];
  let after: number | undefined;
  const event = base.signal(HARMLESS, (what, self) => {
    seen.push(what);
    // The clock stands still in a pass, so nothing of it has gone by.
    after = self.remaining;
  });
  event.add(60_000);
  spin(2);
  assert.ok((event.remaining ?? 0) < 59_999);
  raise(HARMLESS);
  await settle(t, base);
  assert.is(after, 60_000);
  event.removeTimer();
  assert.is(event.remaining, undefined);
  assert.is(event.pending(0xff), SIGNAL);
  assert.equal(seen, [SIGNAL]);
});

behaviour('a signal and the timeout that is due with it arrive in one call', async (t) => {
  const base = t.base();
  const seen: number[] = [];
  base.signal(REAL, (what) => seen.push(what)).add(1);
  raise(REAL, 3);
  spin(2);
  await t.run(base, LoopFlag.ONCE);
  assert.equal(seen.slice(0, 3), [SIGNAL | TIMEOUT, SIGNAL, SIGNAL]);
});

behaviour('signals keep to the priorities of their events', async (t) => {
  const base = t.base({ priorities: 3 });
  const seen: string[] = [];
  const make = (name: string, signal: number, priority: number) =>
    base.signal(signal, () => seen.push(name), { priority }).add();
  make('last', OTHER_REAL, 2);
  make('first', REAL, 0);
  make('middle', REAL, 1);
  base.timer(() => seen.push('timer')).activate(TIMEOUT);
  raise(OTHER_REAL);
  raise(REAL, 2);
  await settle(t, base);
  assert.equal(seen.slice(0, 2), ['first', 'first']);
  assert.equal(seen.slice(2, 5).sort(), ['middle', 'middle', 'timer']);
  assert.equal(seen.slice(5), ['last']);
});

// ── by hand, and what a base knows ──────────────────────────────────────────────────────────────

behaviour('activateSignal activates what waits for the signal and counts it', async (t) => {
  const base = t.base();
  const seen: unknown[] = [];
  const callback = (what: number, event: EventHandle) => seen.push([event, what]);
  const persistent = base.signal(REAL, callback).add();
  const oneShot = base.event(REAL, SIGNAL, callback).add();
  base.signal(REAL, callback); // not added
  base.signal(OTHER_REAL, callback).add();
  assert.is(base.activateSignal(REAL), 2);
  assert.equal(seen, []);
  await settle(t, base);
  assert.equal(seen, [
    [persistent, SIGNAL],
    [oneShot, SIGNAL],
  ]);
  assert.is(base.activateSignal(REAL), 1);
  assert.is(base.activateSignal(64), 0);
  await settle(t, base);
  assert.is(seen.length, 3);
});

behaviour('an event may be activated for a signal that it never waited for', async (t) => {
  const base = t.base();
  const seen: number[] = [];
  base.signal(REAL, (what) => seen.push(what)).activate(SIGNAL);
  base.signal(REAL, (what) => seen.push(what)).activate(SIGNAL | TIMEOUT);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [SIGNAL, SIGNAL | TIMEOUT]);
});

behaviour('counts, events(), pending and dump know signal events', async (t) => {
  const base = t.base();
  const event = base.signal(HARMLESS_NAME, () => undefined).add(60_000);
  const nameless = base.event(REAL, SIGNAL, () => undefined).add();
  assert.equal(base.counts(), { added: 3, active: 0, virtual: 0 });
  assert.equal([...base.events()], [event, nameless]);
  assert.is(event.pending(0xff), SIGNAL | TIMEOUT);
  assert.is(nameless.pending(0xff), SIGNAL);
  const text = base.dump();
  assert.match(text, /SIGWINCH, SIGNAL\|PERSIST, added, due in [\d.]+ ms\n/);
  assert.match(text, /signal 40, SIGNAL, added\n/);
  assert.is(String(event), 'event(SIGWINCH, SIGNAL|PERSIST)');
  assert.is(String(nameless), 'event(signal 40, SIGNAL)');
  base.timer(() => base.loopBreak()).activate(TIMEOUT);
  raise(REAL, 4);
  await t.run(base);
  assert.equal(base.counts(), { added: 3, active: 1, virtual: 0 });
  assert.match(base.dump(), /signal 40, SIGNAL, active for SIGNAL\n/);
  nameless.del();
  event.del();
  assert.equal(base.counts(), { added: 0, active: 0, virtual: 0 });
  assert.is(base.maxCounts().added, 4);
});

behaviour(
  'a signal that cannot be caught is refused with EINVAL, and nothing changes',
  async (t) => {
    const base = t.base();
    // The C library has 32 and 33 for itself.
    for (const signal of ['SIGKILL', 'SIGSTOP', 32, 33] as const) {
      const event = base.signal(signal, () => assert.unreachable());
      const error = thrownBy(() => event.add(10));
      assert.is(error.code, 'EINVAL');
      assert.match(error.message, String(event));
      assert.is(event.pending(0xff), 0);
    }
    assert.is((await rejectionOf(base.wait(9, SIGNAL))).code, 'EINVAL');
    assert.is(base.counts().added, 0);
    let calls = 0;
    base.signal(REAL, () => calls++).add();
    raise(REAL);
    await settle(t, base);
    assert.is(calls, 1);
  },
);

behaviour('what names no signal is refused', (t) => {
  const base = t.base();
  const none = () => undefined;
  for (const name of ['SIGNOTHING', 'sigint', '', 'toString'])
    assert.is(
      codeOf(() => base.signal(name as NodeJS.Signals, none)),
      'ERR_UNKNOWN_SIGNAL',
    );
  for (const number of [0, -1, 65, 1.5, Number.NaN, 2 ** 31]) {
    for (const body of [
      () => base.signal(number, none),
      () => base.event(number, SIGNAL, none),
      () => base.activateSignal(number),
    ])
      assert.is(codeOf(body), 'ERR_OUT_OF_RANGE');
  }
  assert.is(
    codeOf(() => base.signal({} as number, none)),
    'ERR_INVALID_ARG_TYPE',
  );
  for (const mask of [READ, WRITE, CLOSED, READ | WRITE | PERSIST, ET])
    assert.is(
      codeOf(() => base.event(HARMLESS, SIGNAL | mask, none)),
      'ERR_BAD_MASK',
    );
  assert.is(
    codeOf(() => base.once(HARMLESS, SIGNAL, none)),
    'ERR_BAD_MASK',
  );
  assert.is(base.counts().added, 0);
});

test.run();
