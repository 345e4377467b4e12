// What the tests of signals share: which ones may reach the process that runs them, and raising
// them so that nothing has to be waited for.

import { LoopFlag } from '../../src/event/ev.js';
import { EventBase } from '../../src/event/event_base.js';
import { PATIENCE_MS } from './support.js';

/** One that the kernel ignores when nobody waits for it, whatever a test forgets. */
export const HARMLESS = 28;
export const HARMLESS_NAME = 'SIGWINCH';
/** Real-time signals: the kernel queues each one. Their default action ends the process. */
export const REAL = 40;
export const OTHER_REAL = 41;

/**
 * Raises `signal` so often, and returns when every base of the process that waits for it was told.
 * The callbacks of this thread's other bases do not run meanwhile.
 */
export function raise(signal: number, times = 1): void {
  const witness = new EventBase();
  let heard = 0;
  // Whoever asked last is told last.
  witness.signal(signal, () => heard++).add();
  witness
    .timer(() => {
      throw new Error(`${heard} of ${times} signals came within ${PATIENCE_MS} ms`);
    })
    .add(PATIENCE_MS);
  // On the main thread the handler runs before kill() returns, so that the kernel never has two
  // that it could make one.
  for (let i = 0; i < times; i++) process.kill(process.pid, signal);
  while (heard < times) witness.loopSync(LoopFlag.ONCE);
  witness.close();
}
