// A loop group: the coordinator and its loops, one running server. Starts the loops in Piscina's
// threads, hands them connections, replaces a loop whose thread died, and stops all of it.

import { EventEmitter } from 'node:events';
import { MultiloopError, systemError } from '../errors.js';
import { Delivery, native } from '../native.js';
import type { Address } from '../stream/address.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import { checkInteger } from '../validate.js';
import { encode, type LoopTask, type ToCoordinator, unflatten } from './control.js';
import { Coordinator, type LedgerListener, type Sink } from './coordinator.js';
import { Directory } from './directory.js';
import { type LoopHandle, LoopSlot, type LoopStats } from './loop_slot.js';
import { Moves } from './moves.js';
import { makePolicy, type Policy } from './policy.js';
import type { Settings } from './settings.js';
import { ThreadPool } from './thread_pool.js';

/** A loop that does not stop by itself is terminated this long after drainMs. */
const STOP_GRACE_MS = 1_000;
/** Connections that wait for a loop to come up; what is accepted beyond is refused. */
const WAITING_MAX = 4_096;
/** How often a stop message is tried again when a loop's inbox is full. */
const STOP_RETRY_MS = 10;

/** A connection that is to be given to a loop, with what it brings along if it was moving. */
interface Parcel {
  id: number;
  bytes?: Buffer;
}

