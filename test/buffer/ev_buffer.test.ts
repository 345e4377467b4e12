// EvBuffer beside libevent's event2/buffer.h: what each call answers and leaves behind, at the
// edges too. Lines and searches, changes, descriptors and files have files of their own.

import { constants } from 'node:buffer';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { slabUse } from '../../src/buffer/slab.js';
import { EvBuffer, sys } from '../../src/index.js';
import { codeOf, gatheringUncaught } from '../event/support.js';
import { filled, released, textOf } from './support.js';

const MiB = 1024 * 1024;
const R = 82;

// ── add and prepend ─────────────────────────────────────────────────────────────────────────────

test('add puts at the end and prepend at the front', () => {
  const buffer = new EvBuffer();
  assert.is(buffer.length, 0);
  assert.is(buffer.add('b').prepend('a').add(Buffer.from('c')), buffer);
  assert.is(buffer.prepend(new Uint8Array([0x5b])).length, 4);
  assert.is(textOf(buffer), '[abc');
});

test('text is UTF-8, and a lone surrogate is U+FFFD', () => {
  const texts = [
    '',
    'ascii',
    'é',
    '€uro',
    '😀',
    '\ud800',
    'a\udc00b',
    'x'.repeat(24),
    'é'.repeat(24),
  ];
  // Around the length up to which short text is written byte by byte, and beyond a slab's share.
  for (const length of [23, 24, 25, 1_000, 21_845, 21_846, 100_000]) {
    texts.push('z'.repeat(length), `${'y'.repeat(length - 1)}ü`, '\ud83d'.repeat(length));
  }
  for (const text of texts) {
    const expected = Buffer.from(text);
    for (const buffer of [new EvBuffer().add(text), new EvBuffer().prepend(text)]) {
      assert.is(buffer.length, expected.length);
      assert.ok(expected.equals(buffer.remove(buffer.length)));
    }
  }
});

test('what is added is a copy', () => {
  for (const size of [3, 5_000, 100_000]) {
    const data = Buffer.alloc(size, 'a');
    const buffer = new EvBuffer().add(data).prepend(data);
    data.fill('b');
    assert.is(textOf(buffer), 'a'.repeat(2 * size));
  }
});

test('a view with an offset is added as the part that it shows', () => {
  const memory = Buffer.from('0123456789');
  const view = new Uint8Array(memory.buffer, memory.byteOffset + 2, 3);
  const buffer = new EvBuffer().add(view).prepend(view.subarray(1)).addReference(view);
  assert.is(textOf(buffer), '34234234');
});

test('memory that threads share is taken like any other', () => {
  const shared = new Uint8Array(new SharedArrayBuffer(8), 2, 4);
  shared.set([97, 98, 99, 100]);
  const buffer = new EvBuffer().add(shared).prepend(shared).addReference(shared);
  assert.is(textOf(buffer), 'abcdabcdabcd');
  assert.is(buffer.indexOf(shared.subarray(1), 4), 5);
  const [from, to] = sys.socketPair();
  assert.is(buffer.writeTo(to), 12);
  assert.is(new EvBuffer().addReference(shared).writeTo(to), 4);
  assert.is(new EvBuffer().readFrom(from), 16);
  sys.close(from);
  sys.close(to);
});

test('evbuffer_add_iovec: several pieces are one call', () => {
  const buffer = new EvBuffer();
  const changes: number[] = [];
  buffer.onChange(({ added }) => changes.push(added));
  buffer.addAll(['a', Buffer.from('bc'), '', '€']).addAll([]);
  assert.is(textOf(buffer), 'abc€');
  assert.equal(changes, [6]);
});

test('nothing added is nothing changed', () => {
  const buffer = new EvBuffer();
  buffer.onChange(() => assert.unreachable('nothing changed'));
  buffer.add('').add(new Uint8Array(0)).prepend('').addAll(['']).drain(5).expand(100);
  buffer.addView(new EvBuffer()).addReference(new Uint8Array(0));
  assert.is(buffer.addBuffer(new EvBuffer()), 0);
  assert.is(buffer.prependBuffer(new EvBuffer()), 0);
  assert.is(buffer.remove(3).length, 0);
  buffer.reserve(10);
  buffer.commit(0);
  buffer.pullup();
  assert.is(buffer.length, 0);
});

