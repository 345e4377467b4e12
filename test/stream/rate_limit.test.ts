// Rate limits: the arithmetic on a clock of the test's own, the holding on real streams.

import { openSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  BufferEvent,
  Ev,
  EventBase,
  LoopFlag,
  RateLimit,
  RateLimitGroup,
  type RateLimits,
} from '../../src/index.js';
import { StreamLimit } from '../../src/stream/stream_limit.js';
import { runChild } from '../event/child.js';
import { behaviour } from '../event/conformance.js';
import { codeOf } from '../event/support.js';
import { passes, until } from './streams.js';
import { pairOf, socketsOf, Tape } from './tape.js';
import { Clock, CountedStream } from './virtual_time.js';

const BOTH = Ev.READ | Ev.WRITE;
const directions = ['read', 'write'] as const;

// ── bytes over time ──

interface Case {
  rate: number;
  burst: number;
  tick: number;
  steps: number[];
  most: number[];
}

const cases = fc
  .record({
    rate: fc.integer({ min: 2000, max: 20_000_000 }),
    tick: fc.integer({ min: 1, max: 300 }),
    ticksSaved: fc.integer({ min: 1, max: 10 }),
    steps: fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 20 }),
    most: fc.array(fc.integer({ min: 1, max: 1_000_000 }), { minLength: 1, maxLength: 20 }),
  })
  .map(({ rate, tick, ticksSaved, steps, most }): Case => {
    // So that what comes while it rests, and while its timer is late, can be saved up.
    const burst = Math.ceil((rate * (tick * ticksSaved + 60)) / 1000);
    return { rate, burst, tick, steps, most };
  });

/** No window of the run has more than the burst and what its time has brought. */
class Meter {
  readonly #rate: number;
  readonly #burst: number;
  #least = 0;
  bytes = 0;
  constructor({ rate, burst }: Case) {
    this.#rate = rate;
    this.#burst = burst;
  }
  count(bytes: number, ms: number): void {
    const brought = (this.#rate * ms) / 1000;
    this.#least = Math.min(this.#least, this.bytes - brought);
    this.bytes += bytes;
    const over = this.bytes - brought - this.#least - this.#burst;
    assert.ok(over <= 1, `${over} bytes too many after ${ms} ms`);
  }
}

test('a greedy stream moves its rate within 5 %, and never more than its burst at once', () => {
  fc.assert(
    fc.property(cases, fc.constantFrom(...directions), (one, direction) => {
      const clock = new Clock();
      const stream = new CountedStream(clock.base);
      stream._limit = new StreamLimit(stream);
      const { rate, burst, tick } = one;
      const burstName = `${direction}Burst` as const;
      stream._limit.set(new RateLimit({ [direction]: rate, [burstName]: burst, tick }));
      const meter = new Meter(one);
      const begin = clock.time;
      for (let i = 0; clock.time - begin < 10_000; i++) {
        clock.pass(one.steps[i % one.steps.length]);
        // As long as there is something to take, as a socket that stays readable.
        for (let calls = 0; calls < 100; calls++) {
          const moved = stream.move(direction, burst);
          if (moved === 0) break;
          meter.count(moved, clock.time - begin);
        }
      }
      const expected = rate * 10;
      assert.ok(meter.bytes >= expected * 0.95, `${meter.bytes} of ${expected}`);
      assert.ok(meter.bytes <= expected * 1.05 + burst, `${meter.bytes} of ${expected}`);
      // At least a quarter of a tick's bytes each time.
      const calls = (10_000 / tick) * 4 * 1.05 + 10;
      assert.ok(stream.calls <= calls, `${stream.calls} calls in 10 s of ticks of ${tick} ms`);
    }),
    { numRuns: 40 },
  );
});

test('a stream that moves what it likes never exceeds its limit', () => {
  fc.assert(
    fc.property(cases, (one) => {
      const clock = new Clock();
      const stream = new CountedStream(clock.base);
      stream._limit = new StreamLimit(stream);
      stream._limit.set(new RateLimit({ read: one.rate, readBurst: one.burst, tick: one.tick }));
      const meter = new Meter(one);
      const begin = clock.time;
      for (let i = 0; i < 300; i++) {
        clock.pass(one.steps[i % one.steps.length]);
        const moved = stream.move('read', one.most[i % one.most.length]);
        if (moved > 0) meter.count(moved, clock.time - begin);
      }
    }),
    { numRuns: 40 },
  );
});

test('a group moves its rate within 5 %, divided evenly among those that want it', () => {
  fc.assert(
    fc.property(
      cases,
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 0, max: 20 }),
      (one, greedy, idle) => {
        const clock = new Clock();
        const { rate, burst, tick } = one;
        const group = new RateLimitGroup(clock.base, { read: rate, readBurst: burst, tick });
        const streams = Array.from({ length: greedy + idle }, () => {
          const stream = new CountedStream(clock.base);
          group.add(stream);
          return stream;
        });
        const busy = streams.slice(0, greedy);
        const meter = new Meter(one);
        const begin = clock.time;
        const ms = Math.max(10_000, tick * 50);
        for (let i = 0; clock.time - begin < ms; i++) {
          clock.pass(one.steps[i % one.steps.length]);
          for (let calls = 0, moved = 1; moved > 0 && calls < 100; calls++) {
            moved = 0;
            for (const stream of busy) moved += stream.move('read', burst);
            if (moved > 0) meter.count(moved, clock.time - begin);
          }
        }
        const expected = (rate * ms) / 1000;
        assert.ok(meter.bytes >= expected * 0.95, `${meter.bytes} of ${expected}`);
        assert.is(group.totals.read, meter.bytes);
        // A round is all that one may have more than another, beside what minShare costs.
        const fair = meter.bytes / greedy;
        const slack = fair * 0.1 + (rate * (tick + 60)) / 1000 + 64 * 2;
        for (const { moved } of busy)
          assert.ok(Math.abs(moved.read - fair) <= slack, `${moved.read} of ${fair}`);
      },
    ),
    { numRuns: 25 },
  );
});

