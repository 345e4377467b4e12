// What every loop does, told to one another: a loop that wants to know asks all others, and they
// answer. Nothing is sent while nobody looks.

import type { EventBase, LoopContext } from '../../src/index.js';

/** What one loop says of itself. */
export interface Figures {
  loop: number;
  generation: number;
  threadId: number;
  backend: string;
  waker: string;
  /** Open now. */
  connections: number;
  webSockets: number;
  eventStreams: number;
  /** Answered since the loop began, and in each second of late. */
  requests: number;
  requestsPerSecond: number;
  /** How much of the time of late it was busy: 0 to 1. */
  utilization: number;
  /** Since the loop began. */
  uptimeMs: number;
}

interface Question {
  ask: number;
}
interface Reply {
  figures: Figures;
}

/** What somebody who asks waits for loops that are busy or blocked. */
const WAIT_MS = 150;
/** A loop that has said nothing for so long is not there any more. */
const FORGET_MS = 10_000;
/** "Of late" is so long, at least. */
const WINDOW_MS = 900;

interface Sample {
  at: number;
  requests: number;
  activeMs: number;
}

/** Of one loop. */
export class Counter {
  connections = 0;
  webSockets = 0;
  eventStreams = 0;
  requests = 0;
  readonly #base: EventBase;
  #earlier: Sample;
  #later: Sample;

  constructor(base: EventBase) {
    this.#base = base;
    this.#earlier = this.#later = this.#sample();
  }

  #sample(): Sample {
    const at = performance.now();
    return { at, requests: this.requests, activeMs: this.#base.utilization().activeMs };
  }

  /** In each second, and of the time. */
  rates(): { requestsPerSecond: number; utilization: number } {
    const now = this.#sample();
    if (now.at - this.#later.at >= WINDOW_MS) {
      this.#earlier = this.#later;
      this.#later = now;
    }
    const since = this.#earlier;
    const ms = Math.max(1, now.at - since.at);
    return {
      requestsPerSecond: Math.round(((now.requests - since.requests) * 10_000) / ms) / 10,
      utilization: Math.min(1, Math.round(((now.activeMs - since.activeMs) * 1_000) / ms) / 1_000),
    };
  }
}

export class Exchange {
  readonly counter: Counter;
  readonly #loop: LoopContext;
  readonly #began = performance.now();
  /** The latest that each loop has said, and when. */
  readonly #heard = new Map<number, { figures: Figures; at: number }>();
  readonly #watchers = new Set<() => void>();

  constructor(loop: LoopContext) {
    this.#loop = loop;
    this.counter = new Counter(loop.base);
  }

  own(): Figures {
    const { id, generation, threadId, base } = this.#loop;
    const { requests, webSockets, eventStreams } = this.counter;
    let connections = 0;
    for (const _ of this.#loop.connections()) connections++;
    return {
      loop: id,
      generation,
      threadId,
      backend: base.backend,
      waker: base.waker,
      connections,
      webSockets,
      eventStreams,
      requests,
      ...this.counter.rates(),
      uptimeMs: Math.round(performance.now() - this.#began),
    };
  }

  /** What the worker's message hook is given. */
  hear(value: unknown): void {
    const message = value as Partial<Question & Reply>;
    if (message.ask !== undefined) this.#tell(() => this.#reply(message.ask as number));
    else if (message.figures !== undefined) this.#note(message.figures);
  }
  #reply(loop: number): void {
    this.#loop.post(loop, { figures: this.own() } satisfies Reply);
  }
  #note(figures: Figures): void {
    this.#heard.set(figures.loop, { figures, at: performance.now() });
    for (const look of [...this.#watchers]) look();
  }

  /** Asks the others; what they say is there in a moment. */
  ask(): void {
    this.#tell(() => this.#loop.broadcast({ ask: this.#loop.id } satisfies Question));
  }
  /** A loop that has no room for a message, or is gone, is left out. */
  #tell(send: () => void): void {
    try {
      send();
    } catch (error) {
      const { code } = error as { code?: string };
      if (code !== 'ERR_INBOX_FULL' && code !== 'ERR_LOOP_GONE') throw error;
    }
  }

  /** All that is known, this loop's own included, in the order of the loops. */
  known(): Figures[] {
    const old = performance.now() - FORGET_MS;
    for (const [loop, { at }] of this.#heard) if (at < old) this.#heard.delete(loop);
    const all = new Map([...this.#heard].map(([loop, { figures }]) => [loop, figures]));
    all.set(this.#loop.id, this.own());
    return [...all.values()].sort((one, other) => one.loop - other.loop);
  }

  /** Asks, and waits until every loop has answered, but not for long. */
  async all(): Promise<Figures[]> {
    const asked = performance.now();
    const others = this.#loop.loops - 1;
    const isComplete = () =>
      [...this.#heard.values()].filter(({ at }) => at >= asked).length >= others;
    this.ask();
    if (!isComplete())
      await new Promise<void>((resolve) => {
        const look = () => {
          if (isComplete()) done();
        };
        const done = () => {
          clearTimeout(late);
          this.#watchers.delete(look);
          resolve();
        };
        const late = setTimeout(done, WAIT_MS);
        this.#watchers.add(look);
      });
    return this.known();
  }
}
