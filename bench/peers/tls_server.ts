// Servers of the bench `tls` that print their port: one BufferEvent base, a loop group of one loop,
// or Node's tls.
//
//   PROGRAM bufferevent|serve|node KEY ROLE BYTES       see tls_options.ts

import type { AddressInfo } from 'node:net';
import tls, { type TLSSocket } from 'node:tls';
import {
  type BevEvent,
  type BevHandlers,
  BufferEvent,
  Ev,
  EventBase,
  Listener,
  serve,
} from '../../src/index.js';
import { PIECE, pairOf, taskOf } from './tls_options.js';

const event = (bev: BufferEvent, { eof, error }: BevEvent) => {
  if (eof || error !== undefined) bev.close();
};
const drain = (bev: BufferEvent) => bev.input.drain(bev.input.length);
const ECHO: BevHandlers = { event, read: (bev) => bev.write(bev.input) };
const SINK: BevHandlers = { event, read: drain };

const [kind, ...rest] = process.argv.slice(2);
const task = taskOf(rest);
const pair = pairOf(task.key);
process.on('SIGTERM', () => process.exit(0));

if (kind === 'node') {
  const server = tls.createServer({ ...pair, noDelay: true }, serveSocket);
  server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
} else if (kind === 'serve') {
  const worker = new URL(
    task.role === 'echo' ? '../../workers/echo.js' : './tls_worker.js',
    import.meta.url,
  );
  print((await serve({ worker, loops: 1, listen: { tls: pair }, workerData: task })).addresses[0]);
} else {
  const base = new EventBase({ drive: 'base' });
  const listener = new Listener(base, { port: 0 }, (fd) => {
    BufferEvent.socket(base, fd, { handlers: handlers(), tls: pair }).enable(Ev.READ);
  });
  print(listener.address);
  await base.dispatch();
}

function serveSocket(socket: TLSSocket): void {
  socket.on('error', () => socket.destroy());
  if (task.role === 'echo') socket.pipe(socket);
  else if (task.role === 'sink') socket.resume();
  else {
    let left = task.bytes;
    const more = () => {
      while (left > 0) {
        const piece = left < PIECE.length ? PIECE.subarray(0, left) : PIECE;
        left -= piece.length;
        if (!socket.write(piece)) return;
      }
      socket.end();
    };
    socket.once('data', more);
    socket.on('drain', more);
    socket.resume();
  }
}

function handlers(): BevHandlers {
  if (task.role === 'echo') return ECHO;
  if (task.role === 'sink') return SINK;
  let left = task.bytes;
  const write = (bev: BufferEvent) => {
    while (left > 0) {
      const piece = left < PIECE.length ? PIECE.subarray(0, left) : PIECE;
      left -= piece.length;
      if (!bev.write(piece)) return;
    }
    bev.end();
  };
  const read = (bev: BufferEvent) => {
    drain(bev);
    bev.handlers = { ...SINK, write };
    write(bev);
  };
  return { ...SINK, read };
}

function print(address: object): void {
  console.log('port' in address ? address.port : undefined);
}
