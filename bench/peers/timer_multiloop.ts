// Timers of an event base, for timer.bench.ts. Usage and output are those of timer_libevent.c.

import { EventBase, type EventHandle } from '../../src/index.js';
import { runRounds } from './timer_rounds.js';

const base = new EventBase();
let timers: EventHandle[] = [];
let fired = 0;
const onTimeout = () => {
  fired++;
};

await runRounds({
  create(count) {
    timers = new Array(count);
    for (let i = 0; i < count; i++) timers[i] = base.timer(onTimeout);
  },
  add(millis) {
    for (let i = 0; i < timers.length; i++) timers[i].add(millis[i]);
  },
  delete() {
    for (let i = 0; i < timers.length; i++) timers[i].del();
  },
  fire() {
    fired = 0;
    base.loopSync();
    if (fired !== timers.length) throw new Error(`${fired} of ${timers.length} timers fired`);
  },
  free() {
    for (const timer of timers) timer.free();
  },
});
base.close();