test('small additions of two buffers in turn do not make a segment each', () => {
  const { live } = slabUse();
  const [one, two] = [new EvBuffer(), new EvBuffer()];
  for (let i = 0; i < 1_000; i++) {
    one.add('0123456789');
    two.add('abcdefghij');
  }
  assert.is(textOf(one), '0123456789'.repeat(1_000));
  assert.is(textOf(two), 'abcdefghij'.repeat(1_000));
  assert.ok(one.peek().length < 20, String(one.peek().length));
  one.close();
  two.close();
  assert.is(slabUse().live, live);
});

// ── limits ──────────────────────────────────────────────────────────────────────────────────────

test('a buffer has at most 4 GiB', () => {
  const gib = Buffer.allocUnsafeSlow(1024 * MiB);
  const buffer = new EvBuffer();
  for (let i = 0; i < 3; i++) buffer.addReference(gib);
  buffer.addReference(gib.subarray(0, gib.length - 1));
  assert.is(buffer.length, 4 * 1024 * MiB - 1);
  const other = new EvBuffer().add('ab');
  const tooMuch: (() => unknown)[] = [
    () => buffer.add('é'),
    () => buffer.add('ab'),
    () => buffer.add(Buffer.from('ab')),
    () => buffer.addAll(['a', 'b']),
    () => buffer.prepend('ab'),
    () => buffer.addBuffer(other),
    () => buffer.prependBuffer(other),
    () => buffer.addView(other),
    () => buffer.addView(buffer),
    () => buffer.addReference(Buffer.from('ab'), () => assert.unreachable('it was not taken')),
    () => buffer.reserve(2),
    () => buffer.expand(2),
  ];
  for (const call of tooMuch) assert.is(codeOf(call), 'ERR_OUT_OF_RANGE', String(call));
  assert.is(other.length, 2);
  assert.is(buffer.add('x').length, 4 * 1024 * MiB);
  assert.is(
    codeOf(() => buffer.readFrom(0)),
    'ERR_OUT_OF_RANGE',
  );
  if (constants.MAX_LENGTH > gib.length)
    assert.is(
      codeOf(() => buffer.add('x')),
      'ERR_OUT_OF_RANGE',
    );
  buffer.close();
});

// ── moving ──────────────────────────────────────────────────────────────────────────────────────

test('evbuffer_add_buffer: all of a buffer moves without a copy', () => {
  const [from, to] = [new EvBuffer().add('world'), new EvBuffer().add('hello ')];
  const [memory] = from.peek();
  assert.is(to.addBuffer(from), 5);
  assert.equal([from.length, to.length], [0, 11]);
  assert.equal(from.peek(), []);
  assert.is(to.peek()[1].byteOffset, memory.byteOffset);
  from.add('again');
  assert.is(textOf(to), 'hello world');
  assert.is(textOf(from), 'again');
});

test('evbuffer_remove_buffer: a part of a buffer moves, cut where it must be', () => {
  const from = new EvBuffer().add('abc').addReference(Buffer.from('defg')).add('h');
  const to = new EvBuffer();
  assert.is(to.addBuffer(from, 5), 5);
  assert.equal([textOf(to), textOf(from)], ['abcde', 'fgh']);
  assert.is(to.addBuffer(from, 0), 0);
  assert.is(to.addBuffer(from, 100), 3);
  assert.equal([textOf(to), textOf(from)], ['abcdefgh', '']);
});

test('evbuffer_prepend_buffer: all of a buffer moves to the front', () => {
  const [from, to] = [filled('a', 'b'), filled('c', 'd')];
  assert.is(to.prependBuffer(from), 2);
  assert.is(textOf(to), 'abcd');
  assert.is(to.add('e').prependBuffer(filled('_')), 1);
  assert.is(textOf(to), '_abcde');
  const empty = new EvBuffer();
  assert.is(empty.prependBuffer(to), 6);
  assert.is(textOf(empty.add('f')), '_abcdef');
});

test('a buffer that is moved to itself stays as it is', () => {
  const buffer = filled('ab', 'cd');
  buffer.onChange(() => assert.unreachable('nothing changed'));
  assert.is(buffer.addBuffer(buffer), 0);
  assert.is(buffer.addBuffer(buffer, 3), 0);
  assert.is(buffer.prependBuffer(buffer), 0);
  assert.is(textOf(buffer), 'abcd');
});

// ── views and references ────────────────────────────────────────────────────────────────────────

