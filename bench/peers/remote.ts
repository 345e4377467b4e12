// A program that a bench starts and calls, see rpc.ts: a server on one core, the clients on
// another where there is one, so that neither takes the other's time.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpuOf } from './cpu.js';
import { type Program, pinnedTo } from './program.js';
import type { Answer } from './rpc.js';

/** Nothing that a bench asks for takes this long; a program that does hangs. */
const CALL_MS = 100_000;
/** One that does not end by itself is killed. */
const STOP_MS = 10_000;

export type Side = 'server' | 'client' | 'anywhere';

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class Remote {
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #waiting = new Map<number, Waiting>();
  #next = 1;

  constructor(program: Program, side: Side, env: NodeJS.ProcessEnv = process.env) {
    const [command, ...args] = [...pinnedTo(side), program.command, ...program.args];
    this.#name = [program.command, ...program.args].join(' ');
    this.#child = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], env });
    this.#child.on('message', (answer: Answer) => this.#answered(answer));
    this.#child.on('error', (error) => this.#gone(error.message));
    this.#child.on('exit', (code, signal) => this.#gone(`it ended with ${signal ?? code}`));
  }

  async call<T>(name: string, argument?: unknown): Promise<T> {
    const id = this.#next++;
    let late: NodeJS.Timeout | undefined;
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
        late = setTimeout(() => this.#gone(`no answer to ${name} in ${CALL_MS} ms`), CALL_MS);
        this.#child.send({ id, name, argument }, (error) => {
          if (error !== null) this.#gone(error.message);
        });
      });
    } finally {
      clearTimeout(late);
    }
  }

  #answered({ id, value, error }: Answer): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(value);
    else waiting?.reject(new Error(`${this.#name}: ${error}`));
  }

  #gone(why: string): void {
    for (const { reject } of this.#waiting.values()) reject(new Error(`${this.#name}: ${why}`));
    this.#waiting.clear();
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** Seconds of CPU of the process and those that it has started, user and system. */
  cpu(): number {
    return cpuOf(this.pid);
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    if (this.#child.connected) this.#child.disconnect();
    const late = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS);
    await ended;
    clearTimeout(late);
  }
}
