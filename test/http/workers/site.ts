// Answers who serves it; waits when it is told to, dies when it is told to.

import { setTimeout } from 'node:timers/promises';
import { httpWorker } from '../../../src/http.js';
import type { Connection, LoopContext } from '../../../src/index.js';

/** Of all loops: how many requests have begun to wait, and whether they may go on. */
const flagsOf = (loop: LoopContext) =>
  new Int32Array((loop.workerData as { shared: SharedArrayBuffer }).shared);

export default httpWorker({
  async request(request, response) {
    const conn = request.stream as Connection<{ requests: number }>;
    const { loop } = conn;
    const flags = flagsOf(loop);
    const facts = { loop: loop.id, generation: loop.generation, requests: conn.state.requests };
    switch (request.path) {
      case '/late':
        Atomics.add(flags, 0, 1);
        while (Atomics.load(flags, 1) === 0) await setTimeout(1);
        break;
      case '/move':
        void conn.move(Number(request.query));
        break;
      case '/body':
        Atomics.add(flags, 0, 1);
        return response.json({ ...facts, body: await request.text() });
      case '/die':
        setImmediate(() => {
          throw new Error('told to die');
        });
        break;
    }
    return response.json({ ...facts, id: conn.id });
  },
});