test('evbuffer_add_buffer_reference: a view keeps what there was, whatever comes', () => {
  const source = filled('ab', 'cd');
  const view = new EvBuffer().add('[').addView(source).add(']');
  source.add('more').prepend('less').drain(6);
  assert.is(textOf(view), '[abcd]');
  assert.is(textOf(source), 'cdmore');
  source.close();
  assert.is(textOf(view), '[abcd]');
});

test('a view of a view, of moved and of lent data shows the same bytes', () => {
  const { lend, counts } = released();
  const source = new EvBuffer().addReference(Buffer.from('lent'), lend());
  const view = new EvBuffer().addView(source);
  const again = new EvBuffer().addView(view);
  new EvBuffer().addBuffer(source);
  view.drain(2);
  assert.equal([textOf(view), textOf(again)], ['nt', 'lent']);
  assert.equal(counts, [0]);
  view.close();
  again.close();
  // What was moved is still in a buffer that nobody has: it was never drained.
  assert.equal(counts, [0]);
});

test('a view of itself is there twice', () => {
  const buffer = filled('ab', 'c');
  buffer.addView(buffer).add('!');
  assert.is(textOf(buffer), 'abcabc!');
  buffer.addView(buffer).drain(7);
  assert.is(textOf(buffer), 'abcabc!');
});

test('two views of one end grow apart', () => {
  const source = new EvBuffer().add('x');
  const view = new EvBuffer().addView(source);
  source.add('1');
  view.add('2');
  source.add('1');
  assert.equal([textOf(source), textOf(view)], ['x11', 'x2']);
});

test('evbuffer_add_reference: release is called once, when the last byte is gone', () => {
  const { lend, counts } = released();
  const buffer = new EvBuffer().add('a').addReference(Buffer.from('bcd'), lend());
  const [lent] = buffer.peek(1, 1);
  assert.is(lent.length, 1);
  buffer.drain(3);
  assert.equal(counts, [0]);
  assert.is(textOf(buffer), 'd');
  buffer.drain(1);
  assert.equal(counts, [1]);
  buffer.close();
  assert.equal(counts, [1]);
});

test('lent memory is not copied, and not grown into', () => {
  const memory = Buffer.from('0123456789');
  const buffer = new EvBuffer().addReference(memory.subarray(0, 4)).add('after');
  assert.is(buffer.peek()[0].buffer, memory.buffer);
  assert.is(memory.toString(), '0123456789');
  assert.is(textOf(buffer), '0123after');
});

test('every way out of a buffer releases what was lent', () => {
  const ways: Record<string, (buffer: EvBuffer) => unknown> = {
    drain: (buffer) => buffer.drain(100),
    remove: (buffer) => buffer.remove(100),
    readln: (buffer) => buffer.readln('lf'),
    close: (buffer) => buffer.close(),
    dispose: (buffer) => buffer[Symbol.dispose](),
    discard: (buffer) => buffer._discard(),
    pullup: (buffer) => buffer.pullup(),
    writeTo: (buffer) => {
      const [to, from] = sys.socketPair();
      buffer.writeTo(to);
      sys.close(to);
      sys.close(from);
    },
    'move and drain': (buffer) => {
      const other = new EvBuffer();
      other.addBuffer(buffer, 2);
      other.addBuffer(buffer);
      other.drain(100);
    },
    'view and drain': (buffer) => {
      const view = new EvBuffer().addView(buffer);
      buffer.drain(100);
      view.drain(100);
    },
  };
  for (const [name, way] of Object.entries(ways)) {
    const { lend, counts } = released();
    const buffer = new EvBuffer()
      .addReference(Buffer.from('abc'), lend())
      .addReference(Buffer.from('d\n'), lend());
    way(buffer);
    assert.equal(counts, [1, 1], name);
  }
});

test('nothing lent is released at once', () => {
  const { lend, counts } = released();
  const buffer = new EvBuffer().addReference(new Uint8Array(0), lend());
  assert.equal(counts, [1]);
  assert.is(buffer.length, 0);
});

test('a release that uses the buffer finds it whole', () => {
  const buffer = new EvBuffer();
  const seen: string[] = [];
  const release = () => {
    seen.push(textOf(buffer));
    buffer.add('+').prepend('-');
  };
  buffer.addReference(Buffer.from('ab'), release).addReference(Buffer.from('cd'), release).add('e');
  buffer.drain(4);
  assert.equal(seen, ['e', '-e+']);
  assert.is(textOf(buffer), '--e++');
  const pulled = new EvBuffer();
  pulled.addReference(Buffer.from('ab'), () => pulled.drain(1)).add('c');
  pulled.pullup();
  assert.is(textOf(pulled), 'bc');
});

