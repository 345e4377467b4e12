// What libevent gets wrong by its own rules, and what is right here: a test for each defect of its
// event core, named after the function that has it. These have their tests elsewhere:
//
//   evwatch_free, evwatch_prepare_new      watcher.test.ts
//   EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST   change_list.test.ts, descriptors that are duplicated
//   event_debug_assign, edge and level     debug.test.ts, refused without debug mode too
//   event_base_active_by_fd                event_base.test.ts

import * as assert from 'uvu/assert';
import { Ev, EventBase, type EventHandle, LoopFlag, sys } from '../../src/index.js';
import { test } from '../hooks.js';
import { withoutEpoll } from '../machine.js';
import { behaviour, type Trial } from './conformance.js';
import { runTraced, withStrace } from './strace.js';
import { codeOf, spin } from './support.js';

const { READ, WRITE, TIMEOUT, PERSIST, SIGNAL } = Ev;
const { ONCE, NONBLOCK } = LoopFlag;

// Who catches signals is started with the first one and stays.
test.before(() => {
  using base = new EventBase();
  base.signal('SIGUSR2', () => undefined).add();
});

// ── events ──────────────────────────────────────────────────────────────────────────────────────

behaviour('event_base_once: a failure leaves the base as it was, and usable', async (t) => {
  // libevent returns with the lock of the base held.
  const [a, b] = t.pair();
  const base = t.base();
  const closed = t.own(sys.dup(a));
  t.close(closed);
  for (let i = 0; i < 3; i++)
    assert.is(
      codeOf(() => base.once(closed, READ, () => assert.unreachable(), 5)),
      'EBADF',
    );
  assert.equal(base.counts(), { added: 0, active: 0, virtual: 0 });
  assert.equal([...base.events()], []);
  const seen: number[] = [];
  base.once(a, READ, (what) => seen.push(what));
  t.write(b);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [READ]);
});

behaviour('event_base_get_running_event: undefined while no callback runs', async (t) => {
  // libevent reads through a null pointer on the thread of the loop.
  const base = t.base();
  const seen: (EventHandle | undefined)[] = [base.runningEvent];
  const event = base.timer(() => seen.push(base.runningEvent));
  base.check(() => seen.push(base.runningEvent));
  event.activate(TIMEOUT);
  await t.run(base);
  seen.push(base.runningEvent);
  assert.is(seen.length, 4);
  assert.ok([undefined, undefined, event, undefined].every((one, at) => one === seen[at]));
});

behaviour('event_base_loopbreak: before the loop, it is for the loop that comes', async (t) => {
  // libevent forgets it, other than event_base_loopexit().
  const base = t.base();
  const event = base.timer(() => assert.unreachable());
  event.activate(TIMEOUT);
  base.loopBreak();
  assert.is(await t.run(base), 'stopped');
  assert.is(base.gotBreak, true);
  event.free();
  assert.is(await t.run(base), 'empty');
});

behaviour('event_base_loop: NONBLOCK does one pass', async (t) => {
  // libevent goes on for as long as something is ready: here, for ever.
  const [a] = t.pair();
  const base = t.base();
  let runs = 0;
  base.event(a, WRITE | PERSIST, () => runs++).add();
  for (const passes of [1, 2, 3]) {
    assert.is(await t.run(base, NONBLOCK), 'passed');
    assert.is(runs, passes);
  }
});

behaviour('event_add: an event that is only active waits for its descriptor too', async (t) => {
  // libevent does not tell the kernel of it.
  const [a, b] = t.pair();
  const base = t.base();
  const seen: number[] = [];
  const event = base.event(a, READ | PERSIST, (what, self) => {
    seen.push(what);
    if (what & READ) self.del();
    else t.write(b);
  });
  event.activate(TIMEOUT);
  event.add();
  assert.is(event.pending(0xff), READ | TIMEOUT);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [TIMEOUT, READ]);
});

behaviour('event_add: a new timeout drops the old one and not the READ beside it', async (t) => {
  // libevent takes the event out of the active queue, with all it is active for.
  const [a, b] = t.pair();
  const base = t.base();
  const seen: number[] = [];
  const event = base.event(a, READ | PERSIST, (what, self) => {
    seen.push(what);
    assert.ok((self.remaining as number) > 59_000);
    self.del();
  });
  event.add(1);
  base.timer(() => event.add(60_000)).activate(TIMEOUT);
  t.write(b);
  spin(2);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [READ]);
});

behaviour('event_base_priority_init: 256 priorities, as EVENT_MAX_PRIORITIES says', async (t) => {
  const base = t.base({ priorities: 256 });
  const seen: number[] = [];
  for (const priority of [255, 0, 128])
    base.timer(() => seen.push(priority), { priority }).activate(TIMEOUT);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, [0, 128, 255]);
});

behaviour('event_base_init_common_timeout: a second is one duration, however written', (t) => {
  // libevent takes 1 s and 0 s with 1,000,000 µs for two.
  const base = t.base();
  const second = base.commonTimeout(1000);
  for (const same of [1e3, 1_000_000 / 1000, 999.9999, Number('1000.0')])
    assert.is(base.commonTimeout(same), second);
  assert.is(second.ms, 1000);
});

