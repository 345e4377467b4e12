// `multiloop serve --stats`: what a line says, and that it is one in a terminal and in a log.

import { once } from 'node:events';
import * as assert from 'uvu/assert';
import { printStats, type Sample, statsHeading, statsLine } from '../../src/cli/stats_lines.js';
import type { LoopGroup } from '../../src/index.js';
import { test } from '../hooks.js';
import { Cli, cleanUp, open } from './cli.js';

test.after(cleanUp);

function sample(at: number, bytes: number, accepted: number): Sample {
  const loop = { bytesRead: bytes, bytesWritten: 2 * bytes, inbox: 3, lagMs: bytes > 0 ? 120 : 0 };
  const stats = { open: 12, accepted, moves: 4, rescues: 1, loops: [loop, { ...loop, lagMs: 1 }] };
  return { at, serving: 1, stats: stats as Sample['stats'] };
}

test('a line has what has happened since the last one, a second', () => {
  const line = statsLine(sample(3_000, 750_000, 30), sample(1_000, 0, 10));
  assert.is(
    `\n${statsHeading}\n${line}`,
    `
  loops      open  accept/s    moves  rescues      in/s     out/s  lag ms  inbox
    1/2        12        10        4        1    750 kB    1.5 MB     120      6`,
  );
  const nothing = statsLine(sample(2_000, 0, 10), sample(1_000, 0, 10));
  assert.match(nothing, / 0 +4 +1 +0 B +0 B +1\.0 +6$/);
});

test('the heading comes again, and it ends', async () => {
  const group = { stats: () => sample(0, 0, 0).stats, loops: [] } as unknown as LoopGroup;
  const lines: string[] = [];
  await new Promise<void>((resolve) => {
    const stop = printStats(group, 1, (line) => {
      lines.push(line);
      if (lines.length < 43) return;
      stop();
      resolve();
    });
  });
  const headings = lines
    .map((line, at) => (line === statsHeading ? at : -1))
    .filter((at) => at >= 0);
  assert.equal(headings, [0, 21, 42]);
});

test('handshakes that have failed have a line of their own, with the reasons', async () => {
  const failed = { 'not TLS': 2, 'no shared cipher': 0, timeout: 1 };
  let asked = 0;
  const numbers = () => ({
    ...sample(0, 0, 0).stats,
    handshakesFailed: asked++ < 2 ? 0 : 3,
    handshakeFailures: failed,
  });
  const group = { stats: numbers, loops: [] } as unknown as LoopGroup;
  const lines: string[] = [];
  await new Promise<void>((resolve) => {
    const stop = printStats(group, 1, (line) => {
      lines.push(line);
      if (lines.length < 6) return;
      stop();
      resolve();
    });
  });
  // The heading, a second without any, the one in which they failed, and those after it.
  assert.is(lines[3], 'handshakes failed: 3 (not TLS 2, timeout 1)');
  assert.is(lines.filter((line) => line.includes('handshakes')).length, 1);
});

test('a running server says a line a second, without colours in a pipe', async () => {
  const flags = ['--port', '0', '--loops', '2', '--stats', '--rebalance'];
  const cli = new Cli(['serve', 'echo', ...flags], { FORCE_COLOR: '1' });
  const port = Number((await cli.seen('stdout', /:(\d+)\S*\n/))[1]);
  const socket = await open(port);
  socket.write('hello');
  await once(socket, 'data');
  await cli.seen('stdout', /\n +loops +open .* inbox\n/);
  await cli.seen('stdout', /\n +2\/2 +1 +\d+ +0 +0 +[\d.]+ k?B +[\d.]+ k?B +[\d.]+ +\d+\n/);
  socket.destroy();
  cli.kill('SIGTERM');
  const { code, stdout } = await cli.ended;
  assert.is(code, 0);
  // Only the banner has some.
  const table = stdout.slice(stdout.indexOf(statsHeading.trim()));
  assert.ok(table.length > 0 && !table.includes('\u001b'), table);
});

test.run();
