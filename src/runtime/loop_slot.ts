// One loop of a group, over all the threads that serve as it one after another: its state, its
// inbox, and its numbers. The coordinator's side; LoopHandle is what users see of it.

import type { BackendName, WakerName } from '../event/ev.js';
import { native } from '../native.js';
import {
  addHandshakeFailures,
  type HandshakeFailures,
  noHandshakeFailures,
} from '../stream/tls_failures.js';
import type { ConnectionNumbers } from './connection_numbers.js';
import { StatsPage } from './stats_page.js';
import { Utilization } from './utilization.js';

/** blocked: it serves, but its present turn has taken 100 ms already. */
export type LoopState = 'starting' | 'serving' | 'blocked' | 'draining' | 'dead';
/** A turn of so many milliseconds means that the loop is blocked. */
const BLOCKED_MS = 100;
/** A turn of so many is longer than turns are: whoever is given to the loop waits for the rest. */
const LONG_MS = 5;

export interface LoopStats {
  /** Connections given to this loop, now open, and closed by it. */
  accepted: number;
  /** Of those accepted: by this loop itself, where loops accept. */
  acceptedHere: number;
  /** Accepted by this loop and closed at once; not in `accepted`. */
  shed: number;
  open: number;
  served: number;
  /** Of those closed: because its thread died. */
  lost: number;
  /** Live connections that came from other loops, and that went to others. */
  movedIn: number;
  movedOut: number;
  /** Those that others adopted because its thread died. */
  rescued: number;
  /** Messages that wait in the inbox. */
  inbox: number;
  /** Times its inbox had no room. */
  refused: number;
  bytesRead: number;
  bytesWritten: number;
  hookErrors: number;
  /** TLS connections whose handshake has failed; no hook has seen them. */
  handshakesFailed: number;
  /** The same by reason. */
  handshakeFailures: HandshakeFailures;
  /** Messages published on this loop; written to its subscribers, and missed by slow ones. */
  published: number;
  delivered: number;
  missed: number;
  /** Wake-ups written to the waker, and those that were not needed because it was awake. */
  wakesSent: number;
  wakesSaved: number;
  turns: number;
  /** How long a message would have to wait: the mean turn, or the present one if that is longer. */
  lagMs: number;
  longestStallMs: number;
  /**
   * Half of the handoffs, and 99 of 100, took at most so many microseconds, from the coordinator's
   * push to the open hook, to one part in eight; of the last tens of thousands to its present
   * thread. 0: there was none.
   */
  handoffP50Us: number;
  handoffP99Us: number;
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
  /**
   * The share of time in which it did not wait, from 0 to 1: over about the last second, or since
   * the last call if that is longer ago. From shared memory, so also while it is blocked.
   */
  utilization(): number;
  /**
   * Ends the loop's thread at once; the group starts another in its place. Resolves when the thread
   * has ended, or did not within killMs and is lost.
   */
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
const MOVED_IN = 8;
const MOVED_OUT = 9;
const RESCUED = 10;
const TURNS = 11;
const BUSY = 12;
const TURN_MEAN = 13;
const TURN_LONGEST = 14;
/** What adds up over the inboxes of a loop's threads: up to here. */
const SUMS_END = BUSY;

const counters = new Float64Array(15);
// What inboxTimes writes: alive, idle, and the percentiles of handoffs.
const times = new Float64Array(4);
// What inboxAccepts writes.
const accepts = new Float64Array(2);

/** What goes on adding up when another slot takes over a loop. */
const CARRIED = [
  'accepted',
  'acceptedHere',
  'shed',
  'open',
  'served',
  'lost',
  'movedIn',
  'movedOut',
  'rescued',
  'inbox',
  'refused',
  'bytesRead',
  'bytesWritten',
  'hookErrors',
  'handshakesFailed',
  'published',
  'delivered',
  'missed',
  'wakesSent',
  'wakesSaved',
  'turns',
] as const;
type Carried = Pick<LoopStats, (typeof CARRIED)[number] | 'handshakeFailures'>;

function addUp(part: Carried, to: Carried): void {
  for (const key of CARRIED) to[key] += part[key];
  addHandshakeFailures(part.handshakeFailures, to.handshakeFailures);
}
function nothingCarried(): Carried {
  const none = Object.fromEntries(CARRIED.map((key) => [key, 0]));
  return { ...none, handshakeFailures: noHandshakeFailures() } as Carried;
}

export class LoopSlot implements LoopHandle {
  readonly id: number;
  readonly page = new StatsPage();
  waker: WakerName;
  backend: BackendName;
  generation = 0;
  threadId = -1;
  /** What the group knows of its life; whether it is blocked, `state` finds out. */
  phase: Exclude<LoopState, 'blocked'> = 'starting';
  /** As of refresh(), and what was assigned since. */
  load = 0;
  lag = 0;
  /** 0 while there is none. */
  inbox = 0;
  turns = 0;
  /** By inbox: what its thread says of its connections, kept until the inbox is settled. */
  readonly numbers = new Map<number, ConnectionNumbers>();
  // Of threads that died and have not said yet what became of their descriptors.
  readonly #retiring: number[] = [];
  // Of those, the inboxes of threads that were given up for lost.
  readonly #abandoned = new Set<number>();
  /** When its last threads died, for the restart limit; performance.now(). */
  deaths: number[] = [];
  /** When it was replaced because its heap was full, for the same limit. */
  replaced: number[] = [];
  /** Why its thread was ended, when it was not the thread itself that ended. */
  verdict: Error | undefined;
  // Slots that had this loop before and have connections yet; and what those had that have none.
  readonly #before: LoopSlot[] = [];
  readonly #carried = nothingCarried();
  readonly #terminate: () => Promise<void>;
  // Of the inboxes that are gone.
  readonly #past = new Float64Array(15);
  readonly #pastAccepts = new Float64Array(2);

