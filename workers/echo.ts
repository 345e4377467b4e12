// Sends back whatever it is sent, and no faster than the peer reads it.

import { defineWorker } from '../src/index.js';

export default defineWorker({
  data(conn, chunk) {
    if (!conn.write(chunk)) conn.pause();
  },
  writable(conn) {
    conn.resume();
  },
});
