// Two streams that are each other's other side.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { BufferEvent, Ev, EventBase, LoopFlag } from '../../src/index.js';
import { behaviour } from '../event/conformance.js';
import { codeOf, thrownBy } from '../event/support.js';
import { passes, until } from './streams.js';
import { pairOf, Tape, textOf } from './tape.js';

const BOTH = Ev.READ | Ev.WRITE;

behaviour('what one writes the other reads, in the next pass and without a copy', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  let released = 0;
  const data = Buffer.alloc(8192, 'x');
  near.output.addReference(data, () => released++);
  assert.is(tape.text, '', 'no callback inside the call');
  assert.is(far.inputLength, 8192);
  assert.ok(far.input.peek()[0].buffer === data.buffer);
  await trial.run(base);
  assert.is(tape.text.length, 8192);
  assert.is(released, 1);
  assert.equal([near.bytesWritten, far.bytesRead], [8192, 8192]);
  near.close();
  far.close();
});

behaviour('partners know each other until one is closed', async (trial) => {
  const base = trial.base();
  const [one, other] = BufferEvent.pair(base);
  assert.is(one.partner, other);
  assert.is(other.partner, one);
  assert.equal(
    [one.enabled, one.localAddress, one.remoteAddress],
    [Ev.WRITE, undefined, undefined],
  );
  one.close();
  assert.is(one.partner, undefined);
  assert.is(other.partner, undefined);
  other.close();
});

behaviour('nothing moves before the other one reads', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  far.disable(Ev.READ);
  near.write('waits');
  await trial.run(base);
  assert.equal([near.outputLength, far.inputLength], [5, 0]);
  near.disable(Ev.WRITE);
  far.enable(Ev.READ);
  await trial.run(base);
  assert.is(near.outputLength, 5);
  near.enable(Ev.WRITE);
  await trial.run(base);
  assert.is(tape.text, 'waits');
  near.close();
  far.close();
});

behaviour('the reader’s high watermark holds the writer', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const lengths: number[] = [];
  far.handlers = { read: (bev) => lengths.push(bev.inputLength) };
  far.setWatermark(Ev.READ, 0, 10);
  near.setWatermark(Ev.WRITE, 0, 12);
  const told: string[] = [];
  near.handlers = { write: () => told.push('write') };
  assert.is(near.write('0123456789ABCDEFGHIJKLM'), false);
  await trial.run(base);
  assert.equal(lengths, [10]);
  assert.equal([near.outputLength, told.length], [13, 0]);
  assert.is(textOf(far), '0123456789');
  assert.is(far.inputLength, 10, 'moving is no callback');
  await trial.run(base);
  assert.is(textOf(far), 'ABCDEFGHIJ');
  await trial.run(base);
  assert.is(textOf(far), 'KLM');
  await trial.run(base);
  assert.equal(lengths, [10, 10, 3]);
  assert.is(told.length, 1);
  near.close();
  far.close();
});

behaviour('the low watermarks of both sides hold', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  far.setWatermark(Ev.READ, 6, 8);
  near.setWatermark(Ev.WRITE, 3);
  const told: number[] = [];
  near.handlers = { write: (bev) => told.push(bev.outputLength) };
  near.write('abcde');
  await trial.run(base);
  assert.is(tape.text, '');
  near.write('fghijklm');
  await trial.run(base);
  // The callback has drained it, so the rest has moved; it is less than the low mark.
  assert.is(tape.text, 'abcdefgh');
  assert.is(far.inputLength, 5);
  assert.ok(told.length > 0 && Math.max(...told) <= 3, `${told}`);
  near.close();
  far.close();
});

behaviour('an echo between the two goes on, a pass at a time', async (trial) => {
  const { base, near, far } = pairOf(trial);
  let rounds = 0;
  const echo = (bev: BufferEvent) => {
    if (++rounds === 100) bev.input.drain(bev.inputLength);
    else bev.write(bev.input);
  };
  near.handlers = { read: echo };
  far.handlers = { read: echo };
  near.enable(Ev.READ);
  let turns = 0;
  const watcher = base.check(() => turns++);
  near.write('ball');
  await trial.run(base);
  assert.is(rounds, 100);
  assert.ok(turns >= 40, `${turns} turns`);
  watcher.free();
  near.close();
  far.close();
});

