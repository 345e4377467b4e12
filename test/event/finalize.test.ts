// Finalizers: an event is freed in the pass, when nobody can be in its callback, and says so once.

import { AsyncLocalStorage } from 'node:async_hooks';
import * as assert from 'uvu/assert';
import { Ev, EventBase, type EventHandle, LoopFlag } from '../../src/index.js';
import { test } from '../hooks.js';
import { asynchronous, behaviour, type Trial } from './conformance.js';
import { codeOf, gatheringUncaught, rejectionOf, thrownBy } from './support.js';

const { READ, WRITE, TIMEOUT, PERSIST, SIGNAL } = Ev;
const { ONCE, NONBLOCK } = LoopFlag;

// Who catches signals is started with the first one and stays.
test.before(() => {
  using base = new EventBase();
  base.signal('SIGUSR2', () => undefined).add();
});

// ── when ────────────────────────────────────────────────────────────────────────────────────────

/** What an event may be doing when it is finalized. */
const states: Record<string, (t: Trial, event: EventHandle, peer: number) => void> = {
  'that was never added': () => undefined,
  'that is added': (_, event) => void event.add(),
  'that is added with a timeout': (_, event) => void event.add(60_000),
  'that is active by hand': (_, event) => event.activate(READ),
  'that is added and readable': (t, event, peer) => {
    event.add();
    t.write(peer);
  },
  'that was added and deleted': (_, event) => event.add().del(),
};
for (const [state, bring] of Object.entries(states)) {
  for (const persist of [0, PERSIST]) {
    const kind = persist ? 'a persistent event' : 'an event';
    behaviour(`event_finalize: ${kind} ${state} is finalized once, in the pass`, async (t) => {
      const [a, b] = t.pair();
      const base = t.base();
      const seen: string[] = [];
      const event = base.event(a, READ | persist, () => assert.unreachable());
      bring(t, event, b);
      event.finalize(() => seen.push('finalized'));
      assert.equal(seen, [], 'not in the call');
      assert.equal(base.counts(), { added: 1, active: 1, virtual: 0 });
      assert.equal([...base.events()], [event]);
      assert.is(await t.run(base), 'empty');
      assert.equal(seen, ['finalized']);
      assert.equal(base.counts(), { added: 0, active: 0, virtual: 0 });
      assert.is(await t.run(base), 'empty');
      assert.equal(seen, ['finalized']);
      // The descriptor is still the caller's.
      t.write(b);
    });
  }
}

behaviour('event_finalize: without a callback it frees the event in the pass', async (t) => {
  const base = t.base();
  const event = base.timer(() => assert.unreachable()).add(0);
  event.finalize();
  assert.match(thrownBy(() => event.add()).message, 'is being finalized');
  assert.is(await t.run(base), 'empty');
  assert.match(thrownBy(() => event.add()).message, 'was freed');
  assert.is(
    codeOf(() => event.add()),
    'ERR_EVENT_FREED',
  );
});

behaviour('event_finalize: an event of a signal is finalized and hears no more', async (t) => {
  const base = t.base();
  let finalized = 0;
  const event = base.signal('SIGUSR2', () => assert.unreachable()).add();
  assert.is(base.activateSignal('SIGUSR2'), 1);
  assert.is(event.pending(SIGNAL), SIGNAL);
  event.finalize(() => finalized++);
  assert.is(await t.run(base), 'empty');
  assert.is(finalized, 1);
});

behaviour('event_finalize: in its own callback, the finalizer comes in a later pass', async (t) => {
  const [a] = t.pair();
  const base = t.base();
  const seen: string[] = [];
  base
    .event(a, WRITE | PERSIST, (_, self) => {
      self.finalize(() => seen.push(`finalized, ${passes} checks`));
      seen.push(`callback, ${passes} checks`);
    })
    .add();
  let passes = 0;
  base.check(() => passes++);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['callback, 1 checks', 'finalized, 2 checks']);
});

behaviour('event_finalize: the others of the pass that it is done to never run', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  const events: EventHandle[] = [];
  for (let n = 0; n < 4; n++) {
    const [a, b] = t.pair();
    t.write(b);
    const event = base.event(a, READ | PERSIST, () => {
      seen.push('callback');
      for (const [at, one] of events.entries()) one.finalize(() => seen.push(`finalized ${at}`));
    });
    events.push(event.add());
  }
  assert.is(await t.run(base), 'empty');
  assert.is(seen.shift(), 'callback');
  assert.equal(
    seen.sort(),
    [0, 1, 2, 3].map((at) => `finalized ${at}`),
  );
});

