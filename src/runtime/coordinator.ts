// The coordinator: what listens, accepts and hands descriptors to loops. One a thread, shared by
// the groups of that thread and counted; its base is driven by libuv, beside everything else that
// the thread does. Where only poll and select exist, which libuv cannot wait for, the base drives
// the thread, and can only if no other base does: ERR_DRIVE_TAKEN otherwise.

import { systemError } from '../errors.js';
import { driveTaken } from '../event/backends.js';
import { EventBase } from '../event/event_base.js';
import { MessageKind } from '../event/page.js';
import { chooseWaker } from '../event/wakers.js';
import { native } from '../native.js';
import { ListeningSocket, type ListenOptions } from '../stream/listening_socket.js';
import { decode, type ToCoordinator } from './control.js';
import { LedgerSource } from './ledger_source.js';

/** Messages from loops that may wait: reports, and descriptors of loops that died. */
const INBOX_MESSAGES = 16_384;
/** Turns in which 64 messages each are read (native/core/page.h): all that the inbox holds. */
const DRAIN_TURNS_MAX = 2 * (INBOX_MESSAGES / 64);

/** Accepted before a listening socket closes for a drain, at most; its queue is shorter. */
const WAITING_MAX = 65_536;

/** A connection, with its baggage if it was moving or its checkpoint if it was rescued. */
interface Given {
  id: number;
  bytes?: Buffer;
  rescued?: boolean;
}

const NO_BYTES = new Uint8Array(0);

/** A group, as its coordinator sees it. */
export interface Sink {
  /** Accepted connections, by id; the coordinator owns them. */
  accepted(ids: Float64Array, count: number): void;
  /** A connection whose loop died before it took it, with what it brings along if it moved. */
  returned(id: number, bytes: Buffer | undefined): void;
  /** A connection at a boundary, whose loop died. */
  rescued(id: number, checkpoint: Buffer | undefined): void;
  /** The loop of `inbox` is gone and its descriptors are settled. */
  released(inbox: number): void;
  report(inbox: number, message: ToCoordinator): void;
  failed(error: Error): void;
  /** Closed as they came, since the process was out of descriptors or the group had enough. */
  shed(reason: string, count: number): void;
}

/** A listening socket to be opened. */
export interface Opening {
  /** What the ledger keeps with its connections. */
  number: number;
  /** What the user asked for, and what is asked of the kernel. */
  told: ListenOptions;
  how: ListenOptions;
  quota: number;
}

export class LedgerListener extends ListeningSocket {
  readonly number: number;
  readonly options: ListenOptions;
  readonly #source: LedgerSource;
  readonly #sink: Sink;
  /** The last place is for those that were refused. */
  readonly #ids: Float64Array;

  constructor(coordinator: Coordinator, opening: Opening, batch: number, sink: Sink) {
    const { number, told, how, quota } = opening;
    const { inbox } = coordinator;
    const letGo = (socket: number) => void native.ledgerUnlisten(socket, inbox);
    let source: LedgerSource | undefined;
    super(coordinator.base, () => {
      source = LedgerSource.open(how, number, quota, { inbox, letGo });
      return source;
    });
    this.#source = source as unknown as LedgerSource;
    this.number = number;
    this.options = told;
    this.#sink = sink;
    this.#ids = new Float64Array(batch + 1);
  }

  /** The ledger's. */
  get id(): number {
    return this.#source.id;
  }

  protected acceptBatch(): number {
    const ids = this.#ids;
    const count = this.#source.accept(false, ids);
    if (count < 0) return count;
    const refused = ids[ids.length - 1];
    if (count > 0) this.#sink.accepted(ids, count);
    if (refused > 0) this.#sink.shed('maxConnections', refused);
    return count;
  }

  /** Those whom the kernel has connected already: closing the socket would reset them. */
  acceptWaiting(): void {
    if (!this.accepting) return;
    let count = 1;
    for (let left = WAITING_MAX; left > 0 && count > 0; left -= count) count = this.acceptBatch();
  }

  protected failed(error: Error): void {
    this.#sink.failed(error);
  }

  protected refusedSome(count: number): void {
    this.#sink.shed('out of descriptors', count);
  }
}

export class Coordinator {
  static #shared: Coordinator | undefined;

  /** This thread's; give it back with release(). */
  static acquire(): Coordinator {
    Coordinator.#shared ??= new Coordinator();
    Coordinator.#shared.#users++;
    return Coordinator.#shared;
  }