test('a release that throws is an uncaught exception and harms nobody', async () => {
  await gatheringUncaught(async (caught) => {
    const { lend, counts } = released();
    const buffer = new EvBuffer();
    buffer.addReference(Buffer.from('ab'), () => {
      throw new Error('release');
    });
    buffer.addReference(Buffer.from('cd'), lend()).add('e');
    assert.is(Buffer.from(buffer.remove(4)).toString(), 'abcd');
    assert.equal(counts, [1]);
    assert.is(textOf(buffer), 'e');
    assert.is(caught.length, 0);
    await new Promise(setImmediate);
    assert.equal(caught.map(String), ['Error: release']);
  });
});

test('memory that was transferred is an error, and drain gets rid of it', () => {
  const uses: ((buffer: EvBuffer) => unknown)[] = [
    (buffer) => buffer.remove(2),
    (buffer) => buffer.copyOut(2),
    (buffer) => buffer.peek(),
    (buffer) => buffer.pullup(),
    (buffer) => buffer.pullup(6_000),
    (buffer) => buffer.indexOf('xyz'),
    (buffer) => buffer.readln('any'),
    (buffer) => buffer.readln('lf'),
    (buffer) => buffer.writeTo(1, 2),
    (buffer) => buffer.writeTo(1),
    (buffer) => buffer._writeTo(1, 2, true),
  ];
  for (const use of uses) {
    const memory = new Uint8Array(5_000);
    const buffer = new EvBuffer().addReference(memory).add('more'.repeat(1_000));
    structuredClone(memory, { transfer: [memory.buffer as ArrayBuffer] });
    assert.is(
      codeOf(() => use(buffer)),
      'ERR_BUFFER_DETACHED',
      String(use),
    );
    assert.is(buffer.length, 9_000);
    buffer.drain(5_000);
    assert.is(textOf(buffer), 'more'.repeat(1_000));
  }
  const buffer = new EvBuffer();
  const memory = buffer.reserve(100_000);
  structuredClone(memory, { transfer: [memory.buffer as ArrayBuffer] });
  assert.is(
    codeOf(() => buffer.commit(5)),
    'ERR_BUFFER_DETACHED',
  );
  buffer.commit(0);
  assert.is(textOf(buffer.add('fine')), 'fine');
});

test('a slab that is posted stays where it is', () => {
  const buffer = new EvBuffer().add('here');
  const [view] = buffer.peek();
  try {
    // Refused or, before Node 21, not done.
    structuredClone(view, { transfer: [view.buffer as ArrayBuffer] });
  } catch (error) {
    assert.is((error as Error).name, 'DataCloneError');
  }
  assert.is(view.length, 4);
  assert.is(textOf(buffer), 'here');
});

// ── reserve, commit, expand ─────────────────────────────────────────────────────────────────────

test('evbuffer_reserve_space: at least as much as asked, and the same until it is committed', () => {
  const { live } = slabUse();
  for (const length of [1, 10, 65_535, 65_536, 300_000]) {
    const buffer = new EvBuffer();
    const memory = buffer.reserve(length);
    assert.ok(memory.length >= length);
    const again = buffer.reserve(Math.max(1, length >> 1));
    assert.is(again.buffer, memory.buffer);
    assert.is(again.byteOffset, memory.byteOffset);
    assert.is(buffer.length, 0);
    memory[0] = 97;
    buffer.commit(1);
    assert.is(textOf(buffer), 'a');
    buffer.close();
  }
  assert.is(slabUse().live, live);
});

test('evbuffer_commit_space: what was written is data, up to what was reserved', () => {
  const buffer = new EvBuffer();
  assert.is(
    codeOf(() => buffer.commit(1)),
    'ERR_OUT_OF_RANGE',
  );
  buffer.commit(0);
  const memory = buffer.reserve(10);
  assert.is(
    codeOf(() => buffer.commit(memory.length + 1)),
    'ERR_OUT_OF_RANGE',
  );
  memory.set(Buffer.from('0123456789'));
  buffer.commit(4);
  assert.is(textOf(buffer), '0123');
  assert.is(
    codeOf(() => buffer.commit(1)),
    'ERR_OUT_OF_RANGE',
  );
});

