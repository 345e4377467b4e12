// Prepare and check watchers: where in a turn they run, what may be done in one, and what becomes
// of what one throws.

import { AsyncLocalStorage } from 'node:async_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Ev, EventBase, LoopFlag, type Watcher } from '../../src/index.js';
import { native } from '../../src/native.js';
import { runChild } from './child.js';
import { asynchronous, behaviour } from './conformance.js';
import { codeOf, gatheringUncaught, rejectionOf, spin } from './support.js';

const { READ, WRITE, TIMEOUT, PERSIST } = Ev;
const { ONCE, NONBLOCK } = LoopFlag;

type Kind = 'prepare' | 'check';
const kinds: readonly Kind[] = ['prepare', 'check'];

function watch(base: EventBase, kind: Kind, callback: () => void): Watcher {
  return kind === 'prepare' ? base.prepare(callback) : base.check(callback);
}

/** Two turns: what has run in a pass and is activated again runs in the next one. */
function activateTwice(base: EventBase): void {
  let runs = 0;
  base
    .timer((_, self) => {
      if (++runs === 1) self.activate(TIMEOUT);
    })
    .activate(TIMEOUT);
}

// ── the turn ────────────────────────────────────────────────────────────────────────────────────

behaviour('a turn is prepare, wait, check, callbacks', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const seen: string[] = [];
  const event = base.event(a, READ, () => seen.push('read')).add();
  base.prepare(() => {
    seen.push(`prepare, ${base.counts().active} active`);
    // Only a wait that comes after this can find it.
    if (event.pending(READ) !== 0 && seen.length === 1) t.write(b);
  });
  base.check(() => seen.push(`check, ${base.counts().active} active`));
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['prepare, 0 active', 'check, 1 active', 'read']);
});

behaviour('watchers run in the order in which they were made', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  base.check(() => seen.push('check 1'));
  base.prepare(() => seen.push('prepare 1'));
  base.prepare(() => seen.push('prepare 2'));
  base.check(() => seen.push('check 2'));
  base.prepare(() => seen.push('prepare 3')).free();
  base.prepare(() => seen.push('prepare 4'));
  base.timer(() => undefined).activate(TIMEOUT);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['prepare 1', 'prepare 2', 'prepare 4', 'check 1', 'check 2']);
});

behaviour('watchers run in every turn, also in one that finds nothing', async (t) => {
  const base = t.base();
  const seen: Kind[] = [];
  for (const kind of kinds) watch(base, kind, () => seen.push(kind));
  base.timer(() => assert.unreachable()).add(1e6);
  for (let turn = 1; turn <= 5; turn++) {
    assert.is(await t.run(base, NONBLOCK), 'passed');
    assert.equal(seen.splice(0), ['prepare', 'check']);
  }
});

behaviour('watchers run once in each turn of a busy base', async (t) => {
  const [a] = t.pair();
  const base = t.base();
  const seen: string[] = [];
  let left = 40;
  for (const kind of kinds) watch(base, kind, () => seen.push(kind));
  base
    .event(a, WRITE | PERSIST, (_, self) => {
      seen.push('callback');
      if (--left === 0) self.del();
    })
    .add();
  assert.is(await t.run(base), 'empty');
  assert.is(seen.join(' ').replaceAll(/prepare check( callback)? ?/g, ''), '');
  assert.is(seen.filter((one) => one === 'callback').length, 40);
});

behaviour('watchers run in each turn of an event that keeps itself active', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  let left = 20;
  for (const kind of kinds) watch(base, kind, () => seen.push(kind));
  base
    .timer((_, self) => {
      seen.push('callback');
      if (--left > 0) self.activate(TIMEOUT);
    })
    .activate(TIMEOUT);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, Array(20).fill(['prepare', 'check', 'callback']).flat());
});

behaviour('watchers run in the turn of a loop that is started with something active', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  for (const kind of kinds) watch(base, kind, () => seen.push(kind));
  const event = base.timer(() => seen.push('callback'));
  for (let i = 0; i < 3; i++) {
    // From a timer of Node's, behind which libuv comes to its idle handles before all others.
    if (!t.sync) await sleep(1);
    event.activate(TIMEOUT);
    assert.is(await t.run(base), 'empty');
    assert.equal(seen.splice(0), ['prepare', 'check', 'callback']);
  }
});