test('who wants little gets it, and the greedy one gets the rest', () => {
  const clock = new Clock();
  const group = new RateLimitGroup(clock.base, { read: 1_000_000 });
  const make = () => {
    const stream = new CountedStream(clock.base);
    group.add(stream);
    return stream;
  };
  const greedy = make();
  const light = Array.from({ length: 9 }, make);
  let longest = 0;
  const since = light.map(() => 0);
  for (let ms = 0; ms < 20_000; ms += 5) {
    clock.pass(5);
    while (greedy.move('read', 65_536) > 0);
    // A hundred bytes, every 50 ms.
    for (const [i, stream] of light.entries()) {
      if (ms - since[i] < 50) continue;
      if (stream.move('read', 100) === 0) continue;
      longest = Math.max(longest, ms - since[i]);
      since[i] = ms;
    }
  }
  for (const { moved } of light)
    assert.ok(moved.read >= 100 * 100, `${moved.read} of 20 s, 100 each 50 to 150 ms`);
  assert.ok(longest <= 50 + 2 * 100, `one waited for ${longest} ms`);
  const total = group.totals.read;
  assert.ok(total >= 0.95 * 20_000_000, `${total} in all`);
});

test('minShare: with many members few move at least that much, in turn', () => {
  const clock = new Clock();
  const group = new RateLimitGroup(clock.base, { write: 10_000 }, { minShare: 500 });
  const streams = Array.from({ length: 20 }, () => {
    const stream = new CountedStream(clock.base);
    group.add(stream);
    return stream;
  });
  for (let ms = 0; ms < 20_000; ms += 10) {
    clock.pass(10);
    for (const stream of streams) {
      const moved = stream.move('write', 5000);
      assert.ok(moved === 0 || moved >= 500, `${moved}`);
    }
  }
  const each = streams.map(({ moved }) => moved.write);
  assert.ok(Math.min(...each) >= 0.5 * Math.max(...each), `${each}`);
  assert.is(group.minShare, 500);
  group.minShare = 1;
  assert.is(
    codeOf(() => (group.minShare = 0)),
    'ERR_OUT_OF_RANGE',
  );
});

