// What the scripts in this folder share: where the native addon may be, whether the one that was
// built here is up to date, and how it is compiled. It has no dependencies, because it runs before
// there are any, on the machine of whoever installs the package.

import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../', import.meta.url));
export const builtAddon = join(root, 'build/Release/multiloop.node');

const stampFile = join(root, 'build/multiloop.stamp');
const logFile = join(root, 'build.log');
const lockDir = join(root, '.setup.lock');

/** A failure that has been explained: its message is all that a script prints before it exits. */
export class Failure extends Error {}

/** Runs the body of a script and turns what it throws into one message and exit code 1. */
export async function main(body) {
  try {
    await body();
  } catch (error) {
    process.stderr.write(`multiloop: ${error instanceof Failure ? error.message : error?.stack}\n`);
    process.exit(1);
  }
}

/** True if this script is what Node was started with, false if another module imported it. */
export function isMain(url) {
  return process.argv[1] !== undefined && fs.realpathSync(process.argv[1]) === fileURLToPath(url);
}

// ── where it is ─────────────────────────────────────────────────────────────────────────────────

/** Linux has two C libraries, and a binary for one does not load under the other. */
function isMusl() {
  if (process.platform !== 'linux') return false;
  // The report would otherwise look up the names of the peers of open sockets.
  process.report.excludeNetwork = true;
  return process.report.getReport().header.glibcVersionRuntime === undefined;
}

export function prebuiltAddon() {
  const libc = isMusl() ? '-musl' : '';
  return join(root, `prebuilds/${process.platform}-${process.arch}${libc}.node`);
}

/** Tries an addon in a child process, since one that is broken may take its process down. */
export function loads(file) {
  const args = ['-e', 'require(process.argv[1])', file];
  const child = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 });
  const why = child.error?.message ?? child.stderr.match(/^Error: .*/m)?.[0] ?? child.signal;
  return child.status === 0 ? { ok: true } : { ok: false, why: why ?? `exit code ${child.status}` };
}

// ── whether it is up to date ────────────────────────────────────────────────────────────────────

