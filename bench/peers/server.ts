// A server that a bench loads: a process of its own that prints its port and ends with SIGTERM,
// pinned to one core as its peers are, so that only what it does itself is measured.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { BenchOptions } from '../report.js';
import { libeventPeer } from './compile.js';
import { cpuOf } from './cpu.js';
import { pinned } from './program.js';

const file = (name: string) => fileURLToPath(new URL(`./${name}.js`, import.meta.url));

export type Command = [command: string, ...args: string[]];

export class Server {
  readonly port: number;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(command: Command): Promise<Server> {
    const [program, ...args] = [...pinned(), ...command];
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
    return new Server(child, Number(line.toString()));
  }

  /** Seconds of CPU that it has used, user and system. */
  cpu(): number {
    return cpuOf(this.#child.pid as number);
  }

  /** Bytes of memory that are its own and were written to. */
  privateDirty(): number {
    const maps = readFileSync(`/proc/${this.#child.pid}/smaps_rollup`, 'utf8');
    return Number(maps.match(/Private_Dirty:\s+(\d+)/)?.[1]) * 1024;
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await ended;
  }
}

/** The echo servers of this machine, by name; ours are 'bufferevent' and 'serve'. */
export function echoServers(options: BenchOptions): Record<string, Command> {
  const servers: Record<string, Command> = {
    bufferevent: [process.execPath, file('echo_server'), 'bufferevent'],
    serve: [process.execPath, file('echo_server'), 'serve'],
  };
  if (options.peerCmd !== undefined) return { ...servers, [options.peerCmd]: [options.peerCmd] };
  servers['node net'] = [process.execPath, file('echo_server'), 'net'];
  const libevent = libeventPeer(options, 'echo_libevent', ['-levent']);
  if (libevent !== undefined) servers[libevent.name] = [libevent.command];
  if (hasBun()) servers.bun = ['bun', file('echo_bun')];
  return servers;
}

export function hasBun(): boolean {
  try {
    execFileSync('bun', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
