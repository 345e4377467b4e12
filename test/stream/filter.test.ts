// A stream on another one, through two functions.

import { openSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type BevFilter,
  BufferEvent,
  Ev,
  EvBuffer,
  EventBase,
  type FilterFunction,
  RateLimit,
  RateLimitGroup,
} from '../../src/index.js';
import { behaviour } from '../event/conformance.js';
import { codeOf, gatheringUncaught, thrownBy } from '../event/support.js';
import { passes, until } from './streams.js';
import { eventText, pairOf, socketsOf, Tape, textOf } from './tape.js';

const BOTH = Ev.READ | Ev.WRITE;

/** Takes everything and gives it changed. */
function mapped(change: (text: string) => string): FilterFunction {
  return (from, to) => {
    to.add(change(Buffer.from(from.remove(from.length)).toString('latin1')));
    return 'ok';
  };
}
const upper = mapped((text) => text.toUpperCase());
const lower = mapped((text) => text.toLowerCase());

/** A record is a line; what is given on is its length and a colon before it. */
const framed: FilterFunction = (from, to) => {
  const end = from.indexOf('\n');
  if (end < 0) return 'need-more';
  to.add(`${end}:`);
  to.addBuffer(from, end);
  from.drain(1);
  return 'ok';
};

// ── data ──

for (const [kind, ends] of [
  ['a pair', pairOf],
  ['sockets', socketsOf],
] as const) {
  behaviour(`on ${kind}, both directions are filtered`, async (trial) => {
    const { base, near, far, tape } = ends(trial);
    const mine = new Tape();
    const filter = BufferEvent.filter(near, { input: upper, output: lower }, { handlers: mine });
    filter.enable(Ev.READ);
    filter.write('To The Other');
    far.write('and back');
    await until(trial, base, () => tape.text.length === 12 && mine.text.length === 8);
    assert.is(tape.text, 'to the other');
    assert.is(mine.text, 'AND BACK');
    assert.equal([filter.bytesRead, filter.bytesWritten], [8, 12]);
    filter.close();
    far.close();
    assert.ok(near.closed);
  });

  behaviour(`on ${kind}, a direction without a function is passed through`, async (trial) => {
    const { base, near, far, tape } = ends(trial);
    const mine = new Tape();
    const filter = BufferEvent.filter(near, {}, { handlers: mine }).enable(Ev.READ);
    filter.write('x'.repeat(100_000));
    far.write('y'.repeat(100_000));
    filter.end();
    await until(trial, base, () => tape.told.includes('eof read') && mine.text.length === 1e5);
    assert.is(tape.text, 'x'.repeat(100_000));
    assert.is(mine.text, 'y'.repeat(100_000));
    filter.close();
    far.close();
  });

  behaviour(`on ${kind}, filters on filters`, async (trial) => {
    const { base, near, far, tape } = ends(trial);
    const mine = new Tape();
    const add = (text: string): BevFilter => ({
      input: mapped((one) => `${one}${text}`),
      output: mapped((one) => `${text}${one}`),
    });
    const low = BufferEvent.filter(near, add('a'));
    const middle = BufferEvent.filter(low, add('b'));
    const top = BufferEvent.filter(middle, add('c'), { handlers: mine }).enable(Ev.READ);
    top.end('-');
    far.end('-');
    await until(
      trial,
      base,
      () => tape.told.includes('eof read') && mine.told.includes('eof read'),
    );
    // The finished call of each one, which adds its letter to nothing, goes through those below.
    assert.ok(tape.text.startsWith('abc-'), tape.text);
    assert.ok(mine.text.startsWith('-abc'), mine.text);
    top.close();
    assert.equal([low.closed, middle.closed, near.closed], [true, true, true]);
    far.close();
  });
}

