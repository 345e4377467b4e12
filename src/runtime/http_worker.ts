// HTTP under serve(): a worker whose connections are HTTP's. Between two requests a connection is
// at a boundary, so it moves, outlives a reload and is rescued then; while a request is answered it
// is held. A head that is not whole travels as unread input.

import type { HttpConnection } from '../http/http_connection.js';
import type { HttpOptions } from '../http/http_options.js';
import { checkHttpOptions, HttpServer } from '../http/http_server.js';
import type { Connection } from './connection.js';
import type { LoopContext, LoopWorker } from './worker.js';

/** The hooks of a worker that are not about single connections are the user's, as in LoopWorker. */
export interface HttpWorkerOptions extends HttpOptions {
  start?(loop: LoopContext): void | Promise<void>;
  message?(value: unknown, loop: LoopContext): void;
  stop?(loop: LoopContext): void | Promise<void>;
}

/** What travels with a connection. */
export interface HttpPacked {
  requests: number;
}

/**
 * A worker for serve() that answers HTTP: `export default httpWorker({ request(req, res) {} })`, or
 * with `fetch(request)`. Its limits are those of HttpServer, for each loop. Wrong options throw
 * here, ERR_INVALID_ARG_TYPE and the like.
 */
export function httpWorker(options: HttpWorkerOptions): LoopWorker<HttpConnection, HttpPacked> {
  checkHttpOptions(options);
  let server: HttpServer | undefined;
  const attach = (conn: Connection<HttpConnection>, requests: number) => {
    server ??= serverOn(conn.loop, options);
    conn.state = server.attach(conn, requests);
  };
  return {
    start(loop) {
      server = serverOn(loop, options);
      return options.start?.(loop);
    },
    open: (conn) => attach(conn, 0),
    // Without a data hook the input stays where it was received: HTTP reads it there. What follows
    // an end is HTTP's to decide too.
    end: () => undefined,
    pack: (conn) => ({ requests: conn.state.requests }),
    left: (conn) => conn.state._left(),
    unpack: (conn, { requests }) => attach(conn, requests),
    rescue: (conn) => attach(conn, 0),
    close: (conn, error) => conn.state?._lost(error),
    message: options.message?.bind(options),
    stop: options.stop?.bind(options),
  };
}

function serverOn(loop: LoopContext, options: HttpWorkerOptions): HttpServer {
  const server = new HttpServer(loop.base, options);
  server._hold = (stream) => (stream as Connection).hold();
  loop.signal.addEventListener('abort', () => server._lastAnswers());
  return server;
}
