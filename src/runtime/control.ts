// What coordinator and loops tell each other through their inboxes, and what a loop's task is
// given and returns. All of it is structured clone.

import { deserialize, serialize } from 'node:v8';
import type { ErrorCode } from '../errors.js';
import { MultiloopError } from '../errors.js';
import type { BackendName, WakerName } from '../event/ev.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import type { TlsPlan } from '../stream/tls_options.js';
import type { Moved } from './baggage.js';
import type { NumbersMemory } from './connection_numbers.js';
import type { Drained } from './drainer.js';
import type { TopicTask } from './topics.js';

/** The task that a loop's thread runs for its whole life. */
export interface LoopTask {
  loop: number;
  generation: number;
  worker: string;
  workerData: unknown;
  backend: BackendName | undefined;
  waker: WakerName;
  inbox: number;
  coordinator: number;
  /** By the number that the ledger keeps with each connection. */
  listeners: [number: number, options: ListenOptions][];
  /** Of those with TLS, by the same number. */
  tls: (readonly [number: number, plan: TlsPlan])[];
  stats: SharedArrayBuffer;
  directory: SharedArrayBuffer;
  numbers: NumbersMemory;
  /** The processor that its thread is bound to. */
  processor: number | undefined;
  checkpointMax: number;
  topics: TopicTask;
}

/** What became of the connections of a loop that was retired. */
export interface Retired {
  /** Given to the next generation at a boundary. */
  moved: number;
  /** Of those moved, the ones that took a compression context along: see Moved. */
  withContext: number;
  /** They reached none in time and were ended when what they were doing was done. */
  drained: number;
  /** Still busy at the very end, and closed. */
  closed: number;
  /** They could not be packed, or refused to move. Also drained or closed, if they do not end. */
  refused: number;
}

/** How the task ended, unless its thread died. */
export type LoopEnd = { stopped: true } | { failed: FlatError };

export type ToCoordinator =
  | { type: 'ready'; loop: number; generation: number; threadId: number; backend: BackendName }
  | { type: 'workerError'; loop: number; connection: number; error: FlatError }
  /** A move that was asked for, by the number of the request. */
  | { type: 'moved'; request: number; count?: number; moved?: Moved; error?: FlatError }
  | { type: 'retired'; counts: Retired }
  | { type: 'drained'; counts: Drained }
  /** Connections that it accepted and closed at once. */
  | { type: 'turnedAway'; reason: string; count: number }
  | { type: 'acceptFailed'; error: FlatError }
  /** Its listening sockets are the coordinator's again, or this one that it could not wait for. */
  | { type: 'notListening'; socket?: number; error?: FlatError }
  /** A handshake waits for what to use for a name that its TLS has nothing for. */
  | { type: 'askName'; request: number; listener: number; servername: string }
  /** After a collection its heap has so many bytes of what it may have. */
  | { type: 'heap'; used: number; limit: number };

export type ToLoop =
  | { type: 'stop'; drainMs: number }
  /** Connections go on until they are at a boundary, at most for so long. Then the loop ends. */
  | { type: 'drain'; ms: number }
  /** Every connection goes to the loop of the same number that the directory has. */
  | { type: 'retire'; deadlineMs: number; drainMs: number }
  /** A listening socket was passed to it; `shared`: other loops wait for it too. */
  | { type: 'listen'; socket: number; batch: number; shared: boolean }
  /** What connects to a listener from now on has this TLS; answered as a move is. */
  | { type: 'tls'; request: number; listener: number; plan: TlsPlan }
  /** The answer: a context, 0 for the listener's own, or -1. */
  | { type: 'named'; request: number; context: number }
  | { type: 'post'; value: unknown }
  | { type: 'move'; request: number; connection: number; loop: number }
  /** Gives `count` connections that are idle to another loop; none that came by a move just now. */
  | { type: 'shed'; request: number; count: number; loop: number; restMs: number };

export function encode(message: ToCoordinator | ToLoop): Buffer {
  return serialize(message);
}

export function decode<T extends ToCoordinator | ToLoop>(bytes: Buffer): T {
  return deserialize(bytes) as T;
}

/** An error between threads: structured clone would drop its code. */
export interface FlatError {
  name: string;
  message: string;
  code?: string;
  stack?: string;
}

export function flatten(error: unknown): FlatError {
  if (!(error instanceof Error)) return { name: 'Error', message: `thrown: ${String(error)}` };
  const { name, message, stack } = error;
  const cause = error.cause instanceof Error ? error.cause.stack : undefined;
  const code = (error as { code?: unknown }).code;
  return {
    name,
    message,
    ...(typeof code === 'string' ? { code } : {}),
    stack: cause === undefined ? stack : `${stack}\n  [cause]: ${cause}`,
  };
}

export function unflatten(flat: FlatError): Error {
  const ours = /^ERR_(WORKER|NOT_MOVABLE|LOOP|INBOX|CONNECTION)/.test(flat.code ?? '');
  const error = ours
    ? new MultiloopError(flat.code as ErrorCode, flat.message)
    : Object.assign(new Error(flat.message), flat.code === undefined ? {} : { code: flat.code });
  if (!ours && flat.name !== 'Error')
    Object.defineProperty(error, 'name', { value: flat.name, enumerable: false });
  if (flat.stack !== undefined) error.stack = flat.stack;
  return error;
}
