// Moving a live connection: what a move costs in a process that does nothing else, beside a
// message of Node's there and back between two threads; and how long a client that never stops
// asking waits for an answer when its connection has moved meanwhile, beside the other answers.

import type { Report } from './peers/frames_load.js';
import { named, nodeProgram } from './peers/program.js';
import { Remote } from './peers/remote.js';
import { pause } from './peers/rpc.js';
import { type BenchOptions, type Case, caseOf, inTurn } from './report.js';

/** Clients that ask as soon as they are answered, and how often each loop moves one. */
const CLIENTS = 20;
const MOVE_EVERY_MS = 2;

type Figures = Record<string, number>;

async function* cost(quick: boolean): AsyncIterable<Case> {
  const count = quick ? 10_000 : 50_000;
  for (const cores of ['one core', 'two cores']) {
    const run = (mode: string) => () =>
      named(nodeProgram('move_cost', mode, count), cores === 'one core');
    const runs = await inTurn<'move' | 'message', Figures>(quick ? 3 : 7, {
      move: run('move'),
      message: run('message'),
    });
    for (const [key, what] of [
      ['time', 'a move'],
      ['cpu', 'CPU a move'],
    ]) {
      const ours = runs.move.map((one) => one[key]);
      const peer = { name: 'postMessage', runs: runs.message.map((one) => one[key]) };
      yield caseOf(`${cores}, ${what}`, 'µs', ours, peer);
    }
    const back = runs.move.map((one) => 2 * one.time);
    const peer = { name: 'postMessage', runs: runs.message.map((one) => one.time) };
    yield caseOf(`${cores}, there and back`, 'µs', back, peer);
  }
}

async function pauses(quick: boolean): Promise<Report> {
  const options = JSON.stringify({ workers: 2, moveEveryMs: MOVE_EVERY_MS });
  const server = new Remote(nodeProgram('frames_server', 'multiloop', options), 'server');
  const clients = new Remote(nodeProgram('frames_load'), 'client');
  try {
    const port = await server.call<number>('port');
    await clients.call('start', { port, count: CLIENTS, everyMs: 0 });
    await pause(500);
    await clients.call('report');
    await pause(quick ? 2_000 : 5_000);
    const seen = await clients.call<Report>('report');
    await clients.call('stop');
    if (seen.closed > 0) throw new Error(`${seen.closed} connections were closed`);
    if (seen.moved.count < 100) throw new Error(`there were only ${seen.moved.count} moves`);
    return seen;
  } finally {
    await clients.stop();
    await server.stop();
  }
}

export default async function* move({ quick }: BenchOptions): AsyncIterable<Case> {
  yield* cost(quick);
  const runs = (await inTurn(quick ? 1 : 5, { ours: () => pauses(quick) })).ours;
  for (const key of ['p50', 'p99', 'max'] as const) {
    const peer = { name: 'no move', runs: runs.map((one) => one.stayed[key]) };
    const name = `answer to answer with a move between, ${key}`;
    yield caseOf(
      name,
      'ms',
      runs.map((one) => one.moved[key]),
      peer,
    );
  }
  yield caseOf(
    'moves in that time',
    'moves',
    runs.map((one) => one.moved.count),
  );
}
