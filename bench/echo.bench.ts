// Echo: the server's CPU for each message, on one loop, beside libevent's bufferevents, Node's net
// and Bun. Client and servers are processes of their own, so the client's work is not counted.

import { once } from 'node:events';
import net from 'node:net';
import { type Command, echoServers, Server } from './peers/server.js';
import { type BenchOptions, type Case, caseOf, inTurn } from './report.js';

interface Load {
  connections: number;
  bytes: number;
  ms: number;
}
interface Figures {
  cpu: number;
  rate: number;
}

/** Microseconds of the server's CPU for each message that came back, and messages per second. */
async function measure(command: Command, load: Load): Promise<Figures> {
  const server = await Server.start(command);
  let messages = 0;
  let going = true;
  const message = Buffer.alloc(load.bytes, 'x');
  const sockets = await Promise.all(
    Array.from({ length: load.connections }, async () => {
      const socket = net.connect({ port: server.port, host: '127.0.0.1', noDelay: true });
      await once(socket, 'connect');
      let missing = load.bytes;
      socket.on('data', (data) => {
        missing -= data.length;
        if (missing > 0) return;
        missing = load.bytes;
        messages++;
        if (going) socket.write(message);
      });
      return socket;
    }),
  );
  for (const socket of sockets) socket.write(message);
  // What is compiled in the first moments is not what a server costs.
  await new Promise((resolve) => setTimeout(resolve, load.ms / 3));
  const [cpu, seen] = [server.cpu(), messages];
  await new Promise((resolve) => setTimeout(resolve, load.ms));
  const used = server.cpu() - cpu;
  const count = messages - seen;
  going = false;
  for (const socket of sockets) socket.destroy();
  await server.stop();
  return { cpu: (used / count) * 1e6, rate: (count / load.ms) * 1_000 };
}

export default async function* echo(options: BenchOptions): AsyncIterable<Case> {
  const servers = echoServers(options);
  const ms = options.quick ? 900 : 3_000;
  const rounds = options.quick ? 1 : 7;
  for (const connections of [1, 50, 500]) {
    for (const bytes of [64, 16_384]) {
      if (options.quick && (connections === 500 || (connections === 1 && bytes !== 64))) continue;
      const load = { connections, bytes, ms };
      const programs = Object.fromEntries(
        Object.entries(servers).map(([name, command]) => [name, () => measure(command, load)]),
      );
      const runs = await inTurn<string, Figures>(rounds, programs);
      const { bufferevent, serve, ...peers } = runs;
      const of = (all: Figures[], what: keyof Figures) => all.map((one) => one[what]);
      const name = `${connections} × ${bytes} B`;
      for (const [peer, theirs] of Object.entries(peers)) {
        const cpu = { name: peer, runs: of(theirs, 'cpu') };
        yield caseOf(`${name}, BufferEvent`, 'µs CPU/msg', of(bufferevent, 'cpu'), cpu);
        if (peer === 'node net')
          yield caseOf(`${name}, serve()`, 'µs CPU/msg', of(serve, 'cpu'), cpu);
        // Nanoseconds for a message, so that less is better here as well.
        const time = (all: Figures[]) => of(all, 'rate').map((rate) => 1e6 / rate);
        yield caseOf(`${name}, BufferEvent, elapsed`, 'µs/msg', time(bufferevent), {
          name: peer,
          runs: time(theirs),
        });
      }
    }
  }
}
