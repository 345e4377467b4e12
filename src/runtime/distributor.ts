// Gives connections to the loops that serve: new ones as they are accepted, and those that come
// back because the loop they were for, or were on, has died. Counts those that got none.

import { Delivery, native } from '../native.js';
import { channels } from './channels.js';
import type { Coordinator } from './coordinator.js';
import type { LoopSlot } from './loop_slot.js';
import type { Peeked, PeekSettings } from './peek.js';
import { Peeker, type PeekerHost } from './peeker.js';
import type { Policy } from './policy.js';

/** Connections that wait for a loop to come up; what is accepted beyond is refused. */
const WAITING_MAX = 4_096;

/** How often those that found every inbox full try again. */
const RETRY_MS = 10;

/** A connection that is to be given to a loop, with what it brings along if it was moving. */
export interface Parcel {
  id: number;
  bytes?: Buffer;
  /** Its loop died, and the bytes are its checkpoint. */
  rescued?: boolean;
  /** What was found in its first bytes, if they are looked at. */
  peeked?: Peeked;
}

/** The group, as its distributor sees it. */
export interface DistributorHost {
  readonly coordinator: Coordinator;
  readonly policy: Policy;
  readonly closing: boolean;
  readonly peek: PeekSettings | undefined;
  /** The loops that new connections go to now. */
  serving(): LoopSlot[];
  /** The thread of this loop is gone, as its inbox says. */
  gone(slot: LoopSlot): void;
  shed(reason: string, count: number): void;
  /** For the reader of a connection's first bytes. */
  context: PeekerHost<Parcel>['context'];
  failed(error: Error): void;
  /** For who traces: it was accepted, and given to a loop for the first time or as a rescue. */
  accepted(connection: number): void;
  given(connection: number, slot: LoopSlot, rescued: boolean): void;
}

export class Distributor {
  accepted = 0;
  refused = 0;
  /** Of those that were moving or rescued: no loop was left for them. */
  lost = 0;
  readonly #host: DistributorHost;
  /** Accepted, or returned by a loop that died, while no loop served. */
  readonly #waiting: Parcel[] = [];
  #retry: NodeJS.Timeout | undefined;
  readonly #peeker: Peeker<Parcel> | undefined;

  constructor(host: DistributorHost) {
    this.#host = host;
    if (host.peek === undefined) return;
    this.#peeker = new Peeker(host.peek, {
      base: host.coordinator.base,
      context: host.context,
      handOut: (parcels) => this.handOut(parcels),
      failed: host.failed,
    });
  }

  /** New connections, by id; the coordinator owns them. */
  acceptedBatch(ids: Float64Array, count: number): void {
    this.accepted += count;
    const fresh: Parcel[] = [];
    for (let i = 0; i < count; i++) fresh.push({ id: ids[i] });
    if (channels.accept.hasSubscribers) for (const { id } of fresh) this.#host.accepted(id);
    this.handOut(this.#peeker?.begin(fresh) ?? fresh);
  }

  /** Told to go away by the coordinator already: they were never a loop's. */
  shed(reason: string, count: number): void {
    this.accepted += count;
    this.refused += count;
    this.#host.shed(reason, count);
  }

  handOut(parcels: Iterable<Parcel>): void {
    const woken: LoopSlot[] = [];
    const candidates = this.#candidates();
    let full = 0;
    let refused = 0;
    for (const parcel of parcels) {
      const slot = this.#give(parcel, candidates) ?? this.#give(parcel, this.#others(candidates));
      if (slot === 'refuse') refused += this.#refuse(parcel);
      else if (slot !== undefined) {
        if (!woken.includes(slot)) woken.push(slot);
      } else if (!this.#wait(parcel)) full += this.#refuse(parcel);
    }
    // One wake-up a loop and batch, however many connections it got.
    for (const slot of woken) native.inboxWake(slot.inbox);
    if (full > 0) this.#host.shed('inboxes full', full);
    if (refused > 0) this.#host.shed('policy', refused);
  }

  /** A loop serves again: those who waited go first. */
  welcome(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.handOut(this.#waiting.splice(0));
  }

  /** Nobody new is waited for any more: those who were are handed out as they are. */
  stopPeeking(): void {
    this.#peeker?.hurry();
  }

  /** The group ends: nobody will serve those who wait. */
  refuseWaiting(): void {
    clearTimeout(this.#retry);
    for (const parcel of this.#peeker?.close() ?? []) this.#refuse(parcel);
    for (const parcel of this.#waiting.splice(0)) this.#refuse(parcel);
  }

  /** Who can serve, by fresh numbers; those who are blocked or late only when all are. */
  #candidates(): LoopSlot[] {
    const serving = this.#host.serving();
    for (const slot of serving) slot.refresh();
    const free = serving.filter((slot) => !slot.blocked);
    if (free.length === 0) return serving;
    const { avoids } = this.#host.policy;
    if (avoids === undefined) return free;
    const ready = free.filter((slot) => !slot.late && !(slot.long && avoids === 'late or long'));
    return ready.length > 0 ? ready : free;
  }

  /** Rather one that is blocked than none. */
  #others(candidates: LoopSlot[]): LoopSlot[] {
    return this.#host.serving().filter((slot) => !candidates.includes(slot));
  }

  #give(parcel: Parcel, candidates: LoopSlot[]): LoopSlot | 'refuse' | undefined {
    if (candidates.length === 0) return undefined;
    if (parcel.peeked === undefined && isNew(parcel)) this.#peeker?.again(parcel);
    const picked = this.#host.policy.pick(parcel.id, candidates, parcel.peeked);
    if (picked === undefined && isNew(parcel)) return 'refuse';
    const tracing = channels.handoff.hasSubscribers || channels.rescue.hasSubscribers;
    for (const slot of picked ?? candidates) {
      const delivery = this.#host.coordinator.give(parcel, slot.inbox);
      if (delivery === Delivery.OK) {
        slot.load++;
        if (tracing && parcel.rescued === true) this.#host.given(parcel.id, slot, true);
        else if (tracing && parcel.bytes === undefined) this.#host.given(parcel.id, slot, false);
        return slot;
      }
      // Its thread is gone and its task will say so in a moment.
      if (delivery === Delivery.GONE) this.#host.gone(slot);
    }
    return undefined;
  }

  /**
   * Without a loop to serve it, a connection waits for the next one that comes up; one that lives
   * already, and is bounded by maxConnections, also for room in an inbox.
   */
  #wait(parcel: Parcel): boolean {
    if (this.#host.closing) return false;
    const isServing = this.#host.serving().length > 0;
    if (isNew(parcel) && (isServing || this.#waiting.length >= WAITING_MAX)) return false;
    this.#waiting.push(parcel);
    if (isServing) this.#retry ??= setTimeout(() => this.welcome(), RETRY_MS);
    return true;
  }

  #refuse(parcel: Parcel): number {
    this.#host.coordinator.refuse(parcel.id);
    if (isNew(parcel)) this.refused++;
    else this.lost++;
    return 1;
  }
}

/** No loop has got to it yet. */
function isNew({ bytes, rescued }: Parcel): boolean {
  return bytes === undefined && rescued !== true;
}
