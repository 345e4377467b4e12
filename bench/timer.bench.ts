// Timers: add and delete, beside Node's setTimeout and clearTimeout, with few and many pending.

import { Bench as Tinybench } from 'tinybench';
import { EventBase } from '../src/index.js';
import { type BenchOptions, type Case, paired } from './report.js';

/** Nanoseconds per call. */
async function measure(work: () => void, ms: number): Promise<number> {
  const bench = new Tinybench({ time: ms, warmupTime: ms / 4 });
  bench.add('work', work);
  await bench.run();
  const result = bench.tasks[0].result as { latency: { p50: number } };
  return (result.latency.p50 * 1e6) / BATCH;
}

/** Calls in one sample: the clock of a sample costs as much as several calls. */
const BATCH = 1_000;
const HOUR = 3_600_000;

export default async function* timer({ quick }: BenchOptions): AsyncIterable<Case> {
  const ms = quick ? 300 : 1_500;
  const pairs = quick ? 3 : 7;
  for (const pending of quick ? [1_000] : [1_000, 100_000]) {
    const base = new EventBase();
    for (let i = 0; i < pending; i++) base.timer(() => undefined).add(HOUR + i);
    const one = base.timer(() => undefined);
    const waiting = Array.from({ length: pending }, (_, i) =>
      setTimeout(() => undefined, HOUR + i),
    );
    const ours = () => {
      for (let i = 0; i < BATCH; i++) {
        one.add(HOUR / 2 + i);
        one.del();
      }
    };
    const peer = () => {
      for (let i = 0; i < BATCH; i++) clearTimeout(setTimeout(() => undefined, HOUR / 2 + i));
    };
    yield await paired(`add and delete, ${pending} pending`, 'ns', pairs, () => measure(ours, ms), {
      name: 'setTimeout',
      run: () => measure(peer, ms),
    });
    for (const timeout of waiting) clearTimeout(timeout);
    base.close();
  }
}
