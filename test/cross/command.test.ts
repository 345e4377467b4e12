// The command line of native/cross.mjs, as far as it compiles nothing.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { crossCommand } from './compile.js';

const targets = ['macos', 'linux-arm64', 'windows', 'all'];

test('--help names every target and what comes of it', () => {
  for (const flag of ['--help', '-h']) {
    const { code, stdout, stderr } = crossCommand(flag);
    assert.is(code, 0);
    assert.is(stderr, '');
    for (const name of targets) assert.match(stdout, new RegExp(`^ {2}${name} {2,}`, 'm'));
  }
});

test('without a target, or with one that does not exist, it says which there are', () => {
  const nothing = crossCommand();
  assert.is(nothing.code, 1);
  assert.match(nothing.stderr, 'there is no target to compile for');
  assert.match(nothing.stderr, 'Usage: npm run cross -- TARGET');
  for (const args of [['amiga'], ['macos', 'amiga'], ['']]) {
    const { code, stdout, stderr } = crossCommand(...args);
    assert.is(code, 1);
    assert.is(stdout, '');
    assert.match(stderr, `there is no target '${args.at(-1)}'`);
    for (const name of targets) assert.match(stderr, name);
  }
});

test.run();
