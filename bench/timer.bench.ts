// Timers. First add and delete of one timer, with few and many pending, beside setTimeout and
// clearTimeout; then what each operation costs when all of 10^3 and 10^6 timers are created,
// added, deleted and fired, beside libevent in C and Node; then how that grows from 10^3 to 10^6.

import { Bench as Tinybench } from 'tinybench';
import { EventBase } from '../src/index.js';
import { libeventPeer } from './peers/compile.js';
import { named, nativeProgram, nodeProgram } from './peers/program.js';
import { type BenchOptions, type Case, caseOf, inTurn, paired } from './report.js';

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

async function* beside(quick: boolean): AsyncIterable<Case> {
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

/**
 * How many timers, in how many rounds of a process, and within how many milliseconds those that
 * fire are due: Node keeps a list for each millisecond, so the more there are the wider.
 */
const FEW = { count: 1_000, rounds: 40, windowMs: 20 };
const MANY = { count: 1_000_000, rounds: 1, windowMs: 1_000 };

const NAMES = {
  create: 'create',
  add: 'add, random deadline',
  delete: 'delete, in the same order',
  fire: 'fire when due',
};
const OPERATIONS = Object.keys(NAMES) as (keyof typeof NAMES)[];

type Nanos = Record<string, number>;
type Who = 'ours' | 'libevent' | 'node';

/** Each measurement has its own process: a million timers are a heap that others would feel. */
async function* allOf(options: BenchOptions): AsyncIterable<Case> {
  const peer = libeventPeer(options, 'timer_libevent', ['-levent_core']);
  const programs: Partial<Record<`${Who} ${'few' | 'many'}`, () => Promise<Nanos>>> = {};
  for (const [size, { count, rounds, windowMs }] of [
    ['few', FEW],
    ['many', MANY],
  ] as const) {
    const args = [count, rounds, windowMs];
    programs[`ours ${size}`] = () => named(nodeProgram('timer_multiloop', ...args), true);
    programs[`node ${size}`] = () => named(nodeProgram('timer_node', ...args), true);
    if (peer !== undefined)
      programs[`libevent ${size}`] = () => named(nativeProgram(peer.command, ...args), true);
  }
  const runs = await inTurn(options.quick ? 1 : 5, programs);
  const nanos = (who: Who, size: 'few' | 'many', operation: string) =>
    runs[`${who} ${size}`].map((one) => one[operation]);

  for (const size of ['few', 'many'] as const) {
    const power = size === 'few' ? '10^3' : '10^6';
    for (const operation of OPERATIONS) {
      const name = `${NAMES[operation]}, ${power}`;
      const ours = nanos('ours', size, operation);
      if (peer !== undefined)
        yield caseOf(`${name}, beside ${peer.name}`, 'ns', ours, {
          name: peer.name,
          runs: nanos('libevent', size, operation),
        });
      // setTimeout() makes the timer that it adds.
      if (operation !== 'create')
        yield caseOf(`${name}, beside setTimeout`, 'ns', ours, {
          name: 'setTimeout',
          runs: nanos('node', size, operation),
        });
      else if (peer === undefined) yield caseOf(name, 'ns', ours);
    }
  }
  for (const operation of OPERATIONS) {
    yield caseOf(`growth of ${operation}, 10^6 to 10^3`, 'ns', nanos('ours', 'many', operation), {
      name: 'ours at 10^3',
      runs: nanos('ours', 'few', operation),
    });
  }
}

export default async function* timer(options: BenchOptions): AsyncIterable<Case> {
  yield* beside(options.quick);
  yield* allOf(options);
}
