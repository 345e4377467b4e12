// A few lines as a process of their own: for what ends a process, or needs flags or limits.

import { spawn } from 'node:child_process';
import { PATIENCE_MS, within } from './support.js';

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

const source = (path: string) => new URL(`../../src/${path}.js`, import.meta.url).href;

/** The event layer's names, for a child or a worker that has no file. */
export const imports = `
  import { Ev, LoopFlag } from '${source('event/ev')}';
  import { EventBase } from '${source('event/event_base')}';
  import { sys } from '${source('event/sys')}';
  import { Listener } from '${source('stream/listener')}';
  import { BufferEvent } from '${source('stream/kinds')}';
`.replaceAll('\n', ' ');

/** Runs a few lines as a process of their own, after `imports` if not `bare`. */
export function runChild(
  lines: string,
  options: { flags?: string[]; shell?: string; bare?: boolean } = {},
): Promise<Ended> {
  const source = options.bare === true ? lines : imports + lines;
  const args = [...(options.flags ?? []), '--input-type=module', '-e', source];
  // The shell sets the limits and becomes the process.
  const child =
    options.shell === undefined
      ? spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
      : spawn('sh', ['-c', `${options.shell} && exec "$@"`, 'sh', process.execPath, ...args], {
          stdio: ['ignore', 'pipe', 'pipe'],
        });
  const ended: Ended = { code: null, signal: null, stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => {
    ended.stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    ended.stderr += chunk;
  });
  const exit = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ ...ended, code, signal }));
  });
  return within(PATIENCE_MS, exit, 'the child').catch((error) => {
    child.kill('SIGKILL');
    throw new Error(`${error.message}; it said: ${ended.stdout}${ended.stderr}`);
  });
}
