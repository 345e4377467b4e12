// The listening sockets that a loop accepts from, in the modes where loops accept. They are the
// coordinator's, which passes them to a loop that serves; a loop gives them back before it stops,
// and if its thread dies its release does.

import { constants } from 'node:os';
import type { EventBase } from '../event/event_base.js';
import { Delivery, native } from '../native.js';
import { ListeningSocket } from '../stream/listening_socket.js';
import { flatten, type ToCoordinator, type ToLoop } from './control.js';
import { type LedgerOwner, LedgerSource } from './ledger_source.js';

/**
 * Where one socket is in every loop's base, the kernel wakes the one that has waited longest, if it
 * sleeps; else the next. After so many batches a loop lets the others have their turn.
 */
const BATCHES_IN_TURN = 1;

/** Accepted before a drain, at most; the kernel's queue is shorter. */
const WAITING_MAX = 65_536;

const { ESTALE } = constants.errno;

export interface LoopListenersHost {
  readonly base: EventBase;
  readonly inbox: number;
  readonly coordinator: number;
  /** A connection, which this loop owns. */
  accepted(id: number): void;
  report(message: ToCoordinator): void;
}

class LoopListener extends ListeningSocket {
  readonly #source: LedgerSource;
  readonly #host: LoopListenersHost;
  readonly #shared: boolean;
  /** The last place is for those that were refused. */
  readonly #ids: Float64Array;
  #batches = 0;

  constructor(source: LedgerSource, host: LoopListenersHost, batch: number, shared: boolean) {
    super(host.base, () => source, shared);
    this.#source = source;
    this.#host = host;
    this.#shared = shared;
    this.#ids = new Float64Array(batch + 1);
  }

  protected acceptBatch(): number {
    const ids = this.#ids;
    const count = this.#source.accept(true, ids);
    if (count === -ESTALE) this.close();
    if (count < 0) return count;
    const refused = ids[ids.length - 1];
    for (let i = 0; i < count; i++) this.#host.accepted(ids[i]);
    if (refused > 0)
      this.#host.report({ type: 'turnedAway', reason: 'maxConnections', count: refused });
    if (this.#shared && ++this.#batches % BATCHES_IN_TURN === 0) this.stepBack();
    return count;
  }

  /** Those whom the kernel has connected already: closing the socket would reset them. */
  acceptWaiting(): void {
    if (!this.accepting) return;
    let count = 1;
    for (let left = WAITING_MAX; left > 0 && count > 0; left -= count) count = this.acceptBatch();
  }

  protected failed(error: Error): void {
    this.#host.report({ type: 'acceptFailed', error: flatten(error) });
  }

  protected refusedSome(count: number): void {
    native.inboxShed(this.#host.inbox, count);
    this.#host.report({ type: 'turnedAway', reason: 'out of descriptors', count });
  }
}

export class LoopListeners implements LedgerOwner {
  readonly inbox: number;
  readonly #host: LoopListenersHost;
  readonly #listeners = new Set<LoopListener>();
  #over = false;

  constructor(host: LoopListenersHost) {
    this.#host = host;
    this.inbox = host.inbox;
  }

  /** The coordinator has passed a socket to this loop. */
  listen({ socket, batch, shared }: ToLoop & { type: 'listen' }): void {
    const source = new LedgerSource(socket, this);
    if (this.#over) {
      source.release();
      this.#host.report({ type: 'notListening' });
      return;
    }
    try {
      this.#listeners.add(new LoopListener(source, this.#host, batch, shared));
    } catch (error) {
      // The kernel would not watch it, and it was let go.
      this.#host.report({ type: 'notListening', socket, error: flatten(error) });
    }
  }

  /** Before a drain. */
  acceptWaiting(): void {
    for (const listener of this.#listeners) listener.acceptWaiting();
  }

  /** Accepts no more, for good. */
  giveBack(): void {
    this.#over = true;
    if (this.#listeners.size === 0) return;
    for (const listener of this.#listeners) listener.close();
    this.#listeners.clear();
    this.#host.report({ type: 'notListening' });
  }

  letGo(socket: number): void {
    const { base, inbox, coordinator } = this.#host;
    // Out of this base's kernel set before another thread has it.
    native.fdForget(base._id, socket % 2 ** 20);
    if (native.ledgerPass(socket, inbox, coordinator) !== Delivery.OK)
      native.ledgerUnlisten(socket, inbox);
  }
}
