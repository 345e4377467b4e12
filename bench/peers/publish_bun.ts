// The same by Bun, where it is installed: publish_handlers.ts says what is done.

interface BunSocket {
  subscribe(topic: string): void;
  send(message: Uint8Array): void;
}
interface BunServer {
  port: number;
  upgrade(request: Request): boolean;
  publish(topic: string, message: Uint8Array): number;
}
declare const Bun: {
  serve(options: {
    hostname: string;
    port: number;
    fetch(request: Request, server: BunServer): Response | undefined;
    websocket: { message(ws: BunSocket, message: Uint8Array): void };
  }): BunServer;
};

const TOPIC = 'news';
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch: (request, bun) => (bun.upgrade(request) ? undefined : new Response()),
  websocket: {
    message(ws, message) {
      if (message.length === 1) {
        ws.subscribe(TOPIC);
        ws.send(message);
      } else server.publish(TOPIC, message);
    },
  },
});
console.log(server.port);
process.on('SIGTERM', () => process.exit(0));
