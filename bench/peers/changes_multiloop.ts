// What a base tells the kernel, for changes.bench.ts, which counts the system calls from outside.
// Usage is that of changes_libevent.c, which says what each operation is.

import { Ev, EventBase, type EventHandle, LoopFlag, sys } from '../../src/index.js';

const [operation, turns] = [process.argv[2], Number(process.argv[3])];
const base = new EventBase({ backend: 'epoll' });
const [busy] = sys.socketPair();
const [near] = sys.socketPair();
const nothing = () => undefined;

const reader = base.event(near, Ev.READ | Ev.PERSIST, nothing);
const writer = base.event(near, Ev.WRITE | Ev.PERSIST, nothing);
let isWriting = false;
const fresh: number[] = [];

const operations: Record<string, (self: EventHandle) => void> = {
  nothing,
  'add-delete'() {
    reader.add();
    reader.del();
  },
  again() {},
  'read-write'() {
    if (isWriting) writer.del();
    else writer.add();
    isWriting = !isWriting;
  },
  fresh() {
    const event = base.event(fresh.pop() ?? -1, Ev.READ | Ev.PERSIST, nothing).add();
    event.free();
  },
};

const work = operations[operation];
if (operation === 'read-write') reader.add();
if (operation === 'add-delete') {
  // A descriptor that the base knows: what a new one costs is 'fresh'.
  reader.add();
  reader.del();
}
if (operation === 'fresh') for (let i = 0; i < turns; i++) fresh.push(sys.dup(near));
const once = operation === 'again' ? 0 : Ev.PERSIST;
base
  .event(busy, Ev.WRITE | once, (_, self) => {
    work(self);
    if (once === 0) self.add();
  })
  .add();
for (let turn = 0; turn < turns; turn++) base.loopSync(LoopFlag.ONCE | LoopFlag.NONBLOCK);
base.close();
