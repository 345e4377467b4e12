// A generation: the loops that run one version of the worker, in threads of their own. A group has
// one that serves; a reload makes the next and retires this one when all of that is ready.

import { MultiloopError, systemError } from '../errors.js';
import { Delivery, native } from '../native.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import type { TlsPlan } from '../stream/tls_options.js';
import { ConnectionNumbers } from './connection_numbers.js';
import {
  encode,
  type LoopTask,
  type Retired,
  type ToCoordinator,
  type ToLoop,
  unflatten,
} from './control.js';
import type { Coordinator, Sink } from './coordinator.js';
import type { Directory } from './directory.js';
import type { Drained } from './drainer.js';
import { LoopSlot } from './loop_slot.js';
import type { Moves } from './moves.js';
import type { Settings } from './settings.js';
import { ThreadPool } from './thread_pool.js';

/** A loop that does not stop by itself is terminated this long after drainMs. */
const STOP_GRACE_MS = 1_000;
/** How often a message is tried again when a loop's inbox is full. */
const RETRY_MS = 10;
/** No restart waits longer than this. */
const BACKOFF_MS_MAX = 5_000;

/** The group, as its generations see it. */
export interface GenerationHost {
  readonly coordinator: Coordinator;
  readonly sink: Sink;
  readonly directory: Directory;
  readonly moves: Moves;
  readonly closing: boolean;
  listeners(): [number: number, options: ListenOptions][];
  tls(): (readonly [number: number, plan: TlsPlan])[];
  /** Whether new connections go to this generation. */
  isCurrent(generation: Generation): boolean;
  up(slot: LoopSlot): void;
  down(slot: LoopSlot, error: Error): void;
  restarted(slot: LoopSlot): void;
  crashing(error: Error): void;
  workerError(error: Error, connection: number): void;
}

interface Start {
  ready(): void;
  failed(error: Error): void;
}

export class Generation {
  readonly slots: readonly LoopSlot[];
  readonly settings: Settings;
  readonly #host: GenerationHost;
  readonly #threads: ThreadPool;
  readonly #tasks = new Set<Promise<void>>();
  readonly #starting = new Map<LoopSlot, Start>();
  readonly #retries = new Set<NodeJS.Timeout>();
  readonly #retired = new Map<LoopSlot, (counts: Retired) => void>();
  readonly #drained = new Map<LoopSlot, Drained>();
  /** Ends the wait for loops that drain. */
  #cutShort: () => void = () => undefined;
  /** A death is a death; nobody takes its place. */
  #ending = false;

