// A process of its own that serves TLS with the ticket file of its argument, until its input ends.

import { serve } from '../../src/index.js';
import { pair } from '../tls/pems.js';
import { portOf, workerFile } from './clients.js';

const group = await serve({
  worker: workerFile('teller'),
  loops: 1,
  listen: { port: 0, tls: { ...pair('localhost'), ticketFile: process.argv[2] } },
});
process.stdout.write(`${portOf(group)}\n`);
process.stdin.on('end', () => group.close()).resume();
