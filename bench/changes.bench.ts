// What the change list saves: calls of epoll_ctl(2) for each operation, counted by strace, beside
// libevent as it is by default. Counts and not times, so one run of each is enough.

import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { libeventPeer } from './peers/compile.js';
import { nativeProgram, nodeProgram, type Program } from './peers/program.js';
import { type BenchOptions, type Case, caseOf } from './report.js';

const OPERATIONS: Record<string, string> = {
  'add-delete': 'add and delete in one turn',
  again: 'a one-shot event added again in its callback',
  'read-write': 'READ becomes READ|WRITE, or back',
  fresh: 'add and delete of a descriptor new to the base',
};
const TURNS = 1_000;

/** How often the program calls epoll_ctl, over all its threads. */
function calls({ command, args }: Program): number {
  const file = join(tmpdir(), `multiloop-changes.${process.pid}`);
  const options = ['-f', '-c', '-e', 'trace=epoll_ctl', '-o', file];
  execFileSync('strace', [...options, command, ...args], { timeout: 60_000 });
  const table = readFileSync(file, 'utf8');
  rmSync(file);
  const row = table.split('\n').find((line) => /\bepoll_ctl$/.test(line.trim()));
  return Number(row?.trim().split(/\s+/)[3] ?? 0);
}

function hasStrace(): boolean {
  try {
    execFileSync('strace', ['-o', '/dev/null', 'true'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

export default async function* changes(options: BenchOptions): AsyncIterable<Case> {
  if (!hasStrace()) {
    console.error('bench: nothing to count with; install strace (Debian: apt-get install strace)');
    return;
  }
  const peer = libeventPeer(options, 'changes_libevent', ['-levent_core']);
  const ours = (operation: string) => nodeProgram('changes_multiloop', operation, TURNS);
  const theirs = (operation: string) => nativeProgram(peer?.command ?? '', operation, TURNS);
  // What a process calls anyway, Node's own loop included, is not the operation's.
  const [oursIdle, theirsIdle] = [calls(ours('nothing')), peer && calls(theirs('nothing'))];
  for (const [operation, name] of Object.entries(OPERATIONS)) {
    const mine = Math.max(0, calls(ours(operation)) - oursIdle) / TURNS;
    if (peer === undefined || theirsIdle === undefined) {
      yield caseOf(name, 'epoll_ctl', [mine]);
      continue;
    }
    const runs = [Math.max(0, calls(theirs(operation)) - theirsIdle) / TURNS];
    yield caseOf(name, 'epoll_ctl', [mine], { name: peer.name, runs });
  }
}