test('what is reserved is nobody else’s, and what is added meanwhile comes before it', () => {
  const [one, two] = [new EvBuffer(), new EvBuffer()];
  const memory = one.reserve(100).fill(R);
  two.add('t'.repeat(50));
  one.add('a'.repeat(50));
  const more = two.reserve(100).fill(R);
  one.prepend('p');
  assert.ok(memory.every((byte) => byte === R));
  one.commit(5);
  two.commit(3);
  one.add('z');
  assert.is(textOf(one), `p${'a'.repeat(50)}RRRRRz`);
  assert.is(textOf(two), `${'t'.repeat(50)}RRR`);
  assert.is(more[3], R);
});

test('committed pieces that follow each other are one piece of memory', () => {
  const { live } = slabUse();
  const buffer = new EvBuffer();
  for (let i = 0; i < 100; i++) {
    buffer.reserve(20).fill(65 + (i % 26));
    buffer.commit(7);
  }
  assert.is(buffer.peek().length, 1);
  assert.is(buffer.length, 700);
  buffer.close();
  assert.is(slabUse().live, live);
});

test('a reservation that is never committed costs nobody anything', () => {
  const buffer = new EvBuffer();
  const { live } = slabUse();
  for (const length of [10, 100, 1_000, 100_000, 5]) buffer.reserve(length);
  buffer.add('data');
  assert.is(textOf(buffer), 'data');
  buffer.close();
  assert.is(slabUse().live, live);
  const other = new EvBuffer().add('other');
  const { used } = slabUse();
  buffer.reserve(1_000);
  buffer.commit(0);
  other.reserve(1_000);
  other.commit(1);
  assert.is(slabUse().used, used + 1);
  // Nor does a buffer that is forgotten with one: its slab is used up, and then left alone.
  for (let i = 0; i < 200; i++) new EvBuffer().reserve(30_000);
  assert.is(textOf(new EvBuffer().add('after')), 'after');
});

test('evbuffer_expand: what is added next is contiguous', () => {
  const [buffer, other] = [new EvBuffer().add('first'), new EvBuffer()];
  other.add('between');
  buffer.expand(5_000);
  for (let i = 0; i < 500; i++) {
    buffer.add('0123456789');
    other.add('x');
  }
  assert.is(buffer.peek().length, 2);
  assert.is(textOf(buffer), `first${'0123456789'.repeat(500)}`);
  assert.is(new EvBuffer().expand(100_000).expand(10).add('a').length, 1);
});

// ── taking out ──────────────────────────────────────────────────────────────────────────────────

test('evbuffer_remove: as many as there are, and they are the caller’s', () => {
  const buffer = filled('abc', 'def');
  const four = buffer.remove(4);
  assert.is(Buffer.from(four).toString(), 'abcd');
  four.fill(0);
  assert.is(Buffer.from(buffer.remove(100)).toString(), 'ef');
  assert.is(buffer.remove(1).length, 0);
  assert.is(buffer.remove(0).length, 0);
});

test('evbuffer_copyout_from: from any position, and nothing changes', () => {
  const buffer = filled('abc', 'def', 'ghi');
  assert.is(Buffer.from(buffer.copyOut(4, 2)).toString(), 'cdef');
  assert.is(Buffer.from(buffer.copyOut(100, 6)).toString(), 'ghi');
  assert.is(buffer.copyOut(5, 9).length, 0);
  assert.is(
    codeOf(() => buffer.copyOut(1, 10)),
    'ERR_OUT_OF_RANGE',
  );
  buffer.copyOut(3).fill(0);
  assert.is(textOf(buffer), 'abcdefghi');
});

test('evbuffer_drain: more than there is drains all', () => {
  const buffer = filled('abc', 'def');
  assert.is(textOf(buffer.drain(0).drain(4)), 'ef');
  assert.is(buffer.drain(100).length, 0);
  assert.is(textOf(buffer.add('x')), 'x');
});

