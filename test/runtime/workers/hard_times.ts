// A worker of lines whose hooks do what they should not: throw, write, close and die at the wrong
// moment. Its connections' state is the number of lines they had.

import { type Connection, defineWorker } from '../../../src/index.js';
import { native } from '../../../src/native.js';

interface State {
  lines: number;
  mood: string;
  held?: Disposable;
}

const delay = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

// The thread ends when bytes have left the kernel and nobody knows of them yet.
let endsAfterRead = false;
const { slabRecv } = native;
native.slabRecv = (fd, offset, length) => {
  const count = slabRecv(fd, offset, length);
  if (endsAfterRead && count > 0) process.exit(6);
  return count;
};

export default defineWorker<State>({
  async start({ id, generation, workerData }) {
    // Loop 1 of the second generation comes up when the test says so.
    const gate = (workerData as { gate?: SharedArrayBuffer } | undefined)?.gate;
    if (gate !== undefined && id === 1 && generation > 0) Atomics.wait(new Int32Array(gate), 0, 0);
  },
  open(conn) {
    conn.state = { lines: 0, mood: '' };
  },
  async data(conn, chunk) {
    const { state } = conn;
    for (const line of Buffer.from(chunk).toString('latin1').split('\n').slice(0, -1)) {
      const [word, argument] = line.split(' ');
      state.lines++;
      conn.checkpoint(Buffer.from(`${state.lines} ${state.mood}`));
      if (word === 'mood') state.mood = argument;
      if (word === 'move') {
        conn.move(Number(argument)).catch((error) => {
          if (!conn.closed) conn.write(`failed ${error.code}\n`);
        });
      }
      if (word === 'slow') await delay(Number(argument));
      if (word === 'hold') state.held = conn.hold();
      if (word === 'release') {
        state.held?.[Symbol.dispose]();
        state.held = undefined;
      }
      if (word === 'duplex') {
        const duplex = conn.toDuplex();
        duplex.on('data', () => duplex.write('of the duplex\n'));
      }
      if (word === 'last') endsAfterRead = true;
      conn.checkpoint(Buffer.from(`${state.lines} ${state.mood}`));
      conn.write(`${word} ${state.lines} ${conn.loop.id} ${conn.id}\n`);
    }
  },
  pack(conn) {
    const { lines, mood } = conn.state;
    if (mood === 'pack-throws') throw new Error('of pack');
    if (mood === 'pack-writes') conn.write('packed\n');
    if (mood === 'pack-closes') conn.close();
    if (mood === 'pack-function') return { lines, mood: (() => mood) as unknown as string };
    return { lines, mood };
  },
  unpack(conn, packed) {
    if (packed.mood === 'unpack-throws') throw new Error('of unpack');
    conn.state = packed;
  },
  rescue(conn: Connection<State>, checkpoint) {
    const [lines, mood] = String(Buffer.from(checkpoint ?? '0 ')).split(' ');
    if (mood === 'rescue-throws') throw new Error('of rescue');
    conn.state = { lines: Number(lines), mood };
  },
  message(value) {
    // Blocked, and leaves the processor to the others.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(value));
  },
});
