// What the cross-compilation tests share. They use the compiler that is here and fetch none: `npm
// run cross -- --fetch` does, and .ci/run calls it.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const script = join(root, 'native/cross.mjs');
const { zigHere } = await import(new URL('../../../native/cross.mjs', import.meta.url).href);
/** Below what a test file may take; the first time, Zig makes the C++ library of each target. */
const timeout = 230_000;

export function crossCommand(...args: string[]): {
  code: number | null;
  stdout: string;
  stderr: string;
} {
  const child = spawnSync(process.execPath, [script, ...args], { encoding: 'utf8', timeout });
  return { code: child.status, stdout: child.stdout, stderr: child.stderr };
}

/** Compiles a target, and gives the bytes of what came out to `look`. */
export function compiles(target: string, what: string, look: (bytes: Buffer) => void): void {
  const name = `${what} compiles and links`;
  if (zigHere() === undefined) {
    test.skip(`the cross compiler is not here (npm run cross -- --fetch): ${name}`, () =>
      undefined);
    return;
  }
  test(name, () => {
    const { code, stdout, stderr } = crossCommand(target);
    assert.is(code, 0, stdout + stderr);
    const line = stdout.match(new RegExp(`^${target}: (\\S+), [\\d.]+ s$`, 'm'));
    assert.ok(line, stdout);
    look(readFileSync(join(root, line[1])));
  });
}

// <mach-o/loader.h>: MH_MAGIC_64, and the type of the processor.
export const MACH_O = 0xfeedfacf;
export const CPU_X86_64 = 0x01000007;
export const CPU_ARM64 = 0x0100000c;

export function isMachO(bytes: Buffer, cpu: number): void {
  assert.is(bytes.readUInt32LE(0), MACH_O);
  assert.is(bytes.readUInt32LE(4), cpu);
}
