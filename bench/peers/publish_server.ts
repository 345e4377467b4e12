// The servers of the bench `publish` that Node runs; each prints its port and does what
// publish_handlers.ts says. A server on a base, a loop group, npm's ws that sends to one client after
// the other, a cluster of it whose workers tell each other by process messages, and uWebSockets.
//
//   PROGRAM KIND JSON                { workers, uws }

import cluster, { type Worker } from 'node:cluster';
import type { AddressInfo } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import { HttpServer } from '../../src/http.js';
import { EventBase, serve } from '../../src/index.js';
import { publishing, SUBSCRIBE, TOPIC } from './publish_handlers.js';
import { loadUws } from './uws.js';

interface Options {
  workers?: number;
  /** The folder of its package. */
  uws?: string;
}

const HOST = '127.0.0.1';
const tell = (port: number) => console.log(port);
const portOf = (address: object) => ('port' in address ? Number(address.port) : 0);

const starts: Record<string, (options: Options) => unknown> = {
  async HttpServer() {
    const base = new EventBase({ drive: 'base' });
    const server: HttpServer = new HttpServer(
      base,
      publishing((data) => server.publish(TOPIC, data)),
    );
    tell(portOf(server.listen({ host: HOST, port: 0 }).address));
    await base.dispatch();
  },

  async serve({ workers = 1 }) {
    const worker = new URL('./publish_worker.js', import.meta.url);
    const group = await serve({ worker, loops: workers, listen: { host: HOST, port: 0 } });
    tell(portOf(group.addresses[0]));
  },

  ws() {
    serveWs(() => undefined, tell);
  },

  async cluster({ workers = 2 }) {
    cluster.schedulingPolicy = cluster.SCHED_RR;
    const all: Worker[] = [];
    const ports = Array.from({ length: workers }, async () => {
      const worker = cluster.fork();
      all.push(worker);
      worker.on('message', (message) => {
        for (const other of all) if (other !== worker) other.send(message);
      });
      const { port } = await new Promise<AddressInfo>((resolve) => {
        worker.once('listening', resolve as (address: unknown) => void);
      });
      return port;
    });
    tell((await Promise.all(ports))[0]);
  },

  uws({ uws = '' }) {
    const { App, us_socket_local_port } = loadUws(uws);
    const app = App();
    app
      .ws('/ws', {
        message(ws, message, isBinary) {
          if (message.byteLength === SUBSCRIBE.length) {
            ws.subscribe(TOPIC);
            ws.send(message, isBinary);
          } else app.publish(TOPIC, message, isBinary);
        },
      })
      .listen(HOST, 0, (socket) => tell(socket === false ? 0 : us_socket_local_port(socket)));
  },
};

/** `others`: what is published here is for other processes, too. Answers what publishes here. */
function serveWs(
  others: (data: Buffer) => void,
  listening: (port: number) => void,
): (data: Buffer) => void {
  const subscribers = new Set<WebSocket>();
  const publish = (data: Buffer) => {
    for (const ws of subscribers) ws.send(data);
  };
  const server = new WebSocketServer({ host: HOST, port: 0, perMessageDeflate: false });
  server.on('connection', (ws) => {
    ws.on('message', (data: Buffer) => {
      if (data.length === SUBSCRIBE.length) {
        subscribers.add(ws);
        ws.send(data);
      } else {
        publish(data);
        others(data);
      }
    });
    ws.on('close', () => subscribers.delete(ws));
  });
  server.on('listening', () => listening((server.address() as AddressInfo).port));
  return publish;
}

process.on('SIGTERM', () => process.exit(0));
if (cluster.isWorker) {
  // Process messages are JSON.
  const publish = serveWs(
    (data) => process.send?.(data.toString('latin1')),
    () => undefined,
  );
  process.on('message', (text: string) => publish(Buffer.from(text, 'latin1')));
} else {
  const [kind, options] = process.argv.slice(2);
  await starts[kind](JSON.parse(options));
}
