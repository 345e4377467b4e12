// Nothing above the backends is Linux's: what our own files include, and what the portable core calls,
// as the compiler and the linker see it. A search of the text could not tell what a guard leaves out.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { testWhere } from './where.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const compiler = 'g++';
const scratch = mkdtempSync(join(tmpdir(), 'multiloop-portable-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

/** Headers that POSIX does not have and Linux does. */
const foreign =
  /^(linux|asm)\/|^sys\/(epoll|eventfd|timerfd|signalfd|inotify|sendfile|syscall|prctl|random)\.h$/;
/** Calls that POSIX.1-2008 does not have and Linux does. */
const calls =
  /^(accept4|pipe2|dup3|eventfd|epoll_\w+|ppoll|signalfd|timerfd_\w+|inotify_\w+|syscall|sendfile|splice|recvmmsg|sendmmsg|prctl|gettid)(@.*)?$/;

function run(command: string, args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    timeout: 120_000,
    maxBuffer: 64 << 20,
  });
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')}\n${stdout}${stderr}${error ?? ''}`);
  return stdout + stderr;
}

const sources = ['native/core', 'native/core/backend'].flatMap((folder) =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.cc'))
    .map((name) => `${folder}/${name}`),
);

/**
 * What files of ours include themselves. The compiler lists every header with one dot for each level
 * at which it was included.
 */
function ownIncludes(source: string, listing: string): string[] {
  const found: string[] = [];
  const path = [source];
  for (const line of listing.split('\n')) {
    const [, dots = '', file = ''] = line.match(/^(\.+) (.+)$/) ?? [];
    if (dots === '') continue;
    path.length = dots.length;
    const parent = path[dots.length - 1];
    path.push(file);
    if (parent.startsWith('native/')) found.push(file);
  }
  return found;
}

interface Seen {
  headers: string[];
  /** Files of ours that include what is foreign. */
  foreign: string[];
  called: string[];
}

function compileAll(...defines: string[]): Seen {
  const headers = new Set<string>();
  const strange: string[] = [];
  const objects = sources.map((source) => {
    const object = join(scratch, `${source.replaceAll('/', '_')}.o`);
    const args = ['-std=c++20', '-fno-exceptions', '-fno-rtti', '-O0', ...defines];
    const listing = run(compiler, [...args, '-H', '-c', source, '-o', object]);
    const included = ownIncludes(source, listing);
    for (const file of included) headers.add(file);
    if (included.some(isForeign)) strange.push(source);
    return object;
  });
  const symbols = run('nm', ['--undefined-only', '--format=posix', ...objects]);
  const called = [...symbols.matchAll(/^(\S+) [Uw]\b/gm)].map(([, name]) => name);
  return { headers: [...headers], foreign: strange, called: [...new Set(called)] };
}

/** `/usr/include/x86_64-linux-gnu/sys/epoll.h` as it is included: `sys/epoll.h`. */
const isForeign = (path: string) => {
  const parts = path.split('/');
  return [1, 2, 3].some((count) => foreign.test(parts.slice(-count).join('/')));
};

const found = spawnSync(compiler, ['--version']).status === 0 && process.platform === 'linux';
const lacking = found ? undefined : `this needs ${compiler} on Linux`;

testWhere(lacking, 'the portable core includes no header of Linux and makes no call of it', () => {
  const { headers, called } = compileAll('-DML_PORTABLE');
  assert.equal(headers.filter(isForeign), []);
  assert.equal(
    called.filter((name) => calls.test(name)),
    [],
  );
  // What was looked at is what it is made of.
  assert.ok(headers.some((path) => path.endsWith('/poll.h')));
  assert.ok(['accept', 'pipe', 'poll', 'select'].every((name) => called.includes(name)));
});

/** Compiling takes a while, and two tests look at it. */
let ordinary: Seen | undefined;
const ordinaryCore = (): Seen => {
  ordinary ??= compileAll();
  return ordinary;
};

testWhere(lacking, 'the same look finds what the ordinary core has of Linux', () => {
  const { headers, called } = ordinaryCore();
  for (const name of ['sys/epoll.h', 'sys/eventfd.h'])
    assert.ok(headers.some((path) => isForeign(path) && path.endsWith(name)));
  for (const name of ['accept4', 'pipe2', 'eventfd', 'epoll_ctl', 'ppoll'])
    assert.ok(called.includes(name) && calls.test(name), name);
});

testWhere(lacking, 'which file may be Linux’s: its backends, and the one for its forms', () => {
  const { foreign: listed } = ordinaryCore();
  const allowed = /^native\/core\/(backend\/(epoll|io_uring)\w*|\w+_linux)\.cc$/;
  assert.equal(
    listed.filter((source) => !allowed.test(source)),
    [],
  );
});

test.run();
