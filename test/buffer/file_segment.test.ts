// Parts of files in buffers: who has them, when they are read, and who closes the descriptor.

import { closeSync, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EvBuffer, FileSegment, sys } from '../../src/index.js';
import { assertNoneLeft, codeOf, gatheringUncaught, openDescriptors } from '../event/support.js';
import { isPortable } from '../machine.js';
import { testWhere } from '../where.js';
import { fileOf, openFile, textOf } from './support.js';

const before = openDescriptors();
const { EAGAIN } = constants.errno;
const withoutSendfile = isPortable ? 'this build is portable' : undefined;

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}

test('evbuffer_file_segment_new: a part, or all from an offset on', () => {
  const fd = openFile('0123456789');
  const parts: [offset: number | undefined, length: number | undefined, text: string][] = [
    [undefined, undefined, '0123456789'],
    [3, undefined, '3456789'],
    [3, -1, '3456789'],
    [3, 4, '3456'],
    [10, -1, ''],
    [100, -1, ''],
    [0, 0, ''],
  ];
  for (const [offset, length, text] of parts) {
    const segment = new FileSegment(fd, offset, length);
    assert.equal([segment.fd, segment.offset, segment.length], [fd, offset ?? 0, text.length]);
    assert.is(textOf(new EvBuffer().addFile(segment)), text);
    segment.close();
  }
  assert.ok(isOpen(fd));
  closeSync(fd);
});

test('evbuffer_add_file_segment: an offset is within the segment', () => {
  const fd = openFile('0123456789');
  const segment = new FileSegment(fd, 2, 6);
  const buffer = new EvBuffer();
  buffer.addFile(segment).add('|').addFile(segment, 1).add('|').addFile(segment, 1, 2);
  buffer.addFile(segment, 6).addFile(segment, 3, 0);
  assert.is(textOf(buffer), '234567|34567|34');
  for (const [offset, length] of [
    [7, -1],
    [0, 7],
    [6, 1],
    [-1, 1],
    [0, -2],
  ])
    assert.is(
      codeOf(() => buffer.addFile(segment, offset, length)),
      'ERR_OUT_OF_RANGE',
    );
  assert.is(buffer.length, 15);
  segment.close();
  closeSync(fd);
});

test('evbuffer_add_file: the descriptor is the buffer’s, and closed when its last byte is gone', () => {
  const fd = openFile('0123456789');
  const buffer = new EvBuffer().addFile(fd, 2, 5);
  buffer.drain(4);
  assert.ok(isOpen(fd));
  // It was read by nobody yet.
  buffer.drain(1);
  assert.not(isOpen(fd));
});

test('evbuffer_add_file: a descriptor is closed also when it is not added', () => {
  const frozen = new EvBuffer();
  frozen.freeze('back');
  const calls: [(fd: number) => unknown, code: string][] = [
    [(fd) => frozen.addFile(fd), 'ERR_BUFFER_FROZEN'],
    [(fd) => new EvBuffer().addFile(fd, -1), 'ERR_OUT_OF_RANGE'],
    [(fd) => new EvBuffer().addFile(fd, 0, -2), 'ERR_OUT_OF_RANGE'],
    [(fd) => new EvBuffer().addFile(fd, 0.5), 'ERR_OUT_OF_RANGE'],
    [(fd) => new EvBuffer().addFile(fd, '0' as never), 'ERR_INVALID_ARG_TYPE'],
    [(fd) => new EvBuffer().addFile(fd, 0, 2 ** 33), 'ERR_OUT_OF_RANGE'],
  ];
  for (const [call, code] of calls) {
    const fd = openFile('abc');
    assert.is(
      codeOf(() => call(fd)),
      code,
    );
    assert.not(isOpen(fd), String(call));
  }
  const empty = openFile('');
  assert.is(new EvBuffer().addFile(empty).length, 0);
  assert.not(isOpen(empty));
});

test('a number that is not open is what fstat says of it', () => {
  const fd = openFile('');
  closeSync(fd);
  assert.is(
    codeOf(() => new FileSegment(fd)),
    'EBADF',
  );
  assert.is(
    codeOf(() => new EvBuffer().addFile(fd)),
    'EBADF',
  );
});