test('evbuffer_pullup: contiguous, and undefined when there is not so much', () => {
  const buffer = filled('abc', 'def', 'ghi');
  assert.is(buffer.contiguous, 3);
  assert.is(buffer.pullup(10), undefined);
  assert.is(Buffer.from(buffer.pullup(5) as Uint8Array).toString(), 'abcde');
  assert.is(buffer.contiguous, 5);
  assert.is(textOf(buffer), 'abcdefghi');
  const all = buffer.pullup() as Uint8Array;
  assert.is(Buffer.from(all).toString(), 'abcdefghi');
  assert.is(buffer.contiguous, 9);
  // Already so: nothing is copied.
  assert.is(buffer.pullup(3)?.byteOffset, all.byteOffset);
  assert.is(buffer.pullup(0)?.length, 0);
  assert.is(new EvBuffer().pullup()?.length, 0);
  assert.is(new EvBuffer().contiguous, 0);
});

test('a message that grows is not copied anew by each pullup', () => {
  const buffer = new EvBuffer();
  const memories = new Set<ArrayBufferLike>();
  for (let i = 0; i < 2_000; i++) {
    buffer.addReference(Buffer.alloc(100, 97 + (i % 26)));
    memories.add((buffer.pullup() as Uint8Array).buffer);
  }
  assert.ok(memories.size < 30, String(memories.size));
  assert.is(buffer.length, 200_000);
  const bytes = buffer.remove(200_000);
  assert.ok(bytes.every((byte, i) => byte === 97 + (Math.floor(i / 100) % 26)));
});

test('what a pullup has grown into is not in anybody’s view', () => {
  const buffer = filled('abc', 'def');
  buffer.pullup();
  buffer.add('ghi').pullup();
  const view = new EvBuffer().addView(buffer);
  buffer.add('jkl').pullup();
  view.add('XYZ').pullup();
  assert.equal([textOf(buffer), textOf(view)], ['abcdefghijkl', 'abcdefghiXYZ']);
});

test('evbuffer_peek: the memory of a range, in order', () => {
  const buffer = filled('abc', 'def', 'ghi');
  const text = (views: Uint8Array[]): string[] => views.map((view) => Buffer.from(view).toString());
  assert.equal(text(buffer.peek()), ['abc', 'def', 'ghi']);
  assert.equal(text(buffer.peek(4)), ['abc', 'd']);
  assert.equal(text(buffer.peek(4, 2)), ['c', 'def']);
  assert.equal(text(buffer.peek(100, 3)), ['def', 'ghi']);
  assert.equal(text(buffer.peek(100, 8)), ['i']);
  assert.equal(buffer.peek(3, 9), []);
  assert.equal(buffer.peek(0), []);
  assert.is(buffer.length, 9);
});

test('close drops the data, ends the listeners, and leaves an empty buffer', () => {
  const buffer = filled('abc');
  buffer.onChange(() => assert.unreachable('it has ended'));
  buffer.reserve(10);
  buffer.close();
  assert.is(buffer.length, 0);
  buffer.close();
  assert.is(textOf(buffer.add('again')), 'again');
});

// ── freezing ────────────────────────────────────────────────────────────────────────────────────

test('evbuffer_freeze: what each end refuses, and what goes on', () => {
  const [near, far] = sys.socketPair();
  const other = () => filled('other');
  const uses: Record<string, [end: string, (buffer: EvBuffer) => unknown]> = {
    add: ['back', (buffer) => buffer.add('x')],
    'add nothing': ['back', (buffer) => buffer.add('')],
    addAll: ['back', (buffer) => buffer.addAll(['x'])],
    addBuffer: ['back', (buffer) => buffer.addBuffer(other())],
    addView: ['back', (buffer) => buffer.addView(other())],
    addReference: ['back', (buffer) => buffer.addReference(Buffer.from('x'))],
    addFile: ['back', (buffer) => buffer.addFile(sys.dup(near), 0, 1)],
    reserve: ['back', (buffer) => buffer.reserve(1)],
    commit: ['back', (buffer) => buffer.commit(0)],
    readFrom: ['back', (buffer) => buffer.readFrom(near)],
    prepend: ['front', (buffer) => buffer.prepend('x')],
    prependBuffer: ['front', (buffer) => buffer.prependBuffer(other())],
    'addBuffer of it': ['front', (buffer) => other().addBuffer(buffer)],
    'prependBuffer of it': ['front', (buffer) => other().prependBuffer(buffer)],
    drain: ['front', (buffer) => buffer.drain(1)],
    remove: ['front', (buffer) => buffer.remove(1)],
    readln: ['front', (buffer) => buffer.readln()],
    writeTo: ['front', (buffer) => buffer.writeTo(near)],
    close: ['front', (buffer) => buffer.close()],
    copyOut: ['none', (buffer) => buffer.copyOut(3)],
    peek: ['none', (buffer) => buffer.peek()],
    pullup: ['none', (buffer) => buffer.pullup()],
    indexOf: ['none', (buffer) => buffer.indexOf('b')],
    indexOfEol: ['none', (buffer) => buffer.indexOfEol('lf')],
    expand: ['none', (buffer) => buffer.expand(10)],
    'addView of it': ['none', (buffer) => other().addView(buffer)],
    'nothing moved': ['none', (buffer) => buffer.addBuffer(new EvBuffer())],
    'nothing moved from it': ['none', (buffer) => other().addBuffer(buffer, 0)],
    'nothing drained': ['none', (buffer) => buffer.drain(0).remove(0)],
    'nothing prepended': ['none', (buffer) => buffer.prepend('').prependBuffer(new EvBuffer())],
  };
  for (const [name, [refusing, use]] of Object.entries(uses)) {
    for (const end of ['front', 'back'] as const) {
      const buffer = filled('ab\n', 'c');
      buffer.freeze(end);
      buffer.freeze(end);
      const refused = () => use(buffer);
      if (end === refusing) {
        assert.is(codeOf(refused), 'ERR_BUFFER_FROZEN', `${name}, ${end}`);
        assert.is(textOf(buffer), 'ab\nc', name);
        buffer.unfreeze(end);
      }
      use(buffer);
    }
  }
  sys.close(near);
  sys.close(far);
});