behaviour(
  'the input filter is called again while it answers ok and there is data',
  async (trial) => {
    const { base, near, far } = pairOf(trial);
    const mine = new Tape();
    const filter = BufferEvent.filter(near, { input: framed }, { handlers: mine }).enable(Ev.READ);
    far.write('one\nthree\nse');
    await trial.run(base);
    // All of it in one call of the handler.
    assert.equal(mine.told, ['read 3:one5:three']);
    far.write('ven\n');
    await trial.run(base);
    assert.equal(mine.told, ['read 3:one5:three', 'read 5:seven']);
    assert.is(near.inputLength, 0);
    filter.close();
    far.close();
  },
);

behaviour('a filter that takes and gives nothing is not called for ever', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  const calls = { input: 0, output: 0 };
  const lazy: BevFilter = {
    input: () => {
      calls.input++;
      return 'ok';
    },
    output: () => {
      calls.output++;
      return 'ok';
    },
  };
  const filter = BufferEvent.filter(near, lazy).enable(Ev.READ);
  far.write('x');
  filter.write('y');
  await trial.run(base);
  assert.equal(calls, { input: 1, output: 1 });
  assert.is(tape.text, '');
  filter.close();
  far.close();
});

behaviour('a filter that only ever adds is stopped in its pass', async (trial) => {
  const { base, near, far } = pairOf(trial);
  let calls = 0;
  const endless: FilterFunction = (_, to) => {
    calls++;
    to.add('x');
    return 'ok';
  };
  const filter = BufferEvent.filter(near, { input: endless }).enable(Ev.READ);
  far.write('y');
  await trial.run(base);
  assert.ok(calls > 1 && calls <= 2000, `${calls} calls`);
  filter.close();
  far.close();
});

behaviour('nothing is read below before the filter reads', async (trial) => {
  const { base, near, far } = socketsOf(trial);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, { input: upper }, { handlers: mine });
  far.write('early');
  await passes(trial, base);
  assert.is(near.inputLength, 0);
  assert.equal(mine.told, []);
  filter.enable(Ev.READ);
  await until(trial, base, () => mine.text !== '');
  assert.is(mine.text, 'EARLY');
  filter.disable(Ev.READ);
  far.write('late');
  await passes(trial, base);
  assert.is(near.inputLength, 0);
  assert.is(mine.text, 'EARLY');
  filter.close();
  far.close();
});

behaviour('what came before the filter was made is filtered', async (trial) => {
  const { base, near, far } = pairOf(trial);
  near.enable(Ev.READ);
  far.end('before');
  await trial.run(base);
  assert.is(near.inputLength, 6);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, { input: upper }, { handlers: mine }).enable(Ev.READ);
  await trial.run(base);
  assert.equal(mine.told, ['read BEFORE', 'eof read']);
  filter.close();
  far.close();
});

// ── watermarks ──

behaviour(
  'data stuck: what was left below is filtered when the input is drained',
  async (trial) => {
    const { base, near, far } = pairOf(trial);
    const lengths: number[] = [];
    const tens: FilterFunction = (from, to) => {
      to.addBuffer(from, 10);
      return 'ok';
    };
    const filter = BufferEvent.filter(near, { input: tens });
    filter.setWatermark(Ev.READ, 0, 20).enable(Ev.READ);
    filter.handlers = { read: (bev) => lengths.push(bev.inputLength) };
    far.write('x'.repeat(65));
    await trial.run(base);
    assert.equal(lengths, [20]);
    assert.is(filter.inputLength + near.inputLength + far.outputLength, 65);
    for (let taken = 20; taken < 80; taken += 20) {
      filter.input.drain(20);
      assert.is(filter.inputLength, 0, 'and never inside the call that drains');
      await trial.run(base);
    }
    assert.equal(lengths, [20, 20, 20, 5]);
    filter.close();
    far.close();
  },
);

