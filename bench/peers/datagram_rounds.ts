// What the datagram programs share, datagram_multiloop.ts and datagram_node.ts: their arguments,
// when counting begins, and the output.
//
//   PROGRAM flood MESSAGES BYTES     one way, with so many at most in flight as WINDOW says
//   PROGRAM ping MESSAGES BYTES      there and back, one in flight; a round trip is two messages
//
// Both ends are sockets of one thread, over 127.0.0.1. The output is `message`, the microseconds
// that one takes, and `cpu`, those of the processor, in user and system time together.

/** Less than the smallest receive buffer holds, so that nothing is dropped. */
export const WINDOW = 64;
/** V8 has compiled everything by then. */
const WARMUP = 20_000;

export const mode = process.argv[2];
export const [count, bytes] = process.argv.slice(3).map(Number);
export const payload = Buffer.alloc(bytes, 'multiloop');

export class Rounds {
  readonly #total = count + WARMUP;
  #seen = 0;
  #start = 0;
  #cpu = process.cpuUsage();

  /** How many may still be sent when `sent` are. */
  left(sent: number): number {
    return this.#total - sent;
  }

  /** Counts messages that came; false when they were the last ones. */
  received(messages: number): boolean {
    const before = this.#seen;
    this.#seen += messages;
    if (before < WARMUP && this.#seen >= WARMUP) {
      this.#start = performance.now();
      this.#cpu = process.cpuUsage();
    }
    return this.#seen < this.#total;
  }

  print(): void {
    const took = (performance.now() - this.#start) * 1_000;
    const { user, system } = process.cpuUsage(this.#cpu);
    const counted = count;
    console.log(`message ${(took / counted).toFixed(4)}`);
    console.log(`cpu ${((user + system) / counted).toFixed(4)}`);
  }
}