/** Every file below a folder, as paths relative to the project's root, sorted. */
export function filesBelow(folder) {
  const top = join(root, folder);
  if (!fs.existsSync(top)) return [];
  const entries = fs.readdirSync(top, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  // parentPath is what path is called since Node 20.12.
  return files
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .sort();
}

/** What identifies the state of some files without reading them. */
export function fingerprint(files) {
  const state = {};
  for (const file of files) {
    const stat = fs.statSync(join(root, file), { throwIfNoEntry: false });
    if (stat) state[file] = `${stat.mtimeMs} ${stat.size}`;
  }
  return state;
}

export function readJson(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
}

function addonSources() {
  const isTest = /(^|\/)tests?\/|_test\./;
  const files = filesBelow('native').filter((file) => /\.(cc|h)$/.test(file) && !isTest.test(file));
  return ['binding.gyp', ...files];
}

/**
 * Whether ML_PORTABLE asks for the addon without what only this machine's kernel has. The two
 * builds have one place, and one replaces the other: all threads of a process must load the same,
 * whatever their environment says by then.
 */
export function wantsPortable() {
  const value = process.env.ML_PORTABLE ?? '';
  if (value !== '' && value !== '0' && value !== '1')
    throw new Failure(`ML_PORTABLE must be 1, or 0 as if it were not set, not '${value}'.`);
  return value === '1';
}

/** The headers that the addon is compiled against and that are not ours. */
function toolchain() {
  const { modules, uv } = process.versions;
  const require = createRequire(join(root, 'package.json'));
  let api = 'missing';
  try {
    api = require('node-addon-api/package.json').version;
  } catch {
    // The compiler will say so.
  }
  const target = `${process.platform}-${process.arch}`;
  return `${target} modules-${modules} uv-${uv.split('.')[0]} node-addon-api-${api}`;
}

function stateOfBuild() {
  return {
    toolchain: toolchain(),
    portable: wantsPortable(),
    sources: fingerprint(addonSources()),
    output: fingerprint([relative(root, builtAddon)]),
  };
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/**
 * 'ours': compile() below made the addon from the sources as they are now. 'by hand': somebody ran
 * node-gyp, for example with a sanitizer, and no source is newer. 'stale': neither, and one by hand
 * where ML_PORTABLE is set, since nothing tells that it is what that asks for.
 */
export function builtFrom() {
  const output = fs.statSync(builtAddon, { throwIfNoEntry: false });
  if (!output) return 'stale';
  const now = stateOfBuild();
  const stamp = readJson(stampFile);
  if (stamp && same(stamp.output, now.output)) return same(stamp, now) ? 'ours' : 'stale';
  const isNewer = (file) => fs.statSync(join(root, file)).mtimeMs > output.mtimeMs;
  return wantsPortable() || addonSources().some(isNewer) ? 'stale' : 'by hand';
}

// ── how it is compiled ──────────────────────────────────────────────────────────────────────────

/** Node's own headers, if they were installed with it: then node-gyp has nothing to download. */
export function findHeaders() {
  const beside = dirname(dirname(process.execPath));
  try {
    const header = fs.readFileSync(join(beside, 'include/node/node_version.h'), 'utf8');
    const part = (name) => header.match(new RegExp(`#define NODE_${name}_VERSION (\\d+)`))?.[1];
    const version = ['MAJOR', 'MINOR', 'PATCH'].map(part).join('.');
    if (version === process.versions.node) return beside;
  } catch {
    // This Node came without headers.
  }
  return process.env.npm_config_nodedir;
}

function findNodeGyp() {
  const inside = 'node_modules/node-gyp/bin/node-gyp.js';
  const candidates = [
    process.env.npm_config_node_gyp,
    process.env.npm_execpath && join(dirname(dirname(process.env.npm_execpath)), inside),
    join(dirname(dirname(process.execPath)), 'lib/node_modules/npm', inside),
  ];
  const script = candidates.find((file) => file?.endsWith('.js') && fs.existsSync(file));
  if (script) return [process.execPath, script];
  const onPath = findOnPath('node-gyp');
  return onPath ? [onPath] : undefined;
}

export function findOnPath(name) {
  const folders = (process.env.PATH ?? '').split(delimiter);
  return folders
    .map((folder) => join(folder, name))
    .find((file) => {
      return quietly(() => fs.accessSync(file, fs.constants.X_OK), 'ENOENT', 'EACCES', 'ENOTDIR');
    });
}

/**
 * Runs a command in a process group of its own and collects its output. If this process is told to
 * end, the whole group is, so that no compiler goes on writing behind the next set-up's back.
 * Without `timeoutMs` it may take as long as it likes.
 */
export function run(command, args, env = process.env, timeoutMs = 0) {
  return new Promise((resolve) => {
    const stdio = ['ignore', 'pipe', 'pipe'];
    const child = spawn(command, args, { cwd: root, env, stdio, detached: true });
    const chunks = [];
    child.stdout.on('data', (chunk) => chunks.push(chunk));
    child.stderr.on('data', (chunk) => chunks.push(chunk));
    const codes = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 };
    const stop = (signal) => {
      if (child.pid) process.kill(-child.pid, 'SIGTERM');
      process.exit(codes[signal]);
    };
    for (const signal of Object.keys(codes)) process.on(signal, stop);
    const end = () => child.pid && process.kill(-child.pid, 'SIGKILL');
    const timer = timeoutMs > 0 ? setTimeout(end, timeoutMs) : undefined;
    const done = (ok, note = '') => {
      clearTimeout(timer);
      for (const signal of Object.keys(codes)) process.off(signal, stop);
      resolve({ ok, output: Buffer.concat(chunks).toString() + note });
    };
    child.on('error', (error) => done(false, `${error.message}\n`));
    child.on('close', (code, signal) => done(code === 0, signal ? `ended by ${signal}\n` : ''));
  });
}

/** The last lines that say something: node-gyp closes with a dozen lines about itself. */
export function tail(output, count) {
  const noise =
    /^gyp (info|http)|^gyp ERR! (build|configure|stack +at|System|command|cwd|node|not ok|\$)/;
  const lines = output.split('\n').filter((line) => line.trim() !== '' && !noise.test(line));
  return lines
    .slice(-count)
    .map((line) => `    ${line}`)
    .join('\n');
}

function explain(tried, output) {
  const missing = ['python3', 'make', 'g++'].filter((tool) => !findOnPath(tool));
  const absent = missing.length > 0 ? ` Not found on this machine: ${missing.join(', ')}.` : '';
  const known = fs.existsSync(logFile) ? ` (all of it is in ${logFile})` : '';
  return `the native addon could not be built.
  Tried: ${tried}
  The end of the output${known}:
${tail(output, 15)}
  A build needs python3, make and g++: apt-get install python3 make g++ (Debian, Ubuntu).${absent}
  npm from version 11 and pnpm build a dependency only after its script has been approved:
    npm install-scripts approve multiloop && npm rebuild multiloop
    pnpm approve-builds && pnpm rebuild multiloop`;
}

/** What node-gyp has made. Its own `rebuild` would remove what others keep in the folder too. */
function removeBuild() {
  const build = join(root, 'build');
  if (!fs.existsSync(build)) return;
  const its = /^(Release|Debug|Makefile|binding\.Makefile|config\.gypi|.*\.target\.mk)$/;
  for (const name of fs.readdirSync(build))
    if (its.test(name)) fs.rmSync(join(build, name), { recursive: true });
}

/** Compiles the addon, only what has changed where that is safe, and proves that it loads. */
export async function compile({ clean = false } = {}) {
  const gyp = findNodeGyp();
  if (!gyp) throw new Failure(explain('to find node-gyp, which comes with npm', ''));
  const headers = findHeaders();
  const before = stateOfBuild();
  const stamp = readJson(stampFile);
  // make cannot continue a build when a header that it knows of is gone, and it does not notice
  // that headers outside the project are others.
  const isKept = (file) => file in before.sources;
  const canContinue =
    stamp?.toolchain === before.toolchain && Object.keys(stamp.sources).every(isKept);
  // It does notice other flags, and so ML_PORTABLE.
  if (!canContinue || clean) removeBuild();
  const args = [...gyp.slice(1), 'configure', 'build', '-j', 'max'];
  if (headers) args.push(`--nodedir=${headers}`);
  // Not after a --, since what is there goes to make as well.
  if (wantsPortable()) args.push('--portable=1');

  // binding.gyp asks `node` where things are, and it should be this one.
  const path = dirname(process.execPath) + delimiter + (process.env.PATH ?? '');
  const { ok, output } = await run(gyp[0], args, { ...process.env, PATH: path });
  const tried = [gyp[0], ...args].join(' ');
  fs.writeFileSync(logFile, `${tried}\n${output}`);
  if (!ok) throw new Failure(explain(tried, output));
  const trial = loads(builtAddon);
  if (!trial.ok) throw new Failure(explain(tried, `It was built but does not load: ${trial.why}`));
  // The sources are those from before: one that changed meanwhile is compiled by the next set-up.
  const { output: built } = stateOfBuild();
  fs.writeFileSync(stampFile, JSON.stringify({ ...before, output: built }));
}

// ── one at a time ───────────────────────────────────────────────────────────────────────────────

/** When a process began, so that a lock's owner is not mistaken for a later one with its number. */
function startOf(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return '0';
  }
}

