// The queue of a datagram socket against a plain list: whatever is pushed and taken, in whatever
// order, what leaves is what was pushed.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { native } from '../../src/native.js';
import { AddressBook } from '../../src/stream/address_book.js';
import { QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX, SendQueue } from '../../src/stream/send_queue.js';
import { isPortable } from '../machine.js';

const MESSAGE_BYTES = 20_000;
const none = new Uint8Array(0);
const book = new AddressBook(1);
let names = 0;
const folder = mkdtempSync(join(tmpdir(), 'multiloop-queue-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
/** An abstract one where there are such names. */
const freshName = () =>
  isPortable ? join(folder, `${names++}`) : `@multiloop-queue-${process.pid}-${names++}`;

/** Two unix sockets, which take a few messages each until they are read. */
function receivers() {
  const memory = Buffer.alloc(64 * MESSAGE_BYTES);
  const nameMemory = Buffer.alloc(64 * 128);
  const records = new Int32Array(64 * 3);
  return [0, 1].map(() => {
    const name = book.pack('name', { path: freshName() });
    const fd = native.datagramOpen(1, name, none, false, false, -1) as number;
    return {
      name,
      fd,
      read(): Buffer[] {
        const count = native.datagramReceive(fd, memory, MESSAGE_BYTES, nameMemory, records, 64);
        const all: Buffer[] = [];
        for (let i = 0, at = 0; i < count; i++) {
          all.push(Buffer.from(memory.subarray(at, at + records[i * 3])));
          at += records[i * 3];
        }
        return all;
      },
    };
  });
}

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ push: fc.nat(1), bytes: fc.nat(300), many: fc.nat(20) }) },
  { weight: 2, arbitrary: fc.record({ push: fc.nat(1), bytes: fc.nat(MESSAGE_BYTES) }) },
  { weight: 5, arbitrary: fc.constant({ send: true }) },
  { weight: 1, arbitrary: fc.constant({ drop: true }) },
);

test('what leaves is what was pushed, in order', () => {
  const sockets = receivers();
  const sender = native.datagramOpen(1, none, none, false, false, -1) as number;
  let number = 0;
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const queue = new SendQueue();
      const waiting: { to: number; data: Buffer }[] = [];
      const push = (to: number, bytes: number) => {
        const text = `${number++} `.repeat(Math.ceil(bytes / 2)).slice(0, bytes);
        const given = number % 2 === 0 ? text : Buffer.from(text);
        if (queue.push(given, bytes, sockets[to].name))
          waiting.push({ to, data: Buffer.from(text) });
        else assert.ok(waiting.length > 40, 'it is full');
      };
      const send = () => {
        const sent = queue.send(sender);
        if (sent < 0) assert.is(sent, -11);
        const left = waiting.splice(0, Math.max(sent, 0));
        for (const [at, { read }] of sockets.entries()) {
          const expected = left.filter(({ to }) => to === at).map(({ data }) => data.toString());
          assert.equal(read().map(String), expected);
        }
      };
      for (const one of steps) {
        if ('push' in one) {
          const many = 'many' in one ? one.many : 1;
          for (let i = 0; i < many; i++) push((one.push + (i % 3 === 2 ? 1 : 0)) % 2, one.bytes);
        } else if ('drop' in one) {
          const first = waiting.shift();
          if (first === undefined) continue;
          const dropped = queue.drop();
          assert.is(dropped.bytes, first.data.length);
          assert.equal([...dropped.name], [...sockets[first.to].name]);
        } else if (queue.length > 0) send();
        assert.is(queue.length, waiting.length);
      }
      while (queue.length > 0) send();
    }),
    { numRuns: 300 },
  );
  for (const { fd } of sockets) native.sysClose(fd);
  native.sysClose(sender);
});

test('it holds so many messages, and so many bytes', () => {
  const queue = new SendQueue();
  for (let i = 0; i < QUEUE_MESSAGES_MAX; i++) assert.is(queue.push('x', 1, none), true);
  assert.is(queue.push('x', 1, none), false);
  queue.drop();
  assert.is(queue.push('x', 1, none), true);
  queue.clear();
  const big = Buffer.alloc(100_000);
  let pushed = 0;
  while (queue.push(big, big.length, none)) pushed++;
  assert.is(pushed, Math.floor(QUEUE_BYTES_MAX / 100_000));
  queue.drop();
  assert.is(queue.push(big, big.length, none), true, 'what was taken is room again');
});

test.run();
