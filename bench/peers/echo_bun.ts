// The same on Bun's own sockets, run by Bun where it is installed.

interface BunSocket {
  write(data: Uint8Array): number;
  data: { rest: Uint8Array | undefined };
}
declare const Bun: {
  listen(options: {
    hostname: string;
    port: number;
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
    error: () => undefined,
  },
});
console.log(server.port);
process.on('SIGTERM', () => process.exit(0));
