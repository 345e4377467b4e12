// What the kernel is told of an event's comings and goings: as little as can be, in time, and right
// also for descriptors that are duplicated, closed and opened again meanwhile.

import { closeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Ev, EventBase, type EventHandle, LoopFlag, sys } from '../../src/index.js';
import { beside, withoutEpoll, withoutNesting } from '../machine.js';
import { testWhere } from '../where.js';
import { asynchronous, behaviour, type Trial } from './conformance.js';
import { callsBetween, runTraced, withStrace } from './strace.js';
import { assertNoneLeft, codeOf, openDescriptors, PATIENCE_MS, within } from './support.js';

const { READ, WRITE, TIMEOUT, PERSIST } = Ev;
const { NONBLOCK, NO_EXIT_ON_EMPTY } = LoopFlag;
const EBADF = -9;

// ── how often the kernel is told ────────────────────────────────────────────────────────────────

/** Each step in passes of their own, in the way that `drive` names. */
const counting = (drive: string) => `
  import { writeSync } from 'node:fs';
  const base = new EventBase({ backend: 'epoll', drive: '${drive === 'base' ? 'base' : 'libuv'}' });
  const [a] = sys.socketPair();
  const PASSES = 1000;

  /** Calls step() in so many passes, and in one before that and one after it. */
  async function count(name, step, passes = PASSES) {
    let pass = 0;
    base.timer((_, self) => {
      if (pass === 1) writeSync(1, 'begin ' + name + '\\n');
      if (pass <= passes) step(pass);
      if (pass++ <= passes + 1) return self.activate(Ev.TIMEOUT);
      writeSync(1, 'end ' + name + '\\n');
      self.free();
      base.loopBreak();
    }).activate(Ev.TIMEOUT);
    ${drive === 'loopSync' ? 'base.loopSync()' : 'await base.loop()'};
  }

  const fresh = Array.from({ length: PASSES + 1 }, () => sys.dup(a));
  await count('new to the base', () => base.event(fresh.pop(), Ev.READ, () => undefined).add().free());
  const read = base.event(a, Ev.READ | Ev.PERSIST, () => undefined);
  await count('added and deleted', () => {
    read.add();
    read.del();
  });
  await count('added and deleted often', () => {
    for (let i = 0; i < 1000; i++) {
      read.add();
      read.del();
    }
  }, 1);

  let runs = 0;
  const write = base.event(a, Ev.WRITE, (_, self) => {
    runs++;
    self.add();
  });
  await count('one-shot', (pass) => pass === 0 && write.add());
  write.free();

  read.add();
  const both = base.event(a, Ev.WRITE | Ev.PERSIST, () => undefined);
  await count('widened', (pass) => pass === 1 && both.add(), 3);
  await count('narrowed', (pass) => pass === 1 && both.del(), 3);
  await count('widened and narrowed', () => {
    both.add();
    both.del();
  });
  console.log(runs >= PASSES);
  process.exit();`;

for (const drive of ['loopSync', 'base', 'libuv']) {
  withStrace(
    `${drive}: changes of a turn that cancel out cost no system call`,
    async () => {
      const traced = await runTraced(counting(drive), '-e trace=epoll_ctl,write');
      assert.is(traced.code, 0, traced.stderr);
      assert.match(traced.stdout, /^true$/m);
      const counted = (name: string) => callsBetween(traced, name, 'epoll_ctl');
      assert.equal(counted('new to the base'), [], 'added and deleted');
      assert.equal(counted('added and deleted'), []);
      assert.equal(counted('added and deleted often'), []);
      assert.equal(counted('one-shot'), [], 'added again in its callback');
      assert.equal(counted('widened and narrowed'), []);
      assert.match(counted('widened').join(), /EPOLL_CTL_MOD.*EPOLLIN\|EPOLLOUT/);
      assert.is(counted('widened').length, 1, 'READ becomes READ|WRITE');
      assert.match(counted('narrowed').join(), 'EPOLL_CTL_MOD');
      assert.is(counted('narrowed').length, 1);
    },
    withoutEpoll,
  );
}

// ── when it is told ─────────────────────────────────────────────────────────────────────────────

/** An event that the base has met and that waits for nothing: adding it is no call of its own. */
async function makeKnown(t: Trial, fd: number, mask: number, callback: () => void) {
  const base = t.base();
  const event = base.event(fd, mask, callback).add();
  const timer = base.timer(() => event.del());
  timer.activate(TIMEOUT);
  // Twice, since what the first pass removes is told before the second.
  while ((await t.run(base, NONBLOCK)) !== 'empty');
  timer.free();
  return { base, event };
}

