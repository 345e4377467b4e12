// The core without Node: test/core/*.cc and native/core are compiled to one program, plain, under
// ASan with UBSan, and under TSan, and each is run. Objects are kept in build/core-tests, so that
// only what has changed is compiled again. The interfaces of other kernels are those of
// test/emulation, so the backends on them are tested like the others. ML_PORTABLE=1 tests the
// portable core in their place.

import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const compiler = 'g++';
const compileJobs = 2;
const runSeconds = 150;
const tailLines = 60;

const warnings = ['-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Werror'];
const language = ['-std=c++20', '-fno-exceptions', '-fno-rtti', '-pthread'];
const isPortable = process.env.ML_PORTABLE === '1';
const kernels = isPortable ? ['-DML_PORTABLE'] : ['-DML_EMULATE', '-Itest/emulation/include'];
/** The tests of other kernels' interfaces. */
const emulated = /^(kqueue|evport|devpoll)\w*_test\.cc$|_emulation_test\.cc$/;
// A report needs files and lines; all that a debugger likes would take half as long again.
const common = [...language, ...kernels, ...warnings, '-O1', '-g1'];
/** Compiled once for a variant: reading these is more than a third of the work of every unit. */
const prefix = [
  'algorithm',
  'atomic',
  'functional',
  'memory',
  'mutex',
  'string',
  'thread',
  'vector',
]
  .map((header) => `#include <${header}>\n`)
  .join('');
const wraps = isPortable ? [] : ['-Wl,--wrap=close,--wrap=dup2,--wrap=dup3'];
const linker = ['-pthread', ...wraps];

interface Variant {
  name: string;
  flags: string[];
  env: Record<string, string>;
}

const all: Variant[] = [
  { name: 'plain', flags: [], env: {} },
  {
    name: 'address-undefined',
    flags: ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'],
    env: {
      ASAN_OPTIONS: 'detect_leaks=1:detect_stack_use_after_return=1',
      UBSAN_OPTIONS: 'print_stacktrace=1',
    },
  },
  {
    name: 'thread',
    // GCC warns of every fence, which TSan does not follow. The core's two order what the waker
    // does, not memory that a thread reads unprotected.
    flags: ['-fsanitize=thread', '-Wno-tsan'],
    env: { TSAN_OPTIONS: 'halt_on_error=1' },
  },
];

// ── processes ───────────────────────────────────────────────────────────────────────────────────

interface Outcome {
  ok: boolean;
  output: string;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

function run(
  command: string,
  args: string[],
  seconds: number,
  env: Record<string, string> = {},
): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: seconds * 1000,
      killSignal: 'SIGKILL',
    });
    running.add(child);
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk) => chunks.push(chunk));
    child.stderr.on('data', (chunk) => chunks.push(chunk));
    const settle = (ok: boolean, reason: string) => {
      running.delete(child);
      resolve({ ok, output: Buffer.concat(chunks).toString() + reason });
    };
    child.on('error', (error) => settle(false, error.message));
    child.on('close', (code, signal) => {
      const end = signal ? `${signal}, after at most ${seconds} seconds` : `exit code ${code}`;
      settle(code === 0, code === 0 ? '' : `\n(ended with ${end})`);
    });
  });
}

/** Of the compiler; empty if there is none. */
const version = await run(compiler, ['--version'], 20).then(({ ok, output }) => (ok ? output : ''));

const tail = (text: string) => text.trimEnd().split('\n').slice(-tailLines).join('\n');

// ── compiling ───────────────────────────────────────────────────────────────────────────────────

function sources(): string[] {
  const folders = ['test/core', 'native/core', 'native/core/backend'];
  if (!isPortable) folders.push('test/emulation');
  return folders.flatMap((folder) =>
    readdirSync(join(root, folder))
      .filter((name) => name.endsWith('.cc') && !(isPortable && emulated.test(name)))
      .map((name) => `${folder}/${name}`),
  );
}

const folderOf = (variant: Variant) =>
  join(root, 'build/core-tests', `${isPortable ? 'portable-' : ''}${variant.name}`);

/** Identifies an object: the command that makes it and the contents of all it was made from. */
function keyOf(command: string[], dependencies: string[]): string {
  const hash = createHash('sha256').update(command.join('\0'));
  for (const file of dependencies) {
    const path = join(root, file);
    hash.update(`\0${file}\0`).update(existsSync(path) ? readFileSync(path) : 'gone');
  }
  return hash.digest('hex');
}

/** The files of the project that a make rule written by the compiler names. */
function dependenciesIn(rule: string): string[] {
  const [, list = ''] = readFileSync(rule, 'utf8').replaceAll('\\\n', ' ').split(/:\s/, 2);
  return list.split(/\s+/).filter((name) => name !== '');
}

interface Unit {
  source: string;
  object: string;
  rule: string;
  stamp: string;
  flags: string[];
}

function planUnit(variant: Variant, source: string): Unit {
  const object = join(folderOf(variant), source.replaceAll('/', '_').replace(/\.cc$/, '.o'));
  const flags = [...common, ...variant.flags, '-include', prefixOf(variant), '-c', source];
  return { source, object, rule: `${object}.d`, stamp: `${object}.key`, flags };
}

