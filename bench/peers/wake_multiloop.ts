// Wake-ups between two threads, each with a base and an inbox, for wake.bench.ts: what a loop group
// does between its coordinator and its loops, without the rest of it.
//
//   wake_multiloop ping ROUNDS WAKER
//   wake_multiloop flood MESSAGES WAKER
//
// The output is that of wake_libevent.c; a flood also prints `wakes`, the wake-ups that were sent
// for one message. A message is eight bytes, taken out of the inbox as the runtime takes it.

import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { EventBase } from '../../src/index.js';
import { Delivery, native } from '../../src/native.js';
import { Flood, Pings } from './wake_rounds.js';

/** As many as wait for the coordinator of a group. */
const INBOX_MESSAGES = 16_384;
/** The place of "wakes sent" in what inboxStats() fills in. */
const WAKES_SENT = 5;
/** How long a producer rests when the inbox is full. */
const FULL_PAUSE_MS = 0.05;

const [mode, count, waker] = [process.argv[2], Number(process.argv[3]), process.argv[4]];

interface Side {
  base: EventBase;
  /** Calls `receive` with each message until it answers false. */
  listen(receive: (payload: number) => boolean, done: () => void): void;
  post(value: number): number;
}

function open(from: number, to: number): Side {
  const base = new EventBase({ drive: 'base' });
  if (native.inboxAttach(base._id, from) < 0) throw new Error('the inbox is taken');
  const bytes = Buffer.alloc(8);
  return {
    base,
    listen(receive, done) {
      base._dispatcher.onMessage = (index) => {
        const message = native.inboxTake(base._id, index) as Buffer;
        // An empty message ends the other side.
        if (message.length > 0 && receive(message.readDoubleLE(0))) return;
        base._dispatcher.onMessage = undefined;
        done();
        native.inboxDetach(base._id);
        base.close();
      };
      base.dispatch();
    },
    post(value) {
      bytes.writeDoubleLE(value);
      return native.inboxPost(from, to, Number.isNaN(value) ? bytes.subarray(0, 0) : bytes);
    },
  };
}

const END = Number.NaN;

function ping(side: Side): void {
  const pings = new Pings(count);
  const send = () => {
    pings.sent();
    side.post(0);
  };
  const receive = () => {
    const more = pings.answered();
    if (more) send();
    return more;
  };
  const done = () => {
    side.post(END);
    pings.print();
  };
  side.listen(receive, done);
  send();
}

function flood(side: Side, inbox: number): void {
  const messages = new Flood(count);
  side.listen(
    (payload) => messages.received(payload),
    () => {
      messages.print();
      const stats = new Float64Array(8);
      native.inboxStats(inbox, stats);
      console.log(`wakes ${(stats[WAKES_SENT] / count).toFixed(6)}`);
    },
  );
}

function produce(side: Side): void {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  const messages = new Flood(count);
  for (let i = 0; i < count; i++) {
    const payload = messages.payload(i);
    while (side.post(payload) === Delivery.FULL) Atomics.wait(cell, 0, 0, FULL_PAUSE_MS);
  }
}

function otherThread(side: Side): void {
  if (mode === 'flood') {
    produce(side);
    side.base.close();
    return;
  }
  const answer = (payload: number) => side.post(payload) === Delivery.OK;
  side.listen(answer, () => undefined);
}

if (isMainThread) {
  const [near, far] = [0, 1].map(() => native.inboxNew(INBOX_MESSAGES, waker, 0));
  const side = open(near, far);
  // Both inboxes are there from the start, so that nothing is sent before it can be received.
  const worker = new Worker(new URL(import.meta.url), {
    argv: process.argv.slice(2),
    workerData: { near, far },
  });
  worker.on('exit', () => {
    native.inboxFree(near);
    native.inboxFree(far);
  });
  if (mode === 'ping') ping(side);
  else flood(side, near);
} else {
  otherThread(open(workerData.far, workerData.near));
}
