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
import { settlesWithin } from './settles_within.js';
import { LoopThread } from './thread_pool.js';
import type { TopicTask } from './topics.js';
import { Watchdog } from './watchdog.js';

/** A loop that does not stop by itself is terminated this long after drainMs. */
const STOP_GRACE_MS = 1_000;
/** Loops that start while another one has failed to may go on with it for so long. */
const START_GRACE_MS = 1_000;
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

interface Start {
  ready(): void;
  failed(error: Error): void;
}

/** A loop whose connections nobody knows about. */
const NOBODY: Retired = { moved: 0, withContext: 0, drained: 0, closed: 0, refused: 0 };

export class Generation {
  readonly settings: Settings;
  readonly #slots: LoopSlot[];
  readonly #host: GenerationHost;
  readonly #threads = new Map<LoopSlot, LoopThread>();
  readonly #watchdog: Watchdog | undefined;
  readonly #tasks = new Map<LoopSlot, Promise<void>>();
  readonly #starting = new Map<LoopSlot, Start>();
  #starts: Promise<void>[] = [];
  readonly #retries = new Set<NodeJS.Timeout>();
  readonly #retired = new Map<LoopSlot, (counts: Retired) => void>();
  /** What starts to take over from a slot, by that slot. One at a time. */
  readonly #coming = new Map<LoopSlot, LoopSlot>();
  /** Slots that something took over from and that have not ended. */
  readonly #leaving = new Set<LoopSlot>();
  readonly #ends = new Map<LoopSlot, Promise<void>>();
  readonly #drained = new Map<LoopSlot, Drained>();
  /** Ends the wait for loops that drain. */
  #cutShort: () => void = () => undefined;
  /** A death is a death; nobody takes its place. */
  #ending = false;
  #refd = true;

  /** `number` is what its loops' handles say first. */
  constructor(host: GenerationHost, settings: Settings, number: number) {
    this.#host = host;
    this.settings = settings;
    this.#slots = settings.loops.map((_, id) => this.#makeSlot(id, number));
    const { watchdogMs } = settings;
    if (watchdogMs > 0)
      this.#watchdog = new Watchdog(
        watchdogMs,
        () => this.#all,
        (slot, ms) => this.#endBlocked(slot, ms),
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
    this.#starts = this.#slots.map((slot) => this.#startLoop(slot, true));
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
    this.#refd = ref;
    for (const thread of this.#threads.values()) thread.setRef(ref);
  }

  #makeSlot(id: number, generation: number): LoopSlot {
    const { backend, waker } = this.settings.loops[id];
    const slot: LoopSlot = new LoopSlot(id, backend, waker, () => this.#terminate(slot));
    slot.generation = generation;
    return slot;
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
      topics: this.#host.topics,
    };
    const started = new Promise<void>((ready, failed) => {
      this.#starting.set(slot, { ready, failed });
    });
    const life = this.#live(slot, task, first);
    this.#tasks.set(slot, life);
    life.finally(() => this.#tasks.delete(slot));
    await started;
  }

  /** One thread's life as this loop, to its end. Never rejects. */
  async #live(slot: LoopSlot, task: LoopTask, first: boolean): Promise<void> {
    let error: Error;
    try {
      const end = await this.#threadOf(slot).run(task);
      error =
        'failed' in end
          ? unflatten(end.failed)
          : new MultiloopError('ERR_LOOP_GONE', `Loop ${slot.id} ended without being asked`);
    } catch (thrown) {
      error = thrown instanceof Error ? thrown : new Error(`thrown: ${String(thrown)}`);
    }
    error = slot.verdict ?? error;
    slot.verdict = undefined;
    const wasStarting = slot.phase === 'starting';
    this.standDown(slot);
    slot.threadId = -1;
    // A loop that never got to serve has no release to wait for.
    if (wasStarting) this.dropInbox(slot, task.inbox);
    else slot.retireInbox();
    const start = this.#starting.get(slot);
    this.#starting.delete(slot);
    if (this.#ending || this.#host.closing || !this.#slots.includes(slot)) {
      start?.failed(error);
      return;
    }
    this.#host.down(slot, error);
    if (wasStarting && first) start?.failed(error);
    // Else what is about to take over from it does so.
    else if (!this.#coming.has(slot)) this.#restart(slot, error);
  }

  #threadOf(slot: LoopSlot): LoopThread {
    const thread = this.#threads.get(slot) ?? new LoopThread(this.settings, this.#refd);
    this.#threads.set(slot, thread);
    return thread;
  }

  /** Nothing is given to it any more. */
  standDown(slot: LoopSlot): void {
    slot.phase = 'dead';
    const { directory, moves } = this.#host;
    if (this.#host.isCurrent(this) && this.#slots.includes(slot)) directory.set(slot.id, 0);
    moves.gone(slot);
  }

  // ── a thread that is to end, and one that does not ──

  #endBlocked(slot: LoopSlot, ms: number): void {
    const { watchdogMs } = this.settings;
    const text =
      `Loop ${slot.id} was blocked for ${Math.round(ms)} ms by one turn, and watchdogMs is ` +
      `${watchdogMs}, so its thread was ended`;
    this.#terminate(slot, new MultiloopError('ERR_LOOP_BLOCKED', text));
  }

  /** Ends its thread at once; resolves when that has ended, or is given up for lost. */
  async #terminate(slot: LoopSlot, why?: Error): Promise<void> {
    const { inbox, threadId } = slot;
    const thread = this.#threads.get(slot);
    if (thread === undefined || threadId < 0) return;
    slot.verdict ??= why;
    this.standDown(slot);
    if (await settlesWithin(thread.terminate(threadId), this.settings.killMs)) return;
    if (this.#threads.get(slot) !== thread || slot.threadId !== threadId) return;
    // Another thread takes its place from here on, as if it had died.
    slot.verdict = this.#stuck(slot, slot.verdict);
    this.#abandon(slot, inbox);
    this.#threads.delete(slot);
    thread.giveUp();
  }