behaviour('a pass-through keeps to the high watermark, byte for byte', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const filter = BufferEvent.filter(near, {}).setWatermark(Ev.READ, 0, 7).enable(Ev.READ);
  far.write('0123456789');
  await trial.run(base);
  assert.is(filter.inputLength, 7);
  filter.input.drain(1);
  await trial.run(base);
  assert.is(filter.inputLength, 7);
  assert.is(textOf(filter as BufferEvent), '1234567');
  await trial.run(base);
  assert.is(textOf(filter as BufferEvent), '89');
  filter.close();
  far.close();
});

behaviour('the output waits while the stream below is above its high watermark', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  far.disable(Ev.READ);
  near.setWatermark(Ev.WRITE, 0, 15);
  const tens: FilterFunction = (from, to) => {
    to.addBuffer(from, 10);
    return 'ok';
  };
  const filter = BufferEvent.filter(near, { output: tens });
  filter.setWatermark(Ev.WRITE, 0, 29);
  const told: string[] = [];
  filter.handlers = { write: () => told.push('write') };
  assert.is(filter.write('x'.repeat(50)), false);
  await trial.run(base);
  assert.equal([near.outputLength, filter.outputLength, told.length], [20, 30, 0]);
  far.enable(Ev.READ);
  await trial.run(base);
  assert.equal([near.outputLength, filter.outputLength], [0, 0]);
  assert.is(tape.text.length, 50);
  assert.ok(told.length > 0);
  filter.close();
  far.close();
});

behaviour('the low watermark of reading holds for what is filtered', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, { input: upper }, { handlers: mine });
  filter.setWatermark(Ev.READ, 4).enable(Ev.READ);
  far.write('abc');
  await trial.run(base);
  assert.equal(mine.told, []);
  far.write('d');
  await trial.run(base);
  assert.equal(mine.told, ['read ABCD']);
  filter.close();
  far.close();
});

// ── the buffers ──

behaviour('data is moved through a filter without being copied', async (trial) => {
  const { base, near, far } = pairOf(trial);
  let released = 0;
  const data = Buffer.alloc(8192, 'x');
  const mover: FilterFunction = (from, to) => {
    to.addBuffer(from);
    return 'ok';
  };
  const filter = BufferEvent.filter(near, { output: mover });
  const top = BufferEvent.filter(far, { input: mover }).enable(Ev.READ);
  filter.output.addReference(data, () => released++);
  await trial.run(base);
  assert.is(top.inputLength, 8192);
  assert.is(released, 0);
  const [first] = top.input.peek();
  assert.ok(first.buffer === data.buffer, 'the same memory');
  top.input.drain(8192);
  assert.is(released, 1);
  filter.close();
  top.close();
});

behaviour('only the filter may use the ends that are the stream’s own', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const filter = BufferEvent.filter(near, { output: upper, input: upper }).enable(Ev.READ);
  far.write('x');
  filter.output.add('y');
  await trial.run(base);
  filter.disable(Ev.WRITE);
  filter.output.add('z');
  assert.is(
    codeOf(() => filter.output.drain(1)),
    'ERR_BUFFER_FROZEN',
  );
  assert.is(
    codeOf(() => filter.input.add('z')),
    'ERR_BUFFER_FROZEN',
  );
  filter.close();
  far.close();
});

behaviour('a filter that adds to its own output is not called from inside', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  let depth = 0;
  let deepest = 0;
  let filter: BufferEvent;
  const nested: FilterFunction = (from, to) => {
    deepest = Math.max(deepest, ++depth);
    const had = from.length;
    if (to.length < 3) filter.write('+');
    to.addBuffer(from, had);
    depth--;
    return 'ok';
  };
  filter = BufferEvent.filter(near, { output: nested });
  filter.write('-'); // outside a pass: filtered at once
  assert.is(deepest, 1);
  const inside = base.timer(() => filter.write('=')).add(0);
  await trial.run(base);
  assert.is(deepest, 1);
  assert.is(filter.outputLength, 0);
  assert.ok(tape.text.startsWith('-') && tape.text.includes('='), tape.text);
  inside.free();
  filter.close();
  far.close();
});

