// The listening sockets of a group, and who accepts from each.
//
//   handoff     one for each address: the coordinator accepts
//   reuseport   one for each address and loop: that loop accepts what the kernel put in its queue
//   shared      one queue for each address, and a descriptor of it for each loop: all accept
//
// A loop's socket is passed to it when it serves and comes back when it stops or dies. Meanwhile,
// while any other loop serves, the coordinator accepts from it and hands the connections out: none
// that waits in a queue is lost or left waiting, and no socket closes before the group does. Whose
// it is says the ledger.

import { MultiloopError, systemError } from '../errors.js';
import { Delivery, native } from '../native.js';
import { type Address, formatAddress } from '../stream/address.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import type { TlsPlan, TlsServerOptions } from '../stream/tls_options.js';
import { checkInteger, invalidType, invalidValue } from '../validate.js';
import { type ToCoordinator, type ToLoop, unflatten } from './control.js';
import type { Coordinator, LedgerListener, Sink } from './coordinator.js';
import { ListenerTls } from './listener_tls.js';
import type { LoopSlot } from './loop_slot.js';
import type { Settings } from './settings.js';

/** What a loop accepts at most from a queue that it shares, before the others have their turn. */
const SHARED_BATCH = 8;

/** The group, as its listeners see it. */
export interface ListenersHost {
  readonly coordinator: Coordinator;
  readonly sink: Sink;
  /** The loop of this number, if it serves. */
  serving(loop: number): LoopSlot | undefined;
  anyServing(): boolean;
  /** Tells a loop, as soon as its inbox has room. */
  tell(slot: LoopSlot, message: ToLoop): void;
  /** Tells the thread whose inbox it is, if it is still there. */
  answer(inbox: number, message: ToLoop): void;
  /** By the number of a listener, whose files have changed. */
  renewTls(number: number, options: TlsServerOptions): Promise<void>;
  shed(reason: string, count: number): void;
  failed(error: Error): void;
}

/** A listening socket, and the loop that it is for; without one, it is the coordinator's. */
interface Seat {
  readonly listener: LedgerListener;
  readonly loop: number | undefined;
  /** The inbox of the thread that has it; 0: the coordinator has it. */
  holder: number;
  /** The inbox of a thread that could not wait for it. */
  unable: number;
}

export class Listeners {
  readonly #host: ListenersHost;
  readonly #settings: Settings;
  readonly #quota: number;
  readonly #seats: Seat[] = [];
  /** What their connections' TLS begins with, by number; the contexts are the group's. */
  readonly #tls = new Map<number, ListenerTls>();
  #state: 'new' | 'open' | 'closed' = 'new';

  constructor(host: ListenersHost, settings: Settings) {
    this.#host = host;
    this.#settings = settings;
    this.#quota = native.quotaNew(settings.maxConnections);
    if (this.#quota < 0) throw systemError(this.#quota, 'quota_new');
  }

  /** Opens all of them; none accepts before start(). */
  open(): void {
    const { accept, listen, loops } = this.#settings;
    for (const [index, options] of listen.entries()) {
      const number = this.#host.coordinator.nextListener(this.#host.sink);
      const name = listen.length > 1 ? `listen[${index}].tls` : 'listen.tls';
      if (options.tls !== undefined) this.#secure(number, name, options.tls);
      if (accept === 'handoff') {
        this.#add(number, options, options, undefined);
        continue;
      }
      const wanted = accept === 'reuseport' ? { ...options, reusePort: true } : options;
      const first = this.#add(number, options, wanted, 0);
      for (let loop = 1; loop < loops.length; loop++)
        this.#add(
          number,
          options,
          accept === 'shared' ? copyOf(first) : again(wanted, first),
          loop,
        );
    }
  }