behaviour('event_base_set: an event of another base is made anew there', async (t) => {
  // There is no call that changes the base of an event, and so none that fails half-way.
  const [a, b] = t.pair();
  const [first, second] = [t.base(), t.base()];
  const seen: string[] = [];
  const old = first.event(a, READ | PERSIST, () => seen.push('first')).add();
  t.write(b);
  assert.is(await t.run(first, NONBLOCK), 'passed');
  old.free();
  second.event(a, READ, () => seen.push('second')).add();
  assert.is(await t.run(second), 'empty');
  first.timer(() => undefined).add(1);
  assert.is(await t.run(first), 'empty');
  assert.equal(seen, ['first', 'second']);
});

// ── signals ─────────────────────────────────────────────────────────────────────────────────────

/** Runs `base` until its callback has asked for the end. */
async function runOnce(t: Trial, base: EventBase): Promise<void> {
  assert.is(await t.run(base), 'stopped');
}

behaviour('event_add: a signal is for every base that waits for it', async (t) => {
  // In libevent the one that has added it last takes it from the others.
  const bases = [t.base(), t.base(), t.base()];
  const calls = [0, 0, 0];
  for (const [at, base] of bases.entries())
    base
      .signal('SIGUSR2', (what) => {
        assert.is(what, SIGNAL);
        calls[at]++;
        base.loopBreak();
      })
      .add();
  for (let round = 1; round <= 3; round++) {
    process.kill(process.pid, 'SIGUSR2');
    for (const base of bases) await runOnce(t, base);
    assert.equal(calls, [round, round, round]);
  }
  bases[0].close();
  process.kill(process.pid, 'SIGUSR2');
  for (const base of bases.slice(1)) await runOnce(t, base);
  assert.equal(calls, [3, 4, 4]);
});

behaviour('sigfd_cb: a storm of signals is counted, and stops nobody', async (t) => {
  // libevent's signalfd asserts that every read answers a whole record.
  const [a, b] = t.pair();
  const base = t.base();
  const storm = 1000;
  let calls = 0;
  let reads = 0;
  base
    .event(a, READ | PERSIST, () => {
      t.read(a);
      if (++reads === 10) base.loopBreak();
      else t.write(b);
    })
    .add();
  base.signal('SIGUSR2', () => calls++).add();
  for (let i = 0; i < storm; i++) process.kill(process.pid, 'SIGUSR2');
  t.write(b);
  await runOnce(t, base);
  // The kernel joins those that are pending; what it has delivered arrives, and no more than that.
  while (calls === 0) assert.is(await t.run(base, ONCE), 'passed');
  assert.ok(calls <= storm, `${calls} calls for ${storm} signals`);
});

// ── backends ────────────────────────────────────────────────────────────────────────────────────

behaviour(
  'select: descriptors past 1,024 are as good as any',
  async (t) => {
    const base = t.base();
    const seen = new Set<number>();
    let highest = 0;
    while (highest < 1500) {
      const [a, b] = t.pair();
      highest = Math.max(a, b);
      if (highest < 1000) continue;
      base.event(a, READ, () => seen.add(a)).add();
      base.event(b, WRITE, () => t.write(b)).add();
    }
    assert.is(await t.run(base), 'empty');
    assert.ok(seen.size > 200 && Math.max(...seen) >= 1498, `${seen.size} were told`);
  },
  { backends: ['select'] },
);

/** Timers and a descriptor, in both of the ways in which the backend itself waits. */
const waiting = `
  for (const way of ['loopSync', 'base']) {
    const base = new EventBase({ backend: 'epoll', drive: 'base' });
    const [near, far] = sys.socketPair();
    const seen = [];
    const timer = (ms, then) => {
      // In a pass the clock stands still, and a timer counts from what it says.
      const due = base.now() + ms - 0.001;
      base.timer(() => {
        seen.push(base.now() >= due ? ms : 'early');
        then();
      }).add(ms);
    };
    timer(2.5, () => timer(1.5, () => sys.write(far, Buffer.from('x'))));
    base.event(near, Ev.READ, () => {
      seen.push('read');
      timer(0.3, () => seen.push('end'));
    }).add();
    seen.push(way === 'base' ? await base.loop() : base.loopSync());
    console.log(seen.join());
  }`;

// Kernels before 5.11 lack it, and some sandboxes forbid it; libevent decides when it is compiled.
for (const error of ['ENOSYS', 'EPERM']) {
  withStrace(
    `epoll_pwait2: timers are right where the kernel answers ${error}`,
    async () => {
      const flags = `-e trace=epoll_pwait2 -e inject=epoll_pwait2:error=${error}`;
      const { code, stdout, stderr, log } = await runTraced(waiting, flags);
      assert.equal([code, stderr], [0, '']);
      assert.is(stdout, '2.5,1.5,read,0.3,end,empty\n'.repeat(2));
      const asked = log.filter((line) => line.includes('epoll_pwait2('));
      assert.is(asked.length, 2, 'each base has asked once');
      assert.ok(asked.every((line) => line.includes(error) && line.includes('INJECTED')));
    },
    withoutEpoll,
  );
}

test.run();
