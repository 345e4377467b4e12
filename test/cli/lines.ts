// Clients of the tail worker: what they hear line by line, and when they hear at all.

import { execFile, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import type { NetConnectOpts, Socket } from 'node:net';
import { promisify } from 'node:util';
import * as assert from 'uvu/assert';
import { open, scratch } from './cli.js';

const PATIENCE_MS = 20_000;
/** How long a probe may take before the next one is sent. */
const PROBE_MS = 50;
const PROBE = 'is anybody there?';

const execute = promisify(execFile);

export class LineClient {
  readonly socket: Socket;
  /** Every line so far, without its end. */
  lines: string[] = [];
  #rest = '';
  #isOver = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8').on('data', (text: string) => {
      const lines = (this.#rest + text).split('\n');
      this.#rest = lines.pop() as string;
      this.lines.push(...lines);
      socket.emit('lines');
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#isOver = true;
      socket.emit('lines');
    });
  }

  static async to(where: number | NetConnectOpts): Promise<LineClient> {
    return new LineClient(await open(where));
  }

  /** What it heard, without the probes. */
  get heard(): string[] {
    return this.lines.filter((line) => line !== PROBE);
  }

  /** Waits for a line among those that were heard, or will be. */
  async until(line: string): Promise<void> {
    const late = AbortSignal.timeout(PATIENCE_MS);
    while (!this.lines.includes(line)) {
      if (this.#isOver) throw new Error(`closed before '${line}': ${this.lines.slice(-5)}`);
      try {
        await once(this.socket, 'lines', { signal: late });
      } catch {
        throw new Error(`no line '${line}' after ${this.lines.slice(-5)}`);
      }
    }
  }
}

/** Connects, and writes probes until each of them is heard: they are all on their loops then. */
export async function listeners(
  count: number,
  where: number | NetConnectOpts,
  write: (text: string) => void | Promise<void>,
): Promise<LineClient[]> {
  const clients = await Promise.all(Array.from({ length: count }, () => LineClient.to(where)));
  const all = Promise.all(clients.map((client) => client.until(PROBE)));
  let isHeard = false;
  while (!isHeard) {
    await write(`${PROBE}\n`);
    isHeard = await Promise.race([
      all.then(() => true),
      new Promise<boolean>((resolve) => setTimeout(() => resolve(false), PROBE_MS)),
    ]);
  }
  return clients;
}

export async function allUntil(clients: LineClient[], line: string): Promise<void> {
  await Promise.all(clients.map((client) => client.until(line)));
}

/** Whether `all` begins with the lines; of thousands, the first that differs is enough to see. */
export function checkBegin(lines: string[], all: string[]): void {
  const at = lines.findIndex((line, at) => line !== all[at]);
  if (at >= 0) assert.is(lines[at], all[at], `line ${at} of ${lines.length}`);
}

// ── FIFOs ──

export function fifo(name: string): string {
  const path = scratch(name);
  execFileSync('mkfifo', [path]);
  return path;
}

/** A writer of its own, which has left when this resolves. */
export async function pour(path: string, text: string): Promise<void> {
  await execute('sh', ['-c', 'printf %s "$1" > "$2"', 'sh', text, path], { timeout: PATIENCE_MS });
}
