// The servers of the bench `handoff`: multiloop's loop group, node:cluster with its round-robin,
// and core's own socket transfer, which a newer Node than ours may have to run. All of them answer
// the same: to `q` the number of the loop or worker that says so, and they end; to `w` the same,
// and they stay.
//
//   PROGRAM multiloop|alone|cluster|transfer JSON       { workers, blocked, policy, accept }

import cluster from 'node:cluster';
import net, { type AddressInfo, type Socket } from 'node:net';
import {
  isMainThread,
  parentPort,
  type TransferListItem,
  Worker,
  workerData,
} from 'node:worker_threads';
import { block } from './block.js';
import { answerCalls, type Calls } from './rpc.js';

interface Options {
  workers: number;
  /** The first one blocks 50 ms in every 200. */
  blocked?: boolean;
  policy?: string;
  accept?: string;
}

const HOST = '127.0.0.1';

function serveSocket(socket: Socket, number: number): void {
  socket.on('data', (data) => {
    if (data[0] === 0x71) socket.end(`${number}\n`);
    else socket.write(`${number}\n`);
  });
  socket.on('error', () => socket.destroy());
}

const listening = (server: net.Server) =>
  new Promise<number>((resolve) => {
    server.listen(0, HOST, () => resolve((server.address() as AddressInfo).port));
  });

const starts: Record<string, (options: Options) => Promise<Calls>> = {
  async multiloop({ workers, blocked, policy, accept }) {
    const { serve } = await import('../../src/index.js');
    const group = await serve({
      worker: new URL('./handoff_worker.js', import.meta.url),
      workerData: { blocked },
      loops: workers,
      listen: { host: HOST, port: 0 },
      policy,
      accept,
    } as Parameters<typeof serve>[0]);
    const [address] = group.addresses;
    return {
      port: () => ('port' in address ? address.port : 0),
      rebalance: () => group.rebalance(),
    };
  },

  /** Nothing is handed out: what accepting, answering and closing cost on one thread. */
  async alone() {
    const { BufferEvent, Ev, EventBase, Listener } = await import('../../src/index.js');
    const base = new EventBase();
    const handlers = {
      read: (bev: InstanceType<typeof BufferEvent>) => {
        bev.input.drain(bev.inputLength);
        bev.write('0\n');
        bev.end();
      },
      event: (bev: InstanceType<typeof BufferEvent>) => bev.close(),
    };
    const listener = new Listener(base, { host: HOST, port: 0 }, (fd) => {
      BufferEvent.socket(base, fd, { handlers }).enable(Ev.READ);
    });
    base.dispatch();
    const { address } = listener;
    return { port: () => ('port' in address ? address.port : 0) };
  },

  async cluster({ workers, blocked }) {
    cluster.schedulingPolicy = cluster.SCHED_RR;
    const ports = Array.from({ length: workers }, async (_, number) => {
      const worker = cluster.fork({ BENCH_NUMBER: String(number), BENCH_BLOCKED: String(blocked) });
      const { port } = await new Promise<AddressInfo>((resolve) => {
        worker.once('listening', resolve as (address: unknown) => void);
      });
      return port;
    });
    const [port] = await Promise.all(ports);
    return { port: () => port };
  },

  async transfer({ workers, blocked }) {
    const file = new URL(import.meta.url);
    const threads = Array.from(
      { length: workers },
      (_, number) => new Worker(file, { workerData: { number, blocked } }),
    );
    let turn = 0;
    const server = net.createServer({ noDelay: true, pauseOnConnect: true }, (socket) => {
      threads[turn++ % workers].postMessage({ socket }, [socket as unknown as TransferListItem]);
    });
    const port = await listening(server);
    return { port: () => port };
  },
};

if (!isMainThread) {
  const { number, blocked } = workerData as { number: number; blocked: boolean };
  if (blocked && number === 0) block();
  parentPort?.on('message', ({ socket }: { socket: Socket }) => {
    serveSocket(socket, number);
    socket.resume();
  });
} else if (cluster.isWorker) {
  const number = Number(process.env.BENCH_NUMBER);
  if (process.env.BENCH_BLOCKED === 'true' && number === 0) block();
  await listening(net.createServer({ noDelay: true }, (socket) => serveSocket(socket, number)));
} else {
  const [kind, options] = process.argv.slice(2);
  answerCalls(await starts[kind](JSON.parse(options)));
}
