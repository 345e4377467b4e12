// Does what a clone still needs before it can run, and nothing that is up to date: dependencies,
// the native addon, the TypeScript output. `npm run build` is this script; `npm start`, `npm test`
// and `npm run bench` begin with it. With --fresh, the addon and the output are made anew.

import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import {
  builtFrom,
  compile,
  Failure,
  filesBelow,
  fingerprint,
  isMain,
  main,
  readJson,
  root,
  run,
  tail,
  withLock,
} from './addon.mjs';

const dist = join(root, 'dist');
const stampFile = join(dist, '.stamp');
const commandLine = join(dist, 'src/cli/main.js');
const sourceFolders = ['src', 'workers', 'test', 'bench'];

// ── dependencies ────────────────────────────────────────────────────────────────────────────────

const dependencyFields = ['dependencies', 'devDependencies', 'optionalDependencies'];

/** Compares what npm says it installed with what the lock file asks for, and that with us. */
function dependenciesAreStale() {
  const installed = readJson(join(root, 'node_modules/.package-lock.json'))?.packages;
  const locked = readJson(join(root, 'package-lock.json'))?.packages;
  const own = readJson(join(root, 'package.json'));
  if (!installed || !locked || !own) return true;
  const asText = (fields) => JSON.stringify(Object.entries(fields ?? {}).sort());
  if (dependencyFields.some((name) => asText(own[name]) !== asText(locked['']?.[name])))
    return true;
  return Object.entries(locked).some(([path, entry]) => {
    if (path === '') return false;
    // npm leaves out an optional package that is for another platform.
    if (!installed[path]) return !entry.optional;
    return installed[path].version !== entry.version;
  });
}

export function findNpm() {
  const candidates = [
    process.env.npm_execpath,
    join(dirname(dirname(process.execPath)), 'lib/node_modules/npm/bin/npm-cli.js'),
  ];
  const script = candidates.find((file) => file?.endsWith('npm-cli.js') && fs.existsSync(file));
  return script ? [process.execPath, script] : ['npm'];
}

async function installDependencies() {
  const env = { ...process.env };
  // These belong to the npm command that runs us, and would make this one do nothing here.
  for (const name of ['dry_run', 'global', 'location', 'prefix']) delete env[`npm_config_${name}`];
  const [command, ...script] = findNpm();
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund'];
  const { ok, output } = await run(command, [...script, 'ci', '--include=dev', ...quiet], env);
  if (ok && !dependenciesAreStale()) return;
  throw new Failure(`the dependencies could not be installed. The end of what npm said:
${tail(output, 15)}
  npm ci needs a registry it can reach, and a package-lock.json that agrees with package.json; if
  you changed the dependencies in package.json, run npm install --ignore-scripts.`);
}

// ── TypeScript ──────────────────────────────────────────────────────────────────────────────────

const isSource = (file) => file.endsWith('.ts') && !file.endsWith('.d.ts');
const stemOf = (file) => file.replace(/(\.d)?\.ts(\.map)?$|\.js(\.map)?$/, '');

function surveyTypeScript() {
  const files = sourceFolders.flatMap(filesBelow).filter((file) => file.endsWith('.ts'));
  const sources = fingerprint(['tsconfig.json', 'package.json', 'package-lock.json', ...files]);
  const wanted = new Set(files.filter(isSource).map(stemOf));
  const outputs = sourceFolders.flatMap((folder) => filesBelow(`dist/${folder}`));
  const compiled = outputs.filter((file) => /\.(js|d\.ts)(\.map)?$/.test(file));
  const sourceOf = (file) => stemOf(file.slice('dist/'.length));
  const present = new Set(compiled.filter((file) => file.endsWith('.js')).map(sourceOf));
  return {
    sources,
    orphans: compiled.filter((file) => !wanted.has(sourceOf(file))),
    isComplete: [...wanted].every((stem) => present.has(stem)),
  };
}

function typeScriptIsStale({ sources, orphans, isComplete }) {
  if (orphans.length > 0 || !isComplete) return true;
  return JSON.stringify(readJson(stampFile)) !== JSON.stringify(sources);
}

async function compileTypeScript(fresh) {
  const { sources, orphans, isComplete } = surveyTypeScript();
  // The output of a source that is gone would still be run, or packed.
  for (const file of orphans) fs.rmSync(join(root, file));
  // tsc does not look at its output, only at its notes about it.
  if (fresh || !isComplete) fs.rmSync(join(dist, '.tsbuildinfo'), { force: true });
  fs.rmSync(stampFile, { force: true });
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const { ok, output } = await run(process.execPath, [compiler, '-p', '.', '--pretty', 'false']);
  if (!ok) throw new Failure(`TypeScript found errors:\n${tail(output, 30)}`);
  if (fs.existsSync(commandLine)) fs.chmodSync(commandLine, 0o755);
  fs.writeFileSync(stampFile, JSON.stringify(sources));
}

// ── the steps ───────────────────────────────────────────────────────────────────────────────────

const steps = [
  {
    name: 'installing the dependencies',
    isStale: dependenciesAreStale,
    run: installDependencies,
  },
  {
    name: 'building the addon',
    isStale: () => builtFrom() === 'stale',
    run: (fresh) => compile({ clean: fresh }),
    canBeFresh: true,
  },
  {
    name: 'compiling the TypeScript',
    isStale: () => typeScriptIsStale(surveyTypeScript()),
    run: compileTypeScript,
    canBeFresh: true,
  },
];

async function perform(step, quiet, fresh) {
  const say = (text) => quiet || process.stderr.write(text);
  const begin = performance.now();
  say(`multiloop: ${step.name} … `);
  try {
    await step.run(fresh);
    say(`${((performance.now() - begin) / 1000).toFixed(1)} s\n`);
  } catch (error) {
    say('failed\n');
    throw error;
  }
}

export async function setup({ quiet = false, fresh = false } = {}) {
  const isDue = (step) => (fresh && step.canBeFresh) || step.isStale();
  if (!steps.some(isDue)) return;
  await withLock(async () => {
    // Asked again: the set-up that held the lock may have done it all.
    for (const step of steps) if (isDue(step)) await perform(step, quiet, fresh);
  });
}

if (isMain(import.meta.url)) {
  await main(() => setup({ fresh: process.argv.includes('--fresh') }));
}
