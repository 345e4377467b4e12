// Node's own timers, for timer.bench.ts. Usage and output are those of timer_libevent.c, without
// `create`: setTimeout() makes the timer and adds it.

import { runRounds } from './timer_rounds.js';

let timers: NodeJS.Timeout[] = [];
let left = 0;
let done: () => void;
const onTimeout = () => {
  if (--left === 0) done();
};

await runRounds({
  add(millis) {
    timers = new Array(millis.length);
    left = millis.length;
    for (let i = 0; i < millis.length; i++) timers[i] = setTimeout(onTimeout, millis[i]);
  },
  delete() {
    for (let i = 0; i < timers.length; i++) clearTimeout(timers[i]);
  },
  fire() {
    return new Promise<void>((resolve) => {
      done = resolve;
    });
  },
  free() {
    timers = [];
  },
});
