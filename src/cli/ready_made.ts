// The workers that come with multiloop, and which one a name on the command line stands for.

import { existsSync, readdirSync, statSync } from 'node:fs';
import { nearest, UsageError } from './args.js';

/** What a worker takes after its name; one that is not here takes nothing. */
const TAKES: Record<string, { usage: string; min: number; max: number }> = {
  http: { usage: 'FOLDER', min: 0, max: 1 },
  tail: { usage: 'FILE', min: 1, max: 1 },
};

const folder = new URL('../../workers/', import.meta.url);

/** Their names, in alphabetical order. */
export function readyMadeWorkers(): string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.js'))
    .map((file) => file.slice(0, -'.js'.length))
    .sort();
}

/** The same with what each of them takes, for the help. */
export function readyMadeUsages(): string {
  return readyMadeWorkers()
    .map((name) => (name in TAKES ? `${name} ${usageOf(TAKES[name])}` : name))
    .join(', ');
}
const usageOf = ({ usage, min }: { usage: string; min: number }) =>
  min === 0 ? `[${usage}]` : usage;

/**
 * What to give to serve(): the URL of a ready-made worker, or the path as it was written. The
 * arguments of a ready-made worker are checked here; those of a module are its own affair.
 */
export function findWorker(
  name: string,
  given: string[],
): { worker: string | URL; isReadyMade: boolean } {
  const names = readyMadeWorkers();
  if (names.includes(name)) {
    checkArguments(name, given);
    return { worker: new URL(`${name}.js`, folder), isReadyMade: true };
  }
  if (/[/.]/.test(name) || existsSync(name)) return { worker: name, isReadyMade: false };
  const near = nearest(name, names);
  const list = `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
  throw new UsageError(
    `'${name}' is neither a file nor one of the ready-made workers, which are ` +
      `${list}${near === undefined ? '' : `; did you mean ${near}?`}`,
  );
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function checkArguments(name: string, given: string[]): void {
  const { usage, min, max } = TAKES[name] ?? { usage: '', min: 0, max: 0 };
  if (given.length < min)
    throw new UsageError(`${name} needs a ${usage}: multiloop serve ${name} ${usage}`);
  if (given.length > max) {
    const wanted = max === 0 ? 'takes no argument' : `takes ${usage} and nothing else`;
    throw new UsageError(`${name} ${wanted}; '${given[max]}' is one too many`);
  }
  // An unset variable of the shell, in quotes.
  if (given.includes('')) throw new UsageError(`${name}: ${usage} must not be empty`);
  if (name === 'http' && given.length > 0 && !isFolder(given[0]))
    throw new UsageError(`http: '${given[0]}' is no folder`);
}
