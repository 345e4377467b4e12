// What the tests of streams share: a stream's handlers that write down all they are told.

import {
  type BevEvent,
  type BevHandlers,
  BufferEvent,
  Ev,
  type EventBase,
} from '../../src/index.js';
import type { Trial } from '../event/conformance.js';

export class Tape implements BevHandlers {
  readonly told: string[] = [];
  text = '';
  read(bev: BufferEvent): void {
    const text = textOf(bev);
    this.text += text;
    this.told.push(`read ${text}`);
  }
  write(_bev: BufferEvent): void {
    this.told.push('write');
  }
  event(_bev: BufferEvent, event: BevEvent): void {
    this.told.push(eventText(event));
  }
}

/** Takes all that there is. */
export function textOf(bev: BufferEvent): string {
  return Buffer.from(bev.input.remove(bev.input.length)).toString('latin1');
}

export function eventText({ direction, ...event }: BevEvent): string {
  const what = Object.entries(event).map(([name, value]) =>
    value instanceof Error ? ((value as NodeJS.ErrnoException).code ?? value.message) : name,
  );
  return [...what, ...(direction === undefined ? [] : [direction])].join(' ');
}

/** Two streams whose far end is a tape that reads. */
export interface Ends {
  base: EventBase;
  near: BufferEvent;
  far: BufferEvent;
  tape: Tape;
}

export function pairOf(trial: Trial): Ends {
  const base = trial.base();
  const [near, far] = BufferEvent.pair(base);
  return listening(base, near, far);
}

/** The same over a socket pair, which the streams close. */
export function socketsOf(trial: Trial): Ends {
  const base = trial.base();
  const [a, b] = trial.pair();
  trial.disown(a);
  trial.disown(b);
  return listening(base, BufferEvent.socket(base, a), BufferEvent.socket(base, b));
}

function listening(base: EventBase, near: BufferEvent, far: BufferEvent): Ends {
  const tape = new Tape();
  far.handlers = tape;
  far.enable(Ev.READ);
  return { base, near, far, tape };
}
