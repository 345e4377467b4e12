// The tail worker on a FIFO: every line to every client of every loop, in order, whatever its
// writers and its readers do.

import { once } from 'node:events';
import { createWriteStream, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { test } from '../hooks.js';
import { ofThese } from '../machine.js';
import { Cli, cleanUp, run, scratch } from './cli.js';
import { allUntil, checkBegin, fifo, LineClient, listeners, pour } from './lines.js';

test.after(cleanUp);

const numbered = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, at) => `line ${from + at}`);
const asText = (lines: string[]) => lines.map((line) => `${line}\n`).join('');

function tail(file: string, ...args: string[]): Cli {
  return new Cli(['serve', 'tail', file, '--port', '0', ...args]);
}

async function stopped(cli: Cli): Promise<void> {
  cli.kill('SIGINT');
  const { code, stderr } = await cli.ended;
  assert.is(code, 0, stderr);
  assert.match(stderr, /(^|\n)stopping: .*\nstopped\n$/);
}

const mixes = [ofThese('epoll'), ofThese('poll', 'epoll'), ofThese('select', 'poll', 'epoll')];
for (const backends of mixes.filter(({ length }) => length > 0).map(String))
  test(`two writers one after the other, clients on three loops, ${backends}`, async () => {
    const path = fifo(`writers-${backends}`);
    const cli = tail(path, '--loops', '3', '--backend', backends);
    const port = await cli.port();
    const clients = await listeners(7, port, (text) => pour(path, text));
    const lines = numbered(0, 2_000);
    await pour(path, asText(lines.slice(0, 1_000)));
    await pour(path, asText(lines.slice(1_000)));
    await allUntil(clients, 'line 1999');
    for (const { heard } of clients) {
      checkBegin(heard, lines);
      assert.is(heard.length, lines.length);
    }
    await stopped(cli);
  });

test('the last writer ends its line by leaving', async () => {
  const path = fifo('unfinished');
  const cli = tail(path, '--loops', '2');
  const clients = await listeners(3, await cli.port(), (text) => pour(path, text));
  await pour(path, 'one\n\ntw');
  await allUntil(clients, 'tw');
  await pour(path, 'o\n');
  await allUntil(clients, 'o');
  for (const { heard } of clients) assert.equal(heard, ['one', '', 'tw', 'o']);
  await stopped(cli);
});

test('a line that comes in pieces is one', async () => {
  const path = fifo('pieces');
  const cli = tail(path, '--loops', '2');
  const clients = await listeners(2, await cli.port(), (text) => pour(path, text));
  const writer = createWriteStream(path);
  for (const piece of ['begin ', 'and\nsome', 'where ', 'in between, ', 'end\n'])
    await new Promise((resolve) => writer.write(piece, resolve));
  await allUntil(clients, 'somewhere in between, end');
  for (const { heard } of clients) assert.equal(heard, ['begin and', 'somewhere in between, end']);
  writer.end();
  await stopped(cli);
});

/** Processor time of a process so far, in ticks of 10 ms. */
function ticks(pid: number | undefined): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

for (const backend of ofThese('epoll', 'poll', 'select'))
  test(`without a writer it does not spin, ${backend}`, async () => {
    const path = fifo(`idle-${backend}`);
    const cli = tail(path, '--loops', '2', '--backend', backend);
    const clients = await listeners(4, await cli.port(), (text) => pour(path, text));
    const before = ticks(cli.child.pid);
    await sleep(1_000);
    const used = ticks(cli.child.pid) - before;
    assert.is(used < 30, true, `${used * 10} ms of a second`);
    await pour(path, 'awake\n');
    await allUntil(clients, 'awake');
    await stopped(cli);
  });

test('a FIFO that is made anew', async () => {
  const path = fifo('anew');
  const cli = tail(path, '--loops', '2');
  const clients = await listeners(3, await cli.port(), (text) => pour(path, text));
  rmSync(path);
  await cli.seen('stderr', /tail: .*anew does not exist; waiting for it\n/);
  fifo('anew');
  // The writer waits in open() until it is read again.
  await pour(path, 'new\n');
  await allUntil(clients, 'new');
  await stopped(cli);
});

test('clients come and go, and one that is half closed is closed', async () => {
  const path = fifo('come-and-go');
  const cli = tail(path, '--loops', '2');
  const port = await cli.port();
  const write = (text: string) => pour(path, text);
  const [first, second, third] = await listeners(3, port, write);
  first.socket.destroy();
  second.socket.end('what clients send is ignored');
  await new Promise((resolve) => second.socket.once('close', resolve));
  const [fourth] = await listeners(1, port, write);
  await pour(path, 'still here\n');
  await allUntil([third, fourth], 'still here');
  assert.equal(third.heard, ['still here']);
  await stopped(cli);
});

