// Who is told of a change, when, and with which counts: evbuffer_add_cb and its deferred form.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type BufferChange, EvBuffer, EventBase, LoopFlag, sys } from '../../src/index.js';
import { codeOf, gatheringUncaught } from '../event/support.js';
import { filled, openFile, textOf } from './support.js';

function listening(buffer: EvBuffer): BufferChange[] {
  const changes: BufferChange[] = [];
  buffer.onChange((change) => changes.push({ ...change }));
  return changes;
}

test('evbuffer_add_cb: one call for each call, with all that it added and removed', () => {
  const [pipeFrom, pipeTo] = sys.pipe();
  const uses: [string, (buffer: EvBuffer) => unknown, added: number, removed: number][] = [
    ['add', (buffer) => buffer.add('12345'), 5, 0],
    ['a long add', (buffer) => buffer.add('x'.repeat(200_000)), 200_000, 0],
    ['addAll', (buffer) => buffer.addAll(['1', '23', '456']), 6, 0],
    ['prepend', (buffer) => buffer.prepend('€'), 3, 0],
    ['addBuffer', (buffer) => buffer.addBuffer(filled('1', '2', '3')), 3, 0],
    ['a part', (buffer) => buffer.addBuffer(filled('1', '23', '3'), 2), 2, 0],
    ['prependBuffer', (buffer) => buffer.prependBuffer(filled('1', '2')), 2, 0],
    ['addView', (buffer) => buffer.addView(filled('1', '2', '3')), 3, 0],
    ['addView of itself', (buffer) => buffer.addView(buffer), 10, 0],
    ['addReference', (buffer) => buffer.addReference(Buffer.alloc(7)), 7, 0],
    ['addFile', (buffer) => buffer.addFile(openFile('file')), 4, 0],
    ['commit', (buffer) => buffer.commit(buffer.reserve(4).length), 4, 0],
    ['drain', (buffer) => buffer.drain(7), 0, 7],
    ['drain all', (buffer) => buffer.drain(100), 0, 10],
    ['remove', (buffer) => buffer.remove(6), 0, 6],
    ['readln', (buffer) => buffer.readln(), 0, 5],
    ['moved away', (buffer) => new EvBuffer().addBuffer(buffer), 0, 10],
    ['moved in part', (buffer) => new EvBuffer().addBuffer(buffer, 6), 0, 6],
    ['moved to a front', (buffer) => new EvBuffer().prependBuffer(buffer), 0, 10],
    ['writeTo', (buffer) => buffer.writeTo(pipeTo), 0, 10],
    ['readFrom', (buffer) => buffer.readFrom(pipeFrom), 10, 0],
  ];
  for (const [name, use, added, removed] of uses) {
    // Five segments, so that a call that goes over several would be seen.
    const buffer = filled('ab', 'c\r', '\nd', 'ef', 'gh');
    const changes = listening(buffer);
    use(buffer);
    assert.equal(changes, [{ before: 10, added, removed }], name);
    assert.is(buffer.length, 10 + added - removed, name);
  }
  sys.close(pipeFrom);
  sys.close(pipeTo);
});

test('what only looks tells nobody', () => {
  const buffer = filled('abc', 'd\n');
  buffer.onChange(() => assert.unreachable('nothing changed'));
  buffer.copyOut(3);
  buffer.peek();
  buffer.pullup();
  buffer.indexOf('d');
  buffer.indexOfEol('lf');
  buffer.readln('nul');
  buffer.reserve(10);
  buffer.expand(10);
  buffer.freeze('back');
  buffer.unfreeze('back');
  new EvBuffer().addView(buffer);
  buffer._settle();
  buffer._discard();
});

test('a refused call and one that fails tell nobody', () => {
  const buffer = filled('abc');
  buffer.onChange(() => assert.unreachable('nothing changed'));
  buffer.freeze('front');
  buffer.freeze('back');
  for (const call of [() => buffer.add('x'), () => buffer.drain(1)])
    assert.is(codeOf(call), 'ERR_BUFFER_FROZEN');
  buffer.unfreeze('front');
  buffer.unfreeze('back');
  assert.ok(buffer.readFrom(987_654) < 0);
  assert.ok(buffer.writeTo(987_654) < 0);
});

test('listeners are told in their order, and the change is there when they are', () => {
  const buffer = new EvBuffer();
  const told: string[] = [];
  buffer.onChange(({ before }) => told.push(`a ${before} ${textOf(buffer)}`));
  buffer.onChange(({ before }) => told.push(`b ${before} ${textOf(buffer)}`));
  buffer.add('x').add('y');
  assert.equal(told, ['a 0 x', 'b 0 x', 'a 1 xy', 'b 1 xy']);
});

test('each listener has a change of its own to keep', () => {
  const buffer = new EvBuffer();
  buffer.onChange((change) => {
    change.added = 99;
  });
  const changes = listening(buffer);
  buffer.add('abc');
  assert.equal(changes, [{ before: 0, added: 3, removed: 0 }]);
});

test('add_buffer tells the source first, remove_buffer the destination, and both are changed', () => {
  for (const [length, order] of [
    [undefined, ['from', 'to']],
    [2, ['to', 'from']],
    [3, ['to', 'from']],
  ] as const) {
    const [from, to] = [filled('a', 'bc'), filled('z')];
    const told: string[] = [];
    const state = () => assert.is(textOf(to) + textOf(from), 'zabc');
    from.onChange(() => {
      told.push('from');
      state();
    });
    to.onChange(() => {
      told.push('to');
      state();
    });
    to.addBuffer(from, length);
    assert.equal(told, order);
  }
});

