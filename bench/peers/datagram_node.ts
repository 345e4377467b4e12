// Node's dgram, for datagram.bench.ts; datagram_rounds.ts says what this does and prints. The
// client is connected, so that Node looks nothing up for each message.

import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mode, payload, Rounds, WINDOW } from './datagram_rounds.js';

const rounds = new Rounds();
const server = createSocket('udp4');
const client = createSocket('udp4');

function end(): void {
  rounds.print();
  server.close();
  client.close();
}

let sent = 0;
function send(messages: number): void {
  const now = Math.min(messages, rounds.left(sent));
  for (let i = 0; i < now; i++) client.send(payload);
  sent += now;
}

server.on('message', (data, { port, address }) => {
  const more = rounds.received(1);
  if (mode === 'ping') server.send(data, port, address);
  else if (more) send(1);
  else end();
});
client.on('message', (data) => {
  if (!rounds.received(1)) end();
  else client.send(data);
});

server.bind(0, '127.0.0.1');
await once(server, 'listening');
client.connect(server.address().port, '127.0.0.1');
await once(client, 'connect');
if (mode === 'ping') client.send(payload);
else send(WINDOW);
