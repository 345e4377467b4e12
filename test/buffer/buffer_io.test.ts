// Scatter reads and gather writes on socket pairs, pipes and files: what the kernel takes and gives,
// what it refuses, and what is left in the buffer then.

import { closeSync, openSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { slabUse } from '../../src/buffer/slab.js';
import { EvBuffer, sys } from '../../src/index.js';
import { assertNoneLeft, openDescriptors } from '../event/support.js';
import { fileOf, filled, openFile, textOf } from './support.js';

const { EAGAIN, EBADF, EISDIR, EPIPE, ESPIPE } = constants.errno;

const before = openDescriptors();

/** Runs `body` with two ends, which it may close. */
function withEnds(ends: [number, number], body: (a: number, b: number) => void): void {
  try {
    body(...ends);
  } finally {
    for (const end of ends) sys.close(end);
  }
}

/** Different everywhere, so that a byte in the wrong place is seen. */
function pattern(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8) * 7) & 0xff;
  return bytes;
}

test('what one buffer writes another reads', () => {
  for (const ends of [sys.socketPair(), sys.pipe()])
    withEnds(ends, (from, to) => {
      const out = filled('abc', 'def').add('ghi');
      assert.is(out.writeTo(to), 9);
      assert.is(out.length, 0);
      const into = new EvBuffer().add('>');
      assert.is(into.readFrom(from), 9);
      assert.is(textOf(into), '>abcdefghi');
    });
});

test('nothing there, nothing more, nobody there', () => {
  withEnds(sys.socketPair(), (near, far) => {
    const buffer = new EvBuffer().add('kept');
    buffer.onChange(() => assert.unreachable('nothing changed'));
    const { live, used } = slabUse();
    assert.is(buffer.readFrom(near), -EAGAIN);
    assert.is(buffer.readFrom(near, 500_000), -EAGAIN);
    sys.close(far);
    assert.is(buffer.readFrom(near), 0);
    assert.is(buffer.readFrom(near, 500_000), 0);
    assert.is(buffer.writeTo(near), -EPIPE);
    assert.is(buffer._writeTo(near, 4, true), -EPIPE);
    const nobody = sys.dup(near);
    sys.close(nobody);
    assert.is(buffer.readFrom(nobody), -EBADF);
    assert.is(buffer.readFrom(nobody, 500_000), -EBADF);
    assert.is(buffer.writeTo(nobody), -EBADF);
    assert.is(filled('a', 'b').writeTo(nobody), -EBADF);
    assert.is(textOf(buffer), 'kept');
    // Nothing was taken from the slab for it.
    assert.equal([slabUse().live, slabUse().used], [live, used]);
  });
  const folder = openSync('/', 'r');
  assert.is(new EvBuffer().readFrom(folder), -EISDIR);
  closeSync(folder);
});

test('an empty buffer and a write of nothing make no call', () => {
  assert.is(new EvBuffer().writeTo(987_654), 0);
  assert.is(filled('a').writeTo(987_654, 0), 0);
});

test('evbuffer_read: at most so many bytes', () => {
  withEnds(sys.socketPair(), (from, to) => {
    filled('0123456789').writeTo(to);
    const buffer = new EvBuffer();
    assert.is(buffer.readFrom(from, 4), 4);
    assert.is(buffer.readFrom(from, 1), 1);
    assert.is(buffer.readFrom(from, 2 ** 40), 5);
    assert.is(textOf(buffer), '0123456789');
  });
});

test('a small read takes no more memory than it has bytes', () => {
  withEnds(sys.socketPair(), (from, to) => {
    const buffer = new EvBuffer();
    for (let i = 0; i < 1_000; i++) {
      filled('ab').writeTo(to);
      assert.is(buffer.readFrom(from), 2);
    }
    assert.is(textOf(buffer), 'ab'.repeat(1_000));
    assert.ok(buffer.peek().length <= 2);
    buffer.close();
  });
});