behaviour('prepare is told what the wait may take', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const told: (number | undefined)[] = [];
  base.prepare((timeout) => {
    told.push(timeout);
    if (told.length === 1) t.write(b);
  });
  const event = base.event(a, READ, () => undefined).add();
  assert.is(await t.run(base), 'empty');
  assert.equal(told.splice(0), [undefined], 'nothing limits it');

  told.push(0);
  event.add(60_000);
  await t.run(base, ONCE);
  const first = told[1] as number;
  assert.ok(first > 59_000 && first <= 60_000, `a timer limits it: ${first}`);

  told.splice(0, 9, 0);
  base.timer(() => undefined).activate(TIMEOUT);
  base.timer(() => assert.unreachable()).add(1e6);
  assert.is(await t.run(base, ONCE), 'passed');
  assert.equal(told, [0, 0], 'something is active');

  told.splice(0, 9, 0);
  assert.is(await t.run(base, NONBLOCK), 'passed');
  assert.equal(told, [0, 0], 'the loop does not wait');
});

// ── what is made in a prepare watcher counts for the wait that comes ────────────────────────────

// libevent has chosen the timeout by then, and oversleeps.
behaviour(
  'evwatch_prepare_new: a timer made in a prepare watcher shortens this wait',
  async (t) => {
    const [a] = t.pair();
    const base = t.base();
    let prepared = 0;
    base.prepare(() => {
      if (++prepared > 1) return;
      base.timer(() => base.loopBreak()).add(1);
    });
    base.event(a, READ, () => assert.unreachable()).add();
    assert.is(await t.run(base), 'stopped');
    // loopSync comes back on its own after 100 ms, which would be a turn of its own.
    if (t.sync) assert.is(prepared, 1);
  },
);

behaviour('evwatch_prepare_new: what a prepare watcher activates runs in this turn', async (t) => {
  const [a] = t.pair();
  const base = t.base();
  let prepared = 0;
  const event = base.timer(() => {
    assert.is(prepared, 1);
    base.loopBreak();
  });
  base.prepare(() => {
    if (++prepared === 1) event.activate(TIMEOUT);
  });
  base.event(a, READ, () => assert.unreachable()).add();
  assert.is(await t.run(base), 'stopped');
});

behaviour('a descriptor added in a prepare watcher is part of this wait', async (t) => {
  // Known to the base already, and not: only the second is told to the kernel in the call.
  for (const known of [true, false]) {
    const [a, b] = t.pair();
    const [c] = t.pair();
    const base = t.base();
    let prepared = 0;
    const event = base.event(a, READ, () => {
      assert.is(prepared, 1);
      base.loopBreak();
    });
    if (known) {
      event.add();
      event.del();
      base.timer(() => undefined).activate(TIMEOUT);
      await t.run(base);
    }
    t.write(b);
    base.prepare(() => {
      if (++prepared === 1) event.add();
    });
    base.event(c, READ, () => assert.unreachable()).add();
    assert.is(await t.run(base), 'stopped');
  }
});

behaviour('a prepare watcher that deletes the last event ends the loop', async (t) => {
  const [a] = t.pair();
  const base = t.base();
  const event = base.event(a, READ, () => assert.unreachable()).add();
  base.prepare(() => event.del());
  assert.is(await t.run(base), 'empty');
});

// ── what a check watcher can still change ───────────────────────────────────────────────────────

behaviour('a check watcher may delete an event that is about to run', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const event = base.event(a, READ, () => assert.unreachable()).add();
  const timer = base.timer(() => assert.unreachable()).add(0);
  let checked = 0;
  base.check(() => {
    checked++;
    assert.is(event.pending(READ), READ);
    event.del();
    timer.free();
  });
  t.write(b);
  spin(0.1);
  assert.is(await t.run(base), 'empty');
  assert.is(checked, 1);
});

behaviour('a timer of zero set in a check watcher runs in the same pass', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const seen: string[] = [];
  const timer = base.timer(() => seen.push('timer'));
  base.event(a, READ, () => seen.push('read')).add();
  base.check(() => {
    seen.push('check');
    if (seen.length === 1) timer.add(0);
  });
  t.write(b);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['check', 'read', 'timer']);
});