behaviour(
  'what Node’s own callbacks change between two turns is told before the next wait',
  async (t) => {
    const [a, b] = t.pair();
    const seen: string[] = [];
    const { base, event } = await makeKnown(t, a, READ | PERSIST, () => {
      seen.push(t.read(a));
      base.loopBreak();
    });
    const timer = base.timer(() => assert.unreachable()).add(1e6);
    for (const start of [setTimeout, setImmediate, queueMicrotask, process.nextTick]) {
      const done = base.loop();
      (start as (callback: () => void) => void)(() => {
        event.add();
        t.write(b, start.name);
      });
      assert.is(await done, 'stopped');
      assert.is(seen.pop(), start.name);
      // And what is taken away is not waited for: this would be reported at once.
      t.write(b, 'unread');
      const quiet = base.loop();
      event.del();
      await sleep(2);
      base.loopBreak();
      await quiet;
      assert.equal(seen, []);
      assert.is(t.read(a), 'unread');
    }
    timer.free();
  },
  asynchronous,
);

// Each base tells the kernel before libuv waits. One that is changed after that, by another base,
// must be told in time too.

/** `event`, whose base the kernel does not know to wait for it, with its descriptor readable. */
async function knownBeside(drive: 'base' | 'libuv', bases: EventBase[]) {
  const base = new EventBase({ backend: beside, drive, debug: true });
  bases.push(base);
  const [a, b] = sys.socketPair();
  let called = () => {};
  const event = base.event(a, READ, () => {
    sys.read(a, Buffer.alloc(8));
    called();
  });
  event.add();
  event.del();
  assert.is(base.loopSync(NONBLOCK), 'empty');
  const readable = () => {
    sys.write(b, Buffer.from('x'));
    return new Promise<void>((resolve) => {
      called = resolve;
    });
  };
  const end = () => {
    base.close();
    sys.close(a);
    sys.close(b);
  };
  return { base, event, readable, end };
}

function besideTest(name: string, body: (bases: EventBase[]) => Promise<() => void>): void {
  testWhere(withoutNesting, name, async () => {
    const before = openDescriptors();
    const bases: EventBase[] = [];
    const end = await within(PATIENCE_MS, body(bases)).finally(() => {
      for (const base of bases) base.close();
    });
    end();
    await sleep(1);
    assertNoneLeft(before);
  });
}

besideTest('a base that libuv waits for is told what the driving base changes', async (bases) => {
  const { base, event, readable, end } = await knownBeside('libuv', bases);
  const driving = new EventBase({ drive: 'base', debug: true });
  bases.push(driving);
  void base.loop(NO_EXIT_ON_EMPTY);
  driving.timer(() => assert.unreachable()).add(1e6);
  void driving.loop();
  // The turn of the driving base goes on after its callback and may wait at once.
  const add = driving.timer(() => event.add());
  for (let i = 0; i < 20; i++) {
    await sleep(1);
    const called = readable();
    add.activate(TIMEOUT);
    await called;
  }
  return end;
});

besideTest('a base tells its changes before a base that was started later waits', async (bases) => {
  for (const first of ['base', 'libuv'] as const) {
    const { base, event, readable, end } = await knownBeside('libuv', bases);
    const driving = new EventBase({ drive: 'base', debug: true });
    bases.push(driving);
    driving.timer(() => assert.unreachable()).add(1e6);
    if (first === 'base') void driving.loop();
    void base.loop(NO_EXIT_ON_EMPTY);
    if (first === 'libuv') void driving.loop();
    for (let i = 0; i < 3; i++) {
      await sleep(1);
      const called = readable();
      setTimeout(() => event.add(), 1);
      await called;
    }
    driving.close();
    end();
    await sleep(1);
  }
  return () => undefined;
});

besideTest('a base is told what a prepare watcher of another base changes', async (bases) => {
  for (const first of [0, 1]) {
    const { base, event, readable, end } = await knownBeside('libuv', bases);
    const other = new EventBase({ drive: 'libuv', debug: true });
    bases.push(other);
    const timer = other.timer(() => undefined, { persist: true }).add(1);
    other.timer(() => assert.unreachable()).add(1e6);
    const called = readable();
    let prepared = 0;
    other.prepare(() => {
      if (++prepared !== 3) return;
      // From here on nothing else makes libuv turn.
      timer.del();
      event.add();
    });
    const order = first === 0 ? [base, other] : [other, base];
    for (const one of order) void one.loop(NO_EXIT_ON_EMPTY);
    await called;
    other.close();
    end();
    await sleep(1);
  }
  return () => undefined;
});

// ── descriptors that are closed ─────────────────────────────────────────────────────────────────

/**
 * Runs the base for a while and asserts that it sleeps: one that spins makes thousands of turns,
 * always. Node's garbage collector has turns of its own, hundreds now and then and then none.
 */
async function assertSleeps(t: Trial, base: EventBase): Promise<void> {
  const turns: number[] = [];
  while (turns.length < 3 && !turns.some((count) => count < 50)) {
    const before = base._turns;
    base.loopExit(30);
    assert.is(await t.run(base, NO_EXIT_ON_EMPTY), 'stopped');
    turns.push(base._turns - before);
  }
  assert.ok(Math.min(...turns) < 50, `${turns} turns in 30 ms each`);
}

