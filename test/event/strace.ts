// Children under strace: which system calls they make, and what becomes of them where the kernel
// lacks one.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { testWhere } from '../where.js';
import { type Ended, runChild } from './child.js';

function whyNot(): string | undefined {
  // Set by test/run.mjs: under qemu it sees the calls that the emulator makes of ours.
  if (process.env.ML_TEST_QEMU !== undefined) return 'strace traces qemu here';
  try {
    execFileSync('strace', ['-o', '/dev/null', 'true'], { stdio: 'ignore' });
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' ? 'strace is not installed' : 'strace may not trace here';
  }
}
const reason = whyNot();

/** A test that needs strace, and perhaps more; without it, it is skipped by name. */
export function withStrace(
  name: string,
  body: () => Promise<void>,
  lacking: string | undefined = undefined,
): void {
  testWhere(lacking ?? reason, `strace: ${name}`, body);
}

export interface Traced extends Ended {
  /** A line a call, each with the number of its thread in front. */
  log: string[];
}

/** Runs a few lines as runChild does, under strace with `flags`. */
export async function runTraced(lines: string, flags: string): Promise<Traced> {
  const folder = mkdtempSync(join(tmpdir(), 'multiloop-strace-'));
  const file = join(folder, 'log');
  try {
    // The shell's arguments are the child's command line, and strace goes in front of it.
    const ended = await runChild(lines, { shell: `set -- strace -f -o '${file}' ${flags} "$@"` });
    return { ...ended, log: readFileSync(file, 'utf8').split('\n') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The calls between the lines `begin NAME` and `end NAME` that the child has written. */
export function callsBetween({ log }: Traced, name: string, call: string): string[] {
  const find = (text: string) => log.findIndex((line) => line.includes(`"${text} ${name}\\n"`));
  const [begin, end] = [find('begin'), find('end')];
  if (begin < 0 || end < begin) throw new Error(`the log has no ${name}:\n${log.join('\n')}`);
  const thread = log[begin].split(' ', 1)[0];
  return log.slice(begin, end).filter((line) => new RegExp(`^${thread} +${call}\\(`).test(line));
}
