// Memory for each idle connection: what a server's private memory grows by between 2,000 and 9,000
// of them. The clients are in this process.

import { once } from 'node:events';
import net from 'node:net';
import { BARE, type Command, echoServers, Server } from './peers/server.js';
import { type BenchOptions, type Case, caseOf, inTurn } from './report.js';

const FEW = 2_000;
/** Both sides of a connection are descriptors of this machine's limit, in two processes. */
const MANY = 9_000;
const AT_ONCE = 100;
/** Until what connecting left behind has been collected. */
const SETTLE_MS = 1_500;

async function slope(command: Command, talk: boolean): Promise<number> {
  const server = await Server.start(command);
  const sockets: net.Socket[] = [];
  const grow = async (to: number) => {
    while (sockets.length < to) {
      await Promise.all(
        Array.from({ length: AT_ONCE }, async () => {
          const socket = net.connect({ port: server.port, host: '127.0.0.1' });
          await once(socket, 'connect');
          if (talk) socket.write('hello');
          if (talk) await once(socket, 'data');
          sockets.push(socket);
        }),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    return server.privateDirty();
  };
  const few = await grow(FEW);
  const many = await grow(MANY);
  for (const socket of sockets) socket.destroy();
  await server.stop();
  return (many - few) / (MANY - FEW);
}

export default async function* idle(options: BenchOptions): AsyncIterable<Case> {
  // Without a state of its connections one of them has no memory to compare with.
  const { [BARE]: _, ...servers } = echoServers(options);
  for (const talk of options.quick ? [false] : [false, true]) {
    const programs = Object.fromEntries(
      Object.entries(servers).map(([name, command]) => [name, () => slope(command, talk)]),
    );
    const runs = await inTurn<string, number>(options.quick ? 1 : 5, programs);
    const { bufferevent, serve, ...peers } = runs;
    const name = talk ? 'idle after one message' : 'idle from the beginning';
    for (const [peer, theirs] of Object.entries(peers)) {
      yield caseOf(`${name}, BufferEvent`, 'B', bufferevent, { name: peer, runs: theirs });
      yield caseOf(`${name}, serve()`, 'B', serve, { name: peer, runs: theirs });
    }
  }
}
