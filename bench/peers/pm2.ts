// PM2, where npm has it. Its daemon keeps everything in a folder that goes with it.

import { join } from 'node:path';
import { fromNpm } from './from_npm.js';
import { nodeProgram, type Program } from './program.js';

const VERSION = '7.0.4';

export interface Pm2 {
  /** The server that PM2 starts `workers` times in its cluster mode. */
  program(workers: number): Program;
  env: NodeJS.ProcessEnv;
}

/** What runs PM2, or why nothing does; `fetch`: from npm, if it is not here yet. */
export function pm2(fetch: boolean): Pm2 | { missing: string } {
  const found = fromNpm('pm2', VERSION, 'peers-pm2', fetch);
  if ('missing' in found) return found;
  const command = join(found.path, 'bin', 'pm2');
  return {
    program: (workers) => nodeProgram('pm2_server', command, workers),
    env: { ...process.env, PM2_DISABLE_VERSION_CHECK: 'true', PM2_PROGRAMMATIC: 'true' },
  };
}
