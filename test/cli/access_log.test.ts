// `multiloop serve http --access-log`: to a file that is renamed under way, and to standard output.

import { mkdirSync, readFileSync, renameSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { test } from '../hooks.js';
import { until } from '../runtime/clients.js';
import { Cli, cleanUp, exchange, run, scratch } from './cli.js';
import { get } from './http_clients.js';

test.after(cleanUp);

const CLOSE = 'Connection: close\r\n';
const targets = (path: string) =>
  [...readFileSync(path, 'utf8').matchAll(/"GET (\S+) HTTP\/1\.1" \d{3} /g)].map(([, to]) => to);

test('a line for every request; after SIGHUP in a new file of the name', async () => {
  const path = scratch('access.log');
  const cli = new Cli(['serve', 'http', '--port', '0', '--loops', '2', '--access-log', path]);
  const port = await cli.port();
  for (let i = 0; i < 4; i++) await exchange(port, get(`/loop.json?${i}`, CLOSE));
  const asked = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => `/loop.json?${from + i}`);
  await until(() => targets(path).length === 4, 'the lines of both loops');
  assert.equal(targets(path).sort(), asked(0, 4));
  const old = `${path}.1`;
  renameSync(path, old);
  await exchange(port, get('/loop.json?4', CLOSE));
  await until(() => targets(old).length === 5, 'what comes before the signal');
  cli.kill('SIGHUP');
  await cli.seen('stderr', /generation 1 serves/);
  for (let i = 5; i < 9; i++) await exchange(port, get(`/loop.json?${i}`, CLOSE));
  cli.kill('SIGTERM');
  assert.is((await cli.ended).code, 0);
  // All is written by the end, and each line once.
  assert.equal(targets(old).sort(), asked(0, 5));
  assert.equal(targets(path).sort(), asked(5, 9));
});

test('- is standard output', async () => {
  const cli = new Cli(['serve', 'http', '--port', '0', '--loops', '1', '--access-log', '-']);
  await exchange(await cli.port(), get('/loop.json', CLOSE));
  await cli.seen('stdout', /^127\.0\.0\.1 - - \[.*\] "GET \/loop\.json HTTP\/1\.1" 200 /m);
  cli.kill('SIGTERM');
  assert.is((await cli.ended).code, 0);
});

test('what cannot be written to, and workers without it, are said before anything starts', async () => {
  const folder = scratch('a-folder');
  mkdirSync(folder);
  for (const [args, said] of [
    [['http', '--access-log', folder], /--access-log: EISDIR/],
    [['http', '--access-log', `${folder}/none/log`], /--access-log: ENOENT/],
    [['echo', '--access-log', '-'], /--access-log goes with the worker http; echo has no such log/],
  ] as const) {
    const { code, stderr } = await run('serve', ...args);
    assert.is(code, 2);
    assert.match(stderr, said);
  }
});

test.run();
