// HTTP under serve(): a worker whose connections are HTTP's. Between two requests a connection is
// at a boundary, so it moves, outlives a reload and is rescued then; while a request is answered it
// is held. A head that is not whole travels as unread input. A WebSocket moves between two frames
// and is rescued between two messages, unless it has context of those that have come; its
// checkpoint says that it is one.

import type { HttpConnection } from '../http/http_connection.js';
import type { HttpOptions } from '../http/http_options.js';
import { checkHttpOptions, HttpServer } from '../http/http_server.js';
import { WebSocket } from '../http/websocket.js';
import type { StreamKeeper, WebSocketContext } from '../http/ws_options.js';
import { unpackCheckpoint, type WebSocketPacked } from '../http/ws_state.js';
import type { TopicHub } from '../http/ws_topics.js';
import type { Connection } from './connection.js';
import type { LoopContext, LoopWorker } from './worker.js';

/** The hooks of a worker that are not about single connections are the user's, as in LoopWorker. */
export interface HttpWorkerOptions extends HttpOptions {
  start?(loop: LoopContext): void | Promise<void>;
  message?(value: unknown, loop: LoopContext): void;
  retire?(loop: LoopContext): void;
  stop?(loop: LoopContext): void | Promise<void>;
}

/** What travels with a connection. */
export interface HttpPacked {
  requests: number;
  websocket?: WebSocketPacked;
}

type Served = HttpConnection | WebSocket;
type Conn = Connection<Served>;

/**
 * A worker for serve() that answers HTTP: `export default httpWorker({ request(req, res) {} })`, or
 * with `fetch(request)`, and WebSockets with `websocket`. Its limits are those of HttpServer, for
 * each loop. Wrong options throw here, ERR_INVALID_ARG_TYPE and the like. `settings` is asked when
 * the loop starts, for what depends on its workerData; its options replace those given here.
 */
export function httpWorker(
  options: HttpWorkerOptions,
  settings?: (loop: LoopContext) => Partial<HttpOptions>,
): LoopWorker<Served, HttpPacked> {
  checkHttpOptions(options);
  const { websocket: hooks = {} } = options;
  let server: HttpServer | undefined;
  const make = (loop: LoopContext) => serverOn(loop, { ...options, ...settings?.(loop) });
  const serverOf = (conn: Conn) => {
    server ??= make(conn.loop);
    return server;
  };
  const attach = (conn: Conn, requests: number) => {
    conn.state = serverOf(conn).attach(conn, requests);
  };
  /** Undefined: the code here serves no WebSockets. */
  const webSocketOn = (conn: Conn): WebSocket | undefined => {
    const context: WebSocketContext | undefined = serverOf(conn)._webSockets.own;
    if (context === undefined) {
      conn.destroy(new Error('the worker has no websocket option'));
      return undefined;
    }
    const ws = new WebSocket(context, conn);
    conn.state = ws;
    return ws;
  };
  return {
    start(loop) {
      server = make(loop);
      return options.start?.(loop);
    },
    open: (conn) => attach(conn, 0),
    // Without a data hook the input stays where it was received: HTTP reads it there. What follows
    // an end is HTTP's to decide too.
    end: () => undefined,
    pack(conn) {
      const { state } = conn;
      if (!(state instanceof WebSocket)) return { requests: state.requests };
      state._checkMovable();
      const kept = hooks.pack === undefined ? state.state : hooks.pack(state);
      const websocket = state._pack(kept);
      conn._contextBytes = websocket.context?.length ?? 0;
      return { requests: 0, websocket };
    },
    left({ state }) {
      state._left();
      if (state instanceof WebSocket) hooks.left?.(state);
    },
    unpack(conn, { requests, websocket }) {
      if (websocket === undefined) return attach(conn, requests);
      const ws = webSocketOn(conn);
      if (ws === undefined) return;
      ws._unpack(websocket);
      if (hooks.unpack === undefined) ws.state = websocket.state;
      else hooks.unpack(ws, websocket.state);
    },
    rescue(conn, bytes) {
      const checkpoint = unpackCheckpoint(bytes);
      if (checkpoint === undefined) return attach(conn, 0);
      const ws = webSocketOn(conn);
      if (ws === undefined) return;
      ws._adopt(checkpoint.subprotocol, checkpoint.deflate);
      hooks.rescue?.(ws, checkpoint.user);
    },
    close: (conn, error) => conn.state?._lost(error),
    message: options.message?.bind(options),
    retire(loop) {
      server?._endStreams(true);
      options.retire?.(loop);
    },
    async stop(loop) {
      await options.stop?.(loop);
      server?.close();
      await server?.accessLog?.close();
    },
  };
}

/** WebSockets know streams; those here are connections. */
const keeper: StreamKeeper = {
  hold: (stream) => (stream as Conn).hold(),
  setUnfinished(stream, unfinished) {
    (stream as Conn)._unfinished = unfinished;
  },
  checkpoint: (stream, bytes) => (stream as Conn).checkpoint(bytes),
  upgraded(stream, ws) {
    (stream as Conn).state = ws;
  },
};

/** Its WebSockets subscribe as what they are on: connections. */
function hubOf(loop: LoopContext): TopicHub {
  const topicsOf = (ws: WebSocket) => (ws.stream as Conn)._topics;
  return {
    subscribe: (ws, topic) => topicsOf(ws).subscribe(ws.stream as Conn, topic),
    unsubscribe: (ws, topic) => topicsOf(ws).unsubscribe(ws.stream as Conn, topic),
    topicsOf: (ws) => topicsOf(ws).topicsOf(ws.stream as Conn),
    publish(topic, data, except) {
      if (except === undefined) loop.publish(topic, data);
      else topicsOf(except).publish(topic, data, (except.stream as Conn).id);
    },
  };
}

function serverOn(loop: LoopContext, options: HttpWorkerOptions): HttpServer {
  const server = new HttpServer(loop.base, options);
  server._hold = keeper.hold;
  server._webSockets.setKeeper(keeper, hubOf(loop));
  loop.signal.addEventListener('abort', () => server._goAway());
  return server;
}
