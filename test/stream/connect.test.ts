// Connecting: addresses, paths, names with many addresses, and everything that can go wrong.

import dns, { type LookupAddress } from 'node:dns';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { syncBuiltinESMExports } from 'node:module';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type Address,
  BufferEvent,
  type ConnectOptions,
  Ev,
  EventBase,
  Listener,
  type ListenOptions,
  sys,
} from '../../src/index.js';
import { asynchronous, behaviour, type Trial } from '../event/conformance.js';
import { codeOf } from '../event/support.js';
import { isPortable } from '../machine.js';
import { Log, passes, until } from './streams.js';

const folder = mkdtempSync(join(tmpdir(), 'multiloop-connect-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
// With the first of its streams libuv opens a descriptor in reserve.
createServer().listen(0).close();
const hasV6 = Object.values(networkInterfaces()).some((all) =>
  all?.some(({ address }) => address === '::1'),
);

/** An echo server on the same base. */
class Echo {
  readonly listener: Listener;
  readonly streams: BufferEvent[] = [];
  constructor(base: EventBase, options: ListenOptions = { port: 0 }) {
    this.listener = new Listener(base, options, (fd) => {
      const handlers = {
        read: (bev: BufferEvent) => bev.write(bev.input),
        event: (bev: BufferEvent) => bev.close(),
      };
      this.streams.push(BufferEvent.socket(base, fd, { handlers }).enable(Ev.READ));
    });
  }
  get port(): number {
    return (this.listener.address as { port: number }).port;
  }
  close(): void {
    this.listener.close();
    for (const stream of this.streams) stream.close();
  }
}

const real = dns.lookup;
/** Makes names resolve as the test says; put back when it is over. */
async function resolving(
  answer: LookupAddress[] | Error | undefined,
  body: () => Promise<void>,
): Promise<void> {
  const fake = (_name: string, _options: object, callback: (...result: unknown[]) => void) => {
    if (answer instanceof Error) setImmediate(callback, answer);
    else if (answer !== undefined) setImmediate(callback, null, answer);
  };
  dns.lookup = fake as unknown as typeof dns.lookup;
  syncBuiltinESMExports();
  try {
    await body();
  } finally {
    dns.lookup = real;
    syncBuiltinESMExports();
  }
}

/** Connects, says hello, and answers when it has come back. */
async function talk(trial: Trial, base: EventBase, to: Address, options?: ConnectOptions) {
  const log = new Log();
  const bev = BufferEvent.connect(base, to, { handlers: log, ...options });
  bev.enable(Ev.READ).write('hello');
  assert.equal(log.lines, []);
  await until(trial, base, () => log.text === 'hello');
  assert.equal(log.lines, ['connected', 'read']);
  return bev;
}

/** What it was told when it could not connect. */
async function failure(trial: Trial, base: EventBase, to: Address, options?: ConnectOptions) {
  const log = new Log();
  const bev = BufferEvent.connect(base, to, { handlers: log, ...options });
  bev.enable(Ev.READ).write('lost');
  assert.equal(log.lines, [], 'nothing is told inside connect()');
  await until(trial, base, () => log.lines.length > 0);
  await passes(trial, base);
  assert.is(log.lines.length, 1, log.lines.join());
  assert.is(bev.enabled, 0);
  bev.close();
  return { line: log.lines[0], error: log.errors[0] };
}

behaviour('an IPv4 address', async (trial) => {
  const base = trial.base();
  const echo = new Echo(base);
  const bev = await talk(trial, base, { host: '127.0.0.1', port: echo.port });
  assert.equal(bev.remoteAddress, { host: '127.0.0.1', port: echo.port, family: 4 });
  assert.is((bev.localAddress as { host: string }).host, '127.0.0.1');
  bev.close();
  echo.close();
});

behaviour('an IPv6 address', async (trial) => {
  if (!hasV6) return;
  const base = trial.base();
  const echo = new Echo(base, { host: '::1' });
  const bev = await talk(trial, base, { host: '::1', port: echo.port });
  assert.is((bev.remoteAddress as { host: string }).host, '::1');
  bev.close();
  echo.close();
});

let paths = 0;
behaviour('a path of a unix socket, and an abstract name', async (trial) => {
  const base = trial.base();
  const name = `${process.pid}-${++paths}`;
  for (const path of [join(folder, name), `@multiloop-${name}`]) {
    // The abstract namespace is Linux's.
    if (path.startsWith('@') && (isPortable || process.platform !== 'linux')) continue;
    const echo = new Echo(base, { path });
    (await talk(trial, base, { path })).close();
    echo.close();
  }
});

behaviour('localAddress: where it connects from', async (trial) => {
  const base = trial.base();
  const echo = new Echo(base);
  const to = { host: '127.0.0.1', port: echo.port };
  const bev = await talk(trial, base, to, { localAddress: '127.0.0.2' });
  assert.is((bev.localAddress as { host: string }).host, '127.0.0.2');
  bev.close();
  echo.close();
});

behaviour('localPort: the port that it connects from, again and again', async (trial) => {
  const base = trial.base();
  const echo = new Echo(base);
  const to = { host: '127.0.0.1', port: echo.port };
  // One that was free a moment ago.
  const listener = new Listener(base, { port: 0 }, () => undefined);
  const { port: localPort } = listener.address as { port: number };
  listener.close();
  for (const localAddress of [undefined, '127.0.0.2']) {
    for (let i = 0; i < 2; i++) {
      const bev = await talk(trial, base, to, { localAddress, localPort });
      assert.equal(bev.localAddress, {
        host: localAddress ?? '127.0.0.1',
        port: localPort,
        family: 4,
      });
      const { line, error } = await failure(trial, base, to, { localAddress, localPort });
      assert.match(line, /^EADDR(INUSE|NOTAVAIL)$/);
      assert.match(error.message, /^(bind|connect) /);
      // What ends with a reset leaves nothing behind that would have to wait.
      bev.destroy(new Error('enough'));
    }
  }
  assert.throws(() => BufferEvent.connect(base, to, { localPort: 65_536 }), /out of range/);
  echo.close();
});

behaviour('nobody listens: one error, and nothing else', async (trial) => {
  const base = trial.base();
  const listener = new Listener(base, { port: 0 }, () => undefined);
  const { port } = listener.address as { port: number };
  listener.close();
  const { line, error } = await failure(trial, base, { host: '127.0.0.1', port });
  assert.is(line, 'ECONNREFUSED');
  assert.match(error.message, new RegExp(`connect ECONNREFUSED.*127.0.0.1:${port}`));
  const { line: missing } = await failure(trial, base, { path: join(folder, 'nothing') });
  assert.is(missing, 'ENOENT');
  const { line: long } = await failure(trial, base, { path: `/${'x'.repeat(200)}` });
  assert.is(long, 'ENAMETOOLONG');
});

behaviour('an address of another family than was asked for', async (trial) => {
  const base = trial.base();
  const { line } = await failure(trial, base, { host: '127.0.0.1', port: 1, family: 6 });
  assert.is(line, 'EAFNOSUPPORT');
  const options = { localAddress: '::1' };
  const { line: other } = await failure(trial, base, { host: '127.0.0.1', port: 1 }, options);
  assert.is(other, 'EAFNOSUPPORT');
});

// ── names: libuv resolves them, so not inside loopSync ──

behaviour(
  'a name',
  async (trial) => {
    const base = trial.base();
    const echo = new Echo(base);
    (await talk(trial, base, { host: 'localhost', port: echo.port, family: 4 })).close();
    echo.close();
  },
  asynchronous,
);

behaviour(
  'a name that does not exist, and one without an address of the family',
  async (trial) => {
    const base = trial.base();
    const to = { host: 'name.invalid', port: 1 };
    const missing = Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' });
    await resolving(missing, async () => {
      assert.is((await failure(trial, base, to)).line, 'ENOTFOUND');
    });
    await resolving([{ address: '127.0.0.1', family: 4 }], async () => {
      const { line } = await failure(trial, base, { ...to, family: 6 });
      assert.is(line, 'EAFNOSUPPORT');
    });
    await resolving([], async () => {
      assert.is((await failure(trial, base, to)).line, 'EAFNOSUPPORT');
    });
  },
  asynchronous,
);

behaviour(
  'every address is tried; when all have failed the error has all of them',
  async (trial) => {
    const base = trial.base();
    const echo = new Echo(base, { host: '127.0.0.3' });
    const addresses = ['127.0.0.1', '127.0.0.2', '127.0.0.3'].map((address) => ({
      address,
      family: 4,
    }));
    const to = { host: 'three.test', port: echo.port };
    await resolving(addresses, async () => {
      const bev = await talk(trial, base, to);
      assert.is((bev.remoteAddress as { host: string }).host, '127.0.0.3');
      bev.close();
      echo.close();
      const { line, error } = await failure(trial, base, to);
      assert.is(line, 'ECONNREFUSED');
      assert.instance(error, AggregateError);
      const { errors } = error as AggregateError;
      assert.is(errors.length, 3);
      for (const { address } of addresses) assert.match(error.message, address);
    });
  },
  asynchronous,
);

/** A listening socket whose queue is full: the kernel answers no further connection. */
function blackHole(trial: Trial, base: EventBase, host: string): { port: number } {
  const listener = new Listener(base, { host, port: 0, backlog: 1 }, () => undefined);
  listener.pause();
  const { port } = listener.address as { port: number };
  trial.own(sys.dup(listener.fd));
  listener.close();
  return { port };
}
const fill = (trial: Trial, base: EventBase, host: string, port: number, into: BufferEvent[]) => {
  for (let i = 0; i < 4; i++) into.push(BufferEvent.connect(base, { host, port }));
  return passes(trial, base, 5);
};

behaviour(
  'an address that does not answer is overtaken by the next',
  async (trial) => {
    const base = trial.base();
    const { port } = blackHole(trial, base, '127.0.0.1');
    const filling: BufferEvent[] = [];
    await fill(trial, base, '127.0.0.1', port, filling);
    const echo = new Echo(base, { host: '127.0.0.2', port });
    const addresses = ['127.0.0.1', '127.0.0.2'].map((address) => ({ address, family: 4 }));
    await resolving(addresses, async () => {
      const begin = performance.now();
      const bev = await talk(trial, base, { host: 'slow.test', port });
      assert.is((bev.remoteAddress as { host: string }).host, '127.0.0.2');
      assert.ok(performance.now() - begin >= 249, 'RFC 8305: 250 ms for the first');
      bev.close();
    });
    for (const bev of filling) bev.close();
    echo.close();
  },
  { ...asynchronous, backends: ['epoll', 'poll'] },
);

behaviour(
  'the families alternate, beginning with the resolver’s first',
  async (trial) => {
    if (!hasV6) return;
    const base = trial.base();
    const addresses = [
      { address: '::1', family: 6 },
      { address: '::1', family: 6 },
      { address: '127.0.0.1', family: 4 },
      { address: '127.0.0.2', family: 4 },
    ];
    await resolving(addresses, async () => {
      const { error } = await failure(trial, base, { host: 'both.test', port: 1 });
      const tried = (error as AggregateError).errors.map((one) => one.address);
      assert.equal(tried, ['::1', '127.0.0.1', '::1', '127.0.0.2']);
    });
  },
  asynchronous,
);

behaviour(
  'a name that takes for ever: the timeout ends it',
  async (trial) => {
    const base = trial.base();
    await resolving(undefined, async () => {
      const to = { host: 'never.test', port: 1 };
      const { line, error } = await failure(trial, base, to, { timeout: 20 });
      assert.is(line, 'timeout ETIMEDOUT');
      assert.match(error.message, /connect ETIMEDOUT.*never.test:1/);
    });
  },
  asynchronous,
);

behaviour('a peer that does not answer: the timeout ends it', async (trial) => {
  const base = trial.base();
  const { port } = blackHole(trial, base, '127.0.0.1');
  const filling: BufferEvent[] = [];
  await fill(trial, base, '127.0.0.1', port, filling);
  const { line } = await failure(trial, base, { host: '127.0.0.1', port }, { timeout: 30 });
  assert.is(line, 'timeout ETIMEDOUT');
  for (const bev of filling) bev.close();
});

behaviour('close() while it is connecting ends it, and nothing is told', async (trial) => {
  const base = trial.base();
  const { port } = blackHole(trial, base, '127.0.0.1');
  const filling: BufferEvent[] = [];
  await fill(trial, base, '127.0.0.1', port, filling);
  const log = new Log();
  const bev = BufferEvent.connect(base, { host: '127.0.0.1', port }, { handlers: log });
  bev.write('x');
  await passes(trial, base);
  bev.close();
  for (const one of filling) one.close();
  await passes(trial, base);
  assert.equal(log.lines, []);
  assert.is(await trial.run(base), 'empty');
});

behaviour(
  'close() while a name is looked up',
  async (trial) => {
    const base = trial.base();
    await resolving([{ address: '127.0.0.1', family: 4 }], async () => {
      const log = new Log();
      const bev = BufferEvent.connect(base, { host: 'late.test', port: 1 }, { handlers: log });
      bev.close();
      await passes(trial, base);
      assert.equal(log.lines, []);
    });
  },
  asynchronous,
);

behaviour('an AbortSignal destroys it until it is connected', async (trial) => {
  const base = trial.base();
  const echo = new Echo(base);
  const abort = new AbortController();
  const to = { host: '127.0.0.1', port: echo.port };
  const connected = await talk(trial, base, to, { signal: abort.signal });
  const log = new Log();
  const bev = BufferEvent.connect(base, to, { handlers: log, signal: abort.signal });
  abort.abort(new Error('no longer wanted'));
  assert.ok(bev.closed);
  assert.not(connected.closed);
  await until(trial, base, () => log.errors.length > 0);
  assert.is(log.errors[0].message, 'no longer wanted');
  assert.throws(() => BufferEvent.connect(base, to, { signal: abort.signal }), /no longer wanted/);
  connected.close();
  echo.close();
});

test('what makes no sense is refused', () => {
  const base = new EventBase();
  const refused: [to: unknown, options: unknown, code: string][] = [
    [undefined, {}, 'ERR_INVALID_ARG_TYPE'],
    [{}, {}, 'ERR_INVALID_ARG_TYPE'],
    [{ host: '127.0.0.1' }, {}, 'ERR_INVALID_ARG_TYPE'],
    [{ host: '127.0.0.1', port: 0 }, {}, 'ERR_OUT_OF_RANGE'],
    [{ host: '127.0.0.1', port: 65_536 }, {}, 'ERR_OUT_OF_RANGE'],
    [{ host: '', port: 1 }, {}, 'ERR_INVALID_ARG_VALUE'],
    [{ host: 'a\0b', port: 1 }, {}, 'ERR_INVALID_ARG_VALUE'],
    [{ host: 'a', port: 1, family: 5 }, {}, 'ERR_INVALID_ARG_VALUE'],
    [{ path: '' }, {}, 'ERR_INVALID_ARG_VALUE'],
    [{ path: 1 }, {}, 'ERR_INVALID_ARG_TYPE'],
    [{ path: '/x' }, { timeout: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ path: '/x' }, { localAddress: 'name' }, 'ERR_INVALID_ARG_VALUE'],
    [{ path: '/x' }, { signal: {} }, 'ERR_INVALID_ARG_TYPE'],
  ];
  for (const [to, options, code] of refused)
    assert.is(
      codeOf(() => BufferEvent.connect(base, to as Address, options as ConnectOptions)),
      code,
      JSON.stringify(to),
    );
  base.close();
});

test.run();
