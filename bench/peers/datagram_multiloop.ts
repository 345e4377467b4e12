// Datagrams of multiloop, for datagram.bench.ts; datagram_rounds.ts says what this does and prints.

import { type Address, Datagram, EventBase } from '../../src/index.js';
import { mode, payload, Rounds, WINDOW } from './datagram_rounds.js';

const base = new EventBase({ drive: 'base' });
const rounds = new Rounds();
const local: Address = { host: '127.0.0.1', port: 0 };

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

const server: Datagram = new Datagram(base, local, (batch) => {
  const more = rounds.received(batch.length);
  if (mode === 'ping') for (const { data, from } of batch) server.send(data, from);
  else if (more) send(batch.length);
  else end();
});
const client: Datagram = new Datagram(
  base,
  undefined,
  (batch) => {
    if (!rounds.received(batch.length)) end();
    else for (const { data } of batch) client.send(data);
  },
  { connect: server.address },
);

if (mode === 'ping') client.send(payload);
else send(WINDOW);
await base.dispatch();
base.close();
