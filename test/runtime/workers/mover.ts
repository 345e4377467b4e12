// A protocol of lines for the tests of moves: every line is answered with itself, the number that
// it has on its connection, and the loop that says so. What it knows of a connection is its state.

import { type Connection, defineWorker, type LoopContext } from '../../../src/index.js';

interface State {
  /** Lines answered. */
  lines: number;
  /** The beginning of a line whose end has not come. */
  rest: string;
  hops: number[];
}

const posts: string[] = [];

function command(conn: Connection<State>, line: string, loop: LoopContext): void {
  const [word, argument] = line.split(' ');
  const answer = (text: string) => conn.write(`${text}\n`);
  switch (word) {
    case 'move':
      conn.move(Number(argument)).then(
        () => undefined,
        (error) => answer(`failed ${error.code}`),
      );
      break;
    case 'late': {
      // Moved from outside any hook, by code that holds on to the connection.
      const target = Number(argument);
      setImmediate(() => {
        conn.move(target);
        setImmediate(() => {
          try {
            conn.write('from the grave\n');
          } catch (error) {
            loop.post(target, `stale ${(error as { code: string }).code}`);
          }
        });
      });
      break;
    }
    case 'bad':
      conn.state = { ...conn.state, rest: '', odd: () => 1 } as unknown as State;
      conn.move(Number(argument)).catch((error) => {
        conn.state = { lines: conn.state.lines, rest: '', hops: conn.state.hops };
        answer(`failed ${error.code}`);
      });
      break;
    case 'big':
      answer('x'.repeat(Number(argument)));
      break;
    case 'post':
      loop.post(Number(argument), `${loop.id} says hello`);
      break;
    case 'broadcast':
      loop.broadcast(`all: ${argument}`);
      break;
    case 'posts':
      answer(posts.join(','));
      break;
    case 'hops':
      answer(conn.state.hops.join(','));
      break;
    case 'spin': {
      // Its answer has to leave before the loop is blocked.
      const end = performance.now() + Number(argument);
      setImmediate(() => {
        while (performance.now() < end);
      });
      answer('spinning');
      break;
    }
    case 'slow':
      answer('begun');
      break;
    default:
      answer(`${line} ${conn.state.lines} ${loop.id}`);
  }
}

export default defineWorker<State>({
  open(conn) {
    conn.state = { lines: 0, rest: '', hops: [] };
  },
  async data(conn, chunk) {
    const lines = (conn.state.rest + Buffer.from(chunk).toString('latin1')).split('\n');
    conn.state.rest = lines.pop() as string;
    for (const line of lines) {
      conn.state.lines++;
      command(conn, line, conn.loop);
      // A hook that is not done holds the connection, also from moving.
      if (line.startsWith('slow')) {
        await new Promise((resolve) => setTimeout(resolve, Number(line.split(' ')[1])));
        conn.write('done\n');
      }
    }
  },
  unpack(conn, packed) {
    conn.state = packed;
    conn.state.hops.push(conn.loop.id);
  },
  left(conn) {
    posts.push(`left ${conn.state.lines}`);
  },
  message(value) {
    posts.push(String(value));
  },
});