  /** `number` is what its loops' handles say first. */
  constructor(host: GenerationHost, settings: Settings, number: number) {
    this.#host = host;
    this.settings = settings;
    this.slots = settings.loops.map(({ backend, waker }, id) => {
      const slot = new LoopSlot(id, backend, waker, (thread) => this.#threads.terminate(thread));
      slot.generation = number;
      return slot;
    });
    this.#threads = new ThreadPool(this.slots.length, settings);
  }

  get serving(): LoopSlot[] {
    return this.slots.filter(({ phase }) => phase === 'serving');
  }

  /** Resolves when every loop is ready; rejects with what the first one says that is not. */
  async start(): Promise<void> {
    await Promise.all(this.slots.map((slot) => this.#startLoop(slot, true)));
  }

  setRef(ref: boolean): void {
    this.#threads.setRef(ref);
  }

  // ── one loop's life ──

  async #startLoop(slot: LoopSlot, first: boolean): Promise<void> {
    const { coordinator, sink, directory } = this.#host;
    const { settings } = this;
    const inbox = native.inboxNew(settings.inboxSize, slot.waker, coordinator.inbox);
    if (inbox < 0) throw systemError(inbox, 'inbox_new');
    slot.inbox = inbox;
    slot.phase = 'starting';
    coordinator.addLoop(inbox, sink);
    const numbers = new ConnectionNumbers();
    slot.numbers.set(inbox, numbers);
    native.inboxNumbers(inbox, numbers.boundaries, numbers.traffic);
    const task: LoopTask = {
      loop: slot.id,
      generation: slot.generation,
      worker: settings.worker,
      workerData: settings.workerData,
      backend: slot.backend,
      waker: slot.waker,
      inbox,
      coordinator: coordinator.inbox,
      listeners: this.#host.listeners(),
      tls: this.#host.tls(),
      stats: slot.page.memory,
      directory: directory.memory,
      numbers: numbers.memory,
      processor: settings.loops[slot.id].processor,
      checkpointMax: settings.checkpointMax,
    };
    const started = new Promise<void>((ready, failed) => {
      this.#starting.set(slot, { ready, failed });
    });
    const life = this.#live(slot, task, first);
    this.#tasks.add(life);
    life.finally(() => this.#tasks.delete(life));
    await started;
  }

  /** One thread's life as this loop, to its end. Never rejects. */
  async #live(slot: LoopSlot, task: LoopTask, first: boolean): Promise<void> {
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
    this.standDown(slot);
    slot.threadId = -1;
    // A loop that never got to serve has no release to wait for.
    if (wasStarting) this.dropInbox(slot, task.inbox);
    else slot.retireInbox();
    const start = this.#starting.get(slot);
    this.#starting.delete(slot);
    if (this.#ending || this.#host.closing) {
      start?.failed(error);
      return;
    }
    this.#host.down(slot, error);
    if (wasStarting && first) start?.failed(error);
    else this.#restart(slot, error);
  }

  /** Nothing is given to it any more. */
  standDown(slot: LoopSlot): void {
    slot.phase = 'dead';
    const { directory, moves } = this.#host;
    if (this.#host.isCurrent(this)) directory.set(slot.id, 0);
    moves.gone(slot);
  }

  #restart(slot: LoopSlot, error: Error): void {
    const { max, within, backoff } = this.settings.restart;
    const now = performance.now();
    slot.deaths = slot.deaths.filter((at) => now - at < within);
    slot.deaths.push(now);
    if (slot.deaths.length > max) {
      this.#host.crashing(
        new MultiloopError(
          'ERR_LOOP_CRASHING',
          `Loop ${slot.id} died ${slot.deaths.length} times within ${within} ms, ` +
            `so the group ends; the last time: ${error.message}`,
          { cause: error },
        ),
      );
      return;
    }
    const delay = Math.min(backoff * 2 ** (slot.deaths.length - 1), BACKOFF_MS_MAX);
    const timer = setTimeout(() => {
      this.#retries.delete(timer);
      slot.generation++;
      this.#startLoop(slot, false).then(
        () => this.#host.restarted(slot),
        // A start that fails is one more death, and #live has counted it.
        () => undefined,
      );
    }, delay);
    this.#retries.add(timer);
  }

  // ── what its loops say ──

  slotOf(inbox: number): LoopSlot | undefined {
    return this.slots.find((slot) => slot.hasInbox(inbox));
  }

