// What a change of the code and the end of a thread cost the clients, under load: connections that
// are closed by reloads, beside a cluster's rolling restart and PM2's reload; and what becomes of
// connections when a loop dies under them, beside a cluster's worker that does.
//
// Three loads for the crashes. 'answered': questions as they come. 'halves': each connection is in
// the middle of a question half of the time. 'half duty': each loop computes half of the time, and
// is killed from outside, whatever it does.

import type { Aftermath, Load, Report } from './peers/frames_load.js';
import type { Crashed } from './peers/frames_server.js';
import { type Pm2, pm2 } from './peers/pm2.js';
import { nodeProgram, type Program } from './peers/program.js';
import { Remote } from './peers/remote.js';
import { pause } from './peers/rpc.js';
import { type BenchOptions, type Case, caseOf } from './report.js';

const LOOPS = 2;
const TIMES = 20;
/** Between two reloads or crashes, so that each finds the load as it is. */
const REST_MS = 150;

const LOAD: Omit<Load, 'port'> = { count: 300, everyMs: 100, shortPerSecond: 100 };
const HALVES: Omit<Load, 'port'> = { count: 100, everyMs: 60, halves: true };
/** 50 connections a loop, each 20 times a second for half a millisecond. */
const HALF_DUTY: Omit<Load, 'port'> = { count: 100, everyMs: 50 };
const SPIN_MICROS = 500;
const WAYS = ['throw', 'reject', 'exit'];

type Work<T> = (server: Remote, clients: Remote) => Promise<T>;

/** Runs `work` with the server and its clients, which are gone after it. */
async function under<T>(
  program: Program,
  load: Omit<Load, 'port'>,
  work: Work<T>,
  env?: NodeJS.ProcessEnv,
): Promise<T> {
  const server = new Remote(program, 'anywhere', env);
  const clients = new Remote(nodeProgram('frames_load'), 'anywhere');
  try {
    const port = await server.call<number>('port');
    await clients.call('start', { ...load, port });
    await pause(REST_MS);
    await clients.call('report');
    const result = await work(server, clients);
    await clients.call('stop');
    return result;
  } finally {
    await clients.stop();
    await server.stop();
  }
}

const server = (kind: string, more: object = {}) =>
  nodeProgram('frames_server', kind, JSON.stringify({ workers: LOOPS, ...more }));

// ── reloads ──

interface Reloads {
  seen: Report;
  /** Milliseconds of one reload. */
  took: number;
}

function reloads(program: Program, times: number, env?: NodeJS.ProcessEnv): Promise<Reloads> {
  const work: Work<Reloads> = async (one, clients) => {
    let took = 0;
    for (let i = 0; i < times; i++) {
      const began = performance.now();
      await one.call('reload');
      took += performance.now() - began;
      await clients.call('replace');
      await pause(REST_MS);
    }
    return { seen: await clients.call<Report>('report'), took: took / times };
  };
  return under(program, LOAD, work, env);
}

async function* reloadCases(quick: boolean): AsyncIterable<Case> {
  const times = quick ? 5 : TIMES;
  const ours = await reloads(server('multiloop'), times);
  const peers: Record<string, Reloads> = { cluster: await reloads(server('cluster'), times) };
  const missing = (found: Pm2 | { missing: string }): found is { missing: string } =>
    'missing' in found;
  const found = pm2(!quick);
  if (missing(found)) console.error(`bench: no PM2: ${found.missing}`);
  else peers.PM2 = await reloads(found.program(LOOPS), times, found.env);
  for (const [name, theirs] of Object.entries(peers)) {
    const beside = (what: string, unit: string, of: (one: Reloads) => number) =>
      caseOf(`${times} reloads, ${what}`, unit, [of(ours)], { name, runs: [of(theirs)] });
    yield beside(`of ${LOAD.count} connections closed`, 'closed', ({ seen }) => seen.closed);
    yield beside('short connections failed', 'failed', ({ seen }) => seen.shortsFailed);
    yield beside('answer to answer, p99', 'ms', ({ seen }) => both(seen, 'p99'));
    yield beside('answer to answer, longest', 'ms', ({ seen }) => both(seen, 'max'));
    yield beside('one reload', 'ms', ({ took }) => took);
  }
  yield caseOf(`${times} reloads, answers meanwhile`, 'answers', [ours.seen.messages]);
  const { closed, shortsFailed } = ours.seen;
  if (closed + shortsFailed > 0)
    throw new Error(`reloads closed ${closed} connections and failed ${shortsFailed} short ones`);
}

