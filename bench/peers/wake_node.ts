// Wake-ups between two threads with Node's MessagePort, for wake.bench.ts. Usage and output are
// those of wake_libevent.c. A message is one number, the cheapest there is to serialise.

import { isMainThread, type MessagePort, parentPort, Worker } from 'node:worker_threads';
import { Flood, Pings } from './wake_rounds.js';

const [mode, count] = [process.argv[2], Number(process.argv[3])];

function ping(port: Worker): void {
  const pings = new Pings(count);
  const send = () => {
    pings.sent();
    port.postMessage(0);
  };
  port.on('message', () => {
    if (pings.answered()) return send();
    pings.print();
    port.terminate();
  });
  send();
}

function flood(port: Worker): void {
  const messages = new Flood(count);
  port.on('message', (payload: number) => {
    if (messages.received(payload)) return;
    messages.print();
    port.terminate();
  });
}

function otherThread(port: MessagePort): void {
  if (mode === 'ping') {
    port.on('message', (value) => port.postMessage(value));
    return;
  }
  const messages = new Flood(count);
  for (let i = 0; i < count; i++) port.postMessage(messages.payload(i));
}

if (isMainThread) {
  const worker = new Worker(new URL(import.meta.url), { argv: process.argv.slice(2) });
  if (mode === 'ping') ping(worker);
  else flood(worker);
} else {
  otherThread(parentPort as MessagePort);
}
