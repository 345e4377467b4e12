// From what the user calls a worker to the object with its hooks, with an error that names the
// file for everything that can be wrong with it.

import { existsSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { MultiloopError } from '../errors.js';
import { invalidType } from '../validate.js';
import { checkWorker, definedWorker, type LoopWorker } from './worker.js';

const TYPESCRIPT = /\.[cm]?tsx?$/;

/** The file: URL of a worker. Throws ERR_WORKER_LOAD when there is no such file. */
export function workerUrl(worker: string | URL): string {
  if (typeof worker !== 'string' && !(worker instanceof URL))
    throw invalidType('options.worker', 'of type string or an instance of URL', worker);
  const text = String(worker);
  if (/^[a-z][a-z0-9+.-]+:/i.test(text) && !text.startsWith('file:'))
    throw new MultiloopError('ERR_WORKER_LOAD', `A worker is a file; ${text} is not a file: URL`);
  const url = text.startsWith('file:') ? new URL(text) : pathToFileURL(resolve(text));
  const path = fileURLToPath(url);
  if (!existsSync(path))
    throw new MultiloopError('ERR_WORKER_LOAD', `The worker file ${path} does not exist`);
  if (statSync(path).isDirectory())
    throw new MultiloopError('ERR_WORKER_LOAD', `The worker ${path} is a folder, not a file`);
  return url.href;
}

/**
 * Imports the worker in a loop's thread. `served` settles when its module calls serve(), which
 * never returns in a loop: the worker is then the one that was defined before.
 */
export async function loadWorker(url: string, served: Promise<void>): Promise<LoopWorker> {
  const path = fileURLToPath(url);
  let loaded: { default?: unknown } | 'served';
  try {
    loaded = await Promise.race([import(url), served.then(() => 'served' as const)]);
  } catch (error) {
    throw loadFailure(path, error);
  }
  if (loaded !== 'served') return checkDefault(path, loaded.default);
  const worker = definedWorker();
  if (worker !== undefined) return worker;
  throw new MultiloopError(
    'ERR_WORKER_LOAD',
    `The worker file ${path} awaits serve() before its worker is defined; ` +
      'put `export default defineWorker({ … })` above that line',
  );
}

function checkDefault(path: string, worker: unknown): LoopWorker {
  if (worker === undefined)
    throw new MultiloopError(
      'ERR_WORKER_LOAD',
      `The worker file ${path} has no default export; write \`export default defineWorker({ … })\``,
    );
  try {
    checkWorker(worker);
  } catch (error) {
    throw new MultiloopError(
      'ERR_WORKER_LOAD',
      `The default export of the worker file ${path} is not a worker: ${(error as Error).message}`,
    );
  }
  return worker;
}

function loadFailure(path: string, error: unknown): MultiloopError {
  const code = (error as { code?: string } | null)?.code;
  if (code === 'ERR_UNKNOWN_FILE_EXTENSION' && TYPESCRIPT.test(path))
    return new MultiloopError(
      'ERR_WORKER_TYPESCRIPT',
      `This Node (${process.version}) cannot run the TypeScript worker ${path}. ` +
        'Use Node 22.18 or later, start with `node --import tsx`, ' +
        'or compile it and give the .js file',
    );
  const syntax = error instanceof SyntaxError && isFromLoader(error);
  return new MultiloopError(
    'ERR_WORKER_LOAD',
    `The worker file ${path} ${syntax ? 'does not parse' : 'threw while loading'}: ${
      error instanceof Error ? error.message : String(error)
    }`,
    { cause: error },
  );
}

/** False for a SyntaxError that the module's own code threw, as JSON.parse does. */
function isFromLoader(error: SyntaxError): boolean {
  const frame = error.stack?.match(/^ {4}at .*/m)?.[0];
  return frame === undefined || frame.includes('node:internal/modules/');
}
