// The threads of a generation's loops: how each starts, what its life comes to, and how it is
// ended, also when it does not want to. What takes the place of a dead one is the generation's.

import { MultiloopError, systemError } from '../errors.js';
import { Delivery, native } from '../native.js';
import { ConnectionNumbers } from './connection_numbers.js';
import { encode, type LoopTask, type ToLoop, unflatten } from './control.js';
import type { GenerationHost } from './generation.js';
import { LoopSlot } from './loop_slot.js';
import type { Settings } from './settings.js';
import { settlesWithin } from './settles_within.js';
import { LoopThread } from './thread_pool.js';

/** How often a message is tried again when a loop's inbox is full. */
const RETRY_MS = 10;

/** The generation, as its threads see it. */
export interface ThreadsOwner {
  /** Whether the directory has the slot under its number. */
  serves(slot: LoopSlot): boolean;
  /** Whether nobody takes its place when it dies. */
  isLast(slot: LoopSlot): boolean;
  died(slot: LoopSlot, error: Error): void;
  /** What became of its connections is known, or never will be. */
  settled(slot: LoopSlot): void;
}

interface Start {
  ready(): void;
  failed(error: Error): void;
}

export class LoopThreads {
  readonly #host: GenerationHost;
  readonly #settings: Settings;
  readonly #owner: ThreadsOwner;
  readonly #threads = new Map<LoopSlot, LoopThread>();
  readonly #tasks = new Map<LoopSlot, Promise<void>>();
  readonly #starting = new Map<LoopSlot, Start>();
  readonly #ends = new Map<LoopSlot, Promise<void>>();
  #refd = true;

  constructor(host: GenerationHost, settings: Settings, owner: ThreadsOwner) {
    this.#host = host;
    this.#settings = settings;
    this.#owner = owner;
  }

  makeSlot(id: number, generation: number): LoopSlot {
    const { backend, waker } = this.#settings.loops[id];
    const slot: LoopSlot = new LoopSlot(id, backend, waker, () => this.terminate(slot));
    slot.generation = generation;
    return slot;
  }

  /** Resolves when it serves. `first`: if it cannot, nobody tries again, and this rejects. */
  async start(slot: LoopSlot, first: boolean): Promise<void> {
    const { coordinator, sink, directory } = this.#host;
    const settings = this.#settings;
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
    if (this.#owner.isLast(slot)) {
      start?.failed(error);
      return;
    }
    this.#host.down(slot, error);
    if (wasStarting && first) start?.failed(error);
    else this.#owner.died(slot, error);
  }

  /** It has said that it is ready. */
  started(slot: LoopSlot): void {
    this.#starting.get(slot)?.ready();
    this.#starting.delete(slot);
  }
  /** Whether a thread of it has not ended. */
  runs(slot: LoopSlot): boolean {
    return this.#tasks.has(slot);
  }

  #threadOf(slot: LoopSlot): LoopThread {
    const thread = this.#threads.get(slot) ?? new LoopThread(this.#settings, this.#refd);
    this.#threads.set(slot, thread);
    return thread;
  }

  /** Whether they keep the process alive. */
  setRef(ref: boolean): void {
    this.#refd = ref;
    for (const thread of this.#threads.values()) thread.setRef(ref);
  }

  /** Nothing is given to it any more. */
  standDown(slot: LoopSlot): void {
    slot.phase = 'dead';
    const { directory, moves } = this.#host;
    if (this.#owner.serves(slot)) directory.set(slot.id, 0);
    moves.gone(slot);
  }

  // ── a thread that is to end, and one that does not ──

  /** A turn of it has taken so long. */
  endBlocked(slot: LoopSlot, ms: number): void {
    const { watchdogMs } = this.#settings;
    const text =
      `Loop ${slot.id} was blocked for ${Math.round(ms)} ms by one turn, and watchdogMs is ` +
      `${watchdogMs}, so its thread was ended`;
    this.terminate(slot, new MultiloopError('ERR_LOOP_BLOCKED', text));
  }

  /** Ends its thread at once; resolves when that has ended, or is given up for lost. */
  async terminate(slot: LoopSlot, why?: Error): Promise<void> {
    const { inbox, threadId } = slot;
    const thread = this.#threads.get(slot);
    if (thread === undefined || threadId < 0) return;
    slot.verdict ??= why;
    this.standDown(slot);
    if (await settlesWithin(thread.terminate(threadId), this.#settings.killMs)) return;
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
      `The thread of loop ${slot.id} is lost: it did not end within ${this.#settings.killMs} ms ` +
      '(killMs) of being told to, since it waits in native code. Its connections were severed';
    return new MultiloopError('ERR_LOOP_STUCK', text, { cause });
  }

  /** Ends its thread for good and settles what it owned. */
  end(slot: LoopSlot): Promise<void> {
    const ended = this.#ends.get(slot) ?? this.#endOnce(slot);
    this.#ends.set(slot, ended);
    return ended;
  }

  async #endOnce(slot: LoopSlot): Promise<void> {
    const thread = this.#threads.get(slot);
    if (thread !== undefined) {
      const ended = await settlesWithin(thread.destroy(), this.#settings.killMs);
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
    this.#owner.settled(slot);
  }

  /** Its descriptors are settled. */
  dropInbox(slot: LoopSlot, inbox: number): void {
    if (!slot.hasInbox(inbox)) return;
    slot.settleInbox(inbox);
    this.#host.coordinator.forgetLoop(inbox);
    native.inboxFree(inbox);
    // It died before it could say what became of its connections.
    this.#owner.settled(slot);
  }

  /** Until its inbox has room for it. */
  tell(slot: LoopSlot, inbox: number, message: ToLoop): void {
    if (slot.inbox !== inbox || slot.phase === 'dead') return;
    const { coordinator } = this.#host;
    const delivery = native.inboxPost(coordinator.inbox, inbox, encode(message));
    if (delivery === Delivery.FULL) setTimeout(() => this.tell(slot, inbox, message), RETRY_MS);
  }

  /** Waits for these loops' tasks, at most `ms`. */
  async whenEnded(slots: readonly LoopSlot[], ms: number): Promise<void> {
    await settlesWithin(Promise.all(slots.map((slot) => this.#tasks.get(slot))), ms);
  }
}
