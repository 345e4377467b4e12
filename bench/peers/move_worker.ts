// Moves a connection as often as it is told, from loop to loop, and says so.

import { type Connection, defineWorker } from '../../src/index.js';

interface State {
  total: number;
  left: number;
}

function next(conn: Connection<State>): void {
  const { state } = conn;
  if (state.left === 0) {
    conn.write(`${state.total} moves`);
    return;
  }
  state.left--;
  conn.move(1 - conn.loop.id);
}

export default defineWorker<State>({
  data(conn, chunk) {
    const total = Number(Buffer.from(chunk).toString());
    conn.state = { total, left: total };
    next(conn);
  },
  unpack(conn, state) {
    conn.state = state;
    next(conn);
  },
});
