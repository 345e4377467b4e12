// The same by Bun, where it is installed: http_handlers.ts says what is answered.
//
//   PROGRAM CERT KEY                 files, or nothing for no TLS

interface BunServer {
  port: number;
  upgrade(request: Request): boolean;
}
declare const Bun: {
  file(path: string): unknown;
  serve(options: {
    hostname: string;
    port: number;
    tls?: { cert: unknown; key: unknown };
    fetch(request: Request, server: BunServer): Response | Promise<Response> | undefined;
    websocket: { message(ws: { send(message: unknown): void }, message: unknown): void };
  }): BunServer;
};

// http_handlers.ts has them too, but Node's Buffer is not what Bun's users would take.
const LARGE = new Uint8Array(100_000).fill(120);
const init = { headers: { 'Content-Type': 'text/plain' } };

const [cert, key] = process.argv.slice(2);
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  ...(cert === undefined ? {} : { tls: { cert: Bun.file(cert), key: Bun.file(key) } }),
  fetch(request, bun) {
    const path = request.url.slice(request.url.indexOf('/', 8));
    if (path === '/') return new Response('Hello, World!', init);
    if (path === '/large') return new Response(LARGE, init);
    if (path === '/upload' || path === '/whole')
      return request.arrayBuffer().then((body) => new Response(String(body.byteLength)));
    if (path === '/ws' && bun.upgrade(request)) return undefined;
    return new Response(null, { status: 404 });
  },
  websocket: { message: (ws, message) => ws.send(message) },
});
console.log(server.port);
process.on('SIGTERM', () => process.exit(0));
