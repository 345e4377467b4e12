// The clients that people have at hand, where the machine has them: curl, nc, wrk.

import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import * as assert from 'uvu/assert';
import { type LoopGroup, serve } from '../../src/index.js';
import { test } from '../hooks.js';
import { portOf, until } from './clients.js';

const run = promisify(execFile);
const worker = (name: string) => new URL(`../../workers/${name}.js`, import.meta.url);

/** A test that needs a program; without it, it is skipped by name. */
function withTool(tool: string, name: string, body: () => Promise<void>): void {
  let there = true;
  try {
    execFileSync('sh', ['-c', `command -v ${tool}`], { stdio: 'ignore' });
  } catch {
    there = false;
  }
  if (there) test(`${tool}: ${name}`, body);
  else test.skip(`${tool} is not on this machine: ${name}`, body);
}

let group: LoopGroup | undefined;
test.after.each(async () => {
  await group?.close();
  group = undefined;
});

withTool('curl', 'gets the page from both loops, and twice over one connection', async () => {
  group = await serve({ worker: worker('http'), loops: 2 });
  const url = `http://127.0.0.1:${portOf(group)}/loop.json`;
  const once = async () => JSON.parse((await run('curl', ['-sS', '-m', '10', url])).stdout);
  const loops = new Set([(await once()).loop, (await once()).loop]);
  assert.equal([...loops].sort(), [0, 1]);
  const { stdout } = await run('curl', ['-sS', '-m', '10', url, url]);
  const [first, second] = (stdout.match(/\{.*?\}/g) ?? []).map((text) => JSON.parse(text));
  assert.is(first.loop, second.loop);
  assert.is(second.requests, first.requests + 1);
});

withTool('nc', 'has its line echoed and ends', async () => {
  group = await serve({ worker: worker('echo'), loops: 1 });
  const command = `printf 'hello\\n' | nc -q 1 -w 5 127.0.0.1 ${portOf(group)}`;
  assert.is((await run('sh', ['-c', command], { timeout: 20_000 })).stdout, 'hello\n');
  const running = group;
  await until(() => running.stats().served === 1, 'nc is gone');
});

withTool('wrk', 'sees no error over 50 connections, which take turns', async () => {
  let difference = Infinity;
  // A loop that is in a turn of 5 ms with somebody waiting is passed over: on a busy machine once,
  // but not again and again.
  for (let i = 0; i < 3 && difference > 1; i++) {
    await group?.close();
    group = await serve({ worker: worker('http'), loops: 2 });
    const url = `http://127.0.0.1:${portOf(group)}/loop.json`;
    const { stdout } = await run('wrk', ['-t1', '-c50', '-d1s', url], { timeout: 20_000 });
    assert.not.match(stdout, /Socket errors|Non-2xx/);
    assert.match(stdout, /requests in/);
    const [first, second] = group.stats().loops.map((loop) => loop.accepted);
    difference = Math.abs(first - second);
  }
  assert.ok(difference <= 1, `one loop got ${difference} more`);
});

test.run();
