// `npm start`: the set-up that is still missing, then the server in this same process, so that a
// signal sent to it reaches the server and nothing else.

import { fileURLToPath } from 'node:url';
import { main } from './addon.mjs';
import { setup } from './setup.mjs';

const commandLine = new URL('../dist/src/cli/main.js', import.meta.url);

await main(() => setup());
process.argv = [process.execPath, fileURLToPath(commandLine), 'serve', ...process.argv.slice(2)];
await import(commandLine.href);
