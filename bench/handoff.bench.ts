// Handing connections out: what one costs and how long its client waits, beside node:cluster and
// core's own transfer of sockets to a thread, and what it costs on one thread that hands out
// nothing; how long clients wait while one loop is blocked; and how evenly connections that stay
// are spread. Servers with everything they consist of are on one core, their clients on another.

import { transferringNode } from './peers/newer_node.js';
import { nodeProgram } from './peers/program.js';
import { Remote } from './peers/remote.js';
import { pause } from './peers/rpc.js';
import type { Figures } from './peers/short_load.js';
import { type BenchOptions, type Case, caseOf, inTurn } from './report.js';

const POLICIES = ['round-robin', 'least-connections', 'two-index', 'least-lag', 'sticky'];
const ACCEPT_MODES = ['handoff', 'reuseport', 'shared'];

/** For the cost of a connection, and for everything else. */
const FEW = 2;
const LOOPS = 4;
/** Clients that connect at any time. */
const WIDTH = 50;
const PER_SECOND = 1_000;
const TIMES_REPLACED = 10;

interface Subject {
  kind: 'multiloop' | 'alone' | 'cluster' | 'transfer';
  workers: number;
  blocked?: boolean;
  policy?: string;
  accept?: string;
}

class Bench {
  readonly #clients = new Remote(nodeProgram('short_load'), 'client');
  readonly #newer = transferringNode();
  readonly quick: boolean;

  constructor(quick: boolean) {
    this.quick = quick;
    if ('missing' in this.#newer)
      console.error(`bench: no socket transfer: ${this.#newer.missing}`);
  }

  get hasTransfer(): boolean {
    return 'command' in this.#newer;
  }

  /** Runs `work` beside the server, which is gone after it. */
  async #beside<T>(
    { kind, ...options }: Subject,
    work: (server: Remote, at: { port: number; workers: number }) => Promise<T>,
  ): Promise<T> {
    const program = nodeProgram('handoff_server', kind, JSON.stringify(options));
    if (kind === 'transfer' && 'command' in this.#newer) program.command = this.#newer.command;
    const server = new Remote(program, 'server');
    try {
      const port = await server.call<number>('port');
      return await work(server, { port, workers: options.workers });
    } finally {
      await server.stop();
    }
  }

  /** Microseconds of the server's CPU for a connection, from its accept to its close. */
  cost(subject: Subject): Promise<number> {
    const count = this.quick ? 4_000 : 15_000;
    return this.#beside(subject, async (server, at) => {
      // What is compiled in the first moments is not what a connection costs.
      await this.#clients.call('closed', { ...at, width: WIDTH, count: 1.5 * count });
      const before = server.cpu();
      await this.#clients.call('closed', { ...at, width: WIDTH, count });
      return ((server.cpu() - before) / count) * 1e6;
    });
  }

  /** Milliseconds from the client's connect to the first byte. */
  wait(subject: Subject): Promise<Figures> {
    const ms = this.quick ? 1_000 : 5_000;
    return this.#beside(subject, async (_, at) => {
      await this.#clients.call('paced', { ...at, perSecond: PER_SECOND, ms: ms / 4 });
      return this.#clients.call<Figures>('paced', { ...at, perSecond: PER_SECOND, ms });
    });
  }

  spread(subject: Subject, counts: number[], seed: number): Promise<Record<string, number>> {
    return this.#beside(subject, async (server, at) => {
      const all: Record<string, number> = {};
      for (const count of counts) {
        const load = { ...at, count, times: TIMES_REPLACED, seed };
        all[count] = await this.#clients.call<number>('churn', load);
        if (subject.kind === 'multiloop') {
          await server.call('rebalance');
          all[`${count} after`] = await this.#clients.call<number>('imbalance', at);
        }
        await this.#clients.call('leave');
        // The server sees the last of them go.
        await pause(20);
      }
      return all;
    });
  }

  stop(): Promise<void> {
    return this.#clients.stop();
  }
}

/** The accept modes that serve() has; one that knows none refuses nothing. */
async function acceptModes({ accept }: BenchOptions): Promise<string[]> {
  if (accept !== undefined) return accept;
  const has = async (mode: string) => {
    const { serve } = await import('../src/index.js');
    const worker = new URL('./peers/handoff_worker.js', import.meta.url);
    const options = { worker, workerData: {}, loops: 1, accept: mode };
    try {
      await (await serve(options as Parameters<typeof serve>[0])).close();
      return true;
    } catch {
      return false;
    }
  };
  if (await has('no such mode')) return ['handoff'];
  const modes: string[] = [];
  for (const mode of ACCEPT_MODES) if (await has(mode)) modes.push(mode);
  return modes;
}

