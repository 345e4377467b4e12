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
import { isPortable } from '../machine.js';
import { runChild } from './child.js';
import { asynchronous, behaviour, type Trial } from './conformance.js';
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

/** Registers `body` with a door on each backend and drive. */
/** What only Linux has, and a portable build leaves out. */
const onlyLinux = isPortable ? 'this build is portable' : undefined;

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
  'a socket that listens already is adopted, and closed with the listener',
  () => ({ fd: native.sockListen(0, '127.0.0.1', 0, 16, false, false, false) as number }),
  async (door) => {
    const socket = await door.connect(door.port, '127.0.0.1');
    const [{ fd }] = await door.until(1);
    await echo(socket, fd, door.base);
    const own = door.listener.fd;
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

test('a socket that does not listen is onError’s, or uncaught', async () => {
  for (const handled of [true, false]) {
    const [a, b] = sys.socketPair();
    const base = new EventBase();
    const seen: NodeJS.ErrnoException[] = [];
    const note = (error: Error) => {
      seen.push(error as NodeJS.ErrnoException);
      listener.close();
    };
    process.on('uncaughtException', note);
    const listener = new Listener(base, { fd: a }, () => undefined, handled ? note : undefined);
    sys.write(b, Buffer.from('x'));
    assert.is(await base.dispatch(), 'empty');
    process.off('uncaughtException', note);
    assert.equal(
      seen.map((error) => [error.code, error.syscall]),
      [['EINVAL', 'accept']],
    );
    sys.close(b);
    base.close();
    await turn();
  }
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

// ── out of descriptors ──────────────────────────────────────────────────────────────────────────

test('out of descriptors, accepting pauses without spinning and recovers', async () => {
  for (const drive of ['base', 'libuv']) {
    const { stdout, stderr } = await runChild(
      `
      import { once } from 'node:events';
      import { connect } from 'node:net';
      import { setTimeout as sleep } from 'node:timers/promises';
      const base = new EventBase({ drive: '${drive}' });
      const accepted = [];
      const listener = new Listener(base, {}, (fd) => accepted.push(fd), console.error);
      const sockets = Array.from({ length: 5 }, () => connect(listener.address.port, '127.0.0.1'));
      await Promise.all(sockets.map((socket) => once(socket, 'connect')));
      const taken = [];
      for (let fd = sys.dup(0); fd >= 0; fd = sys.dup(0)) taken.push(fd);
      sys.close(taken.pop());
      void base.dispatch();
      await sleep(50);
      const [turns, before] = [base._turns, process.cpuUsage()];
      await sleep(250);
      const { user, system } = process.cpuUsage(before);
      const paused = {
        accepted: accepted.length,
        exhausted: listener.exhausted,
        turns: base._turns - turns,
        ms: (user + system) / 1000,
      };
      for (const fd of taken) sys.close(fd);
      while (accepted.length < 5) await sleep(1);
      for (const socket of sockets) socket.destroy();
      console.log(JSON.stringify(paused));
      process.exit();`,
      { shell: 'ulimit -n 48' },
    );
    assert.is(stderr, '');
    const { accepted, exhausted, turns, ms } = JSON.parse(stdout);
    assert.is(accepted, 1, 'there was room for one');
    assert.ok(exhausted >= 2 && exhausted <= 5, `${exhausted} attempts in 300 ms`);
    assert.ok(turns < 400, `${turns} turns in 250 ms`);
    assert.ok(ms < 100, `${ms} ms of 250 are used`);
  }
});

test.run();
