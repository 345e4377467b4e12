// The workers that come with multiloop, and which one a name on the command line stands for.

import { existsSync, readdirSync } from 'node:fs';
import { nearest, UsageError } from './args.js';

const folder = new URL('../../workers/', import.meta.url);

/** Their names, in alphabetical order. */
export function readyMadeWorkers(): string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.js'))
    .map((file) => file.slice(0, -'.js'.length))
    .sort();
}

/** What to give to serve(): the URL of a ready-made worker, or the path as it was written. */
export function findWorker(name: string): { worker: string | URL; isReadyMade: boolean } {
  const names = readyMadeWorkers();
  if (names.includes(name)) return { worker: new URL(`${name}.js`, folder), isReadyMade: true };
  if (/[/.]/.test(name) || existsSync(name)) return { worker: name, isReadyMade: false };
  const near = nearest(name, names);
  throw new UsageError(
    `'${name}' is neither a file nor one of the ready-made workers, which are ` +
      `${names.join(' and ')}${near === undefined ? '' : `; did you mean ${near}?`}`,
  );
}