/** What a connection costs, and how long it takes to its first byte. */
async function* alone(bench: Bench, modes: string[]): AsyncIterable<Case> {
  const subjects: Record<string, Subject> = {};
  for (const accept of modes) subjects[accept] = { kind: 'multiloop', workers: FEW, accept };
  subjects.cluster = { kind: 'cluster', workers: FEW };
  if (bench.hasTransfer) subjects.transfer = { kind: 'transfer', workers: FEW };
  const peers = Object.keys(subjects).filter((name) => !modes.includes(name));

  const rounds = bench.quick ? 1 : 5;
  const measure = <T>(all: Record<string, Subject>, run: (subject: Subject) => Promise<T>) =>
    inTurn<string, T>(
      rounds,
      Object.fromEntries(Object.entries(all).map(([name, one]) => [name, () => run(one)])),
    );
  const oneThread = { kind: 'alone', workers: 1 } as const;
  const costs = await measure({ ...subjects, oneThread }, (subject) => bench.cost(subject));
  const waits = await measure(subjects, (subject) => bench.wait(subject));
  for (const mode of modes) {
    for (const peer of peers) {
      const beside = { name: peer, runs: costs[peer] };
      yield caseOf(`${mode}, CPU a connection`, 'µs', costs[mode], beside);
      for (const key of ['p50', 'p99'] as const) {
        const wait = (name: string) => waits[name].map((one) => one[key]);
        const name = `${mode}, accept to first byte ${key}`;
        yield caseOf(name, 'ms', wait(mode), { name: peer, runs: wait(peer) });
      }
    }
    const floor = { name: 'one thread', runs: costs.oneThread };
    yield caseOf(`${mode}, CPU a connection`, 'µs', costs[mode], floor);
  }
}

/** How long clients wait while one loop of four is blocked 50 ms in every 200. */
async function* oneBlocked(bench: Bench, modes: string[]): AsyncIterable<Case> {
  const common = { workers: LOOPS, blocked: true };
  const subjects: Record<string, Subject> = { cluster: { kind: 'cluster', ...common } };
  for (const policy of POLICIES) subjects[policy] = { kind: 'multiloop', policy, ...common };
  for (const accept of modes)
    if (accept !== 'handoff') subjects[accept] = { kind: 'multiloop', accept, ...common };
  const programs = Object.fromEntries(
    Object.entries(subjects).map(([name, subject]) => [name, () => bench.wait(subject)]),
  );
  const { cluster, ...ours } = await inTurn<string, Figures>(bench.quick ? 1 : 3, programs);
  for (const [name, runs] of Object.entries(ours)) {
    for (const key of ['p50', 'p99'] as const) {
      const wait = (all: Figures[]) => all.map((one) => one[key]);
      const beside = { name: 'cluster', runs: wait(cluster) };
      yield caseOf(`one loop blocked, ${name}, ${key}`, 'ms', wait(runs), beside);
    }
  }
}

/** How evenly connections that stay are spread after churn: the most of a loop to the mean. */
async function* evenness(bench: Bench): AsyncIterable<Case> {
  const counts = bench.quick ? [8, 32] : [8, 32, 128];
  const subjects: Record<string, Subject> = { cluster: { kind: 'cluster', workers: LOOPS } };
  for (const policy of POLICIES) subjects[policy] = { kind: 'multiloop', policy, workers: LOOPS };
  let calls = 0;
  // Every server of a round gets the same churn.
  const seed = () => Math.floor(calls++ / Object.keys(subjects).length) + 1;
  const programs = Object.fromEntries(
    Object.entries(subjects).map(([name, subject]) => [
      name,
      () => bench.spread(subject, counts, seed()),
    ]),
  );
  const rounds = bench.quick ? 1 : 5;
  const { cluster, ...ours } = await inTurn<string, Record<string, number>>(rounds, programs);
  for (const [policy, runs] of Object.entries(ours)) {
    for (const count of counts) {
      const beside = { name: 'cluster', runs: cluster.map((one) => one[count]) };
      const name = `${policy}, ${count} connections, max/mean`;
      yield caseOf(
        name,
        '×',
        runs.map((one) => one[count]),
        beside,
      );
      const after = runs.map((one) => one[`${count} after`]);
      yield caseOf(`${name} after rebalance()`, '×', after, beside);
    }
  }
}

export default async function* handoff(options: BenchOptions): AsyncIterable<Case> {
  const modes = await acceptModes(options);
  const bench = new Bench(options.quick);
  try {
    yield* alone(bench, modes);
    yield* oneBlocked(bench, modes);
    yield* evenness(bench);
  } finally {
    await bench.stop();
  }
}
