// A loop group: the coordinator and its loops, one running server. Starts the loops in Piscina's
// threads, hands them connections, replaces a loop whose thread died, and stops all of it.

import { EventEmitter } from 'node:events';
import { MultiloopError } from '../errors.js';
import { native } from '../native.js';
import { type Address, toAddress } from '../stream/address.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import {
  addHandshakeFailures,
  type HandshakeFailures,
  noHandshakeFailures,
} from '../stream/tls_failures.js';
import type { TlsServerOptions } from '../stream/tls_options.js';
import { checkInteger, checkObject, checkSignal } from '../validate.js';
import type { Moved } from './baggage.js';
import { Balancer } from './balancer.js';
import { publish } from './channels.js';
import { type ConnectionInfo, listConnections } from './connection_list.js';
import type { Retired } from './control.js';
import { Coordinator, type Sink } from './coordinator.js';
import { Directory } from './directory.js';
import { Distributor } from './distributor.js';
import type { Drained } from './drainer.js';
import { Generation, type GenerationHost } from './generation.js';
import { Listeners } from './listeners.js';
import { workerUrl } from './load_worker.js';
import type { LoopHandle, LoopSlot, LoopStats } from './loop_slot.js';
import { Moves } from './moves.js';
import { makePolicy } from './policy.js';
import { evenOut, type Transfer } from './rebalance.js';
import type { Settings } from './settings.js';
import { append, openLog, type TopicTask } from './topics.js';

export interface GroupStats {
  accepted: number;
  open: number;
  served: number;
  /**
   * Closed unserved: every loop's inbox was full, maxConnections was reached, or the process was
   * out of descriptors.
   */
  refused: number;
  /** Closed because the loop's thread died. */
  lost: number;
  /** Of live connections from one loop to another. */
  moves: number;
  /** Of connections whose loop died, adopted by another. */
  rescues: number;
  /** TLS connections whose handshake has failed, which count as served; and by reason. */
  handshakesFailed: number;
  handshakeFailures: HandshakeFailures;
  /** As of a loop, and what group.publish() has published. */
  published: number;
  delivered: number;
  missed: number;
  loops: LoopStats[];
}

export interface ReloadOptions {
  /** Another file; the same one, read anew, by default. */
  worker?: string | URL;
  /** Other data; the same by default. */
  workerData?: unknown;
  /** How long a connection has to reach a boundary before it is drained: 10,000 ms. */
  deadlineMs?: number;
  /** Aborting while the new loops start gives the reload up. */
  signal?: AbortSignal;
}
export interface ReloadReport extends Retired {
  /** What the handles of the new loops say. */
  generation: number;
  ms: number;
}

export interface DrainReport extends Drained {
  ms: number;
}

/** How long a reload waits for boundaries unless it is told otherwise. */
const RELOAD_DEADLINE_MS = 10_000;

/**
 * Events: 'loop' (handle, 'up' | 'down' | 'restarted', error?), 'reload' (report), 'reloadFailed'
 * (error, of a reload by signal), 'tls' (listener's name: its files were read anew), 'drain'
 * (report), 'shed' (reason, count), 'workerError' (error, connection id), 'error' (error). Belongs
 * to the thread that called serve().
 */
export class LoopGroup extends EventEmitter implements AsyncDisposable {
  /** Resolves when everything has ended; rejects with ERR_LOOP_CRASHING. */
  readonly closed: Promise<void>;

