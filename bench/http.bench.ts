// HTTP and WebSockets: the server's CPU for each request, and how long its clients wait, on one loop
// of one core, beside Node's http (and npm's ws), Bun and uWebSockets; and two loops beside
// node:cluster with two workers. Clients are wrk where it is installed, and ours for WebSockets and
// elsewhere, on another core than the server.

import { fileURLToPath } from 'node:url';
import { paths } from '../test/tls/pems.js';
import type { Asked, Load } from './peers/http_load.js';
import { nodeProgram } from './peers/program.js';
import { Remote, type Side } from './peers/remote.js';
import { type Command, hasBun, Server } from './peers/server.js';
import { findUws } from './peers/uws.js';
import { hasWrk, wrk } from './peers/wrk.js';
import { type BenchOptions, type Case, caseOf, inTurn } from './report.js';

const CONNECTIONS = 64;
const LOOPS = 2;
/** Requests before the measured ones, asked for so long at a time, and so often at most. */
const WARM_REQUESTS = 15_000;
const WARM_MS = 1_000;
const WARM_TIMES = 6;
const WARM_TIMES_QUICK = 4;

interface What {
  name: string;
  path: string;
  tls?: true;
  form?: 'fetch';
  /** Clients are ours, since wrk does not speak it. */
  own?: true;
  /** Not with --quick. */
  full?: true;
}
const WHATS: What[] = [
  { name: 'hello', path: '/' },
  { name: 'hello, fetch form', path: '/', form: 'fetch' },
  { name: '100 kB answers', path: '/large' },
  { name: '10 kB uploads', path: '/upload' },
  { name: '10 kB uploads, kept', path: '/whole', full: true },
  { name: 'HTTPS hello', path: '/', tls: true },
  { name: 'WebSocket echo', path: '/ws', own: true },
];

interface Figures extends Asked {
  /** Microseconds of the server's CPU for each request. */
  cpu: number;
}

const file = (name: string) => fileURLToPath(new URL(`./peers/${name}.js`, import.meta.url));

class Bench {
  readonly #quick: boolean;
  readonly #wrk = hasWrk();
  readonly #clients = new Remote(nodeProgram('http_load'), 'client');
  readonly #bun = hasBun();
  readonly #uws: ReturnType<typeof findUws>;

  constructor(quick: boolean) {
    this.#quick = quick;
    this.#uws = findUws(!quick);
    if (!this.#wrk) console.error('bench: no wrk (Debian: apt-get install wrk); clients are ours');
    if (!this.#bun) console.error('bench: no bun on PATH');
    if ('missing' in this.#uws) console.error(`bench: no uWebSockets: ${this.#uws.missing}`);
  }

  get rounds(): number {
    return this.#quick ? 1 : 3;
  }

  /** Ours are those with a capital, and serve. */
  servers({ tls, form }: What): Record<string, Command> {
    const node = (kind: string, options: object = {}): Command => [
      process.execPath,
      file('http_server'),
      kind,
      JSON.stringify({ tls, ...options }),
    ];
    const all: Record<string, Command> = { HttpServer: node('HttpServer', { form }) };
    if (form === undefined) all['serve()'] = node('serve');
    all.node = node('node');
    const { cert, key } = paths('localhost');
    if (this.#bun) all.bun = ['bun', file('http_bun'), ...(tls ? [cert, key] : [])];
    if (form === undefined && 'path' in this.#uws) all.uws = node('uws', { uws: this.#uws.path });
    return all;
  }

  async measure(command: Command, what: What, side: Side): Promise<Figures> {
    const server = await Server.start(command, side);
    try {
      const ms = this.#quick ? 1_000 : 3_000;
      const load = {
        port: server.port,
        path: what.path,
        tls: what.tls === true,
        connections: CONNECTIONS,
        ms,
      };
      // What is compiled in the first moments is not what a request costs; on a machine that is
      // busy with something else, those take longer.
      const most = this.#quick ? WARM_TIMES_QUICK : WARM_TIMES;
      for (let count = 0, times = 0; count < WARM_REQUESTS && times < most; times++)
        count += (await this.#ask({ ...load, ms: WARM_MS }, what)).count;
      const before = server.cpu();
      const asked = await this.#ask(load, what);
      return { ...asked, cpu: ((server.cpu() - before) / asked.count) * 1e6 };
    } finally {
      await server.stop();
    }
  }
  #ask(load: Load, { own }: What): Promise<Asked> {
    if (this.#wrk && own === undefined) return wrk(load);
    return this.#clients.call<Asked>('run', load);
  }

  stop(): Promise<void> {
    return this.#clients.stop();
  }
}

const of = (all: Figures[], what: 'cpu' | 'p50' | 'p99') => all.map((one) => one[what]);
const rate = (all: Figures[]) => all.map(({ count, ms }) => (count / ms) * 1_000);

function* compare(
  name: string,
  ours: Figures[],
  peer: { name: string; runs: Figures[] },
): Iterable<Case> {
  const beside = (pick: (all: Figures[]) => number[]) => ({
    name: peer.name,
    runs: pick(peer.runs),
  });
  const rows: [what: string, unit: string, pick: (all: Figures[]) => number[]][] = [
    ['CPU a request', 'µs', (all) => of(all, 'cpu')],
    ['rate, more is better', '/s', rate],
    ['p50', 'ms', (all) => of(all, 'p50')],
    ['p99', 'ms', (all) => of(all, 'p99')],
  ];
  for (const [what, unit, pick] of rows)
    yield caseOf(`${name}, ${what}`, unit, pick(ours), beside(pick));
}

/** Each of `ours` beside each of the others. */
async function* measured(
  bench: Bench,
  what: What,
  servers: Record<string, Command>,
  side: Side,
  isOurs: (name: string) => boolean,
): AsyncIterable<Case> {
  const programs = Object.fromEntries(
    Object.entries(servers).map(([name, command]) => [
      name,
      () => bench.measure(command, what, side),
    ]),
  );
  const runs = await inTurn<string, Figures>(bench.rounds, programs);
  const names = Object.keys(runs);
  for (const name of names.filter(isOurs))
    for (const peer of names.filter((one) => !isOurs(one)))
      yield* compare(`${what.name}, ${name}`, runs[name], { name: peer, runs: runs[peer] });
}

export default async function* http({ quick }: BenchOptions): AsyncIterable<Case> {
  const bench = new Bench(quick);
  const ours = ['HttpServer', 'serve()'];
  try {
    for (const what of WHATS.filter(({ full }) => full === undefined || !quick))
      yield* measured(bench, what, bench.servers(what), 'server', (name) => ours.includes(name));
    const many = (kind: string): Command => [
      process.execPath,
      file('http_server'),
      kind,
      JSON.stringify({ workers: LOOPS }),
    ];
    const servers = { [`${LOOPS} loops`]: many('serve'), cluster: many('cluster') };
    const isOurs = (name: string) => name !== 'cluster';
    yield* measured(bench, WHATS[0], servers, 'anywhere', isOurs);
  } finally {
    await bench.stop();
  }
}
