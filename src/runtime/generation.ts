// A generation: the loops that run one version of the worker, in threads of their own. A group has
// one that serves; a reload makes the next and retires this one when all of that is ready.

import { MultiloopError } from '../errors.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import type { TlsPlan } from '../stream/tls_options.js';
import { type Retired, type ToCoordinator, type ToLoop, unflatten } from './control.js';
import type { Coordinator, Sink } from './coordinator.js';
import type { Directory } from './directory.js';
import type { Drained } from './drainer.js';
import type { LoopSlot } from './loop_slot.js';
import { LoopThreads } from './loop_threads.js';
import type { Moves } from './moves.js';
import type { Settings } from './settings.js';
import { settlesWithin } from './settles_within.js';
import type { TopicTask } from './topics.js';
import { Watchdog } from './watchdog.js';

/** A loop that does not stop by itself is terminated this long after drainMs. */
const STOP_GRACE_MS = 1_000;
/** Loops that start while another one has failed to may go on with it for so long. */
const START_GRACE_MS = 1_000;
/** No restart waits longer than this. */
const BACKOFF_MS_MAX = 5_000;

/** The group, as its generations see it. */
export interface GenerationHost {
  readonly coordinator: Coordinator;
  readonly sink: Sink;
  readonly directory: Directory;
  readonly moves: Moves;
  readonly topics: TopicTask;
  readonly closing: boolean;
  listeners(): [number: number, options: ListenOptions][];
  tls(): (readonly [number: number, plan: TlsPlan])[];
  /** Whether new connections go to this generation. */
  isCurrent(generation: Generation): boolean;
  up(slot: LoopSlot): void;
  down(slot: LoopSlot, error: Error): void;
  /** `reason`: why it was replaced, when it had not died. */
  restarted(slot: LoopSlot, reason?: Error): void;
  failed(error: Error): void;
  crashing(error: Error): void;
  workerError(error: Error, connection: number): void;
}

/** A loop whose connections nobody knows about. */
const NOBODY: Retired = { moved: 0, withContext: 0, drained: 0, closed: 0, refused: 0 };

export class Generation {
  readonly settings: Settings;
  readonly #slots: LoopSlot[];
  readonly #host: GenerationHost;
  readonly #threads: LoopThreads;
  readonly #watchdog: Watchdog | undefined;
  #starts: Promise<void>[] = [];
  readonly #retries = new Set<NodeJS.Timeout>();
  readonly #retired = new Map<LoopSlot, (counts: Retired) => void>();
  /** What starts to take over from a slot, by that slot. One at a time. */
  readonly #coming = new Map<LoopSlot, LoopSlot>();
  /** Slots that something took over from and that have not ended. */
  readonly #leaving = new Set<LoopSlot>();
  readonly #drained = new Map<LoopSlot, Drained>();
  /** Ends the wait for loops that drain. */
  #cutShort: () => void = () => undefined;
  /** A death is a death; nobody takes its place. */
  #ending = false;