  /** Throws what is wrong, and leaves what there is. */
  #secure(number: number, name: string, options: TlsServerOptions): TlsPlan {
    const renew = (same: TlsServerOptions) => this.#host.renewTls(number, same);
    const failed = (error: Error) => this.#host.failed(error);
    const before = this.#tls.get(number);
    const made = new ListenerTls(name, options, { renew, failed }, before);
    before?.retire();
    this.#tls.set(number, made);
    return made.plan;
  }

  #add(number: number, told: ListenOptions, how: ListenOptions, loop?: number): LedgerListener {
    const { acceptBatch } = this.#settings;
    const { coordinator, sink } = this.#host;
    const listener = coordinator.listen(
      { number, told, how, quota: this.#quota },
      acceptBatch,
      sink,
    );
    this.#seats.push({ listener, loop, holder: 0, unable: 0 });
    return listener;
  }

  get addresses(): Address[] {
    return this.#each().map((listener) => listener.address);
  }
  /** What the user asked for, by the number that the ledger keeps with each connection. */
  get options(): [number, ListenOptions][] {
    return this.#each().map(({ number, options }) => [number, options]);
  }
  /** What they are called, by the same number. */
  get names(): [number, string][] {
    return this.#each().map((one) => [one.number, one.options.name ?? formatAddress(one.address)]);
  }
  optionsOf(number: number): ListenOptions | undefined {
    return this.#seats.find(({ listener }) => listener.number === number)?.listener.options;
  }
  get tls(): [number, TlsPlan][] {
    return [...this.#tls].map(([number, { plan }]) => [number, plan]);
  }
  /** Another context for a listener. What the old one was is the caller's to free. */
  renewTls(number: number, options: TlsServerOptions) {
    const old = this.#tls.get(number) as ListenerTls;
    return { plan: this.#secure(number, 'tls', options), old };
  }
  /** The number of the listener with this name, or at this place, which has TLS. */
  numberOf(which: string | number): number {
    const all = this.names;
    const index = typeof which === 'number' ? which : all.findIndex(([, name]) => name === which);
    if (typeof which === 'number') checkInteger('listener', which, 0, all.length - 1);
    else if (typeof which !== 'string') throw invalidType('listener', 'a name or an index', which);
    if (index < 0) {
      const names = all.map(([, name]) => `'${name}'`).join(', ');
      throw invalidValue('listener', `must be one of ${names}`, which);
    }
    const [number, name] = all[index];
    if (!this.#tls.has(number))
      throw new MultiloopError(
        'ERR_TLS_CONFIG',
        `The listener ${name} has no TLS, and gets none while it runs; give it to serve()`,
      );
    return number;
  }
  /** One for each address. */
  #each(): LedgerListener[] {
    return this.#seats.filter(({ loop }) => (loop ?? 0) === 0).map(({ listener }) => listener);
  }

  ref(): void {
    for (const { listener } of this.#seats) listener.ref();
  }
  unref(): void {
    for (const { listener } of this.#seats) listener.unref();
  }

  start(): void {
    this.#state = 'open';
    this.settle();
  }

  /**
   * Gives each socket that the coordinator has to the loop that it is for; accepts from it where
   * there is none, while any loop serves. To be called whenever a loop begins or ends to serve, or
   * is released. Idempotent.
   */
  settle(): void {
    if (this.#state === 'new') return;
    const { inbox } = this.#host.coordinator;
    for (const seat of this.#seats) {
      if (seat.holder !== 0 && native.ledgerOwner(seat.listener.id) === inbox) seat.holder = 0;
      if (seat.holder === 0) this.#place(seat);
    }
  }

  #place(seat: Seat): void {
    if (this.#state === 'closed') {
      seat.listener.close();
      return;
    }
    const slot = seat.loop === undefined ? undefined : this.#host.serving(seat.loop);
    if (slot !== undefined && slot.inbox !== seat.unable && this.#give(seat, slot)) return;
    if (this.#host.anyServing()) seat.listener.resume();
    else seat.listener.pause();
  }

  #give(seat: Seat, slot: LoopSlot): boolean {
    const { id } = seat.listener;
    // Before another thread accepts from it: it is this thread's no more when the next turn begins.
    seat.listener.pause();
    const passed = native.ledgerPass(id, this.#host.coordinator.inbox, slot.inbox);
    if (passed !== Delivery.OK) return false;
    seat.holder = slot.inbox;
    const { accept, acceptBatch } = this.#settings;
    const shared = accept === 'shared';
    const batch = shared ? Math.min(acceptBatch, SHARED_BATCH) : acceptBatch;
    this.#host.tell(slot, { type: 'listen', socket: id, batch, shared });
    return true;
  }

  /** What a loop says of its listening sockets; false: it speaks of something else. */
  report(inbox: number, message: ToCoordinator): boolean {
    if (message.type === 'turnedAway') this.#host.shed(message.reason, message.count);
    else if (message.type === 'acceptFailed') this.#host.failed(unflatten(message.error));
    else if (message.type === 'askName') this.#answer(inbox, message);
    else if (message.type === 'notListening') {
      const seat = this.#seats.find(({ listener }) => listener.id === message.socket);
      if (seat !== undefined) seat.unable = inbox;
      if (message.error !== undefined) this.#host.failed(unflatten(message.error));
      this.settle();
    } else return false;
    return true;
  }

  async #answer(inbox: number, message: ToCoordinator & { type: 'askName' }): Promise<void> {
    const answer = await this.#tls.get(message.listener)?.answer(message);
    if (answer !== undefined) this.#host.answer(inbox, answer);
  }

  /** Those whom the kernel has connected already, of the sockets that the coordinator has. */
  acceptWaiting(): void {
    for (const { listener, holder } of this.#seats) if (holder === 0) listener.acceptWaiting();
  }

  /** Closes those that the coordinator has; the others when they come back. */
  close(): void {
    this.#state = 'closed';
    this.settle();
    for (const tls of this.#tls.values()) tls.settle();
  }
  /** No thread is left that could have one. */
  finish(): void {
    this.settle();
    // Until here: what comes back from a loop that dies now has to be counted.
    for (const { listener } of this.#seats) this.#host.coordinator.forgetListener(listener);
    native.quotaFree(this.#quota);
    for (const tls of this.#tls.values()) tls.free();
    this.#tls.clear();
  }
}

/** Another descriptor of the same queue. */
function copyOf({ fd }: LedgerListener): ListenOptions {
  const copy = native.sysDup(fd);
  if (copy < 0) throw systemError(copy, 'dup');
  return { fd: copy };
}

/** Another queue at the same address. */
function again(options: ListenOptions, { address }: LedgerListener): ListenOptions {
  return 'port' in address ? { ...options, port: address.port } : options;
}
