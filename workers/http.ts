// A server for whoever has none yet, on every core. With a folder it serves its files, without one
// a page that shows what its loops do. Beside them:
//
//   /status.json   what every loop does, once         /events   the same, every second, for ever
//   /loop.json     the loop that answers; ?fresh       /echo     a WebSocket that says back what it
//                  closes the connection then                    is told

import {
  type EventStream,
  eventStream,
  files,
  type HttpRequest,
  type HttpResponse,
  httpWorker,
  Router,
} from '../src/http.js';
import type { EventHandle, LoopContext } from '../src/index.js';
import { Exchange } from './http/figures.js';
import { page } from './http/page.js';

/** How often an event stream tells what the loops do. */
const TICK_MS = 1_000;

// Of this loop: every loop's thread has this module for itself.
let exchange: Exchange;
let context: LoopContext;

// ── what is asked for ──

const NO_STORE = 'no-store';
/** The page has all that it needs in itself. */
const POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; " +
  "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'";

function facts() {
  const { pid } = process;
  return { ...exchange.own(), pid };
}

function loopJson(request: HttpRequest, response: HttpResponse): void {
  if (request.query === 'fresh') response.set('Connection', 'close');
  response.set('Cache-Control', NO_STORE).json(facts());
}

async function statusJson(_: HttpRequest, response: HttpResponse): Promise<void> {
  const loops = await exchange.all();
  response.set('Cache-Control', NO_STORE).json(status(loops));
}

function status(loops: ReturnType<Exchange['known']>) {
  const sum = (key: 'connections' | 'requests' | 'webSockets' | 'eventStreams') =>
    loops.reduce((total, one) => total + one[key], 0);
  const perSecond = loops.reduce((total, one) => total + one.requestsPerSecond, 0);
  return {
    /** The loop that says so. */
    loop: context.id,
    pid: process.pid,
    node: process.versions.node,
    loopCount: context.loops,
    connections: sum('connections'),
    webSockets: sum('webSockets'),
    eventStreams: sum('eventStreams'),
    requests: sum('requests'),
    requestsPerSecond: Math.round(perSecond * 10) / 10,
    loops,
  };
}

function showPage(_: HttpRequest, response: HttpResponse): void {
  response.set('Content-Type', 'text/html; charset=utf-8');
  response.set('Cache-Control', NO_STORE).set('Content-Security-Policy', POLICY);
  response.send(page(facts(), context.loops));
}

function needsWebSocket(_: HttpRequest, response: HttpResponse): void {
  response.status = 426;
  response.set('Upgrade', 'websocket').send('This is a WebSocket.\n');
}

// ── events ──

const watchers = new Set<EventStream>();
let tick: EventHandle | undefined;
/** Of the event that was sent last. An hour's ids differ, also those of different loops. */
let lastId = 0;

function events(request: HttpRequest, response: HttpResponse): void {
  const stream = eventStream(request, response, {
    close() {
      for (const one of watchers) if (one.closed) watchers.delete(one);
      exchange.counter.eventStreams = watchers.size;
    },
  });
  if (stream.closed) return;
  watchers.add(stream);
  exchange.counter.eventStreams = watchers.size;
  const { id: loop, generation } = context;
  stream.send({ event: 'hello', data: { loop, generation, after: stream.lastEventId } });
  exchange.all().then(() => tell([stream]));
  tick ??= context.base.timer(tellAll).unref();
  if (watchers.size === 1) tick.add(TICK_MS);
}

function tellAll(): void {
  tell(watchers);
  exchange.ask();
  if (watchers.size > 0) tick?.add(TICK_MS);
}

function tell(streams: Iterable<EventStream>): void {
  lastId = Math.max(lastId + 1, Date.now());
  const data = status(exchange.known());
  // One that does not read misses some: the next one says all anew.
  for (const stream of streams) stream.send({ event: 'loops', id: String(lastId), data });
}

// ── the worker ──

const router = new Router()
  .get('/loop.json', loopJson)
  .get('/status.json', statusJson)
  .get('/events', events)
  .get('/echo', needsWebSocket);
let { handler } = router;

export default httpWorker(
  {
    start(loop) {
      context = loop;
      exchange = new Exchange(loop);
      const folder = folderOf(loop.workerData);
      if (folder === undefined) router.get('/', showPage);
      else handler = files(folder, { notFound: router.handler });
    },
    request: (request, response) => {
      exchange.counter.requests++;
      return handler(request, response);
    },
    message: (value) => exchange.hear(value),
    websocket: {
      path: '/echo',
      open: countWebSocket,
      message(ws, data) {
        // Whoever does not take what comes back is not read any more.
        if (!ws.send(data)) ws.pause();
      },
      drain: (ws) => ws.resume(),
      unpack: countWebSocket,
      rescue: countWebSocket,
      left: discountWebSocket,
      close: discountWebSocket,
    },
  },
  ({ workerData }) => ({ accessLog: accessLogOf(workerData) }),
);

function countWebSocket(): void {
  exchange.counter.webSockets++;
}
function discountWebSocket(): void {
  exchange.counter.webSockets--;
}

function folderOf(data: unknown): string | undefined {
  const words = (data as { arguments?: unknown } | null | undefined)?.arguments;
  const [folder] = Array.isArray(words) ? words : [];
  return typeof folder === 'string' ? folder : undefined;
}
function accessLogOf(data: unknown): string | boolean {
  const { accessLog = false } = (data ?? {}) as { accessLog?: string | boolean };
  return accessLog;
}
