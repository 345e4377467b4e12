// Tests of what some machines or builds lack by definition.

import { test } from 'uvu';

/** A test; where something is lacking it is skipped, and its name says what. */
export function testWhere(
  lacking: string | undefined,
  name: string,
  body: () => void | Promise<void>,
): void {
  if (lacking === undefined) test(name, body);
  else test.skip(`${lacking}: ${name}`, body);
}