behaviour('what a check watcher activates runs in the same pass', async (t) => {
  const base = t.base({ priorities: 2 });
  const seen: string[] = [];
  const urgent = base.timer(() => seen.push('urgent'), { priority: 0 });
  base.timer(() => seen.push('other')).activate(TIMEOUT);
  base.check(() => {
    seen.push('check');
    if (seen.length === 1) urgent.activate(TIMEOUT);
  });
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['check', 'urgent', 'check', 'other']);
});

// ── freeing and making ──────────────────────────────────────────────────────────────────────────

// libevent's list is walked while it changes: evwatch_free() there is a use after free.
for (const kind of kinds) {
  const victims = { itself: [1], 'the next': [2], 'the previous': [0], all: [0, 1, 2, 3] };
  for (const [what, freed] of Object.entries(victims)) {
    behaviour(`evwatch_free: a ${kind} watcher frees ${what} in its callback`, async (t) => {
      const base = t.base();
      const seen: number[] = [];
      const made = [0, 1, 2, 3].map((n) =>
        watch(base, kind, () => {
          seen.push(n);
          if (n === 1) for (const one of freed) made[one].free();
        }),
      );
      activateTwice(base);
      assert.is(await t.run(base), 'empty');
      const all = [0, 1, 2, 3];
      const first = all.filter((n) => n < 2 || !freed.includes(n));
      const later = all.filter((n) => !freed.includes(n));
      assert.equal(seen, [...first, ...later]);
      for (const one of made) one.free();
    });
  }

  behaviour(`a ${kind} watcher that is made in one runs from the next turn on`, async (t) => {
    const base = t.base();
    const seen: string[] = [];
    watch(base, kind, () => {
      seen.push('old');
      if (seen.length === 1) watch(base, kind, () => seen.push('new'));
    });
    activateTwice(base);
    assert.is(await t.run(base), 'empty');
    assert.equal(seen, ['old', 'old', 'new']);
  });
}

behaviour('a check watcher that is made in a prepare watcher runs in the same turn', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  base.prepare(() => {
    seen.push('prepare');
    base.check(() => seen.push('check'));
  });
  base.timer(() => seen.push('callback')).activate(TIMEOUT);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['prepare', 'check', 'callback']);
});

behaviour('a watcher knows its base, and is freed by using and by the base', async (t) => {
  const base = t.base();
  {
    using prepare = base.prepare(() => assert.unreachable());
    using check = base.check(() => assert.unreachable());
    assert.is(prepare.base, base);
    assert.is(check.base, base);
  }
  base.timer(() => undefined).activate(TIMEOUT);
  assert.is(await t.run(base), 'empty');
  const left = base.check(() => assert.unreachable());
  base.close();
  left.free();
  for (const kind of kinds)
    assert.is(
      codeOf(() => watch(base, kind, () => undefined)),
      'ERR_BASE_CLOSED',
    );
});

test('a watcher needs a callback', () => {
  using base = new EventBase();
  for (const kind of kinds)
    for (const wrong of [undefined, null, 'text', {}])
      assert.is(
        codeOf(() => watch(base, kind, wrong as never)),
        'ERR_INVALID_ARG_TYPE',
      );
});

// ── the end of a loop ───────────────────────────────────────────────────────────────────────────

behaviour('watchers do not keep a loop going', async (t) => {
  const base = t.base();
  for (const kind of kinds) watch(base, kind, () => assert.unreachable());
  assert.is(await t.run(base), 'empty');
  assert.equal(base.counts(), { added: 0, active: 0, virtual: 0 });
});

test('watchers do not keep the process alive', async () => {
  for (const drive of ['base', 'libuv']) {
    const { code, stdout, stderr } = await runChild(`
      const base = new EventBase({ drive: '${drive}' });
      base.event(sys.socketPair()[0], Ev.READ, () => undefined).add().unref();
      base.prepare(() => undefined);
      base.check(() => undefined);
      void base.dispatch().then(() => console.log('the loop has ended'));
      setTimeout(() => console.log('the process has waited'), 20);`);
    assert.equal([code, stdout, stderr], [0, 'the process has waited\n', '']);
  }
});

