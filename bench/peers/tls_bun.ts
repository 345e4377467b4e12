// An echo server on Bun's own TLS sockets that prints its port, run by Bun where it is installed.
//
//   bun PROGRAM KEY

import { pairOf, taskOf } from './tls_options.js';

interface BunSocket {
  write(data: Uint8Array): number;
  end(): void;
  data: { rest: Uint8Array | undefined };
}
declare const Bun: {
  listen(options: {
    hostname: string;
    port: number;
    tls: { cert: string; key: string };
    socket: Record<string, (socket: BunSocket, data: Uint8Array) => void>;
  }): { port: number };
};

/** What the kernel does not take waits for `drain`; the client sends no more until it has it. */
function send(socket: BunSocket, data: Uint8Array): void {
  const count = socket.write(data);
  socket.data = { rest: count < data.length ? data.slice(Math.max(0, count)) : undefined };
}

const server = Bun.listen({
  hostname: '127.0.0.1',
  port: 0,
  tls: pairOf(taskOf(process.argv.slice(2)).key),
  socket: {
    data: (socket, data) => {
      const rest = socket.data?.rest;
      if (rest === undefined) send(socket, data);
      else socket.data = { rest: Buffer.concat([rest, data]) };
    },
    drain: (socket) => {
      const rest = socket.data?.rest;
      if (rest !== undefined) send(socket, rest);
    },
    end: (socket) => socket.end(),
    error: () => undefined,
  },
});
console.log(server.port);
process.on('SIGTERM', () => process.exit(0));
