// Everything at once: connections, plain and TLS, that talk while they are moved, their loops
// reloaded, blocked and killed at random moments. The clients, in a process of their own, check
// every byte; here the accounts are checked, and that nothing is left.
//
// ML_CHAOS_SEED repeats a run, as far as time allows; ML_CHAOS_RUNS makes many, each with the seed
// after the last.

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { type LoopGroup, type ReloadReport, serve } from '../../src/index.js';
import { native } from '../../src/native.js';
import { openDescriptors, within } from '../event/support.js';
import { test } from '../hooks.js';
import { pair } from '../tls/pems.js';
import type { Seen, Told } from './chaos/clients.js';
import { Random } from './chaos/frames.js';
import { descriptors, portOf, until, workerFile } from './clients.js';
import type { Order } from './workers/chaos.js';

const LOOPS = 3;
const CLIENTS = 120;
const STORM_MS = 1_000;
/** Whatever is asked for has an answer by then. */
const BOUND_MS = 15_000;

/** About half of the clients speak TLS. */
const hasTls = native.tlsUnavailable() === undefined;
const runs = Number(process.env.ML_CHAOS_RUNS ?? 1);
const firstSeed = Number(process.env.ML_CHAOS_SEED ?? Date.now() % 1_000_000);

/** What a move, a post or a reload may say in such times. */
const refusals = new Set([
  'ERR_NOT_MOVABLE',
  'ERR_LOOP_GONE',
  'ERR_INBOX_FULL',
  'ERR_RELOAD_IN_PROGRESS',
]);

class Clients {
  readonly #child: ChildProcess;
  readonly #answers: ((seen: Seen) => void)[] = [];
  #ended = '';