  constructor(id: number, backend: BackendName, waker: WakerName, terminate: () => Promise<void>) {
    this.id = id;
    this.backend = backend;
    this.waker = waker;
    this.#terminate = terminate;
  }

  get state(): LoopState {
    if (this.phase !== 'serving') return this.phase;
    this.refresh();
    return this.blocked ? 'blocked' : 'serving';
  }
  readonly #utilization = new Utilization();
  utilization(): number {
    if (!native.inboxTimes(this.inbox, times)) return 0;
    return this.#utilization.share(this.inbox, times[0], times[1]);
  }

  get blocked(): boolean {
    return this.lag >= BLOCKED_MS && this.#busy;
  }
  #busy = false;
  /** As of refresh(): how long its present turn has taken, and the number of that turn. */
  busyMs = 0;
  turn = 0;
  /**
   * What it was given before waits for its present turn, which is long already. Of a turn that
   * blocks a loop no more than one connection has to wait.
   */
  late = false;
  /** Its present turn is long, whether somebody waits for the end of it or not. */
  long = false;

  /** Looks at the loop's numbers anew. */
  refresh(): void {
    if (!native.inboxStats(this.inbox, counters)) return;
    const busy = counters[BUSY] / 1000;
    this.busyMs = busy;
    this.turn = counters[TURNS];
    this.#busy = busy >= BLOCKED_MS;
    this.long = busy >= LONG_MS;
    this.late = this.long && counters[DEPTH] > 0;
    this.lag = Math.max(busy, counters[TURN_MEAN] / 1000);
    this.turns = counters[TURNS];
    this.load = counters[OPENED] - counters[CLOSED] - counters[MOVED_OUT] + counters[DEPTH];
  }

