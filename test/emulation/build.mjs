// An addon whose core has the interfaces of other kernels too, emulated by the files beside this
// one: build/emulated/multiloop.node. Only tests load it (MULTILOOP_ADDON, src/native.ts), with a
// library before it that tells the emulations of every close (LD_PRELOAD).
//
//   node test/emulation/build.mjs     builds them and prints how to use them
//
// It is made by g++ alone and keeps its objects, so that only what has changed is compiled again.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import {
  builtAddon,
  Failure,
  findHeaders,
  isMain,
  main,
  root,
  run,
  tail,
} from '../../native/addon.mjs';

const compiler = 'g++';
const compileJobs = 2;
const folder = join(root, 'build/emulated');
const addon = join(folder, 'multiloop.node');
const preload = join(folder, 'preload.so');
const sourceFolders = ['native/core', 'native/core/backend', 'test/emulation'];
const binding = 'native/binding/addon.cc';
const preloadSource = 'test/emulation/preload/close.cc';

// As binding.gyp has them, but for the optimiser: what is built here is not measured.
const flags = [
  ...['-std=c++20', '-O1', '-g1', '-fPIC', '-fvisibility=hidden', '-fno-exceptions', '-fno-rtti'],
  ...['-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-pthread'],
  ...['-DML_EMULATE', '-Itest/emulation/include'],
];
const bindingFlags = [
  '-DNAPI_VERSION=8',
  '-DNODE_ADDON_API_DISABLE_CPP_EXCEPTIONS',
  '-DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
  '-DNODE_GYP_MODULE_NAME=multiloop',
];
const linker = [
  ...['-shared', '-pthread', '-Wl,-z,nodelete', '-static-libstdc++', '-static-libgcc'],
  '-ldl',
  '-Wl,--wrap=close,--wrap=dup2,--wrap=dup3',
];

/** The folder of node_api.h and uv.h: installed with Node, or fetched by node-gyp once. */
function headerFolder() {
  const cache = process.env.npm_config_devdir ?? join(homedir(), '.cache/node-gyp');
  return [findHeaders(), join(cache, process.versions.node)]
    .filter((place) => place !== undefined)
    .map((place) => join(place, 'include/node'))
    .find((place) => existsSync(join(place, 'node_api.h')) && existsSync(join(place, 'uv.h')));
}

function addonApiFolder() {
  const require = createRequire(join(root, 'package.json'));
  return dirname(require.resolve('node-addon-api/package.json'));
}

function planUnits(headers) {
  const cores = sourceFolders.flatMap((name) =>
    readdirSync(join(root, name))
      .filter((file) => file.endsWith('.cc'))
      .map((file) => ({ source: `${name}/${file}`, args: flags })),
  );
  const system = [headers, addonApiFolder()].flatMap((place) => ['-isystem', place]);
  const units = [
    { source: preloadSource, args: [...flags, '-fvisibility=default'] },
    { source: binding, args: [...flags, ...bindingFlags, ...system] },
    ...cores,
  ];
  return units.map(({ source, args }) => {
    const object = join(folder, source.replaceAll('/', '_').replace(/\.cc$/, '.o'));
    return { source, args: [...args, '-c', source], object };
  });
}

/** The files of the project that a make rule written by the compiler names. */
function dependenciesIn(rule) {
  const [, list = ''] = readFileSync(rule, 'utf8').replaceAll('\\\n', ' ').split(/:\s/, 2);
  return list.split(/\s+/).filter((name) => name !== '');
}

/** Identifies what is made: the command that makes it and the contents of all it is made from. */
function keyOf(command, files) {
  const hash = createHash('sha256').update(command.join('\0'));
  for (const file of files) {
    const path = join(root, file);
    hash.update(`\0${file}\0`).update(existsSync(path) ? readFileSync(path) : 'gone');
  }
  return hash.digest('hex');
}

const hasKey = (file, key) =>
  existsSync(file) && existsSync(`${file}.key`) && readFileSync(`${file}.key`, 'utf8') === key;

function isCurrent({ object, args }, version) {
  const rule = `${object}.d`;
  return existsSync(rule) && hasKey(object, keyOf([version, ...args], dependenciesIn(rule)));
}

async function compile({ source, args, object }, version) {
  const rule = `${object}.d`;
  const begin = Date.now();
  const { ok, output } = await run(compiler, [...args, '-MMD', '-MF', rule, '-o', object]);
  if (!ok) throw new Failure(`${source} does not compile:\n${tail(output, 40)}`);
  if (output !== '') process.stderr.write(output);
  const files = dependenciesIn(rule);
  // One that was edited meanwhile may not be what the compiler read.
  if (files.some((file) => statSync(join(root, file)).mtimeMs >= begin)) return;
  writeFileSync(`${object}.key`, keyOf([version, ...args], files));
}

/** Loaded in another process: one that is broken may take its process down. */
function backendsOf(file) {
  const program = 'process.stdout.write(JSON.stringify(require(process.argv[1]).backends()))';
  const child = spawnSync(process.execPath, ['-e', program, file], { encoding: 'utf8' });
  if (child.status !== 0) throw new Failure(`${relative(root, file)}: ${child.stderr}`);
  return JSON.parse(child.stdout).map(([name]) => name);
}

/** Links what is not up to date. */
async function link(file, args, objects) {
  const parts = objects.map((object) => relative(root, object));
  const key = keyOf(args, parts);
  if (hasKey(file, key)) return;
  // Renamed into place: a process that has the old one mapped keeps it.
  const fresh = `${file}.new`;
  const { ok, output } = await run(compiler, [...parts, ...args, '-o', fresh]);
  if (!ok) throw new Failure(`${relative(root, file)} does not link:\n${tail(output, 40)}`);
  renameSync(fresh, file);
  writeFileSync(`${file}.key`, key);
}

/**
 * Makes the addon if it is not up to date. `env` is what a process needs that is to have it,
 * `backends` are those that the ordinary addon lacks, and `missing`, if there is one, is what has to
 * be installed before it can be made.
 */
export async function buildEmulated() {
  const version = spawnSync(compiler, ['--version'], { encoding: 'utf8' }).stdout;
  if (!version) return { backends: [], missing: `there is no ${compiler} on this machine` };
  const headers = headerFolder();
  if (headers === undefined)
    return { backends: [], missing: `the headers of Node ${process.versions.node} are not here` };
  if (process.platform !== 'linux')
    return { backends: [], missing: 'the emulations are for Linux' };
  mkdirSync(folder, { recursive: true });
  const units = planUnits(headers);
  const queue = units.filter((unit) => !isCurrent(unit, version));
  const lane = async () => {
    for (let unit = queue.shift(); unit; unit = queue.shift()) await compile(unit, version);
  };
  await Promise.all(Array.from({ length: compileJobs }, lane));
  const objects = units.map(({ object }) => object);
  await link(addon, linker, objects.slice(1));
  await link(preload, ['-shared', '-Wl,--as-needed', '-ldl'], objects.slice(0, 1));
  const ordinary = backendsOf(builtAddon);
  const backends = backendsOf(addon).filter((name) => !ordinary.includes(name));
  return { backends, env: { MULTILOOP_ADDON: addon, LD_PRELOAD: preload } };
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const { backends, env, missing } = await buildEmulated();
    if (missing !== undefined) throw new Failure(missing);
    const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    process.stdout.write(`${backends.join(', ') || 'nothing new'}:\n  ${settings.join(' ')}\n`);
  });
}