test('a callback that changes the buffer is told of that in turn', () => {
  const buffer = new EvBuffer();
  const told: BufferChange[] = [];
  buffer.onChange(({ added }) => {
    if (added > 0) buffer.drain(buffer.length);
  });
  buffer.onChange((change) => told.push({ ...change }));
  buffer.add('abc');
  assert.equal(told, [
    { before: 3, added: 0, removed: 3 },
    { before: 0, added: 3, removed: 0 },
  ]);
  assert.is(buffer.length, 0);
  // What the call answers is what it took.
  buffer.add('x');
  const other = filled('remove me');
  other.onChange(() => other.close());
  assert.is(Buffer.from(other.remove(6)).toString(), 'remove');
  assert.is(other.length, 0);
});

test('a callback that ends itself or another is not called again', () => {
  const buffer = new EvBuffer();
  const told: string[] = [];
  const first = buffer.onChange(() => {
    told.push('first');
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    third[Symbol.dispose]();
  });
  buffer.onChange(() => {
    told.push('second');
    if (told.length < 3) buffer.onChange(() => told.push('new'));
  });
  const third = buffer.onChange(() => told.push('third'));
  buffer.add('x');
  assert.equal(told, ['first', 'second']);
  buffer.add('y');
  assert.equal(told, ['first', 'second', 'second', 'new']);
});

test('a callback that throws is an uncaught exception; the call and the others go on', async () => {
  await gatheringUncaught(async (caught) => {
    const buffer = new EvBuffer();
    buffer.onChange(() => {
      throw new Error('callback');
    });
    const changes = listening(buffer);
    const to = new EvBuffer();
    buffer.add('abc\n');
    assert.is(buffer.readln(), 'abc');
    buffer.add('defg');
    assert.is(to.addBuffer(buffer, 1), 1);
    assert.is(Buffer.from(buffer.remove(1)).toString(), 'e');
    assert.is(changes.length, 5);
    assert.is(textOf(to), 'd');
    await new Promise(setImmediate);
    assert.equal(caught.map(String), Array(5).fill('Error: callback'));
  });
});

test('evbuffer_defer_callbacks: from the next pass, once for all that has come together', async () => {
  const base = new EventBase();
  const buffer = filled('abc');
  const told: BufferChange[] = [];
  buffer.onChange((change) => told.push(change), { deferTo: base });
  buffer.add('defg').drain(2).add('h').readln();
  buffer.remove(1);
  assert.equal(told, []);
  await base.loop(LoopFlag.NONBLOCK);
  assert.equal(told, [{ before: 3, added: 5, removed: 3 }]);
  await base.loop(LoopFlag.NONBLOCK);
  assert.is(told.length, 1);
  buffer.drain(100);
  await base.loop(LoopFlag.NONBLOCK);
  assert.equal(told[1], { before: 5, added: 0, removed: 5 });
  base.close();
});

test('what comes and goes before the pass is told too', () => {
  const base = new EventBase();
  const buffer = new EvBuffer();
  const told: BufferChange[] = [];
  buffer.onChange((change) => told.push(change), { deferTo: base });
  buffer.add('abc').drain(3);
  base.loopSync(LoopFlag.NONBLOCK);
  assert.equal(told, [{ before: 0, added: 3, removed: 3 }]);
  base.close();
});

test('a change that a deferred callback makes is told in the next pass', () => {
  const base = new EventBase();
  const buffer = new EvBuffer();
  const told: BufferChange[] = [];
  buffer.onChange(
    (change) => {
      told.push(change);
      if (told.length < 3) buffer.add('more');
    },
    { deferTo: base },
  );
  buffer.add('a');
  base.loopSync();
  assert.equal(told, [
    { before: 0, added: 1, removed: 0 },
    { before: 1, added: 4, removed: 0 },
    { before: 5, added: 4, removed: 0 },
  ]);
  base.close();
});

test('a deferred callback is not called after it was ended, or its buffer, or its base', () => {
  const base = new EventBase();
  const unreachable = () => assert.unreachable('it has ended');
  const ended = new EvBuffer();
  const ending = ended.onChange(unreachable, { deferTo: base });
  ended.add('a');
  ending[Symbol.dispose]();
  ending[Symbol.dispose]();
  ended.add('b');
  const closed = new EvBuffer();
  closed.onChange(unreachable, { deferTo: base });
  closed.add('a').close();
  closed.add('b');
  assert.is(base.loopSync(LoopFlag.NONBLOCK), 'empty');
  const left = new EvBuffer();
  const last = left.onChange(unreachable, { deferTo: base });
  left.add('a');
  base.close();
  left.add('b');
  last[Symbol.dispose]();
  assert.is(textOf(left), 'ab');
  assert.is(
    codeOf(() => left.onChange(unreachable, { deferTo: base })),
    'ERR_BASE_CLOSED',
  );
});

test('a deferred callback that throws is reported, and told of what comes later', async () => {
  const base = new EventBase();
  await gatheringUncaught(async (caught) => {
    const buffer = new EvBuffer();
    const told: BufferChange[] = [];
    buffer.onChange(
      (change) => {
        told.push(change);
        throw new Error('deferred');
      },
      { deferTo: base },
    );
    buffer.add('a');
    await base.dispatch();
    buffer.add('bc');
    await base.dispatch();
    assert.equal(told, [
      { before: 0, added: 1, removed: 0 },
      { before: 1, added: 2, removed: 0 },
    ]);
    assert.equal(caught.map(String), ['Error: deferred', 'Error: deferred']);
  });
  base.close();
});

test.run();