/** Relative, as the compiler's rules name it. */
const prefixOf = (variant: Variant) => relative(root, join(folderOf(variant), 'prefix.h'));

/** Where it fails the compiler reads the headers themselves. */
async function precompile(variant: Variant): Promise<void> {
  const file = prefixOf(variant);
  const made = `${file}.gch`;
  const stamp = join(root, `${made}.key`);
  const flags = [...common, ...variant.flags, '-x', 'c++-header', file];
  const key = keyOf([version, prefix, ...flags], []);
  if (existsSync(join(root, made)) && existsSync(stamp) && readFileSync(stamp, 'utf8') === key)
    return;
  rmSync(stamp, { force: true });
  writeFileSync(join(root, file), prefix);
  const { ok } = await run(compiler, [...flags, '-o', made], 100);
  if (ok) writeFileSync(stamp, key);
  else rmSync(join(root, made), { force: true });
}

function isCurrent({ object, rule, stamp, flags }: Unit): boolean {
  if (![object, rule, stamp].every((file) => existsSync(file))) return false;
  return readFileSync(stamp, 'utf8') === keyOf([version, prefix, ...flags], dependenciesIn(rule));
}

async function compile({ source, object, rule, stamp, flags }: Unit) {
  rmSync(stamp, { force: true });
  const begin = Date.now();
  const { ok, output } = await run(compiler, [...flags, '-MMD', '-MF', rule, '-o', object], 100);
  if (!ok) throw new Error(`${source} does not compile:\n${tail(output)}`);
  const dependencies = dependenciesIn(rule);
  // One that was edited meanwhile may not be what the compiler read: without a stamp the object is
  // made again the next time.
  if (dependencies.some((file) => statSync(join(root, file)).mtimeMs >= begin)) return;
  writeFileSync(stamp, keyOf([version, prefix, ...flags], dependencies));
}

/** Makes the program of a variant; answers its path. */
async function build(variant: Variant): Promise<string> {
  const program = join(folderOf(variant), 'core-tests');
  const stamp = `${program}.key`;
  const units = sources().map((source) => planUnit(variant, source));
  await precompile(variant);
  const queue = units.filter((unit) => !isCurrent(unit));
  if (queue.length > 0) rmSync(stamp, { force: true });
  const lane = async () => {
    for (let unit = queue.shift(); unit; unit = queue.shift()) {
      await compile(unit).catch((error) => {
        queue.length = 0;
        throw error;
      });
    }
  };
  const lanes = await Promise.allSettled(Array.from({ length: compileJobs }, lane));
  for (const end of lanes) if (end.status === 'rejected') throw end.reason;
  const objects = units.map((unit) => unit.object);
  const key = objects.join('\n');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === key) return program;
  const args = [...variant.flags, ...linker, ...objects, '-o', program];
  const { ok, output } = await run(compiler, args, 100);
  if (!ok) throw new Error(`They do not link:\n${tail(output)}`);
  writeFileSync(stamp, key);
  return program;
}

// ── the tests ───────────────────────────────────────────────────────────────────────────────────

/** Why a variant cannot be made or run on this machine. */
async function findObstacle(variant: Variant): Promise<string | undefined> {
  if (isPortable && variant.name === 'thread')
    return 'what threads share is the same in the ordinary build';
  const folder = folderOf(variant);
  mkdirSync(folder, { recursive: true });
  const [source, program] = [join(folder, 'probe.cc'), join(folder, 'probe')];
  writeFileSync(source, 'int main() { return 0; }\n');
  const made = await run(compiler, [...variant.flags, ...linker, source, '-o', program], 60);
  if (!made.ok) return `${compiler} cannot link it: ${tail(made.output)}`;
  const ran = await run(program, [], 60, variant.env);
  return ran.ok ? undefined : `its runtime does not work here: ${tail(ran.output)}`;
}

async function checkProgram(variant: Variant, program: string) {
  const { ok, output } = await run(program, [], runSeconds, variant.env);
  const counts = output.match(/^(\d+) passed, (\d+) failed$/m);
  const passed = Number(counts?.[1] ?? 0);
  const failed = Number(counts?.[2] ?? 0);
  // Tests that passed say nothing: the tail is for those that did not, and for a sanitizer.
  const rest = output.replace(/^\S+: .* … .*ok \d+ ms\n/gm, '');
  assert.ok(ok && passed > 0 && failed === 0, tail(rest));
}

/** Tests these variants: one is compiled after the other, and while those before it run. */
export async function testCore(...names: string[]): Promise<void> {
  let before: Promise<unknown> = Promise.resolve();
  const asked = all.filter(({ name }) => names.includes(name));
  const obstacles = new Map<string, string | undefined>();
  for (const variant of asked)
    obstacles.set(variant.name, version ? await findObstacle(variant) : `there is no ${compiler}`);
  for (const variant of asked) {
    const name = `the core's own tests pass: ${variant.name}`;
    const obstacle = obstacles.get(variant.name);
    if (obstacle === undefined) {
      const built = before.then(() => build(variant));
      before = built.catch(() => {});
      test(name, async () => checkProgram(variant, await built));
    } else {
      console.log(`Skipped: ${name}: ${obstacle}`);
      test.skip(name);
    }
  }
  test.run();
}
