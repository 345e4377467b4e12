// Whether this thread is a loop's. A worker's file may call serve() too; in a loop that call must
// start nothing. The mark is on globalThis, so that a second copy of the package sees it as well.

const MARK = Symbol.for('multiloop.loop');

interface LoopMark {
  /** serve() was called while the worker's module loads. */
  served(): void;
}
const marked = globalThis as { [MARK]?: LoopMark };

export function markLoopThread(mark: LoopMark): void {
  marked[MARK] = mark;
}

/** The mark of this thread, or undefined outside a loop. */
export function loopThread(): LoopMark | undefined {
  return marked[MARK];
}