behaviour('a file is read for a filter, and is sent as a file without one', async (trial) => {
  const path = join(tmpdir(), `multiloop-filter-${process.pid}`);
  writeFileSync(path, 'from a file\n'.repeat(1000));
  try {
    for (const output of [upper, undefined]) {
      const { base, near, far, tape } = socketsOf(trial);
      const filter = BufferEvent.filter(near, { output });
      filter.write('first ');
      filter.output.addFile(openSync(path, 'r'));
      filter.end();
      await until(trial, base, () => tape.told.includes('eof read'));
      const text = `first ${'from a file\n'.repeat(1000)}`;
      assert.ok(tape.text === (output ? text.toUpperCase() : text));
      filter.close();
      far.close();
      base.close();
    }
  } finally {
    unlinkSync(path);
  }
});

// ── ends and events ──

behaviour('the end comes after what was left, with one finished call', async (trial) => {
  const { base, near, far } = socketsOf(trial);
  const modes: string[] = [];
  const input: FilterFunction = (from, to, mode) => {
    modes.push(mode);
    if (mode !== 'finished' && from.length < 100) return 'need-more';
    to.addBuffer(from);
    if (mode === 'finished') to.add('.');
    return 'ok';
  };
  const mine = new Tape();
  const filter = BufferEvent.filter(near, { input }, { handlers: mine }).enable(Ev.READ);
  far.end('short');
  await until(trial, base, () => mine.told.includes('eof read'));
  assert.equal(mine.told, ['read short.', 'eof read']);
  assert.is(modes.filter((mode) => mode === 'finished').length, 1);
  filter.close();
  far.close();
});

behaviour('the end waits until the input has room for what is left', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, {}).setWatermark(Ev.READ, 0, 4).enable(Ev.READ);
  filter.handlers = { event: mine.event.bind(mine) };
  far.end('12345678');
  await trial.run(base);
  assert.equal(mine.told, []);
  assert.is(textOf(filter as BufferEvent), '1234');
  await trial.run(base);
  // The rest fills it, and the end is told when there is room again.
  assert.is(textOf(filter as BufferEvent), '5678');
  await trial.run(base);
  assert.equal(mine.told, ['eof read']);
  filter.close();
  far.close();
});

behaviour('an end with bytes that the input filter leaves is an error', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, { input: framed }, { handlers: mine }).enable(Ev.READ);
  far.end('whole\nhalf');
  await trial.run(base);
  assert.equal(mine.told, ['read 5:whole', 'ERR_FILTER_TRUNCATED read']);
  filter.close();
  far.close();
});

behaviour('end() finishes the output filter and then the stream below', async (trial) => {
  const { base, near, far, tape } = socketsOf(trial);
  const modes: string[] = [];
  const output: FilterFunction = (from, to, mode) => {
    modes.push(`${mode} ${from.length}`);
    if (mode === 'normal' && from.length < 10) return 'need-more';
    to.addBuffer(from);
    if (mode === 'finished') to.add('.');
    return 'ok';
  };
  const filter = BufferEvent.filter(near, { output });
  filter.write('12345');
  filter.end('678');
  await until(trial, base, () => tape.told.includes('eof read'));
  assert.is(tape.text, '12345678.');
  assert.equal(modes.slice(-1), ['finished 8']);
  assert.is(modes.filter((mode) => mode.startsWith('finished')).length, 1);
  assert.ok(near.ended);
  filter.close();
  far.close();
});

behaviour('what the output filter leaves at the end is an error', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, { output: framed }, { handlers: mine });
  filter.end('whole\nhalf');
  await trial.run(base);
  assert.is(tape.text, '5:whole');
  assert.ok(mine.told.includes('ERR_FILTER_TRUNCATED write'), `${mine.told}`);
  assert.not(tape.told.includes('eof read'));
  filter.close();
  far.close();
});