const closings: Record<string, (event: EventHandle, fd: number) => void> = {
  'deleted, then closed': (event, fd) => {
    event.del();
    closeSync(fd);
  },
  'closed, then deleted': (event, fd) => {
    closeSync(fd);
    event.del();
  },
  'freed, then closed': (event, fd) => {
    event.free();
    closeSync(fd);
  },
  'deleted, then closed by sys.close': (event, fd) => {
    event.del();
    assert.is(sys.close(fd), 0);
  },
};
for (const [how, close] of Object.entries(closings)) {
  behaviour(`a descriptor ${how} while its duplicate lives keeps nobody awake`, async (t) => {
    const base = t.base();
    const [a, b] = sys.socketPair();
    t.own(b);
    const copy = t.own(sys.dup(a));
    let runs = 0;
    const event = base.event(a, READ | PERSIST, () => runs++).add();
    t.write(b);
    assert.is(await t.run(base, NONBLOCK), 'passed');
    assert.is(runs, 1);
    // In a callback, where nothing is told before the wait.
    base.timer(() => close(event, a)).activate(TIMEOUT);
    assert.is(await t.run(base, NONBLOCK), 'passed');
    // What the kernel still knows of may be reported once, to nobody.
    await assertSleeps(t, base);
    assert.is(runs, 1);

    const [c, d] = t.pair();
    assert.ok([c, d].includes(a), 'the kernel gives the lowest free numbers');
    const seen: string[] = [];
    const renewed = base.event(a, READ | PERSIST, () => seen.push(t.read(a))).add();
    await assertSleeps(t, base);
    t.write(copy, 'not for the new one');
    t.write(a === c ? d : c, 'for the new one');
    assert.is(await t.run(base, NONBLOCK), 'passed');
    assert.equal(seen, ['for the new one']);
    renewed.del();
  });
}

for (const [how, close] of Object.entries(closings)) {
  behaviour(`a descriptor ${how} is closed for its peer`, async (t) => {
    const base = t.base();
    // In a callback the kernel is told before the wait, and outside of loops at once.
    for (const inside of [false, true]) {
      const [a, b] = sys.socketPair();
      t.own(b);
      const event = base.event(a, READ | PERSIST, () => assert.unreachable()).add();
      assert.is(await t.run(base, NONBLOCK), 'passed');
      if (inside) base.timer(() => close(event, a)).activate(TIMEOUT);
      else close(event, a);
      if (inside) assert.is(await t.run(base, NONBLOCK), 'passed');
      assert.is(t.read(b), '');
    }
  });
}

for (const persist of [0, PERSIST]) {
  const kind = persist ? 'a persistent' : 'a one-shot';
  behaviour(`${kind} event closed before it was told is called once and meets EBADF`, async (t) => {
    const [a, b] = sys.socketPair();
    t.own(b);
    const answers: number[] = [];
    const { base, event } = await makeKnown(t, a, READ | persist, () => {
      answers.push(sys.read(a, Buffer.alloc(1)));
    });
    const other = base.event(b, WRITE, () => answers.push(0)).add();
    base
      .timer(() => {
        event.add();
        closeSync(a);
      })
      .activate(TIMEOUT);
    assert.is(await t.run(base, LoopFlag.ONCE), 'passed');
    await assertSleeps(t, base);
    assert.equal(answers.sort(), [EBADF, 0], 'others are served as ever');
    other.free();
    assert.is(event.pending(READ), persist ? READ : 0);
    event.del();
    assert.is(
      codeOf(() => event.add()),
      'EBADF',
    );
    assert.is(await t.run(base), 'empty');
  });
}

behaviour('sys.close makes the next add of the number throw EBADF at once', async (t) => {
  const [a, b] = sys.socketPair();
  t.own(b);
  const { base, event } = await makeKnown(t, a, READ, () => assert.unreachable());
  const other = base.event(b, READ, () => undefined).add();
  assert.is(sys.close(a), 0);
  assert.is(
    codeOf(() => event.add(100)),
    'EBADF',
  );
  assert.is(event.pending(0xff), 0);
  assert.equal([...base.events()], [other]);
  // The other end is told of the end of its stream.
  assert.is(await t.run(base), 'empty');
});

behaviour('an event left on a number that sys.close has closed hears nothing', async (t) => {
  const base = t.base();
  const [a, b] = sys.socketPair();
  t.own(b);
  const left = base.event(a, READ | PERSIST, () => assert.unreachable()).add();
  t.write(b);
  assert.is(sys.close(a), 0);
  await assertSleeps(t, base);
  assert.is(left.pending(READ), READ);
  left.del();
  assert.is(await t.run(base), 'empty');
});

behaviour('a duplicate is a descriptor of its own', async (t) => {
  const [a, b] = t.pair();
  const copy = t.own(sys.dup(a));
  const base = t.base();
  const seen: string[] = [];
  const first = base.event(a, READ, () => seen.push('first')).add();
  base.event(copy, READ, () => seen.push('copy')).add();
  first.del();
  t.write(b);
  assert.is(await t.run(base), 'empty');
  assert.equal(seen, ['copy']);
});

test.run();
