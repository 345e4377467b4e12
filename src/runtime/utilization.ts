// How busy a loop is of late, from how long it has been there and how long of that it has waited.

/** The answer is about this much time, and at most twice as much if it is asked for often. */
const WINDOW_MICROS = 500_000;

export class Utilization {
  /** Whose numbers these are: a loop that is replaced begins anew. */
  #of = 0;
  // Two moments: the answer is about the time since the earlier one.
  #earlier = { alive: 0, idle: 0 };
  #later = { alive: 0, idle: 0 };

  /** From 0 to 1; both times are microseconds. */
  share(of: number, alive: number, idle: number): number {
    if (of !== this.#of) {
      this.#of = of;
      this.#earlier = this.#later = { alive: 0, idle: 0 };
    }
    if (alive - this.#later.alive >= WINDOW_MICROS) {
      this.#earlier = this.#later;
      this.#later = { alive, idle };
    }
    const time = alive - this.#earlier.alive;
    if (time <= 0) return 0;
    return Math.min(1, Math.max(0, 1 - (idle - this.#earlier.idle) / time));
  }
}
