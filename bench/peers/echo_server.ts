// Echo servers that print their port: one BufferEvent base, a loop group of one loop, or Node's net.
// For echo.bench.ts and idle.bench.ts.

import net, { type AddressInfo } from 'node:net';
import { BufferEvent, Ev, EventBase, Listener, serve } from '../../src/index.js';

const [kind] = process.argv.slice(2);
process.on('SIGTERM', () => process.exit(0));

if (kind === 'net') {
  const server = net.createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
} else if (kind === 'serve') {
  const worker = new URL('../../workers/echo.js', import.meta.url);
  const group = await serve({ worker, loops: 1 });
  print(group.addresses[0]);
} else {
  const base = new EventBase({ drive: 'base' });
  const handlers = {
    read: (bev: BufferEvent) => bev.write(bev.input),
    event: (bev: BufferEvent) => bev.close(),
  };
  const listener = new Listener(base, { port: 0 }, (fd) => {
    BufferEvent.socket(base, fd, { handlers }).enable(Ev.READ);
  });
  print(listener.address);
  await base.dispatch();
}

function print(address: object): void {
  console.log('port' in address ? address.port : undefined);
}