behaviour('event_finalize: by a callback of the same pass, before its own', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  const victim = base.timer(() => assert.unreachable());
  base.timer(() => victim.finalize(() => seen.push('finalized'))).activate(TIMEOUT);
  victim.activate(TIMEOUT);
  base.timer(() => seen.push('behind')).activate(TIMEOUT);
  assert.is(await t.run(base, ONCE), 'passed');
  assert.equal(seen, ['behind', 'finalized']);
});

behaviour('event_finalize: finalizers run at the priority of their events', async (t) => {
  const base = t.base({ priorities: 3 });
  const seen: string[] = [];
  for (const priority of [2, 0, 1]) {
    const event = base.timer(() => assert.unreachable(), { priority });
    event.finalize(() => seen.push(`finalizer ${priority}`));
    base.timer(() => seen.push(`callback ${priority}`), { priority }).activate(TIMEOUT);
  }
  for (const priority of [0, 1, 2]) {
    assert.is(await t.run(base, NONBLOCK), 'passed');
    assert.equal(seen.splice(0), [`finalizer ${priority}`, `callback ${priority}`]);
  }
});

behaviour('event_finalize: finalizing a more urgent event puts off the others', async (t) => {
  const base = t.base({ priorities: 2 });
  const seen: string[] = [];
  const urgent = base.timer(() => assert.unreachable(), { priority: 0 });
  base.timer(() => urgent.finalize(() => seen.push('finalized'))).activate(TIMEOUT);
  base.timer(() => seen.push('other')).activate(TIMEOUT);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['finalized', 'other']);
});

// ── what is left of the event ───────────────────────────────────────────────────────────────────

behaviour(
  'event_finalize: afterwards it can be used for nothing, and del is nothing',
  async (t) => {
    const [a, b] = t.pair();
    const base = t.base();
    let finalized = 0;
    const event = base.event(a, READ | PERSIST, () => assert.unreachable()).add(60_000);
    const codes = () => [
      codeOf(() => event.add()),
      codeOf(() => event.add(1)),
      codeOf(() => event.activate(READ)),
      codeOf(() => event.finalize()),
      codeOf(() => event.pending(READ)),
      codeOf(() => event.removeTimer()),
      codeOf(() => event.unref()),
      codeOf(() => {
        event.priority = 0;
      }),
    ];
    event.finalize(() => {
      finalized++;
      assert.is(base.runningEvent, event);
      assert.equal(codes(), Array(8).fill('ERR_EVENT_FREED'));
      event.free();
      event.free();
    });
    assert.equal(codes(), Array(8).fill('ERR_EVENT_FREED'));
    event.del();
    event.free();
    event[Symbol.dispose]();
    t.write(b);
    assert.is(base.activateFd(a, READ), 0);
    assert.is(event.remaining, undefined);
    assert.is(await t.run(base), 'empty');
    assert.is(finalized, 1);
    event.del();
    event.free();
    assert.equal(codes(), Array(8).fill('ERR_EVENT_FREED'));
  },
);

behaviour('event_finalize: the descriptor is free for another event at once', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const seen: string[] = [];
  const old = base.event(a, READ | PERSIST, () => assert.unreachable()).add();
  old.finalize(() => seen.push('finalized'));
  base.event(a, READ, () => seen.push('new')).add();
  t.write(b);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['finalized', 'new']);
});

behaviour('event_finalize: the finalizer may close the descriptor and make an event', async (t) => {
  const [a, b] = t.pair();
  const base = t.base();
  const seen: string[] = [];
  const event = base.event(a, READ | PERSIST, () => assert.unreachable()).add();
  event.finalize(() => {
    t.close(a);
    t.close(b);
    const [c] = t.pair();
    base.event(c, WRITE, () => seen.push('new')).add();
  });
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['new']);
});

behaviour('event_finalize: a finalizer finalizes another', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  const second = base.timer(() => assert.unreachable());
  base
    .timer(() => assert.unreachable())
    .finalize(() => {
      seen.push('first');
      second.finalize(() => seen.push('second'));
    });
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['first', 'second']);
});

behaviour('event_finalize: the callback is checked before anything is done', (t) => {
  const base = t.base();
  const event = base.timer(() => undefined).add(60_000);
  for (const wrong of [null, 5, 'text', {}])
    assert.is(
      codeOf(() => event.finalize(wrong as never)),
      'ERR_INVALID_ARG_TYPE',
    );
  assert.is(event.pending(TIMEOUT), TIMEOUT);
});

