// The numbers of one loop that TypeScript counts, in shared memory: written by the loop, readable
// by any thread at any time, also while the loop is blocked. Doubles, written whole.

import type { LoopCounters } from './connection.js';

const BYTES_READ = 0;
const BYTES_WRITTEN = 1;
const HOOK_ERRORS = 2;
const HANDSHAKES_FAILED = 3;
const FIELDS = 8;

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
  addHandshakeFailed(): void {
    this.#fields[HANDSHAKES_FAILED]++;
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
}
