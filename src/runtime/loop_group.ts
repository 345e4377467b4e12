// A loop group: the coordinator and its loops, one running server. Starts the loops in Piscina's
// threads, hands them connections, replaces a loop whose thread died, and stops all of it.

import { EventEmitter } from 'node:events';
import { MultiloopError, systemError } from '../errors.js';
import { Delivery, native } from '../native.js';
import type { Address } from '../stream/address.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import { encode, type LoopTask, type ToCoordinator, unflatten } from './control.js';
import { Coordinator, type LedgerListener, type Sink } from './coordinator.js';
import { type LoopHandle, LoopSlot, type LoopStats } from './loop_slot.js';
import { type Policy, roundRobin } from './policy.js';
import type { Settings } from './settings.js';
import { ThreadPool } from './thread_pool.js';

/** A loop that does not stop by itself is terminated this long after drainMs. */
const STOP_GRACE_MS = 1_000;
/** Connections that wait for a loop to come up; what is accepted beyond is refused. */
const WAITING_MAX = 4_096;
/** How often a stop message is tried again when a loop's inbox is full. */
const STOP_RETRY_MS = 10;

export interface GroupStats {
  accepted: number;
  open: number;
  served: number;
  /** Closed unserved: every loop's inbox was full, or maxConnections was reached. */
  refused: number;
  /** Closed because the loop's thread died. */
  lost: number;
  loops: LoopStats[];
}

/**
 * Events: 'loop' (handle, 'up' | 'down' | 'restarted', error?), 'shed' (reason, count),
 * 'workerError' (error, connection id), 'error' (error). Belongs to the thread that called serve().
 */
export class LoopGroup extends EventEmitter implements AsyncDisposable {
  /** Resolves when everything has ended; rejects with ERR_LOOP_CRASHING. */
  readonly closed: Promise<void>;

  readonly #settings: Settings;
  readonly #coordinator: Coordinator;
  readonly #threads: ThreadPool;
  readonly #slots: LoopSlot[];
  readonly #policy: Policy = roundRobin();
  readonly #sink: Sink;
  readonly #tasks = new Set<Promise<void>>();
  readonly #starting = new Map<LoopSlot, { ready(): void; failed(error: Error): void }>();
  readonly #retries = new Set<NodeJS.Timeout>();
  #listeners: LedgerListener[] = [];
  #accepted = 0;
  #refused = 0;
  /** Accepted while no loop served. */
  readonly #waiting: number[] = [];
  #started = false;
  #refd = false;
  #closing: Promise<void> | undefined;
  #failure: Error | undefined;
  #settle!: { resolve(): void; reject(error: Error): void };

