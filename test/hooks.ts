// uvu's test and suite, for files with hooks. What a hook throws behind a test that has failed is
// lost in uvu, together with that failure and with every test after it. Here it is printed with
// what it belongs to and its stack, the tests go on, and the process ends with exit code 1, which
// test/run.mjs takes for a failure.

import { type Callback, test as plain, suite as plainSuite, type Test } from 'uvu';

export const test: Test = guard(plain);

export function suite(title: string): Test {
  return guard(plainSuite(title));
}

/** In place, so that it holds for whatever registers hooks of the same suite. */
function guard(tests: Test): Test {
  const { before, after } = tests;
  for (const [when, hook] of [
    ['before', before],
    ['after', after],
  ] as const) {
    const { each } = hook;
    const all: Test['before'] = Object.assign(
      (body: Callback) => hook(told(body, () => `${when} all tests`)),
      {
        each: (body: Callback) =>
          each(told(body, ({ __test__ }) => `${when} the test "${__test__}"`)),
      },
    );
    tests[when] = all;
  }
  return tests;
}

/** `body`, which no longer throws. */
function told(body: Callback, place: (context: Parameters<Callback>[0]) => string): Callback {
  return async (context) => {
    try {
      await body(context);
    } catch (error) {
      const text = error instanceof Error ? error.stack : String(error);
      console.error(`\nFAIL  what is done ${place(context)}\n${text}`);
      process.once('exit', () => {
        process.exitCode = 1;
      });
    }
  };
}
