// The rescuer, which can also block its thread, be stuck in native code and fill its heap.

import { openSync, readSync } from 'node:fs';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { defineWorker, type LoopContext, type LoopWorker } from '../../../src/index.js';
import rescuer from './rescuer.js';

const kept: unknown[] = [];

const commands: Record<string, (loop: LoopContext) => void> = {
  spin: () => {
    for (;;);
  },
  /** Until the test says so. */
  wait: ({ workerData }) => {
    Atomics.wait(new Int32Array((workerData as { gate: SharedArrayBuffer }).gate), 0, 0);
  },
  /** terminate() does not interrupt a read(2) that waits. */
  stuck: ({ workerData }) => {
    const fd = openSync((workerData as { fifo: string }).fifo, 'r+');
    readSync(fd, Buffer.alloc(1));
  },
  /**
   * To 27 MiB, and a full collection: few of those, since V8 ends a thread after four in a row that
   * leave more than 80 % and took most of the time (Heap::CheckIneffectiveMarkCompact).
   */
  fill: () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    if (kept.length === 0) {
      collect();
      const bytes = 27 * 2 ** 20 - getHeapStatistics().used_heap_size;
      for (let i = 0; i < bytes / 8_016; i++) kept.push(new Array(1_000).fill(0));
    }
    collect();
  },
};

const lines = rescuer as LoopWorker;

export default defineWorker({
  ...lines,
  start({ workerData }) {
    const { flag, startMs = 0 } = (workerData ?? {}) as {
      flag?: SharedArrayBuffer;
      startMs?: number;
    };
    if (flag !== undefined && Atomics.load(new Int32Array(flag), 0) === 1)
      throw new Error('told not to start');
    if (startMs > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, startMs);
  },
  data(conn, chunk) {
    commands[Buffer.from(chunk).toString().trim()]?.(conn.loop);
    return lines.data?.(conn, chunk);
  },
});
