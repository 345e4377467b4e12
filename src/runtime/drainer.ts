// Draining a loop: its connections go on until nothing is going on in them, and are ended then. One
// that is busy at the deadline is closed.
//
// Who is at a boundary is looked at now and then and not told, because the ways to one are many and
// this is rare. A connection is ended when it is at a boundary twice, with at least one turn and
// nothing read between: closing a socket that has unread input resets it, and the peer may lose an
// answer that has just left.

import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import type { Connection } from './connection.js';
import type { ConnectionTable } from './connection_table.js';

/** What became of connections that were open when a drain began, or were accepted before it. */
export interface Drained {
  /** Ended by themselves, their worker or their peer. */
  ended: number;
  /** Ended at a boundary. */
  drained: number;
  /** Still busy at the deadline, and closed. */
  closed: number;
}

/** Between two looks; more if a look takes long, so that it takes a tenth of the time at most. */
const SWEEP_MS = 10;
const SWEEP_SHARE = 10;
/** Who has connected and said nothing yet may have a request under way: he gets so long. */
const FIRST_BYTE_MS = 500;

export class Drainer {
  readonly counts: Drained = { ended: 0, drained: 0, closed: 0 };
  readonly #connections: ConnectionTable;
  readonly #began = performance.now();
  readonly #sweeps: EventHandle;
  readonly #deadline: EventHandle;
  /** Those at a boundary, and the bytes that had come from them when they were last looked at. */
  readonly #idle = new Map<Connection, number>();
  readonly #fates = new WeakMap<Connection, keyof Drained>();

  constructor(base: EventBase, connections: ConnectionTable, ms: number) {
    this.#connections = connections;
    this.#sweeps = base.timer(() => this.#sweep());
    this.#deadline = base.timer(() => this.giveUp());
    this.#deadline.add(ms);
    this.#look();
    // What has come before is told first, in the next turn.
    this.#sweeps.add(0);
  }

  /** Nothing is ended by it any more; it still counts. */
  stop(): void {
    this.#sweeps.free();
    this.#deadline.free();
  }

  /** The time is over. */
  giveUp(): void {
    for (const conn of this.#connections.list()) {
      this.#fates.set(conn, 'closed');
      conn.destroy();
    }
  }

  /** Whoever closes it next does so because of the drain. */
  expect(conn: Connection): void {
    this.#fates.set(conn, 'drained');
  }
  /** It is closed. */
  count(conn: Connection): void {
    this.#idle.delete(conn);
    this.counts[this.#fates.get(conn) ?? 'ended']++;
  }

  #sweep(): void {
    const began = performance.now();
    this.#look();
    const took = performance.now() - began;
    this.#sweeps.add(Math.max(SWEEP_MS, took * SWEEP_SHARE));
  }

  #look(): void {
    const patient = performance.now() - this.#began < FIRST_BYTE_MS;
    for (const conn of this.#connections.list()) {
      if (conn.busy) {
        this.#idle.delete(conn);
        continue;
      }
      const { bytesRead, bytesWritten } = conn;
      if (this.#idle.get(conn) !== bytesRead) {
        this.#idle.set(conn, bytesRead);
      } else if (bytesRead + bytesWritten > 0 || !patient) {
        this.expect(conn);
        conn.close();
      }
    }
  }
}
