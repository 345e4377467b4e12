// A worker whose connections are served by Node's http server, as Duplexes.

import { createServer } from 'node:http';
import { type DuplexAdapter, defineWorker } from '../../../src/index.js';

let refused = 'nothing';

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    response.end(
      `${Buffer.concat(chunks).length} bytes, ${refused}, from port ${request.socket.remotePort}`,
    );
  });
});

export default defineWorker({
  open(conn) {
    const duplex: DuplexAdapter = conn.toDuplex({ allowHalfOpen: true });
    server.emit('connection', duplex);
    // It belongs to this thread's http server from here on.
    conn.move((conn.loop.id + 1) % 2).catch((error) => {
      refused = error.code;
    });
  },
});
