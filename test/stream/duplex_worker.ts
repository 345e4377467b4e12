// A thread of its own with a base, a listener and Node's http server over Duplexes.

import { createServer } from 'node:http';
import { parentPort, threadId, workerData } from 'node:worker_threads';
import { BufferEvent, EventBase, Listener } from '../../src/index.js';

const base = new EventBase({ ...workerData, debug: true });
const server = createServer(async (request, response) => {
  let bytes = 0;
  for await (const chunk of request) bytes += chunk.length;
  if (request.url === '/hang') response.write('and then');
  else response.end(`thread ${threadId} got ${bytes}`);
});
const listener = new Listener(base, { port: 0, host: '127.0.0.1' }, (fd) => {
  server.emit('connection', BufferEvent.socket(base, fd).toDuplex());
});
parentPort?.once('message', () => {
  server.close();
  server.closeAllConnections();
  listener.close();
});
parentPort?.postMessage('port' in listener.address ? listener.address.port : 0);
// Nothing but the listener and the connections keeps it.
parentPort?.unref();
await base.dispatch();
base.close();
