// Ends TLS, and says the loop's number and the name that the client has asked for.

import { createServer } from 'node:tls';
import { defineWorker } from '../../../src/index.js';

/** No certificate is needed where both know a key. */
export const PSK = { ciphers: 'PSK', maxVersion: 'TLSv1.2', key: Buffer.alloc(16, 1) } as const;

let loop = -1;
const server = createServer(
  { ciphers: PSK.ciphers, maxVersion: PSK.maxVersion, pskCallback: () => PSK.key },
  (socket) => {
    socket.on('error', () => undefined);
    socket.end(`${loop} ${socket.servername}`);
  },
);

export default defineWorker({
  start(context) {
    loop = context.id;
  },
  open: (conn) => void server.emit('connection', conn.toDuplex({ allowHalfOpen: true })),
});