  /** @internal Use serve(). */
  constructor(settings: Settings) {
    super();
    this.#settings = settings;
    this.closed = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // Nobody has to wait for it.
    this.closed.catch(() => undefined);
    this.#coordinator = Coordinator.acquire();
    this.#sink = {
      accepted: (ids, count) => this.#acceptedBatch(ids, count),
      returned: (id) => this.#handOut([id]),
      released: (inbox) => this.#released(inbox),
      report: (inbox, message) => this.#report(inbox, message),
      failed: (error) => this.#emitError(error),
    };
    this.#slots = settings.loops.map(
      ({ backend, waker }, id) =>
        new LoopSlot(id, backend, waker, (thread) => this.#threads.terminate(thread)),
    );
    this.#threads = new ThreadPool(this.#slots.length, settings);
  }

  get addresses(): Address[] {
    return this.#listeners.map((listener) => listener.address);
  }
  get loops(): readonly LoopHandle[] {
    return this.#slots;
  }

  /** Totals over all loops, also while they are blocked. */
  stats(): GroupStats {
    const loops = this.#slots.map((slot) => slot.stats);
    const sum = (key: 'served' | 'lost') => loops.reduce((total, loop) => total + loop[key], 0);
    const served = sum('served');
    const lost = sum('lost');
    const open = this.#accepted - served - this.#refused - lost;
    return { accepted: this.#accepted, open, served, refused: this.#refused, lost, loops };
  }

  /** @internal Opens the listening sockets, then the loops; accepts when every loop is ready. */
  async _start(): Promise<void> {
    try {
      for (const options of this.#settings.listen) {
        const batch = this.#settings.acceptBatch;
        this.#listeners.push(this.#coordinator.listen(options, batch, this.#sink));
      }
      await Promise.all(this.#slots.map((slot) => this.#startLoop(slot)));
    } catch (error) {
      await this.close();
      throw error;
    }
    this.ref();
    this.#started = true;
    if (this.#isServing()) this.#welcome();
  }

  /** Stops accepting, lets what is being written finish within drainMs, ends every loop. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
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

  // ── handing out ──

  #handOut(ids: Iterable<number>): void {
    const woken = new Set<LoopSlot>();
    let full = 0;
    for (const id of ids) {
      const slot = this.#give(id);
      if (slot !== undefined) woken.add(slot);
      else if (!this.#wait(id)) full += this.#refuse(id);
    }
    // One wake-up a loop and batch, however many connections it got.
    for (const slot of woken) native.inboxWake(slot.inbox);
    if (full > 0) this.emit('shed', 'inboxes full', full);
  }

  #acceptedBatch(ids: Float64Array, count: number): void {
    const room = Math.max(0, this.#settings.maxConnections - this.stats().open);
    this.#accepted += count;
    this.#handOut(ids.subarray(0, Math.min(count, room)));
    if (count <= room) return;
    for (const id of ids.subarray(room, count)) this.#refuse(id);
    this.emit('shed', 'maxConnections', count - room);
  }

  #give(id: number): LoopSlot | undefined {
    for (const slot of this.#policy(this.#slots)) {
      const delivery = native.inboxHandoff(id, this.#coordinator.inbox, slot.inbox);
      if (delivery === Delivery.OK) return slot;
      // Its thread is gone and its task will say so in a moment.
      if (delivery === Delivery.GONE) this.#standDown(slot);
    }
    return undefined;
  }

  /** Without a loop to serve it, a connection waits for the next one that comes up. */
  #wait(id: number): boolean {
    if (this.#isServing() || this.#closing !== undefined) return false;
    if (this.#waiting.length >= WAITING_MAX) return false;
    this.#waiting.push(id);
    return true;
  }

  #isServing(): boolean {
    return this.#slots.some(({ state }) => state === 'serving');
  }

  #standDown(slot: LoopSlot): void {
    slot.state = 'dead';
    // With nobody to serve them, further connections wait in the kernel's queue.
    if (!this.#isServing()) for (const listener of this.#listeners) listener.pause();
  }

  #refuse(id: number): number {
    this.#coordinator.refuse(id);
    this.#refused++;
    return 1;
  }

  // ── loops ──

  async #startLoop(slot: LoopSlot): Promise<void> {
    const settings = this.#settings;
    const inbox = native.inboxNew(settings.inboxSize, slot.waker, this.#coordinator.inbox);
    if (inbox < 0) throw systemError(inbox, 'inbox_new');
    slot.inbox = inbox;
    slot.state = 'starting';
    this.#coordinator.addLoop(inbox, this.#sink);
    const task: LoopTask = {
      loop: slot.id,
      generation: slot.generation,
      worker: settings.worker,
      workerData: settings.workerData,
      backend: slot.backend,
      waker: slot.waker,
      inbox,
      coordinator: this.#coordinator.inbox,
      listeners: this.#listeners.map(({ number, options }) => [number, plain(options)]),
      stats: slot.page.memory,
    };
    const started = new Promise<void>((ready, failed) => {
      this.#starting.set(slot, { ready, failed });
    });
    const life = this.#live(slot, task);
    this.#tasks.add(life);
    life.finally(() => this.#tasks.delete(life));
    await started;
  }

  /** One thread's life as this loop, to its end. Never rejects. */
  async #live(slot: LoopSlot, task: LoopTask): Promise<void> {
    let error: Error;
    try {
      const end = await this.#threads.run(task);
      error =
        'failed' in end
          ? unflatten(end.failed)
          : new MultiloopError('ERR_LOOP_GONE', `Loop ${slot.id} ended without being asked`);
    } catch (thrown) {
      error = thrown instanceof Error ? thrown : new Error(`thrown: ${String(thrown)}`);
    }
    const wasStarting = slot.state === 'starting';
    slot.state = 'dead';
    slot.threadId = -1;
    // A loop that never got to serve has no release to wait for.
    if (wasStarting) this.#dropInbox(slot, task.inbox);
    else slot.retireInbox();
    const start = this.#starting.get(slot);
    this.#starting.delete(slot);
    if (this.#closing !== undefined) {
      start?.failed(error);
      return;
    }
    this.#down(slot, error);
    if (wasStarting && slot.generation === 0) start?.failed(error);
    else this.#restart(slot, error);
  }

  #down(slot: LoopSlot, error: Error): void {
    this.#standDown(slot);
    this.emit('loop', slot, 'down', error);
  }

  #restart(slot: LoopSlot, error: Error): void {
    const { max, within, backoff } = this.#settings.restart;
    const now = performance.now();
    slot.deaths = slot.deaths.filter((at) => now - at < within);
    slot.deaths.push(now);
    if (slot.deaths.length > max) {
      this.#failure = new MultiloopError(
        'ERR_LOOP_CRASHING',
        `Loop ${slot.id} died ${slot.deaths.length} times within ${within} ms, ` +
          `so the group ends; the last time: ${error.message}`,
        { cause: error },
      );
      this.close();
      return;
    }
    const delay = Math.min(backoff * 2 ** (slot.deaths.length - 1), BACKOFF_MS_MAX);
    const timer = setTimeout(() => {
      this.#retries.delete(timer);
      slot.generation++;
      this.#startLoop(slot).then(
        () => this.emit('loop', slot, 'restarted'),
        // A start that fails is one more death, and #live has counted it.
        () => undefined,
      );
    }, delay);
    this.#retries.add(timer);
  }

  #report(inbox: number, message: ToCoordinator): void {
    const slot = this.#slots.find((one) => one.inbox === inbox);
    if (slot === undefined) return;
    if (message.type === 'workerError') {
      this.emit('workerError', unflatten(message.error), message.connection);
      return;
    }
    slot.threadId = message.threadId;
    slot.state = this.#closing === undefined ? 'serving' : 'draining';
    this.#starting.get(slot)?.ready();
    this.#starting.delete(slot);
    if (slot.state === 'draining') this.#stopLoop(slot, inbox);
    else if (this.#started) this.#welcome();
    this.emit('loop', slot, 'up');
  }

  /** A loop serves again: those who waited go first. */
  #welcome(): void {
    this.#handOut(this.#waiting.splice(0));
    for (const listener of this.#listeners) listener.resume();
  }

  #released(inbox: number): void {
    const slot = this.#slots.find((one) => one.hasInbox(inbox));
    if (slot !== undefined) this.#dropInbox(slot, inbox);
  }

  #dropInbox(slot: LoopSlot, inbox: number): void {
    if (!slot.hasInbox(inbox)) return;
    slot.settleInbox(inbox);
    this.#coordinator.forgetLoop(inbox);
    native.inboxFree(inbox);
  }

  // ── the end ──

  async #close(): Promise<void> {
    for (const timer of this.#retries) clearTimeout(timer);
    for (const listener of this.#listeners) {
      listener.close();
      this.#coordinator.forgetListener(listener);
    }
    for (const id of this.#waiting.splice(0)) this.#refuse(id);
    for (const slot of this.#slots) if (slot.state === 'serving') this.#stopLoop(slot, slot.inbox);
    await this.#whenEnded(this.#settings.drainMs + STOP_GRACE_MS);
    await this.#threads.destroy();
    // Every thread is gone and has said what became of its descriptors; the last of those
    // messages are read here.
    await new Promise((resolve) => setImmediate(resolve));
    for (const slot of this.#slots) for (const inbox of slot.inboxes) this.#dropInbox(slot, inbox);
    this.unref();
    this.#coordinator.release();
    if (this.#failure === undefined) {
      this.#settle.resolve();
      return;
    }
    this.#settle.reject(this.#failure);
    this.#emitError(this.#failure);
  }

  #stopLoop(slot: LoopSlot, inbox: number): void {
    if (slot.inbox !== inbox || slot.state === 'dead') return;
    slot.state = 'draining';
    const message = encode({ type: 'stop', drainMs: this.#settings.drainMs });
    if (native.inboxPost(this.#coordinator.inbox, inbox, message) !== Delivery.FULL) return;
    setTimeout(() => this.#stopLoop(slot, inbox), STOP_RETRY_MS);
  }

  /** Waits for every loop's task, at most `ms`; what is left is terminated with the pool. */
  async #whenEnded(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
    });
    await Promise.race([Promise.all(this.#tasks), late]);
    clearTimeout(timer);
  }

  #setRef(ref: boolean): this {
    if (this.#refd === ref) return this;
    this.#refd = ref;
    for (const listener of this.#listeners) {
      if (ref) listener.ref();
      else listener.unref();
    }
    this.#threads.setRef(ref);
    if (ref) this.#coordinator.ref();
    else this.#coordinator.unref();
    return this;
  }

  #emitError(error: Error): void {
    // Without a listener EventEmitter would throw into the coordinator's loop.
    if (this.listenerCount('error') > 0) this.emit('error', error);
    else process.emitWarning(error);
  }
}

/** No restart waits longer than this. */
const BACKOFF_MS_MAX = 5_000;

/** The options without what structured clone refuses. */
function plain(options: ListenOptions): ListenOptions {
  const { fd: _, ...rest } = options;
  return rest;
}