export interface GroupStats {
  accepted: number;
  open: number;
  served: number;
  /** Closed unserved: every loop's inbox was full, or maxConnections was reached. */
  refused: number;
  /** Closed because the loop's thread died. */
  lost: number;
  /** Of live connections from one loop to another. */
  moves: number;
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
  readonly #policy: Policy;
  readonly #directory: Directory;
  readonly #moves: Moves;
  readonly #sink: Sink;
  readonly #tasks = new Set<Promise<void>>();
  readonly #starting = new Map<LoopSlot, { ready(): void; failed(error: Error): void }>();
  readonly #retries = new Set<NodeJS.Timeout>();
  #listeners: LedgerListener[] = [];
  #accepted = 0;
  #refused = 0;
  /** Of those that were moving: no loop was left for them. */
  #lost = 0;
  /** Accepted, or returned by a loop that died, while no loop served. */
  readonly #waiting: Parcel[] = [];
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
      returned: (id, bytes) => this.#handOut([{ id, bytes }]),
      released: (inbox) => this.#released(inbox),
      report: (inbox, message) => this.#report(inbox, message),
      failed: (error) => this.#emitError(error),
    };
    this.#slots = settings.loops.map(
      ({ backend, waker }, id) =>
        new LoopSlot(id, backend, waker, (thread) => this.#threads.terminate(thread)),
    );
    this.#threads = new ThreadPool(this.#slots.length, settings);
    this.#directory = new Directory(this.#slots.length);
    this.#moves = new Moves(this.#directory, this.#coordinator.inbox);
    this.#policy = makePolicy(settings.policy, {
      listener: (number) => this.#listeners.find((one) => one.number === number)?.options ?? {},
      failed: (error) => this.#emitError(error),
    });
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
    const sum = (key: 'served' | 'lost' | 'movedOut') =>
      loops.reduce((total, loop) => total + loop[key], 0);
    const served = sum('served');
    const lost = sum('lost') + this.#lost;
    const open = this.#accepted - served - this.#refused - lost;
    const moves = sum('movedOut');
    return { accepted: this.#accepted, open, served, refused: this.#refused, lost, moves, loops };
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

  // ── between loops ──

  /** Sends a value to a loop's `message` hook. Throws ERR_LOOP_GONE and ERR_INBOX_FULL. */
  post(loop: number, value: unknown): void {
    checkInteger('loop', loop, 0, this.#slots.length - 1);
    this.#directory.post(this.#coordinator.inbox, loop, value);
  }
  /** To every loop that is alive; ERR_INBOX_FULL names those that did not get it. */
  broadcast(value: unknown): void {
    this.#directory.broadcast(this.#coordinator.inbox, value);
  }

  /**
   * Has a connection move to another loop; see Connection.move(), whose errors it rejects with.
   * ERR_NOT_MOVABLE too when no loop serves it.
   */
  async move(connection: number, loop: number): Promise<void> {
    checkInteger('connection', connection, 1);
    checkInteger('loop', loop, 0, this.#slots.length - 1);
    await this.#moves.move(this.#slots, connection, loop);
  }

  /**
   * Evens the loops' numbers of connections out, by moving idle ones from where there are more than
   * the mean to where there are fewer. Answers how many moved.
   */
  async rebalance(): Promise<number> {
    const serving = this.#slots.filter((slot) => slot.phase === 'serving');
    for (const slot of serving) slot.refresh();
    const total = serving.reduce((sum, slot) => sum + slot.load, 0);
    const low = Math.floor(total / serving.length);
    const high = Math.ceil(total / serving.length);
    const room = serving.map((slot) => ({ slot, free: Math.max(0, high - slot.load) }));
    // Those below the mean are filled first, so that nobody ends above it while others are below.
    room.sort((a, b) => b.free - a.free);
    const moves: Promise<number>[] = [];
    for (const slot of serving) {
      let extra = slot.load - high;
      for (const to of room) {
        const want = to.slot.load < low ? to.free : Math.min(to.free, extra);
        const count = Math.min(extra, want);
        if (count <= 0) continue;
        moves.push(this.#moves.shed(slot, count, to.slot));
        to.free -= count;
        extra -= count;
      }
    }
    const ends = await Promise.allSettled(moves);
    return ends.reduce((sum, end) => sum + (end.status === 'fulfilled' ? end.value : 0), 0);
  }

  // ── handing out ──

  #handOut(parcels: Iterable<Parcel>): void {
    const woken = new Set<LoopSlot>();
    const candidates = this.#candidates();
    let full = 0;
    let refused = 0;
    for (const parcel of parcels) {
      const slot = this.#give(parcel, candidates);
      if (slot === 'refuse') refused += this.#refuse(parcel);
      else if (slot !== undefined) woken.add(slot);
      else if (!this.#wait(parcel)) full += this.#refuse(parcel);
    }
    // One wake-up a loop and batch, however many connections it got.
    for (const slot of woken) native.inboxWake(slot.inbox);
    if (full > 0) this.emit('shed', 'inboxes full', full);
    if (refused > 0) this.emit('shed', 'policy', refused);
  }

  /** Who can serve, by fresh numbers; those who are blocked only when all are. */
  #candidates(): LoopSlot[] {
    const serving = this.#slots.filter((slot) => slot.phase === 'serving');
    for (const slot of serving) slot.refresh();
    const free = serving.filter((slot) => !slot.blocked);
    return free.length > 0 ? free : serving;
  }

  #acceptedBatch(ids: Float64Array, count: number): void {
    const room = Math.max(0, this.#settings.maxConnections - this.stats().open);
    this.#accepted += count;
    const all = Array.from(ids.subarray(0, count), (id) => ({ id }));
    this.#handOut(all.slice(0, room));
    if (count <= room) return;
    for (const parcel of all.slice(room)) this.#refuse(parcel);
    this.emit('shed', 'maxConnections', count - room);
  }

  #give(parcel: Parcel, candidates: LoopSlot[]): LoopSlot | 'refuse' | undefined {
    if (candidates.length === 0) return undefined;
    const picked = this.#policy.pick(parcel.id, candidates);
    if (picked === undefined) return 'refuse';
    for (const slot of picked) {
      const delivery = this.#coordinator.give(parcel.id, slot.inbox, parcel.bytes);
      if (delivery === Delivery.OK) {
        slot.load++;
        return slot;
      }
      // Its thread is gone and its task will say so in a moment.
      if (delivery === Delivery.GONE) this.#standDown(slot);
    }
    return undefined;
  }

  /** Without a loop to serve it, a connection waits for the next one that comes up. */
  #wait(parcel: Parcel): boolean {
    if (this.#isServing() || this.#closing !== undefined) return false;
    if (this.#waiting.length >= WAITING_MAX) return false;
    this.#waiting.push(parcel);
    return true;
  }

  #isServing(): boolean {
    return this.#slots.some(({ phase }) => phase === 'serving');
  }

  #standDown(slot: LoopSlot): void {
    slot.phase = 'dead';
    this.#directory.set(slot.id, 0);
    this.#moves.gone(slot);
    // With nobody to serve them, further connections wait in the kernel's queue.
    if (!this.#isServing()) for (const listener of this.#listeners) listener.pause();
  }

  #refuse({ id, bytes }: Parcel): number {
    this.#coordinator.refuse(id);
    if (bytes === undefined) this.#refused++;
    else this.#lost++;
    return 1;
  }

  // ── loops ──

  async #startLoop(slot: LoopSlot): Promise<void> {
    const settings = this.#settings;
    const inbox = native.inboxNew(settings.inboxSize, slot.waker, this.#coordinator.inbox);
    if (inbox < 0) throw systemError(inbox, 'inbox_new');
    slot.inbox = inbox;
    slot.phase = 'starting';
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
      directory: this.#directory.memory,
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
    const wasStarting = slot.phase === 'starting';
    slot.phase = 'dead';
    this.#directory.set(slot.id, 0);
    this.#moves.gone(slot);
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
    if (message.type === 'moved') {
      this.#moves.answered(message);
      return;
    }
    slot.threadId = message.threadId;
    this.#directory.set(slot.id, inbox);
    slot.phase = this.#closing === undefined ? 'serving' : 'draining';
    this.#starting.get(slot)?.ready();
    this.#starting.delete(slot);
    if (slot.phase === 'draining') this.#stopLoop(slot, inbox);
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
    for (const parcel of this.#waiting.splice(0)) this.#refuse(parcel);
    for (const slot of this.#slots) if (slot.phase === 'serving') this.#stopLoop(slot, slot.inbox);
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
    if (slot.inbox !== inbox || slot.phase === 'dead') return;
    slot.phase = 'draining';
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
