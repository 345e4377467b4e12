// What multiloop's loops do in the bench `handoff`, as handoff_server.ts says.

import { defineWorker } from '../../src/index.js';
import { block } from './block.js';

let answer = '';

export default defineWorker({
  start(loop) {
    answer = `${loop.id}\n`;
    const { blocked } = loop.workerData as { blocked?: boolean };
    if (blocked === true && loop.id === 0) block();
  },
  data(conn, chunk) {
    if (chunk[0] === 0x71) conn.end(answer);
    else conn.write(answer);
  },
});
