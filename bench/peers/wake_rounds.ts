// What the wake programs in JavaScript share, wake_multiloop.ts and wake_node.ts: what is counted,
// and the output of wake_libevent.c, which says what it is.

/** V8 has compiled both directions by then; on one core it does so at the cost of the pings. */
const WARMUP_ROUNDS = 10_000;

/** The process's clock, which its threads share, in microseconds. */
const micros = (): number => Number(process.hrtime.bigint()) / 1e3;

/** Times half the round trips of a ping. */
export class Pings {
  readonly #total: number;
  readonly #roundTrips: Float64Array;
  #seen = 0;
  #start = 0;

  constructor(total: number) {
    this.#total = total;
    this.#roundTrips = new Float64Array(total);
  }

  sent(): void {
    this.#start = performance.now();
  }

  /** False when it was the last one. */
  answered(): boolean {
    const round = this.#seen++ - WARMUP_ROUNDS;
    if (round >= 0) this.#roundTrips[round] = (performance.now() - this.#start) * 1_000;
    return round + 1 < this.#total;
  }

  print(): void {
    const total = this.#total;
    const sum = this.#roundTrips.reduce((a, b) => a + b);
    this.#roundTrips.sort();
    console.log(`p50 ${(this.#roundTrips[total >> 1] / 2).toFixed(3)}`);
    console.log(`p99 ${(this.#roundTrips[Math.floor(total * 0.99)] / 2).toFixed(3)}`);
    console.log(`mean ${(sum / total / 2).toFixed(3)}`);
  }
}

/** Times a flood from the post of its first message that counts to the receipt of the last. */
export class Flood {
  readonly #total: number;
  readonly #uncounted: number;
  #seen = 0;
  #start = 0;

  constructor(total: number) {
    this.#total = total;
    // The first tenth finds threads that are still starting; it does not count.
    this.#uncounted = Math.floor(total / 10);
  }

  /** What message number `i` carries: the first that counts the time, the others nothing. */
  payload(i: number): number {
    return i === this.#uncounted ? micros() : 0;
  }

  /** False when it was the last one. */
  received(payload: number): boolean {
    if (this.#seen++ === this.#uncounted) this.#start = payload;
    return this.#seen < this.#total;
  }

  print(): void {
    const each = (micros() - this.#start) / (this.#total - this.#uncounted);
    console.log(`message ${each.toFixed(4)}`);
  }
}
