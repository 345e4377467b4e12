// A loop: what Piscina runs in each of its threads, one task for the loop's whole life. It owns
// the thread's base, takes connections out of the inbox, and runs the worker's hooks.

import { fileURLToPath } from 'node:url';
import { threadId } from 'node:worker_threads';
import { MultiloopError, systemError } from '../errors.js';
import { EventBase } from '../event/event_base.js';
import { MessageKind } from '../event/page.js';
import { Delivery, native } from '../native.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import type { TlsPlan } from '../stream/tls_options.js';
import { checkInteger, invalidType } from '../validate.js';
import type { Moved } from './baggage.js';
import { REST_MS } from './balancer.js';
import { channels, publish } from './channels.js';
import { Connection, fdOf } from './connection.js';
import type { ConnectionHost, Delivered } from './connection_host.js';
import { ConnectionNumbers } from './connection_numbers.js';
import { ConnectionTable } from './connection_table.js';
import {
  decode,
  encode,
  type FlatError,
  flatten,
  type LoopEnd,
  type LoopTask,
  type Retired,
  type ToCoordinator,
  type ToLoop,
} from './control.js';
import { Directory, delivered } from './directory.js';
import { Drainer } from './drainer.js';
import { HeapGuard } from './heap_guard.js';
import { loadWorker } from './load_worker.js';
import { LoopListeners } from './loop_listeners.js';
import { markLoopThread } from './loop_thread.js';
import { NameQuestions } from './server_names.js';
import { StatsPage } from './stats_page.js';
import { LoopTopics } from './topics.js';
import type { LoopContext, LoopWorker } from './worker.js';

/** How often what an inbox had no room for is tried again. */
const RETRY_MS = 10;

const checkLoop = (loop: unknown): number => checkInteger('loop', loop, 0, 2 ** 16);

class Loop implements ConnectionHost {
  readonly base: EventBase;
  readonly context: LoopContext;
  readonly listeners: ReadonlyMap<number, ListenOptions>;
  readonly tls: Map<number, TlsPlan>;
  readonly counters: StatsPage;
  readonly checkpointMax: number;
  readonly topics: LoopTopics;
  worker: LoopWorker = {};
  readonly numbers: ConnectionNumbers;
  /** Kept, since it tells what it sees for as long as it is there. */
  heap: HeapGuard | undefined = undefined;
  readonly #task: LoopTask;
  readonly #connections = new ConnectionTable();
  readonly #abort = new AbortController();
  readonly #directory: Directory;
  readonly #listening: LoopListeners;
  readonly #names: NameQuestions;
  #stopping = false;
  /** Connections that were closed because drainMs was over. */
  #gaveUpOn = 0;
  #drainer: Drainer | undefined = undefined;
  /** Those that have come by a move of late, and when; performance.now(), the oldest first. */
  readonly #arrived = new Map<Connection, number>();
  /** Set when the loop was told to give its connections away. */
  #retired: Retired | undefined = undefined;
  #emptied: () => void = () => undefined;
  #overdue: () => void = () => undefined;

  constructor(task: LoopTask) {
    this.#task = task;
    this.listeners = new Map(task.listeners);
    this.#names = new NameQuestions((message) => this.#tell(message));
    this.tls = new Map(
      task.tls.map(([listener, plan]) => [listener, this.#asking(listener, plan)]),
    );
    this.counters = new StatsPage(task.stats);
    this.numbers = new ConnectionNumbers(task.numbers);
    this.#directory = new Directory(task.directory);
    this.checkpointMax = task.checkpointMax;
    this.topics = new LoopTopics(task.topics, {
      inbox: task.inbox,
      directory: this.#directory,
      connection: (id) => this.#connection(id),
      addPublished: (...counts) => this.counters.addPublished(...counts),
    });
    this.base = new EventBase({ backend: task.backend, waker: task.waker, drive: 'base' });
    this.base._dispatcher.onMessage = (index, numbers, at) => this.#message(index, numbers, at);
    this.#listening = new LoopListeners({
      base: this.base,
      inbox: task.inbox,
      coordinator: task.coordinator,
      accepted: (id) => this.#accepted(id),
      report: (message) => this.#say(message),
    });
    this.context = {
      id: task.loop,
      loops: this.#directory.size,
      generation: task.generation,
      threadId,
      base: this.base,
      workerData: task.workerData,
      signal: this.#abort.signal,
      connections: () => this.#connections.values(),
      post: (loop, value) => this.#directory.post(task.inbox, checkLoop(loop), value),
      broadcast: (value) => this.#directory.broadcast(task.inbox, value, task.loop),
      publish: (topic, bytes) => this.topics.publish(topic, bytes),
      subscribe: (conn, topic) => this.#subscribe(conn, topic),
    };
  }