for (const kind of kinds) {
  behaviour(`loopBreak in a ${kind} watcher ends the loop before any callback`, async (t) => {
    const base = t.base();
    const seen: string[] = [];
    for (const name of ['first', 'second']) base.timer(() => seen.push(name)).activate(TIMEOUT);
    const watcher = watch(base, kind, () => {
      seen.push(kind);
      base.loopBreak();
    });
    assert.is(await t.run(base), 'stopped');
    assert.equal(seen.splice(0), [kind]);
    assert.is(base.gotBreak, true);
    assert.is(base.counts().active, 2);
    watcher.free();
    assert.is(await t.run(base), 'empty');
    assert.equal(seen, ['first', 'second']);
  });

  behaviour(`loopExit in a ${kind} watcher ends the loop after the turn's callbacks`, async (t) => {
    const base = t.base({ priorities: 3 });
    const seen: string[] = [];
    base.timer(() => seen.push('same'), { priority: 1 }).activate(TIMEOUT);
    base.timer(() => seen.push('lower'), { priority: 2 }).activate(TIMEOUT);
    watch(base, kind, () => {
      seen.push(kind);
      base.loopExit();
    });
    assert.is(await t.run(base), 'stopped');
    assert.equal(seen, [kind, 'same']);
    assert.is(base.gotExit, true);
  });

  behaviour(`close in a ${kind} watcher ends the loop; no callback runs after it`, async (t) => {
    const [a, b] = t.pair();
    const base = t.base();
    base.event(a, READ, () => assert.unreachable()).add();
    base.timer(() => assert.unreachable()).activate(TIMEOUT);
    t.write(b);
    watch(base, kind, () => base.close());
    watch(base, kind, () => assert.unreachable());
    assert.is(await t.run(base), 'stopped');
    assert.is(
      codeOf(() => base.counts()),
      'ERR_BASE_CLOSED',
    );
  });
}

// ── exceptions ──────────────────────────────────────────────────────────────────────────────────

/** Two of three watchers of `kind` throw in the first turn; answers what has run. */
function makeThrowing(base: EventBase, kind: Kind): string[] {
  const seen: string[] = [];
  let turns = 0;
  const fail = (name: string) => () => {
    if (name === 'first') turns++;
    seen.push(name);
    if (turns === 1) throw new Error(`${kind} ${name}`);
  };
  watch(base, kind, fail('first'));
  watch(base, kind, fail('second'));
  watch(base, kind, () => seen.push('third'));
  return seen;
}
const textOf = (error: unknown) => (error as Error).message;

for (const kind of kinds) {
  behaviour(
    `uncaughtException sees what each ${kind} watcher throws; the others and all events run`,
    async (t) => {
      const [a, b] = t.pair();
      const base = t.base();
      const seen = makeThrowing(base, kind);
      base.event(a, READ, () => seen.push('read')).add();
      base.timer(() => seen.push('timer')).activate(TIMEOUT);
      t.write(b);
      await gatheringUncaught(async (caught) => {
        assert.is(await base.loop(), 'empty');
        // The first is reported last, when all is done.
        assert.equal(caught.map(textOf).sort(), [`${kind} first`, `${kind} second`]);
      });
      assert.equal(seen.slice(0, 3), ['first', 'second', 'third']);
      assert.equal(seen.filter((one) => one === 'read' || one === 'timer').sort(), [
        'read',
        'timer',
      ]);
    },
    asynchronous,
  );

  behaviour(
    `loopSync throws what a ${kind} watcher throws; the others and all events run`,
    async (t) => {
      const [a, b] = t.pair();
      const base = t.base();
      const seen = makeThrowing(base, kind);
      base.event(a, READ, () => seen.push('read')).add();
      base.timer(() => seen.push('timer')).activate(TIMEOUT);
      t.write(b);
      await gatheringUncaught(async (caught) => {
        assert.is(textOf(await rejectionOf(t.run(base))), `${kind} first`);
        assert.equal(caught.map(textOf), [`${kind} second`]);
      });
      assert.equal(seen.splice(0), ['first', 'second', 'third']);
      assert.is(await t.run(base), 'empty');
      assert.equal(seen, ['first', 'second', 'third', 'timer', 'read']);
    },
    { ways: ['loopSync'] },
  );
}

