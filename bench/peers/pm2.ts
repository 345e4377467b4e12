// PM2, where npm has it: a package of its own folder in build/, since nothing of multiloop needs
// it. Its daemon keeps everything in a folder that goes with it.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nodeProgram, type Program } from './program.js';

const VERSION = '7.0.4';
const FETCH_MS = 120_000;

// From dist/bench/peers/.
const folder = fileURLToPath(new URL('../../../build/peers-pm2/', import.meta.url));

export interface Pm2 {
  /** The server that PM2 starts `workers` times in its cluster mode. */
  program(workers: number): Program;
  env: NodeJS.ProcessEnv;
}

/** What runs PM2, or why nothing does; `fetch`: from npm, if it is not here yet. */
export function pm2(fetch: boolean): Pm2 | { missing: string } {
  const command = join(folder, 'node_modules', 'pm2', 'bin', 'pm2');
  if (!existsSync(command)) {
    if (!fetch) return { missing: 'not fetched yet; the bench without --quick does' };
    mkdirSync(folder, { recursive: true });
    const args = ['install', '--prefix', folder, '--no-audit', '--no-fund', '--ignore-scripts'];
    try {
      const quiet = { stdio: 'ignore', timeout: FETCH_MS } as const;
      execFileSync('npm', [...args, '--no-save', `pm2@${VERSION}`], quiet);
    } catch (error) {
      return { missing: `npm did not get pm2@${VERSION}: ${(error as Error).message}` };
    }
  }
  return {
    program: (workers) => nodeProgram('pm2_server', command, workers),
    env: { ...process.env, PM2_DISABLE_VERSION_CHECK: 'true', PM2_PROGRAMMATIC: 'true' },
  };
}