behaviour('what the stream below tells is told with its direction', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, {}, { handlers: mine }).enable(Ev.READ);
  near.triggerEvent({ connected: true });
  await trial.run(base);
  near.triggerEvent({ error: new Error('whole') });
  await trial.run(base);
  near.setTimeouts(1);
  await trial.run(base);
  assert.equal(mine.told, ['connected', 'whole', 'timeout read']);
  assert.is(filter.enabled, Ev.WRITE);
  // Enabling it goes on below too.
  near.setTimeouts(undefined, 1);
  filter.enable(Ev.READ);
  far.write('still here');
  far.disable(Ev.READ);
  filter.write('nobody takes it');
  await trial.run(base);
  assert.equal(mine.told.slice(3).sort(), ['read still here', 'timeout write', 'write'].sort());
  filter.close();
  far.close();
});

behaviour('a reset below is told after what came before it', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, { input: upper }, { handlers: mine }).enable(Ev.READ);
  far.write('last words');
  const inside = base
    .timer(() => {
      near.disable(Ev.READ);
      far.write('never sent');
      far.close();
      near.enable(Ev.READ);
    })
    .add(0);
  await trial.run(base);
  assert.equal(mine.told, ['read LAST WORDS', 'ERR_PARTNER_GONE read']);
  inside.free();
  filter.close();
});

behaviour('timeouts of a filter are its own', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  far.disable(Ev.READ);
  near.setWatermark(Ev.WRITE, 0, 1);
  const filter = BufferEvent.filter(near, {}, { handlers: mine });
  filter.setTimeouts(2, 2);
  await trial.run(base); // nothing is enabled for reading, and nothing queued: nothing runs
  assert.equal(mine.told, []);
  filter.enable(Ev.READ);
  await trial.run(base);
  assert.equal(mine.told, ['timeout read']);
  assert.is(filter.enabled, Ev.WRITE);
  filter.write('ab'); // which goes down
  filter.write('cd'); // which waits
  assert.is(filter.outputLength, 2);
  await trial.run(base);
  assert.ok(mine.told.includes('timeout write'), `${mine.told}`);
  assert.is(filter.enabled, 0);
  filter.close();
  far.close();
});

// ── failures ──

behaviour('what an input filter throws is told, after what it gave', async (trial) => {
  const { base, near, far, tape } = socketsOf(trial);
  const mine = new Tape();
  let calls = 0;
  const input: FilterFunction = (from, to) => {
    calls++;
    to.addBuffer(from, 3);
    if (calls === 2) throw new Error('bad data');
    return 'ok';
  };
  const filter = BufferEvent.filter(near, { input }, { handlers: mine }).enable(Ev.READ);
  far.write('abcdefgh');
  await until(trial, base, () => mine.told.length === 2);
  assert.equal(mine.told, ['read abcdef', 'bad data read']);
  assert.is(filter.enabled, Ev.WRITE);
  // The other direction goes on, and this one reads nothing any more.
  filter.write('still');
  far.write('unread');
  await until(trial, base, () => tape.text === 'still');
  assert.is(near.inputLength, 2);
  assert.is(calls, 2);
  filter.close();
  far.close();
});

behaviour('what an output filter throws is told, and nothing more is written', async (trial) => {
  const { base, near, far, tape } = socketsOf(trial);
  const mine = new Tape();
  const output: FilterFunction = (from, to) => {
    to.addBuffer(from, 3);
    throw 'no Error';
  };
  const filter = BufferEvent.filter(near, { output }, { handlers: mine }).enable(Ev.READ);
  filter.write('abcdef');
  assert.equal(mine.told, [], 'never inside the call');
  far.write('back');
  await until(trial, base, () => mine.told.length === 2 && tape.text !== '');
  assert.equal(mine.told.sort(), ['ERR_FILTER_FAILED write', 'read back']);
  assert.is(tape.text, 'abc');
  assert.is(filter.enabled, Ev.READ);
  assert.is(filter.outputLength, 3);
  filter.close();
  far.close();
});