behaviour('an exception of a check watcher loses no message of the turn', async (t) => {
  const base = t.base();
  const inbox = native.inboxNew(8, 'pipe', 0);
  assert.is(native.inboxAttach(base._id, inbox), 0);
  const seen: string[] = [];
  base._dispatcher.onMessage = (index) => {
    seen.push(String(native.inboxTake(base._id, index)));
    if (seen.length === 3) base.loopBreak();
  };
  let turns = 0;
  base.check(() => {
    if (++turns === 1) throw new Error('check');
  });
  for (const text of ['one', 'two', 'three']) native.inboxPost(inbox, inbox, Buffer.from(text));
  await gatheringUncaught(async (caught) => {
    const run = t.run(base);
    if (t.sync) assert.is(textOf(await rejectionOf(run)), 'check');
    else assert.is(await run, 'stopped');
    assert.equal(caught.map(textOf), t.sync ? [] : ['check']);
  });
  assert.equal(seen, ['one', 'two', 'three']);
  base.close();
  native.inboxFree(inbox);
});

// ── beside Node ─────────────────────────────────────────────────────────────────────────────────

behaviour('a watcher runs in the context in which it was made', async (t) => {
  const base = t.base();
  const storage = new AsyncLocalStorage<string>();
  const seen: unknown[] = [];
  for (const kind of kinds) {
    for (const name of ['one', 'two'])
      storage.run(`${kind} ${name}`, () => watch(base, kind, () => seen.push(storage.getStore())));
    watch(base, kind, () => seen.push(storage.getStore()));
  }
  storage.run('callback', () => base.timer(() => seen.push(storage.getStore())).activate(TIMEOUT));
  assert.is(await storage.run('loop', () => t.run(base)), 'empty');
  const of = (kind: Kind) => [`${kind} one`, `${kind} two`, undefined];
  assert.equal(seen, [...of('prepare'), ...of('check'), 'callback']);
});

behaviour(
  'ticks and promises of a watcher run before the next watcher',
  async (t) => {
    const base = t.base();
    const seen: string[] = [];
    for (const kind of kinds)
      for (const n of [1, 2])
        watch(base, kind, () => {
          seen.push(`${kind} ${n}`);
          process.nextTick(() => seen.push('tick'));
          void Promise.resolve().then(() => seen.push('promise'));
        });
    base.timer(() => seen.push('callback')).activate(TIMEOUT);
    assert.is(await base.loop(), 'empty');
    const of = (kind: Kind) => [`${kind} 1`, 'tick', 'promise', `${kind} 2`, 'tick', 'promise'];
    assert.equal(seen, [...of('prepare'), ...of('check'), 'callback']);
  },
  asynchronous,
);

behaviour(
  'Node’s timers go on beside watchers, and an idle base does not spin for them',
  async (t) => {
    const base = t.base();
    const seen: Kind[] = [];
    for (const kind of kinds) watch(base, kind, () => seen.push(kind));
    base.timer(() => assert.unreachable()).add(1e6);
    const done = base.loop();
    // A base that spins does so always. The garbage collector has turns of its own, hundreds now
    // and then and then none.
    const calls: number[] = [];
    while (calls.length < 3 && !calls.some((count) => count < 60)) {
      const before = seen.length;
      for (let i = 0; i < 5; i++) await sleep(2);
      await sleep(30);
      calls.push(seen.length - before);
    }
    assert.ok(Math.min(...calls) < 60, `${calls} calls in five short sleeps and a long one each`);
    base.loopBreak();
    assert.is(await done, 'stopped');
    // Each turn has one of each; the last one may have been between the two.
    assert.is(seen.join(' ').replaceAll(/prepare( check|$) ?/g, ''), '');
  },
  asynchronous,
);

behaviour(
  'a watcher made while the base sleeps is called from the next turn on',
  async (t) => {
    const base = t.base();
    const seen: string[] = [];
    const timer = base.timer(() => seen.push('callback'));
    base.event(t.pair()[0], READ, () => assert.unreachable()).add();
    const done = base.loop();
    await sleep(2);
    for (const kind of kinds) watch(base, kind, () => seen.push(kind));
    timer.activate(TIMEOUT);
    while (!seen.includes('callback')) await sleep(1);
    base.loopBreak();
    assert.is(await done, 'stopped');
    const text = seen.join(' ');
    assert.match(text, /^(prepare check )*prepare check callback( prepare( check)?)*$/);
  },
  asynchronous,
);

test.run();
