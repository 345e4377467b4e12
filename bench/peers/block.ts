// A thread that blocks 50 ms in every 200, as one does that computes. It sleeps instead, so that
// what is seen is who waits for it, and not how the kernel shares a core between it and the others.

const BLOCK_MS = 50;
const EVERY_MS = 200;

export function block(): void {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  setInterval(() => Atomics.wait(cell, 0, 0, BLOCK_MS), EVERY_MS);
}