behaviour('with defer several reasons are one call', async (trial) => {
  const base = trial.base();
  const tape = new Tape();
  const [near, far] = BufferEvent.pair(base, { defer: true });
  far.handlers = tape;
  far.enable(Ev.READ);
  near.write('one ');
  near.write('two ');
  near.end('three');
  await trial.run(base);
  assert.equal(tape.told, ['read one two three', 'eof read']);
  near.close();
  far.close();
});

behaviour('options hold for both', async (trial) => {
  const base = trial.base({ priorities: 4 });
  const tape = new Tape();
  const pair = BufferEvent.pair(base, { priority: 3, handlers: tape });
  for (const one of pair) {
    assert.is(one.priority, 3);
    assert.is(one.handlers, tape);
  }
  const order: string[] = [];
  pair[1].handlers = { read: () => order.push('pair') };
  pair[1].enable(Ev.READ);
  pair[0].write('x');
  base.event(-1, 0, () => order.push('urgent'), { priority: 0 }).activate(Ev.READ);
  await trial.run(base);
  assert.equal(order, ['urgent', 'pair']);
  for (const one of pair) one.close();
});

// ── ends ──

behaviour('end() is told after the data, and the other direction goes on', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  const mine = new Tape();
  near.handlers = mine;
  near.enable(Ev.READ);
  near.end('last');
  near.end();
  assert.is(
    codeOf(() => near.write('more')),
    'ERR_STREAM_WRITE_AFTER_END',
  );
  await trial.run(base);
  assert.equal(tape.told, ['read last', 'eof read']);
  far.write('still');
  await trial.run(base);
  assert.is(mine.text, 'still');
  far.end();
  await trial.run(base);
  assert.ok(mine.told.includes('eof read'));
  near.close();
  far.close();
  await trial.run(base);
  assert.equal(tape.told, ['read last', 'eof read', 'write']);
});

behaviour('both end at once, and neither is told twice', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  const mine = new Tape();
  near.handlers = mine;
  near.enable(Ev.READ);
  near.end('a');
  far.end('b');
  await trial.run(base);
  near.close();
  far.close();
  await trial.run(base);
  for (const { told } of [mine, tape])
    assert.is(told.filter((one) => one === 'eof read').length, 1, `${told}`);
});

behaviour('an end waits for a reader that is full', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const told: string[] = [];
  far.handlers = { event: (_, { eof }) => told.push(`eof ${eof}`) };
  far.setWatermark(Ev.READ, 0, 4);
  near.end('1234567');
  await trial.run(base);
  assert.equal(told, []);
  far.input.drain(4);
  await trial.run(base);
  assert.equal(told, ['eof true']);
  assert.is(textOf(far), '567');
  near.close();
  far.close();
});

behaviour(
  'who is left learns that the other was closed: an end, when it has all',
  async (trial) => {
    const { base, near, far, tape } = pairOf(trial);
    near.write('all');
    near.close();
    await trial.run(base);
    assert.equal(tape.told, ['read all', 'eof read']);
    far.write('to nobody');
    await trial.run(base);
    assert.equal(tape.told.slice(2), ['ERR_PARTNER_GONE write']);
    assert.is(far.enabled, 0);
    assert.is(far.outputLength, 9);
    far.close();
  },
);

behaviour('and an error, when something is missing', async (trial) => {
  for (const how of ['unread', 'destroy', 'error'] as const) {
    const { base, near, far, tape } = pairOf(trial);
    if (how === 'unread') far.disable(Ev.READ);
    near.write('something');
    if (how === 'error') near.destroy(new Error('because'));
    else if (how === 'destroy') near.destroy();
    else near.close();
    await trial.run(base);
    const expected = {
      unread: ['ERR_PARTNER_GONE read'],
      // It had left already.
      destroy: ['read something', 'eof read'],
      error: ['read something', 'ERR_PARTNER_GONE read'],
    };
    assert.equal(tape.told, expected[how], how);
    far.close();
  }
});

behaviour('what waits for a partner that is closed is an error of writing', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  near.handlers = mine;
  near.enable(Ev.READ);
  far.disable(Ev.READ);
  near.write('nobody reads it');
  far.close();
  await trial.run(base);
  assert.equal(mine.told, ['eof read', 'ERR_PARTNER_GONE write']);
  near.close();
});

