// A loop: what Piscina runs in each of its threads, one task for the loop's whole life. It owns
// the thread's base, takes connections out of the inbox, and runs the worker's hooks.

import { fileURLToPath } from 'node:url';
import { threadId } from 'node:worker_threads';
import { MultiloopError, systemError } from '../errors.js';
import { EventBase } from '../event/event_base.js';
import { MessageKind } from '../event/page.js';
import { native } from '../native.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import { Connection, type ConnectionHost } from './connection.js';
import { decode, encode, flatten, type LoopEnd, type LoopTask, type ToLoop } from './control.js';
import { loadWorker } from './load_worker.js';
import { markLoopThread } from './loop_thread.js';
import { StatsPage } from './stats_page.js';
import type { LoopContext, LoopWorker } from './worker.js';

class Loop implements ConnectionHost {
  readonly base: EventBase;
  readonly context: LoopContext;
  readonly listeners: ReadonlyMap<number, ListenOptions>;
  readonly counters: StatsPage;
  worker: LoopWorker = {};
  readonly #task: LoopTask;
  readonly #connections = new Set<Connection>();
  readonly #abort = new AbortController();
  #stopping = false;
  #emptied: () => void = () => undefined;
  #overdue: () => void = () => undefined;

  constructor(task: LoopTask) {
    this.#task = task;
    this.listeners = new Map(task.listeners);
    this.counters = new StatsPage(task.stats);
    this.base = new EventBase({ backend: task.backend, waker: task.waker, drive: 'base' });
    this.base._dispatcher.onMessage = (index, numbers, at) => this.#message(index, numbers, at);
    this.context = {
      id: task.loop,
      generation: task.generation,
      threadId,
      base: this.base,
      workerData: task.workerData,
      signal: this.#abort.signal,
      connections: () => this.#connections.values(),
    };
  }

  /** Serves until the coordinator says stop. */
  async serve(): Promise<void> {
    const { inbox, coordinator, loop, generation } = this.#task;
    const status = native.inboxAttach(this.base._id, inbox);
    if (status < 0) throw systemError(status, 'inbox_attach');
    const ended = this.base.dispatch();
    const ready = {
      type: 'ready',
      loop,
      generation,
      threadId,
      backend: this.base.backend,
    } as const;
    native.inboxPost(inbox, coordinator, encode(ready));
    await ended;
  }

  /** Gives back what is still in the inbox, and the base. */
  close(): void {
    if (this.base._closed) return;
    native.inboxDetach(this.base._id);
    this.base.close();
  }

  closed(conn: Connection): void {
    this.#connections.delete(conn);
    if (this.#connections.size === 0) this.#emptied();
  }

  hookFailed(conn: Connection, error: unknown): void {
    this.#report(conn.id, error);
  }

  #report(connection: number, thrown: unknown): void {
    this.counters.addHookError();
    const { inbox, coordinator, loop } = this.#task;
    const error = flatten(thrown);
    const report = { type: 'workerError', loop, connection, error } as const;
    native.inboxPost(inbox, coordinator, encode(report));
  }

  #message(index: number, numbers: Float64Array, at: number): void {
    const kind = numbers[at];
    if (kind === MessageKind.HANDOFF) this.#accept(numbers[at + 2], numbers[at + 3]);
    else if (kind === MessageKind.POST) this.#control(index);
  }

  #accept(id: number, fd: number): void {
    const conn = new Connection(this, id, fd);
    this.#connections.add(conn);
    conn._open();
    if (this.#stopping) conn._drain();
  }

  #control(index: number): void {
    const bytes = native.inboxTake(this.base._id, index);
    if (bytes === undefined) return;
    const message = decode<ToLoop>(bytes);
    if (message.type === 'stop') this.#stop(message.drainMs);
  }

  /** Lets what is being written finish, at most for `drainMs`, then ends the dispatch. */
  async #stop(drainMs: number): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    const deadline = this.base.timer(() => this.#giveUp());
    deadline.add(drainMs);
    const over = new Promise<void>((resolve) => {
      this.#overdue = resolve;
    });
    this.#abort.abort();
    for (const conn of [...this.#connections]) conn._drain();
    if (this.#connections.size > 0)
      await new Promise<void>((resolve) => {
        this.#emptied = resolve;
      });
    try {
      await Promise.race([this.worker.stop?.(this.context), over]);
    } catch (error) {
      this.#report(0, error);
    }
    deadline.free();
    this.base.loopExit();
  }

  #giveUp(): void {
    for (const conn of [...this.#connections]) conn.destroy();
    this.#overdue();
  }
}

export default async function runLoop(task: LoopTask): Promise<LoopEnd> {
  // Settles when the worker's own file calls serve(), which never returns here.
  const served = new Promise<void>((resolve) => {
    markLoopThread({ served: resolve });
  });
  let loop: Loop | undefined;
  try {
    loop = new Loop(task);
    loop.worker = await loadWorker(task.worker, served);
    await loop.worker.start?.(loop.context);
  } catch (error) {
    loop?.base.close();
    return { failed: flatten(startFailure(task.worker, error)) };
  }
  try {
    await loop.serve();
    return { stopped: true };
  } finally {
    loop.close();
  }
}

function startFailure(worker: string, error: unknown): unknown {
  const code = (error as { code?: string } | null)?.code;
  if (code?.startsWith('ERR_WORKER') || code?.endsWith('_UNAVAILABLE')) return error;
  const said = error instanceof Error ? error.message : String(error);
  return new MultiloopError(
    'ERR_WORKER_LOAD',
    `The start hook of the worker ${fileURLToPath(worker)} threw: ${said}`,
    { cause: error },
  );
}