test('a read of more than 64 KiB is scattered over several pieces', () => {
  const bytes = pattern(3_000_000);
  const file = openFile(bytes);
  const buffer = new EvBuffer();
  const counts: number[] = [];
  for (;;) {
    const count = buffer.readFrom(file, bytes.length);
    if (count === 0) break;
    counts.push(count);
  }
  closeSync(file);
  assert.ok(counts[0] > 1_000_000, String(counts));
  assert.ok(counts.length <= 4, String(counts));
  assert.ok(bytes.equals(buffer.copyOut(bytes.length)));
  assert.ok(buffer.peek().length > 4);
  const { live } = slabUse();
  buffer.close();
  assert.ok(slabUse().spare > 0 && slabUse().live <= live);
});

test('sizes around the border of what is scattered', () => {
  const bytes = pattern(600_000);
  const path = fileOf(bytes);
  for (const max of [65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 524_289]) {
    const file = openSync(path, 'r');
    const buffer = new EvBuffer();
    let at = 0;
    while (at < bytes.length) {
      const count = buffer.readFrom(file, max);
      assert.is(count, Math.min(max, bytes.length - at));
      at += count;
    }
    assert.ok(bytes.equals(buffer.remove(at)), String(max));
    closeSync(file);
  }
});

test('evbuffer_write: what the descriptor did not take stays, in order', () => {
  const bytes = pattern(1_000_000);
  withEnds(sys.socketPair(), (from, to) => {
    const out = new EvBuffer();
    // Segments of every kind and of lengths that end anywhere.
    for (let at = 0, i = 0; at < bytes.length; i++) {
      const piece = bytes.subarray(at, at + 1 + ((i * 977) % 30_011));
      if (i % 3 === 0) out.addReference(piece);
      else out.add(piece);
      at += piece.length;
    }
    const into = new EvBuffer();
    let partial = 0;
    while (out.length > 0) {
      const { length } = out;
      const count = out.writeTo(to);
      if (count === -EAGAIN) assert.ok(into.readFrom(from) > 0);
      else {
        assert.is(out.length, length - count);
        if (out.length > 0) partial++;
      }
    }
    while (into.readFrom(from) > 0);
    assert.ok(partial > 1);
    assert.ok(bytes.equals(into.remove(bytes.length)));
  });
});

test('evbuffer_write_atmost: no byte more, also in the middle of a piece', () => {
  withEnds(sys.socketPair(), (from, to) => {
    const out = filled('abc', 'def', 'ghi').add('jkl');
    const into = new EvBuffer();
    for (const [max, took] of [
      [1, 1],
      [4, 4],
      [100, 7],
    ]) {
      assert.is(out.writeTo(to, max), took);
      assert.is(into.readFrom(from), took);
    }
    assert.is(textOf(into), 'abcdefghijkl');
  });
});

test('more than 64 pieces leave in several calls, small ones together', () => {
  for (const size of [10, 1_000])
    withEnds(sys.pipe(), (from, to) => {
      const out = new EvBuffer();
      const bytes = pattern(size * 150);
      for (let i = 0; i < 150; i++) out.addReference(bytes.subarray(i * size, (i + 1) * size));
      const into = new EvBuffer();
      const counts: number[] = [];
      while (out.length > 0) {
        const count = out.writeTo(to);
        if (count === -EAGAIN) assert.ok(into.readFrom(from) > 0);
        else counts.push(count);
      }
      assert.is(counts[0], 64 * size);
      while (into.readFrom(from) > 0);
      assert.ok(bytes.equals(into.remove(bytes.length)));
    });
});

test('a write with sendmsg and a write of one piece do the same', () => {
  const bytes = pattern(40_000);
  withEnds(sys.socketPair(), (from, to) => {
    const kinds = [
      () => new EvBuffer().add(bytes),
      () => new EvBuffer().addReference(bytes),
      () => new EvBuffer().add(bytes.subarray(0, 100)).addReference(bytes.subarray(100)),
      () => new EvBuffer().addReference(bytes.subarray(0, 9)).addReference(bytes.subarray(9)),
    ];
    for (const kind of kinds)
      for (const max of [1, 8, 10, 100, 101, 39_999, 40_000])
        for (const socket of [true, false]) {
          const out = kind();
          assert.is(out._writeTo(to, max, socket), max);
          const into = new EvBuffer();
          assert.is(into.readFrom(from), max);
          assert.ok(bytes.subarray(0, max).equals(into.remove(max)));
          assert.ok(bytes.subarray(max).equals(out.remove(40_000)));
        }
  });
});

