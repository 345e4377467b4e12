// Listeners: raw descriptors of new connections, from every kind of socket, also when the process
// runs out of descriptors.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type Address,
  Ev,
  EventBase,
  Listener,
  type ListenOptions,
  LoopFlag,
  sys,
} from '../../src/index.js';
import { native } from '../../src/native.js';
import { beside, isPortable, withoutNesting } from '../machine.js';
import { type Ended, runChild } from './child.js';
import { asynchronous, behaviour, type Trial } from './conformance.js';
import { runTraced, type Traced, withStrace } from './strace.js';
import { assertNoneLeft, openDescriptors, thrownBy } from './support.js';

const folder = mkdtempSync(join(tmpdir(), 'multiloop-listener-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
// With the first of its streams libuv opens a descriptor in reserve.
createServer().listen(0).close();
let paths = 0;
const freshPath = () => join(folder, `${++paths}.sock`);
const hasV6 = Object.values(networkInterfaces()).some((all) =>
  all?.some(({ address }) => address === '::1'),
);

const none = new Uint8Array(0);

interface Accepted {
  fd: number;
  peer: Address | undefined;
}

/** A listener whose connections can be awaited one by one. */
class Door {
  readonly base: EventBase;
  readonly listener: Listener;
  readonly accepted: Accepted[] = [];
  #arrived: (() => void) | undefined;
  readonly #loop: Promise<unknown>;
  readonly #sockets: Socket[] = [];

  constructor(base: EventBase, options: ListenOptions = {}) {
    this.base = base;
    this.listener = new Listener(base, options, (fd, peer) => {
      this.accepted.push({ fd, peer });
      this.#arrived?.();
    });
    this.#loop = base.loop(LoopFlag.NO_EXIT_ON_EMPTY);
  }

  get port(): number {
    return (this.listener.address as { port: number }).port;
  }

  /** A connected socket of Node's. */
  async connect(...to: [port: number, host: string] | [path: string]): Promise<Socket> {
    const socket = connect(...(to as [number, string]));
    this.#sockets.push(socket);
    await once(socket, 'connect');
    return socket;
  }

  async until(count: number): Promise<Accepted[]> {
    while (this.accepted.length < count)
      await new Promise<void>((resolve) => {
        this.#arrived = resolve;
      });
    return this.accepted;
  }

  async close(): Promise<void> {
    this.listener.close();
    for (const { fd } of this.accepted) sys.close(fd);
    const gone = this.#sockets.filter((socket) => !socket.closed).map((one) => once(one, 'close'));
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(gone);
    this.base.close();
    await this.#loop;
    await turn();
  }
}

/** A line goes from the client to the descriptor and back. */
async function echo(socket: Socket, fd: number, base: EventBase): Promise<void> {
  socket.write('there and back');
  await base.wait(fd, 2);
  const bytes = Buffer.alloc(64);
  const count = sys.read(fd, bytes);
  assert.is(sys.write(fd, bytes, 0, count), count);
  assert.is(String((await once(socket, 'data'))[0]), 'there and back');
}

/** What only Linux has, and a portable build leaves out. */
const onlyLinux = isPortable ? 'this build is portable' : undefined;

/** Registers `body` with a door on each backend and drive. */
function listening(
  name: string,
  options: (() => ListenOptions) | ListenOptions,
  body: (door: Door, trial: Trial) => Promise<void>,
  lacking: string | undefined = undefined,
): void {
  if (lacking !== undefined) {
    test.skip(`${lacking}: ${name}`, () => undefined);
    return;
  }
  behaviour(
    name,
    async (t) => {
      const door = new Door(t.base(), typeof options === 'function' ? options() : options);
      try {
        await body(door, t);
      } finally {
        await door.close();
      }
    },
    asynchronous,
  );
}

// ── kinds of sockets ────────────────────────────────────────────────────────────────────────────

listening('a connection over IPv4 is accepted, with its peer', {}, async (door) => {
  assert.equal({ ...door.listener.address, port: 0 }, { host: '127.0.0.1', port: 0, family: 4 });
  assert.ok(door.port > 0);
  const socket = await door.connect(door.port, '127.0.0.1');
  const [{ fd, peer }] = await door.until(1);
  assert.equal(peer, { host: '127.0.0.1', port: socket.localPort, family: 4 });
  const flags = Number.parseInt(
    readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8').match(/^flags:\s*(\d+)/m)?.[1] ?? '',
    8,
  );
  assert.is(flags & 0o2004000, 0o2004000, 'it neither blocks nor outlives an exec');
  await echo(socket, fd, door.base);
});

if (hasV6) {
  listening('a connection over IPv6 is accepted, with its peer', { host: '::1' }, async (door) => {
    assert.equal({ ...door.listener.address, port: 0 }, { host: '::1', port: 0, family: 6 });
    const socket = await door.connect(door.port, '::1');
    const [{ fd, peer }] = await door.until(1);
    assert.equal(peer, { host: '::1', port: socket.localPort, family: 6 });
    await echo(socket, fd, door.base);
  });

  listening('an IPv6 listener takes IPv4 too', { host: '::' }, async (door) => {
    const socket = await door.connect(door.port, '127.0.0.1');
    const [{ peer }] = await door.until(1);
    assert.equal(peer, { host: '::ffff:127.0.0.1', port: socket.localPort, family: 6 });
  });

  listening('unless it is told not to', { host: '::', ipv6Only: true }, async (door) => {
    const refused = connect(door.port, '127.0.0.1');
    const [error] = await once(refused, 'error');
    assert.is(error.code, 'ECONNREFUSED');
    await door.connect(door.port, '::1');
    await door.until(1);
  });
}

listening(
  'a connection over a unix path is accepted, without a peer’s name',
  () => ({ path: freshPath() }),
  async (door) => {
    const { path } = door.listener.address as { path: string };
    assert.is(path, join(folder, `${paths}.sock`));
    const socket = await door.connect(path);
    const [{ fd, peer }] = await door.until(1);
    assert.is(peer, undefined);
    await echo(socket, fd, door.base);
    door.listener.close();
    assert.is(existsSync(path), false, 'the path is free again');
  },
);

listening(
  'a connection over an abstract name is accepted',
  () => ({ path: `@multiloop-${process.pid}-${++paths}` }),
  async (door) => {
    const name = `multiloop-${process.pid}-${paths}`;
    assert.equal(door.listener.address, { path: `@${name}` });
    // Node 20 pads such names with zeros, so the client is not one of Node's.
    const lines = [
      'import socket',
      'client = socket.socket(socket.AF_UNIX)',
      `client.connect('\\0${name}')`,
      "print(client.recv(64).decode(), end='')",
    ];
    const client = spawn('python3', ['-c', lines.join('\n')]);
    const [{ fd, peer }] = await door.until(1);
    assert.is(peer, undefined);
    assert.is(sys.write(fd, Buffer.from('to a name')), 9);
    assert.is(String((await once(client.stdout, 'data'))[0]), 'to a name');
    await once(client, 'close');
  },
  onlyLinux,
);

if (isPortable)
  behaviour('an abstract name is refused where there are none', (t) => {
    for (const path of ['@multiloop', '\0multiloop']) {
      const error = thrownBy(() => new Listener(t.base(), { path }, () => undefined));
      assert.is(error.code, 'ENOTSUP');
      assert.is(error.syscall, 'bind');
    }
  });

listening(
  'a NUL in front makes an abstract name too',
  () => ({ path: `\0multiloop-${process.pid}-${++paths}` }),
  async (door) => {
    assert.equal(door.listener.address, { path: `@multiloop-${process.pid}-${paths}` });
  },
  onlyLinux,
);

listening(
  'a socket that listens already is adopted, and closed with the listener',
  () => ({ fd: native.sockListen(0, '127.0.0.1', 0, 16, false, false, false) as number }),
  async (door) => {
    const socket = await door.connect(door.port, '127.0.0.1');
    const [{ fd }] = await door.until(1);
    await echo(socket, fd, door.base);
    const own = door.listener.fd;
    const flags = readFileSync(`/proc/self/fdinfo/${own}`, 'utf8').match(/^flags:\s*(\d+)/m);
    const bits = Number.parseInt(flags?.[1] ?? '', 8) & 0o2004000;
    assert.is(bits, 0o2004000, 'it neither blocks nor outlives an exec');
    door.listener.close();
    assert.is(sys.close(own), -9);
  },
);

listening('reusePort lets two listeners share a port', { reusePort: true }, async (door) => {
  const other = new Listener(door.base, { port: door.port, reusePort: true }, () => undefined);
  assert.equal(other.address, door.listener.address);
  other.close();
});

listening(
  'deferAccept waits for the first bytes',
  { deferAccept: true },
  async (door) => {
    const socket = await door.connect(door.port, '127.0.0.1');
    await door.base.wait(-1, 0, { timeout: 20 });
    assert.is(door.accepted.length, 0);
    socket.write('first');
    const [{ fd }] = await door.until(1);
    assert.is(sys.read(fd, Buffer.alloc(16)), 5);
  },
  onlyLinux,
);

listening('deferAccept is a hint: bytes come either way', { deferAccept: true }, async (door) => {
  const socket = await door.connect(door.port, '127.0.0.1');
  socket.write('first');
  const [{ fd }] = await door.until(1);
  await door.base.wait(fd, Ev.READ);
  assert.is(sys.read(fd, Buffer.alloc(16)), 5);
});

listening('a port is free again at once', {}, async (door) => {
  const { port } = door;
  const socket = await door.connect(port, '127.0.0.1');
  const [{ fd }] = await door.until(1);
  // Who closes first has the port in TIME_WAIT, which forbids it to others.
  assert.is(sys.close(fd), 0);
  door.accepted.length = 0;
  await once(socket.resume(), 'close');
  door.listener.close();
  const next = new Listener(door.base, { port }, () => undefined);
  assert.is((next.address as { port: number }).port, port);
  next.close();
});

// ── what goes wrong ─────────────────────────────────────────────────────────────────────────────

test('a port in use answers with the error that Node gives', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const [nodes] = await once(createServer().listen(port, '127.0.0.1'), 'error').catch((e) => [e]);
  const before = openDescriptors();
  using base = new EventBase({ backend: 'poll' });
  const error = thrownBy(() => new Listener(base, { port }, () => undefined));
  assertNoneLeft(before);
  assert.is(error.code, 'EADDRINUSE');
  assert.is(error.syscall, 'bind');
  for (const key of ['code', 'errno', 'address', 'port'] as const)
    assert.is((error as never)[key], nodes[key], key);
  assert.is(error.message, `bind EADDRINUSE: address already in use 127.0.0.1:${port}`);
  server.close();
  await once(server, 'close');
});

test('a path in use or out of reach answers with the error and the path', () => {
  using base = new EventBase();
  const path = freshPath();
  using first = new Listener(base, { path }, () => undefined);
  assert.equal(first.address, { path });
  const cases: [string, string][] = [
    [path, 'EADDRINUSE'],
    [join(folder, 'no/such/folder'), 'ENOENT'],
    [join(folder, 'x'.repeat(200)), 'ENAMETOOLONG'],
  ];
  for (const [where, code] of cases) {
    const error = thrownBy(() => new Listener(base, { path: where }, () => undefined));
    assert.equal(
      [error.code, error.syscall, (error as { address?: string }).address],
      [code, 'bind', where],
    );
  }
  assert.is(existsSync(path), true, 'the first one still has its path');
});

test('an address that is not here answers EADDRNOTAVAIL', () => {
  using base = new EventBase();
  const error = thrownBy(() => new Listener(base, { host: '192.0.2.1', port: 1 }, () => undefined));
  assert.equal([error.code, error.syscall], ['EADDRNOTAVAIL', 'bind']);
});

test('what is no socket to listen on is refused, and stays its maker’s', () => {
  using base = new EventBase();
  const [a, b] = sys.socketPair();
  const [pipe, other] = sys.pipe();
  const datagram = native.datagramOpen(4, none, none, false, false, -1) as number;
  const unbound = native.datagramOpen(4, none, none, false, false, -1) as number;
  assert.is(sys.close(unbound), 0);
  const cases: [fd: number, code: string, message: RegExp][] = [
    [a, 'ERR_INVALID_ARG_VALUE', /"listen.fd" must be a socket to listen on; .* is a connection/],
    [datagram, 'ERR_INVALID_ARG_VALUE', /descriptor \d+ is not a stream socket/],
    [pipe, 'ENOTSOCK', /getsockopt ENOTSOCK: .*: descriptor \d+/],
    [unbound, 'EBADF', /getsockopt EBADF: .*: descriptor \d+/],
  ];
  for (const [fd, code, message] of cases) {
    const error = thrownBy(() => new Listener(base, { fd }, () => undefined));
    assert.is(error.code, code);
    assert.match(error.message, message);
  }
  for (const fd of [a, b, pipe, other, datagram]) assert.is(sys.close(fd), 0, 'it is still open');
});

test('evconnlistener_new: a socket that is bound only is made to listen, one that is not is refused', async () => {
  // Node has no way to bind without listening.
  const lines = [
    'import os, socket, subprocess, sys',
    's = socket.socket()',
    'if sys.argv[1] != "unbound": s.bind(("127.0.0.1", 0))',
    'os.dup2(s.fileno(), 9)',
    'os.execvp(sys.argv[2], sys.argv[2:])',
  ];
  for (const what of ['bound', 'unbound']) {
    const { stdout, stderr } = await runChild(
      `import { connect } from 'node:net';
      const base = new EventBase();
      try {
        const listener = new Listener(base, { fd: 9 }, (fd) => {
          console.log('accepted', listener.fd);
          sys.close(fd);
          listener.close();
          socket.destroy();
        });
        const socket = connect(listener.address.port, '127.0.0.1');
        await base.dispatch();
      } catch (error) {
        console.log(error.message);
      }`,
      { shell: `set -- python3 -c '${lines.join('\n')}' ${what} "$@"` },
    );
    assert.is(stderr, '');
    assert.match(stdout, what === 'bound' ? /^accepted 9/ : /descriptor 9 is bound to no address/);
  }
});

test('a listener whose socket fails says so once, and tries again', async () => {
  const base = new EventBase();
  const seen: string[] = [];
  const listener = new Listener(
    base,
    {},
    () => undefined,
    (error) => seen.push(`${(error as NodeJS.ErrnoException).syscall} ${error.message}`),
  );
  // Somebody else closes its descriptor.
  assert.is(sys.close(listener.fd), 0);
  let rounds = 0;
  const poke = base.timer(
    () => {
      if (++rounds === 5) listener.close();
      else base.activateFd(listener.fd, Ev.READ);
    },
    { persist: true },
  );
  base.activateFd(listener.fd, Ev.READ);
  poke.add(60);
  base.timer(() => poke.free()).add(400);
  assert.is(await base.dispatch(), 'empty');
  assert.equal(seen, ['accept accept EBADF: bad file descriptor']);
  base.close();
});

test('without onError a failure is uncaught', async () => {
  const base = new EventBase();
  const caught: NodeJS.ErrnoException[] = [];
  const note = (error: Error) => {
    caught.push(error as NodeJS.ErrnoException);
    listener.close();
  };
  const listener = new Listener(base, {}, () => undefined);
  process.on('uncaughtException', note);
  assert.is(sys.close(listener.fd), 0);
  base.activateFd(listener.fd, Ev.READ);
  assert.is(await base.dispatch(), 'empty');
  process.off('uncaughtException', note);
  assert.equal(
    caught.map((error) => [error.code, error.syscall]),
    [['EBADF', 'accept']],
  );
  base.close();
  await turn();
});

test('a base that is closed, or none, opens no socket', () => {
  const base = new EventBase();
  base.close();
  const before = openDescriptors();
  assert.is(thrownBy(() => new Listener(base, {}, () => undefined)).code, 'ERR_BASE_CLOSED');
  for (const wrong of [undefined, null, {}, 5])
    assert.is(
      thrownBy(() => new Listener(wrong as never, {}, () => undefined)).code,
      'ERR_INVALID_ARG_TYPE',
    );
  assertNoneLeft(before);
});

listening('an exception of onAccept keeps no other connection out', {}, async (door) => {
  const caught: unknown[] = [];
  const handler = (error: unknown) => caught.push(error);
  process.on('uncaughtException', handler);
  const accepted = new Set<number>();
  const failure = new Error('the third is one too many');
  const other = new Listener(door.base, {}, (fd) => {
    accepted.add(fd);
    if (accepted.size === 3) throw failure;
  });
  const { port } = other.address as { port: number };
  other.pause();
  for (let i = 0; i < 8; i++) await door.connect(port, '127.0.0.1');
  other.resume();
  while (accepted.size < 8) await turn();
  process.off('uncaughtException', handler);
  assert.equal(caught, [failure]);
  for (const fd of accepted) sys.close(fd);
  other.close();
});

// ── pausing and closing ─────────────────────────────────────────────────────────────────────────

listening('a paused listener leaves connections with the kernel', {}, async (door) => {
  door.listener.pause();
  door.listener.pause();
  const socket = await door.connect(door.port, '127.0.0.1');
  await door.base.wait(-1, 0, { timeout: 10 });
  assert.is(door.accepted.length, 0);
  door.listener.resume();
  door.listener.resume();
  const [{ fd }] = await door.until(1);
  await echo(socket, fd, door.base);
});

listening('more connections than one pass takes are all accepted', {}, async (door) => {
  const count = 150;
  door.listener.pause();
  await Promise.all(Array.from({ length: count }, () => door.connect(door.port, '127.0.0.1')));
  let between = 0;
  const timer = door.base.timer(() => {
    between = door.accepted.length;
  });
  door.listener.resume();
  timer.add(0);
  await door.until(count);
  assert.is(door.accepted.length, count);
  assert.is(new Set(door.accepted.map(({ fd }) => fd)).size, count);
  assert.ok(between < count, 'another event had its turn meanwhile');
});

listening('closing in onAccept ends it there', {}, async (door) => {
  let accepted = 0;
  const other = new Listener(door.base, { backlog: 16 }, (fd) => {
    accepted++;
    sys.close(fd);
    other.close();
    other.close();
  });
  const { port } = other.address as { port: number };
  other.pause();
  const sockets = [];
  for (let i = 0; i < 4; i++) sockets.push(await door.connect(port, '127.0.0.1'));
  // Those that nobody takes are reset by the kernel.
  const closed = sockets.map((socket) => {
    socket.on('error', () => undefined);
    socket.resume();
    return new Promise((resolve) => socket.on('close', resolve));
  });
  other.resume();
  await Promise.all(closed);
  assert.is(accepted, 1);
});

behaviour(
  'a listener keeps a loop going, an unref’d one not the process',
  async (t) => {
    const base = t.base();
    const listener = new Listener(base, {}, () => undefined);
    const done = base.loop();
    assert.is(base.counts().added, 1);
    listener.unref();
    listener.ref();
    setTimeout(() => listener.close(), 2);
    assert.is(await done, 'empty');
  },
  asynchronous,
);

listening('onAccept and onError may change', {}, async (door) => {
  const seen: string[] = [];
  const other = new Listener(door.base, {}, (fd) => {
    sys.close(fd);
    seen.push('first');
    other.onAccept = (next) => {
      sys.close(next);
      seen.push('second');
      other.close();
    };
  });
  assert.is(other.base, door.base);
  const note = (error: Error) => seen.push(error.message);
  assert.is(other.onError, undefined);
  other.onError = note;
  assert.is(other.onError, note);
  const { port } = other.address as { port: number };
  for (const wrong of [undefined, null, 5]) {
    assert.is(
      thrownBy(() => {
        other.onAccept = wrong as never;
      }).code,
      'ERR_INVALID_ARG_TYPE',
    );
  }
  for (let i = 0; i < 2; i++) await door.connect(port, '127.0.0.1');
  while (!other.closed) await turn();
  assert.equal(seen, ['first', 'second']);
});

listening('pausing in onAccept leaves the others with the kernel', {}, async (door) => {
  const accepted: number[] = [];
  const other = new Listener(door.base, {}, (fd) => {
    accepted.push(fd);
    other.pause();
  });
  other.pause();
  const { port } = other.address as { port: number };
  for (let i = 0; i < 3; i++) await door.connect(port, '127.0.0.1');
  for (let count = 1; count <= 3; count++) {
    other.resume();
    while (accepted.length < count) await turn();
    await door.base.wait(-1, 0, { timeout: 0 });
    assert.is(accepted.length, count);
  }
  for (const fd of accepted) sys.close(fd);
  other[Symbol.dispose]();
  assert.is(other.closed, true);
});

listening(
  'closing the base in onAccept ends it there',
  {},
  async (door) => {
    const base = new EventBase({ backend: beside, drive: 'libuv' });
    let accepted = 0;
    const other = new Listener(base, {}, (fd) => {
      accepted++;
      sys.close(fd);
      base.close();
    });
    const { port } = other.address as { port: number };
    for (let i = 0; i < 3; i++) await door.connect(port, '127.0.0.1');
    assert.is(await base.dispatch(), 'stopped');
    await turn();
    assert.is(accepted, 1);
    other.close();
  },
  withoutNesting,
);

test('listeners that fail or close leave no descriptor', () => {
  using base = new EventBase();
  const before = openDescriptors();
  for (let i = 0; i < 50; i++) {
    using first = new Listener(base, {}, () => undefined);
    const { port } = first.address as { port: number };
    assert.is(thrownBy(() => new Listener(base, { port }, () => undefined)).code, 'EADDRINUSE');
  }
  assertNoneLeft(before);
});

// ── out of descriptors ──────────────────────────────────────────────────────────────────────────

/** A child with 48 descriptors, where a few clients wait that cannot be accepted. */
function starved(drive: string, lines: string): Promise<Ended> {
  return runChild(
    `
    import { once } from 'node:events';
    import { connect } from 'node:net';
    import { setTimeout as sleep } from 'node:timers/promises';
    const base = new EventBase({ drive: '${drive}' });
    const accepted = [];
    const errors = [];
    const listener = new Listener(base, {}, (fd) => accepted.push(fd), (e) => errors.push(e.code));
    const client = () => {
      // Half-open, so that its descriptor does not come back when it is refused.
      const socket = connect({ port: listener.address.port, allowHalfOpen: true });
      return socket.on('error', () => undefined).resume();
    };
    const sockets = Array.from({ length: 6 }, client);
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    const taken = [];
    const take = () => { for (let fd; (fd = sys.dup(0)) >= 0; ) taken.push(fd); };
    const give = () => { for (const fd of taken.splice(0)) sys.close(fd); };
    take();
    void base.loop(LoopFlag.NO_EXIT_ON_EMPTY);
    ${lines}
    process.exit();`,
    { shell: 'ulimit -n 48' },
  );
}

test('a shortage of descriptors that passes costs nobody a connection', async () => {
  for (const drive of ['base', 'libuv']) {
    const { stdout, stderr } = await starved(
      drive,
      `
      while (errors.length === 0) await sleep(1);
      give();
      while (accepted.length < 6) await sleep(1);
      const { exhausted, refused } = listener;
      console.log(JSON.stringify({ exhausted, refused, errors }));`,
    );
    assert.is(stderr, '');
    assert.equal(JSON.parse(stdout), { exhausted: 1, refused: 0, errors: ['EMFILE'] });
  }
});

test('out of descriptors, those who wait are told, nothing spins, and the listener lives on', async () => {
  for (const drive of ['base', 'libuv']) {
    const { stdout, stderr } = await starved(
      drive,
      `
      const gone = (all) => Promise.all(all.map((socket) => once(socket, 'end')));
      await gone(sockets);
      const first = { accepted: accepted.length, refused: listener.refused, errors: [...errors] };
      const [turns, attempts, cpu] = [base._turns, listener.exhausted, process.cpuUsage()];
      while (listener.exhausted < attempts + 3) await sleep(20);
      const { user, system } = process.cpuUsage(cpu);
      const idle = { turns: base._turns - turns, ms: (user + system) / 1000 };
      give();
      const served = client();
      while (accepted.length < 1) await sleep(1);
      // A second time is another episode.
      const late = client();
      await once(late, 'connect');
      while (accepted.length < 2) await sleep(1);
      listener.pause();
      const more = Array.from({ length: 3 }, client);
      await Promise.all(more.map((socket) => once(socket, 'connect')));
      take();
      listener.resume();
      await gone(more);
      const second = { accepted: accepted.length, refused: listener.refused, errors };
      console.log(JSON.stringify({ first, idle, second }));`,
    );
    assert.is(stderr, '');
    const { first, idle, second } = JSON.parse(stdout);
    assert.equal(first, { accepted: 0, refused: 6, errors: ['EMFILE'] });
    assert.equal(second, { accepted: 2, refused: 9, errors: ['EMFILE', 'EMFILE'] });
    // Three attempts, each in a turn of its own, and those of the timers that watch them.
    assert.ok(idle.turns < 100, `${idle.turns} turns in 300 ms`);
    assert.ok(idle.ms < 150, `${idle.ms} ms of 300 are used`);
  }
});

// ── what the kernel may say, injected ───────────────────────────────────────────────────────────

/** The call of the build. */
const acceptCall = isPortable ? 'accept' : 'accept4';

/** It is injected to fail with each error `times` times before a connection is accepted. */
function injected(error: string, times: number): Promise<Traced> {
  return runTraced(
    `
    import { connect } from 'node:net';
    const base = new EventBase({ backend: 'poll', drive: 'base' });
    const errors = [];
    const listener = new Listener(base, {}, (fd) => {
      console.log(JSON.stringify({ errors, exhausted: listener.exhausted }));
      sys.close(fd);
      socket.destroy();
      listener.close();
    }, (e) => errors.push(e.code));
    const socket = connect(listener.address.port, '127.0.0.1').on('error', () => undefined);
    await base.dispatch();`,
    `-e trace=${acceptCall} -e inject=${acceptCall}:error=${error}:when=1..${times}`,
  );
}

const ofOneConnection = ['ECONNABORTED', 'EPROTO', 'EPERM', 'EHOSTUNREACH', 'EOPNOTSUPP'];
for (const error of [...ofOneConnection, 'ENETDOWN', 'ETIMEDOUT', 'EINTR'])
  withStrace(`${error} is of one connection, and passed over at once`, async () => {
    const { stdout, stderr, log } = await injected(error, 3);
    assert.is(stderr, '');
    assert.equal(JSON.parse(stdout), { errors: [], exhausted: 0 });
    assert.is(log.filter((line) => line.includes(`-1 ${error}`)).length, 3);
  });

withStrace('connections that fail one after another give others their turn', async () => {
  const { stdout, stderr } = await injected('ECONNABORTED', 500);
  assert.is(stderr, '');
  assert.equal(JSON.parse(stdout), { errors: [], exhausted: 0 });
});

for (const [error, exhausted] of [
  ['ENFILE', 1],
  ['EMFILE', 1],
  ['ENOBUFS', 0],
  ['ENOMEM', 0],
] as const)
  withStrace(`after ${error} accepting rests, and is tried again`, async () => {
    const { stdout, stderr } = await injected(error, 1);
    assert.is(stderr, '');
    assert.equal(JSON.parse(stdout), { errors: [error], exhausted });
  });

withStrace(
  'deferAccept is ignored where the kernel does not know it',
  async () => {
    const { stdout, stderr, log } = await runTraced(
      `const base = new EventBase();
    const listener = new Listener(base, { deferAccept: true }, () => undefined);
    console.log(listener.address.port > 0);
    listener.close();`,
      // The first one is SO_REUSEADDR.
      '-e trace=setsockopt -e inject=setsockopt:error=ENOPROTOOPT:when=2',
    );
    assert.equal([stdout, stderr], ['true\n', '']);
    assert.ok(log.some((line) => /TCP_DEFER_ACCEPT.*-1 ENOPROTOOPT/.test(line)));
  },
  onlyLinux,
);

withStrace('the backlog is 511, and nobody is made to keep connections alive', async () => {
  const { log, stderr } = await runTraced(
    `const base = new EventBase();
    for (const options of [{}, { backlog: 16 }, { host: '::1' }, { path: '${freshPath()}' }])
      new Listener(base, options, () => undefined).close();`,
    '-e trace=listen,setsockopt',
  );
  assert.is(stderr, '');
  const backlogs = log.flatMap((line) => line.match(/ listen\(\d+, (\d+)\)/)?.[1] ?? []);
  assert.equal(backlogs, ['511', '16', '511', '511']);
  assert.equal(
    log.filter((line) => line.includes('SO_KEEPALIVE')),
    [],
  );
});

test.run();
