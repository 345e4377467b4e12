// The worker of the bench `tls` that reads and forgets, or sends so many bytes once it was asked.

import { type Connection, defineWorker } from '../../src/index.js';
import { PIECE, type Task } from './tls_options.js';

/** What is left to send, from the first question on. */
type Conn = Connection<number | undefined>;

function more(conn: Conn): void {
  while (conn.state !== undefined && conn.state > 0) {
    const piece = conn.state < PIECE.length ? PIECE.subarray(0, conn.state) : PIECE;
    conn.state -= piece.length;
    if (!conn.write(piece)) return;
  }
  conn.end();
}

export default defineWorker<number | undefined>({
  data(conn) {
    const { role, bytes } = conn.loop.workerData as Task;
    if (role === 'sink' || conn.state !== undefined) return;
    conn.state = bytes;
    more(conn);
  },
  writable: more,
});
