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
  // Of threads that died and have not said yet what became of their descriptors.
  readonly #retiring: number[] = [];
  /** When its last threads died, for the restart limit; performance.now(). */
  deaths: number[] = [];
  readonly #terminate: (threadId: number) => Promise<void>;
  // Of the inboxes that are gone.
  readonly #past = new Float64Array(8);

  constructor(
    id: number,
    backend: BackendName,
    waker: WakerName,
    terminate: (threadId: number) => Promise<void>,
  ) {
    this.id = id;
    this.backend = backend;
    this.waker = waker;
    this.#terminate = terminate;
  }

  terminate(): Promise<void> {
    return this.#terminate(this.threadId);
  }

  /** Its thread died. What it counted stays in the numbers until the inbox is settled. */
  retireInbox(): void {
    if (this.inbox !== 0) this.#retiring.push(this.inbox);
    this.inbox = 0;
  }

  /** Whether `inbox` is this loop's, its present one or that of a thread that died. */
  hasInbox(inbox: number): boolean {
    return this.inbox === inbox || this.#retiring.includes(inbox);
  }

  get inboxes(): number[] {
    return this.inbox === 0 ? [...this.#retiring] : [...this.#retiring, this.inbox];
  }

  /** Adds up what an inbox counted, before it is freed. */
  settleInbox(inbox: number): void {
    if (native.inboxStats(inbox, counters))
      for (let i = OPENED; i < counters.length; i++) this.#past[i] += counters[i];
    if (this.inbox === inbox) this.inbox = 0;
    else this.#retiring.splice(this.#retiring.indexOf(inbox), 1);
  }

  get stats(): LoopStats {
    const totals = this.#past.slice();
    let waiting = 0;
    for (const inbox of this.inboxes) {
      if (!native.inboxStats(inbox, counters)) continue;
      for (let i = OPENED; i < counters.length; i++) totals[i] += counters[i];
      waiting += counters[DEPTH];
    }
    const total = (index: number) => totals[index];
    const { bytesRead, bytesWritten, hookErrors } = this.page;
    return {
      accepted: total(OPENED),
      open: total(OPENED) - total(CLOSED),
      served: total(CLOSED) - total(LOST),
      lost: total(LOST),
      inbox: waiting,
      refused: total(REFUSED),
      bytesRead,
      bytesWritten,
      hookErrors,
      wakesSent: total(WAKES_SENT),
      wakesSaved: total(WAKES_SAVED),
    };
  }
}
