// Survives what nobody caught, and has something to survive for each connection.

import { defineWorker } from '../../../src/index.js';

process.on('uncaughtException', () => undefined);

export default defineWorker({
  open() {
    process.nextTick(() => {
      throw new Error('thrown in a tick of open');
    });
  },
  data(conn, chunk) {
    conn.write(chunk);
  },
});