test('what is only passing through a slab leaves nothing in it', () => {
  withEnds(sys.socketPair(), (from, to) => {
    const kept = new EvBuffer().add('kept');
    const { live, used } = slabUse();
    assert.is(filled('ab', 'cd', 'ef').writeTo(to), 6);
    assert.equal([slabUse().live, slabUse().used], [live, used]);
    assert.is(textOf(kept), 'kept');
    kept.close();
    assert.is(new EvBuffer().readFrom(from), 6);
  });
});

test('a file is written to and read back', () => {
  const path = fileOf('');
  const file = openSync(path, 'r+');
  assert.is(filled('one ', 'two').writeTo(file), 7);
  assert.is(new EvBuffer().add(' three').writeTo(file), 6);
  assert.is(readFileSync(path, 'utf8'), 'one two three');
  closeSync(file);
});

test('a file’s part is sent to a socket, between what is before it and behind it', () => {
  const bytes = pattern(300_000);
  withEnds(sys.socketPair(), (from, to) => {
    const out = new EvBuffer().add('head').addFile(openFile(bytes), 1_000, 250_000).add('tail');
    const into = new EvBuffer();
    const counts: number[] = [];
    while (out.length > 0) {
      const count = out.writeTo(to);
      if (count === -EAGAIN) assert.ok(into.readFrom(from) > 0);
      else counts.push(count);
    }
    while (into.readFrom(from) > 0);
    // The head in a call of its own, then the file.
    assert.is(counts[0], 4);
    assert.is(textOf(into).slice(0, 4), 'head');
    into.drain(4);
    assert.ok(bytes.subarray(1_000, 251_000).equals(into.remove(250_000)));
    assert.is(textOf(into), 'tail');
  });
});

test('sendfile obeys the limit of the call', () => {
  withEnds(sys.socketPair(), (from, to) => {
    const out = new EvBuffer().addFile(openFile('0123456789'));
    const into = new EvBuffer();
    for (const max of [1, 3, 4]) assert.is(out.writeTo(to, max), max);
    assert.is(out.length, 2);
    into.readFrom(from);
    assert.is(textOf(into), '01234567');
    out.close();
  });
});

test('a descriptor that is full takes nothing of a file, and later the rest', () => {
  withEnds(sys.socketPair(), (from, to) => {
    while (filled('x'.repeat(100_000)).writeTo(to) > 0);
    const out = new EvBuffer().addFile(openFile('file'));
    assert.is(out.writeTo(to), -EAGAIN);
    assert.is(out.length, 4);
    const into = new EvBuffer();
    while (into.readFrom(from) > 0) into.drain(into.length);
    assert.is(out.writeTo(to), 4);
    into.readFrom(from);
    assert.is(textOf(into), 'file');
    out.addFile(openFile('more'));
    sys.close(from);
    assert.is(out.writeTo(to), -EPIPE);
    out.close();
  });
});

test('where sendfile says EINVAL the file is read and written', () => {
  // sendfile(2): the output must not have O_APPEND.
  const bytes = pattern(200_000);
  const path = fileOf('');
  const to = openSync(path, 'a');
  const out = new EvBuffer().addFile(openFile(bytes)).add('end');
  let calls = 0;
  while (out.length > 0) {
    assert.ok(out.writeTo(to) > 0);
    calls++;
  }
  assert.ok(calls >= 4, String(calls));
  closeSync(to);
  const written = readFileSync(path);
  assert.ok(bytes.equals(written.subarray(0, 200_000)));
  assert.is(written.toString('latin1', 200_000), 'end');
});

test('a file that cannot be read at a position is an error that names the call', () => {
  withEnds(sys.pipe(), (from, to) => {
    const buffer = new EvBuffer().addFile(sys.dup(from), 0, 10);
    for (const use of [() => buffer.remove(5), () => buffer.peek(), () => buffer.writeTo(to)]) {
      try {
        use();
        assert.unreachable('a pipe has no positions');
      } catch (error) {
        const { errno, syscall } = error as NodeJS.ErrnoException;
        assert.equal([errno, syscall], [-ESPIPE, 'pread']);
      }
    }
    assert.is(buffer.length, 10);
    buffer.close();
  });
});

test('no descriptor is left', () => assertNoneLeft(before));

test.run();
