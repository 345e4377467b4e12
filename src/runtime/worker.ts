// A worker: the user's module that a loop runs, and what it may define.

import type { EventBase } from '../event/event_base.js';
import { invalidType } from '../validate.js';
import type { Connection } from './connection.js';

/**
 * What a loop does with its connections. Hooks may be async: one that returns a promise holds the
 * connection, which gets no further data until it settles. A hook that throws or rejects destroys
 * its connection with that error and is counted; the loop lives. An error outside any hook ends
 * the loop, and the group starts another in its place.
 */
export interface LoopWorker<State = unknown, Packed = State> {
  /** Before the first connection; throwing fails serve(). */
  start?(loop: LoopContext): void | Promise<void>;
  open?(conn: Connection<State>): void | Promise<void>;
  /** The chunk is the worker's to keep. */
  data?(conn: Connection<State>, chunk: Uint8Array): void | Promise<void>;
  /** The output is below the high watermark again. */
  writable?(conn: Connection<State>): void;
  /** The peer will send no more; without this hook the connection is ended too. */
  end?(conn: Connection<State>): void | Promise<void>;
  /** Exactly once for each connection that was opened on this loop. */
  close?(conn: Connection<State>, error?: Error): void;
  /**
   * Before a move: what travels, by structured clone; without it `conn.state` does. What it throws
   * keeps the connection here, and who asked for the move is told.
   */
  pack?(conn: Connection<State>): Packed;
  /** It lives on another loop now; free what this loop kept for it. */
  left?(conn: Connection<State>): void;
  /** It came from another loop; without it, what was packed becomes `conn.state`. */
  unpack?(conn: Connection<State>, packed: Packed): void;
  /**
   * The loop that had it died while the connection was at a boundary, and this one has adopted it:
   * no `open` is called, and `conn.state` is new. With the bytes of `conn.checkpoint()`. A worker
   * without this hook opts out: its connections are reset when a loop dies.
   */
  rescue?(conn: Connection<State>, checkpoint: Uint8Array | undefined): void | Promise<void>;
  /** What `post` and `broadcast` sent to this loop. */
  message?(value: unknown, loop: LoopContext): void;
  /**
   * A reload has put a new loop in this one's place: every connection goes there at its next
   * boundary. What would reach none by itself, such as an answer without an end, is to end now.
   */
  retire?(loop: LoopContext): void;
  /** After the last connection; the loop ends when it is done, or when drainMs is over. */
  stop?(loop: LoopContext): void | Promise<void>;
}

export interface LoopContext {
  readonly id: number;
  /** How many loops the group has; their ids are 0 to one less. */
  readonly loops: number;
  /** How often this loop's thread was replaced. */
  readonly generation: number;
  readonly threadId: number;
  readonly base: EventBase;
  readonly workerData: unknown;
  /** Aborted when the loop begins to stop or to drain. */
  readonly signal: AbortSignal;
  /** In no order; each once, also while some of them go. */
  connections(): IterableIterator<Connection>;
  /**
   * Sends a value to a loop of this group, its own included, by structured clone, in order with
   * everything else from here. Throws ERR_LOOP_GONE and ERR_INBOX_FULL, and V8's DataCloneError.
   */
  post(loop: number, value: unknown): void;
  /** To every other loop that is alive; ERR_INBOX_FULL names those that did not get it. */
  broadcast(value: unknown): void;
  /**
   * Writes bytes to every connection of the group that has subscribed to the topic, on every loop,
   * this one's included; a string is UTF-8. To a WebSocket it is a message: a string a text, bytes
   * binary. All subscribers get all messages of the group in the same order, but those who are slow
   * (ServeOptions.topics). Throws ERR_INBOX_FULL, and nobody gets it then, when loops are behind.
   */
  publish(topic: string, bytes: string | Uint8Array): void;
  /**
   * Has a connection of this loop written what is published from now on, until the answer is
   * disposed of or the connection is closed; it stays subscribed when it moves or is rescued. Once
   * for a topic, however often this is called: each answer ends it. ERR_OUT_OF_RANGE past
   * topicsMax.
   */
  subscribe(conn: Connection, topic: string): Disposable;
}

const HOOKS = [
  'start',
  'open',
  'data',
  'writable',
  'end',
  'close',
  'pack',
  'left',
  'unpack',
  'rescue',
  'message',
  'retire',
  'stop',
] as const;

// Shared by every copy of the package in the thread, so that serve() is recognised in all of them.
const DEFINED = Symbol.for('multiloop.defined');
const registry = globalThis as { [DEFINED]?: LoopWorker };

/**
 * Marks a worker, for its types. A file that both defines a worker and calls serve() has to call
 * this first: in a loop's thread nothing after `await serve()` runs.
 */
export function defineWorker<State = unknown, Packed = State>(
  worker: LoopWorker<State, Packed>,
): LoopWorker<State, Packed> {
  checkWorker(worker);
  registry[DEFINED] = worker as LoopWorker;
  return worker;
}

/** What defineWorker was last given on this thread. */
export function definedWorker(): LoopWorker | undefined {
  return registry[DEFINED];
}

export function checkWorker(worker: unknown): asserts worker is LoopWorker {
  if (typeof worker !== 'object' || worker === null)
    throw invalidType('worker', 'an object with hooks', worker);
  for (const hook of HOOKS) {
    const value = (worker as Record<string, unknown>)[hook];
    if (value !== undefined && typeof value !== 'function')
      throw invalidType(`worker.${hook}`, 'of type function', value);
  }
}