test('a line that is too long comes in pieces', async () => {
  const path = fifo('long');
  const cli = tail(path, '--loops', '2');
  const clients = await listeners(2, await cli.port(), (text) => pour(path, text));
  await pour(path, `${'x'.repeat(40_000)}\nshort\n`);
  await allUntil(clients, 'short');
  for (const { heard } of clients)
    assert.equal(
      heard.map((line) => line.length),
      [16_384, 16_384, 7_232, 5],
    );
  await stopped(cli);
});

test('a slow client misses lines and is told how many; the others miss none', async () => {
  const path = fifo('slow');
  const socket = scratch('slow.sock');
  // Over a unix socket the kernel's own buffer is small. All of them are on one loop.
  const cli = new Cli(['serve', 'tail', path, '--path', socket, '--loops', '1']);
  await cli.seen('stdout', /Ctrl-C stops\n/);
  const [slow, quick] = await listeners(2, { path: socket }, (text) => pour(path, text));
  slow.socket.pause();
  const writer = createWriteStream(path);
  const PART = 500;
  const PARTS = 40;
  const filler = 'x'.repeat(100);
  for (let part = 0; part < PARTS; part++) {
    const lines = numbered(part * PART, (part + 1) * PART).map((line) => `${line} ${filler}`);
    writer.write(asText(lines));
    // No more than the quick one can take.
    await quick.until(lines[PART - 1]);
  }
  assert.is(quick.heard.length, PART * PARTS);
  slow.socket.resume();
  // Hearing that its output is empty again is a matter of the loop's next turn.
  while (!slow.lines.some((line) => line.startsWith('tail: '))) {
    writer.write('more\n');
    await sleep(5);
  }
  writer.end('end\n');
  await allUntil([slow, quick], 'end');
  const told = slow.heard.filter((line) => line.startsWith('tail: '));
  const at = slow.heard.indexOf(told[0]);
  const all = quick.heard;
  checkBegin(slow.heard.slice(0, at), all);
  const missed = Number(told[0].match(/^tail: (\d+) lines? missed$/)?.[1]);
  assert.is(missed > PART * PARTS * 0.5, true, `${missed} missed`);
  checkBegin(slow.heard.slice(at + 1), all.slice(at + missed));
  assert.is(slow.heard.length - 1 + missed, all.length);
  assert.equal(told.length, 1);
  await stopped(cli);
});

test('a slow client that ends its side still gets what was written for it', async () => {
  const path = fifo('slow-end');
  const socket = scratch('slow-end.sock');
  const cli = new Cli(['serve', 'tail', path, '--path', socket, '--loops', '1']);
  await cli.seen('stdout', /Ctrl-C stops\n/);
  const [slow, quick] = await listeners(2, { path: socket }, (text) => pour(path, text));
  slow.socket.pause();
  const lines = numbered(0, 5_000).map((line) => `${line} ${'x'.repeat(100)}`);
  const writer = createWriteStream(path);
  for (let at = 0; at < lines.length; at += 500) {
    writer.write(asText(lines.slice(at, at + 500)));
    await quick.until(lines[at + 499]);
  }
  const closed = once(slow.socket, 'end');
  await new Promise<void>((resolve) => slow.socket.end(resolve));
  slow.socket.resume();
  await closed;
  // Whether its end is seen before its output is empty, and it is told what it missed, is chance.
  checkBegin(
    slow.heard.filter((line) => !line.startsWith('tail: ')),
    lines,
  );
  writer.end('end\n');
  await quick.until('end');
  await stopped(cli);
  assert.not.match(cli.stderr, 'ERR_');
  assert.match(cli.stderr, /^stopping/);
});

// ── the command line ──

test('the banner names the file, and a stop closes clients that wait', async () => {
  const path = fifo('banner');
  const cli = tail(path, '--loops', '2');
  const port = await cli.port();
  assert.match(cli.stdout, ` tail ${path} on 127.0.0.1:${port}\n`);
  const client = await LineClient.to(port);
  const ended = new Promise((resolve) => client.socket.once('end', resolve));
  await stopped(cli);
  await ended;
});

test('what cannot be followed is told at once', async () => {
  const refused = async (path: string) => {
    const { code, stdout, stderr } = await run('serve', 'tail', path, '--port', '0');
    assert.is(code, 1);
    assert.is(stdout, '');
    assert.match(stderr, /^multiloop: tail: [^\n]*\n$/);
    return stderr;
  };
  const folder = scratch('.');
  const neither = 'neither a FIFO nor a regular file\n';
  assert.match(await refused(folder), `is a folder, ${neither}`);
  assert.match(await refused('/dev/null'), `is a device, ${neither}`);
  const file = scratch('plain', '');
  assert.match(await refused(join(file, 'below')), 'cannot be opened: ENOTDIR');
  if (process.getuid?.() === 0) return;
  writeFileSync(scratch('secret'), '', { mode: 0o200 });
  assert.match(await refused(scratch('secret')), 'may not be read by this user');
});

test.run();