test('closeFd closes once, when the segment and every buffer are done', () => {
  const fd = openFile('0123456789');
  const released: string[] = [];
  const segment = new FileSegment(fd, 0, -1, {
    closeFd: true,
    release: () => released.push(isOpen(fd) ? 'open' : 'closed'),
  });
  const [one, two, view] = [new EvBuffer(), new EvBuffer(), new EvBuffer()];
  one.addFile(segment).addFile(segment, 5);
  two.addFile(segment, 2, 3);
  view.addView(one);
  two.addBuffer(one, 4);
  assert.not(segment.disposed);
  segment.close();
  segment[Symbol.dispose]();
  assert.ok(segment.disposed);
  one.close();
  assert.is(textOf(two), '2340123');
  two.drain(7);
  assert.ok(isOpen(fd));
  assert.equal(released, []);
  assert.is(textOf(view), '012345678956789');
  view.close();
  assert.equal(released, ['closed']);
  // Whoever has the number now keeps it.
  const next = openFile('next');
  assert.is(next, fd);
  segment.close();
  view.close();
  assert.ok(isOpen(next));
  closeSync(next);
});

test('evbuffer_file_segment_add_cleanup_cb: called without closeFd too, and may throw', async () => {
  const fd = openFile('abc');
  await gatheringUncaught(async (caught) => {
    const segment = new FileSegment(fd, 0, -1, {
      release: () => {
        throw new Error('release');
      },
    });
    const buffer = new EvBuffer().addFile(segment);
    segment.close();
    assert.is(Buffer.from(buffer.remove(3)).toString(), 'abc');
    await new Promise(setImmediate);
    assert.equal(caught.map(String), ['Error: release']);
  });
  assert.ok(isOpen(fd));
  closeSync(fd);
});

test('a segment that was closed is put in no further buffer', () => {
  const fd = openFile('abc');
  const segment = new FileSegment(fd, 0, -1, { closeFd: true });
  const buffer = new EvBuffer().addFile(segment);
  segment.close();
  assert.is(
    codeOf(() => buffer.addFile(segment)),
    'ERR_SEGMENT_CLOSED',
  );
  // What is there may be seen and moved as ever.
  assert.is(textOf(new EvBuffer().addView(buffer)), 'abc');
  buffer.close();
});

test('a refused addition of a segment leaves it to its owner', () => {
  // libevent: the error path of evbuffer_add_file_segment drops a reference that is the caller's.
  const fd = openFile('abc');
  const segment = new FileSegment(fd, 0, -1, { closeFd: true });
  const frozen = new EvBuffer();
  frozen.freeze('back');
  for (let i = 0; i < 3; i++)
    assert.is(
      codeOf(() => frozen.addFile(segment)),
      'ERR_BUFFER_FROZEN',
    );
  assert.ok(isOpen(fd));
  frozen.unfreeze('back');
  assert.is(textOf(frozen.addFile(segment)), 'abc');
  segment.close();
  frozen.close();
  assert.not(isOpen(fd));
});

test('every way to the bytes reads them, where libevent has none', () => {
  const content = Buffer.alloc(200_000, 'abcdefghi\n');
  const uses: Record<string, (buffer: EvBuffer) => unknown> = {
    remove: (buffer) => Buffer.from(buffer.remove(200_002)).toString(),
    'remove a little': (buffer) => {
      let text = '';
      while (buffer.length > 0) text += Buffer.from(buffer.remove(777)).toString();
      return text;
    },
    copyOut: (buffer) => Buffer.from(buffer.copyOut(200_002)).toString(),
    'copyOut from everywhere': (buffer) => {
      let text = '';
      for (let at = 0; at < 200_002; at += 999)
        text += Buffer.from(buffer.copyOut(999, at)).toString();
      return text;
    },
    pullup: (buffer) => Buffer.from(buffer.pullup() as Uint8Array).toString(),
    'pullup of a little': (buffer) => {
      assert.is(buffer.pullup(11)?.length, 11);
      return textOf(buffer);
    },
    peek: (buffer) => Buffer.concat(buffer.peek()).toString(),
    'peek at the middle': (buffer) => {
      assert.is(Buffer.concat(buffer.peek(10, 150_001)).toString(), 'abcdefghi\n');
      return textOf(buffer);
    },
    readln: (buffer) => {
      let text = '';
      for (let line = buffer.readln(); line !== undefined; line = buffer.readln())
        text += `${line}\n`;
      return text + textOf(buffer);
    },
    'a part moved': (buffer) => {
      const other = new EvBuffer();
      other.addBuffer(buffer, 100_000);
      const text = textOf(other.addView(buffer));
      other.close();
      return text;
    },
  };
  for (const [name, use] of Object.entries(uses)) {
    const fd = openFile(content);
    const buffer = new EvBuffer().add('[').addFile(fd).add(']');
    assert.is(buffer.length, 200_002, name);
    assert.ok(use(buffer) === `[${content}]`, name);
    buffer.close();
    assert.not(isOpen(fd), name);
  }
});

