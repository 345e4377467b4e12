// Counts lines, keeps the count in the connection's checkpoint, and dies when it is told to.

import { type Connection, defineWorker } from '../../../src/index.js';

interface State {
  count: number;
  rest: string;
  rescues: number;
  held?: Disposable;
}

const ways: Record<string, () => void> = {
  throw: () => {
    setImmediate(() => {
      throw new Error('of a timer');
    });
  },
  reject: () => {
    setImmediate(() => Promise.reject(new Error('rejected')));
  },
  exit: () => process.exit(3),
  leave: () => {
    setImmediate(() => process.exit(3));
  },
  memory: () => {
    const kept: unknown[] = [];
    setImmediate(() => {
      for (;;) kept.push([kept.length]);
    });
  },
};

const save = (conn: Connection<State>) =>
  conn.checkpoint(Buffer.from(`${conn.state.count} ${conn.state.rescues}`));

export default defineWorker<State>({
  open(conn) {
    conn.state = { count: 0, rest: '', rescues: 0 };
  },
  data(conn, chunk) {
    const { state } = conn;
    const lines = (state.rest + Buffer.from(chunk).toString('latin1')).split('\n');
    state.rest = lines.pop() as string;
    for (const line of lines) {
      state.count++;
      save(conn);
      const [word, argument] = line.split(' ');
      if (word === 'hold') state.held = conn.hold();
      if (word === 'release') state.held?.[Symbol.dispose]();
      if (word === 'never') return new Promise<void>(() => undefined);
      if (word === 'long') conn.checkpoint(new Uint8Array(Number(argument)));
      if (word === 'end') {
        conn.end('ended\n');
        return;
      }
      if (word === 'die') {
        conn.write('dying\n');
        ways[argument]();
        continue;
      }
      conn.write(`${state.count} ${conn.loop.id} ${state.rescues}\n`);
    }
    return undefined;
  },
  rescue(conn, checkpoint) {
    const [count, rescues] = Buffer.from(checkpoint ?? '0 0')
      .toString()
      .split(' ')
      .map(Number);
    conn.state = { count, rest: '', rescues: rescues + 1 };
    save(conn);
  },
});
