// A WebSocket that counts what it is sent and answers who it is; moves and dies when it is told to.

import {
  httpWorker,
  upgradeWebSocket,
  type WebSocket,
  type WebSocketOptions,
} from '../../../src/http.js';
import type { Connection } from '../../../src/index.js';

interface Counted {
  seen: number;
}
const connOf = (ws: WebSocket<Counted>) => ws.stream as Connection;

export const chat: WebSocketOptions<Counted, { packed: number }> = {
  protocols: ['chat'],
  deflate: true,
  deflateMin: 1,
  open(ws: WebSocket<Counted>) {
    ws.state = { seen: 0 };
  },
  message(ws: WebSocket<Counted>, data) {
    ws.state.seen++;
    const conn = connOf(ws);
    const { loop } = conn;
    const [what, to] = String(data).split(' ');
    if (what === 'move') void conn.move(Number(to));
    if (what === 'die') {
      setImmediate(() => {
        throw new Error('told to die');
      });
    }
    ws.checkpoint(Buffer.from(String(ws.state.seen)));
    ws.send(
      JSON.stringify({
        data: String(data).slice(0, 20),
        length: data.length,
        seen: ws.state.seen,
        loop: loop.id,
        generation: loop.generation,
        id: conn.id,
        protocol: ws.subprotocol,
      }),
    );
  },
  pack: (ws: WebSocket<Counted>) => ({ packed: ws.state.seen }),
  unpack(ws: WebSocket<Counted>, { packed }: { packed: number }) {
    ws.state = { seen: packed };
  },
  rescue(ws: WebSocket<Counted>, checkpoint) {
    ws.state = { seen: Number(Buffer.from(checkpoint ?? [])) };
  },
};

export default httpWorker({
  request: (request, response) => upgradeWebSocket(request, response, { ...chat }),
  websocket: { ...chat, path: '/' },
});