test('a stream has its own limit beside that of its group, and takes no part when it rests', () => {
  const clock = new Clock();
  const group = new RateLimitGroup(clock.base, { read: 100_000 });
  const slow = new CountedStream(clock.base);
  slow._limit = new StreamLimit(slow);
  slow._limit.set(new RateLimit({ read: 10_000 }));
  const fast = new CountedStream(clock.base);
  group.add(slow);
  group.add(fast);
  for (let ms = 0; ms < 20_000; ms += 5) {
    clock.pass(5);
    for (const stream of [slow, fast]) while (stream.move('read', 65_536) > 0);
  }
  assert.ok(slow.moved.read <= 10_000 * 20 + 10_000, `${slow.moved.read}`);
  assert.ok(slow.moved.read >= 10_000 * 20 * 0.9, `${slow.moved.read}`);
  assert.ok(fast.moved.read >= 90_000 * 20 * 0.95, `${fast.moved.read}`);
});

test('directions do not count for each other', () => {
  const clock = new Clock();
  const group = new RateLimitGroup(clock.base, { read: 50_000, write: 50_000 });
  const reader = new CountedStream(clock.base);
  const writer = new CountedStream(clock.base);
  group.add(reader);
  group.add(writer);
  for (let ms = 0; ms < 10_000; ms += 5) {
    clock.pass(5);
    reader.move('read', 65_536);
    writer.move('write', 65_536);
  }
  const { read, written } = group.totals;
  for (const total of [read, written]) assert.ok(total >= 500_000 * 0.95, `${total}`);
  group.resetTotals();
  assert.equal(group.totals, { read: 0, written: 0 });
});

test('a new limit brings no bytes, and a wider one wakes who rests', () => {
  const clock = new Clock();
  const stream = new CountedStream(clock.base);
  stream._limit = new StreamLimit(stream);
  const limit = new RateLimit({ read: 1000 });
  stream._limit.set(limit);
  assert.is(stream.move('read', 5000), 100);
  for (let i = 0; i < 10; i++) stream._limit.set(new RateLimit({ read: 1000 }));
  assert.is(stream.move('read', 5000), 0);
  assert.is.not(stream.held.read, 0);
  stream._limit.set(new RateLimit({ read: 1_000_000 }));
  assert.is(stream.held.read, 0);
  clock.pass(50);
  assert.ok(stream.move('read', 100_000) >= 40_000);
  stream._limit.set(undefined);
  assert.is(stream.move('read', 1e9), 1e9);
  assert.is(clock.pending, 0);
});

test('a group whose limits change wakes its members, and so does one that is closed', () => {
  const clock = new Clock();
  const group = new RateLimitGroup(clock.base, { read: 1000 });
  const streams = [new CountedStream(clock.base), new CountedStream(clock.base)];
  const [one, other] = streams;
  for (const stream of streams) group.add(stream);
  assert.is(one.move('read', 5000), 100);
  assert.is(one.move('read', 5000) + other.move('read', 5000), 0);
  assert.is(clock.pending, 1);
  group.setLimits({ read: 100_000 });
  assert.equal([one.held.read, other.held.read, clock.pending], [0, 0, 0]);
  assert.is(group.limits.read, 100_000);
  assert.is(one.move('read', 5000), 0);
  // Who leaves is free, and when nobody waits no timer runs.
  group.remove(one);
  assert.equal([one.held.read, clock.pending, group.size], [0, 0, 1]);
  assert.is(one.move('read', 1e6), 1e6);
  assert.is(other.move('read', 5000), 0);
  group.close();
  assert.equal([other.held.read, clock.pending, group.size], [0, 0, 0]);
  assert.equal([one._limit, other._limit], [undefined, undefined]);
});

