// The access log: its formats, what it escapes, and that it neither waits nor grows.

import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type AccessEntry, AccessLog, combinedLine, jsonLine } from '../../src/http/access_log.js';
import { HttpServer } from '../../src/http.js';
import { codeOf } from '../event/support.js';
import { test } from '../hooks.js';
import { until } from '../runtime/clients.js';
import { HOST, nothing, useRig } from './rig.js';

const rig = useRig();
const folder = mkdtempSync(join(tmpdir(), 'multiloop-log-'));
test.after(() => rmSync(folder, { recursive: true }));

const entry: AccessEntry = {
  time: Date.UTC(2024, 1, 3, 4, 5, 6, 789),
  remote: '127.0.0.1',
  method: 'GET',
  target: '/a?b',
  version: '1.1',
  host: 'a',
  status: 200,
  bytes: 123,
  ms: 1.23456,
  aborted: false,
  referer: undefined,
  userAgent: 'curl/8',
};

test('the combined format, and JSON', () => {
  assert.is(
    combinedLine(entry),
    '127.0.0.1 - - [03/Feb/2024:04:05:06 +0000] "GET /a?b HTTP/1.1" 200 123 "-" "curl/8" 1.235\n',
  );
  const { time, ...rest } = entry;
  const { referer: _, ...told } = rest;
  assert.equal(JSON.parse(jsonLine(entry)), {
    ...told,
    time: new Date(time).toISOString(),
    ms: 1.235,
  });
});

test('nothing that a peer sends ends a field or a line', () => {
  const evil = 'a" 200 "\\\n\r\x1b[2J\x7f\x85\u2028é';
  const line = combinedLine({ ...entry, target: evil, userAgent: evil, referer: evil });
  const escaped = 'a\\" 200 \\"\\\\\\x0a\\x0d\\x1b[2J\\x7f\\x85\\u2028é';
  assert.is(line.split(escaped).length, 4);
  assert.is(line.indexOf('\n'), line.length - 1);
  const json = jsonLine({ ...entry, userAgent: evil });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  assert.not.match(json.slice(0, -1), /[\x00-\x1f\x7f-\x9f\u2028]/);
  assert.is(JSON.parse(json).userAgent, evil);
  assert.ok(combinedLine({ ...entry, target: 'x'.repeat(1e6) }).length < 10_000);
});

test('a line for each request, with what its answer took', async () => {
  const path = join(folder, 'one.log');
  const entries: AccessEntry[] = [];
  const served = rig.serve({
    request: (request, response) =>
      request.path === '/never' ? nothing() : response.send('x'.repeat(1_000)),
    accessLog: { path, flushMs: 10 },
  });
  const client = await rig.connect(served.port);
  client.send(`GET /one HTTP/1.1\r\n${HOST}User-Agent: me\r\nReferer: there\r\n\r\n`);
  const { head, body } = await client.answer();
  client.send(`GET /two HTTP/1.1\r\n${HOST}\r\nGET /never HTTP/1.1\r\n${HOST}\r\n`);
  await client.answer();
  client.socket.resetAndDestroy();
  const lines = () => (existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []);
  await until(() => lines().length === 4, 'three lines');
  const [first, second, third] = lines();
  assert.match(first, `"GET /one HTTP/1.1" 200 ${head.length + body.length} "there" "me" `);
  assert.match(second, '"GET /two HTTP/1.1" 200 ');
  assert.match(third, '"GET /never HTTP/1.1" 200 0 "-" "-"');
  // A function has them as they are.
  const { port } = rig.serve({
    request: (_, response) => response.send('hello'),
    accessLog: (one) => entries.push(one),
  });
  await rig.ask(port, `GET / HTTP/1.1\r\n${HOST}\r\n`);
  await until(() => entries.length === 1, 'its entry');
  const [{ remote, target, status, aborted, ms }] = entries;
  assert.equal([remote, target, status, aborted, ms >= 0], ['127.0.0.1', '/', 200, false, true]);
});

test('a file that was renamed: reopen() goes on in a new one, and loses no line', async () => {
  const path = join(folder, 'rotated.log');
  const log = new AccessLog({ path, flushMs: 1 }, (error) => assert.unreachable(error.message));
  for (let i = 0; i < 500; i++) {
    log.add({ ...entry, target: `/${i}` });
    if (i % 100 !== 99) continue;
    await log.flush();
    renameSync(path, `${path}.${i}`);
    log.reopen();
  }
  log.add({ ...entry, target: '/last' });
  await log.close();
  const all = ['.99', '.199', '.299', '.399', '.499', ''].map((end) =>
    readFileSync(path + end, 'utf8'),
  );
  const targets = [...all.join('').matchAll(/GET \/(\w+)/g)].map((match) => match[1]);
  assert.equal(targets, [...Array.from({ length: 500 }, (_, i) => String(i)), 'last']);
  assert.is(log.dropped, 0);
});

test('more than may wait is dropped and counted; a file that cannot be written is told once', async () => {
  const log = new AccessLog({ path: join(folder, 'full.log'), bufferMax: 1_000 }, nothing);
  for (let i = 0; i < 100; i++) log.add(entry);
  assert.ok(log.dropped > 80 && log.dropped < 100, `${log.dropped}`);
  await log.close();
  const told: string[] = [];
  const lost = new AccessLog({ path: join(folder, 'no', 'such') }, (error) =>
    told.push(`${(error as { code?: string }).code} ${error.message}`),
  );
  for (let i = 0; i < 3; i++) {
    lost.add(entry);
    await lost.flush();
  }
  assert.is(lost.dropped, 3);
  assert.is(told.length, 1);
  assert.match(told[0], /^ENOENT open ENOENT.*access log/);
  await lost.close();
});

test('options', () => {
  const make = (accessLog: unknown) =>
    codeOf(() => new HttpServer(rig.base, { request: nothing, accessLog: accessLog as never }));
  assert.equal(
    [make(5), make({ path: 5 }), make({ format: 'w3c' }), make({ bufferMax: 0 })],
    ['ERR_INVALID_ARG_TYPE', 'ERR_INVALID_ARG_TYPE', 'ERR_INVALID_ARG_VALUE', 'ERR_OUT_OF_RANGE'],
  );
});

test.run();