function isAlive(pid, start) {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error.code === 'ESRCH') return false;
  }
  return startOf(pid) === start;
}

const quietly = (call, ...expected) => {
  try {
    call();
    return true;
  } catch (error) {
    if (expected.includes(error.code)) return false;
    throw error;
  }
};

/**
 * Runs `body` while no other set-up runs in this folder. The lock is a folder that holds a file
 * named after its owner. It is taken by renaming a prepared folder, which fails while the target
 * has anything in it; and it is broken, when its owner is dead, by removing the owner's file, so
 * that nobody can break the lock of anyone but the process that was found dead.
 */
export async function withLock(body) {
  const owner = `${process.pid}-${startOf(process.pid)}`;
  const mine = `${lockDir}-${process.pid}`;
  fs.mkdirSync(mine, { recursive: true });
  fs.writeFileSync(join(mine, owner), '');
  let told = false;
  while (!quietly(() => fs.renameSync(mine, lockDir), 'ENOTEMPTY', 'EEXIST')) {
    const holder = fs.existsSync(lockDir) ? fs.readdirSync(lockDir)[0] : undefined;
    if (holder === undefined) continue;
    const [pid, start] = holder.split('-');
    if (!isAlive(Number(pid), start)) {
      quietly(() => fs.unlinkSync(join(lockDir, holder)), 'ENOENT');
      continue;
    }
    if (!told) process.stderr.write(`multiloop: waiting for the set-up of process ${pid} …\n`);
    told = true;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const release = () => {
    quietly(() => fs.unlinkSync(join(lockDir, owner)), 'ENOENT');
    quietly(() => fs.rmdirSync(lockDir), 'ENOENT', 'ENOTEMPTY', 'EEXIST');
  };
  process.on('exit', release);
  try {
    return await body();
  } finally {
    process.off('exit', release);
    release();
  }
}
