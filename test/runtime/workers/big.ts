// Answers a number with that many bytes, all of them queued at once.

import { defineWorker } from '../../../src/index.js';

export default defineWorker({
  data(conn, chunk) {
    conn.write(Buffer.alloc(Number(Buffer.from(chunk).toString())));
  },
});
