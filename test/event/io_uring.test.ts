// io_uring where it is seen from outside: how often it enters the kernel, and what is said where it
// is refused. What it tells and when is in the suite of all backends and in test/core.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { allBackends } from '../machine.js';
import { runChild } from './child.js';
import { callsBetween, runTraced, withStrace } from './strace.js';

const lacking = allBackends.includes('io_uring') ? undefined : 'io_uring is not available here';

// ── how often the kernel is entered ─────────────────────────────────────────────────────────────

const PASSES = 100;

for (const drive of ['loopSync', 'base']) {
  const lines = `
    import { writeSync } from 'node:fs';
    const base = new EventBase({ backend: 'io_uring', drive: 'base' });
    const events = Array.from({ length: 10 }, () => {
      const [a, b] = sys.socketPair();
      sys.write(b, Buffer.from('x'));
      const read = base.event(a, Ev.READ, () => reads++).add();
      const write = base.event(b, Ev.READ | Ev.PERSIST, () => undefined).add();
      return { read, write };
    });
    let reads = 0;
    let pass = 0;
    base.timer((_, self) => {
      if (pass === 1) writeSync(1, 'begin turns\\n');
      if (pass++ === ${PASSES + 1}) {
        writeSync(1, 'end turns\\n');
        return base.loopBreak();
      }
      for (const { read, write } of events) {
        // One-shot ones fire and come back; the others come and go.
        read.add();
        if (pass % 2 === 0) write.del();
        else write.add();
      }
      self.activate(Ev.TIMEOUT);
    }).activate(Ev.TIMEOUT);
    ${drive === 'loopSync' ? 'base.loopSync()' : 'await base.loop()'};
    console.log(reads >= ${PASSES * 5});
    process.exit();`;
  withStrace(
    `${drive}: the changes of a turn and its wait are one system call of io_uring's`,
    async () => {
      const traced = await runTraced(lines, '-e trace=io_uring_enter,write');
      assert.is(traced.code, 0, traced.stderr);
      assert.match(traced.stdout, /^true$/m);
      const calls = callsBetween(traced, 'turns', 'io_uring_enter');
      assert.is(calls.length, PASSES);
    },
    lacking,
  );
}

// ── where it is refused ─────────────────────────────────────────────────────────────────────────

const REPORT = `
  const { available, reason, features } = EventBase.backends().find((one) => one.name === 'io_uring');
  console.log(JSON.stringify({ available, reason, features }));
  console.log(new EventBase().backend);
  try {
    new EventBase({ backend: 'io_uring' });
  } catch (error) {
    console.log(error.code, error.message);
  }`;

const refusals: [code: string, reason: string][] = [
  [
    'EPERM',
    'the kernel refuses it: EPERM ' +
      '(the sysctl kernel.io_uring_disabled forbids it, or a sandbox does)',
  ],
  [
    'ENOSYS',
    'the kernel refuses it: ENOSYS ' +
      '(it takes Linux 5.17 and CONFIG_IO_URING, or a sandbox hides it)',
  ],
];

for (const [code, reason] of refusals) {
  withStrace(
    `a kernel that answers ${code} has no io_uring, and the reason is told`,
    async () => {
      const inject = `-e inject=io_uring_setup:error=${code}`;
      const traced = await runTraced(REPORT, `-e trace=io_uring_setup ${inject}`);
      assert.is(traced.code, 0, traced.stderr);
      const [report, other, refused] = traced.stdout.split('\n');
      assert.equal(JSON.parse(report), { available: false, reason, features: [] });
      assert.is(other, 'epoll');
      assert.match(refused, `ERR_BACKEND_UNAVAILABLE No usable backend: io_uring (${reason})`);
    },
    lacking,
  );
}

withStrace(
  'a kernel that lacks the younger flags of io_uring_setup is asked without them',
  async () => {
    const lines = `
      const base = new EventBase({ backend: 'io_uring' });
      const [a, b] = sys.socketPair();
      let runs = 0;
      const event = base.event(a, Ev.READ | Ev.PERSIST, (_, self) => {
        sys.read(a, Buffer.alloc(8));
        if (++runs === 3) self.del();
        else sys.write(b, Buffer.from('x'));
      }).add();
      sys.write(b, Buffer.from('x'));
      await base.loop();
      console.log(runs);`;
    // Two are refused on every thread, and the third has none of them: the probe's, then the base's.
    const inject = '-e inject=io_uring_setup:error=EINVAL:when=1..2';
    const traced = await runTraced(lines, `-e trace=io_uring_setup ${inject}`);
    assert.is(traced.code, 0, traced.stderr);
    assert.is(traced.stdout, '3\n');
    const asked = new Map<string, string[]>();
    for (const line of traced.log) {
      const [, thread, flags] = /^(\d+) .*io_uring_setup\(\d+, \{flags=([^,]+)/.exec(line) ?? [];
      if (flags !== undefined) asked.set(thread, [...(asked.get(thread) ?? []), flags]);
    }
    const isOurs = (flags: string) => flags.includes('IORING_SETUP_CQSIZE');
    const threads = [...asked.values()].filter((all) => all.some(isOurs));
    assert.is(threads.length, 2);
    // The probe's thread is ours alone. From Node 22 on libuv asks for a ring on every other one,
    // before us, and is refused in our place.
    const [kinds, own] = threads.sort((a, b) => a.findIndex(isOurs) - b.findIndex(isOurs));
    assert.is(new Set(kinds).size, 3);
    assert.is(kinds[2], 'IORING_SETUP_CQSIZE');
    const before = own.findIndex(isOurs);
    assert.equal(own.slice(before), kinds.slice(0, Math.max(1, 3 - before)));
  },
  lacking,
);

test('asking what there is makes no ring on the thread that asks', async () => {
  // A ring that is closed interrupts its thread later: a wait of another base would end early.
  const { stdout, stderr } = await runChild(`
    EventBase.backends();
    const base = new EventBase();
    const before = base._turns;
    base.timer(() => undefined).add(100);
    base.loopSync();
    console.log(base._turns - before);`);
  assert.is(stderr, '');
  assert.is(stdout, '1\n');
});

test.run();
