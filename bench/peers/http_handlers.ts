// What every server of the bench `http` answers, and how ours do, in both forms of a handler:
//
//   GET /        a greeting                    POST /upload   how many bytes came
//   GET /large   100 kB                        POST /whole    the same, all of them kept
//                                              /ws            a WebSocket that sends back

import type { FetchHandler, HttpOptions, HttpRequest, RequestHandler } from '../../src/http.js';

export const GREETING = 'Hello, World!';
export const LARGE_BYTES = 100_000;
export const UPLOAD_BYTES = 10_000;
/** Of the answer to a request for 100 kB; made once, as a file in memory would be. */
export const LARGE = Buffer.alloc(LARGE_BYTES, 'multiloop ');

/** As the others do it, piece by piece. */
async function counted(req: HttpRequest): Promise<number> {
  let length = 0;
  await req.forEach((piece) => {
    length += piece.length;
  });
  return length;
}

const request: RequestHandler = (req, res) => {
  switch (req.target) {
    case '/':
      res.set('Content-Type', 'text/plain').send(GREETING);
      return undefined;
    case '/large':
      res.set('Content-Type', 'text/plain').send(LARGE);
      return undefined;
    case '/upload':
      return counted(req).then((length) => res.send(String(length)));
    case '/whole':
      return req.bytes().then((body) => res.send(String(body.length)));
    default:
      res.status = 404;
      res.send();
      return undefined;
  }
};

const fetch: FetchHandler = async (req) => {
  const path = req.url.slice(req.url.indexOf('/', 8));
  const headers = { 'Content-Type': 'text/plain' };
  if (path === '/') return new Response(GREETING, { headers });
  if (path === '/large') return new Response(LARGE, { headers });
  if (path === '/upload') return new Response(String((await req.arrayBuffer()).byteLength));
  return new Response(null, { status: 404 });
};

export function handlers(form: 'request' | 'fetch'): HttpOptions {
  if (form === 'fetch') return { fetch };
  return {
    request,
    websocket: {
      path: '/ws',
      message(ws, data) {
        ws.send(data);
      },
    },
  };
}
