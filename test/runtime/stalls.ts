// What the tests of blocked, lost and full loops share.

import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type LoopGroup, type LoopHandle, type ServeOptions, serve } from '../../src/index.js';
import { workerFile } from './clients.js';
import { LineClient } from './lines.js';

export type Told = NodeJS.ErrnoException & { cause?: NodeJS.ErrnoException };

export const stalling = (options: Partial<ServeOptions>): Promise<LoopGroup> =>
  serve({
    worker: workerFile('stalls'),
    loops: 2,
    restart: { max: 1_000, backoff: 1 },
    ...options,
  });

/** A FIFO that a thread waits for. */
export class Fifo {
  readonly #folder = mkdtempSync(join(tmpdir(), 'multiloop-fifo-'));
  readonly path = join(this.#folder, 'fifo');
  constructor() {
    execFileSync('mkfifo', [this.path]);
  }
  /** Lets one thread go on. */
  free(): void {
    const fd = openSync(this.path, constants.O_RDWR | constants.O_NONBLOCK);
    writeSync(fd, 'x');
    closeSync(fd);
  }
  remove(): void {
    rmSync(this.#folder, { recursive: true });
  }
}

/** The next of a group's 'loop' events of one kind, with the error that it tells. */
export function nextLoop(group: LoopGroup, kind: string): Promise<[LoopHandle, Told]> {
  return new Promise((resolve) => {
    const listen = (loop: LoopHandle, what: string, error: Told) => {
      if (what !== kind) return;
      group.off('loop', listen);
      resolve([loop, error]);
    };
    group.on('loop', listen);
  });
}

export const numbers = (line: string): number[] => line.split(' ').map(Number);

/** `count` clients on each loop, each of which has asked once. */
export async function clientsOn(group: LoopGroup, count: number): Promise<LineClient[][]> {
  const byLoop: LineClient[][] = group.loops.map(() => []);
  for (let i = 0; i < count * group.loops.length; i++) {
    const client = await LineClient.connect(group);
    byLoop[numbers(await client.ask('x'))[1]].push(client);
  }
  return byLoop;
}

/** What the others of this loop were answered before is at its boundary by now. */
export async function settled(group: LoopGroup, loop: number): Promise<void> {
  for (;;) {
    const witness = await LineClient.connect(group);
    const [, at] = numbers(await witness.ask('x'));
    await witness.end();
    if (at === loop) return;
  }
}

export function balanced(group: LoopGroup): void {
  const { accepted, open, served, refused, lost } = group.stats();
  assert.is(accepted, open + served + refused + lost);
}
