// Says what it was sent, byte for byte, when its peer has ended: the loop's number and the bytes in
// base64.

import { defineWorker } from '../../../src/index.js';

export default defineWorker<{ chunks: Uint8Array[] }>({
  open(conn) {
    conn.state = { chunks: [] };
  },
  data(conn, chunk) {
    conn.state.chunks.push(chunk);
  },
  end(conn) {
    conn.end(`${conn.loop.id} ${Buffer.concat(conn.state.chunks).toString('base64')}`);
  },
});