  /** Serves until the coordinator says stop. */
  async serve(): Promise<void> {
    const { inbox, loop, generation } = this.#task;
    const status = native.inboxAttach(this.base._id, inbox);
    if (status < 0) throw systemError(status, 'inbox_attach');
    // A worker that cannot go on with a connection of a dead loop has no boundaries.
    if (this.worker.rescue !== undefined)
      native.inboxBoundaries(this.base._id, this.numbers.boundaries);
    const ended = this.base.dispatch();
    const ready = {
      type: 'ready',
      loop,
      generation,
      threadId,
      backend: this.base.backend,
    } as const;
    this.#tell(ready);
    this.heap = new HeapGuard((used, limit) => {
      if (this.#retired !== undefined || this.#stopping) return;
      this.#say({ type: 'heap', used, limit });
    });
    await ended;
  }

  /** Gives back what is still in the inbox, and the base. */
  close(): void {
    if (this.base._closed) return;
    native.inboxDetach(this.base._id);
    this.base.close();
  }

  closed(conn: Connection): void {
    this.#drainer?.count(conn);
    this.topics.gone(conn, true);
    this.#removed(conn);
  }

  hookFailed(conn: Connection, error: unknown): void {
    this.#report(conn.id, error);
  }

  #report(connection: number, thrown: unknown): void {
    this.counters.addHookError();
    const { inbox, coordinator, loop } = this.#task;
    const error = flatten(thrown);
    // With thousands of them waiting, one more says nothing new.
    native.inboxPost(inbox, coordinator, encode({ type: 'workerError', loop, connection, error }));
  }

