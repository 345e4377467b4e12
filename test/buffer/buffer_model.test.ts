// Random operations on three buffers, each against one flat array: what they answer, what is in the
// buffers, what listeners are told. At the end every lender was told once, every file was closed,
// and no segment is left in a slab.

import { closeSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import * as assert from 'uvu/assert';
import { slabUse } from '../../src/buffer/slab.js';
import { type BufferChange, type Eol, EvBuffer, FileSegment, sys } from '../../src/index.js';
import { test } from '../hooks.js';

const BUFFERS = 3;
const EOLS: Eol[] = ['any', 'crlf', 'crlf-strict', 'lf', 'nul'];

// ── what is drawn ───────────────────────────────────────────────────────────────────────────────

type Kind =
  | 'add'
  | 'addText'
  | 'addAll'
  | 'prepend'
  | 'addBuffer'
  | 'moveSome'
  | 'prependBuffer'
  | 'addView'
  | 'addReference'
  | 'addFile'
  | 'reserve'
  | 'commit'
  | 'expand'
  | 'remove'
  | 'copyOut'
  | 'drain'
  | 'pullup'
  | 'peek'
  | 'readln'
  | 'indexOf'
  | 'indexOfEol'
  | 'pipe'
  | 'received'
  | 'settle'
  | 'close';

interface Operation {
  kind: Kind;
  at: number;
  other: number;
  data: Uint8Array;
  n: number;
  m: number;
  eol: Eol;
}

// Few different bytes, so that lines and matches are frequent and lie over borders.
const byte = fc.constantFrom(0, 10, 13, 97, 98, 99);
const weights: [Kind, number][] = [
  ['add', 6],
  ['addText', 4],
  ['addAll', 1],
  ['prepend', 3],
  ['addBuffer', 2],
  ['moveSome', 4],
  ['prependBuffer', 1],
  ['addView', 2],
  ['addReference', 3],
  ['addFile', 2],
  ['reserve', 3],
  ['commit', 3],
  ['expand', 1],
  ['remove', 4],
  ['copyOut', 2],
  ['drain', 4],
  ['pullup', 3],
  ['peek', 2],
  ['readln', 4],
  ['indexOf', 3],
  ['indexOfEol', 3],
  ['pipe', 2],
  ['received', 2],
  ['settle', 2],
  ['close', 1],
];
const operation: fc.Arbitrary<Operation> = fc.record({
  kind: fc.oneof(
    ...weights.map(([kind, weight]) => ({ weight, arbitrary: fc.constant(kind as Kind) })),
  ),
  at: fc.nat(BUFFERS - 1),
  other: fc.nat(BUFFERS - 1),
  data: fc.oneof(
    {
      weight: 8,
      arbitrary: fc
        .uint8Array({ maxLength: 12 })
        .map((all) => all.map((b) => [0, 10, 13, 97, 98, 99][b % 6])),
    },
    {
      weight: 2,
      arbitrary: fc
        .array(byte, { minLength: 20, maxLength: 80, size: 'max' })
        .map((all) => Uint8Array.from(all)),
    },
    {
      weight: 1,
      arbitrary: fc
        .integer({ min: 60_000, max: 140_000 })
        .map((size) => new Uint8Array(size).fill(98)),
    },
  ),
  n: fc.oneof({ weight: 4, arbitrary: fc.nat(30) }, { weight: 1, arbitrary: fc.nat(200_000) }),
  m: fc.nat(30),
  eol: fc.constantFrom(...EOLS),
});

// ── the model ───────────────────────────────────────────────────────────────────────────────────

function eolOf(flat: Buffer, eol: Eol, from: number): { at: number; length: number } | undefined {
  const text = flat.toString('latin1');
  const pattern = {
    any: /[\r\n]+/g,
    crlf: /\r?\n/g,
    'crlf-strict': /\r\n/g,
    lf: /\n/g,
    nul: /\0/g,
  }[eol];
  pattern.lastIndex = from;
  const match = pattern.exec(text);
  return match === null ? undefined : { at: match.index, length: match[0].length };
}

function indexIn(flat: Buffer, what: Uint8Array, from: number, to: number): number {
  if (what.length === 0) return from <= to ? from : -1;
  if (from > to) return -1;
  const at = flat.subarray(0, to).indexOf(what, from);
  return at;
}

/** A buffer, the bytes that it must have, and what its listener must be told. */
class Pair {
  readonly real = new EvBuffer();
  flat: Buffer = Buffer.alloc(0);
  reserved: Uint8Array | undefined;
  readonly told: BufferChange[] = [];
  readonly expected: BufferChange[] = [];
  listen(): void {
    this.real.onChange((change) => {
      assert.is(change.before + change.added - change.removed, this.real.length);
      this.told.push({ ...change });
    });
  }
  append(bytes: Uint8Array): void {
    this.put(Buffer.concat([this.flat, bytes]), bytes.length, 0);
  }
  put(flat: Buffer, added: number, removed: number): void {
    if (added > 0 || removed > 0) this.expected.push({ before: this.flat.length, added, removed });
    this.flat = flat;
  }
  drop(count: number): void {
    this.put(this.flat.subarray(count), 0, count);
  }
}

interface Lent {
  released: number;
}

class World {
  readonly pairs = Array.from({ length: BUFFERS }, () => new Pair());
  readonly lent: Lent[] = [];
  readonly segment: FileSegment;
  readonly ends = sys.pipe();
  readonly closed: Lent = { released: 0 };

  constructor(
    readonly file: string,
    readonly fileBytes: Buffer,
  ) {
    for (const pair of this.pairs) pair.listen();
    this.segment = new FileSegment(openSync(file, 'r'), 0, -1, {
      closeFd: true,
      release: () => this.closed.released++,
    });
  }

  run(operation: Operation): void {
    const { kind, n, m, eol } = operation;
    const one = this.pairs[operation.at];
    const other = this.pairs[operation.other];
    const { real, flat } = one;
    const { data } = operation;
    if (kind === 'add') {
      real.add(data);
      one.append(data);
    } else if (kind === 'addText') {
      const text = `${Buffer.from(data).toString('latin1')}${['', 'é', '€', '\ud800', '😀'][m % 5]}`;
      real.add(text);
      one.append(Buffer.from(text));
    } else if (kind === 'addAll') {
      const pieces = [data, 'ab\n', '', data.subarray(0, 1)];
      real.addAll(pieces);
      one.append(Buffer.concat(pieces.map((piece) => Buffer.from(piece as string))));
    } else if (kind === 'prepend') {
      real.prepend(data);
      one.put(Buffer.concat([data, flat]), data.length, 0);
    } else if (kind === 'addBuffer' || kind === 'moveSome') {
      const count = kind === 'addBuffer' ? other.flat.length : Math.min(n, other.flat.length);
      const moved = real.addBuffer(other.real, kind === 'addBuffer' ? undefined : n);
      assert.is(moved, one === other ? 0 : count);
      if (one !== other) {
        one.append(other.flat.subarray(0, count));
        other.drop(count);
      }
    } else if (kind === 'prependBuffer') {
      const count = real.prependBuffer(other.real);
      assert.is(count, one === other ? 0 : other.flat.length);
      if (one !== other) {
        one.put(Buffer.concat([other.flat, flat]), count, 0);
        other.drop(count);
      }
    } else if (kind === 'addView') {
      // It doubles; the machine's memory is not what is tested.
      if (flat.length + other.flat.length > 2_000_000) return;
      real.addView(other.real);
      one.append(other.flat);
    } else if (kind === 'addReference') {
      const lent: Lent = { released: 0 };
      this.lent.push(lent);
      real.addReference(data, () => lent.released++);
      one.append(data);
    } else if (kind === 'addFile') {
      const offset = n % (this.fileBytes.length + 1);
      const length = m === 0 ? -1 : Math.min(m * 5_000, this.fileBytes.length - offset);
      if (m % 2 === 0) real.addFile(this.segment, offset, length);
      else real.addFile(openSync(this.file, 'r'), offset, length);
      const end = length === -1 ? undefined : offset + length;
      one.append(this.fileBytes.subarray(offset, end));
    } else if (kind === 'reserve') {
      one.reserved = real.reserve(n + 1);
      assert.ok(one.reserved.length > n);
      one.reserved.fill(99);
    } else if (kind === 'commit') {
      const count = Math.min(n, one.reserved?.length ?? 0);
      real.commit(count);
      one.reserved = undefined;
      one.append(Buffer.alloc(count, 99));
    } else if (kind === 'expand') real.expand(n);
    else if (kind === 'remove') {
      assert.ok(flat.subarray(0, n).equals(real.remove(n)));
      one.drop(Math.min(n, flat.length));
    } else if (kind === 'copyOut') {
      const at = Math.min(m, flat.length);
      assert.ok(flat.subarray(at, at + n).equals(real.copyOut(n, at)));
    } else if (kind === 'drain') {
      real.drain(n);
      one.drop(Math.min(n, flat.length));
    } else if (kind === 'pullup') {
      const got = real.pullup(m === 0 ? undefined : n);
      const count = m === 0 ? flat.length : n;
      if (count > flat.length) assert.is(got, undefined);
      else {
        assert.ok(flat.subarray(0, count).equals(got as Uint8Array));
        if (count > 0) assert.ok(real.contiguous >= count);
      }
    } else if (kind === 'peek') {
      const at = Math.min(m, flat.length);
      const views = real.peek(n, at);
      assert.ok(flat.subarray(at, at + n).equals(Buffer.concat(views)));
      assert.ok(views.every((view) => view.length > 0));
    } else if (kind === 'readln') {
      const found = eolOf(flat, eol, 0);
      const line = real.readln(eol, 'latin1');
      assert.is(line, found && flat.toString('latin1', 0, found.at));
      if (found !== undefined) one.drop(found.at + found.length);
    } else if (kind === 'indexOf') {
      const what = data.subarray(0, 1 + (m % 4));
      assert.is(real.indexOf(what, m), indexIn(flat, what, m, flat.length));
      const to = Math.min(m + n, flat.length);
      assert.is(real.indexOf(what, m, m + n), indexIn(flat, what, m, to));
      assert.is(real.indexOf(what), indexIn(flat, what, 0, flat.length));
    } else if (kind === 'indexOfEol') {
      assert.equal(real.indexOfEol(eol, m), eolOf(flat, eol, m));
    } else if (kind === 'pipe') this.throughPipe(one, other, n);
    else if (kind === 'received') {
      sys.write(this.ends[1], data, 0, Math.min(data.length, 4096));
      const count = Math.min(data.length, 4096);
      if (count === 0) return;
      assert.is(real.readFrom(this.ends[0]), count);
      one.append(data.subarray(0, count));
    } else if (kind === 'settle') real._settle();
    else {
      const open = real.length;
      real.close();
      one.reserved = undefined;
      assert.is(open, flat.length);
      // Its listeners have ended: there is a new one.
      one.flat = Buffer.alloc(0);
      one.listen();
    }
  }

  /** From one buffer through a pipe to another. */
  throughPipe(one: Pair, other: Pair, n: number): void {
    const wrote = one.real.writeTo(this.ends[1], n);
    if (one.flat.length === 0 || n === 0) {
      assert.is(wrote, 0);
      return;
    }
    assert.ok(wrote > 0 && wrote <= Math.min(n, one.flat.length), String(wrote));
    const bytes = one.flat.subarray(0, wrote);
    one.drop(wrote);
    let read = 0;
    while (read < wrote) {
      const count = other.real.readFrom(this.ends[0], 300_000);
      assert.ok(count > 0, String(count));
      other.append(bytes.subarray(read, read + count));
      read += count;
    }
  }

  check(): void {
    for (const { real, flat, told, expected } of this.pairs) {
      assert.is(real.length, flat.length);
      assert.equal(told, expected);
      told.length = expected.length = 0;
    }
  }

  end(): void {
    for (const { real, flat } of this.pairs) {
      assert.ok(flat.equals(real.copyOut(real.length)));
      real.close();
      assert.is(real.length, 0);
    }
    assert.is(this.closed.released, 0);
    this.segment.close();
    assert.is(this.closed.released, 1);
    for (const { released } of this.lent) assert.is(released, 1);
    const { live, used, retired } = slabUse();
    assert.equal({ live, used, retired }, { live: 0, used: 0, retired: 0 });
  }

  /** A run that failed must not be what makes those fail that shrink it. */
  giveUp(): void {
    for (const { real } of this.pairs) real.close();
    this.segment.close();
    for (const end of this.ends) sys.close(end);
  }
}

const file = join(tmpdir(), `multiloop-model-${process.pid}`);
const fileBytes = Buffer.from(Array.from({ length: 150_000 }, (_, i) => [97, 98, 99, 10][i % 4]));
writeFileSync(file, fileBytes);
test.after(() => rmSync(file));

test('buffers do what a flat array does, and every lender is told once', () => {
  const probe = openSync('/dev/null', 'r');
  closeSync(probe);
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60, size: 'max' }), (operations) => {
      const world = new World(file, fileBytes);
      try {
        for (const one of operations) {
          world.run(one);
          world.check();
        }
        world.end();
      } finally {
        world.giveUp();
      }
    }),
    { numRuns: 400, includeErrorInReport: true },
  );
  // Every descriptor that a run opened was closed: the next one has the same number.
  const next = openSync('/dev/null', 'r');
  closeSync(next);
  assert.is(next, probe);
});

test.run();