test('what was read is not read again, and the descriptor is closed when all was', () => {
  const path = fileOf('0123456789');
  const fd = openSync(path, 'r');
  const buffer = new EvBuffer().addFile(fd);
  assert.is(buffer.contiguous, 0);
  const [memory] = buffer.peek();
  assert.not(isOpen(fd));
  assert.is(buffer.peek()[0].byteOffset, memory.byteOffset);
  assert.is(buffer.contiguous, 10);
  assert.is(textOf(buffer), '0123456789');
});

test('a file that has become shorter is an error, and drain gets rid of it', () => {
  const [from, to] = sys.socketPair();
  const uses: ((buffer: EvBuffer) => unknown)[] = [
    (buffer) => buffer.remove(10),
    (buffer) => buffer.copyOut(10),
    (buffer) => buffer.pullup(),
    (buffer) => buffer.peek(),
    (buffer) => buffer.readln('lf'),
    (buffer) => buffer.indexOf('x'),
  ];
  for (const use of uses) {
    const path = fileOf('0123456789');
    const buffer = new EvBuffer().add('a').addFile(openSync(path, 'r')).add('z');
    const changing = openSync(path, 'r+');
    ftruncateSync(changing, 4);
    closeSync(changing);
    let changes = 0;
    buffer.onChange(() => changes++);
    assert.is(
      codeOf(() => use(buffer)),
      'ERR_FILE_TRUNCATED',
      String(use),
    );
    assert.equal([buffer.length, changes], [12, 0]);
    assert.is(textOf(buffer.drain(11)), 'z');
  }
  // What is there is sent; the rest is missing.
  const path = fileOf('0123456789');
  const changing = openSync(path, 'r+');
  for (const sendfile of isPortable ? [false] : [true, false]) {
    const segment = new FileSegment(openSync(path, 'r'), 0, 10, { closeFd: true, sendfile });
    const buffer = new EvBuffer().addFile(segment);
    segment.close();
    ftruncateSync(changing, 4);
    if (sendfile) assert.is(buffer.writeTo(to), 4);
    assert.is(
      codeOf(() => buffer.writeTo(to)),
      'ERR_FILE_TRUNCATED',
    );
    assert.is(buffer.length, sendfile ? 6 : 10);
    buffer.close();
    writeSync(changing, '0123456789', 0);
  }
  closeSync(changing);
  const got = new EvBuffer();
  assert.is(got.readFrom(from), isPortable ? -EAGAIN : 4);
  sys.close(from);
  sys.close(to);
});

test('without sendfile the same bytes leave', () => {
  const [from, to] = sys.socketPair();
  const segment = new FileSegment(openFile('0123456789'), 0, -1, {
    closeFd: true,
    sendfile: false,
  });
  const out = new EvBuffer().addFile(segment, 1).addFile(segment, 0, 2);
  segment.close();
  const into = new EvBuffer();
  while (out.length > 0) {
    assert.ok(out.writeTo(to, 4) > 0);
    into.readFrom(from);
  }
  assert.is(textOf(into), '12345678901');
  sys.close(from);
  sys.close(to);
});

testWhere(withoutSendfile, 'what one descriptor refuses another is still sent', () => {
  const [from, to] = sys.socketPair();
  const appending = openSync(fileOf(''), 'a');
  const segment = new FileSegment(openFile('0123456789'), 0, -1, { closeFd: true });
  const [one, two] = [new EvBuffer().addFile(segment), new EvBuffer().addFile(segment)];
  segment.close();
  assert.is(one.writeTo(appending, 5), 5);
  // Sent by the kernel, it is not memory: nothing of it is contiguous.
  assert.is(two.writeTo(to, 4), 4);
  assert.is(two.contiguous, 0);
  assert.is(one.contiguous, 5);
  for (const fd of [from, to]) sys.close(fd);
  closeSync(appending);
  one.close();
  two.close();
});

test('no descriptor is left', () => assertNoneLeft(before));

test.run();
