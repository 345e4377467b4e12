// Runs when the package is installed, in somebody's project or in a clone: a prebuilt addon that
// loads is enough, otherwise the addon is compiled from the sources that the package carries.

import { existsSync } from 'node:fs';
import { builtFrom, compile, loads, main, prebuiltAddon, withLock } from './addon.mjs';

await main(async () => {
  const prebuilt = prebuiltAddon();
  if (existsSync(prebuilt)) {
    const trial = loads(prebuilt);
    if (trial.ok) return;
    console.error(
      `multiloop: ${prebuilt} does not load here (${trial.why}); building from source.`,
    );
  }
  await withLock(async () => {
    if (builtFrom() === 'stale') await compile();
  });
});
