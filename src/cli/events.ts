// What a running server tells on stderr: loops that go down and come back, errors in the worker's
// hooks, connections that were refused. A flood of them is counted instead of printed.

import { formatWithOptions } from 'node:util';
import type { LoopGroup, LoopHandle, ReloadReport } from '../index.js';
import { codeOf, describe } from './failure.js';
import { complain, count, note } from './terminal.js';

const LINES_PER_SECOND_MAX = 10;
const WINDOW_MS = 1_000;

/** Prints at most so many lines a second, then one that says how much was left out. */
export class Throttle {
  readonly #max: number;
  readonly #leftOut: (amount: number) => string;
  readonly #print: (line: string) => void;
  #printed = 0;
  #held = 0;
  #window: NodeJS.Timeout | undefined;

  constructor(max: number, leftOut: (amount: number) => string, print = complain) {
    this.#max = max;
    this.#leftOut = leftOut;
    this.#print = print;
  }

  /** `amount` is what the line counts for when it is left out. */
  say(line: () => string, amount = 1): void {
    this.#window ??= setTimeout(() => this.flush(), WINDOW_MS).unref();
    if (this.#printed >= this.#max) {
      this.#held += amount;
      return;
    }
    this.#printed++;
    this.#print(line());
  }

  /** Tells what was left out, and begins anew. */
  flush(): void {
    clearTimeout(this.#window);
    this.#window = undefined;
    if (this.#held > 0) this.#print(this.#leftOut(this.#held));
    this.#printed = this.#held = 0;
  }
}

/** Prints the group's events until it is closed; the answer ends that at once. */
export function tellEvents(group: LoopGroup): () => void {
  const errors = new Throttle(
    LINES_PER_SECOND_MAX,
    (held) => `${count(held, 'more error')} in the worker's hooks within a second`,
  );
  const sheds = new Throttle(1, (held) => `${count(held, 'more connection')} refused`);
  group.on('loop', (loop: LoopHandle, what: 'up' | 'down' | 'restarted', error?: Error) => {
    if (what === 'down') tell(`loop ${loop.id} went down: ${describe(error)}`, error);
    if (what === 'restarted') complain(restarted(loop, error));
  });
  group.on('workerError', (error: Error, connection: number) => {
    const where = connection === 0 ? 'the stop hook' : `connection ${connection}`;
    errors.say(() => `${where}: ${describe(error)}`);
  });
  group.on('shed', (reason: string, amount: number) => {
    sheds.say(() => `${count(amount, 'connection')} refused: ${reason}`, amount);
  });
  group.on('reload', ({ generation, moved, drained, closed, ms }: ReloadReport) => {
    const rest = `${drained} drained, ${closed} closed, in ${ms.toFixed(0)} ms`;
    complain(`generation ${generation} serves: ${count(moved, 'connection')} moved, ${rest}`);
  });
  group.on('reloadFailed', (error: Error) => tell(describe(error), error));
  group.on('error', (error: Error) => {
    // That one ends the group, and is told when it has ended.
    if (codeOf(error) !== 'ERR_LOOP_CRASHING') tell(describe(error), error);
  });
  return () => {
    errors.flush();
    sheds.flush();
  };
}

function restarted({ id, generation }: LoopHandle, reason?: Error): string {
  const what = reason === undefined ? 'is back' : 'was replaced';
  const why = reason === undefined ? '' : `: ${describe(reason)}`;
  return `loop ${id} ${what}, generation ${generation}${why}`;
}

function tell(text: string, error: unknown): void {
  complain(text);
  if (process.env.MULTILOOP_DEBUG === '1') note(formatWithOptions({ colors: false }, error));
}
