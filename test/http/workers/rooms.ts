// A WebSocket for each member of rooms; beside it, what is published by the loop.

import { httpWorker, type WebSocket } from '../../../src/http.js';
import type { Connection } from '../../../src/index.js';

const loopOf = (ws: WebSocket) => (ws.stream as Connection).loop;

export default httpWorker({
  request: (_, response) => response.send('no WebSocket'),
  websocket: {
    deflate: true,
    deflateMin: 100,
    outputMax: 4 * 1024 * 1024,
    message(ws: WebSocket, data: string | Uint8Array) {
      const [word, topic, ...rest] = String(data).split(' ');
      if (word === 'join') ws.send(`join ${ws.subscribe(topic)} ${ws.topics}`);
      else if (word === 'part') ws.send(`part ${ws.unsubscribe(topic)} ${ws.topics}`);
      else if (word === 'say') ws.publish(topic, rest.join(' '));
      else if (word === 'all') loopOf(ws).publish(topic, Buffer.from(rest.join(' ')));
      else if (word === 'where') ws.send(`loop ${loopOf(ws).id} ${loopOf(ws).generation}`);
      else if (word === 'move') void (ws.stream as Connection).move(Number(topic));
      else if (word === 'die')
        setImmediate(() => {
          throw new Error('told to die');
        });
    },
    rescue: () => undefined,
  },
});
