// Programs that a bench starts and whose output it reads: ours, and its peers.

import { execFile, execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** No measurement takes this long; one that does hangs. */
const TIMEOUT_MS = 120_000;
const OUTPUT_BYTES = 1024 * 1024;

export interface Program {
  command: string;
  args: string[];
}

/** One of this folder that Node runs, by its name without the suffix. */
export function nodeProgram(name: string, ...args: (string | number)[]): Program {
  const file = fileURLToPath(new URL(`./${name}.js`, import.meta.url));
  return { command: process.execPath, args: [file, ...args.map(String)] };
}

export function nativeProgram(command: string, ...args: (string | number)[]): Program {
  return { command, args: args.map(String) };
}

let pin: { first: string[]; last: string[] } | undefined;

/** `taskset -c CORE` for the first and last core that we may use; nothing without taskset. */
function pins(): { first: string[]; last: string[] } {
  if (pin !== undefined) return pin;
  try {
    const status = readFileSync('/proc/self/status', 'utf8');
    const allowed = status.match(/Cpus_allowed_list:\s*(\d+)\S*?(\d*)\s/);
    const first = allowed?.[1] ?? '0';
    const last = allowed?.[2] || first;
    execFileSync('taskset', ['-c', last, 'true'], { stdio: 'ignore' });
    pin = { first: ['taskset', '-c', first], last: ['taskset', '-c', last] };
  } catch {
    pin = { first: [], last: [] };
  }
  return pin;
}

/** Where a server runs, and what has no clients: the last core. */
export function pinned(): string[] {
  return pins().last;
}

export function pinnedTo(side: 'server' | 'client' | 'anywhere'): string[] {
  if (side === 'anywhere') return [];
  return side === 'server' ? pins().last : pins().first;
}

/** What the program prints. With `onOneCore`, both sides of a bench run on the same core. */
export async function output(program: Program, onOneCore: boolean): Promise<string> {
  const [command, ...args] = [...(onOneCore ? pinned() : []), program.command, ...program.args];
  try {
    const { stdout } = await execute(command, args, {
      timeout: TIMEOUT_MS,
      maxBuffer: OUTPUT_BYTES,
    });
    return stdout;
  } catch (error) {
    const { code, signal, stderr } = error as {
      code?: number | string | null;
      signal?: string | null;
      stderr?: string;
    };
    const said = stderr?.trim().split('\n').at(-1);
    throw new Error(`${program.command} ended with ${signal ?? code}: ${said || 'no word'}`);
  }
}

/** Of a program that prints numbers, one a line. */
export async function numbers(program: Program, onOneCore: boolean): Promise<number[]> {
  return (await output(program, onOneCore)).trim().split('\n').map(Number);
}

/** Of a program that prints `name number` lines. */
export async function named(program: Program, onOneCore: boolean): Promise<Record<string, number>> {
  const lines = (await output(program, onOneCore)).trim().split('\n');
  return Object.fromEntries(
    lines.map((one) => {
      const [name, value] = one.split(' ');
      return [name, Number(value)];
    }),
  );
}
