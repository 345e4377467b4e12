// The README's TLS connection that lives through a reload: its commands as they stand there, and
// what they say. Only the port is another one, and each `sleep` ends when there is what it is for.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { native } from '../../src/native.js';
import { within } from '../event/support.js';
import { test } from '../hooks.js';
import { testWhere } from '../where.js';
import { cleanUp, scratch } from './cli.js';

test.after(cleanUp);

const PATIENCE_MS = 60_000;
const PORT = 8_443;
/** What each `sleep` of the README waits for, in their order. */
const EVENTS = [/Ctrl-C stops\n/, /^before\n/m, /generation 1 serves.*\n/, /^after\n/m];

const top = new URL('../../../', import.meta.url);
const lacking =
  native.tlsUnavailable() ??
  (spawnSync('openssl', ['version']).status === 0 ? undefined : 'openssl is not installed');

function readmeBlocks(): string[] {
  const readme = readFileSync(new URL('README.md', top), 'utf8');
  const [, section] = readme.split('### A TLS connection that lives through a reload\n');
  const [text] = section.split(/^## /m);
  return [...text.matchAll(/^```(?:sh)?\n([\s\S]*?)^```$/gm)].map((match) => match[1]);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A folder with the programs that the README's reader has. */
function pathWithMultiloop(): string {
  const folder = scratch('bin');
  mkdirSync(folder);
  symlinkSync(process.execPath, join(folder, 'node'));
  symlinkSync(fileURLToPath(new URL('dist/src/cli/main.js', top)), join(folder, 'multiloop'));
  return `${folder}${delimiter}${process.env.PATH}`;
}

/** Runs a script whose `sleep` ends when there is a match for the next of `events`. */
async function runScript(path: string, script: string, events: RegExp[]): Promise<string> {
  // Descriptor 3 is read by whoever sleeps.
  const child: ChildProcess = spawn(
    'bash',
    ['-c', `exec 2>&1\nsleep() { read -r -u 3; }\n${script}`],
    {
      cwd: scratch('.'),
      env: { ...process.env, PATH: path, NO_COLOR: '1' },
      stdio: ['ignore', 'pipe', 'ignore', 'pipe'],
      detached: true,
    },
  );
  const wake = child.stdio[3] as NodeJS.WritableStream;
  wake.on('error', () => undefined);
  const left = [...events];
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (more: string) => {
    text += more;
    while (left.length > 0 && left[0].test(text)) {
      left.shift();
      wake.write('\n');
    }
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  try {
    await within(PATIENCE_MS, ended, 'the end of the script').catch((error) => {
      throw new Error(`${error.message}; it has said:\n${text}`);
    });
  } finally {
    if (child.exitCode === null) process.kill(-(child.pid as number), 'SIGKILL');
  }
  return text;
}

/** What differs from one machine, one version of OpenSSL and one run to the next. */
const general = (line: string) =>
  line
    .replace(/^multiloop \d+\.\d+\.\d+ +/, 'multiloop ')
    .replace(/^(Ciphersuite|Server Temp Key|Peer certificate|stopping|2 loops).*/, '$1')
    .replace(/\d+ ms$/, 'ms')
    .replace(/:\d+$/, ':port');
/** OpenSSL 3.0 says it of a client without a name; 3.2 has other words for the last line. */
const isNoise = (line: string) => /^(Can't use SSL_get_servername|DONE|.*Temp Key.*|)$/.test(line);
const lines = (text: string) =>
  text
    .split('\n')
    .filter((line) => !isNoise(line))
    .map(general)
    .sort();

testWhere(lacking, "the README's commands do what it says", async () => {
  const [making, serving, output] = readmeBlocks();
  assert.ok(serving.includes(`:${PORT}`));
  const path = pathWithMultiloop();
  const made = await runScript(path, making, []);
  const port = await freePort();
  const said = await runScript(path, serving.replaceAll(String(PORT), String(port)), EVENTS);
  assert.equal(lines(said), lines(output), `${made}\n${said}`);
});

test.run();
