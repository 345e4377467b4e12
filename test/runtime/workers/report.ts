// Answers what it is asked: a JSON line about the loop and the connection, or one of the things
// that code in a Node thread does.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { isMainThread, MessageChannel, threadId } from 'node:worker_threads';
import { type Connection, defineWorker } from '../../../src/index.js';

const asks: Record<string, (conn: Connection) => unknown> = {
  who: (conn) => ({
    loop: conn.loop.id,
    generation: conn.loop.generation,
    thread: threadId,
    main: isMainThread,
    backend: conn.loop.base.backend,
    waker: conn.loop.base.waker,
    connection: conn.id,
    listener: conn.listener,
    remote: conn.remoteAddress,
    local: conn.localAddress,
    workerData: conn.loop.workerData,
  }),
  resources: () => process.getActiveResourcesInfo(),
  timeout: async () => {
    const started = performance.now();
    await delay(20);
    return performance.now() - started;
  },
  immediate: () => new Promise((resolve) => setImmediate(() => resolve('immediate'))),
  message: () =>
    new Promise((resolve) => {
      const { port1, port2 } = new MessageChannel();
      port2.once('message', (value) => {
        port1.close();
        resolve(value);
      });
      port1.postMessage('message');
    }),
  fetch: async () => {
    const server = createServer((_, response) => response.end('fetched'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const text = await (await fetch(`http://127.0.0.1:${port}/`)).text();
    server.closeAllConnections();
    server.close();
    return text;
  },
};

export default defineWorker({
  async data(conn, chunk) {
    const question = Buffer.from(chunk).toString();
    const result = await asks[question]?.(conn);
    conn.write(JSON.stringify(result ?? null));
  },
});