  report(slot: LoopSlot, inbox: number, message: ToCoordinator): void {
    if (message.type === 'workerError') {
      this.#host.workerError(unflatten(message.error), message.connection);
    } else if (message.type === 'moved') {
      this.#host.moves.answered(message);
    } else if (message.type === 'retired') {
      this.#retired.get(slot)?.(message.counts);
    } else if (message.type === 'drained') {
      this.#drained.set(slot, message.counts);
    } else if (message.type === 'ready' && slot.inbox === inbox) {
      slot.threadId = message.threadId;
      const ending = this.#ending || this.#host.closing;
      slot.phase = ending ? 'draining' : 'serving';
      if (this.#host.isCurrent(this)) this.#host.directory.set(slot.id, inbox);
      this.#starting.get(slot)?.ready();
      this.#starting.delete(slot);
      if (ending) this.#tell(slot, inbox, this.#stopMessage());
      this.#host.up(slot);
    }
  }

  /** The loops of this generation are found under their numbers from now on. */
  enterDirectory(): void {
    for (const slot of this.slots)
      this.#host.directory.set(slot.id, slot.phase === 'serving' ? slot.inbox : 0);
  }

  dropInbox(slot: LoopSlot, inbox: number): void {
    if (!slot.hasInbox(inbox)) return;
    slot.settleInbox(inbox);
    this.#host.coordinator.forgetLoop(inbox);
    native.inboxFree(inbox);
    // It died before it could say what became of its connections.
    this.#retired.get(slot)?.({ moved: 0, drained: 0, closed: 0 });
  }

  // ── the end ──

  /**
   * Its loops give each connection away at its next boundary, to the loop of the same number that
   * the directory has; what reaches none within the deadline is drained. Then they end.
   */
  async retire(deadlineMs: number): Promise<Retired> {
    this.#stopRestarting();
    const { drainMs } = this.settings;
    const counts = await Promise.all(
      this.serving.map(
        (slot) =>
          new Promise<Retired>((resolve) => {
            this.#retired.set(slot, resolve);
            slot.phase = 'draining';
            this.#tell(slot, slot.inbox, { type: 'retire', deadlineMs, drainMs });
          }),
      ),
    );
    await this.#whenEnded(STOP_GRACE_MS);
    await this.destroy();
    const sum = (key: keyof Retired) => counts.reduce((total, one) => total + one[key], 0);
    return { moved: sum('moved'), drained: sum('drained'), closed: sum('closed') };
  }

  /** Lets what is being written finish, then ends every loop. */
  async stop(): Promise<void> {
    this.#stopRestarting();
    for (const slot of this.serving) {
      slot.phase = 'draining';
      this.#tell(slot, slot.inbox, this.#stopMessage());
    }
    await this.#whenEnded(this.settings.drainMs + STOP_GRACE_MS);
    await this.destroy();
  }

  /** Lets connections go on to a boundary, at most for `ms`, then ends every loop. */
  async drain(ms: number): Promise<Drained> {
    this.#stopRestarting();
    for (const slot of this.serving) {
      slot.phase = 'draining';
      this.#tell(slot, slot.inbox, { type: 'drain', ms });
    }
    const cut = new Promise<void>((resolve) => {
      this.#cutShort = resolve;
    });
    await Promise.race([this.#whenEnded(ms + STOP_GRACE_MS), cut]);
    await this.destroy();
    // A loop that has died, or was terminated, says nothing.
    const all = [...this.#drained.values()];
    const sum = (key: keyof Drained) => all.reduce((total, one) => total + one[key], 0);
    return { ended: sum('ended'), drained: sum('drained'), closed: sum('closed') };
  }

  /** Has loops that drain stop now. */
  hurry(): void {
    for (const slot of this.slots)
      if (slot.phase === 'draining') this.#tell(slot, slot.inbox, this.#stopMessage());
    this.#whenEnded(this.settings.drainMs + STOP_GRACE_MS).then(() => this.#cutShort());
  }

  /** Ends every thread, whatever it does, and settles what they owned. */
  async destroy(): Promise<void> {
    this.#stopRestarting();
    await this.#threads.destroy();
    // Every thread is gone and has said what became of its descriptors; the last of those
    // messages are read here.
    await new Promise((resolve) => setImmediate(resolve));
    for (const slot of this.slots) for (const inbox of slot.inboxes) this.dropInbox(slot, inbox);
  }

  #stopRestarting(): void {
    this.#ending = true;
    for (const timer of this.#retries) clearTimeout(timer);
  }

  #stopMessage(): ToLoop {
    return { type: 'stop', drainMs: this.settings.drainMs };
  }

  /** Tells a loop, as soon as its inbox has room. */
  tell(slot: LoopSlot, message: ToLoop): void {
    this.#tell(slot, slot.inbox, message);
  }

  /** Until its inbox has room for it. */
  #tell(slot: LoopSlot, inbox: number, message: ToLoop): void {
    if (slot.inbox !== inbox || slot.phase === 'dead') return;
    const { coordinator } = this.#host;
    const delivery = native.inboxPost(coordinator.inbox, inbox, encode(message));
    if (delivery === Delivery.FULL) setTimeout(() => this.#tell(slot, inbox, message), RETRY_MS);
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
}
