// Numbered lines, which have to come in their order: each is answered with itself, the loop, and how
// often its connection was rescued. One that is not the next ends the connection.

import { type Connection, defineWorker } from '../../../src/index.js';

interface Packed {
  /** Of the line that has to come. */
  next: number;
  /** The beginning of a line. */
  rest: string;
  rescues: number;
}
interface State extends Packed {
  held?: Disposable;
}

/** What is known of a connection outside its thread; with a part of a line it is at no boundary. */
function save(conn: Connection<State>): void {
  const { state } = conn;
  conn.checkpoint(Buffer.from(`${state.next} ${state.rescues}`));
  if (state.rest !== '') state.held ??= conn.hold();
  else {
    state.held?.[Symbol.dispose]();
    state.held = undefined;
  }
}

export default defineWorker<State>({
  open(conn) {
    conn.state = { next: 0, rest: '', rescues: 0 };
  },
  data(conn, chunk) {
    const { state } = conn;
    const lines = (state.rest + Buffer.from(chunk).toString('latin1')).split('\n');
    state.rest = lines.pop() as string;
    for (const line of lines) {
      if (Number(line.split(' ', 1)[0]) !== state.next) {
        conn.end(`${line.slice(0, 20)} came in place of ${state.next}\n`);
        return;
      }
      state.next++;
      conn.write(`${line} ${conn.loop.id} ${state.rescues}\n`);
    }
    save(conn);
  },
  pack: ({ state: { next, rest, rescues } }): State => ({ next, rest, rescues }),
  unpack(conn, packed) {
    conn.state = packed;
    save(conn);
  },
  rescue(conn, checkpoint) {
    const [next, rescues] = Buffer.from(checkpoint ?? '0 0')
      .toString()
      .split(' ')
      .map(Number);
    conn.state = { next, rest: '', rescues: rescues + 1 };
    save(conn);
  },
});
