// The thin system calls, with nothing but a kernel below them.

import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBase, Listener, sys } from '../../src/index.js';
import { runChild } from './child.js';
import { assertNoneLeft, codeOf, openDescriptors, thrownBy } from './support.js';

const EBADF = -9;
const EAGAIN = -11;
const EPIPE = -32;

function flagsOf(fd: number): number {
  const text = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
  return Number.parseInt(text.match(/^flags:\s*(\d+)/m)?.[1] ?? '', 8);
}
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

const bytes = (text: string) => Buffer.from(text);

function withPair(body: (a: number, b: number) => void, open = sys.socketPair): void {
  const before = openDescriptors();
  const ends = open();
  try {
    body(...ends);
  } finally {
    for (const fd of ends) sys.close(fd);
  }
  assertNoneLeft(before);
}

test('a socket pair is connected both ways', () => {
  withPair((a, b) => {
    const into = Buffer.alloc(16);
    assert.is(sys.write(a, bytes('to b')), 4);
    assert.is(sys.read(b, into), 4);
    assert.is(into.toString('latin1', 0, 4), 'to b');
    assert.is(sys.write(b, bytes('to a')), 4);
    assert.is(sys.read(a, into), 4);
    assert.is(into.toString('latin1', 0, 4), 'to a');
  });
});

test('a pipe is read from the first and written to the second', () => {
  withPair((reader, writer) => {
    const into = Buffer.alloc(16);
    assert.is(sys.write(writer, bytes('through')), 7);
    assert.is(sys.read(reader, into), 7);
    assert.is(sys.write(reader, bytes('x')), EBADF);
    assert.is(sys.read(writer, into), EBADF);
  }, sys.pipe);
});

test('what is made here does not block and does not outlive an exec', () => {
  for (const open of [sys.socketPair, sys.pipe])
    withPair((a, b) => {
      for (const fd of [a, b]) assert.is(flagsOf(fd) & (O_NONBLOCK | O_CLOEXEC), 0o2004000);
      assert.is(sys.read(a, Buffer.alloc(1)), EAGAIN);
      const copy = sys.dup(b);
      assert.is(flagsOf(copy) & (O_NONBLOCK | O_CLOEXEC), 0o2004000);
      assert.is(sys.close(copy), 0);
    }, open);
});

test('read and write take a part of the bytes', () => {
  withPair((a, b) => {
    assert.is(sys.write(a, bytes('0123456789'), 2, 5), 5);
    const into = Buffer.from('..........');
    assert.is(sys.read(b, into, 3, 2), 2);
    assert.is(into.toString(), '...23.....');
    assert.is(sys.read(b, into, 9), 1);
    assert.is(into.toString(), '...23....4');
    assert.is(sys.read(b, into), 2);
    assert.is(into.toString(), '56.23....4');
    assert.is(sys.write(a, bytes('0123456789'), 8), 2);
    assert.is(sys.write(a, bytes('0123456789'), 10), 0);
    assert.is(sys.read(b, into, 10), 0);
    assert.is(sys.write(a, bytes(''), 0, 0), 0);
  });
});

test('a view of shared or larger memory is written from where it begins', () => {
  withPair((a, b) => {
    const whole = new SharedArrayBuffer(64);
    const view = new Uint8Array(whole, 16, 4);
    view.set(bytes('view'));
    assert.is(sys.write(a, view), 4);
    assert.is(sys.read(b, new Uint8Array(whole, 32, 8), 1), 4);
    assert.is(Buffer.from(whole, 33, 4).toString(), 'view');
  });
});

test('the end of a stream is 0, a full pipe EAGAIN, a pipe without a reader EPIPE', () => {
  withPair((reader, writer) => {
    const block = Buffer.alloc(65_536);
    let written = 0;
    for (let n = sys.write(writer, block); n > 0; n = sys.write(writer, block)) written += n;
    assert.ok(written >= block.length);
    assert.is(sys.write(writer, block), EAGAIN);
    assert.is(sys.close(reader), 0);
    // No signal comes with it: this process is still here.
    assert.is(sys.write(writer, block), EPIPE);
    // Its number is taken again, so that the pair can be closed as it was opened.
    assert.is(sys.dup(writer), reader);
  }, sys.pipe);
  withPair((a, b) => {
    const copy = sys.dup(b);
    sys.close(a);
    assert.is(sys.read(copy, Buffer.alloc(1)), 0);
    assert.is(sys.dup(copy), a);
    sys.close(copy);
  });
});

test('dup answers another number for the same thing', () => {
  withPair((a, b) => {
    const copy = sys.dup(a);
    assert.ok(copy !== a && copy > 2);
    assert.is(sys.close(copy), 0);
    assert.is(sys.write(a, bytes('x')), 1);
    assert.is(sys.read(b, Buffer.alloc(1)), 1);
  });
});

test('setNonBlocking and setCloseOnExec are for a descriptor from elsewhere', async () => {
  const { stdout, stderr } = await runChild(
    `
    import { readFileSync } from 'node:fs';
    const flags = () =>
      parseInt(readFileSync('/proc/self/fdinfo/7', 'utf8').match(/^flags:\\s*(\\d+)/m)[1], 8);
    const tell = () => console.log(flags() & ${O_NONBLOCK}, flags() & ${O_CLOEXEC});
    tell();
    console.log(sys.setNonBlocking(7));
    tell();
    console.log(sys.setCloseOnExec(7));
    tell();`,
    { shell: 'exec 7</dev/null' },
  );
  // Node has set the second flag itself, of all that it inherited.
  const told = [`0 ${O_CLOEXEC}`, '0', `${O_NONBLOCK} ${O_CLOEXEC}`, '0'];
  told.push(told[2]);
  assert.is(stdout + stderr, `${told.join('\n')}\n`);
});

