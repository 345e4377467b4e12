// What the tests of streams share: a base that is run until something is so, and what a stream was
// told, in order.

import * as assert from 'uvu/assert';
import {
  type BevEvent,
  type BevHandlers,
  type BevOptions,
  BufferEvent,
  Ev,
  type EventBase,
  LoopFlag,
} from '../../src/index.js';
import type { Trial } from '../event/conformance.js';

/** Passes after which something that still is not so never will be. */
const PASSES_MAX = 100_000;

/** Runs the base until `done()`, a pass at a time. */
export async function until(trial: Trial, base: EventBase, done: () => boolean): Promise<void> {
  for (let i = 0; i < PASSES_MAX && !done(); i++) await trial.run(base, LoopFlag.ONCE);
  assert.ok(done(), 'it never came to be');
}

/** Passes without waiting: whatever is due runs. */
export async function passes(trial: Trial, base: EventBase, count = 3): Promise<void> {
  for (let i = 0; i < count; i++) await trial.run(base, LoopFlag.NONBLOCK | LoopFlag.ONCE);
}

/** Handlers that write down what they were told; `text` is all input, taken as it comes. */
export class Log implements BevHandlers {
  readonly lines: string[] = [];
  readonly errors: Error[] = [];
  text = '';
  read(bev: BufferEvent): void {
    this.lines.push('read');
    this.text += Buffer.from(bev.input.remove(bev.input.length)).toString('latin1');
  }
  event(_bev: BufferEvent, event: BevEvent): void {
    const { direction, error, ...what } = event;
    const code = (error as NodeJS.ErrnoException | undefined)?.code;
    this.lines.push([direction, ...Object.keys(what), code].filter(Boolean).join(' '));
    if (error !== undefined) this.errors.push(error);
  }
}

/** As a Log, that also writes down when the output has drained. */
export class WriteLog extends Log {
  write(): void {
    this.lines.push('write');
  }
}

/** A stream that reads, over one end of a pair of sockets; the other end is the test's. */
export function streamOf(
  trial: Trial,
  base: EventBase,
  handlers: BevHandlers,
  options: BevOptions = {},
): { bev: ReturnType<typeof BufferEvent.socket>; other: number } {
  const [fd, other] = trial.pair();
  trial.disown(fd);
  const bev = BufferEvent.socket(base, fd, { handlers, ...options });
  bev.enable(Ev.READ);
  return { bev, other };
}
