// A loop's connections, by descriptor. A Map would take three times the memory for each.

import { type Connection, fdOf } from './connection.js';
import { DESCRIPTORS_MAX } from './connection_numbers.js';

export class ConnectionTable {
  /** In no order: the last takes the place of one that goes. */
  readonly #all: Connection[] = [];
  /** By descriptor: its place, counted from 1. Memory is the kernel's until it is written to. */
  readonly #places = new Int32Array(DESCRIPTORS_MAX);

  get size(): number {
    return this.#all.length;
  }

  add(conn: Connection): void {
    this.#places[fdOf(conn.id)] = this.#all.push(conn);
  }

  /** Undefined when the descriptor is nobody's, or that of another one by now. */
  get(id: number): Connection | undefined {
    const conn = this.#all[this.#places[fdOf(id)] - 1];
    return conn?.id === id ? conn : undefined;
  }

  delete(conn: Connection): void {
    if (this.get(conn.id) !== conn) return;
    const place = this.#places[fdOf(conn.id)];
    const last = this.#all.pop() as Connection;
    this.#places[fdOf(conn.id)] = 0;
    if (last === conn) return;
    this.#all[place - 1] = last;
    this.#places[fdOf(last.id)] = place;
  }

  /** Those of now. */
  list(): Connection[] {
    return this.#all.slice();
  }

  /** Each once, while any of them may go: backwards, so that who takes a place was here before. */
  *values(): IterableIterator<Connection> {
    for (let i = this.#all.length - 1; i >= 0; i--) if (i < this.#all.length) yield this.#all[i];
  }
}
