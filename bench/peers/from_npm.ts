// Peers that npm has and nothing of multiloop needs: each in a folder of its own in build/, fetched
// when a bench first needs it.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const FETCH_MS = 120_000;

// From dist/bench/peers/.
const build = fileURLToPath(new URL('../../../build/', import.meta.url));

/** The package's folder, or why it is not there; `fetch`: from npm, if it is not here yet. */
export function fromNpm(
  name: string,
  version: string,
  folder: string,
  fetch: boolean,
): { path: string } | { missing: string } {
  const home = join(build, folder);
  const path = join(home, 'node_modules', name);
  if (existsSync(join(path, 'package.json'))) return { path };
  if (!fetch) return { missing: 'not fetched yet; the bench without --quick does' };
  mkdirSync(home, { recursive: true });
  const args = ['install', '--prefix', home, '--no-audit', '--no-fund', '--ignore-scripts'];
  try {
    const quiet = { stdio: 'ignore', timeout: FETCH_MS } as const;
    execFileSync('npm', [...args, '--no-save', `${name}@${version}`], quiet);
    return { path };
  } catch (error) {
    return { missing: `npm did not get ${name}@${version}: ${(error as Error).message}` };
  }
}
