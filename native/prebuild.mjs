// Makes the binary that the package carries for this platform: a release build, stripped, under
// prebuilds/. It is part of `npm pack` and `npm publish`.
//
// A binary runs on the glibc it was linked against and on newer ones. 2.28 (Debian 10, RHEL 8) is
// what a published binary should ask for, and it takes a toolchain of that age to get there; one
// built on Debian 12 may ask for as much as 2.36, and for more than that nothing is ever published.

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, relative } from 'node:path';
import {
  builtAddon,
  builtFrom,
  compile,
  Failure,
  loads,
  main,
  prebuiltAddon,
  root,
  withLock,
} from './addon.mjs';

const WANTED_GLIBC = 28;
const NEWEST_GLIBC = 36;

/** The minor version of the newest glibc 2 that a binary asks for, 0 for none. */
function glibcFloor(file) {
  // The names of required versions stand in the file as plain strings.
  const names = readFileSync(file, 'latin1').matchAll(/GLIBC_2\.(\d+)/g);
  return Math.max(0, ...Array.from(names, (match) => Number(match[1])));
}

await main(() =>
  withLock(async () => {
    // An addon that was built by hand may have been built with a sanitizer.
    if (builtFrom() !== 'ours') await compile({ clean: true });
    const target = prebuiltAddon();
    const name = relative(root, target);
    mkdirSync(dirname(target), { recursive: true });
    copyFileSync(builtAddon, target);
    const flag = process.platform === 'darwin' ? '-x' : '--strip-unneeded';
    const strip = spawnSync('strip', [flag, target], { encoding: 'utf8' });
    if (strip.error) console.error(`multiloop: strip was not found; ${name} keeps its symbols.`);
    else if (strip.status !== 0) throw new Failure(`strip failed on ${name}: ${strip.stderr}`);

    const trial = loads(target);
    if (!trial.ok) throw new Failure(`${name} does not load: ${trial.why}`);
    const floor = glibcFloor(target);
    if (floor > NEWEST_GLIBC) {
      throw new Failure(`${name} needs glibc 2.${floor}; build it on an older system.`);
    }
    const size = `${Math.ceil(statSync(target).size / 1024)} kB`;
    const above = floor > WANTED_GLIBC ? `; 2.${WANTED_GLIBC} needs an older toolchain` : '';
    console.error(`${name}: ${size}, ${floor ? `glibc 2.${floor} or newer${above}` : 'no glibc'}`);
  }),
);
