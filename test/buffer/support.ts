// What the tests of buffers share.

import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EvBuffer } from '../../src/index.js';

/** What is in a buffer, as text; it stays there. */
export function textOf(buffer: EvBuffer): string {
  return Buffer.from(buffer.copyOut(buffer.length)).toString();
}

/** A buffer in which every piece is a segment of its own. */
export function filled(...pieces: string[]): EvBuffer {
  const buffer = new EvBuffer();
  for (const piece of pieces) buffer.addReference(Buffer.from(piece));
  return buffer;
}

/** Releases, and how often each of them was called. */
export function released(): { lend: () => () => void; counts: number[] } {
  const counts: number[] = [];
  const lend = () => {
    const at = counts.push(0) - 1;
    return () => {
      counts[at]++;
    };
  };
  return { lend, counts };
}

const folder = mkdtempSync(join(tmpdir(), 'multiloop-buffer-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
let files = 0;

/** A file of this process, which goes with it. */
export function fileOf(content: string | Uint8Array): string {
  const path = join(folder, String(files++));
  writeFileSync(path, content);
  return path;
}

export function openFile(content: string | Uint8Array): number {
  return openSync(fileOf(content), 'r');
}