  #message(index: number, numbers: Float64Array, at: number): void {
    const kind = numbers[at];
    if (kind === MessageKind.POST) this.#control(index);
    else if (kind === MessageKind.NEWS) this.topics.read();
    else if (kind !== MessageKind.RELEASED)
      this.#take(kind, index, numbers[at + 2], numbers[at + 3]);
  }

  #take(kind: number, index: number, id: number, fd: number): void {
    const conn = this.#keep(id, fd);
    const bytes = native.inboxTake(this.base._id, index);
    if (kind === MessageKind.RESCUED) conn._rescue(bytes?.length === 0 ? undefined : bytes);
    else if (kind === MessageKind.MOVE && bytes !== undefined) conn._arrive(bytes);
    else conn._open();
    if (kind !== MessageKind.HANDOFF) this.#hasArrived(conn);
    if (this.#stopping) this.#finish(conn);
    else if (this.#retired !== undefined) this.#evict(conn, this.#retired);
  }

  /** By this loop itself. */
  #accepted(id: number): void {
    const conn = this.#keep(id, fdOf(id));
    if (channels.accept.hasSubscribers)
      publish('accept', () => ({ connection: id, listener: conn.listener }));
    conn._open();
  }

  #keep(id: number, fd: number): Connection {
    const conn = new Connection(this, id, fd);
    this.#connections.add(conn);
    return conn;
  }

  #connection(id: number): Connection | undefined {
    return this.#connections.get(id);
  }

  #subscribe(conn: Connection, topic: string): Disposable {
    if (!(conn instanceof Connection) || conn.loop !== this.context)
      throw invalidType('conn', 'a Connection of this loop', conn);
    this.topics.subscribe(conn, topic);
    return { [Symbol.dispose]: () => void this.topics.unsubscribe(conn, topic) };
  }

  #say(message: ToCoordinator): void {
    native.inboxPost(this.#task.inbox, this.#task.coordinator, encode(message));
  }

  send(conn: Connection, loop: number, bytes: Uint8Array): Delivered {
    const inbox = this.#directory.inbox(loop);
    if (inbox === 0) {
      this.topics.stays(conn);
      return loop < this.#directory.size ? 'gone' : 'no such loop';
    }
    const result = delivered(native.ledgerMove(this.base._id, conn.id, inbox, bytes, false));
    if (result !== 'ok') {
      this.topics.stays(conn);
      return result;
    }
    this.topics.gone(conn, false);
    this.#removed(conn);
    if (channels.move.hasSubscribers)
      publish('move', () => ({
        connection: conn.id,
        from: this.#task.loop,
        to: loop,
        bytes: bytes.length,
        contextBytes: conn._contextBytes,
      }));
    return result;
  }

  #hasArrived(conn: Connection): void {
    const now = performance.now();
    this.#arrived.set(conn, now);
    for (const [earlier, at] of this.#arrived) {
      if (now - at < REST_MS) break;
      this.#arrived.delete(earlier);
    }
  }

  #removed(conn: Connection): void {
    this.#connections.delete(conn);
    this.#arrived.delete(conn);
    if (this.#connections.size === 0) this.#emptied();
  }

  #control(index: number): void {
    const bytes = native.inboxTake(this.base._id, index);
    if (bytes === undefined) return;
    const message = decode<ToLoop>(bytes);
    if (message.type === 'stop') this.#stop(message.drainMs);
    else if (message.type === 'post') this.#posted(message.value);
    else if (message.type === 'move') this.#moveFor(message);
    else if (message.type === 'retire') this.#retire(message);
    else if (message.type === 'drain') this.#drain(message.ms);
    else if (message.type === 'listen') this.#listening.listen(message);
    else if (message.type === 'tls') {
      this.tls.set(message.listener, this.#asking(message.listener, message.plan));
      this.#answer(message.request, 1);
    } else if (message.type === 'named') this.#names.answered(message);
    else this.#shed(message);
  }

  #asking(listener: number, plan: TlsPlan): TlsPlan {
    return { ...plan, ask: (servername) => this.#names.ask(listener, servername) };
  }

  #posted(value: unknown): void {
    try {
      this.worker.message?.(value, this.context);
    } catch (error) {
      this.#report(0, error);
    }
  }

  /** The coordinator asks. */
  #moveFor({ request, connection, loop }: ToLoop & { type: 'move' }): void {
    const conn = this.#connection(connection);
    const moved =
      conn !== undefined
        ? conn.move(loop)
        : Promise.reject(
            new MultiloopError('ERR_NOT_MOVABLE', `Connection ${connection} is not here any more`),
          );
    moved.then(
      (moved) => this.#tell({ type: 'moved', request, moved }),
      (error) => this.#answer(request, 0, flatten(error)),
    );
  }

  async #shed({ request, count, loop, restMs }: ToLoop & { type: 'shed' }): Promise<void> {
    const moves: Promise<Moved>[] = [];
    const since = performance.now() - restMs;
    for (const conn of this.#connections.list()) {
      if (moves.length === count) break;
      if (!conn.busy && !((this.#arrived.get(conn) ?? 0) > since)) moves.push(conn.move(loop));
    }
    // One that cannot stays here, as if it had not been asked.
    const ends = await Promise.allSettled(moves);
    this.#answer(request, ends.filter((end) => end.status === 'fulfilled').length);
  }

  #answer(request: number, count: number, error?: FlatError): void {
    this.#tell({ type: 'moved', request, count, error });
  }

  /** What somebody waits for: until the coordinator's inbox has room for it. */
  #tell(message: ToCoordinator): void {
    const { inbox, coordinator } = this.#task;
    if (native.inboxPost(inbox, coordinator, encode(message)) === Delivery.FULL)
      setTimeout(() => this.#tell(message), RETRY_MS);
  }

  /** A new generation has taken over: everything goes there, and then this loop ends. */
  async #retire({ deadlineMs, drainMs }: ToLoop & { type: 'retire' }): Promise<void> {
    const counts: Retired = { moved: 0, withContext: 0, drained: 0, closed: 0, refused: 0 };
    this.#retired = counts;
    this.#listening.giveBack();
    for (const conn of this.#connections.list()) this.#evict(conn, counts);
    try {
      this.worker.retire?.(this.context);
    } catch (error) {
      this.#report(0, error);
    }
    const late = this.base.timer(() => this.#emptied());
    late.add(deadlineMs);
    await this.#whenEmpty();
    late.free();
    const left = this.#connections.list();
    for (const conn of left) conn._stopEvicting();
    await this.#stop(drainMs, () => {
      counts.closed = this.#gaveUpOn;
      counts.drained = left.length - counts.closed;
      this.#tell({ type: 'retired', counts });
    });
  }

  #evict(conn: Connection, counts: Retired, tries = 0): void {
    const again = () => {
      if (!this.#stopping && !conn.closed) this.#evict(conn, counts, tries + 1);
    };
    // One that has died has a new thread in a moment; until then any other loop will do.
    conn._evict((this.#task.loop + tries) % this.#directory.size).then(
      ({ contextBytes }) => {
        counts.moved++;
        if (contextBytes > 0) counts.withContext++;
      },
      (error: { code?: string }) => {
        if (error.code === 'ERR_INBOX_FULL' || error.code === 'ERR_LOOP_GONE')
          setTimeout(again, RETRY_MS);
        // Otherwise it was closed, or stays and is drained.
        else if (!this.#stopping && !conn.closed) counts.refused++;
      },
    );
  }

  #whenEmpty(): Promise<void> {
    if (this.#connections.size === 0) return Promise.resolve();
    return new Promise<void>((resolve) => {
      this.#emptied = resolve;
    });
  }

  /** Connections go on until they are at a boundary, at most for `ms`; then the loop stops. */
  async #drain(ms: number): Promise<void> {
    if (this.#stopping || this.#drainer !== undefined) return;
    const began = performance.now();
    this.#abort.abort();
    this.#listening.acceptWaiting();
    this.#listening.giveBack();
    this.#drainer = new Drainer(this.base, this.#connections, ms);
    await this.#whenEmpty();
    await this.#stop(Math.max(0, ms - (performance.now() - began)));
  }

  /** Ends a connection when what it is doing is done. */
  #finish(conn: Connection): void {
    this.#drainer?.expect(conn);
    conn._drain();
  }

  #sayDrained(): void {
    if (this.#drainer === undefined) return;
    const { inbox, coordinator } = this.#task;
    const { counts } = this.#drainer;
    native.inboxPost(inbox, coordinator, encode({ type: 'drained', counts }));
  }

  /** Lets what is being written finish, at most for `drainMs`, then ends the dispatch. */
  async #stop(drainMs: number, last: () => void = () => this.#sayDrained()): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#drainer?.stop();
    this.#listening.giveBack();
    const deadline = this.base.timer(() => this.#giveUp());
    deadline.add(drainMs);
    const over = new Promise<void>((resolve) => {
      this.#overdue = resolve;
    });
    this.#abort.abort();
    for (const conn of this.#connections.list()) this.#finish(conn);
    await this.#whenEmpty();
    try {
      await Promise.race([this.worker.stop?.(this.context), over]);
    } catch (error) {
      this.#report(0, error);
    }
    deadline.free();
    last();
    this.base.loopExit();
  }

  #giveUp(): void {
    this.#gaveUpOn = this.#connections.size;
    this.#drainer?.giveUp();
    for (const conn of this.#connections.list()) conn.destroy();
    this.#overdue();
  }
}

export default async function runLoop(task: LoopTask): Promise<LoopEnd> {
  // Settles when the worker's own file calls serve(), which never returns here.
  const served = new Promise<void>((resolve) => {
    markLoopThread({ served: resolve });
  });
  let loop: Loop | undefined;
  const { processor } = task;
  if (processor !== undefined) {
    const status = native.bindThread(processor);
    if (status < 0) {
      const error = systemError(status, 'sched_setaffinity', undefined, `processor ${processor}`);
      return { failed: flatten(error) };
    }
  }
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
