// A worker that brings its base into some state, says so, and is ended there. It opens no
// descriptor of its own, so that what is open after its end was left by the base.

import { parentPort, workerData } from 'node:worker_threads';
// Not the whole of multiloop: workers are started by the hundred here.
import { Ev, LoopFlag } from '../../src/event/ev.js';
import { EventBase } from '../../src/event/event_base.js';
import { beside } from '../machine.js';
import type { Setting } from './setting.js';
import { spin } from './support.js';

export type State = keyof typeof states;

const there = () => parentPort?.postMessage('there');
const never = () => undefined;

const states = {
  waiting(base: EventBase) {
    base.timer(never).add(1_000_000);
    void base.dispatch();
    setImmediate(there);
  },
  'waiting for nothing'(base: EventBase) {
    void base.loop(LoopFlag.NO_EXIT_ON_EMPTY);
    setImmediate(there);
  },
  'running callbacks'(base: EventBase) {
    base.timer(() => spin(0.4), { persist: true }).add(0.5);
    void base.dispatch();
    setTimeout(there, 2);
  },
  'always active'(base: EventBase) {
    base.timer((_, self) => self.activate(Ev.TIMEOUT)).activate(Ev.TIMEOUT);
    void base.dispatch();
    setTimeout(there, 2);
  },
  'in an endless callback'(base: EventBase) {
    base.once(-1, Ev.TIMEOUT, () => {
      there();
      while (true);
    });
    void base.dispatch();
  },
  'in an endless promise of a callback'(base: EventBase) {
    base.once(-1, Ev.TIMEOUT, async () => {
      await null;
      there();
      while (true);
    });
    void base.dispatch();
  },
  'in a callback beside other bases'(base: EventBase) {
    for (let i = 0; i < 3; i++) {
      const other = new EventBase({ backend: beside, drive: 'libuv' });
      other.timer(never, { persist: true }).add(1);
      void other.dispatch();
    }
    states['in an endless callback'](base);
  },
  'in loopSync'(base: EventBase) {
    base.timer(never).add(1_000_000);
    there();
    base.loopSync();
  },
  'in an endless callback of loopSync'(base: EventBase) {
    base.once(-1, Ev.TIMEOUT, () => {
      there();
      while (true);
    });
    base.loopSync();
  },
  'in an exit of its own'(base: EventBase) {
    base.once(-1, Ev.TIMEOUT, () => process.exit(3));
    base.timer(never).add(1_000_000);
    void base.dispatch();
  },
  'in an exit of its own below loopSync'(base: EventBase) {
    base.once(-1, Ev.TIMEOUT, () => process.exit(3));
    base.timer(never).add(1_000_000);
    base.loopSync();
  },
  'left with what is unref’d'(base: EventBase) {
    base.timer(never).unref().add(1_000_000);
    void base.dispatch();
  },
  'closed in a callback'(base: EventBase) {
    base.timer(() => base.close()).add(1);
    void base.dispatch();
  },
  'throwing an error': (base: EventBase) => throwing(base, new RangeError('a callback’s own')),
  'throwing null': (base: EventBase) => throwing(base, null),
  'throwing undefined': (base: EventBase) => throwing(base, undefined),
  'throwing below loopSync'(base: EventBase) {
    base.once(-1, Ev.TIMEOUT, () => {
      throw new RangeError('below loopSync');
    });
    base.loopSync();
  },
};

function throwing(base: EventBase, value: unknown): void {
  base.once(-1, Ev.TIMEOUT, () => {
    throw value;
  });
  base.timer(never, { persist: true }).add(1);
  void base.dispatch();
}

const { state, setting } = workerData as { state: State; setting: Setting };
states[state](new EventBase(setting));
