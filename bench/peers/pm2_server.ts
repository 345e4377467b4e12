// The server of the bench `reload` that PM2 runs in its cluster mode.
//
//   PROGRAM COMMAND WORKERS       COMMAND is PM2's

import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { answerCalls, pause } from './rpc.js';

const execute = promisify(execFile);
const COMMAND_MS = 60_000;

const [command, workers] = process.argv.slice(2);
const home = mkdtempSync(join(tmpdir(), 'multiloop-bench-pm2-'));
const portFile = join(home, 'port');
const env = { ...process.env, PM2_HOME: home, BENCH_PORT_FILE: portFile };
const app = fileURLToPath(new URL('./pm2_app.js', import.meta.url));

const tell = (...args: string[]) =>
  execute(process.execPath, [command, ...args], { env, cwd: home, timeout: COMMAND_MS });

async function stop(): Promise<void> {
  try {
    await tell('kill');
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

await tell('start', app, '--name', 'app', '-i', workers);
while (!existsSync(portFile)) await pause(10);

answerCalls(
  {
    port: () => Number(readFileSync(portFile, 'utf8')),
    reload: async () => {
      await tell('reload', 'app');
    },
  },
  stop,
);
