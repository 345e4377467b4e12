// Topics: messages published to a hundred WebSockets, the server's CPU for each that is delivered and
// how long the last subscriber waits; on one loop of one core, beside npm's ws that sends to one
// client after the other, Bun's and uWebSockets' own topics, and on two loops beside node:cluster
// whose two workers tell each other by process messages. Clients are on another core.

import { fileURLToPath } from 'node:url';
import { nodeProgram } from './peers/program.js';
import type { Delivered, PublishLoad } from './peers/publish_load.js';
import { Remote, type Side } from './peers/remote.js';
import { type Command, hasBun, Server } from './peers/server.js';
import { findUws } from './peers/uws.js';
import { type BenchOptions, type Case, caseOf, inTurn } from './report.js';

const SUBSCRIBERS = 100;
const LOOPS = 2;
/** Deliveries before the measured ones, asked for so long at a time, and so often at most. */
const WARM_DELIVERIES = 50_000;
const WARM_MS = 1_000;
const WARM_TIMES = 6;
const WARM_TIMES_QUICK = 2;

interface Figures extends Delivered {
  /** Microseconds of the server's CPU for each message that was delivered. */
  cpu: number;
}

const file = (name: string) => fileURLToPath(new URL(`./peers/${name}.js`, import.meta.url));
const node = (kind: string, options: object = {}): Command => [
  process.execPath,
  file('publish_server'),
  kind,
  JSON.stringify(options),
];

function peers(fetch: boolean): Record<string, Command> {
  const all: Record<string, Command> = { ws: node('ws') };
  if (hasBun()) all.bun = ['bun', file('publish_bun')];
  else console.error('bench: no bun on PATH');
  const uws = findUws(fetch);
  if ('path' in uws) all.uws = node('uws', { uws: uws.path });
  else console.error(`bench: no uWebSockets: ${uws.missing}`);
  return all;
}

const ROWS: [what: string, unit: string, of: (one: Figures) => number][] = [
  ['CPU a delivery', 'µs', ({ cpu }) => cpu],
  ['rate, more is better', '/s', ({ count, ms }) => (count / ms) * 1_000],
  ['8 to all, p50', 'ms', ({ p50 }) => p50],
  ['8 to all, p99', 'ms', ({ p99 }) => p99],
];

export default async function* publish({ quick }: BenchOptions): AsyncIterable<Case> {
  const clients = new Remote(nodeProgram('publish_load'), 'client');
  const ask = (load: PublishLoad) => clients.call<Delivered>('run', load);

  const measure = async (command: Command, side: Side): Promise<Figures> => {
    const server = await Server.start(command, side);
    try {
      const load = { port: server.port, subscribers: SUBSCRIBERS, ms: quick ? 1_000 : 3_000 };
      // What is compiled in the first moments is not what a message costs.
      const most = quick ? WARM_TIMES_QUICK : WARM_TIMES;
      for (let count = 0, times = 0; count < WARM_DELIVERIES && times < most; times++)
        count += (await ask({ ...load, ms: WARM_MS })).count;
      const before = server.cpu();
      const delivered = await ask(load);
      return { ...delivered, cpu: ((server.cpu() - before) / delivered.count) * 1e6 };
    } finally {
      await server.stop();
    }
  };
  async function* beside(
    ours: Record<string, Command>,
    theirs: Record<string, Command>,
    side: Side,
  ): AsyncIterable<Case> {
    const programs = Object.entries({ ...ours, ...theirs }).map(([name, command]) => [
      name,
      () => measure(command, side),
    ]);
    const runs = await inTurn<string, Figures>(quick ? 1 : 3, Object.fromEntries(programs));
    for (const name of Object.keys(ours))
      for (const peer of Object.keys(theirs))
        for (const [what, unit, of] of ROWS) {
          const other = { name: peer, runs: runs[peer].map(of) };
          yield caseOf(`${name}, ${what}`, unit, runs[name].map(of), other);
        }
  }

  try {
    const one = { HttpServer: node('HttpServer'), 'serve()': node('serve') };
    yield* beside(one, peers(!quick), 'server');
    const workers = { workers: LOOPS };
    const many = { [`${LOOPS} loops`]: node('serve', workers) };
    yield* beside(many, { cluster: node('cluster', workers) }, 'anywhere');
  } finally {
    await clients.stop();
  }
}
