// What went wrong, in one line: the message, and the place in the user's own code where it did.

import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UsageError } from './args.js';
import { oneLine } from './terminal.js';

/** A failure that has been explained; its message is all there is to print. */
export class Failure extends Error {}

/** What is not the user's own code: multiloop, and the workers that come with it. */
const ownFolders = ['../', '../../workers/'].map((folder) =>
  fileURLToPath(new URL(folder, import.meta.url)),
);

export function describe(error: unknown): string {
  if (!(error instanceof Error)) return oneLine(`thrown: ${String(error)}`);
  if (error instanceof UsageError || error instanceof Failure) return oneLine(error.message);
  // The one message with several lines: the commands that bring the missing addon.
  if (codeOf(error) === 'ERR_ADDON_LOAD') return error.message;
  const place = placeOf(error.stack ?? '');
  const named = error.name === 'Error' || error.name === 'MultiloopError' ? '' : `${error.name}: `;
  return oneLine(`${named}${error.message}`) + (place === undefined ? '' : ` (${place})`);
}

export function codeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : undefined;
}

/** `file:line:column` of the user's code in a stack; of the innermost cause if there is one. */
export function placeOf(stack: string): string | undefined {
  const cause = stack.slice(stack.lastIndexOf('[cause]: ') + 1).replace(/^cause\]: /, '');
  const syntax = syntaxPlace(cause);
  if (syntax !== undefined) return syntax;
  for (const line of cause.split('\n')) {
    const frame = line.match(/^\s+at (?:async )?(?:.*\()?((?:file:\/\/)?\/.*):(\d+):(\d+)\)?$/);
    if (frame === null) continue;
    const [, file, row, column] = frame;
    const path = pathOf(file);
    if (ownFolders.some((folder) => path.startsWith(folder))) continue;
    if (path.includes('/node_modules/piscina/')) continue;
    return `${shortPath(path)}:${row}:${column}`;
  }
  return undefined;
}

/** The place of what does not parse, which Node writes above the error: file, line, and a caret. */
export function syntaxPlace(text: string): string | undefined {
  const found = text.match(/^((?:file:\/\/)?\/.*):(\d+)\n.*\n(\s*)\^/);
  if (found === null) return undefined;
  const [, file, row, indent] = found;
  return `${shortPath(pathOf(file))}:${row}:${indent.length + 1}`;
}

function pathOf(file: string): string {
  return file.startsWith('file:') ? fileURLToPath(file) : file;
}

/** From here where that is shorter. */
function shortPath(path: string): string {
  const fromHere = relative(process.cwd(), path);
  return fromHere.startsWith('..') ? path : fromHere;
}