behaviour('an answer that is none is an error of the filter', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  const silent = (() => undefined) as unknown as FilterFunction;
  const filter = BufferEvent.filter(near, { input: silent, output: silent }, { handlers: mine });
  filter.enable(Ev.READ).write('x');
  far.write('y');
  await trial.run(base);
  assert.equal(mine.told.sort(), [
    'ERR_INVALID_RETURN_VALUE read',
    'ERR_INVALID_RETURN_VALUE write',
  ]);
  filter.close();
  far.close();
});

behaviour('a filter that needs more than the stream below may hold has failed', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  near.setWatermark(Ev.READ, 0, 1000);
  const never: FilterFunction = () => 'need-more';
  const filter = BufferEvent.filter(near, { input: never }, { handlers: mine }).enable(Ev.READ);
  far.write('x'.repeat(999));
  await trial.run(base);
  assert.equal(mine.told, []);
  far.write('x'.repeat(9999));
  await trial.run(base);
  assert.equal(mine.told, ['ERR_FILTER_HELD read']);
  assert.is(near.inputLength, 1000);
  filter.close();
  far.close();
});

test('without a watermark the limit is 16 MiB, in both directions', () => {
  const base = new EventBase();
  const [near, far] = BufferEvent.pair(base);
  const mine = new Tape();
  const never: FilterFunction = () => 'need-more';
  const filter = BufferEvent.filter(near, { input: never, output: never }, { handlers: mine });
  filter.enable(Ev.READ);
  const megabyte = Buffer.alloc(1024 * 1024);
  for (let i = 0; i < 15; i++) {
    far.write(megabyte);
    filter.write(megabyte);
  }
  base.loopSync();
  assert.equal(mine.told, []);
  far.write(megabyte);
  filter.write(megabyte);
  base.loopSync();
  assert.equal(mine.told.sort(), ['ERR_FILTER_HELD read', 'ERR_FILTER_HELD write']);
  base.close();
});

behaviour('who closes the stream below fails the filter, in both directions', async (trial) => {
  for (const queued of [true, false]) {
    const { base, near, far } = pairOf(trial);
    const mine = new Tape();
    far.disable(Ev.READ);
    near.setWatermark(Ev.WRITE, 0, 1);
    const filter = BufferEvent.filter(near, {}, { handlers: mine }).enable(Ev.READ);
    if (queued) {
      filter.write('goes down');
      filter.write('waits');
    }
    near.close();
    await trial.run(base);
    const write = 'ERR_UNDERLYING_CLOSED write';
    assert.equal(
      mine.told.filter((one) => one !== 'write'),
      ['ERR_UNDERLYING_CLOSED read', ...(queued ? [write] : [])],
    );
    filter.input.drain(1);
    if (!queued) filter.write('late');
    filter.flush(BOTH, 'flush');
    await trial.run(base);
    assert.is(mine.told.at(-1), write);
    filter.close();
    far.close();
    base.close();
  }
});

behaviour('an error that destroys the stream below is the filter’s', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, {}, { handlers: mine }).enable(Ev.READ);
  near.destroy(new Error('because'));
  await trial.run(base);
  assert.equal(mine.told, ['because']);
  filter.close();
  far.close();
});

behaviour('an exception of a handler costs neither the loop nor the stream', async (trial) => {
  if (trial.sync) return;
  await gatheringUncaught(async (caught) => {
    const { base, near, far } = pairOf(trial);
    let calls = 0;
    const read = (bev: BufferEvent) => {
      calls++;
      bev.input.drain(bev.inputLength);
      throw new Error('of the handler');
    };
    const filter = BufferEvent.filter(near, {}, { handlers: { read } }).enable(Ev.READ);
    far.write('one');
    await trial.run(base);
    far.write('two');
    await trial.run(base);
    assert.is(calls, 2);
    assert.is(caught.length, 2);
    filter.close();
    far.close();
  });
});

// ── closing ──

