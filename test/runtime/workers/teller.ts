// Tells each connection what it knows of its TLS, and counts what it was told of connections.

import { defineWorker } from '../../../src/index.js';

let opened = 0;
let closed = 0;

export default defineWorker({
  open(conn) {
    opened++;
    const { protocol, servername, alpn, reused } = conn.tls ?? {};
    const keys = 'tls' in conn.listener;
    conn.write(`${JSON.stringify({ protocol, servername, alpn, reused, keys })}\n`);
  },
  data(conn) {
    conn.write(`${opened} ${closed} ${conn.loop.id}\n`);
  },
  close() {
    closed++;
  },
});
