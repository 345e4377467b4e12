// Automatic rebalancing: looks at the loops' loads now and then and has idle connections moved
// from those that have too many, within a budget.
//
// It does not oscillate. It begins when a loop is above the mean by more than the hysteresis,
// brings everybody to the mean, and then rests until that is true again. A connection that has come
// by a move stays for some seconds. A loop whose turns take long gives away connections until it
// has half of the others' mean, at its own pace, and is given nothing for a while after that.

import { native } from '../native.js';
import type { LoopSlot } from './loop_slot.js';
import { evenOut, type Transfer } from './rebalance.js';

export interface BalancerOptions {
  /** Connections that it may move in a second. */
  perSecond: number;
  /** As a share of the mean: what a loop may be above it. */
  hysteresis: number;
}

/** The group, as its balancer sees it. */
export interface BalancerHost {
  /** The loops that may give and be given connections. */
  serving(): LoopSlot[];
  /** Has `from` move up to `count` idle connections that have rested; answers how many went. */
  shed(transfer: Transfer, restMs: number): Promise<number>;
}

const TICK_MS = 250;
/** A difference of fewer connections is not worth a move. */
const DIFFERENCE_MIN = 2;
/** Once it has begun, it goes on until what is left is this part of the hysteresis. */
const SETTLED_SHARE = 4;
/**
 * A loop lags when the turns since the last look took so long on average, and so many times as long
 * as those of the loop that is best: where all do, because the machine has too much to do, moves
 * would not help.
 */
const LAG_MS = 25;
const LAG_TIMES = 3;
/** And it has to have been busy for this part of the time: one long turn is none to flee from. */
const LAG_BUSY = 0.2;
/** It keeps this part of what it would have otherwise … */
const LAG_LOAD = 0.5;
/** … and is given nothing for so long afterwards. */
const COOLING_MS = 10_000;
/** A connection that has moved does not move again for so long. */
export const REST_MS = 5_000;

interface Seen {
  inbox: number;
  alive: number;
  idle: number;
  turns: number;
  /** performance.now(), until which it is given nothing. */
  coolUntil: number;
}

const times = new Float64Array(4);

export class Balancer {
  readonly #host: BalancerHost;
  readonly #options: BalancerOptions;
  readonly #timer: NodeJS.Timeout;
  readonly #seen = new WeakMap<LoopSlot, Seen>();
  /** Questions that a loop has not answered yet: one that is blocked answers later. */
  readonly #asked = new Map<LoopSlot, number>();
  /** It has begun to even out and is not done. */
  #evening = false;
  #tokens: number;
  #refilled = performance.now();

  constructor(host: BalancerHost, options: BalancerOptions) {
    this.#host = host;
    this.#options = options;
    this.#tokens = this.#tokensMax;
    this.#timer = setInterval(() => this.#tick(), TICK_MS).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Of what is not used in one tick a part of a move is kept, or some second could have more. */
  get #tokensMax(): number {
    return (this.#options.perSecond * TICK_MS) / 1000 + 1;
  }

  #tick(): void {
    const now = performance.now();
    this.#earn(((now - this.#refilled) / 1000) * this.#options.perSecond);
    this.#refilled = now;
    const serving = this.#host.serving();
    for (const slot of serving) slot.refresh();
    // One that is blocked now may be asked too, and answers when it is not any more.
    const lagging = this.#lagging(serving, now);
    const healthy = serving.filter((slot) => !slot.blocked && !lagging.includes(slot));
    const takers = healthy.filter((slot) => (this.#seen.get(slot)?.coolUntil ?? 0) <= now);
    const transfers = [...this.#relieve(lagging, takers), ...this.#even(healthy, takers)];
    const askable = transfers.filter(({ from }) => !this.#asked.has(from));
    for (const transfer of askable) this.#ask(transfer);
  }

  #earn(tokens: number): void {
    this.#tokens = Math.min(this.#tokensMax, this.#tokens + tokens);
  }

  #lagging(serving: LoopSlot[], now: number): LoopSlot[] {
    const all = serving.map((slot) => ({ slot, turn: this.#meanTurn(slot) }));
    const known = all.flatMap(({ turn }) => turn ?? []);
    const long = Math.max(LAG_MS * 1000, LAG_TIMES * Math.min(...known));
    const lagging = all.filter(({ turn }) => turn !== undefined && turn >= long);
    return lagging.map(({ slot }) => {
      (this.#seen.get(slot) as Seen).coolUntil = now + COOLING_MS;
      return slot;
    });
  }

  /** Of the turns since the last look, in microseconds; 0 if it had little to do. */
  #meanTurn(slot: LoopSlot): number | undefined {
    if (!native.inboxTimes(slot.inbox, times)) return undefined;
    const before = this.#seen.get(slot);
    const [alive, idle] = times;
    const seen: Seen = { inbox: slot.inbox, alive, idle, turns: slot.turns, coolUntil: 0 };
    this.#seen.set(slot, seen);
    if (before?.inbox !== slot.inbox) return undefined;
    seen.coolUntil = before.coolUntil;
    const turns = slot.turns - before.turns;
    const time = alive - before.alive;
    const busy = time - (idle - before.idle);
    if (turns > 0) return busy < time * LAG_BUSY ? 0 : busy / turns;
    // Its only turn is not over yet.
    return slot.blocked ? undefined : 0;
  }

  #relieve(lagging: LoopSlot[], takers: LoopSlot[]): Transfer[] {
    if (takers.length === 0) return [];
    const total = takers.reduce((sum, slot) => sum + slot.load, 0);
    const keeps = Math.ceil((total / takers.length) * LAG_LOAD);
    const transfers: Transfer[] = [];
    for (const from of lagging) {
      const extra = from.load - keeps;
      if (extra < DIFFERENCE_MIN) continue;
      // To the one that has the fewest, and at the next look perhaps to another.
      const to = takers.reduce((least, slot) => (slot.load < least.load ? slot : least));
      transfers.push({ from, to, count: Math.ceil(extra / (takers.length + 1)) });
    }
    return transfers;
  }

  #even(healthy: LoopSlot[], takers: LoopSlot[]): Transfer[] {
    if (healthy.length < 2) return [];
    const mean = healthy.reduce((sum, slot) => sum + slot.load, 0) / healthy.length;
    const above = Math.max(...healthy.map((slot) => slot.load)) - mean;
    const share = this.#options.hysteresis / (this.#evening ? SETTLED_SHARE : 1);
    const least = this.#evening ? 1 : DIFFERENCE_MIN;
    this.#evening = above >= least && above > mean * share;
    if (!this.#evening) return [];
    return evenOut(healthy).filter(({ to }) => takers.includes(to));
  }

  #ask({ from, to, count }: Transfer): void {
    const allowed = Math.min(count, Math.floor(this.#tokens));
    if (allowed === 0) return;
    this.#tokens -= allowed;
    this.#asked.set(from, (this.#asked.get(from) ?? 0) + 1);
    this.#host
      .shed({ from, to, count: allowed }, REST_MS)
      // It died, or has no room for the question.
      .catch(() => 0)
      .then((moved) => {
        const left = (this.#asked.get(from) ?? 0) - 1;
        if (left > 0) this.#asked.set(from, left);
        else this.#asked.delete(from);
        this.#earn(allowed - moved);
      });
  }
}
