// Waking a thread from another one: what a message takes one way, with an eventfd and with a pipe
// as the waker, beside Node's MessagePort and libevent in C; and a flood in one direction.
//
// One way is half a round trip between two threads of one process. On one core that is what the
// software costs, and a switch of threads; on two it is mostly what the machine needs to wake a
// core that sleeps, which is the same for all. The mean of a ping is the inverse of the wake-ups
// that there are in a second.

import { libeventPeer } from './peers/compile.js';
import { named, nativeProgram, nodeProgram, type Program } from './peers/program.js';
import { type BenchOptions, type Case, caseOf, inTurn } from './report.js';

const WAKERS = ['eventfd', 'pipe'] as const;

type Who = (typeof WAKERS)[number] | 'node' | 'libevent';
type Programs = Partial<Record<Who, Program>>;
type Runs = Record<Who, Record<string, number>[]>;

/** Node and C have no choice of waker: Node's is an eventfd, and libevent's too, on Linux. */
function programs(peer: string | undefined, mode: 'ping' | 'flood', count: number): Programs {
  const all: Programs = { node: nodeProgram('wake_node', mode, count) };
  for (const waker of WAKERS) all[waker] = nodeProgram('wake_multiloop', mode, count, waker);
  if (peer !== undefined) all.libevent = nativeProgram(peer, mode, count);
  return all;
}

function run(pairs: number, all: Programs, onOneCore: boolean): Promise<Runs> {
  const started = Object.entries(all).map(([who, program]) => [
    who,
    () => named(program, onOneCore),
  ]);
  return inTurn(pairs, Object.fromEntries(started));
}

/** One value of every waker beside that of every peer. */
function* compare(
  runs: Runs,
  peers: { who: Who; name: string }[],
  title: string,
  key: string,
): Iterable<Case> {
  for (const waker of WAKERS) {
    const ours = runs[waker].map((one) => one[key]);
    for (const { who, name } of peers) {
      const theirs = { name, runs: runs[who].map((one) => one[key]) };
      yield caseOf(`${title}, ${waker}, beside ${name}`, 'µs', ours, theirs);
    }
  }
}

export default async function* wake(options: BenchOptions): AsyncIterable<Case> {
  const pairs = options.quick ? 2 : 7;
  const peer = libeventPeer(options, 'wake_libevent', ['-levent_core', '-levent_pthreads']);
  const peers: { who: Who; name: string }[] = [{ who: 'node', name: 'MessagePort' }];
  if (peer !== undefined) peers.push({ who: 'libevent', name: peer.name });

  const pings = programs(peer?.command, 'ping', options.quick ? 10_000 : 30_000);
  for (const cores of ['one core', 'two cores']) {
    const runs = await run(pairs, pings, cores === 'one core');
    for (const key of ['p50', 'p99', 'mean'])
      yield* compare(runs, peers, `${cores}, one way ${key}`, key);
  }

  // Producer and receiver run at once, so they need two cores. The inbox is bounded and libevent's
  // event carries nothing; wake_multiloop.ts and wake_libevent.c say what they do about it.
  const floods = programs(peer?.command, 'flood', options.quick ? 100_000 : 500_000);
  const runs = await run(pairs, floods, false);
  yield* compare(runs, peers, 'flood, a message', 'message');
  for (const waker of WAKERS) {
    const wakes = runs[waker].map((one) => one.wakes);
    yield caseOf(`flood, ${waker}, wakes sent`, 'a message', wakes);
  }
}