test('a frozen front refuses nothing while there is no data', () => {
  const buffer = new EvBuffer();
  buffer.freeze('front');
  assert.is(buffer.drain(5).remove(5).length, 0);
  assert.is(buffer.readln(), undefined);
  assert.is(new EvBuffer().addBuffer(buffer), 0);
  buffer.close();
  assert.is(
    codeOf(() => buffer.prepend('x')),
    'ERR_BUFFER_FROZEN',
  );
});

test('what a frozen end refuses is not taken: lent memory stays lent, moved data where it was', () => {
  const buffer = filled('a');
  buffer.freeze('back');
  const release = () => assert.unreachable('it was not taken');
  assert.is(
    codeOf(() => buffer.addReference(Buffer.from('x'), release)),
    'ERR_BUFFER_FROZEN',
  );
  assert.is(
    codeOf(() => buffer.addReference(Buffer.alloc(0), release)),
    'ERR_BUFFER_FROZEN',
  );
  const from = filled('b');
  assert.is(
    codeOf(() => buffer.addBuffer(from)),
    'ERR_BUFFER_FROZEN',
  );
  assert.is(textOf(from), 'b');
});

// ── memory ──────────────────────────────────────────────────────────────────────────────────────

test('slabs are filled anew when the last segment is gone', () => {
  // A slab of its own, whatever other tests have left in theirs.
  const buffer = new EvBuffer().add('x'.repeat(20_000));
  while (slabUse().live > 1) buffer.add('x'.repeat(20_000));
  buffer.close();
  assert.equal([slabUse().live, slabUse().used], [0, 0]);
  const { retired } = slabUse();
  for (let round = 0; round < 50; round++) {
    for (let i = 0; i < 300; i++) buffer.add('x'.repeat(1_000));
    assert.is(buffer.length, 300_000);
    buffer.drain(300_000);
  }
  const { live, used, spare, ...now } = slabUse();
  assert.equal([live, used, now.retired], [0, 0, retired]);
  assert.ok(spare >= 1 && spare <= 4);
});

test('a little data that stays leaves its slab; a lot, a file or a loan does not', () => {
  const little = new EvBuffer().add('a').add('b');
  const { live } = slabUse();
  little._settle();
  assert.is(slabUse().live, live - 1);
  // What comes later joins it.
  little.add('c');
  new EvBuffer().add('between');
  little.add('d')._settle();
  assert.is(little.peek().length, 1);
  assert.is(textOf(little), 'abcd');
  const lent = new EvBuffer().addReference(Buffer.from('x'), () => undefined).add('y');
  lent._settle();
  assert.is(lent.peek().length, 2);
  const lot = new EvBuffer().add('z'.repeat(20_000));
  const [memory] = lot.peek();
  lot._settle();
  assert.is(lot.peek()[0].buffer, memory.buffer);
});

test.run();
