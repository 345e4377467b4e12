// What a user gets: the tarball is packed, installed in an empty project without its install
// script, as npm does for a package whose script nobody has approved, and used there by name.
//
// The tarball is packed without `prepack`, whose fresh build would replace the addon under whatever
// else runs in this folder; the part of it that is not a repetition of the set-up is called here.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const project = fileURLToPath(new URL('../../', import.meta.url));
const addon = await import(new URL('../../native/addon.mjs', import.meta.url).href);
const prebuilt = addon.prebuiltAddon() as string;

const folder = mkdtempSync(join(tmpdir(), 'multiloop-package-'));
const app = join(folder, 'app');
const installed = join(app, 'node_modules/multiloop');
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

interface Outcome {
  ok: boolean;
  stdout: string;
  all: string;
}

function run(cwd: string, command: string, ...args: string[]): Outcome {
  const child = spawnSync(command, args, { cwd, encoding: 'utf8', timeout: 90_000 });
  const all = `${command} ${args.join(' ')}\n${child.stdout}${child.stderr}${child.error ?? ''}`;
  return { ok: child.status === 0, stdout: child.stdout, all };
}

function mustRun(cwd: string, command: string, ...args: string[]): string {
  const outcome = run(cwd, command, ...args);
  if (!outcome.ok) throw new Error(outcome.all);
  return outcome.stdout;
}

interface Packed {
  filename: string;
  files: { path: string; mode: number }[];
}

function pack(): Packed {
  const wasThere = existsSync(prebuilt);
  try {
    mustRun(project, process.execPath, 'native/prebuild.mjs');
    const args = ['pack', '--ignore-scripts', '--json', '--pack-destination', folder];
    return JSON.parse(mustRun(project, 'npm', ...args))[0];
  } finally {
    // An npm install in this clone would otherwise take it for an addon that is up to date.
    if (!wasThere) rmSync(prebuilt, { force: true });
  }
}

/** Installs the tarball; answers why that is impossible where no registry can be reached. */
function install(tarball: string): string | undefined {
  mkdirSync(app);
  writeFileSync(join(app, 'package.json'), '{ "private": true, "type": "module" }\n');
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--fetch-retries=0'];
  const outcome = run(app, 'npm', 'install', '--prefer-offline', ...quiet, tarball);
  if (outcome.ok) return undefined;
  const network = /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|ETIMEDOUT|ENOTCACHED)\b/;
  const code = outcome.all.match(network)?.[1];
  if (code === undefined) throw new Error(outcome.all);
  return `no registry can be reached (${code})`;
}

const packed = pack();
const unreachable = install(join(folder, packed.filename));
if (unreachable) console.log(`The installed package is not tried: ${unreachable}.`);
const whenInstalled = unreachable ? test.skip : test;

test('the tarball holds what a user needs and nothing else', () => {
  const paths = packed.files.map((file) => file.path);
  const needed = [
    relative(project, prebuilt),
    'binding.gyp',
    'dist/src/cli/main.js',
    'dist/src/http.d.ts',
    'dist/src/http.js',
    'dist/src/index.d.ts',
    'dist/src/index.js',
    'LICENSE',
    'native/addon.mjs',
    'native/binding/addon.cc',
    'native/install.mjs',
    'package.json',
    'README.md',
    'src/index.ts',
  ];
  const missing = needed.filter((path) => !paths.includes(path));
  assert.equal(missing, [], 'missing from the tarball');

  const folders = /^(dist\/(src|workers)|src|workers|native|prebuilds)\//;
  const topLevel = /^(binding\.gyp|package\.json|LICENSE|[A-Z]+\.md)$/;
  const foreign = /(^|\/)tests?\/|[._]test\.|\.(log|stamp|tsbuildinfo|o)$/;
  const extra = paths.filter((path) => {
    return !(folders.test(path) || topLevel.test(path)) || foreign.test(path);
  });
  assert.equal(extra, [], 'in the tarball without need');
  assert.is(paths.filter((path) => path.startsWith('native/core/')).length > 0, true);

  const command = packed.files.find((file) => file.path === 'dist/src/cli/main.js');
  assert.is((command?.mode ?? 0) & 0o111, 0o111, 'the command line is executable');
});

const script = `
import { once } from 'node:events';
import { connect } from 'node:net';
import { isMainThread } from 'node:worker_threads';
import { defineWorker, serve } from 'multiloop';

export default defineWorker({ data: (conn, chunk) => void conn.write(chunk) });

if (isMainThread) {
  const group = await serve({ worker: import.meta.url, loops: 2 });
  const socket = connect(group.addresses[0].port, '127.0.0.1');
  socket.write('hello');
  const [answer] = await once(socket, 'data');
  socket.destroy();
  await group.close();
  console.log(String(answer) === 'hello' ? 'OK' : 'the answer was ' + answer);
}
`;

whenInstalled('an installed package serves from its prebuilt addon, without any build', () => {
  writeFileSync(join(app, 'echo.mjs'), script);
  assert.is(mustRun(app, process.execPath, 'echo.mjs'), 'OK\n');
  assert.is(existsSync(join(installed, 'build')), false);
  assert.match(mustRun(app, 'npx', '--no-install', 'multiloop', '--version'), /\d+\.\d+\.\d+/);
});

whenInstalled('without an addon, the error names the commands that bring one', () => {
  rmSync(join(installed, 'prebuilds'), { recursive: true });
  const report = "import('multiloop').catch((e) => console.log(e.code + '\\n' + e.message))";
  const [code, ...message] = mustRun(app, process.execPath, '-e', report).split('\n');
  assert.is(code, 'ERR_ADDON_LOAD');
  assert.match(message.join('\n'), 'npm install-scripts approve multiloop');
  assert.match(message.join('\n'), 'npm rebuild multiloop');
  assert.match(message.join('\n'), 'pnpm approve-builds');
});

whenInstalled('the install script builds the addon from the sources in the package', () => {
  mustRun(installed, process.execPath, 'native/install.mjs');
  assert.is(mustRun(app, process.execPath, 'echo.mjs'), 'OK\n');
});

test.run();