behaviour('either is closed in any callback of either', async (trial) => {
  for (const where of ['read', 'write', 'event'] as const) {
    for (const whose of [0, 1] as const) {
      for (const which of [0, 1] as const) {
        const base = trial.base();
        const pair = BufferEvent.pair(base);
        const tapes = [new Tape(), new Tape()];
        let closed = 0;
        for (const [i, bev] of pair.entries()) {
          const tape = tapes[i];
          const close = (name: string) => {
            assert.not(bev.closed, 'no callback of a closed stream');
            if (name !== where || i !== whose) return;
            pair[which].close();
            closed++;
          };
          bev.handlers = {
            read: (one) => {
              tape.read(one);
              close('read');
            },
            write: (one) => {
              tape.write(one);
              close('write');
            },
            event: (one, event) => {
              tape.event(one, event);
              close('event');
            },
          };
          bev.enable(Ev.READ);
        }
        pair[0].end('from the first');
        pair[1].end('from the second');
        await trial.run(base);
        assert.ok(closed > 0, `${where} of ${whose}, closing ${which}`);
        assert.ok(pair[which].closed);
        for (const one of pair) one.close();
        await trial.run(base);
        assert.is([...base.events()].length, 0);
        base.close();
      }
    }
  }
});

// ── timeouts ──

behaviour('the read timeout runs while it reads and nothing comes', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  far.disable(Ev.READ).setTimeouts(15);
  assert.is(await trial.run(base), 'empty', 'nothing runs while reading is disabled');
  far.enable(Ev.READ);
  const begin = base.now();
  const times: number[] = [];
  const again = base.event(-1, Ev.PERSIST, () => {
    times.push(base.now());
    near.write('.');
    if (times.length === 3) again.free();
  });
  again.add(5);
  let late = 0;
  far.handlers = {
    read: (bev) => tape.read(bev),
    event: (bev, event) => {
      // After what has come: a byte that is written in this pass has not.
      late = base.now() - (times[tape.text.length - 1] ?? begin);
      tape.event(bev, event);
    },
  };
  await trial.run(base);
  assert.is(tape.told.at(-1), 'timeout read');
  assert.ok(late >= 14, `${late} ms after the last byte`);
  assert.is(far.enabled, Ev.WRITE);
  // It is told once, and again when reading is enabled again.
  assert.is(await trial.run(base), 'empty');
  far.enable(Ev.READ);
  await trial.run(base);
  assert.is(tape.told.filter((one) => one === 'timeout read').length, 2);
  assert.ok(tape.text.length > 0);
  near.close();
  far.close();
});

behaviour('the write timeout runs only with something queued', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  near.handlers = mine;
  near.setTimeouts(undefined, 5);
  assert.equal(near.timeouts, { read: undefined, write: 5 });
  near.write('goes');
  assert.is(await trial.run(base), 'empty');
  assert.equal(mine.told, ['write']);
  far.disable(Ev.READ);
  near.write('stays');
  await trial.run(base);
  assert.equal(mine.told, ['write', 'timeout write']);
  assert.is(near.enabled, 0);
  near.enable(Ev.WRITE).setTimeouts();
  assert.is(await trial.run(base), 'empty');
  near.setTimeouts(undefined, 5);
  far.enable(Ev.READ);
  assert.is(await trial.run(base), 'empty');
  assert.equal(mine.told, ['write', 'timeout write', 'write']);
  near.close();
  far.close();
});

behaviour(
  'what moves in time restarts the write timeout',
  async (trial) => {
    const { base, near, far } = pairOf(trial);
    const mine = new Tape();
    near.handlers = mine;
    far.handlers = {};
    far.setWatermark(Ev.READ, 0, 1);
    near.setTimeouts(undefined, 200);
    near.write('abcdef');
    const begin = base.now();
    const drain = base.event(-1, Ev.PERSIST, () => far.input.drain(1)).add(40);
    await until(trial, base, () => far.bytesRead === 6 || mine.told.includes('timeout write'));
    assert.ok(base.now() - begin >= 200);
    assert.not(mine.told.includes('timeout write'));
    drain.free();
    near.close();
    far.close();
  },
  { ways: ['loopSync'] },
);

