// The model of the protocol between threads (inbox.pml), verified by spin over all interleavings,
// and its mutations, each of which has to be found wrong. ML_SOAK=1 verifies it with larger inboxes
// too, which takes a minute. Skipped where spin or a C compiler is missing.

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const model = fileURLToPath(new URL('../../../test/model/inbox.pml', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'multiloop-model-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const runs = (command: string, argument: string) => spawnSync(command, [argument]).status === 0;
const missing = ['spin -V', 'cc --version'].find((line) => {
  const [command, argument] = line.split(' ');
  return !runs(command, argument);
});

/** Makes the verifier of the model under these definitions, runs it, and answers what it says. */
function verify(level: '-O0' | '-O1', ...definitions: string[]): string {
  const flags = definitions.map((definition) => `-D${definition}`);
  const options = { cwd: folder, stdio: 'pipe', timeout: 120_000 } as const;
  execFileSync('spin', ['-a', ...flags, model], options);
  execFileSync('cc', [level, '-w', '-DSAFETY', '-DCOLLAPSE', '-o', 'pan', 'pan.c'], options);
  return execFileSync('./pan', ['-m200000'], options).toString();
}

const capacities = process.env.ML_SOAK === '1' ? [1, 2] : [1];
const mutations: [definition: string, found: RegExp][] = [
  // A loop sleeps beside a message.
  ['NO_SECOND_LOOK', /invalid end state/],
  // A push lands after the last drain.
  ['CLOSED_BESIDE_TAIL', /assertion violated.*drained/],
  // What waited in the inbox of a dead loop is never closed.
  ['NO_LAST_DRAIN', /assertion violated.*closes/],
  // What could not be sent has no owner.
  ['NOT_TAKEN_BACK', /assertion violated.*owner/],
  // A descriptor is closed twice.
  ['CLOSED_WITHOUT_ASKING', /assertion violated.*closes/],
];

if (missing !== undefined) {
  test.skip(`'${missing}' does not work here: the protocol between threads, as a model`);
} else {
  for (const capacity of capacities)
    test(`no wake-up and no descriptor is lost, inboxes of ${capacity}`, () => {
      const said = verify('-O1', `CAPACITY=${capacity}`);
      assert.match(said, /errors: 0\n/);
      assert.not.match(said, /Search not completed|max search depth too small/);
    });
  for (const [definition, found] of mutations)
    test(`${definition} is found wrong`, () => {
      const said = verify('-O0', definition);
      assert.match(said, /errors: 1\n/);
      assert.match(said, found);
    });
}

test.run();
