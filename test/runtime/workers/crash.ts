// Ends its thread in every way there is, when it is told to.

import { defineWorker } from '../../../src/index.js';

const ways: Record<string, () => void> = {
  throw: () => {
    setTimeout(() => {
      throw new Error('thrown in a timer');
    }, 0);
  },
  tick: () => {
    process.nextTick(() => {
      throw new Error('thrown in a tick');
    });
  },
  null: () => {
    process.nextTick(() => {
      throw null;
    });
  },
  reject: () => {
    Promise.reject(new Error('rejected'));
  },
  exit: () => process.exit(3),
  spin: () => {
    setImmediate(() => {
      for (;;);
    });
  },
  'spin here': () => {
    for (;;);
  },
  memory: () => {
    const kept: unknown[] = [];
    for (;;) kept.push([kept.length]);
  },
};

export default defineWorker({
  data(conn, chunk) {
    ways[Buffer.from(chunk).toString()]?.();
    conn.write(chunk);
  },
});