behaviour('timers of a closed pair are gone', async (trial) => {
  const { base, near, far } = pairOf(trial);
  far.disable(Ev.READ);
  for (const one of [near, far]) one.setTimeouts(60_000, 60_000);
  near.enable(Ev.READ).write('queued');
  assert.is([...base.events()].length, 2);
  near.close();
  far.close();
  assert.is(await trial.run(base), 'empty');
  assert.is([...base.events()].length, 0);
});

// ── flush ──

behaviour('flush moves past watermarks, and ends both ways', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  const mine = new Tape();
  near.handlers = mine;
  far.setWatermark(Ev.READ, 0, 4);
  near.write('0123456789');
  assert.is(far.inputLength, 4);
  near.flush(BOTH, 'normal');
  assert.is(far.inputLength, 4, 'normal does nothing');
  near.flush(Ev.WRITE, 'flush');
  assert.is(far.inputLength, 10);
  await trial.run(base);
  assert.is(tape.text, '0123456789');
  // For reading it is the partner's output that moves.
  far.write('back');
  assert.is(near.inputLength, 0);
  near.flush(Ev.READ, 'flush');
  assert.is(near.inputLength, 4);
  near.flush(Ev.WRITE, 'finished');
  await trial.run(base);
  assert.ok(tape.told.includes('eof read'));
  assert.ok(near.ended);
  near.flush(Ev.READ, 'finished');
  await trial.run(base);
  assert.ok(mine.told.includes('eof read'));
  assert.ok(far.ended);
  near.close();
  far.close();
  near.flush(BOTH, 'finished');
});

behaviour('trigger calls what the watermarks allow', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  far.setWatermark(Ev.READ, 3);
  near.write('ab');
  await trial.run(base);
  far.trigger(Ev.READ);
  await trial.run(base);
  assert.equal(tape.told, []);
  far.trigger(Ev.READ, { ignoreWatermarks: true });
  await trial.run(base);
  assert.equal(tape.told, ['read ab']);
  far.trigger(BOTH, { ignoreWatermarks: true });
  far.triggerEvent({ timeout: true, direction: 'write' });
  await passes(trial, base);
  assert.equal(tape.told.slice(1), ['read ', 'write', 'timeout write']);
  near.close();
  far.close();
});

behaviour('a callback that triggers itself starves nobody', async (trial) => {
  const { base, far, near } = pairOf(trial);
  let calls = 0;
  let others = 0;
  const again = (bev: BufferEvent) => {
    calls++;
    if (others < 3) bev.trigger(Ev.READ, { ignoreWatermarks: true });
  };
  far.handlers = {
    read: again,
    event: (bev) => {
      calls++;
      if (others < 3) bev.triggerEvent({ connected: true });
    },
  };
  far.trigger(Ev.READ);
  far.triggerEvent({ connected: true });
  const other = base.event(-1, Ev.PERSIST, () => {
    if (++others === 3) other.free();
  });
  other.add(0);
  await trial.run(base);
  assert.is(others, 3);
  assert.ok(calls >= 3);
  near.close();
  far.close();
});

// ── bad input ──

test('a base that was closed first, and bad input', () => {
  const base = new EventBase();
  const [near, far] = BufferEvent.pair(base);
  far.enable(Ev.READ);
  near.write('x');
  assert.is(
    codeOf(() => near.flush(Ev.READ, 'all' as 'flush')),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(
    codeOf(() => near.flush(Ev.SIGNAL, 'flush')),
    'ERR_BAD_MASK',
  );
  assert.is(
    codeOf(() => near.setWatermark(Ev.READ, 5, 4)),
    'ERR_OUT_OF_RANGE',
  );
  assert.is(
    codeOf(() => near.setTimeouts(-1)),
    'ERR_OUT_OF_RANGE',
  );
  assert.is(
    codeOf(() => BufferEvent.pair({} as EventBase)),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(
    codeOf(() => BufferEvent.pair(base, { priority: 9 })),
    'ERR_OUT_OF_RANGE',
  );
  base.loopSync(LoopFlag.NONBLOCK);
  base.close();
  assert.is(
    codeOf(() => BufferEvent.pair(base)),
    'ERR_BASE_CLOSED',
  );
  near.write('y');
  near.end();
  near.close();
  far.close();
  assert.is(near.write('z'), false);
  assert.match(thrownBy(() => near.write(5 as never)).message, /"data" argument/);
});

test.run();
