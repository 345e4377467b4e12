// What the timer programs in JavaScript share, timer_multiloop.ts and timer_node.ts: the rounds,
// the deadlines and the output of timer_libevent.c, which says what they are.

import { median } from '../report.js';

const HOUR_MS = 3_600_000;
/** V8 has compiled everything by then. */
const WARMUP_ROUNDS = 60;

/** The operations on all timers of a round. */
export interface Timers {
  /** Absent where a timer is made by adding it. */
  create?(count: number): void;
  add(millis: Float64Array): void;
  delete(): void;
  /** Those added are due: resolves when all have fired. */
  fire(): void | Promise<void>;
  free(): void;
}

type Nanos = Record<string, number>;

let state = 1;

/** The same sequence in all programs of this bench: below 1, from a congruential generator. */
function random(): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}

const cell = new Int32Array(new SharedArrayBuffer(4));

/** Without a turn of the event loop. */
const sleep = (ms: number) => Atomics.wait(cell, 0, 0, ms);

async function round(timers: Timers, count: number, windowMs: number): Promise<Nanos> {
  const nanos: Nanos = {};
  const timed = async (name: string, work: () => void | Promise<void>) => {
    const start = performance.now();
    const pending = work();
    if (pending !== undefined) await pending;
    nanos[name] = ((performance.now() - start) * 1e6) / count;
  };
  if (timers.create !== undefined) await timed('create', () => timers.create?.(count));
  const far = Float64Array.from({ length: count }, () => 1 + random() * HOUR_MS);
  await timed('add', () => timers.add(far));
  await timed('delete', () => timers.delete());
  const near = Float64Array.from({ length: count }, () => 1 + random() * (windowMs - 1));
  timers.add(near);
  sleep(windowMs + 1);
  await timed('fire', () => timers.fire());
  timers.free();
  return nanos;
}

/** Runs the rounds that the command line asks for and prints the median of each operation. */
export async function runRounds(timers: Timers): Promise<void> {
  const [count, rounds, windowMs] = process.argv.slice(2).map(Number);
  for (let i = 0; i < WARMUP_ROUNDS; i++) await round(timers, 1_000, 2);
  const results: Nanos[] = [];
  for (let i = 0; i < rounds; i++) results.push(await round(timers, count, windowMs));
  for (const name of Object.keys(results[0]))
    console.log(`${name} ${median(results.map((nanos) => nanos[name])).toFixed(1)}`);
}