test('what is left, what one call may move, and what is taken by hand', () => {
  const clock = new Clock();
  const stream = new CountedStream(clock.base);
  for (const direction of directions) {
    assert.is(RateLimit.left(stream, direction), Infinity);
    assert.is(RateLimit.charge(stream, direction, 5), false);
  }
  assert.is(RateLimit.room(stream, 'read'), 65_536);
  stream._limit = new StreamLimit(stream);
  stream._limit.set(new RateLimit({ read: 1_000_000, write: 1000 }));
  const group = new RateLimitGroup(clock.base, { read: 400_000 });
  group.add(stream);
  assert.is(RateLimit.group(stream), group);
  assert.is(RateLimit.left(stream, 'read'), 100_000);
  assert.is(RateLimit.left(stream, 'write'), 100);
  assert.is(RateLimit.room(stream, 'read'), 40_000, 'what the group has');
  assert.is(RateLimit.room(stream, 'write'), 100);
  assert.is(group.left('write'), Infinity);
  assert.is(RateLimit.charge(stream, 'write', 150), true);
  assert.is(RateLimit.left(stream, 'write'), -50);
  assert.is(RateLimit.room(stream, 'write'), 0);
  assert.is(stream.move('write', 10), 0);
  assert.is.not(stream.held.write, 0);
  RateLimit.charge(stream, 'write', -500);
  assert.is(stream.held.write, 0);
  assert.is(stream.move('write', 10), 10);
  // Never above the burst.
  RateLimit.charge(stream, 'write', -1e6);
  assert.is(RateLimit.left(stream, 'write'), 1000);
  group.charge('read', 50_000);
  assert.is(group.left('read'), -10_000);
  assert.is(stream.move('read', 10), 0);
  group.charge('read', -20_000);
  assert.is(group.left('read'), 10_000);
  assert.is(stream.held.read, 0);
  assert.is(stream.move('read', 1e6), 10_000);
});

// ── streams ──

const anywhere = { ways: ['loopSync', 'base drive'] as const };

for (const [kind, ends] of [
  ['a pair', pairOf],
  ['sockets', socketsOf],
] as const) {
  behaviour(
    `on ${kind}, each direction keeps to its limit`,
    async (trial) => {
      for (const limits of [{ read: 100_000 }, { write: 100_000 }] as RateLimits[]) {
        const { base, near, far, tape } = ends(trial);
        const limit = new RateLimit({ ...limits, tick: 10 });
        const begin = base.now();
        (limits.read ? far : near).setRateLimit(limit);
        near.write('x'.repeat(10_000));
        let largest = 0;
        far.handlers = {
          read: (bev) => {
            largest = Math.max(largest, bev.inputLength);
            tape.read(bev);
          },
        };
        await until(trial, base, () => tape.text.length === 10_000);
        const ms = base.now() - begin;
        // A tick's bytes are there at the beginning, and the rest comes with time.
        assert.ok(ms >= 90 - 1, `${ms} ms`);
        assert.is((limits.read ? far : near).rateLimit, limit);
        assert.ok(largest < 10_000, `${largest} at once`);
        near.close();
        far.close();
        base.close();
      }
    },
    anywhere,
  );

  behaviour(
    `on ${kind}, a group keeps to its limit`,
    async (trial) => {
      const { base, near, far, tape } = ends(trial);
      const begin = base.now();
      using group = new RateLimitGroup(base, { write: 100_000, tick: 10 });
      group.add(near);
      near.write('x'.repeat(10_000));
      await until(trial, base, () => tape.text.length === 10_000);
      const ms = base.now() - begin;
      assert.ok(ms >= 90 - 1, `${ms} ms`);
      assert.equal(group.totals, { read: 0, written: 10_000 });
      near.close();
      assert.is(group.size, 0);
      far.close();
    },
    anywhere,
  );
}