/** The greater of those with and without another loop than before. */
const both = ({ stayed, moved }: Report, key: 'p99' | 'max') => Math.max(stayed[key], moved[key]);

// ── crashes ──

type Crashes = Omit<Aftermath, 'lateMs'> & Omit<Crashed, 'at'> & { lateMs: number[]; duty: number };

function crashes(program: Program, load: Omit<Load, 'port'>, ways: string[], times: number) {
  const work: Work<Crashes> = async (one, clients) => {
    const sum = { lateMs: [] as number[], duty: 0 } as Crashes;
    // Less what nobody asks for.
    const began = performance.now();
    const cpu = one.cpu();
    await pause(3 * REST_MS);
    sum.duty = (one.cpu() - cpu) / LOOPS / ((performance.now() - began) / 1_000);
    for (let i = 0; i < times; i++) {
      const who = i % LOOPS;
      const crashed = await one.call<Crashed>('crash', {
        who,
        way: ways[i % ways.length],
        open: load.count,
      });
      const { lateMs, ...seen } = await clients.call<Aftermath>('after', { ...crashed, who });
      sum.lateMs.push(lateMs);
      const { lost, rescued } = crashed;
      for (const [key, value] of Object.entries({ ...seen, lost, rescued })) {
        const name = key as keyof typeof seen;
        sum[name] = (sum[name] ?? 0) + value;
      }
      // A connection is rescued at most twice a minute.
      await clients.call('replace', seen.survived > 0 ? otherThan(who) : -1);
      await pause(REST_MS);
    }
    await clients.call('report');
    return sum;
  };
  return under(program, load, work);
}

/** Where those have gone that lived. */
const otherThan = (who: number): number => (who + 1) % LOOPS;

function* crashCases(title: string, ours: Crashes, cluster: Crashes | undefined): Iterable<Case> {
  const beside = (what: string, unit: string, of: (one: Crashes) => number) =>
    caseOf(
      `${title}, ${what}`,
      unit,
      [of(ours)],
      cluster && { name: 'cluster', runs: [of(cluster)] },
    );
  yield beside('connections on what died', 'had', (one) => one.closed + one.survived);
  yield beside('of them closed', 'closed', (one) => one.closed);
  yield beside('share closed', 'share', (one) => one.closed / (one.closed + one.survived));
  yield beside('at a boundary and closed', 'closed', (one) => one.closedAtBoundary);
  yield beside('last close after the crash', 'ms', (one) => Math.max(...one.lateMs));
  yield beside('hung', 'hung', (one) => one.hung);
}

/** What must hold on a slow machine too, or the bench fails. */
function check(title: string, ours: Crashes, ways: string[]): void {
  const { closed, survived, lost, rescued } = ours;
  const wrong: string[] = [];
  // What is terminated from outside may be between an answer and the mark of the boundary.
  if (ours.closedAtBoundary > 0 && !ways.includes('terminate'))
    wrong.push(`${ours.closedAtBoundary} at a boundary were closed`);
  if (ours.survivedOffBoundary > 0)
    wrong.push(`${ours.survivedOffBoundary} in the middle of a question live`);
  if (ours.othersClosed > 0) wrong.push(`${ours.othersClosed} of other loops were closed`);
  if (ours.hung > 0) wrong.push(`${ours.hung} hang`);
  if (closed !== lost) wrong.push(`the server counts ${lost} lost, the clients ${closed}`);
  if (survived !== rescued)
    wrong.push(`the server counts ${rescued} rescued, the clients ${survived}`);
  if (wrong.length > 0) throw new Error(`${title}: ${wrong.join('; ')}`);
}

export default async function* reload({ quick }: BenchOptions): AsyncIterable<Case> {
  yield* reloadCases(quick);

  const times = quick ? 4 : TIMES;
  const plain = { ...LOAD, shortPerSecond: 0 };
  const kinds: [string, object, Omit<Load, 'port'>, string[]][] = [
    ['answered', {}, plain, WAYS],
    ['halves', {}, HALVES, WAYS],
    ['half duty', { spinMicros: SPIN_MICROS }, HALF_DUTY, ['terminate']],
  ];
  for (const [name, more, load, ways] of kinds) {
    const title = `${times} crashes, ${name}`;
    const ours = await crashes(server('multiloop', more), load, ways, times);
    const cluster =
      name === 'halves' ? await crashes(server('cluster'), load, ways, times) : undefined;
    yield* crashCases(title, ours, cluster);
    if (name === 'half duty') yield caseOf(`${title}, a loop is busy`, 'share', [ours.duty]);
    check(title, ours, ways);
  }
}
