// Runs the compiled tests: every dist/test/**/*.test.js is a process of its own, so that a crash,
// an endless loop or a leaked handle in one of them is a failure of that one and of nothing else.
//
//   node test/run.mjs [--verbose] [--all | --arm64 | --emulated | --once] [--without=PART,PART]
//                     [part of a file's name ...]
//
// What takes long and seldom fails is left out unless it is named, or with --all: what is compiled
// for other systems (cross/), the portable build of the addon, the core without a sanitizer, and the
// files marked [emulated].
// ML_TEST_JOBS is how many run at a time (2), ML_TEST_TIMEOUT how many seconds one may take (240).
// A file named *.serial.test.ts runs alone, after the others. uvu prints a summary but neither ends
// a process that still has handles open nor fails when a file has no summary; both are done here.
//
// The files of test/event that go over every backend run once more, marked [io_uring], over that one,
// and with --all or, alone, --emulated once more, marked [emulated], over those of other kernels,
// with an addon that has emulations of these (test/emulation). With --arm64 nothing runs but files of
// test/event, marked [linux-arm64], by Node for that processor under qemu-user and with the addon for
// it (native/cross.mjs); without those it is skipped.

import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import { arm64Runner } from '../native/cross.mjs';
import { buildEmulated } from './emulation/build.mjs';

const top = fileURLToPath(new URL('../dist/test/', import.meta.url));
const jobs = numberFrom('ML_TEST_JOBS', 2);
const timeoutMs = numberFrom('ML_TEST_TIMEOUT', 240) * 1000;
// How long a process may live after its summary: closing sockets and threads takes a moment.
const lingerMs = 5000;

const names = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const verbose = process.argv.includes('--verbose');
const onArm64 = process.argv.includes('--arm64');
const once = process.argv.includes('--once');
const isAll = process.argv.includes('--all');
const isEmulated = process.argv.includes('--emulated');
/** By the beginning of a file's name. */
const long = ['cross/', 'portable.', 'core_plain.'];
const without = process.argv
  .filter((argument) => argument.startsWith('--without='))
  .flatMap((argument) => argument.slice('--without='.length).split(','));

function numberFrom(variable, otherwise) {
  const value = Number(process.env[variable] ?? otherwise);
  if (value > 0) return value;
  console.error(`${variable} must be a number above 0, not '${process.env[variable]}'.`);
  process.exit(2);
}

// ── one file ────────────────────────────────────────────────────────────────────────────────────

const running = new Set();

function killGroup(child) {
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // Every process of the group has ended.
  }
}

/** uvu's closing lines. Its total leaves out what was skipped. */
function parseSummary(output) {
  const text = stripVTControlCharacters(output);
  const match = text.match(/^ {2}Total: +(\d+)\n {2}Passed: +(\d+)\n {2}Skipped: +(\d+)\n/m);
  if (!match) return undefined;
  const [total, passed, skipped] = match.slice(1).map(Number);
  return { passed, failed: total - passed, skipped };
}

function runFile({ file, label = '', env = {}, program = process.execPath }) {
  return new Promise((resolve) => {
    const begin = performance.now();
    const child = spawn(program, [join(top, file)], {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      env: { ...process.env, ...env },
    });
    running.add(child);
    const chunks = [];
    let killedFor;
    const killFor = (reason) => {
      killedFor = reason;
      killGroup(child);
    };
    const seconds = timeoutMs / 1000;
    const hard = setTimeout(() => killFor(`it did not end within ${seconds} seconds`), timeoutMs);
    let linger;
    const collect = (chunk) => {
      chunks.push(chunk);
      if (linger || !String(chunk).includes('Duration:')) return;
      if (!parseSummary(Buffer.concat(chunks).toString())) return;
      const leaked = 'it finished its tests but did not exit: a handle is leaked';
      linger = setTimeout(() => killFor(leaked), lingerMs);
    };
    child.stdout.on('data', collect);
    child.stderr.on('data', collect);
    child.on('error', (error) => chunks.push(Buffer.from(`${error.message}\n`)));
    // A process that the test has left behind would keep its output open, and would disturb others.
    child.on('exit', () => killGroup(child));
    child.on('close', (code, signal) => {
      clearTimeout(hard);
      clearTimeout(linger);
      running.delete(child);
      const output = Buffer.concat(chunks).toString();
      const counts = parseSummary(output);
      resolve({
        name: file.replace(/\.test\.js$/, label),
        output,
        ms: performance.now() - begin,
        counts: counts ?? { passed: 0, failed: 0, skipped: 0 },
        problem: killedFor ?? findProblem(counts, code, signal),
      });
    });
  });
}

/** What is wrong with a file beyond the failed tests that it has counted itself. */
function findProblem(counts, code, signal) {
  if (signal) return `it died of ${signal}`;
  if (!counts) return `it ended with exit code ${code} and without uvu's summary (test.run()?)`;
  if (code !== 0 && counts.failed === 0) return `its tests passed but its exit code is ${code}`;
  return undefined;
}

// ── all of them ─────────────────────────────────────────────────────────────────────────────────

const totals = { passed: 0, failed: 0, skipped: 0 };

