// Peers in C: each is one file of this folder, compiled when a bench needs it.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BenchOptions } from '../report.js';

export interface Peer {
  name: string;
  command: string;
}

/** What gcc, clang and the linker say without the headers or the library. */
const LIBEVENT_MISSING =
  /event2\/\S+: No such file|'event2\/\S+' file not found|find (library )?-levent|openssl\/\S+: No such file|'openssl\/\S+' file not found|find (library )?-l(ssl|crypto)/;

// From dist/bench/peers/.
const root = fileURLToPath(new URL('../../../', import.meta.url));
const built = join(root, 'build', 'bench-peers');

/**
 * The peer of `bench/peers/NAME.c`, or the one that --peer-cmd puts in its place. Undefined where
 * it cannot be compiled; what to install is then said on stderr.
 */
export function libeventPeer(
  { peerCmd }: BenchOptions,
  name: string,
  libraries: readonly string[],
): Peer | undefined {
  if (peerCmd !== undefined) return { name: basename(peerCmd), command: peerCmd };
  const command = compiled(name, libraries);
  return command === undefined ? undefined : { name: 'libevent', command };
}

/** The program that `bench/peers/NAME.c` makes; undefined as for libeventPeer(). */
export function compiled(name: string, libraries: readonly string[] = []): string | undefined {
  const source = join(root, 'bench', 'peers', `${name}.c`);
  const command = join(built, name);
  if (isOlder(command, source)) {
    const problem = compile(source, command, libraries);
    if (problem !== undefined) {
      console.error(`bench: no peer in C: ${problem}`);
      return undefined;
    }
  }
  return command;
}

function isOlder(file: string, source: string): boolean {
  return !existsSync(file) || statSync(file).mtimeMs < statSync(source).mtimeMs;
}

/** Answers what this machine lacks. A source that is wrong throws what the compiler said. */
function compile(source: string, output: string, libraries: readonly string[]): string | undefined {
  mkdirSync(built, { recursive: true });
  // Renamed when it is whole, so that a bench that runs beside this one never starts half a file.
  const unfinished = `${output}.${process.pid}`;
  const env = { ...process.env, LC_ALL: 'C' };
  const args = ['-O2', '-Wall', '-Wextra', '-o', unfinished, source];
  for (const compiler of ['cc', 'gcc']) {
    try {
      execFileSync(compiler, [...args, ...libraries], { stdio: 'pipe', encoding: 'utf8', env });
      renameSync(unfinished, output);
      return undefined;
    } catch (error) {
      const { code, stderr } = error as { code?: string; stderr?: string };
      if (code === 'ENOENT') continue;
      if (stderr !== undefined && LIBEVENT_MISSING.test(stderr))
        return 'libevent or OpenSSL is missing (Debian: apt-get install libevent-dev libssl-dev)';
      throw new Error(`${source} does not compile:\n${stderr ?? error}`);
    }
  }
  return 'no C compiler; install gcc and libevent-dev (Debian: apt-get install gcc libevent-dev)';
}
