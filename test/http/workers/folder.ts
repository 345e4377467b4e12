// Serves a folder, says which code it is, and dies when it is told to.

import { files, httpWorker, Router } from '../../../src/http.js';
import type { Connection, LoopContext } from '../../../src/index.js';

const router = new Router()
  .get('/generation', (request, response) => {
    const { loop } = request.stream as Connection;
    response.send(String(loop.generation));
  })
  .get('/die', () => {
    setImmediate(() => {
      throw new Error('told to die');
    });
  });

export default httpWorker({
  start({ workerData }: LoopContext) {
    const { folder, cacheMs } = workerData as { folder: string; cacheMs?: number };
    router.get('/files/*', files(folder, cacheMs === undefined ? {} : { cacheMs }));
  },
  request: router.handler,
});
