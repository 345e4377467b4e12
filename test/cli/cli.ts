// The command line as its users have it: a process of its own, real output, real signals. Nothing
// here sleeps; what has to happen first is waited for in the output.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** Whatever is waited for is there by then, or never comes. */
const PATIENCE_MS = 20_000;

const running = new Set<ChildProcess>();
const folder = mkdtempSync(join(tmpdir(), 'multiloop-cli-'));
process.on('exit', cleanUp);

/** Ends what a failed test has left behind. */
export function cleanUp(): void {
  for (const child of running) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}

/** A path in a folder that goes away with the test. */
export function scratch(name: string, text?: string): string {
  const path = join(folder, name);
  if (text !== undefined) writeFileSync(path, text);
  return path;
}

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export class Cli {
  readonly child: ChildProcess;
  /** When it has ended, and with it everything that holds its output. */
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';
  #look: () => void = () => undefined;
  #isOver = false;

  constructor(args: string[], env: NodeJS.ProcessEnv = {}) {
    const child = spawn(process.execPath, [main, ...args], {
      cwd: folder,
      env: { ...cleanEnvironment(), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child = child;
    running.add(child);
    child.stdout?.setEncoding('utf8').on('data', (text) => {
      this.stdout += text;
      this.#look();
    });
    child.stderr?.setEncoding('utf8').on('data', (text) => {
      this.stderr += text;
      this.#look();
    });
    this.ended = this.#within('it did not end', async () => {
      const [code, signal] = await once(child, 'close');
      running.delete(child);
      this.#isOver = true;
      this.#look();
      return { code, signal, stdout: this.stdout, stderr: this.stderr };
    });
    // Whoever waits for it is told; a test that fails before does not.
    this.ended.catch(() => undefined);
  }

  /** Waits for a match in what was written so far. */
  seen(stream: 'stdout' | 'stderr', pattern: RegExp): Promise<RegExpMatchArray> {
    const found = new Promise<RegExpMatchArray>((resolve, reject) => {
      const before = this.#look;
      this.#look = () => {
        before();
        const match = this[stream].match(pattern);
        if (match !== null) resolve(match);
        else if (this.#isOver) reject(new Error(this.#said(`it ended without ${pattern}`)));
      };
      this.#look();
    });
    return this.#within(`there is no ${pattern} on ${stream}`, () => found);
  }

  /** The port in its banner. */
  async port(): Promise<number> {
    const [, port] = await this.seen('stdout', /:(\d+)\n[\s\S]*Ctrl-C stops\n/);
    return Number(port);
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  async #within<T>(problem: string, wait: () => Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(this.#said(problem))), PATIENCE_MS);
    });
    try {
      return await Promise.race([wait(), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #said(problem: string): string {
    return `${problem}\nstdout: ${this.stdout}\nstderr: ${this.stderr}`;
  }
}

/** Without what the person who runs the tests has set for himself. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const ours = /^(MULTILOOP_|EVENT_NO|NO_COLOR$|FORCE_COLOR$|NODE_DISABLE_COLORS$)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)));
}

export function run(...args: string[]): Promise<Ended> {
  return new Cli(args).ended;
}

// ── clients ──

export async function open(where: number | NetConnectOpts): Promise<Socket> {
  const socket = connect(typeof where === 'number' ? { port: where, host: '127.0.0.1' } : where);
  await once(socket, 'connect');
  return socket;
}

/** Everything the peer sends until it ends. */
export async function readAll(socket: Socket): Promise<string> {
  let text = '';
  for await (const chunk of socket) text += chunk.toString('latin1');
  return text;
}

/** Writes, and reads until the peer ends. */
export async function exchange(where: number | NetConnectOpts, text: string): Promise<string> {
  const socket = await open(where);
  socket.write(text, 'latin1');
  return readAll(socket);
}