behaviour(
  'a file that is sent keeps to the limit',
  async (trial) => {
    const path = join(tmpdir(), `multiloop-rate-${process.pid}`);
    writeFileSync(path, Buffer.alloc(10_000, 'x'));
    try {
      const { base, near, far, tape } = socketsOf(trial);
      const begin = base.now();
      near.setRateLimit(new RateLimit({ write: 100_000, tick: 10 }));
      let largest = 0;
      far.handlers = {
        read: (bev) => {
          largest = Math.max(largest, bev.inputLength);
          tape.read(bev);
        },
      };
      near.output.addFile(openSync(path, 'r'));
      await until(trial, base, () => tape.text.length === 10_000);
      assert.ok(base.now() - begin >= 90 - 1);
      assert.ok(largest < 10_000);
      near.close();
      far.close();
    } finally {
      unlinkSync(path);
    }
  },
  anywhere,
);

behaviour('timeouts do not run while the limit holds the stream', async (trial) => {
  for (const ends of [pairOf, socketsOf]) {
    const { base, near, far } = ends(trial);
    const mine = new Tape();
    near.handlers = mine;
    const limit = new RateLimit({ read: 1000, write: 1000, tick: 60 });
    near.setRateLimit(limit).setTimeouts(20, 20).enable(Ev.READ);
    far.write('x'.repeat(100));
    near.write('y'.repeat(100));
    await until(trial, base, () => mine.text.length > 0);
    assert.ok(mine.text.length < 100, `${mine.text.length}`);
    // It rests now for longer than its timeouts.
    await until(trial, base, () => mine.text.length === 100);
    assert.not(
      mine.told.some((one) => one.startsWith('timeout')),
      `${mine.told}`,
    );
    // With nothing to hold it, the timeout of reading runs.
    await until(trial, base, () => mine.told.includes('timeout read'));
    near.close();
    far.close();
    base.close();
  }
});

behaviour('a stream that rests is closed, changed or freed, and nothing is left', async (trial) => {
  for (const ends of [pairOf, socketsOf]) {
    for (const how of ['close', 'destroy', 'unlimited', 'wider', 'leave', 'group'] as const) {
      const { base, near, far, tape } = ends(trial);
      const limits = { write: 100, tick: 60_000 };
      const group = new RateLimitGroup(base, limits);
      if (how === 'leave' || how === 'group') group.add(near);
      else near.setRateLimit(new RateLimit({ ...limits, writeBurst: 6000 }));
      near.write('x'.repeat(20_000));
      await passes(trial, base);
      const before = tape.text.length;
      assert.ok(before > 0 && before < 20_000, `${how}: ${before}`);
      if (how === 'close' || how === 'destroy') near[how]();
      else if (how === 'unlimited') near.setRateLimit(undefined);
      else if (how === 'wider') near.setRateLimit(new RateLimit({ write: 1e9, writeBurst: 1e9 }));
      else if (how === 'leave') group.remove(near);
      else group.close();
      if (how === 'close' || how === 'destroy')
        await until(trial, base, () => tape.told.some((one) => /read$/.test(one)));
      else await until(trial, base, () => tape.text.length === 20_000);
      near.close();
      far.close();
      group.close();
      await passes(trial, base);
      assert.equal([...base.events()].length, 0);
      base.close();
    }
  }
});

behaviour('a group keeps nothing alive while nobody waits', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  const group = new RateLimitGroup(base, { write: 100_000 });
  group.add(near);
  assert.is(await trial.run(base), 'empty');
  near.write('x'.repeat(10_100));
  assert.is(await trial.run(base), 'empty');
  assert.is(tape.text.length, 10_100);
  group.close();
  group.close();
  assert.is(
    codeOf(() => group.add(near)),
    'ERR_EVENT_FREED',
  );
  near.close();
  far.close();
});

behaviour('a stream without a limit is not held by another one’s', async (trial) => {
  const { base, near, far, tape } = socketsOf(trial);
  using group = new RateLimitGroup(base, { read: 100, write: 100, tick: 60_000 });
  const [held] = BufferEvent.pair(base, { rateLimit: new RateLimit({ read: 1, write: 1 }) });
  group.add(held);
  held.write('x'.repeat(1000));
  near.write('y'.repeat(100_000));
  await until(trial, base, () => tape.text.length === 100_000);
  assert.ok(held.outputLength > 0);
  held.close();
  near.close();
  far.close();
});

