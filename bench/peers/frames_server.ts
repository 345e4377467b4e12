// The servers of the benches `move` and `reload`: multiloop's loop group, and a cluster of Node's
// that is restarted worker by worker.
//
//   PROGRAM multiloop JSON       { workers, spinMicros, moveEveryMs }
//   PROGRAM cluster JSON         { workers }

import cluster, { type Worker } from 'node:cluster';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { serveFrames } from './frames.js';
import type { FramesData, Way } from './frames_worker.js';
import { answerCalls, type Calls, millis, pause } from './rpc.js';

const HOST = '127.0.0.1';
/** How long a cluster's old workers keep the connections that nobody ends. */
const GRACE_MS = 500;
/** A server has seen every close within this time. */
const SEEN_MS = 5_000;

interface Options {
  workers: number;
  spinMicros?: number;
  moveEveryMs?: number;
}
interface Crash {
  who: number;
  way: Way | 'terminate';
  /** Connections that there are, when the server has seen the end of all others. */
  open: number;
}
export interface Crashed {
  /** In milliseconds of millis(). */
  at: number;
  /** Connections, as the server has counted them. */
  lost: number;
  rescued: number;
}

const starts: Record<string, (options: Options) => Promise<Calls>> = {
  async multiloop({ workers, ...rest }) {
    const { serve } = await import('../../src/index.js');
    const died = new Float64Array(new SharedArrayBuffer(8));
    const workerData: FramesData = { ...rest, died };
    const group = await serve({
      worker: new URL('./frames_worker.js', import.meta.url),
      workerData,
      loops: workers,
      listen: { host: HOST, port: 0 },
      restart: { max: 1_000, backoff: 1 },
    });
    const [address] = group.addresses;
    return {
      port: () => ('port' in address ? address.port : 0),
      reload: () => group.reload(),
      async crash({ who, way, open }: Crash): Promise<Crashed> {
        const end = millis() + SEEN_MS;
        while (group.stats().open !== open && millis() < end) await pause(1);
        const before = group.stats();
        const restarted = new Promise<void>((resolve) => {
          const on = ({ id }: { id: number }, what: string) => {
            if (id !== who || what !== 'restarted') return;
            group.off('loop', on);
            resolve();
          };
          group.on('loop', on);
        });
        if (way === 'terminate') {
          died[0] = millis();
          await group.loops[who].terminate();
        } else {
          group.post(who, way);
        }
        await restarted;
        const { lost, rescues } = group.stats();
        return { at: died[0], lost: lost - before.lost, rescued: rescues - before.rescues };
      },
    };
  },

  async cluster({ workers }) {
    cluster.schedulingPolicy = cluster.SCHED_RR;
    let port = 0;
    const serving: Worker[] = [];
    const fork = async (number: number) => {
      const worker = cluster.fork({ BENCH_NUMBER: String(number) });
      serving[number] = worker;
      const [address] = (await once(worker, 'listening')) as unknown as [AddressInfo];
      port = address.port;
    };
    for (let number = 0; number < workers; number++) await fork(number);
    return {
      port: () => port,
      async reload() {
        const old = [...serving];
        await Promise.all(old.map((_, number) => fork(number)));
        for (const worker of old) worker.disconnect();
        await pause(GRACE_MS);
        await Promise.all(old.map(end));
      },
      async crash({ who }: Crash): Promise<Crashed> {
        const worker = serving[who];
        const ended = once(worker, 'exit');
        const at = millis();
        worker.send('crash');
        await ended;
        await fork(who);
        return { at, lost: 0, rescued: 0 };
      },
    };
  },
};

async function end(worker: Worker): Promise<void> {
  if (worker.isDead()) return;
  const ended = once(worker, 'exit');
  worker.process.kill('SIGKILL');
  await ended;
}

if (cluster.isWorker) {
  const number = Number(process.env.BENCH_NUMBER);
  process.on('message', (message) => {
    if (message !== 'crash') return;
    // The trace of its error would be among the figures.
    process.on('uncaughtException', () => process.exit(1));
    setImmediate(() => {
      throw new Error('a crash of the bench');
    });
  });
  net.createServer({ noDelay: true }, (socket) => serveFrames(socket, number)).listen(0, HOST);
} else {
  const [kind, options] = process.argv.slice(2);
  answerCalls(await starts[kind](JSON.parse(options)));
}