  #abandon(slot: LoopSlot, inbox: number): void {
    if (!slot.hasInbox(inbox) || slot.isAbandoned(inbox)) return;
    if (native.inboxAbandon(inbox) >= 0) slot.abandon(inbox);
  }

  #stuck(slot: LoopSlot, cause?: Error): MultiloopError {
    const text =
      `The thread of loop ${slot.id} is lost: it did not end within ${this.settings.killMs} ms ` +
      '(killMs) of being told to, since it waits in native code. Its connections were severed';
    return new MultiloopError('ERR_LOOP_STUCK', text, { cause });
  }

  /** Ends its thread for good and settles what it owned. */
  #end(slot: LoopSlot): Promise<void> {
    const ended = this.#ends.get(slot) ?? this.#endOnce(slot);
    this.#ends.set(slot, ended);
    return ended;
  }

  async #endOnce(slot: LoopSlot): Promise<void> {
    const thread = this.#threads.get(slot);
    if (thread !== undefined) {
      const ended = await settlesWithin(thread.destroy(), this.settings.killMs);
      this.#threads.delete(slot);
      if (!ended) {
        thread.giveUp();
        for (const inbox of slot.inboxes) this.#abandon(slot, inbox);
        this.#host.down(slot, this.#stuck(slot));
      }
    }
    // The thread is gone and has said what became of its descriptors; the last of those messages
    // are read here.
    await this.#host.coordinator.drained();
    for (const inbox of slot.inboxes) this.dropInbox(slot, inbox);
    this.#retired.get(slot)?.(NOBODY);
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
    const next = this.#makeSlot(slot.id, slot.generation + 1);
    this.#coming.set(slot, next);
    try {
      await this.#startLoop(next, true);
    } catch (cause) {
      await this.#notReplaced(slot, next, why, cause as Error);
      return;
    }
    if (!this.#leaving.has(slot)) return;
    const text = `${why}, so another thread took its place`;
    this.#host.restarted(next, new MultiloopError('ERR_LOOP_HEAP_FULL', text));
    await this.#retireLoop(slot, this.settings.drainMs);
    await this.#whenEnded([slot], STOP_GRACE_MS);
    await this.#end(slot);
    this.#leaving.delete(slot);
  }

  async #notReplaced(slot: LoopSlot, next: LoopSlot, why: string, cause: Error): Promise<void> {
    await this.#end(next);
    this.#coming.delete(slot);
    if (this.#ending || this.#host.closing) return;
    const text = `${why}, and no other thread could take its place: ${cause.message}`;
    this.#host.failed(new MultiloopError('ERR_LOOP_HEAP_FULL', text, { cause }));
    // It died meanwhile, and counted on the other one.
    if (slot.phase === 'dead' && !this.#tasks.has(slot)) this.#restart(slot, cause);
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
      this.#starting.get(slot)?.ready();
      this.#starting.delete(slot);
      if (ending) this.#tell(slot, inbox, this.#stopMessage());
      this.#host.up(slot);
    }
  }

  /** The loops of this generation are found under their numbers from now on. */
  enterDirectory(): void {
    for (const slot of this.#slots)
      this.#host.directory.set(slot.id, slot.phase === 'serving' ? slot.inbox : 0);
  }

  dropInbox(slot: LoopSlot, inbox: number): void {
    if (!slot.hasInbox(inbox)) return;
    slot.settleInbox(inbox);
    this.#host.coordinator.forgetLoop(inbox);
    native.inboxFree(inbox);
    // It died before it could say what became of its connections.
    this.#retired.get(slot)?.(NOBODY);
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
    await Promise.race([told, this.#whenEnded(this.#all, 2 ** 31 - 1)]);
    await this.#whenEnded(this.#all, STOP_GRACE_MS);
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
      this.#tell(slot, slot.inbox, { type: 'retire', deadlineMs, drainMs });
    });
    if (await settlesWithin(counts, deadlineMs + drainMs + STOP_GRACE_MS)) return counts;
    await this.#terminate(slot);
    return NOBODY;
  }

  /** Lets what is being written finish, then ends every loop. */
  async stop(): Promise<void> {
    this.#stopRestarting();
    // Those that give their connections away after a reload have time for that no longer.
    for (const slot of this.slots) {
      if (slot.phase !== 'serving' && slot.phase !== 'draining') continue;
      slot.phase = 'draining';
      this.#tell(slot, slot.inbox, this.#stopMessage());
    }
    await this.#whenEnded(this.#all, this.settings.drainMs + STOP_GRACE_MS);
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
    await Promise.race([this.#whenEnded(this.#all, ms + STOP_GRACE_MS), cut]);
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
    this.#whenEnded(this.#all, this.settings.drainMs + STOP_GRACE_MS).then(() => this.#cutShort());
  }

  /** Ends every thread, whatever it does, and settles what they owned. */
  async destroy(): Promise<void> {
    this.#stopRestarting();
    await Promise.all(this.#all.map((slot) => this.#end(slot)));
    this.#watchdog?.stop();
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

  /** Waits for these loops' tasks, at most `ms`. */
  async #whenEnded(slots: readonly LoopSlot[], ms: number): Promise<void> {
    await settlesWithin(Promise.all(slots.map((slot) => this.#tasks.get(slot))), ms);
  }
}

const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
