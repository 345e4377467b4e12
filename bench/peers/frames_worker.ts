// What multiloop's loops do in the benches `move` and `reload`: they answer frames, and hold a
// connection while half a frame of it is there. By order of the bench they move connections, and
// die; when, they write into memory that outlives them.

import { type Connection, defineWorker, type LoopContext } from '../../src/index.js';
import { Frames, stamp } from './frames.js';
import { millis } from './rpc.js';

export interface FramesData {
  /** When a loop began to die, in milliseconds of millis(). */
  died: Float64Array;
  /** Computes so long for each chunk of frames. */
  spinMicros?: number;
  /** Moves one of its connections so often. */
  moveEveryMs?: number;
}
export type Way = 'throw' | 'reject' | 'exit';

interface State {
  frames: Frames;
  held: Disposable | undefined;
}

const fresh = (): State => ({ frames: new Frames(), held: undefined });

let data: FramesData;
let turn = 0;

function spin(micros: number): void {
  const end = millis() + micros / 1_000;
  while (millis() < end);
}

/** One of this loop's, each in its turn, to the next loop. */
function moveOne(loop: LoopContext): void {
  const all = [...loop.connections()];
  if (all.length > 0) all[turn++ % all.length].move((loop.id + 1) % 2).catch(() => undefined);
}

const ways: Record<Way, () => void> = {
  throw: () => {
    setImmediate(() => {
      data.died[0] = millis();
      throw new Error('a crash of the bench');
    });
  },
  reject: () => {
    setImmediate(() => {
      data.died[0] = millis();
      Promise.reject(new Error('a crash of the bench'));
    });
  },
  exit: () => {
    data.died[0] = millis();
    process.exit(1);
  },
};

export default defineWorker<State, null>({
  start(loop) {
    data = loop.workerData as FramesData;
    const { moveEveryMs } = data;
    if (moveEveryMs !== undefined)
      loop.base.timer(() => moveOne(loop), { persist: true }).add(moveEveryMs);
  },
  open(conn) {
    conn.state = fresh();
  },
  data(conn: Connection<State>, chunk) {
    const { state } = conn;
    const whole = state.frames.take(chunk);
    if (data.spinMicros !== undefined) spin(data.spinMicros);
    if (whole !== undefined) conn.write(stamp(whole, conn.loop.id));
    if (state.frames.rest !== undefined) state.held ??= conn.hold();
    else if (state.held !== undefined) {
      state.held[Symbol.dispose]();
      state.held = undefined;
    }
  },
  // Nothing is to be said of a connection at a boundary.
  pack: () => null,
  unpack(conn) {
    conn.state = fresh();
  },
  rescue(conn) {
    conn.state = fresh();
  },
  message: (way) => ways[way as Way](),
});