  terminate(): Promise<void> {
    return this.#terminate();
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

  /** Its thread was given up for lost, and with it what it has open. */
  abandon(inbox: number): void {
    if (this.hasInbox(inbox)) this.#abandoned.add(inbox);
  }
  isAbandoned(inbox: number): boolean {
    return this.#abandoned.has(inbox);
  }

  /** It takes over the loop that `before` had, and its numbers with it. */
  follow(before: LoopSlot): void {
    this.#before.push(before);
    this.deaths = before.deaths;
    this.replaced = before.replaced;
  }

  /** Adds up what an inbox counted, before it is freed. */
  settleInbox(inbox: number): void {
    this.#addUp(inbox, this.#past);
    this.numbers.delete(inbox);
    addAccepts(this.#pastAccepts, inbox);
    this.#abandoned.delete(inbox);
    if (this.inbox === inbox) this.inbox = 0;
    else this.#retiring.splice(this.#retiring.indexOf(inbox), 1);
  }

  #addUp(inbox: number, totals: Float64Array): boolean {
    if (!native.inboxStats(inbox, counters)) return false;
    if (this.#abandoned.has(inbox)) {
      // Whether its thread comes back to close them or not.
      const open = counters[OPENED] - counters[CLOSED] - counters[MOVED_OUT];
      counters[CLOSED] += open;
      counters[LOST] += open;
    }
    for (let i = OPENED; i < SUMS_END; i++) totals[i] += counters[i];
    return true;
  }

  #withThoseBefore(own: LoopStats): LoopStats {
    for (const slot of [...this.#before]) {
      const { stats } = slot;
      addUp(stats, own);
      if (slot.inboxes.length > 0 || slot.#before.length > 0) continue;
      // Nothing of it changes any more.
      addUp(stats, this.#carried);
      this.#before.splice(this.#before.indexOf(slot), 1);
    }
    return own;
  }

  get stats(): LoopStats {
    const totals = this.#past.slice();
    let waiting = 0;
    let [lag, longest] = [0, 0];
    let [p50, p99] = [0, 0];
    for (const inbox of this.inboxes) {
      if (!this.#addUp(inbox, totals) || this.#abandoned.has(inbox)) continue;
      waiting += counters[DEPTH];
      lag = Math.max(counters[BUSY], counters[TURN_MEAN]) / 1000;
      longest = Math.max(counters[BUSY], counters[TURN_LONGEST]) / 1000;
    }
    if (native.inboxTimes(this.inbox, times)) [, , p50, p99] = times;
    // After what was closed, or a connection could seem to be closed and not accepted.
    const here = this.#pastAccepts.slice();
    for (const inbox of this.inboxes) addAccepts(here, inbox);
    const total = (index: number) => totals[index];
    const { bytesRead, bytesWritten, hookErrors, handshakesFailed, handshakeFailures } = this.page;
    const { published, delivered, missed } = this.page;
    const own = {
      accepted: total(OPENED) - total(MOVED_IN),
      acceptedHere: here[0],
      shed: here[1],
      open: total(OPENED) - total(CLOSED) - total(MOVED_OUT),
      served: total(CLOSED) - total(LOST),
      lost: total(LOST),
      movedIn: total(MOVED_IN),
      movedOut: total(MOVED_OUT) - total(RESCUED),
      rescued: total(RESCUED),
      inbox: waiting,
      refused: total(REFUSED),
      bytesRead,
      bytesWritten,
      hookErrors,
      handshakesFailed,
      handshakeFailures,
      published,
      delivered,
      missed,
      wakesSent: total(WAKES_SENT),
      wakesSaved: total(WAKES_SAVED),
      turns: total(TURNS),
      lagMs: lag,
      longestStallMs: longest,
      handoffP50Us: p50,
      handoffP99Us: p99,
    };
    addUp(this.#carried, own);
    return this.#withThoseBefore(own);
  }
}

function addAccepts(to: Float64Array, inbox: number): void {
  if (!native.inboxAccepts(inbox, accepts)) return;
  to[0] += accepts[0];
  to[1] += accepts[1];
}