  readonly #coordinator: Coordinator;
  readonly #distributor: Distributor;
  readonly #directory: Directory;
  readonly #moves: Moves;
  readonly #topics: TopicTask;
  readonly #sink: Sink;
  readonly #host: GenerationHost;
  #current: Generation;
  /** The one that a reload replaces it by, and those that were replaced and have not ended. */
  #next: Generation | undefined;
  readonly #retiring = new Set<Generation>();
  /** Of generations that have ended, and what the group itself has published. */
  readonly #past = {
    ...{ served: 0, lost: 0, movedOut: 0, rescued: 0, acceptedHere: 0, shed: 0 },
    ...{ handshakesFailed: 0, published: 0, delivered: 0, missed: 0 },
  };
  readonly #pastFailures = noHandshakeFailures();
  readonly #listeners: Listeners;
  #securing: Promise<void> = Promise.resolve();
  #started = false;
  #refd = false;
  #closing: Promise<void> | undefined;
  #draining = false;
  #balancer: Balancer | undefined;
  #failure: Error | undefined;
  #settle!: { resolve(): void; reject(error: Error): void };

  /** @internal Use serve(). */
  constructor(settings: Settings) {
    super();
    this.closed = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // Nobody has to wait for it.
    this.closed.catch(() => undefined);
    this.#coordinator = Coordinator.acquire();
    this.#sink = {
      accepted: (ids, count) => this.#distributor.acceptedBatch(ids, count),
      returned: (id, bytes) => this.#distributor.handOut([{ id, bytes }]),
      rescued: (id, bytes) => this.#distributor.handOut([{ id, bytes, rescued: true }]),
      released: (inbox) => {
        const found = this.#find(inbox);
        found?.generation.dropInbox(found.slot, inbox);
        this.#listeners.settle();
      },
      report: (inbox, message) => {
        if (this.#listeners.report(inbox, message)) return;
        const found = this.#find(inbox);
        found?.generation.report(found.slot, inbox, message);
      },
      failed: (error) => this.#emitError(error),
      shed: (reason, count) => this.#distributor.shed(reason, count),
    };
    this.#listeners = this.#makeListeners(settings);
    this.#directory = new Directory(settings.loops.length);
    this.#moves = new Moves(this.#directory, this.#coordinator.inbox);
    this.#topics = openLog(settings.topics);
    this.#host = this.#makeHost();
    this.#current = new Generation(this.#host, settings, 0);
    this.#distributor = this.#makeDistributor(settings);
  }

  get addresses(): Address[] {
    return this.#listeners.addresses;
  }
  /** Those that serve now; a reload puts others in their place. */
  get loops(): readonly LoopHandle[] {
    return this.#current.slots;
  }

  /** Totals over all loops, also while they are blocked. */
  stats(): GroupStats {
    const loops = this.#current.slots.map((slot) => slot.stats);
    const retiring = [...this.#retiring].flatMap(({ slots }) => slots.map((slot) => slot.stats));
    const all = [...loops, ...retiring];
    const past = this.#past;
    const sum = (key: keyof typeof past) =>
      all.reduce((total, loop) => total + loop[key], past[key]);
    const [served, shed] = [sum('served'), sum('shed')];
    const accepted = this.#distributor.accepted + sum('acceptedHere') + shed;
    const refused = this.#distributor.refused + shed;
    const lost = sum('lost') + this.#distributor.lost;
    const open = accepted - served - refused - lost;
    const [moves, rescues] = [sum('movedOut'), sum('rescued')];
    const handshakesFailed = sum('handshakesFailed');
    const [published, delivered, missed] = [sum('published'), sum('delivered'), sum('missed')];
    const handshakeFailures = { ...this.#pastFailures };
    for (const loop of all) addHandshakeFailures(loop.handshakeFailures, handshakeFailures);
    const counts = { accepted, open, served, refused, lost, moves, rescues, handshakesFailed };
    return { ...counts, handshakeFailures, published, delivered, missed, loops };
  }

  /**
   * Its connections, by id. From the ledger and shared memory, so also those of a loop that is
   * blocked; a look at each in turn, not a moment that is the same for all.
   */
  connections(): ConnectionInfo[] {
    const owners = new Map([[this.#coordinator.inbox, -1]]);
    for (const { slots } of this.#generations)
      for (const slot of slots) for (const inbox of slot.inboxes) owners.set(inbox, slot.id);
    return listConnections(owners, new Map(this.#listeners.names));
  }

  /** @internal Opens the listening sockets, then the loops; accepts when every loop is ready. */
  async _start(): Promise<void> {
    try {
      this.#listeners.open();
      await this.#current.start();
    } catch (error) {
      await this.close();
      throw error;
    }
    this.ref();
    this.#started = true;
    const { rebalance } = this.#current.settings;
    if (rebalance !== undefined) this.#balancer = this.#makeBalancer(rebalance);
    if (this.#isServing()) this.#welcome();
  }

  /**
   * Stops now: nothing more is accepted or read; each connection ends when the hooks that run have
   * settled and its output is written, and is closed after drainMs in any case. Then every loop
   * ends. During a drain, that ends in this way.
   */
  close(): Promise<void> {
    if (this.#closing === undefined) this.#closing = this.#end((one) => one.stop());
    else if (this.#draining) for (const generation of this.#generations) generation.hurry();
    return this.#closing;
  }

  /**
   * Stops gently: nothing more is accepted, and every connection goes on, also reading, until it is
   * at a boundary (see Connection.busy) and is ended there, or ends by itself. Those that are busy
   * after `ms` (drainMs) are closed. Then every loop ends, and 'drain' tells how many of each there
   * were. A connection that is in the middle of something that its buffers and hooks do not show
   * has to be held.
   */
  async drain(ms: number = this.#current.settings.drainMs): Promise<void> {
    checkInteger('ms', ms, 0, 2 ** 31 - 1);
    if (this.#closing === undefined) {
      this.#draining = true;
      this.#listeners.acceptWaiting();
      this.#distributor.stopPeeking();
      const began = performance.now();
      const total: Drained = { ended: 0, drained: 0, closed: 0 };
      const drain = async (one: Generation) => {
        const counts = await one.drain(ms);
        for (const key of ['ended', 'drained', 'closed'] as const) total[key] += counts[key];
      };
      const told = () => this.emit('drain', { ...total, ms: performance.now() - began });
      this.#closing = this.#end(drain, told);
    }
    await this.#closing;
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** A running group keeps the process alive; unref() lets it go. */
  ref(): this {
    return this.#setRef(true);
  }
  unref(): this {
    return this.#setRef(false);
  }

  // ── between loops ──

  /** Sends a value to a loop's `message` hook. Throws ERR_LOOP_GONE and ERR_INBOX_FULL. */
  post(loop: number, value: unknown): void {
    checkInteger('loop', loop, 0, this.#current.slots.length - 1);
    this.#directory.post(this.#coordinator.inbox, loop, value);
  }
  /** To every loop that is alive; ERR_INBOX_FULL names those that did not get it. */
  broadcast(value: unknown): void {
    this.#directory.broadcast(this.#coordinator.inbox, value);
  }
  /** As LoopContext.publish(). */
  publish(topic: string, bytes: string | Uint8Array): void {
    append(this.#topics, this.#directory, this.#coordinator.inbox, topic, bytes);
    this.#past.published++;
  }

  /** As Connection.move(). Rejects with ERR_NOT_MOVABLE too when no loop serves the connection. */
  async move(connection: number, loop: number): Promise<Moved> {
    checkInteger('connection', connection, 1);
    checkInteger('loop', loop, 0, this.#current.slots.length - 1);
    return this.#moves.move(this.#current.slots, connection, loop);
  }

  /**
   * Evens the loops' numbers of connections out, by moving idle ones from where there are more than
   * the mean to where there are fewer. Answers how many moved.
   */
  async rebalance(): Promise<number> {
    const transfers = evenOut(this.#current.serving);
    const ends = await Promise.allSettled(transfers.map((one) => this.#moves.shed(one)));
    return ends.reduce((sum, end) => sum + (end.status === 'fulfilled' ? end.value : 0), 0);
  }

  /**
   * Another certificate, key and settings for a listener that has TLS, by its name, its address as
   * connections() tells it, or its place in `addresses`. Resolves when every loop has them; what is
   * connected keeps what it has, and the old ones go with the last of these. Rejects as serve()
   * does when they cannot be used, with ERR_TLS_CONFIG too where the listener has no TLS, and with
   * ERR_LOOP_GONE when the group is closing; the old ones stay then.
   */
  setTls(listener: string | number, tls: TlsServerOptions): Promise<void> {
    // One after the other, or a loop with a full inbox might be told in another order.
    const set = this.#securing.then(() =>
      this.#setTls(() => this.#listeners.numberOf(listener), tls),
    );
    this.#securing = set.catch(() => undefined);
    return set;
  }
  async #setTls(find: () => number, tls: TlsServerOptions): Promise<void> {
    if (this.#closing !== undefined)
      throw new MultiloopError('ERR_LOOP_GONE', 'The group is closing');
    const number = find();
    const { plan, old } = this.#listeners.renewTls(number, tls);
    // Threads that start from here on begin with it.
    const told = this.#generations.flatMap((generation) =>
      generation.living.map((slot) =>
        this.#moves.secure(slot, [number, plan], (message) => generation.tell(slot, message)),
      ),
    );
    await Promise.all(told);
    old.free();
  }

  /** Its files have changed. */
  async #renewTls(number: number, tls: TlsServerOptions): Promise<void> {
    const set = this.#securing.then(() => this.#setTls(() => number, tls));
    this.#securing = set.catch(() => undefined);
    await set;
    this.emit('tls', new Map(this.#listeners.names).get(number));
  }

  #isServing(): boolean {
    return this.#current.serving.length > 0;
  }

  #makeListeners(settings: Settings): Listeners {
    return new Listeners(
      {
        coordinator: this.#coordinator,
        sink: this.#sink,
        serving: (loop) => {
          const slot = this.#current.slots[loop];
          return slot.phase === 'serving' ? slot : undefined;
        },
        anyServing: () => this.#isServing(),
        tell: (slot, message) => this.#current.tell(slot, message),
        answer: (inbox, message) => {
          const found = this.#find(inbox);
          // Its number is of the thread that has asked.
          if (found?.slot.inbox === inbox) found.generation.tell(found.slot, message);
        },
        renewTls: (number, options) => this.#renewTls(number, options),
        shed: (reason, count) => {
          publish('shed', () => ({ group: this, reason, count }));
          this.emit('shed', reason, count);
        },
        failed: (error) => this.#emitError(error),
      },
      settings,
    );
  }

  #makeBalancer(options: NonNullable<Settings['rebalance']>): Balancer {
    const shed = (transfer: Transfer, restMs: number) => this.#moves.shed(transfer, restMs);
    return new Balancer({ serving: () => this.#current.serving, shed }, options);
  }

  #makeDistributor(settings: Settings): Distributor {
    const group = this;
    const listener = (number: number) => this.#listeners.optionsOf(number) ?? {};
    const context = (id: number) => ({
      remote: toAddress(native.ledgerPeer(id)),
      listener: listener(native.ledgerListener(id)),
    });
    const failed = (error: Error) => this.#emitError(error);
    const policy = makePolicy(settings.policy, { context, failed });
    return new Distributor({
      coordinator: this.#coordinator,
      policy,
      peek: settings.peek,
      context,
      failed,
      get closing() {
        return group.#closing !== undefined;
      },
      serving: () => this.#current.serving,
      gone: (slot) => {
        this.#current.standDown(slot);
        this.#listeners.settle();
      },
      shed: (reason, count) => {
        publish('shed', () => ({ group, reason, count }));
        this.emit('shed', reason, count);
      },
      accepted: (connection) =>
        publish('accept', () => {
          const number = native.ledgerListener(connection);
          const listener = this.#listeners.optionsOf(number);
          return { group, connection, listener };
        }),
      given: (connection, slot, rescued) =>
        publish(rescued ? 'rescue' : 'handoff', () => ({ group, connection, loop: slot.id })),
    });
  }

  // ── generations ──

  #makeHost(): GenerationHost {
    const group = this;
    return {
      coordinator: this.#coordinator,
      sink: this.#sink,
      directory: this.#directory,
      moves: this.#moves,
      topics: this.#topics,
      get closing() {
        return group.#closing !== undefined;
      },
      listeners: () => this.#listeners.options.map(([number, one]) => [number, plain(one)]),
      tls: () => this.#listeners.tls,
      isCurrent: (generation) => generation === this.#current,
      up: (slot) => {
        if (this.#started && this.#current.slots.includes(slot)) this.#welcome();
        this.emit('loop', slot, 'up');
      },
      down: (slot, error) => {
        this.#listeners.settle();
        this.emit('loop', slot, 'down', error);
      },
      restarted: (slot, reason) => this.emit('loop', slot, 'restarted', reason),
      failed: (error) => this.#emitError(error),
      crashing: (error) => {
        this.#failure = error;
        this.close();
      },
      workerError: (error, connection) => {
        publish('error', () => ({ group, error, connection }));
        this.emit('workerError', error, connection);
      },
    };
  }

  get #generations(): Generation[] {
    const next = this.#next === undefined ? [] : [this.#next];
    return [this.#current, ...next, ...this.#retiring];
  }

  /** Whose loop `inbox` belongs to, its present one or that of a thread that died. */
  #find(inbox: number): { generation: Generation; slot: LoopSlot } | undefined {
    for (const generation of this.#generations) {
      const slot = generation.slotOf(inbox);
      if (slot !== undefined) return { generation, slot };
    }
    return undefined;
  }

  /**
   * Starts new loops with the worker's code as it is now, or with another worker, and gives them
   * the connections of the old ones, each at its next boundary; those that reach none within the
   * deadline are drained. The listening sockets stay open all the time. When a new loop does not
   * start, ERR_RELOAD_FAILED says why and the old ones go on; ERR_RELOAD_IN_PROGRESS while another
   * reload runs.
   */
  async reload(options: ReloadOptions = {}): Promise<ReloadReport> {
    try {
      const report = await this.#reload(options);
      publish('reload', () => ({ group: this, ...report }));
      return report;
    } catch (error) {
      publish('reload', () => ({ group: this, error }));
      throw error;
    }
  }

  async #reload(options: ReloadOptions): Promise<ReloadReport> {
    checkObject('options', options);
    const deadlineMs = options.deadlineMs ?? RELOAD_DEADLINE_MS;
    checkInteger('options.deadlineMs', deadlineMs, 0, 2 ** 31 - 1);
    const signal = checkSignal('options.signal', options.signal);
    const worker = options.worker === undefined ? undefined : workerUrl(options.worker);
    if (this.#next !== undefined || this.#retiring.size > 0)
      throw new MultiloopError('ERR_RELOAD_IN_PROGRESS', 'Another reload of this group runs');
    this.#refuseReload();
    const began = performance.now();
    const old = this.#current;
    const settings = {
      ...old.settings,
      worker: worker ?? old.settings.worker,
      workerData: 'workerData' in options ? options.workerData : old.settings.workerData,
    };
    const number = Math.max(...old.slots.map((slot) => slot.generation)) + 1;
    const next = new Generation(this.#host, settings, number);
    this.#next = next;
    next.setRef(this.#refd);
    try {
      await untilAborted(next.start(), signal);
      this.#refuseReload();
    } catch (cause) {
      await next.abandonStart();
      this.#next = undefined;
      if (signal?.aborted) throw signal.reason;
      if ((cause as { code?: string }).code === 'ERR_RELOAD_FAILED') throw cause;
      const said = cause instanceof Error ? cause.message : String(cause);
      throw new MultiloopError(
        'ERR_RELOAD_FAILED',
        `The new loops did not start, and the old ones go on: ${said}`,
        { cause },
      );
    }
    this.#next = undefined;
    this.#current = next;
    this.#retiring.add(old);
    next.enterDirectory();
    this.#welcome();
    const counts = await old.retire(deadlineMs);
    const past = this.#past;
    for (const { stats } of old.slots) {
      for (const key of Object.keys(past) as (keyof typeof past)[]) past[key] += stats[key];
      addHandshakeFailures(stats.handshakeFailures, this.#pastFailures);
    }
    this.#retiring.delete(old);
    this.#listeners.settle();
    const report = { generation: number, ...counts, ms: performance.now() - began };
    this.emit('reload', report);
    return report;
  }

  #refuseReload(): void {
    if (this.#closing !== undefined)
      throw new MultiloopError('ERR_RELOAD_FAILED', 'The group is closing');
  }

  /** A loop serves again: those who waited go first. */
  #welcome(): void {
    this.#distributor.welcome();
    this.#listeners.start();
  }

  // ── the end ──

  async #end(end: (one: Generation) => Promise<void>, told?: () => void): Promise<void> {
    this.#balancer?.stop();
    this.#listeners.close();
    this.#distributor.refuseWaiting();
    await Promise.all(this.#generations.map(end));
    this.#listeners.finish();
    native.topicsFree(this.#topics.log);
    this.unref();
    this.#coordinator.release();
    told?.();
    if (this.#failure === undefined) {
      this.#settle.resolve();
      return;
    }
    this.#settle.reject(this.#failure);
    this.#emitError(this.#failure);
  }

  #setRef(ref: boolean): this {
    if (this.#refd === ref) return this;
    this.#refd = ref;
    if (ref) this.#listeners.ref();
    else this.#listeners.unref();
    for (const generation of this.#generations) generation.setRef(ref);
    if (ref) this.#coordinator.ref();
    else this.#coordinator.unref();
    return this;
  }

  #emitError(error: Error): void {
    publish('error', () => ({ group: this, error }));
    // Without a listener EventEmitter would throw into the coordinator's loop.
    if (this.listenerCount('error') > 0) this.emit('error', error);
    else process.emitWarning(error);
  }
}

/** The promise's outcome, or the signal's reason. */
async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  signal?.throwIfAborted();
  if (signal === undefined) return promise;
  let abort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    promise.catch(() => undefined);
    if (abort !== undefined) signal.removeEventListener('abort', abort);
  }
}

/** The options for workers: without the descriptor and without the keys of TLS. */
function plain(options: ListenOptions): ListenOptions {
  const { fd: _, tls: __, ...rest } = options;
  return rest;
}
