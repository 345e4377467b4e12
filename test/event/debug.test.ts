// Debug mode, by option and by MULTILOOP_DEBUG=1: what an error tells besides. That a base checks
// its own structures in every turn is what all other tests of this folder run with.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Ev, EventBase, type EventHandle, LoopFlag } from '../../src/index.js';
import { behaviour } from './conformance.js';
import { thrownBy } from './support.js';

const { READ, WRITE, TIMEOUT, PERSIST, CLOSED, ET } = Ev;

function withDebugVariable(value: string | undefined, body: () => void): void {
  const before = process.env.MULTILOOP_DEBUG;
  delete process.env.MULTILOOP_DEBUG;
  if (value !== undefined) process.env.MULTILOOP_DEBUG = value;
  try {
    body();
  } finally {
    if (before === undefined) delete process.env.MULTILOOP_DEBUG;
    else process.env.MULTILOOP_DEBUG = before;
  }
}

/** Its name is what a stack is searched for. */
function whereItIsFreed(event: EventHandle): void {
  event.free();
}

const uses: ((event: EventHandle) => unknown)[] = [
  (event) => event.add(),
  (event) => event.activate(TIMEOUT),
  (event) => event.pending(TIMEOUT),
  (event) => event.finalize(),
];

function assertNamesPlace(base: EventBase, named: boolean): void {
  const event = base.timer(() => undefined).add(5);
  whereItIsFreed(event);
  // Freed again, it was still freed there.
  event.free();
  for (const use of uses) {
    const error = thrownBy(() => use(event));
    assert.is(error.code, 'ERR_EVENT_FREED');
    const cause = error.cause as Error | undefined;
    if (!named) assert.is(cause, undefined);
    else assert.match(cause?.stack as string, /It was freed here.*at whereItIsFreed/s);
  }
  base.close();
}

test('use after free() says where it was freed, with { debug: true }', () => {
  withDebugVariable(undefined, () => assertNamesPlace(new EventBase({ debug: true }), true));
  withDebugVariable('0', () => assertNamesPlace(new EventBase({ debug: true }), true));
});

test('use after free() says where it was freed, with MULTILOOP_DEBUG=1', () => {
  withDebugVariable('1', () => assertNamesPlace(new EventBase(), true));
});

test('use after free() does not say where without debug mode', () => {
  withDebugVariable(undefined, () => assertNamesPlace(new EventBase(), false));
  withDebugVariable('0', () => assertNamesPlace(new EventBase(), false));
  withDebugVariable('1', () => assertNamesPlace(new EventBase({ debug: false }), false));
});

behaviour('an event that its finalizer has freed says so too', async (t) => {
  const base = t.base();
  const event = base.timer(() => undefined);
  event.finalize();
  assert.is(thrownBy(() => event.add()).cause, undefined, 'it is not freed yet');
  assert.is(await t.run(base), 'empty');
  assert.instance(thrownBy(() => event.add()).cause, Error);
});

// libevent finds this in its debug mode alone, and answers something undefined without.
for (const debug of [true, false]) {
  const mode = debug ? 'in debug mode' : 'without debug mode';
  behaviour(
    `edge and level on one descriptor are refused ${mode}, and nothing changes`,
    async (t) => {
      for (const [had, joins] of [
        [ET, 0],
        [0, ET],
      ]) {
        const [a, b] = t.pair();
        const base = t.base({ debug });
        const seen: number[] = [];
        const first = base.event(a, READ | PERSIST | had, (what) => seen.push(what)).add();
        const turn = () => t.run(base, LoopFlag.NONBLOCK);
        t.write(b);
        await turn();
        for (const io of [READ, WRITE, CLOSED, READ | WRITE]) {
          const other = base.event(a, io | joins, () => assert.unreachable());
          const error = thrownBy(() => other.add(60_000));
          assert.is(error.code, 'ERR_BAD_MASK');
          assert.match(error.message, `${other} cannot join the events of its descriptor`);
          assert.is(other.pending(0xff), 0);
          assert.is(other.remaining, undefined);
        }
        assert.equal([...base.events()], [first]);
        assert.equal(base.counts(), { added: 1, active: 0, virtual: 0 });
        // The first is what it was: an edge is not told again, a level is.
        await turn();
        assert.equal(seen, had ? [READ | ET] : [READ, READ]);
        // Where it is gone, the other may come.
        first.del();
        base.event(a, READ | joins, (what) => seen.push(what)).add();
        assert.is(await t.run(base), 'empty');
        assert.is(seen.at(-1), READ | joins);
        base.close();
      }
    },
    { has: ['et'] },
  );
}

test.run();
