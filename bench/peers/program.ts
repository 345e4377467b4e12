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

let pin: string[] | undefined;

/** `taskset -c CORE`, with the last core that we may use, or nothing where there is no taskset. */
export function pinned(): string[] {
  if (pin !== undefined) return pin;
  try {
    const allowed = readFileSync('/proc/self/status', 'utf8').match(/Cpus_allowed_list:\s*(\S+)/);
    const core = allowed?.[1].match(/\d+$/)?.[0] ?? '0';
    execFileSync('taskset', ['-c', core, 'true'], { stdio: 'ignore' });
    pin = ['taskset', '-c', core];
  } catch {
    pin = [];
  }
  return pin;
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
