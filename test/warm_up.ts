// Descriptors that Node opens once in a process. They have to be there, or gone again, before a
// test counts the open ones.

import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';

/** Waits for them; only the first call does anything. */
export function warmUp(): Promise<void> {
  warm ??= warmAll();
  return warm;
}

let warm: Promise<void> | undefined;

async function warmAll(): Promise<void> {
  // libuv keeps /dev/null open from the first stream of a loop on, for when there is no descriptor
  // left (src/unix/stream.c, uv__stream_init); standard output is one only if it is a pipe.
  const server = net.createServer((socket) => socket.end()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1').resume();
  await once(socket, 'close');
  await once(server.close(), 'close');
  // Once its tls is loaded, Node from 24 on reads the root certificates on a thread of its own, the
  // file that NODE_EXTRA_CA_CERTS names among them (lib/tls.js). This needs them, so it waits.
  tls.createSecureContext();
}