behaviour('event_finalize: loopBreak leaves the finalizer for the next loop', async (t) => {
  const base = t.base();
  let finalized = 0;
  base.timer(() => base.loopBreak()).activate(TIMEOUT);
  base.timer(() => assert.unreachable()).finalize(() => finalized++);
  assert.is(await t.run(base), 'stopped');
  assert.is(finalized, 0);
  assert.is(await t.run(base), 'empty');
  assert.is(finalized, 1);
});

behaviour(
  'event_finalize: the finalizer runs in the context in which its event was made',
  async (t) => {
    const base = t.base();
    const storage = new AsyncLocalStorage<string>();
    const seen: unknown[] = [];
    for (const closes of [false, true]) {
      const event = storage.run('made', () => base.timer(() => undefined));
      storage.run('finalized', () => event.finalize(() => seen.push(storage.getStore())));
      if (closes) base.close();
      else await base.loop();
    }
    await null;
    await new Promise(setImmediate);
    assert.equal(seen, ['made', 'made']);
  },
  asynchronous,
);

// ── when the base is closed first ───────────────────────────────────────────────────────────────

behaviour('event_base_free: finalizers that are to come run after the current code', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  const event = base.timer(() => assert.unreachable());
  event.finalize(() => {
    seen.push('first');
    event.free();
    assert.is(
      codeOf(() => event.add()),
      'ERR_BASE_CLOSED',
    );
  });
  base.timer(() => assert.unreachable()).finalize(() => seen.push('second'));
  base.timer(() => assert.unreachable()).activate(TIMEOUT);
  base.close();
  assert.equal(seen, [], 'not in the call');
  await new Promise<void>((resolve) => process.nextTick(resolve));
  assert.equal(seen, ['first', 'second']);
  base.close();
  await new Promise(setImmediate);
  assert.is(seen.length, 2);
});

behaviour('event_base_free: closed in a callback, finalizers run behind it', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  const event = base.timer(() => assert.unreachable());
  base
    .timer(() => {
      event.finalize(() => seen.push('finalized'));
      base.close();
      seen.push('end of the callback');
    })
    .activate(TIMEOUT);
  base.timer(() => assert.unreachable()).activate(TIMEOUT);
  assert.is(await t.run(base), 'stopped');
  assert.equal(seen.slice(0, 1), ['end of the callback']);
  await new Promise(setImmediate);
  assert.equal(seen, ['end of the callback', 'finalized']);
});

behaviour('event_base_free: closed in a finalizer, the others still run', async (t) => {
  const base = t.base();
  const seen: number[] = [];
  for (const n of [0, 1, 2])
    base
      .timer(() => assert.unreachable())
      .finalize(() => {
        seen.push(n);
        if (n === 1) base.close();
      });
  assert.is(await t.run(base), 'stopped');
  await new Promise(setImmediate);
  assert.equal(seen, [0, 1, 2]);
});

behaviour('event_base_free_nofinalize: close({ finalize: false }) runs none', async (t) => {
  const base = t.base();
  base.timer(() => assert.unreachable()).finalize(() => assert.unreachable());
  base.close({ finalize: false });
  await new Promise(setImmediate);
  assert.is(
    codeOf(() => base.close(null as never)),
    'ERR_INVALID_ARG_TYPE',
  );
});

// ── exceptions ──────────────────────────────────────────────────────────────────────────────────

behaviour('an exception of a finalizer is told like one of a callback', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  const failing = base.timer(() => assert.unreachable());
  failing.finalize(() => {
    seen.push('failing');
    throw new Error('finalizer');
  });
  base.timer(() => assert.unreachable()).finalize(() => seen.push('finalized'));
  base.timer(() => seen.push('callback')).activate(TIMEOUT);
  await gatheringUncaught(async (caught) => {
    if (t.sync) caught.push(await rejectionOf(t.run(base)));
    assert.is(await t.run(base), 'empty');
    assert.equal(
      caught.map((error) => (error as Error).message),
      ['finalizer'],
    );
  });
  assert.equal(seen, ['failing', 'finalized', 'callback']);
  assert.match(thrownBy(() => failing.add()).message, 'was freed');
});

behaviour('an exception of a finalizer of a closed base costs no other', async (t) => {
  const base = t.base();
  const seen: string[] = [];
  await gatheringUncaught(async (caught) => {
    for (const name of ['first', 'second', 'third'])
      base
        .timer(() => assert.unreachable())
        .finalize(() => {
          seen.push(name);
          if (name !== 'third') throw new Error(name);
        });
    base.close();
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    assert.equal(
      caught.map((error) => (error as Error).message),
      ['first', 'second'],
    );
  });
  assert.equal(seen, ['first', 'second', 'third']);
});

test.run();