  /** `number` is what its loops' handles say first. */
  constructor(host: GenerationHost, settings: Settings, number: number) {
    this.#host = host;
    this.settings = settings;
    this.#threads = new LoopThreads(host, settings, {
      serves: (slot) => host.isCurrent(this) && this.#slots.includes(slot),
      isLast: (slot) => this.#ending || host.closing || !this.#slots.includes(slot),
      died: (slot, error) => {
        // Else what is about to take over from it does so.
        if (!this.#coming.has(slot)) this.#restart(slot, error);
      },
      settled: (slot) => this.#retired.get(slot)?.(NOBODY),
    });
    this.#slots = settings.loops.map((_, id) => this.#threads.makeSlot(id, number));
    const { watchdogMs } = settings;
    if (watchdogMs > 0)
      this.#watchdog = new Watchdog(
        watchdogMs,
        () => this.#all,
        (slot, ms) => this.#threads.endBlocked(slot, ms),
      );
  }

  get slots(): readonly LoopSlot[] {
    return this.#slots;
  }
  get serving(): LoopSlot[] {
    return this.#slots.filter(({ phase }) => phase === 'serving');
  }
  /** Those that have a thread, also such as start, or give their connections away. */
  get living(): LoopSlot[] {
    return this.#all.filter(({ phase }) => phase !== 'dead');
  }
  get #all(): LoopSlot[] {
    return [...this.#slots, ...this.#leaving, ...this.#coming.values()];
  }

  /** Resolves when every loop is ready; rejects with what the first one says that is not. */
  async start(): Promise<void> {
    this.#starts = this.#slots.map((slot) => this.#threads.start(slot, true));
    await Promise.all(this.#starts);
  }

  /**
   * Ends what did not start as a whole. Loops that still load their worker do that first: Node
   * leaves a file open that a thread was reading when it was terminated.
   */
  async abandonStart(): Promise<void> {
    await settlesWithin(Promise.allSettled(this.#starts), START_GRACE_MS);
    await this.destroy();
  }

  setRef(ref: boolean): void {
    this.#threads.setRef(ref);
  }

  // ── a loop that has died ──

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
      this.#threads.start(slot, false).then(
        () => this.#host.restarted(slot),
        (error) => {
          // Out of descriptors there is not even an inbox. What fails later is one more death, and
          // #live has counted it.
          if (slot.phase === 'dead' && !this.#ending && error.syscall === 'inbox_new')
            this.#restart(slot, error);
        },
      );
    }, delay);
    this.#retries.add(timer);
  }

  // ── another thread in the place of one that serves ──

  /** A loop whose heap is nearly full gives its connections to another thread and ends. */
  async #replace(slot: LoopSlot, used: number, limit: number): Promise<void> {
    if (slot.phase !== 'serving' || this.#coming.size > 0 || !this.#mayReplace(slot)) return;
    const why =
      `The heap of loop ${slot.id} is ${Math.round((used / limit) * 100)} % full after a ` +
      `collection (${mebibytes(used)} of ${mebibytes(limit)} MiB)`;
    const next = this.#threads.makeSlot(slot.id, slot.generation + 1);
    this.#coming.set(slot, next);
    try {
      await this.#threads.start(next, true);
    } catch (cause) {
      await this.#notReplaced(slot, next, why, cause as Error);
      return;
    }
    if (!this.#leaving.has(slot)) return;
    const text = `${why}, so another thread took its place`;
    this.#host.restarted(next, new MultiloopError('ERR_LOOP_HEAP_FULL', text));
    await this.#retireLoop(slot, this.settings.drainMs);
    await this.#threads.whenEnded([slot], STOP_GRACE_MS);
    await this.#threads.end(slot);
    this.#leaving.delete(slot);
  }

  async #notReplaced(slot: LoopSlot, next: LoopSlot, why: string, cause: Error): Promise<void> {
    await this.#threads.end(next);
    this.#coming.delete(slot);
    if (this.#ending || this.#host.closing) return;
    const text = `${why}, and no other thread could take its place: ${cause.message}`;
    this.#host.failed(new MultiloopError('ERR_LOOP_HEAP_FULL', text, { cause }));
    // It died meanwhile, and counted on the other one.
    if (slot.phase === 'dead' && !this.#threads.runs(slot)) this.#restart(slot, cause);
  }

  /** By the limits of restarts. The loop asks again while its heap is full. */
  #mayReplace(slot: LoopSlot): boolean {
    if (this.#ending || this.#host.closing) return false;
    const { max, within, backoff } = this.settings.restart;
    const now = performance.now();
    slot.replaced = slot.replaced.filter((at) => now - at < within);
    const { length } = slot.replaced;
    const delay = length === 0 ? 0 : Math.min(backoff * 2 ** (length - 1), BACKOFF_MS_MAX);
    if (length >= max || now - (slot.replaced.at(-1) ?? 0) < delay) return false;
    slot.replaced.push(now);
    return true;
  }

  /** `next` is ready: new connections are for it, and those that the other one has. */
  #takeOver(next: LoopSlot): void {
    for (const [slot, coming] of this.#coming) {
      if (coming !== next) continue;
      this.#coming.delete(slot);
      this.#leaving.add(slot);
      this.#slots[slot.id] = next;
      next.follow(slot);
    }
  }

  // ── what its loops say ──

  slotOf(inbox: number): LoopSlot | undefined {
    return this.#all.find((slot) => slot.hasInbox(inbox));
  }

  report(slot: LoopSlot, inbox: number, message: ToCoordinator): void {
    if (message.type === 'workerError') {
      this.#host.workerError(unflatten(message.error), message.connection);
    } else if (message.type === 'moved') {
      this.#host.moves.answered(message);
    } else if (message.type === 'retired') {
      this.#retired.get(slot)?.(message.counts);
    } else if (message.type === 'heap') {
      if (slot.inbox === inbox) this.#replace(slot, message.used, message.limit);
    } else if (message.type === 'drained') {
      this.#drained.set(slot, message.counts);
    } else if (message.type === 'ready' && slot.inbox === inbox) {
      slot.threadId = message.threadId;
      const ending = this.#ending || this.#host.closing;
      if (!ending) this.#takeOver(slot);
      slot.phase = ending ? 'draining' : 'serving';
      if (this.#host.isCurrent(this)) this.#host.directory.set(slot.id, inbox);
      this.#threads.started(slot);
      if (ending) this.#threads.tell(slot, inbox, this.#stopMessage());
      this.#host.up(slot);
    }
  }

  /** The loops of this generation are found under their numbers from now on. */
  enterDirectory(): void {
    for (const slot of this.#slots)
      this.#host.directory.set(slot.id, slot.phase === 'serving' ? slot.inbox : 0);
  }

  // ── the end ──

  /**
   * Its loops give each connection away at its next boundary, to the loop of the same number that
   * the directory has; what reaches none within the deadline is drained. Then they end.
   */
  async retire(deadlineMs: number): Promise<Retired> {
    this.#stopRestarting();
    const told = Promise.all(this.serving.map((slot) => this.#retireLoop(slot, deadlineMs)));
    // One that dies meanwhile may have nothing to say any more.
    await Promise.race([told, this.#threads.whenEnded(this.#all, 2 ** 31 - 1)]);
    await this.#threads.whenEnded(this.#all, STOP_GRACE_MS);
    await this.destroy();
    const counts = await told;
    const total = { ...NOBODY };
    for (const one of counts)
      for (const key of Object.keys(total) as (keyof Retired)[]) total[key] += one[key];
    return total;
  }

  async #retireLoop(slot: LoopSlot, deadlineMs: number): Promise<Retired> {
    if (slot.phase !== 'serving') return NOBODY;
    const { drainMs } = this.settings;
    const counts = new Promise<Retired>((resolve) => {
      this.#retired.set(slot, resolve);
      slot.phase = 'draining';
      this.#threads.tell(slot, slot.inbox, { type: 'retire', deadlineMs, drainMs });
    });
    if (await settlesWithin(counts, deadlineMs + drainMs + STOP_GRACE_MS)) return counts;
    await this.#threads.terminate(slot);
    return NOBODY;
  }

  /** Lets what is being written finish, then ends every loop. */
  async stop(): Promise<void> {
    this.#stopRestarting();
    // Those that give their connections away after a reload have time for that no longer.
    for (const slot of this.slots) {
      if (slot.phase !== 'serving' && slot.phase !== 'draining') continue;
      slot.phase = 'draining';
      this.#threads.tell(slot, slot.inbox, this.#stopMessage());
    }
    await this.#threads.whenEnded(this.#all, this.settings.drainMs + STOP_GRACE_MS);
    await this.destroy();
  }

  /** Lets connections go on to a boundary, at most for `ms`, then ends every loop. */
  async drain(ms: number): Promise<Drained> {
    this.#stopRestarting();
    for (const slot of this.serving) {
      slot.phase = 'draining';
      this.#threads.tell(slot, slot.inbox, { type: 'drain', ms });
    }
    const cut = new Promise<void>((resolve) => {
      this.#cutShort = resolve;
    });
    await Promise.race([this.#threads.whenEnded(this.#all, ms + STOP_GRACE_MS), cut]);
    await this.destroy();
    // A loop that has died, or was terminated, says nothing.
    const all = [...this.#drained.values()];
    const sum = (key: keyof Drained) => all.reduce((total, one) => total + one[key], 0);
    return { ended: sum('ended'), drained: sum('drained'), closed: sum('closed') };
  }

  /** Has loops that drain stop now. */
  hurry(): void {
    for (const slot of this.slots)
      if (slot.phase === 'draining') this.#threads.tell(slot, slot.inbox, this.#stopMessage());
    this.#threads
      .whenEnded(this.#all, this.settings.drainMs + STOP_GRACE_MS)
      .then(() => this.#cutShort());
  }

  /** Ends every thread, whatever it does, and settles what they owned. */
  async destroy(): Promise<void> {
    this.#stopRestarting();
    await Promise.all(this.#all.map((slot) => this.#threads.end(slot)));
    this.#watchdog?.stop();
  }

  #stopRestarting(): void {
    this.#ending = true;
    for (const timer of this.#retries) clearTimeout(timer);
  }

  #stopMessage(): ToLoop {
    return { type: 'stop', drainMs: this.settings.drainMs };
  }

  standDown(slot: LoopSlot): void {
    this.#threads.standDown(slot);
  }
  dropInbox(slot: LoopSlot, inbox: number): void {
    this.#threads.dropInbox(slot, inbox);
  }

  /** Tells a loop, as soon as its inbox has room. */
  tell(slot: LoopSlot, message: ToLoop): void {
    this.#threads.tell(slot, slot.inbox, message);
  }
}

const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
