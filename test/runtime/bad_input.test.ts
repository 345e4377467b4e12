// What serve() refuses: a code, a message that names what is wrong, and nothing left running.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type ServeOptions, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { test } from '../hooks.js';
import { descriptors, until, workerFile } from './clients.js';

const worker = workerFile('report');
const folder = mkdtempSync(join(tmpdir(), 'multiloop-'));
test.after(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

async function refused(options: unknown): Promise<NodeJS.ErrnoException> {
  try {
    const group = await serve(options as ServeOptions);
    await group.close();
  } catch (error) {
    return error as NodeJS.ErrnoException;
  }
  throw new Error(`accepted: ${JSON.stringify(options)}`);
}

const cases: [what: string, options: unknown, code: string, message: RegExp][] = [
  ['no options', undefined, 'ERR_INVALID_ARG_TYPE', /"options"/],
  ['no worker', {}, 'ERR_INVALID_ARG_TYPE', /"options.worker"/],
  ['loops 0', { worker, loops: 0 }, 'ERR_OUT_OF_RANGE', /"options.loops"/],
  ['loops -1', { worker, loops: -1 }, 'ERR_OUT_OF_RANGE', /"options.loops"/],
  ['loops 1.5', { worker, loops: 1.5 }, 'ERR_OUT_OF_RANGE', /an integer/],
  ['loops x', { worker, loops: 'x' }, 'ERR_INVALID_ARG_TYPE', /"options.loops".*'x'/],
  ['unknown backend', { worker, backend: 'iocp' }, 'ERR_INVALID_ARG_VALUE', /'epoll'/],
  [
    'kqueue',
    { worker, backend: 'kqueue' },
    'ERR_BACKEND_UNAVAILABLE',
    /BSDs.*here: (epoll, )?poll, select/,
  ],
  [
    'unknown waker',
    { worker, waker: 'bell' },
    'ERR_INVALID_ARG_VALUE',
    /'eventfd', 'evfilt_user', 'pipe'/,
  ],
  ['watchdogMs -1', { worker, watchdogMs: -1 }, 'ERR_OUT_OF_RANGE', /"options.watchdogMs"/],
  ['killMs 0', { worker, killMs: 0 }, 'ERR_OUT_OF_RANGE', /"options.killMs"/],
  ['unknown policy', { worker, policy: 'random' }, 'ERR_INVALID_ARG_VALUE', /'round-robin'/],
  ['port', { worker, listen: { port: 65_536 } }, 'ERR_OUT_OF_RANGE', /"listen.port"/],
  ['host', { worker, listen: { host: 'no-such.invalid' } }, 'ENOTFOUND', /no-such\.invalid/],
  ['foreign', { worker, listen: { host: '192.0.2.1' } }, 'EADDRNOTAVAIL', /192\.0\.2\.1/],
  ['missing', { worker: './not-there.mjs' }, 'ERR_WORKER_LOAD', /not-there\.mjs does not exist/],
  ['folder', { worker: folder }, 'ERR_WORKER_LOAD', /is a folder/],
  ['scheme', { worker: 'https://example.com/w.mjs' }, 'ERR_WORKER_LOAD', /not a file: URL/],
];
for (const [what, options, code, message] of cases) {
  test(`refuses ${what}`, async () => {
    const error = await refused(options);
    assert.is(error.code, code);
    assert.match(error.message, message);
  });
}

const workers: [what: string, text: string, message: RegExp][] = [
  ['does not parse', 'export default {{', /syntax\.mjs does not parse: Unexpected token/],
  ['has no default export', 'export const x = 1;', /has no default export.*defineWorker/],
  ['throws while loading', 'throw new Error("loading");', /threw while loading: loading/],
  ['imports what is missing', 'import "./nowhere.mjs";', /threw while loading.*nowhere\.mjs/],
  ['exports a string', 'export default "x";', /is not a worker.*object/],
  ['has a hook that is no function', 'export default { data: 1 };', /worker\.data/],
  [
    'throws in start',
    'export default { start() { throw new Error("starting"); } };',
    /start hook.*threw: starting/,
  ],
  [
    'rejects in start',
    'export default { async start() { throw new TypeError("starting"); } };',
    /start hook.*threw: starting/,
  ],
  [
    'awaits serve() before its worker is defined',
    `import { serve } from '${new URL('../../src/index.js', import.meta.url).href}';
     await serve({ worker: import.meta.url }); export default {};`,
    /before its worker is defined/,
  ],
];
for (const [what, text, message] of workers) {
  test(`refuses a worker that ${what}`, async () => {
    await serve({ worker }).then((group) => group.close());
    const before = descriptors().length;
    const name = what === 'does not parse' ? 'syntax.mjs' : `${what.replaceAll(/\W/g, '-')}.mjs`;
    const error = await refused({ worker: file(name, text), loops: 2 });
    assert.is(error.code, 'ERR_WORKER_LOAD');
    assert.match(error.message, message);
    await until(() => descriptors().length <= before, 'descriptors back');
    assert.is(native.ledgerCount(), 0);
  });
}

test('a worker that ends its thread while loading fails serve()', async () => {
  const error = await refused({ worker: file('exits.mjs', 'process.exit(7);'), loops: 2 });
  assert.match(error.message, /exited with code: 7/);
});

test('a port in use is said with address and port, before any thread starts', async () => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as net.AddressInfo;
  const error = (await refused({ worker, listen: { port } })) as NodeJS.ErrnoException & {
    port: number;
    address: string;
  };
  assert.is(error.code, 'EADDRINUSE');
  assert.is(error.syscall, 'bind');
  assert.is(error.port, port);
  assert.is(error.address, '127.0.0.1');
  assert.match(error.message, new RegExp(`address already in use 127\\.0\\.0\\.1:${port}`));
  server.close();
});

test.run();
