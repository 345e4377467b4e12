// The numbers of one loop that TypeScript counts, in shared memory: written by the loop, readable
// by any thread at any time, also while the loop is blocked. Doubles, written whole.

import {
  HANDSHAKE_FAILURES,
  type HandshakeFailure,
  type HandshakeFailures,
} from '../stream/tls_failures.js';
import type { LoopCounters } from './connection_host.js';

const BYTES_READ = 0;
const BYTES_WRITTEN = 1;
const HOOK_ERRORS = 2;
const HANDSHAKES_FAILED = 3;
const PUBLISHED = 4;
const DELIVERED = 5;
const MISSED = 6;
/** From here on, in the order of HANDSHAKE_FAILURES. */
const HANDSHAKE_REASONS = 7;
const FIELDS = HANDSHAKE_REASONS + HANDSHAKE_FAILURES.length;

export class StatsPage implements LoopCounters {
  readonly memory: SharedArrayBuffer;
  readonly #fields: Float64Array;

  constructor(memory = new SharedArrayBuffer(FIELDS * 8)) {
    this.memory = memory;
    this.#fields = new Float64Array(memory);
  }

  addRead(bytes: number): void {
    this.#fields[BYTES_READ] += bytes;
  }
  addWritten(bytes: number): void {
    this.#fields[BYTES_WRITTEN] += bytes;
  }
  addHookError(): void {
    this.#fields[HOOK_ERRORS]++;
  }
  addHandshakeFailed(reason: HandshakeFailure): void {
    this.#fields[HANDSHAKES_FAILED]++;
    this.#fields[HANDSHAKE_REASONS + HANDSHAKE_FAILURES.indexOf(reason)]++;
  }
  addPublished(published: number, delivered: number, missed: number): void {
    this.#fields[PUBLISHED] += published;
    this.#fields[DELIVERED] += delivered;
    this.#fields[MISSED] += missed;
  }

  get published(): number {
    return this.#fields[PUBLISHED];
  }
  get delivered(): number {
    return this.#fields[DELIVERED];
  }
  get missed(): number {
    return this.#fields[MISSED];
  }
  get bytesRead(): number {
    return this.#fields[BYTES_READ];
  }
  get bytesWritten(): number {
    return this.#fields[BYTES_WRITTEN];
  }
  get hookErrors(): number {
    return this.#fields[HOOK_ERRORS];
  }
  get handshakesFailed(): number {
    return this.#fields[HANDSHAKES_FAILED];
  }
  get handshakeFailures(): HandshakeFailures {
    const count = (at: number) => this.#fields[HANDSHAKE_REASONS + at];
    return Object.fromEntries(
      HANDSHAKE_FAILURES.map((reason, at) => [reason, count(at)]),
    ) as HandshakeFailures;
  }
}
