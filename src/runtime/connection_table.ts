// A loop's connections, by descriptor. A Map would take three times the memory for each.

import { type Connection, fdOf } from './connection.js';

/** Descriptors that it has room for at first. More of it at once would have V8 collect garbage. */
const PLACES_MIN = 1_024;

export class ConnectionTable {
  /** In no order: the last takes the place of one that goes. */
  readonly #all: Connection[] = [];
  /** By descriptor: its place, counted from 1. */
  #places = new Int32Array(PLACES_MIN);

  get size(): number {
    return this.#all.length;
  }

  /**
   * Its descriptor may have been that of one which is closed, and of which the loop has still to be
   * told so: that one is gone from here on.
   */
  add(conn: Connection): void {
    const fd = fdOf(conn.id);
    if (fd >= this.#places.length) this.#grow(fd);
    const before = this.#all[this.#places[fd] - 1];
    if (before !== undefined) this.delete(before);
    this.#places[fd] = this.#all.push(conn);
  }

  #grow(fd: number): void {
    const before = this.#places;
    this.#places = new Int32Array(2 ** Math.ceil(Math.log2(fd + 1)));
    this.#places.set(before);
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
