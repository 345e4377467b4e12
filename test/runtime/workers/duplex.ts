// A worker whose connections are served by Node's http server, as Duplexes.

import { createServer } from 'node:http';
import { type DuplexAdapter, defineWorker } from '../../../src/index.js';

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    if (request.url === '/break') throw new Error('broken by request');
    response.end(`${Buffer.concat(chunks).length} bytes from port ${request.socket.remotePort}`);
  });
});

export default defineWorker({
  open(conn) {
    const duplex: DuplexAdapter = conn.toDuplex({ allowHalfOpen: true });
    server.emit('connection', duplex);
  },
});