  constructor(ports: [plain: number, tls: number], seed: number) {
    const file = fileURLToPath(new URL('./chaos/clients.js', import.meta.url));
    this.#child = fork(file, [...ports, seed, CLIENTS].map(String));
    this.#child.on('exit', (...how) => {
      this.#ended = how.join(' ');
    });
    this.#child.on('message', (seen) => this.#answers.shift()?.(seen as Seen));
  }

  async tell(told: Told): Promise<Seen> {
    if (!this.#child.connected)
      throw new Error(`the clients have ended by themselves:${this.#ended}`);
    const answer = new Promise<Seen>((resolve) => this.#answers.push(resolve));
    this.#child.send(told);
    return within(BOUND_MS, answer, `the clients' answer to '${told}'`);
  }

  /** Asks until it is so, or until something is wrong. */
  async until(condition: (seen: Seen) => boolean, what: string): Promise<Seen> {
    const end = performance.now() + BOUND_MS;
    for (;;) {
      const seen = await this.tell('report');
      if (condition(seen) || seen.wrong.length > 0) return seen;
      if (performance.now() > end) throw new Error(`never came true: ${what}: ${show(seen)}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async end(): Promise<void> {
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    if (!this.#child.connected) return;
    this.#child.disconnect();
    await gone;
  }
}

const show = (value: unknown) => JSON.stringify(value);

class Storm {
  readonly group: LoopGroup;
  readonly clients: Clients;
  readonly random: Random;
  /** Connections that reloads have ended. */
  drained = 0;
  reloads = 0;
  kills = 0;
  closing = false;
  readonly wrong: string[] = [];
  readonly #asked = new Set<Promise<unknown>>();
  #memory: boolean;

  private constructor(group: LoopGroup, clients: Clients, random: Random) {
    this.group = group;
    this.clients = clients;
    this.random = random;
    this.#memory = random.once(4);
    group.on('error', (error) => this.wrong.push(`error: ${error.stack}`));
    group.on('workerError', (error, id) => this.wrong.push(`workerError of ${id}: ${error.stack}`));
  }

  static async begin(seed: number): Promise<Storm> {
    const random = new Random(seed);
    const group = await serve({
      worker: workerFile('chaos'),
      workerData: { loops: LOOPS },
      listen: hasTls ? [{ port: 0 }, { port: 0, tls: pair('localhost') }] : { port: 0 },
      loops: LOOPS,
      policy: random.pick(['round-robin', 'least-connections', 'two-index', 'least-lag']),
      inboxSize: random.pick([8, 64, 1_024]),
      drainMs: 300,
      restart: { max: 1_000_000, backoff: 1 },
      resourceLimits: { maxOldGenerationSizeMb: 64 },
    });
    const clients = new Clients([portOf(group), hasTls ? portOf(group, 1) : 0], seed);
    await clients.tell('report');
    return new Storm(group, clients, random);
  }

  async blow(ms: number): Promise<void> {
    const end = performance.now() + ms;
    while (performance.now() < end) {
      this.#strike();
      this.balanced();
      await this.#moment();
    }
  }

  /** At random microseconds: some between two turns, some in the middle of one. */
  async #moment(): Promise<void> {
    if (this.random.once(2)) {
      const end = performance.now() + this.random.below(500) / 1_000;
      while (performance.now() < end);
      await new Promise((resolve) => setImmediate(resolve));
    } else {
      await new Promise((resolve) => setTimeout(resolve, this.random.below(12)));
    }
  }

  #strike(): void {
    const { random, group } = this;
    const roll = random.below(100);
    const loop = random.below(LOOPS);
    if (roll < 25) this.#order(loop, { order: 'move', seed: random.below(1e6), count: 5 });
    else if (roll < 55) this.#ask(group.move(this.#anyConnection(), loop));
    else if (roll < 65) this.#ask(group.rebalance());
    else if (roll < 75) this.#order(loop, { order: 'nothing' });
    else if (roll < 80) this.#order(loop, { order: 'block', ms: random.below(60) });
    else if (roll < 84) this.#ask(this.reload());
    else if (roll < 90) this.kill(loop);
  }

  /** By chance one that is open; the ledger's number of a descriptor that is none is refused. */
  #anyConnection(): number {
    const fd = this.random.pick(descriptors());
    for (let generation = 1; generation < 60; generation++) {
      const id = generation * 2 ** 20 + fd;
      if (native.ledgerOwner(id) !== 0) return id;
    }
    return 2 ** 20 + fd;
  }

  kill(loop: number): void {
    this.kills++;
    if (this.random.once(2)) {
      this.#ask(this.group.loops[loop].terminate());
      return;
    }
    const memory = this.#memory && this.random.once(5);
    if (memory) this.#memory = false;
    const way = memory
      ? 'memory'
      : this.random.pick(['throw', 'tick', 'here', 'reject', 'exit'] as const);
    this.#order(loop, { order: 'die', way });
  }

  async reload(): Promise<ReloadReport> {
    const report = await this.group.reload({ deadlineMs: this.random.below(250) });
    this.drained += report.drained + report.closed;
    this.reloads++;
    return report;
  }

  #order(loop: number, order: Order): void {
    try {
      this.group.post(loop, order);
    } catch (error) {
      this.#refused(error as NodeJS.ErrnoException);
    }
  }
  #ask(promise: Promise<unknown>): void {
    const asked = promise
      .catch((error) => this.#refused(error))
      .finally(() => this.#asked.delete(asked));
    this.#asked.add(asked);
  }
  #refused(error: NodeJS.ErrnoException): void {
    if (refusals.has(error.code ?? '')) return;
    // A loop that dies in the storm takes part in a reload too.
    if (error.code === 'ERR_RELOAD_FAILED' && /of chaos|code: [34]|limit/.test(error.message))
      return;
    if (error.code === 'ERR_RELOAD_FAILED' && this.closing) return;
    this.wrong.push(`refused: ${error.stack}`);
  }

  /** Everything that was asked for has been answered. */
  answered(): Promise<unknown> {
    return within(BOUND_MS, Promise.all(this.#asked), 'an answer to what the storm asked for');
  }
  async calm(): Promise<void> {
    await this.answered();
    await until(
      () => this.group.loops.every((loop) => loop.state === 'serving'),
      'every loop serves again',
    );
  }

  balanced(): void {
    const { accepted, open, served, refused, lost, loops } = this.group.stats();
    const numbers = { accepted, open, served, refused, lost };
    assert.is(accepted, open + served + refused + lost);
    for (const [name, value] of Object.entries(numbers))
      assert.ok(value >= 0, `${name} is ${value}: ${show(numbers)} ${show(loops)}`);
  }

  check(seen: Seen): void {
    assert.equal([...this.wrong, ...seen.wrong], []);
  }
}

async function storm(seed: number, body: (storm: Storm) => Promise<void>): Promise<void> {
  const before = openDescriptors();
  const one = await Storm.begin(seed);
  try {
    await body(one);
    await one.clients.end();
    await until(() => descriptors().length <= before.length, 'descriptors back').catch((error) => {
      error.message += `: ${show(openDescriptors())} after ${show(before)}`;
      throw error;
    });
  } catch (error) {
    (error as Error).message += `\nwith ML_CHAOS_SEED=${seed}; ${show(one.group.stats())}`;
    await one.clients.end();
    await one.group.close();
    throw error;
  }
  assert.is(native.ledgerCount(), 0);
}

test.before(async () => {
  // What Node opens once a process is open before anything is counted.
  await serve({ worker: workerFile('chaos'), loops: 1 }).then((group) => group.close());
  const first = await Storm.begin(1);
  await first.clients.end();
  await first.group.close();
});

for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
  test(`a storm, and what is left after it (seed ${seed})`, () =>
    storm(seed, async (one) => {
      const { group, clients } = one;
      await one.blow(STORM_MS);
      await one.calm();
      one.check(await clients.tell('quiet'));
      one.check(await clients.until((seen) => seen.waiting === 0, 'every request is answered'));
      // The group's listening socket is in it too.
      const inLedger = () => native.ledgerCount() - group.addresses.length;
      await until(() => group.stats().open === inLedger(), 'the ledger agrees');
      one.check(await clients.tell('go on'));
      await one.blow(STORM_MS / 2);
      await one.calm();
      one.check(await clients.tell('finish'));
      const seen = await clients.until(({ open }) => open === 0, 'every client is done');
      one.check(seen);
      await until(() => group.stats().open === 0, 'every connection is closed');
      const { accepted, lost, refused, moves, rescues } = group.stats();
      console.log(
        `seed ${seed}: ${show({ kills: one.kills, reloads: one.reloads, moves, rescues, lost, refused, drained: one.drained, seen })}`,
      );
      assert.is(accepted, seen.made, 'connections that were made');
      const ended = lost + refused + one.drained;
      assert.ok(seen.early <= ended, `${seen.early} ended early, ${ended} for a reason`);
      await within(BOUND_MS, group.close(), 'close()');
      one.balanced();
      one.check(seen);
    }));

  test(`a group that is closed in the middle of a storm (seed ${seed})`, () =>
    storm(seed + 500_000, async (one) => {
      const { group, clients, random } = one;
      await one.blow(STORM_MS / 2);
      if (random.once(2)) one.reload().catch(() => undefined);
      if (random.once(2)) one.kill(random.below(LOOPS));
      one.check(await clients.tell('closing'));
      one.closing = true;
      await within(BOUND_MS, group.close(), 'close()');
      one.balanced();
      assert.is(group.stats().open, 0);
      one.check(await clients.until(({ open }) => open === 0, 'every client has seen the end'));
      await one.answered();
      one.check(await clients.tell('report'));
    }));
}

test.run();