function report({ name, output, ms, counts, problem }) {
  const failed = counts.failed + (problem ? 1 : 0);
  totals.passed += counts.passed;
  totals.failed += failed;
  totals.skipped += counts.skipped;
  const parts = [`${counts.passed} passed`];
  if (counts.failed > 0) parts.push(`${counts.failed} failed`);
  if (counts.skipped > 0) parts.push(`${counts.skipped} skipped`);
  const head = `${failed > 0 ? 'FAIL' : 'ok  '}  ${name}`.padEnd(46);
  console.log(`${head}  ${parts.join(', ')}  ${(ms / 1000).toFixed(1)} s`);
  if (problem) console.log(`      ${problem}`);
  const shown = failed > 0 || verbose ? output.trimEnd() : '';
  if (shown) console.log(shown.replace(/^(?=.)/gm, '      | '));
}

async function runAll(files, width) {
  const queue = [...files];
  const lane = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      report(await runFile(next));
    }
  };
  await Promise.all(Array.from({ length: width }, lane));
}

function findFiles() {
  if (!existsSync(top)) return [];
  const all = readdirSync(top, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.test.js'))
    .map((entry) => relative(top, join(entry.parentPath ?? entry.path, entry.name)));
  const isAsked = (file) =>
    names.length === 0
      ? isAll || !long.some((name) => file.startsWith(name))
      : names.some((name) => file.includes(name));
  const isLeftOut = (file) => without.some((name) => file.includes(name));
  return all.filter((file) => isAsked(file) && !isLeftOut(file)).sort();
}

const goesOverBackends = ({ file }) =>
  file.startsWith('event/') &&
  /\b(behaviour|settings|testedBackends)\b/.test(readFileSync(join(top, file), 'utf8'));

/**
 * io_uring has processes of its own. A ring that is closed interrupts the thread that had it once
 * more, some 20 ms later (Linux, io_uring.c, io_ring_exit_work), and a wait of epoll's that is
 * interrupted is one turn more than a test may expect.
 */
function apart(files) {
  if (process.platform !== 'linux' || process.env.ML_PORTABLE === '1') return files;
  const others = { ML_TEST_BACKENDS: 'evport,kqueue,epoll,devpoll,poll,select' };
  const ring = { ML_TEST_BACKENDS: 'io_uring' };
  return files.flatMap((one) =>
    goesOverBackends(one)
      ? [{ ...one, env: others }, ...(once ? [] : [{ ...one, env: ring, label: ' [io_uring]' }])]
      : [one],
  );
}

/** Once more, over the backends that have to be emulated here. */
async function emulatedRuns(files) {
  // In the portable build they would be the same: it has none of them.
  if (!(isAll || isEmulated) || process.env.ML_PORTABLE === '1') return [];
  const again = files.filter(goesOverBackends);
  if (again.length === 0) return [];
  const {
    backends = [],
    env,
    missing,
  } = await buildEmulated().catch(({ message }) => {
    totals.failed += 1;
    console.log(`FAIL  the addon of the files marked [emulated]: ${message}`);
    return {};
  });
  if (missing !== undefined) console.log(`Skipped: the files marked [emulated]: ${missing}`);
  if (backends.length === 0) return [];
  const settings = { ...env, ML_TEST_BACKENDS: backends.join(',') };
  return again.map(({ file }) => ({ file, env: settings, label: ' [emulated]' }));
}

/** What qemu's user emulation (7.2) cannot do, by the beginning of a file's name. */
const beyondQemu = {
  'event/signal': 'it has fewer real-time signals than Linux',
  'event/drive_end': 'it hangs when threads are ended in the middle of their work',
  'event/drive.serial': 'what is measured there is its translator',
};
// Its select(2) has room for 1,024 descriptors and writes past that.
const backendsOnQemu = 'epoll,poll';

/** By Node for another processor, as far as it is emulated. */
async function arm64Runs(files) {
  const { program, addon, missing } = await arm64Runner();
  if (missing !== undefined) {
    console.log(`Skipped: the files marked [linux-arm64]: ${missing}`);
    totals.skipped += 1;
    return [];
  }
  const env = { MULTILOOP_ADDON: addon, ML_TEST_BACKENDS: backendsOnQemu, ML_TEST_QEMU: '1' };
  const isBeyond = ({ file }) => Object.keys(beyondQemu).some((name) => file.startsWith(name));
  const those = files.filter(({ file }) => file.startsWith('event/'));
  for (const one of those.filter(isBeyond)) {
    const [, reason] = Object.entries(beyondQemu).find(([name]) => one.file.startsWith(name));
    console.log(`Skipped: ${one.file} [linux-arm64]: ${reason}`);
    totals.skipped += 1;
  }
  return those
    .filter((one) => !isBeyond(one))
    .map(({ file }) => ({ file, env, program, label: ' [linux-arm64]' }));
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
]) {
  process.on(signal, () => {
    for (const child of running) killGroup(child);
    process.exit(code);
  });
}

const asked = findFiles().map((file) => ({ file }));
const files = apart(asked);
const isSerial = ({ file }) => file.endsWith('.serial.test.js');
if (onArm64) {
  await runAll(await arm64Runs(asked), jobs);
} else {
  const isParallel = (one) => !isSerial(one);
  const first = isEmulated ? [] : files;
  await runAll(first.filter(isParallel), jobs);
  const again = await emulatedRuns(asked);
  await runAll(again.filter(isParallel), jobs);
  await runAll([...first, ...again].filter(isSerial), 1);
}

const { passed, failed, skipped } = totals;
if (files.length === 0) console.log(`No test file matches ${names.join(', ') || '*.test.ts'}.`);
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed > 0 || passed + skipped === 0 ? 1 : 0;
