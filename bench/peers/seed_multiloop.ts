// libevent's benchmark over our public API; seed_libevent.c says what it does, and takes the same
// arguments. Both make the same system calls: no read or write is joined or left out.

import { type BackendName, Ev, EventBase, LoopFlag, sys } from '../../src/index.js';

const RUNS = 25;
/**
 * What runs before they count: until V8 has compiled what a run uses, which takes it some ten
 * thousand callbacks, but a few runs at least where a single one takes long.
 */
const WARMUP_RUNS = 3;
const WARMUP_MS = 400;

const backend = process.argv[2] as BackendName;
const [pairCount, active, writes] = process.argv.slice(3).map(Number);
const base = new EventBase({ backend, ignoreEnv: true });
const byte = Buffer.from('e');
const into = Buffer.alloc(1);
const far: number[] = [];
let writesLeft = 0; // the budget of the run
let bytesWritten = 0;
let bytesRead = 0;

function writeTo(index: number): void {
  if (sys.write(far[index], byte) !== 1) throw new Error('a write of one byte failed');
  bytesWritten++;
}

const events = Array.from({ length: pairCount }, (_, index) => {
  const [near, other] = sys.socketPair();
  far.push(other);
  return base.event(near, Ev.READ | Ev.PERSIST, () => {
    if (sys.read(near, into) !== 1) throw new Error('a read of one byte failed');
    bytesRead++;
    if (writesLeft === 0) return;
    writesLeft--;
    writeTo(index + 1 < pairCount ? index + 1 : 0);
  });
});

function run(): number {
  for (const event of events) {
    event.del();
    event.add();
  }
  base.loopSync(LoopFlag.ONCE | LoopFlag.NONBLOCK);
  writesLeft = writes;
  bytesWritten = bytesRead = 0;
  const apart = Math.floor(pairCount / active);
  for (let i = 0; i < active; i++) writeTo(i * apart);
  const start = performance.now();
  do {
    base.loopSync(LoopFlag.ONCE | LoopFlag.NONBLOCK);
  } while (bytesRead !== bytesWritten);
  return (performance.now() - start) * 1_000;
}

const warm = performance.now() + WARMUP_MS;
for (let i = 0; i < WARMUP_RUNS || performance.now() < warm; i++) run();
for (let i = 0; i < RUNS; i++) console.log(run().toFixed(1));
base.close();
