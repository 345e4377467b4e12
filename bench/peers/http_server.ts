// The servers of the bench `http` that Node runs. Each prints its port and answers as
// http_handlers.ts says. An HttpServer on a base, a loop group, Node's own http with npm's ws, a
// cluster of it, and uWebSockets.
//
//   PROGRAM KIND JSON                { tls, form, workers, uws }

import cluster from 'node:cluster';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { WebSocketServer } from 'ws';
import { HttpServer } from '../../src/http.js';
import { BufferEvent, EventBase, Listener, serve } from '../../src/index.js';
import { pair, paths } from '../../test/tls/pems.js';
import { GREETING, handlers, LARGE } from './http_handlers.js';
import { loadUws } from './uws.js';

interface Options {
  tls?: boolean;
  form?: 'request' | 'fetch';
  workers?: number;
  /** The folder of its package. */
  uws?: string;
}

const HOST = '127.0.0.1';
const TEXT = { 'Content-Type': 'text/plain' };

const tell = (port: number) => console.log(port);
const portOf = (address: object) => ('port' in address ? Number(address.port) : 0);

const starts: Record<string, (options: Options) => unknown> = {
  async HttpServer({ tls, form = 'request' }) {
    const base = new EventBase({ drive: 'base' });
    const server = new HttpServer(base, handlers(form));
    if (tls === true) {
      const settings = { tls: pair('localhost') };
      const listener = new Listener(base, { host: HOST, port: 0 }, (fd) => {
        server.attach(BufferEvent.socket(base, fd, settings));
      });
      tell(portOf(listener.address));
    } else tell(portOf(server.listen({ host: HOST, port: 0 }).address));
    await base.dispatch();
  },

  async serve({ tls, workers = 1 }) {
    const listen = { host: HOST, port: 0, ...(tls === true ? { tls: pair('localhost') } : {}) };
    const worker = new URL('./http_worker.js', import.meta.url);
    const group = await serve({ worker, loops: workers, listen });
    tell(portOf(group.addresses[0]));
  },

  node({ tls }) {
    const server =
      tls === true ? https.createServer(pair('localhost'), answer) : http.createServer(answer);
    new WebSocketServer({ server, path: '/ws', perMessageDeflate: false }).on('connection', (ws) =>
      ws.on('message', (data, binary) => ws.send(data, { binary })),
    );
    server.listen(0, HOST, () => tell((server.address() as AddressInfo).port));
  },

  async cluster({ workers = 2 }) {
    cluster.schedulingPolicy = cluster.SCHED_RR;
    const ports = Array.from({ length: workers }, async () => {
      const { port } = await new Promise<AddressInfo>((resolve) => {
        cluster.fork().once('listening', resolve as (address: unknown) => void);
      });
      return port;
    });
    tell((await Promise.all(ports))[0]);
  },

  uws({ tls, uws = '' }) {
    const { App, SSLApp, us_socket_local_port } = loadUws(uws);
    const { cert, key } = paths('localhost');
    const app = tls === true ? SSLApp({ cert_file_name: cert, key_file_name: key }) : App();
    app
      .get('/', (res) => res.writeHeader('Content-Type', 'text/plain').end(GREETING))
      .get('/large', (res) => res.writeHeader('Content-Type', 'text/plain').end(LARGE))
      .post('/upload', (res) => {
        let length = 0;
        res.onAborted(() => undefined);
        res.onData((chunk, isLast) => {
          length += chunk.byteLength;
          if (isLast) res.end(String(length));
        });
      })
      .post('/whole', (res) => {
        const chunks: Buffer[] = [];
        res.onAborted(() => undefined);
        res.onData((chunk, isLast) => {
          // Its memory is the server's again after this call.
          chunks.push(Buffer.from(chunk.slice(0)));
          if (isLast) res.end(String(joined(chunks).length));
        });
      })
      .ws('/ws', { message: (ws, message, isBinary) => void ws.send(message, isBinary) })
      .listen(HOST, 0, (socket) => tell(socket === false ? 0 : us_socket_local_port(socket)));
  },
};

const joined = (chunks: Buffer[]): Buffer =>
  chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);

function answer(req: http.IncomingMessage, res: http.ServerResponse): void {
  if (req.url === '/') {
    res.writeHead(200, TEXT);
    res.end(GREETING);
  } else if (req.url === '/large') {
    res.writeHead(200, { ...TEXT, 'Content-Length': LARGE.length });
    res.end(LARGE);
  } else if (req.url === '/upload') {
    let length = 0;
    req.on('data', (chunk: Buffer) => {
      length += chunk.length;
    });
    req.on('end', () => res.end(String(length)));
  } else if (req.url === '/whole') {
    const chunks: Buffer[] = [];
    req.on('data', (chunk: Buffer) => chunks.push(chunk));
    req.on('end', () => res.end(String(joined(chunks).length)));
  } else {
    res.writeHead(404);
    res.end();
  }
}

process.on('SIGTERM', () => process.exit(0));
if (cluster.isWorker) http.createServer(answer).listen(0, HOST);
else {
  const [kind, options] = process.argv.slice(2);
  await starts[kind](JSON.parse(options));
}
