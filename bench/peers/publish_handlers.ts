// What every server of the bench `publish` does: a WebSocket that has sent SUBSCRIBE, one byte, is a
// subscriber from then on and is sent that byte back; any other message is for all subscribers.

import type { HttpOptions, WebSocket } from '../../src/http.js';
import type { Connection } from '../../src/index.js';

export const TOPIC = 'news';
export const SUBSCRIBE = Buffer.from([0]);

/** `publish`: of a server that is not under serve(). */
export function publishing(publish?: (data: string | Uint8Array) => void): HttpOptions {
  return {
    request: (_, response) => response.send(),
    websocket: {
      message(ws: WebSocket, data) {
        if (data.length === SUBSCRIBE.length) {
          ws.subscribe(TOPIC);
          ws.send(data);
        } else if (publish !== undefined) publish(data);
        else (ws.stream as Connection).loop.publish(TOPIC, data);
      },
    },
  };
}