behaviour('closeFd false: the stream below goes on with its former handlers', async (trial) => {
  const { base, near, far } = socketsOf(trial);
  const former = new Tape();
  near.handlers = former;
  near.enable(Ev.READ);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, { input: framed }, { handlers: mine, closeFd: false });
  filter.enable(Ev.READ);
  far.write('one\nrest');
  await until(trial, base, () => mine.text !== '');
  filter.close();
  filter.close();
  assert.is(near.closed, false);
  assert.is(near.handlers, former);
  await until(trial, base, () => former.text !== '');
  far.write(' and more');
  await until(trial, base, () => former.text.length === 13);
  assert.is(former.text, 'rest and more');
  assert.equal(mine.told, ['read 3:one']);
  // It may have another one.
  BufferEvent.filter(near, {}).close();
  assert.ok(near.closed);
  far.close();
});

behaviour('a stream that did not read does not after its filter either', async (trial) => {
  const { near, far } = pairOf(trial);
  const filter = BufferEvent.filter(near, {}, { closeFd: false }).enable(Ev.READ);
  assert.is(near.enabled, BOTH);
  filter.close();
  assert.is(near.enabled, Ev.WRITE);
  near.close();
  far.close();
});

behaviour('a filter is closed in its own callbacks and in its functions', async (trial) => {
  for (const where of ['input', 'output', 'read', 'write', 'event']) {
    const { base, near, far } = socketsOf(trial);
    let closedIn = '';
    let filter: BufferEvent;
    const close = (name: string) => {
      if (name === where && closedIn === '') {
        closedIn = name;
        filter.close();
      }
    };
    const through = (name: string): FilterFunction => {
      return (from, to) => {
        close(name);
        to.addBuffer(from);
        return 'ok';
      };
    };
    const handlers = {
      read: () => close('read'),
      write: () => close('write'),
      event: () => close('event'),
    };
    filter = BufferEvent.filter(
      near,
      { input: through('input'), output: through('output') },
      { handlers },
    ).enable(Ev.READ);
    filter.write('there');
    far.end('back');
    await until(trial, base, () => closedIn !== '');
    assert.is(closedIn, where);
    assert.ok(filter.closed && near.closed);
    far.close();
    base.close();
  }
});

behaviour('close() tries once to write, destroy() does not', async (trial) => {
  for (const way of ['close', 'destroy'] as const) {
    const { base, near, far, tape } = socketsOf(trial);
    const filter = BufferEvent.filter(near, { output: upper });
    filter.disable(Ev.WRITE).write('queued');
    filter._enabled = Ev.WRITE;
    filter[way]();
    await until(trial, base, () => tape.told.some((one) => one.endsWith('read')));
    assert.equal(tape.told, way === 'close' ? ['read QUEUED', 'eof read'] : ['eof read']);
    far.close();
    base.close();
  }
});

behaviour('destroy with an error resets the connection and is told', async (trial) => {
  const base = trial.base();
  const [near, far] = BufferEvent.pair(base);
  const tape = new Tape();
  far.handlers = tape;
  far.enable(Ev.READ);
  const mine = new Tape();
  const filter = BufferEvent.filter(near, {}, { handlers: mine });
  filter.destroy(new Error('because'));
  await trial.run(base);
  assert.equal(mine.told, ['because']);
  assert.equal(tape.told, ['ERR_PARTNER_GONE read']);
  far.close();
});

// ── flush, limits, bad input ──