  readonly base = new EventBase({ drive: 'libuv' });
  readonly inbox: number;
  #users = 0;
  #refs = 0;
  #nextListener = 1;
  readonly #sinks = new Map<number, Sink>(); // by listener number
  readonly #loops = new Map<number, Sink>(); // by inbox

  private constructor() {
    this.inbox = native.inboxNew(INBOX_MESSAGES, chooseWaker(undefined, this.base.backend), 0);
    if (this.inbox < 0) throw systemError(this.inbox, 'inbox_new');
    const status = native.inboxAttach(this.base._id, this.inbox);
    if (status < 0) throw systemError(status, 'inbox_attach');
    this.base._dispatcher.onMessage = (index, numbers, at) => this.#message(index, numbers, at);
    native.inboxRef(this.base._id, false);
    const loop = this.base.dispatch();
    if (native.baseDrive(this.base._id) !== 0) return;
    // It was not started, and the loop's promise says why; serve() has to say it now.
    loop.catch(() => undefined);
    this.#close();
    throw driveTaken(this.base.backend);
  }

  release(): void {
    if (--this.#users > 0) return;
    Coordinator.#shared = undefined;
    this.#close();
  }

  #close(): void {
    native.inboxDetach(this.base._id);
    this.base.close();
    native.inboxFree(this.inbox);
  }

  /** Groups that keep the process alive. */
  ref(): void {
    if (++this.#refs === 1) native.inboxRef(this.base._id, true);
  }
  unref(): void {
    if (--this.#refs === 0) native.inboxRef(this.base._id, false);
  }

  /** The number of a listener whose connections are the business of `sink`. */
  nextListener(sink: Sink): number {
    const number = this.#nextListener++;
    this.#sinks.set(number, sink);
    return number;
  }
  /** Opens a listening socket that accepts nothing before resume(). */
  listen(opening: Opening, batch: number, sink: Sink): LedgerListener {
    const listener = new LedgerListener(this, opening, batch, sink);
    listener.pause();
    return listener;
  }
  forgetListener(listener: LedgerListener): void {
    this.#sinks.delete(listener.number);
  }

  /** Resolves when what was in the inbox has been read. */
  async drained(): Promise<void> {
    const counters = new Float64Array(15);
    // What comes in a turn is read in the next one; loops that live may go on sending.
    for (let turns = 0; turns < DRAIN_TURNS_MAX; turns++) {
      await new Promise((resolve) => setImmediate(resolve));
      if (!native.inboxStats(this.inbox, counters) || counters[0] === 0) return;
    }
  }

  addLoop(inbox: number, sink: Sink): void {
    this.#loops.set(inbox, sink);
  }
  forgetLoop(inbox: number): void {
    this.#loops.delete(inbox);
  }

  /** Gives a connection that the coordinator owns to a loop, with what it brings along. */
  give({ id, bytes, rescued }: Given, inbox: number): number {
    if (bytes === undefined && rescued !== true) return native.inboxHandoff(id, this.inbox, inbox);
    return native.ledgerMove(this.base._id, id, inbox, bytes ?? NO_BYTES, rescued === true);
  }

  /** Closes a connection that the coordinator owns, with a reset. */
  refuse(id: number): void {
    native.ledgerClose(this.base._id, id, true);
  }

  #message(index: number, numbers: Float64Array, at: number): void {
    const kind = numbers[at];
    const from = numbers[at + 1];
    if (kind === MessageKind.RELEASED) this.#loops.get(from)?.released(from);
    else if (kind === MessageKind.RETURNED || kind === MessageKind.RESCUED)
      this.#comesBack(numbers[at + 2], index, kind === MessageKind.RESCUED);
    else if (kind === MessageKind.POST) this.#report(from, index);
  }

  #comesBack(id: number, index: number, rescued: boolean): void {
    const sink = this.#sinks.get(native.ledgerListener(id));
    const bytes = native.inboxTake(this.base._id, index);
    if (sink === undefined) this.refuse(id);
    else if (rescued) sink.rescued(id, bytes?.length === 0 ? undefined : bytes);
    else sink.returned(id, bytes);
  }

  #report(from: number, index: number): void {
    const bytes = native.inboxTake(this.base._id, index);
    if (bytes !== undefined) this.#loops.get(from)?.report(from, decode<ToCoordinator>(bytes));
  }
}
