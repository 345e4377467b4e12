// The same as chat, with context between compressed messages: both ways, and the server's alone for
// who asks for that. Its data is `deflate.move`.

import { httpWorker } from '../../../src/http.js';
import { chat } from './chat.js';

export default httpWorker(
  { request: (_, response) => response.send('no WebSocket'), websocket: chat },
  ({ workerData }) => ({
    websocket: {
      ...chat,
      deflate: {
        serverContext: true,
        clientContext: true,
        move: workerData as 'carry' | 'refuse' | undefined,
      },
    },
  }),
);
