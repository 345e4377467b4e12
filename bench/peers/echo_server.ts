// An echo server that prints its port: multiloop with one loop, or Node's net. For echo.bench.ts.

import net, { type AddressInfo } from 'node:net';
import { serve } from '../../src/index.js';

if (process.argv[2] === 'net') {
  const server = net.createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
} else {
  const worker = new URL('../../workers/echo.js', import.meta.url);
  const group = await serve({ worker, loops: 1, handleSignals: true });
  const [address] = group.addresses;
  console.log('port' in address ? address.port : address.path);
}
