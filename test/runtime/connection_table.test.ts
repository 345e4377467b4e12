// A loop's connections by descriptor: a descriptor that is closed may be another connection's before
// its loop is told that it was closed.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Connection } from '../../src/runtime/connection.js';
import { ConnectionTable } from '../../src/runtime/connection_table.js';

/** The ledger's number of a connection: which one of its descriptor it is, and the descriptor. */
const made = (generation: number, fd: number) =>
  ({ id: generation * 2 ** 20 + fd }) as Partial<Connection> as Connection;
const ids = (table: ConnectionTable) => table.list().map(({ id }) => id);

test('one that is removed late takes nothing with it that has its descriptor by then', () => {
  const table = new ConnectionTable();
  const [first, other, second] = [made(1, 5), made(1, 7), made(2, 5)];
  table.add(first);
  table.add(other);
  table.add(second);
  assert.equal(ids(table).sort(), [other.id, second.id].sort());
  table.delete(first);
  assert.is(table.size, 2);
  assert.is(table.get(first.id), undefined);
  assert.is(table.get(second.id), second);
  table.delete(second);
  table.delete(second);
  assert.equal(ids(table), [other.id]);
  table.delete(other);
  assert.is(table.size, 0);
});

test('descriptors past those that there was room for at first', () => {
  const table = new ConnectionTable();
  const all = [3, 1_023, 1_024, 19_999, 2 ** 20 - 1].map((fd) => made(1, fd));
  for (const one of all) table.add(one);
  for (const one of all) assert.is(table.get(one.id), one);
  for (const one of all) table.delete(one);
  assert.is(table.size, 0);
  assert.is(table.get(made(1, 5_000).id), undefined);
});

test('each is seen once while those that are seen go', () => {
  const table = new ConnectionTable();
  for (let fd = 0; fd < 100; fd++) table.add(made(1, fd));
  const seen: number[] = [];
  for (const one of table.values()) {
    seen.push(one.id);
    table.delete(one);
  }
  assert.is(new Set(seen).size, 100);
  assert.is(table.size, 0);
});

test.run();
