// What a connection needs of the loop that holds it.

import type { ListenOptions } from '../stream/listening_socket.js';
import type { TlsPlan } from '../stream/tls_options.js';
import type { HandshakeFailure } from '../stream/tls_transport.js';
import type { Connection } from './connection.js';
import type { ConnectionNumbers } from './connection_numbers.js';
import type { LoopTopics } from './topics.js';
import type { LoopContext, LoopWorker } from './worker.js';

export interface ConnectionHost {
  readonly context: LoopContext;
  readonly worker: LoopWorker;
  readonly listeners: ReadonlyMap<number, ListenOptions>;
  readonly tls: ReadonlyMap<number, TlsPlan>;
  readonly counters: LoopCounters;
  readonly numbers: ConnectionNumbers;
  readonly topics: LoopTopics;
  readonly checkpointMax: number;
  closed(conn: Connection): void;
  /** Gives the connection to another loop: 0, or why not. */
  send(conn: Connection, loop: number, bytes: Uint8Array): Delivered;
  hookFailed(conn: Connection, error: unknown): void;
}

export type Delivered = 'ok' | 'full' | 'gone' | 'no such loop';

/** Counted by the loop, read by any thread. */
export interface LoopCounters {
  addRead(bytes: number): void;
  addWritten(bytes: number): void;
  addHandshakeFailed(reason: HandshakeFailure): void;
  addPublished(published: number, delivered: number, missed: number): void;
}
