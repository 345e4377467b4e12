// wrk, where it is installed: it asks as fast as it is answered, and costs little itself.

import { execFile, execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Asked, Load } from './http_load.js';
import { pinnedTo } from './program.js';

const execute = promisify(execFile);
/** Over what the load takes itself. */
const TIMEOUT_MS = 30_000;

// From dist/bench/peers/.
const upload = fileURLToPath(new URL('../../../bench/peers/upload.lua', import.meta.url));

export function hasWrk(): boolean {
  try {
    execFileSync('wrk', ['--version'], { stdio: 'ignore' });
    return true;
  } catch (error) {
    // It prints its version and ends with 1.
    return (error as { code?: string }).code !== 'ENOENT';
  }
}

export async function wrk({ port, path, tls, connections, ms }: Load): Promise<Asked> {
  const url = `${tls ? 'https' : 'http'}://127.0.0.1:${port}${path}`;
  const script = path === '/upload' || path === '/whole' ? ['-s', upload] : [];
  // It counts whole seconds; and a machine that is busy may well answer after its two seconds.
  const seconds = String(Math.max(1, Math.round(ms / 1_000)));
  const options = ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', '--timeout', '30s'];
  const [command, ...args] = [...pinnedTo('client'), 'wrk', ...options, ...script, url];
  const { stdout } = await execute(command, args, { timeout: ms + TIMEOUT_MS });
  const problem = stdout.match(/(Socket errors|Non-2xx).*/);
  if (problem !== null) throw new Error(`wrk at ${url}: ${problem[0]}`);
  const [, count, took] = stdout.match(/(\d+) requests in ([\d.]+)s/) ?? [];
  if (count === undefined) throw new Error(`wrk at ${url} said: ${stdout}`);
  return {
    count: Number(count),
    ms: Number(took) * 1_000,
    p50: latency(stdout, 50),
    p99: latency(stdout, 99),
  };
}

function latency(text: string, percent: number): number {
  const [, value, unit] = text.match(new RegExp(`\\s${percent}%\\s+([\\d.]+)(us|ms|s)`)) ?? [];
  const factor = unit === 'us' ? 1e-3 : unit === 'ms' ? 1 : 1_000;
  return Number(value) * factor;
}
