// Files on their way: large ones to slow clients, ones that change meanwhile, and descriptors,
// of which none is left.

import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type FilesOptions, files } from '../../src/http.js';
import { BufferEvent, Ev, FileSegment } from '../../src/index.js';
import { test } from '../hooks.js';
import { until } from '../runtime/clients.js';
import { Rig } from './rig.js';
import * as sinks from './sink.js';
import { BIG_MIB, big, bigHash, get, hashOf, hasProc, MIB, Sink, writeBig } from './sink.js';

const rig = new Rig();
const folder = mkdtempSync(join(tmpdir(), 'multiloop-sending-'));
const at = (name: string) => join(folder, name);
const allClosed = () => sinks.allClosed(folder);
const openThere = () => sinks.openThere(folder);
const sink = (port: number, path: string, headers?: string) => sinks.sink(rig, port, path, headers);

test.before(() => writeBig(at('big')));
test.after(() => {
  rig.close();
  rmSync(folder, { recursive: true, force: true });
});

const systemCode = (error: Error | undefined) => (error as NodeJS.ErrnoException | undefined)?.code;
const serve = (options: FilesOptions = {}) => rig.serve({ request: files(folder, options) });

test('a large file arrives whole, and the next request is answered behind it', async () => {
  const { port, completed } = serve();
  const one = await sink(port, '/big');
  assert.is(await one.whole(), bigHash());
  await until(() => completed.length === 1, 'it has ended');
  one.client.socket.destroy();
  const two = await rig.connect(port);
  writeFileSync(at('small'), 'small');
  two.send(
    get('/big', 'Range: bytes=0-99999\r\n') +
      get('/small') +
      get('/big', 'Range: bytes=-70000\r\n'),
  );
  const first = await two.answer();
  assert.is(first.body, big.toString('latin1', 0, 100_000));
  assert.is((await two.answer()).body, 'small');
  assert.is((await two.answer()).body, big.toString('latin1', MIB - 70_000));
  two.socket.destroy();
  await allClosed();
});

test('clients that do not read cost no memory, and get their file when they do', async () => {
  const { port, completed } = serve();
  const clients = await Promise.all(Array.from({ length: 20 }, () => rig.connect(port)));
  const before = process.memoryUsage();
  const all = clients.map((client) => new Sink(client));
  for (const { client } of all) {
    client.socket.pause();
    client.send(get('/big'));
  }
  // The kernel takes what it has room for.
  const probe = await rig.connect(port);
  for (let i = 0; i < 20; i++) {
    probe.send(get('/big', 'Range: bytes=0-1\r\n'));
    assert.is((await probe.answer()).status, 206);
  }
  const { arrayBuffers, heapUsed } = process.memoryUsage();
  const grown = arrayBuffers - before.arrayBuffers + (heapUsed - before.heapUsed);
  assert.ok(grown < 16 * MIB, `${grown} bytes for 20 answers of ${BIG_MIB} MiB`);
  assert.is(completed.length, 20, 'those are under way');
  const expected = bigHash();
  for (const one of all.slice(0, 3)) {
    one.client.socket.resume();
    assert.is(await one.whole(), expected);
  }
  for (const { client } of all) client.socket.destroy();
  probe.socket.destroy();
  await until(() => completed.length === 40, 'all have ended');
  await allClosed();
});

test('a file that becomes shorter cuts its connection off, and the hook is told why', async () => {
  const causes: unknown[] = [];
  let ended = 0;
  const { port } = rig.serve({
    request: files(folder),
    error: (error) => causes.push((error.cause as { code?: string } | undefined)?.code),
    complete: () => ended++,
  });
  writeFileSync(at('shrinks'), Buffer.alloc(24 * MIB));
  // Not a socket of Node's: after a read that was not full, libuv takes a reset for an end.
  let bytes = 0;
  const ends: unknown[] = [];
  const stream = BufferEvent.connect(rig.base, { host: '127.0.0.1', port });
  stream.handlers = {
    read({ input }) {
      bytes += input.length;
      input.drain(input.length);
    },
    event(_, { connected, eof, error }) {
      if (connected !== true) ends.push(eof === true ? 'eof' : systemCode(error));
    },
  };
  stream.write(get('/shrinks'));
  stream.enable(Ev.READ);
  await until(() => bytes > 0, 'the first bytes');
  stream.disable(Ev.READ);
  truncateSync(at('shrinks'), 1_000);
  stream.enable(Ev.READ);
  await until(() => ends.length > 0, 'the end');
  stream.close();
  assert.ok(bytes < 24 * MIB);
  assert.equal(ends, ['ECONNRESET']);
  assert.equal([causes, ended], [['ERR_FILE_TRUNCATED'], 1]);
  // Small ones are read before their head is sent.
  writeFileSync(at('shrinks'), Buffer.alloc(5_000));
  const cached = serve({ cacheMs: 60_000 });
  const two = await rig.connect(cached.port);
  two.send(get('/shrinks'));
  assert.is((await two.answer()).body.length, 5_000);
  truncateSync(at('shrinks'), 10);
  two.send(get('/shrinks'));
  assert.is((await two.answer()).status, 500);
  assert.equal(cached.errors, ['ERR_FILE_TRUNCATED']);
  cached.server.close();
  await allClosed();
});

