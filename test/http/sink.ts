// What the tests of files under way share: clients that keep nothing, and a count of descriptors.

import { createHash, randomBytes } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  readdirSync,
  readlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import * as assert from 'uvu/assert';
import { PATIENCE_MS, within } from '../event/support.js';
import { until } from '../runtime/clients.js';
import { type Client, HOST, headersOf, type Rig } from './rig.js';

export const hasProc = existsSync('/proc/self/fd');
export const get = (path: string, headers = '') => `GET ${path} HTTP/1.1\r\n${HOST}${headers}\r\n`;

/** Descriptors of this process that are open in the folder. */
export function openThere(folder: string): number {
  let count = 0;
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder)) count++;
    } catch {
      // That of this look itself.
    }
  }
  return count;
}
export async function allClosed(folder: string): Promise<void> {
  if (hasProc) await until(() => openThere(folder) === 0, 'every descriptor is closed');
}

/** Takes the answers' bytes as they come, so that nothing is kept. */
export class Sink {
  readonly #hash = createHash('sha256');
  readonly client: Client;
  head = '';
  bytes = 0;
  #changed: () => void = () => undefined;
  closed = false;
  constructor(client: Client) {
    this.client = client;
    const { socket } = client;
    socket.removeAllListeners('data');
    socket.on('data', (text: string) => this.#take(Buffer.from(text, 'latin1')));
    const end = () => {
      this.closed = true;
      this.#changed();
    };
    // Of a connection that was reset one or the other, by what the client did last.
    socket.on('close', end);
    socket.on('end', end);
  }
  #take(chunk: Buffer): void {
    let body = chunk;
    if (!this.head.endsWith('\r\n\r\n')) {
      const end = (this.head + chunk.toString('latin1')).indexOf('\r\n\r\n');
      assert.ok(end >= 0, 'the head comes in one piece');
      const rest = end + 4 - this.head.length;
      this.head += chunk.toString('latin1', 0, rest);
      body = chunk.subarray(rest);
    }
    this.bytes += body.length;
    this.#hash.update(body);
    this.#changed();
  }
  get length(): number {
    return Number(headersOf(this.head)['content-length']);
  }
  async until(condition: () => boolean, what: string): Promise<void> {
    while (!condition()) {
      const changed = new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
      await within(PATIENCE_MS, changed, what);
    }
  }
  async whole(): Promise<string> {
    await this.until(() => this.head !== '' && this.bytes === this.length, 'the whole body');
    return this.#hash.digest('hex');
  }
}
export async function sink(rig: Rig, port: number, path: string, headers = ''): Promise<Sink> {
  const made = new Sink(await rig.connect(port));
  made.client.send(get(path, headers));
  return made;
}
export const hashOf = (...pieces: Buffer[]) => {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest('hex');
};

export const MIB = 1024 * 1024;
export const big = randomBytes(MIB);
export const BIG_MIB = 48;
export const bigHash = () => hashOf(...Array.from({ length: BIG_MIB }, () => big));

/** A large file that was not written a moment ago. */
export function writeBig(path: string): void {
  writeFileSync(path, '');
  for (let i = 0; i < BIG_MIB; i++) appendFileSync(path, big);
  const then = Date.now() / 1_000 - 60;
  utimesSync(path, then, then);
}
