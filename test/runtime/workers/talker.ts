// A protocol of lines for the tests of numbers, drains and rebalancing. Blocking is by shared
// memory, so that a test decides when it is over.

import { subscribe } from 'node:diagnostics_channel';
import { readFileSync } from 'node:fs';
import { type Connection, defineWorker, type LoopContext } from '../../../src/index.js';

/** workerData.flags, an Int32Array: what loop 0 has to do. */
export const Flag = { BLOCK: 0, LAG: 1 } as const;

interface State {
  rest: string;
  lines: number;
}

const moves: unknown[] = [];
subscribe('multiloop:move', (message) => moves.push(message));

// Not a part of the state, which is cloned for a move; what is held does not move.
const held = new WeakMap<Connection, Disposable>();

function flagsOf(loop: LoopContext): Int32Array {
  return (loop.workerData as { flags: Int32Array }).flags;
}

const spin = (ms: number) => {
  const end = performance.now() + ms;
  while (performance.now() < end);
};

function answer(conn: Connection<State>, line: string): void {
  const say = (text: string) => conn.write(`${text}\n`);
  switch (line) {
    case 'begin':
      held.set(conn, conn.hold());
      say('begun');
      break;
    case 'finish':
      held.get(conn)?.[Symbol.dispose]();
      say('finished');
      break;
    case 'block': {
      const flags = flagsOf(conn.loop);
      Atomics.store(flags, Flag.BLOCK, 1);
      // The answer has to leave before.
      setImmediate(() => Atomics.wait(flags, Flag.BLOCK, 1));
      say('blocking');
      break;
    }
    case 'fail':
      throw new Error('of the hook');
    case 'die':
      setImmediate(() => {
        throw new Error('of the loop');
      });
      break;
    case 'bytes':
      say(`${conn.bytesRead} ${conn.bytesWritten}`);
      break;
    case 'moves':
      say(JSON.stringify(moves));
      break;
    case 'processors':
      say(
        /^Cpus_allowed_list:\s*(.*)$/m.exec(
          readFileSync('/proc/thread-self/status', 'utf8'),
        )?.[1] ?? '',
      );
      break;
    default:
      say(`${line} ${++conn.state.lines} ${conn.loop.id}`);
  }
}

export default defineWorker<State>({
  start(loop) {
    if (loop.id !== 0 || loop.workerData === undefined) return;
    const flags = flagsOf(loop);
    const turn = loop.base.timer(
      () => {
        if (Atomics.load(flags, Flag.LAG) === 1) spin(40);
      },
      { persist: true },
    );
    turn.add(20).unref();
  },
  open(conn) {
    conn.state = { rest: '', lines: 0 };
  },
  data(conn, chunk) {
    const lines = (conn.state.rest + Buffer.from(chunk).toString()).split('\n');
    conn.state.rest = lines.pop() as string;
    for (const line of lines) answer(conn, line);
  },
  rescue(conn) {
    conn.state = { rest: '', lines: 0 };
  },
});
