// The numbers of a loop's connections, by descriptor, in shared memory: written by the loop as it
// reads and writes, readable by any thread at any time, also while the loop is blocked. Memory of
// its own for each loop, or neighbouring descriptors on different loops would share cache lines.
//
// Sized for every descriptor there may be and touched only where there is one: the kernel gives
// memory to pages that were written to (mmap(2), MAP_ANONYMOUS).

/** Descriptors that the ledger has room for (native/core/ledger.cc, kFdsMax). */
const DESCRIPTORS_MAX = 2 ** 20;

export interface NumbersMemory {
  /** A byte for each descriptor: whether its connection is at a boundary. */
  boundaries: SharedArrayBuffer;
  /** Two doubles for each: bytes read, bytes written. */
  traffic: SharedArrayBuffer;
}

export class ConnectionNumbers {
  readonly boundaries: Uint8Array;
  readonly traffic: Float64Array;
  readonly memory: NumbersMemory;

  constructor(memory?: NumbersMemory) {
    this.memory = memory ?? {
      boundaries: new SharedArrayBuffer(DESCRIPTORS_MAX),
      traffic: new SharedArrayBuffer(DESCRIPTORS_MAX * 2 * Float64Array.BYTES_PER_ELEMENT),
    };
    this.boundaries = new Uint8Array(this.memory.boundaries);
    this.traffic = new Float64Array(this.memory.traffic);
  }
}