test('a file that grows is sent as it was when it was asked for', async () => {
  const { port } = serve();
  const body = randomBytes(8 * MIB);
  writeFileSync(at('grows'), body);
  const one = await sink(port, '/grows');
  await one.until(() => one.bytes > 0, 'the first bytes');
  one.client.socket.pause();
  appendFileSync(at('grows'), 'more');
  one.client.socket.resume();
  assert.is(await one.whole(), hashOf(body));
  one.client.socket.destroy();
  await allClosed();
});

test('a file that is replaced or deleted is sent to its end; the next one gets the new', async () => {
  const { port } = serve({ cacheMs: 0 });
  const body = randomBytes(16 * MIB);
  writeFileSync(at('replaced'), body);
  const one = await sink(port, '/replaced');
  await one.until(() => one.bytes > 0, 'the first bytes');
  one.client.socket.pause();
  writeFileSync(at('new'), 'new');
  renameSync(at('new'), at('replaced'));
  const two = await rig.connect(port);
  two.send(get('/replaced'));
  assert.is((await two.answer()).body, 'new');
  rmSync(at('replaced'));
  one.client.socket.resume();
  assert.is(await one.whole(), hashOf(body));
  two.send(get('/replaced'));
  assert.is((await two.answer()).status, 404);
  one.client.socket.destroy();
  two.socket.destroy();
  await allClosed();
});

test('a client that leaves in the middle leaves no descriptor behind', async () => {
  const { port, errors, completed } = serve();
  for (let i = 0; i < 10; i++) {
    const one = await sink(port, '/big', i % 2 === 0 ? '' : 'Range: bytes=0-9999999,20000000-\r\n');
    await one.until(() => one.bytes > 0, 'the first bytes');
    one.client.socket.resetAndDestroy();
  }
  await until(() => completed.length === 10, 'all have ended');
  assert.equal(
    errors,
    Array.from({ length: 10 }, () => 'ERR_HTTP_ABORTED'),
  );
  await allClosed();
});

test('what is open stays open for a moment, and is never more than was asked for', async () => {
  if (!hasProc) return;
  for (let i = 0; i < 60; i++) writeFileSync(at(`many-${i}`), `${i}`);
  const { port, server } = serve({ cacheMs: 60_000, cacheFiles: 32, compressed: [] });
  const client = await rig.connect(port);
  for (let round = 0; round < 2; round++)
    for (let i = 0; i < 60; i++) {
      client.send(get(`/many-${i}`));
      assert.is((await client.answer()).body, `${i}`);
      // And the folder's own.
      assert.ok(openThere() <= 33, `${openThere()} are open`);
    }
  assert.is(openThere(), 33);
  // As long as it is believed, nothing is looked for.
  rmSync(at('many-59'));
  writeFileSync(at('many-new'), 'new');
  client.send(get('/many-59') + get('/many-new'));
  assert.is((await client.answer()).body, '59');
  assert.is((await client.answer()).body, 'new');
  server.close();
  await allClosed();
});

test('a response sends what it is given of a file, or of a descriptor', async () => {
  const { port, errors } = rig.serve({
    request(request, response) {
      if (request.path === '/fd') response.sendFile(openSync(at('big'), 'r'), 10, 50_000);
      else if (request.path === '/twice') {
        response.sendFile(openSync(at('big'), 'r'), 0, 100_000);
        response.end('more');
      } else {
        using segment = new FileSegment(openSync(at('big'), 'r'), 5, 40_000, { closeFd: true });
        response.sendFile(segment, request.path === '/behind' ? 50_000 : 1);
      }
    },
  });
  const client = await rig.connect(port);
  client.send(get('/fd'));
  assert.is((await client.answer()).body, big.toString('latin1', 10, 50_010));
  client.send(get('/segment'));
  assert.is((await client.answer()).body, big.toString('latin1', 6, 40_005));
  client.send(get('/behind'));
  assert.is((await client.answer()).status, 500);
  const cut = await sink(port, '/twice');
  await cut.until(() => cut.closed, 'the end');
  assert.equal(errors, ['ERR_OUT_OF_RANGE', 'ERR_HTTP_ANSWERED']);
  client.socket.destroy();
  await allClosed();
});

test.run();