behaviour('flush urges both filters, with and without data', async (trial) => {
  const { base, near, far, tape } = pairOf(trial);
  const calls: string[] = [];
  const noting =
    (name: string): FilterFunction =>
    (from, to, mode) => {
      calls.push(`${name} ${mode} ${from.length}`);
      if (mode === 'normal') return 'need-more';
      to.addBuffer(from);
      return 'ok';
    };
  const mine = new Tape();
  const filter = BufferEvent.filter(
    near,
    { input: noting('in'), output: noting('out') },
    { handlers: mine },
  ).enable(Ev.READ);
  filter.write('abc');
  far.write('de');
  await trial.run(base);
  assert.equal([...calls].sort(), ['in normal 2', 'out normal 3']);
  calls.length = 0;
  filter.flush(BOTH, 'flush');
  assert.equal(calls, ['in flush 2', 'out flush 3']);
  assert.equal(mine.told, [], 'callbacks wait for the next pass');
  await trial.run(base);
  assert.equal(mine.told.sort(), ['read de', 'write']);
  assert.is(tape.text, 'abc');
  calls.length = 0;
  filter.flush(Ev.WRITE, 'flush');
  filter.flush(Ev.WRITE, 'normal');
  assert.equal(calls, ['out flush 0']);
  filter.flush(Ev.WRITE, 'finished');
  await trial.run(base);
  assert.equal(calls, ['out flush 0', 'out flush 0', 'out finished 0']);
  assert.ok(tape.told.includes('eof read'));
  // Of a pair, 'finished' for reading ends the other one.
  filter.flush(Ev.READ, 'finished');
  await trial.run(base);
  assert.ok(mine.told.includes('eof read'));
  filter.close();
  far.close();
});

behaviour('rate limits are those of the stream below', async (trial) => {
  const { base, near, far } = pairOf(trial);
  const limit = new RateLimit({ read: 1000 });
  const filter = BufferEvent.filter(near, {}, { rateLimit: limit });
  const top = BufferEvent.filter(filter, {});
  assert.is(near.rateLimit, limit);
  assert.is(top.rateLimit, limit);
  top.setRateLimit(undefined);
  assert.is(near.rateLimit, undefined);
  const group = new RateLimitGroup(base, { write: 5000 });
  group.add(top);
  group.add(near);
  assert.is(group.size, 1);
  top.write('x'.repeat(300));
  await trial.run(base);
  assert.is(group.totals.written, 300);
  group.remove(filter);
  assert.is(group.size, 0);
  group.close();
  top.close();
  far.close();
});

test('bad input', () => {
  const base = new EventBase();
  const [near, far] = BufferEvent.pair(base);
  const filter = BufferEvent.filter as (...args: unknown[]) => BufferEvent;
  for (const under of [undefined, null, 1, {}, new EvBuffer()])
    assert.is(
      codeOf(() => filter(under, {})),
      'ERR_INVALID_ARG_TYPE',
    );
  for (const bad of [undefined, null, 1, 'gzip', { input: 1 }, { output: {} }])
    assert.is(
      codeOf(() => filter(near, bad)),
      'ERR_INVALID_ARG_TYPE',
    );
  assert.is(
    codeOf(() => filter(near, {}, { closeFd: 1 })),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(
    codeOf(() => filter(near, {}, { priority: 7 })),
    'ERR_OUT_OF_RANGE',
  );
  const one = filter(near, {});
  assert.match(thrownBy(() => filter(near, {})).message, /has a filter/);
  assert.is(
    codeOf(() => one.flush(Ev.READ, 'soon' as 'flush')),
    'ERR_INVALID_ARG_TYPE',
  );
  assert.is(
    codeOf(() => one.flush(Ev.SIGNAL, 'flush')),
    'ERR_BAD_MASK',
  );
  far.close();
  assert.is(
    codeOf(() => filter(far, {})),
    'ERR_INVALID_ARG_VALUE',
  );
  one.close();
  assert.is(one.write('late'), false);
  one.flush(BOTH, 'finished');
  one.enable(BOTH).setRateLimit(undefined).end();
  base.close();
});

test('a filter tells whom it is on, and where that is', () => {
  const base = new EventBase();
  const [near] = BufferEvent.pair(base);
  const filter = BufferEvent.filter(near, {});
  assert.is(filter.under, near);
  assert.is(filter.localAddress, undefined);
  assert.is(eventText({ eof: true, direction: 'read' }), 'eof read');
  base.close();
  filter.close();
});

test.run();