test('a stream that rests keeps the process alive, unless it is unreferenced', async () => {
  const lines = (unref: string) => `
    const { RateLimit } = await import('${new URL('../../src/index.js', import.meta.url).href}');
    const base = new EventBase({ drive: 'libuv' });
    const [near, far] = BufferEvent.pair(base);
    far.enable(Ev.READ);
    near${unref}.setRateLimit(new RateLimit({ write: 50, tick: 40 }));
    near.write('x'.repeat(12));
    process.on('exit', () => console.log(far.inputLength));
    base.loop();`;
  const [held, free] = await Promise.all([runChild(lines('')), runChild(lines('.unref()'))]);
  assert.equal([held.code, held.stdout], [0, '12\n'], held.stderr);
  assert.is(free.code, 0, free.stderr);
  assert.ok(Number(free.stdout) < 12, free.stdout);
});

test('limits outlive their base', () => {
  const base = new EventBase();
  const [near, far] = BufferEvent.pair(base, { rateLimit: new RateLimit({ write: 10 }) });
  const group = new RateLimitGroup(base, { write: 10 });
  group.add(near);
  near.write('x'.repeat(100));
  base.loopSync(LoopFlag.NONBLOCK);
  base.close();
  near.setRateLimit(undefined);
  group.remove(far);
  near.close();
  far.destroy();
  group.close();
  assert.is(group.size, 0);
});

test('bad input', () => {
  const base = new EventBase();
  const other = new EventBase();
  const [bev] = BufferEvent.pair(base);
  const range: RateLimits[] = [
    { read: 0 },
    { write: -1 },
    { read: 1.5 },
    { read: Infinity },
    { read: 2 ** 50 },
    { read: 100_000, readBurst: 99 },
    { writeBurst: 5 },
    { read: 1, tick: 0 },
    { read: 1, tick: 60_001 },
  ];
  for (const limits of range) {
    assert.is(
      codeOf(() => new RateLimit(limits)),
      'ERR_OUT_OF_RANGE',
      JSON.stringify(limits),
    );
    assert.is(
      codeOf(() => new RateLimitGroup(base, limits)),
      'ERR_OUT_OF_RANGE',
    );
  }
  for (const limits of [undefined, null, 5, { read: '5' }, { read: 5, tick: '1' }] as never[])
    assert.is(
      codeOf(() => new RateLimit(limits)),
      'ERR_INVALID_ARG_TYPE',
    );
  new RateLimit({ read: 1, tick: 60_000 });
  assert.is(
    codeOf(() => bev.setRateLimit({} as RateLimit)),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(
    codeOf(() => new RateLimitGroup(base, {}, { minShare: 0 })),
    'ERR_OUT_OF_RANGE',
  );
  const group = new RateLimitGroup(base, {});
  for (const wrong of [undefined, {}, base] as never[]) {
    assert.is(
      codeOf(() => group.add(wrong)),
      'ERR_INVALID_ARG_TYPE',
    );
    assert.is(
      codeOf(() => group.remove(wrong)),
      'ERR_INVALID_ARG_TYPE',
    );
    assert.is(
      codeOf(() => RateLimit.left(wrong, 'read')),
      'ERR_INVALID_ARG_TYPE',
    );
  }
  assert.is(
    codeOf(() => RateLimit.left(bev, 'both' as 'read')),
    'ERR_INVALID_ARG_VALUE',
  );
  assert.is(
    codeOf(() => RateLimit.charge(bev, 'read', 0.5)),
    'ERR_OUT_OF_RANGE',
  );
  const [foreign] = BufferEvent.pair(other);
  assert.is(
    codeOf(() => group.add(foreign)),
    'ERR_INVALID_ARG_VALUE',
  );
  bev.disable(BOTH).close();
  group.add(bev);
  assert.is(group.size, 0);
  base.close();
  other.close();
});

test.run();
