// One loop of a group, over all the threads that serve as it one after another: its state, its
// inbox, and its numbers. The coordinator's side; LoopHandle is what users see of it.

import type { BackendName, WakerName } from '../event/ev.js';
import { native } from '../native.js';
import { StatsPage } from './stats_page.js';

export type LoopState = 'starting' | 'serving' | 'draining' | 'dead';

export interface LoopStats {
  /** Connections given to this loop, now open, and closed by it. */
  accepted: number;
  open: number;
  served: number;
  /** Of those closed: because its thread died. */
  lost: number;
  /** Messages that wait in the inbox. */
  inbox: number;
  /** Times its inbox had no room. */
  refused: number;
  bytesRead: number;
  bytesWritten: number;
  hookErrors: number;
  /** Wake-ups written to the waker, and those that were not needed because it was awake. */
  wakesSent: number;
  wakesSaved: number;
}

export interface LoopHandle {
  readonly id: number;
  /** How often its thread was replaced. */
  readonly generation: number;
  readonly threadId: number;
  readonly backend: BackendName;
  readonly waker: WakerName;
  readonly state: LoopState;
  readonly stats: LoopStats;
  /** Ends the loop's thread at once; the group starts another in its place. */
  terminate(): Promise<void>;
}

// What inboxStats writes, in this order.
const DEPTH = 0;
const OPENED = 2;
const CLOSED = 3;
const LOST = 4;
const WAKES_SENT = 5;
const WAKES_SAVED = 6;
const REFUSED = 7;

const counters = new Float64Array(8);

export class LoopSlot implements LoopHandle {
  readonly id: number;
  readonly page = new StatsPage();
  waker: WakerName;
  backend: BackendName;
  generation = 0;
  threadId = -1;
  state: LoopState = 'starting';
  /** 0 while there is none. */
  inbox = 0;
  /** When its last threads died, for the restart limit; performance.now(). */
  deaths: number[] = [];
  readonly #terminate: (slot: LoopSlot) => Promise<void>;
  // Of the inboxes that are gone.
  readonly #past = new Float64Array(8);

  constructor(
    id: number,
    backend: BackendName,
    waker: WakerName,
    terminate: (slot: LoopSlot) => Promise<void>,
  ) {
    this.id = id;
    this.backend = backend;
    this.waker = waker;
    this.#terminate = terminate;
  }

  terminate(): Promise<void> {
    return this.#terminate(this);
  }

  /** Adds up what the inbox counted, before it is freed. */
  settleInbox(): void {
    if (this.inbox === 0 || !native.inboxStats(this.inbox, counters)) return;
    for (let i = OPENED; i < counters.length; i++) this.#past[i] += counters[i];
  }

  get stats(): LoopStats {
    counters.fill(0);
    if (this.inbox !== 0) native.inboxStats(this.inbox, counters);
    const total = (index: number) => counters[index] + this.#past[index];
    const { bytesRead, bytesWritten, hookErrors } = this.page;
    return {
      accepted: total(OPENED),
      open: total(OPENED) - total(CLOSED),
      served: total(CLOSED) - total(LOST),
      lost: total(LOST),
      inbox: counters[DEPTH],
      refused: total(REFUSED),
      bytesRead,
      bytesWritten,
      hookErrors,
      wakesSent: total(WAKES_SENT),
      wakesSaved: total(WAKES_SAVED),
    };
  }
}
