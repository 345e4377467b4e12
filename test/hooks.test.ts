// What becomes of a hook that throws: it is named with its stack, the tests after it run, and the
// file counts as failed.

import { spawnSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { test } from './hooks.js';

const hooks = new URL('./hooks.js', import.meta.url).href;

function run(body: string): { code: number | null; stdout: string; stderr: string } {
  const program = `import { suite, test } from '${hooks}';\n${body}`;
  const args = ['--input-type=module', '-e', program];
  const child = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 20_000 });
  return { code: child.status, stdout: child.stdout, stderr: child.stderr };
}

const tests = "tests('one', () => {}); tests('two', () => { throw new Error('of two'); });";
const more = "tests('three', () => {}); tests.run();";

for (const made of ['const tests = test;', "const tests = suite('a suite');"]) {
  for (const when of ['before', 'after'])
    test(`${made} ${when} each test`, () => {
      const hook = `tests.${when}.each(function look() { throw new Error('of the hook'); });`;
      const { code, stdout, stderr } = run(made + hook + tests + more);
      assert.is(code, 1);
      for (const name of ['one', 'two', 'three'])
        assert.match(stderr, `FAIL  what is done ${when} the test "${name}"\nError: of the hook\n`);
      assert.match(stderr, 'at look ');
      assert.match(stdout, 'of two');
      assert.match(stdout, /Total: +3\n.*Passed: +2\n/);
    });

  for (const when of ['before', 'after'])
    test(`${made} ${when} all`, () => {
      const hook = `tests.${when}(async () => { throw new Error('of the hook'); });`;
      const { code, stdout, stderr } = run(`${made + hook}tests('one', () => {}); tests.run();`);
      assert.is(code, 1);
      assert.match(stderr, `FAIL  what is done ${when} all tests\nError: of the hook\n`);
      assert.match(stdout, /Total: +1\n.*Passed: +1\n/);
    });
}

test('hooks that hold change nothing, and are given the context', () => {
  const hook = 'test.before.each(({ __test__ }) => console.error(__test__));';
  const { code, stderr } = run(`${hook}test('one', () => {}); test.run();`);
  assert.equal([code, stderr], [0, 'one\n']);
});

test.run();
