// Piscina, as the host of a group's loops: one thread and one task a loop, for its whole life.

import type { ResourceLimits, Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { LoopEnd, LoopTask } from './control.js';

export interface ThreadOptions {
  resourceLimits: ResourceLimits | undefined;
  execArgv: string[] | undefined;
  env: NodeJS.ProcessEnv | undefined;
}

interface Refable {
  ref(): void;
  unref(): void;
}

let lost = 0;

/** Threads of this process that were given up and have not ended. It cannot exit before they do. */
export function lostThreads(): number {
  return lost;
}

/**
 * The thread of one loop, with a pool of its own: one that is stuck in native code, or that is
 * replaced while it still drains, then has no part in what becomes of the others. When it dies,
 * Piscina makes another at once, on which run() may be called again.
 */
export class LoopThread {
  readonly #piscina: Piscina;
  #port: Refable | undefined;
  /** Of threads that have not ended, also of those that Piscina has given up. */
  readonly #exits = new Map<Worker, Promise<void>>();
  #ended: Promise<void> | undefined;
  #refd: boolean;

  constructor(options: ThreadOptions, refd: boolean) {
    this.#refd = refd;
    this.#piscina = new Piscina({
      filename: new URL('./loop_main.js', import.meta.url).href,
      minThreads: 1,
      maxThreads: 1,
      concurrentTasksPerWorker: 1,
      // The default parks the thread between messages and would stop its loop.
      atomics: 'disabled',
      idleTimeout: Number.POSITIVE_INFINITY,
      ...given('resourceLimits', options.resourceLimits),
      ...given('execArgv', options.execArgv),
      ...given('env', options.env as Record<string, string> | undefined),
    });
    // The death of a thread is reported here as well as by its task's rejection, which is enough.
    this.#piscina.on('error', () => undefined);
    this.#piscina.on('workerCreate', (worker: object) => this.#created(worker));
  }

  /** Resolves when the loop ends by itself; rejects when its thread dies, or on destroy(). */
  async run(task: LoopTask): Promise<LoopEnd> {
    const running = this.#piscina.run(task) as Promise<LoopEnd | null | undefined>;
    this.#watchExits();
    this.#apply();
    const end = await running;
    // Piscina takes `throw null` for no error at all.
    if (end === null || end === undefined) throw new Error(`thrown: ${end}`);
    return end;
  }

  /** Resolves when the thread has ended, which one that is stuck in native code may never do. */
  async terminate(threadId: number): Promise<void> {
    await this.#piscina.threads.find((thread) => thread.threadId === threadId)?.terminate();
  }

  /**
   * Ends the thread for good, whatever it does, and resolves when it is gone. Piscina does not wait
   * for one that died just before, and takes its exit, if it comes after destroy(), for a reason to
   * start another.
   */
  destroy(): Promise<void> {
    this.#ended ??= this.#destroy();
    return this.#ended;
  }

  async #destroy(): Promise<void> {
    do {
      this.#watchExits();
      await this.#piscina.destroy();
      await Promise.all(this.#exits.values());
    } while (this.#piscina.threads.length > 0);
  }

  #watchExits(): void {
    for (const thread of this.#piscina.threads) {
      if (this.#exits.has(thread)) continue;
      // Piscina's own listener is older and has run before.
      const exit = new Promise<void>((resolve) => thread.once('exit', () => resolve()));
      this.#exits.set(
        thread,
        exit.then(() => {
          this.#exits.delete(thread);
        }),
      );
    }
  }

  /** The same, and nobody waits for it. */
  giveUp(): void {
    lost++;
    this.destroy().finally(() => lost--);
  }

  /** Whether the running loop keeps the process alive. */
  setRef(refd: boolean): void {
    this.#refd = refd;
    this.#apply();
  }

  #apply(): void {
    // A running task refs its thread's port, and Piscina has no way to ask it not to.
    if (this.#refd) this.#port?.ref();
    else this.#port?.unref();
  }

  /** Finds the port behind a thread. A Piscina that keeps it elsewhere makes unref() do nothing. */
  #created(worker: object): void {
    this.#watchExits();
    for (const key of Object.getOwnPropertySymbols(worker)) {
      const inside = (worker as Record<symbol, { port?: Refable } | undefined>)[key];
      if (typeof inside?.port?.unref === 'function') this.#port = inside.port;
    }
    this.#apply();
  }
}

function given<Key extends string, Value>(
  key: Key,
  value: Value | undefined,
): { [K in Key]?: Value } {
  return (value === undefined ? {} : { [key]: value }) as { [K in Key]?: Value };
}
