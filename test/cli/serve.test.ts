// `multiloop serve` from its banner to its end: what it says, how it stops, what it tells of
// loops and hooks that fail.

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import * as assert from 'uvu/assert';
import { test } from '../hooks.js';
import { ofThese, wakersHere } from '../machine.js';
import { Cli, cleanUp, exchange, open, readAll, scratch } from './cli.js';

test.after(cleanUp);

const GET = 'GET /loop.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';

/** Echoes a word, then does what it says. */
const moody = `export default {
  async data(conn, chunk) {
    const word = String(chunk);
    conn.write(word);
    if (word === 'fail')
      throw new TypeError('bad mood');
    if (word === 'die')
      setImmediate(() => {
        throw new Error('worst mood');
      });
    if (word === 'hang') await new Promise(() => undefined);
  },
};
`;

async function send(port: number, word: string): Promise<Socket> {
  const socket = await open(port);
  socket.on('error', () => undefined);
  socket.write(word);
  return socket;
}

/** Sends the word and waits until it was heard. */
async function say(port: number, word: string): Promise<Socket> {
  const socket = await send(port, word);
  const [heard] = await once(socket, 'data');
  assert.is(String(heard), word);
  return socket;
}

/** Waits until the peer has closed it, with a reset or without. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket
      .on('error', () => undefined)
      .once('close', () => resolve())
      .resume();
  });
}

async function stopped(cli: Cli, signal: NodeJS.Signals = 'SIGTERM'): Promise<string> {
  cli.kill(signal);
  const { code, stderr } = await cli.ended;
  assert.is(code, 0, stderr);
  assert.match(stderr, /(^|\n)stopping: \d+ connections? open, up to [\d.]+ s\nstopped\n$/);
  return stderr;
}

test('the banner names version, worker, address, loops and backend', async () => {
  const cli = new Cli(['serve', '--port', '0', '--loops', '3', '--backend', 'poll']);
  await cli.port();
  const [, address] = await cli.seen('stdout', /(http:\/\/127\.0\.0\.1:\d+)/);
  const lines = cli.stdout.trimEnd().split('\n');
  assert.match(lines[0], /^multiloop \d+\.\d+\.\d+ {3}http on http:\/\/127\.0\.0\.1:\d+$/);
  assert.match(lines[1], new RegExp(`^3 loops +3 × poll, ${wakersHere[0]}$`));
  assert.is(lines[2], 'only this machine can connect; --host 0.0.0.0 lets others in');
  assert.is(lines[3], 'Ctrl-C stops');
  assert.is(lines.length, 4);
  const { loop, backend } = (await (await fetch(`${address}/loop.json`)).json()) as {
    loop: number;
    backend: string;
  };
  assert.is(loop, 0);
  assert.is(backend, 'poll');
  await stopped(cli);
});

test('open to others: no line about this machine', async () => {
  const cli = new Cli(['serve', '--port', '0', '--loops', '1', '--host', '0.0.0.0']);
  const port = await cli.port();
  assert.match(cli.stdout, `http://0.0.0.0:${port}`);
  assert.not.match(cli.stdout, 'only this machine');
  assert.match(await exchange(port, GET), '"loop":0');
  await stopped(cli);
});

test('echo on mixed backends and pipes, set by variables as well as by flags', async () => {
  const backends = ofThese('epoll', 'poll', 'select');
  const cli = new Cli(['serve', 'echo', '--loops', '4', '--backend', backends.join()], {
    MULTILOOP_WAKER: 'pipe',
    MULTILOOP_PORT: '0',
    MULTILOOP_LOOPS: '2',
  });
  const port = await cli.port();
  assert.match(cli.stdout, / {3}echo on 127\.0\.0\.1:\d+\n/);
  const loops = [0, 1, 2, 3].map((loop) => `${loop} ${backends[loop % backends.length]}+pipe`);
  assert.is(cli.stdout.match(/\n4 loops +(.*)\n/)?.[1], loops.join(', '));
  const sockets = await Promise.all(
    Array.from({ length: 12 }, (_, at) => say(port, `hello ${at}`)),
  );
  // Far more than a socket's buffers hold, so that the worker has to wait for its peer.
  const much = Buffer.alloc(8 * 1024 * 1024, 'multiloop ');
  const echoed = sockets.map(async (socket) => {
    socket.end(much);
    return (await readAll(socket)) === much.toString('latin1');
  });
  assert.equal(await Promise.all(echoed), Array(12).fill(true));
  await stopped(cli);
});

test('more loops than can be listed are told by kind', async () => {
  const args = ['--loops', '9', '--waker', wakersHere.join(), '--backend', 'poll'];
  const cli = new Cli(['serve', 'echo', '--port', '0', ...args]);
  await cli.port();
  const loops = wakersHere.length > 1 ? '5 × poll, eventfd; 4 × poll, pipe' : '9 × poll, pipe';
  assert.match(cli.stdout, new RegExp(`\\n9 loops +${loops}\\n`));
  await stopped(cli);
});

test('a unix socket: its path in the banner, and nothing left in the file system', async () => {
  const path = scratch('serve.sock');
  for (let round = 0; round < 2; round++) {
    // A flag for one address wins over the environment's other one.
    const cli = new Cli(['serve', '--path', path, '--loops', '1'], { MULTILOOP_PORT: '1' });
    await cli.seen('stdout', /Ctrl-C stops\n/);
    assert.match(cli.stdout, ` http on ${path}\n`);
    assert.not.match(cli.stdout, 'only this machine');
    assert.match(await exchange({ path }, GET), '"loop":0');
    await stopped(cli);
    assert.is(existsSync(path), false);
  }
});

test('a worker by its path', async () => {
  const file = scratch('moody.mjs', moody);
  const cli = new Cli(['serve', '--loops', '1', '--port=0', '--', file]);
  (await say(await cli.port(), 'hello')).destroy();
  assert.match(cli.stdout, ` ${file} on 127.0.0.1:`);
  await stopped(cli);
});

test('a worker gets the arguments that follow it', async () => {
  const told = '(conn) => conn.end(JSON.stringify(conn.loop.workerData))';
  const file = scratch('arguments.mjs', `export default { open: ${told} };\n`);
  const cli = new Cli(['serve', file, 'a', '--loops', '1', 'b c', '--port=0', '--', '--d']);
  const data = await readAll(await open(await cli.port()));
  assert.equal(JSON.parse(data), { arguments: ['a', 'b c', '--d'] });
  assert.match(cli.stdout, ` ${file} a b c --d on `);
  await stopped(cli);
});

// ── the end ──

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`${signal} ends it, an idle connection or not`, async () => {
    const cli = new Cli(['serve', 'echo', '--port', '0', '--loops', '2']);
    const socket = await say(await cli.port(), 'idle');
    const ended = once(socket, 'end');
    assert.match(await stopped(cli, signal), 'stopping: 1 connection open, up to 10 s\n');
    await ended;
  });

  test(`a second ${signal} does not wait for a drain`, async () => {
    const file = scratch('moody.mjs', moody);
    const args = ['--port', '0', '--loops', '2', '--drain-ms', '3600000'];
    const cli = new Cli(['serve', file, ...args]);
    await say(await cli.port(), 'hang');
    cli.kill(signal);
    await cli.seen('stderr', /^stopping: 1 connection open, up to 3600 s\n$/);
    cli.kill(signal);
    const { code, stderr } = await cli.ended;
    assert.is(code, signal === 'SIGINT' ? 130 : 143);
    assert.not.match(stderr, 'stopped');
  });
}

test('SIGTERM lets a request that is half there be finished and answered', async () => {
  const cli = new Cli(['serve', 'http', '--port', '0', '--loops', '2']);
  const port = await cli.port();
  const [socket, idle] = [await open(port), await open(port)];
  idle.write('GET /loop.json HTTP/1.1\r\nHost: x\r\n\r\n');
  await once(idle, 'data');
  // In a packet of its own, which the loop has read when it answers the request before.
  socket.write('GET /loop.json HTTP/1.1\r\nHost: x\r\n\r\nGET /loop.json HTTP/1.1\r\n');
  await once(socket, 'data');
  cli.kill('SIGTERM');
  await once(idle, 'end');
  socket.write('Host: x\r\n\r\n');
  const answer = await readAll(socket);
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\nConnection: close\r\n/);
  socket.destroy();
  idle.destroy();
  assert.match((await cli.ended).stderr, 'stopped\n');
});

test('a drain ends after --drain-ms', async () => {
  const file = scratch('moody.mjs', moody);
  const cli = new Cli(['serve', file, '--port', '0', '--loops', '2', '--drain-ms', '50']);
  await say(await cli.port(), 'hang');
  assert.match(await stopped(cli), 'stopping: 1 connection open, up to 0.05 s\n');
});

// ── what it tells ──

test('an error in a hook is told, and costs its connection alone', async () => {
  const file = scratch('moody.mjs', moody);
  const cli = new Cli(['serve', file, '--port', '0', '--loops', '1']);
  const port = await cli.port();
  const well = await say(port, 'well');
  await closed(await send(port, 'fail'));
  await cli.seen('stderr', /^multiloop: connection \d+: TypeError: bad mood \(moody\.mjs:6:13\)\n/);
  well.write('still');
  assert.is(String((await once(well, 'data'))[0]), 'still');
  await stopped(cli);
});

test('a thread that would not end holds up nothing, not even the end', async () => {
  const fifo = scratch('never');
  execFileSync('mkfifo', [fifo]);
  const file = scratch(
    'stuck.mjs',
    `import { openSync, readSync } from 'node:fs';
     export default { data() { readSync(openSync('${fifo}', 'r+'), Buffer.alloc(1)); } };`,
  );
  const limits = ['--watchdog-ms', '100', '--kill-ms', '100', '--drain-ms', '0'];
  const cli = new Cli(['serve', file, '--port', '0', '--loops', '1', ...limits]);
  await closed(await send(await cli.port(), 'x'));
  await cli.seen('stderr', /^multiloop: loop 0 went down: The thread of loop 0 is lost/);
  await cli.seen('stderr', /multiloop: loop 0 is back, generation 1\n/);
  cli.kill('SIGTERM');
  const { signal, stderr } = await cli.ended;
  assert.is(signal, 'SIGKILL');
  assert.match(stderr, /\nstopped\nmultiloop: 1 thread would not end, so the process is killed\n$/);
});

test('a loop that dies is told, and comes back; one that keeps dying ends it all', async () => {
  const file = scratch('moody.mjs', moody);
  const cli = new Cli(['serve', file, '--port', '0', '--loops', '1']);
  const port = await cli.port();
  for (let generation = 1; generation <= 5; generation++) {
    await say(port, 'die');
    await cli.seen('stderr', /multiloop: loop 0 went down: worst mood \(moody\.mjs:9:15\)\n/);
    await cli.seen('stderr', new RegExp(`loop 0 is back, generation ${generation}\n`));
  }
  await say(port, 'die');
  const { code, stderr } = await cli.ended;
  assert.is(code, 1);
  assert.match(stderr, /\nmultiloop: Loop 0 died 6 times within 60000 ms.*: worst mood.*\n$/);
});

test('refused connections are told', async () => {
  const args = ['--port', '0', '--loops', '1', '--max-connections', '1'];
  const cli = new Cli(['serve', 'echo', ...args]);
  const port = await cli.port();
  const first = await say(port, 'first');
  await closed(connect(port, '127.0.0.1'));
  await cli.seen('stderr', /^multiloop: 1 connection refused: maxConnections\n/);
  first.destroy();
  await stopped(cli);
});

test('a reader of its output that goes away does not end it', async () => {
  const path = scratch('unread.sock');
  const cli = new Cli(['serve', '--path', path, '--loops', '1']);
  cli.child.stdout?.destroy();
  assert.match(await untilAnswered(path), '"loop":0');
  await stopped(cli);
});

/** The banner cannot be waited for here, so the server itself is asked until it answers. */
async function untilAnswered(path: string): Promise<string> {
  for (;;) {
    try {
      return await exchange({ path }, GET);
    } catch {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

test.run();
