// A worker thread of the tests of signals: it counts signals on a base of its own, comes and goes
// as one that waits for them, or raises them.

import { parentPort, workerData } from 'node:worker_threads';
import type { WakerName } from '../../src/event/ev.js';
import { EventBase } from '../../src/event/event_base.js';
import type { EventHandle } from '../../src/event/event_handle.js';
import type { Setting } from './setting.js';

export interface Order {
  job: 'count' | 'come and go' | 'raise';
  setting: Setting;
  waker: WakerName;
  sync: boolean;
  signals: number[];
  /** Ends a counting worker. */
  stop: number;
  /** Of those that come and go, or raise. */
  rounds: number;
}

const { job, setting, waker, sync, signals, stop, rounds } = workerData as Order;
const post = (value: unknown) => parentPort?.postMessage(value);

const jobs = {
  async count() {
    const base = new EventBase({ ...setting, waker, debug: true });
    const counts = new Map(signals.map((signal) => [signal, 0]));
    for (const signal of signals)
      base.signal(signal, () => counts.set(signal, (counts.get(signal) ?? 0) + 1)).add();
    base.signal(stop, () => base.loopExit()).add();
    post('there');
    post(sync ? base.loopSync() : await base.dispatch());
    post([...counts.values()]);
  },

  /** Events, bases and their ends, in an order of which every thread has its own. */
  async 'come and go'() {
    post('there');
    let base = new EventBase({ ...setting, waker, debug: true });
    const events = new Set<EventHandle>();
    for (let round = 0; round < rounds; round++) {
      const signal = signals[Math.floor(Math.random() * signals.length)];
      const event = base.signal(signal, () => undefined).add();
      events.add(event);
      if (events.size > 3) {
        const [first] = events;
        events.delete(first);
        first.free();
      }
      if (Math.random() < 0.2) base.loopSync(2);
      if (Math.random() > 0.1) continue;
      base.close();
      events.clear();
      base = new EventBase({ ...setting, waker, debug: true });
    }
    base.close();
  },

  async raise() {
    post('there');
    for (let round = 0; round < rounds; round++)
      for (const signal of signals) process.kill(process.pid, signal);
  },
};

await jobs[job]();
