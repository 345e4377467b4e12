// The tail worker on a regular file: growth, truncation, rotation, and a file that comes later. A
// thread that dies costs its own clients only.

import { appendFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import * as assert from 'uvu/assert';
import { type LoopGroup, serve } from '../../src/index.js';
import { LINE_BYTES_MAX, LineCutter } from '../../workers/tail/lines.js';
import { test } from '../hooks.js';
import { Cli, cleanUp, scratch } from './cli.js';
import { allUntil, checkBegin, LineClient, listeners } from './lines.js';

test.after(cleanUp);

/** Longer than the worker leaves a file unlooked at. */
const LOOK_MS = 300;

const worker = new URL('../../workers/tail.js', import.meta.url);

interface Followed {
  cli: Cli;
  file: string;
  clients: LineClient[];
  append(text: string): void;
}

async function follow(name: string, before?: string): Promise<Followed> {
  const file = scratch(name, before);
  const append = (text: string) => appendFileSync(file, text);
  const cli = new Cli(['serve', 'tail', file, '--port', '0', '--loops', '3']);
  const port = await cli.port();
  const clients = await listeners(5, port, append);
  return { cli, file, clients, append };
}

/** All have heard the same. */
async function heard({ cli, clients }: Followed, expected: string[]): Promise<void> {
  await allUntil(clients, expected[expected.length - 1]);
  for (const { heard } of clients) {
    checkBegin(heard, expected);
    assert.is(heard.length, expected.length);
  }
  cli.kill('SIGTERM');
  const { code, stderr } = await cli.ended;
  assert.is(code, 0, stderr);
}

test('what is there is passed over, what is appended is sent, a line when it is whole', async () => {
  const followed = await follow('append', 'old\nolder\n');
  const { append, clients } = followed;
  append('new\npar');
  await allUntil(clients, 'new');
  await sleep(LOOK_MS);
  for (const client of clients) assert.equal(client.heard, ['new']);
  append('tial\n');
  await heard(followed, ['new', 'partial']);
});

test('much at once', async () => {
  const followed = await follow('much', '');
  const lines = Array.from({ length: 10_000 }, (_, at) => `line ${at} ${'x'.repeat(at % 150)}`);
  followed.append(lines.map((line) => `${line}\n`).join(''));
  await heard(followed, lines);
});

test('truncation: it is read from its beginning', async () => {
  const followed = await follow('truncate', 'long enough\n');
  const { append, cli, clients, file } = followed;
  append('before\nunfinished');
  await allUntil(clients, 'before');
  truncateSync(file, 0);
  await cli.seen('stderr', /tail: .*truncate was truncated; reading it from its beginning\n/);
  append('after\n');
  await heard(followed, ['before', 'unfinished', 'after']);
});

test('rotation: the old file to its end, then the new one', async () => {
  const followed = await follow('rotate', '');
  const { append, cli, clients, file } = followed;
  append('first\n');
  renameSync(file, `${file}.1`);
  // The writer has the old one open still.
  appendFileSync(`${file}.1`, 'second\n');
  await allUntil(clients, 'second');
  append('');
  appendFileSync(`${file}.1`, 'third\nfourth, unfinished');
  await allUntil(clients, 'third');
  append('fifth\n');
  await cli.seen('stderr', /tail: .*rotate was replaced; following the new one\n/);
  append('sixth\n');
  await heard(followed, ['first', 'second', 'third', 'fourth, unfinished', 'fifth', 'sixth']);
});

test('removed and made anew, and a folder meanwhile', async () => {
  const followed = await follow('remove', '');
  const { append, cli, clients, file } = followed;
  append('first\n');
  await allUntil(clients, 'first');
  rmSync(file);
  await cli.seen('stderr', /tail: .*remove does not exist; waiting for it\n/);
  append('second\n');
  await cli.seen('stderr', /tail: .*remove is there now\n/);
  await heard(followed, ['first', 'second']);
});

test('a file that comes later is sent from its beginning', async () => {
  const file = scratch('later');
  const cli = new Cli(['serve', 'tail', file, '--port', '0', '--loops', '2']);
  const port = await cli.port();
  await cli.seen('stderr', /tail: .*later does not exist; waiting for it\n/);
  const client = await LineClient.to(port);
  writeFileSync(file, 'a\nb\n');
  await client.until('b');
  assert.equal(client.lines, ['a', 'b']);
  cli.kill('SIGTERM');
  assert.is((await cli.ended).code, 0);
});

// ── a thread that dies ──

test('a loop 0 that takes the place of one that died goes on where it was', async () => {
  const file = scratch('crash', 'old\n');
  const append = (text: string) => appendFileSync(file, text);
  const group = await serve({ worker, workerData: { arguments: [file] }, loops: 3 });
  const port = portOf(group);
  const clients = await listeners(6, port, append);
  append('before\n');
  await allUntil(clients, 'before');
  const restarted = new Promise<void>((resolve) => {
    group.on('loop', (_loop, what) => what === 'restarted' && resolve());
  });
  append('unfin');
  await group.loops[0].terminate();
  append('ished\nmeanwhile\n');
  await restarted;
  append('after\n');
  // The clients of loop 0 went with it.
  const others = clients.filter((_, at) => at % 3 !== 0);
  await allUntil(others, 'after');
  for (const { heard } of others)
    assert.equal(heard, ['before', 'unfinished', 'meanwhile', 'after']);
  const [late] = await listeners(1, port, append);
  append('last\n');
  await allUntil([late, ...others], 'last');
  await group.close();
});

test('another loop that dies costs its clients, and serves again', async () => {
  const file = scratch('crash-1', '');
  const append = (text: string) => appendFileSync(file, text);
  const group = await serve({ worker, workerData: { arguments: [file] }, loops: 2 });
  const port = portOf(group);
  const [zero] = await listeners(1, port, append);
  const restarted = new Promise<void>((resolve) => {
    group.on('loop', (_loop, what) => what === 'restarted' && resolve());
  });
  await group.loops[1].terminate();
  // Far more batches than a loop may be behind: reading waits for the dead one, but not for ever.
  const lines = Array.from({ length: 20_000 }, (_, at) => `line ${at} ${'x'.repeat(80)}`);
  append(lines.map((line) => `${line}\n`).join(''));
  await zero.until(lines[lines.length - 1]);
  await restarted;
  const [one, two] = await listeners(2, port, append);
  append('last\n');
  await allUntil([zero, one, two], 'last');
  await group.close();
});

test('without a file it does not start', async () => {
  for (const workerData of [undefined, {}, { arguments: [] }, { arguments: [''] }])
    try {
      await serve({ worker, workerData, loops: 2 });
      assert.unreachable();
    } catch (error) {
      assert.is((error as { code?: string }).code, 'ERR_WORKER_LOAD');
      assert.match((error as Error).message, 'tail needs workerData: { arguments: [FILE] }');
    }
});

function portOf(group: LoopGroup): number {
  const [address] = group.addresses;
  if (!('port' in address)) throw new Error('not a TCP listener');
  return address.port;
}

// ── lines ──

test('lines do not depend on the pieces in which they come', () => {
  const texts = fc.stringMatching(/^[ab\né€😀]{0,60}$/u);
  fc.assert(
    fc.property(fc.array(texts), (pieces) => {
      const cutter = new LineCutter();
      const whole = Buffer.from(pieces.join(''));
      let text = '';
      let count = 0;
      const take = (lines: { bytes: Uint8Array; count: number }) => {
        text += Buffer.from(lines.bytes).toString();
        count += lines.count;
        assert.is(lines.bytes.buffer.byteLength, lines.bytes.length, 'memory of its own');
      };
      for (const piece of pieces) take(cutter.push(Buffer.from(piece)));
      const end = whole.lastIndexOf(10) + 1;
      assert.is(text, whole.toString('utf8', 0, end));
      assert.is(cutter.restBytes, whole.length - end);
      take(cutter.finish());
      assert.is(text, end === whole.length ? String(whole) : `${whole}\n`);
      assert.is(count, text.split('\n').length - 1);
    }),
  );
});

test('long lines are cut between characters, and nothing is lost', () => {
  for (const character of ['x', 'é', '€', '😀'])
    for (const more of [-1, 0, 1, 2, 3, LINE_BYTES_MAX, LINE_BYTES_MAX + 1]) {
      const cutter = new LineCutter();
      const long = `${'x'.repeat(LINE_BYTES_MAX + more - 2)}${character.repeat(3)}`;
      const { bytes, count } = cutter.push(Buffer.from(`a\n${long}\nb\n`));
      const lines = Buffer.from(bytes).toString().split('\n');
      assert.is(lines.length, count + 1);
      for (const line of lines) assert.is(Buffer.byteLength(line) <= LINE_BYTES_MAX, true);
      assert.is(lines.join(''), `a${long}b`);
    }
});

test.run();