test('setKeepAlive starts the probes of a connection after so many seconds, or ends them', async () => {
  const base = new EventBase();
  const accepted: number[] = [];
  const listener = new Listener(base, {}, (fd) => {
    accepted.push(fd);
    base.loopBreak();
  });
  const { port } = listener.address as { port: number };
  const client = connect(port, '127.0.0.1');
  await base.loop();
  const [fd] = accepted;
  // The kernel's list of timers: 02 is keep-alive's, in hundredths of a second.
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const timer = () => {
    const lines = readFileSync('/proc/net/tcp', 'utf8').split('\n');
    const words = lines.map((line) => line.trim().split(/\s+/));
    const [kind, when] =
      words.find((one) => one[1] === local && one[3] === '01')?.[5].split(':') ?? [];
    return kind === '02' ? Math.ceil(Number.parseInt(when, 16) / 100) : 0;
  };
  assert.is(timer(), 0);
  assert.is(sys.setKeepAlive(fd, 3000), 0);
  assert.ok(timer() > 2900 && timer() <= 3001, `in ${timer()} s`);
  assert.is(sys.setKeepAlive(fd, 0), 0);
  assert.is(timer(), 0);
  client.destroy();
  base.close();
  assert.is(sys.close(fd), 0);
});

test('what cannot be set on a descriptor is answered with -errno', () => {
  withPair((reader) => {
    assert.is(sys.setKeepAlive(reader, 5), -88, 'ENOTSOCK');
  }, sys.pipe);
  for (const call of [
    sys.setNonBlocking,
    sys.setCloseOnExec,
    (fd: number) => sys.setKeepAlive(fd, 1),
  ]) {
    assert.is(call(2 ** 31 - 1), EBADF);
    for (const wrong of ['0', null, undefined])
      assert.is(
        codeOf(() => call(wrong as never)),
        'ERR_INVALID_ARG_TYPE',
      );
    assert.is(
      codeOf(() => call(-1)),
      'ERR_OUT_OF_RANGE',
    );
  }
  for (const seconds of [-1, 0.5, 32_768, Number.NaN])
    assert.is(
      codeOf(() => sys.setKeepAlive(0, seconds)),
      'ERR_OUT_OF_RANGE',
    );
  assert.is(
    codeOf(() => sys.setKeepAlive(0, '5' as never)),
    'ERR_INVALID_ARG_TYPE',
  );
});

test('a number that is not open is answered with EBADF', () => {
  const [a, b] = sys.pipe();
  assert.is(sys.close(a), 0);
  assert.is(sys.close(b), 0);
  for (const answer of [
    sys.close(a),
    sys.dup(a),
    sys.read(a, Buffer.alloc(1)),
    sys.write(a, Buffer.alloc(1)),
    sys.close(2 ** 31 - 1),
  ])
    assert.is(answer, EBADF);
});

test('socketPair and pipe throw what the kernel says', async () => {
  const { stdout, stderr } = await runChild(
    `
    while (sys.dup(0) >= 0);
    for (const open of [sys.socketPair, sys.pipe]) {
      try {
        open();
      } catch ({ code, errno, syscall, message }) {
        process.stdout.write([code, errno, syscall, message].join('; ') + '\\n');
      }
    }`,
    { shell: 'ulimit -n 64' },
  );
  const lines = ['socketpair', 'pipe2'].map(
    (name) => `EMFILE; -24; ${name}; ${name} EMFILE: too many open files\n`,
  );
  assert.is(stdout + stderr, lines.join(''));
});

test('arguments that make no sense are refused before the kernel sees them', () => {
  withPair((a) => {
    const into = Buffer.alloc(8);
    for (const call of [sys.read, sys.write]) {
      for (const bad of ['text', null, undefined, [1], new ArrayBuffer(8), new Uint16Array(4)])
        assert.is(
          codeOf(() => call(a, bad as never)),
          'ERR_INVALID_ARG_TYPE',
        );
      for (const fd of ['0', null, undefined, {}, 1n])
        assert.is(
          codeOf(() => call(fd as never, into)),
          'ERR_INVALID_ARG_TYPE',
        );
      for (const fd of [-1, 0.5, Number.NaN, 2 ** 31])
        assert.is(
          codeOf(() => call(fd, into)),
          'ERR_OUT_OF_RANGE',
        );
      for (const [offset, length] of [[-1], [9], [0.5], [0, 9], [4, 5], [8, 1], [0, -1]])
        assert.is(
          codeOf(() => call(a, into, offset, length)),
          'ERR_OUT_OF_RANGE',
        );
      assert.is(
        codeOf(() => call(a, into, '1' as never)),
        'ERR_INVALID_ARG_TYPE',
      );
      assert.is(
        codeOf(() => call(a, into, 0, '1' as never)),
        'ERR_INVALID_ARG_TYPE',
      );
    }
    for (const call of [sys.close, sys.dup]) {
      assert.is(
        codeOf(() => call('0' as never)),
        'ERR_INVALID_ARG_TYPE',
      );
      assert.is(
        codeOf(() => call(-1)),
        'ERR_OUT_OF_RANGE',
      );
    }
    assert.match(thrownBy(() => sys.read(a, 'text' as never)).message, /instance of Uint8Array/);
  });
});

test.run();
