// EvBuffer beside what is usual in Node: an array of chunks and Buffer.concat, or the package bl.
//
// Neither of the two copies what it is given, since what a socket of Node delivers is memory of
// its own; EvBuffer's add() copies into a slab, and is measured with that. All three end each round
// empty, and each takes out the same bytes or text.

import { BufferList } from 'bl';
import { Bench as Tinybench } from 'tinybench';
import { EvBuffer } from '../src/index.js';
import { type BenchOptions, type Case, caseOf, inTurn } from './report.js';

interface Workload {
  name: string;
  /** Operations in a round; the result is what one of them takes. */
  operations: number;
  ours(): unknown;
  concat?(): unknown;
  bl(): unknown;
}

const LF = 10;
const HEADER = 4;
const BODY = 60;

const small = Buffer.alloc(64, 'x');
const text = 'sixteen letters.';
const kib = Buffer.alloc(1024, 'x');
const many = Buffer.alloc(64 * 1024, 'x');
const needle = Buffer.from('needle in a stack');
/** Lines of 40 bytes, in chunks that end anywhere. */
const lines = Buffer.from(`${'l'.repeat(39)}\n`.repeat(1_638));
const lineChunks = Array.from({ length: 16 }, (_, i) => lines.subarray(i * 4_095, (i + 1) * 4_095));
const lineCount = Math.floor((16 * 4_095) / 40);
/** Messages of a length in 4 bytes and a body, in chunks that end anywhere. */
const messages = Buffer.concat(
  Array.from({ length: 1_000 }, () => {
    const message = Buffer.alloc(HEADER + BODY, 'm');
    message.writeUInt32BE(BODY);
    return message;
  }),
);
const messageChunks: Buffer[] = [];
for (let at = 0; at < messages.length; at += 1_460)
  messageChunks.push(messages.subarray(at, at + 1_460));

function times(count: number, work: () => void): void {
  for (let i = 0; i < count; i++) work();
}

const addBytes: Workload = {
  name: 'add 64 B × 100, take all',
  operations: 100,
  ours() {
    const buffer = new EvBuffer();
    times(100, () => buffer.add(small));
    return buffer.remove(6_400);
  },
  concat() {
    const chunks: Buffer[] = [];
    times(100, () => chunks.push(small));
    return Buffer.concat(chunks);
  },
  bl() {
    const list = new BufferList();
    times(100, () => list.append(small));
    return list.slice();
  },
};

const addText: Workload = {
  name: 'add 16 letters × 100, take all',
  operations: 100,
  ours() {
    const buffer = new EvBuffer();
    times(100, () => buffer.add(text));
    return buffer.remove(1_600);
  },
  concat() {
    const chunks: Buffer[] = [];
    times(100, () => chunks.push(Buffer.from(text)));
    return Buffer.concat(chunks);
  },
  bl() {
    const list = new BufferList();
    times(100, () => list.append(text));
    return list.slice();
  },
};

const move: Workload = {
  name: 'move 64 pieces of 1 KiB',
  operations: 64,
  ours() {
    const [from, to] = [new EvBuffer(), new EvBuffer()];
    times(64, () => from.addReference(kib));
    to.addBuffer(from);
    to.drain(many.length);
    return to;
  },
  bl() {
    const [from, to] = [new BufferList(), new BufferList()];
    times(64, () => from.append(kib));
    to.append(from);
    to.consume(many.length);
    return to;
  },
};

const drain: Workload = {
  name: 'drain 64 KiB of 1 KiB pieces by 64 B',
  operations: 1_024,
  ours() {
    const buffer = new EvBuffer();
    times(64, () => buffer.addReference(kib));
    while (buffer.length > 0) buffer.drain(64);
    return buffer;
  },
  concat() {
    const chunks: Buffer[] = [];
    times(64, () => chunks.push(kib));
    let rest = Buffer.concat(chunks);
    while (rest.length > 0) rest = rest.subarray(64);
    return rest;
  },
  bl() {
    const list = new BufferList();
    times(64, () => list.append(kib));
    while (list.length > 0) list.consume(64);
    return list;
  },
};

const remove: Workload = {
  name: 'remove 1,000 messages of 4 + 60 B',
  operations: 1_000,
  ours() {
    const buffer = new EvBuffer();
    let seen = 0;
    for (const chunk of messageChunks) {
      buffer.add(chunk);
      for (;;) {
        if (buffer.length < HEADER) break;
        const header = buffer.pullup(HEADER) as Buffer;
        const length = header.readUInt32BE();
        if (buffer.length < HEADER + length) break;
        seen += buffer.drain(HEADER).remove(length)[0];
      }
    }
    return seen;
  },
  concat() {
    let rest: Buffer = Buffer.alloc(0);
    let seen = 0;
    for (const chunk of messageChunks) {
      rest = Buffer.concat([rest, chunk]);
      for (;;) {
        if (rest.length < HEADER) break;
        const length = rest.readUInt32BE();
        if (rest.length < HEADER + length) break;
        seen += rest.subarray(HEADER, HEADER + length)[0];
        rest = rest.subarray(HEADER + length);
      }
    }
    return seen;
  },
  bl() {
    const list = new BufferList();
    let seen = 0;
    for (const chunk of messageChunks) {
      list.append(chunk);
      for (;;) {
        if (list.length < HEADER) break;
        const length = list.readUInt32BE(0);
        if (list.length < HEADER + length) break;
        seen += list.slice(HEADER, HEADER + length)[0];
        list.consume(HEADER + length);
      }
    }
    return seen;
  },
};

const readln: Workload = {
  name: 'readln of 40 B lines in 4 KiB chunks',
  operations: lineCount,
  ours() {
    const buffer = new EvBuffer();
    let seen = 0;
    for (const chunk of lineChunks) {
      buffer.add(chunk);
      for (let line = buffer.readln('lf'); line !== undefined; line = buffer.readln('lf'))
        seen += line.length;
    }
    buffer.close();
    return seen;
  },
  concat() {
    let rest: Buffer = Buffer.alloc(0);
    let seen = 0;
    for (const chunk of lineChunks) {
      rest = Buffer.concat([rest, chunk]);
      for (let at = rest.indexOf(LF); at !== -1; at = rest.indexOf(LF)) {
        seen += rest.toString('utf8', 0, at).length;
        rest = rest.subarray(at + 1);
      }
    }
    return seen;
  },
  bl() {
    const list = new BufferList();
    let seen = 0;
    for (const chunk of lineChunks) {
      list.append(chunk);
      for (let at = list.indexOf('\n'); at !== -1; at = list.indexOf('\n')) {
        seen += list.toString('utf8', 0, at).length;
        list.consume(at + 1);
      }
    }
    return seen;
  },
};

/** Looks for what is not there; filling and emptying is part of it. */
function search(count: number, piece: Buffer): Workload {
  return {
    name: `search 17 B in ${count} pieces of ${piece.length} B`,
    operations: 1,
    ours() {
      const buffer = new EvBuffer();
      times(count, () => buffer.addReference(piece));
      return buffer.indexOf(needle);
    },
    concat() {
      const chunks: Buffer[] = [];
      times(count, () => chunks.push(piece));
      return Buffer.concat(chunks).indexOf(needle);
    },
    bl() {
      const list = new BufferList();
      times(count, () => list.append(piece));
      return list.indexOf(needle);
    },
  };
}

const workloads: Workload[] = [
  addBytes,
  addText,
  move,
  drain,
  remove,
  readln,
  search(64, kib),
  search(1_000, small.subarray(0, 16)),
];

type Who = 'ours' | 'concat' | 'bl';

/** Nanoseconds for one operation. */
async function measure(work: () => unknown, operations: number, ms: number): Promise<number> {
  const bench = new Tinybench({ time: ms, warmupTime: ms / 2 });
  bench.add('work', work);
  await bench.run();
  const { latency } = bench.tasks[0].result as { latency: { p50: number } };
  return (latency.p50 * 1e6) / operations;
}

export default async function* buffer({ quick }: BenchOptions): AsyncIterable<Case> {
  const ms = quick ? 100 : 500;
  for (const work of workloads) {
    const { operations } = work;
    const runs = await inTurn<Who, number>(quick ? 3 : 9, {
      ours: () => measure(() => work.ours(), operations, ms),
      bl: () => measure(() => work.bl(), operations, ms),
      ...(work.concat && { concat: () => measure(() => work.concat?.(), operations, ms) }),
    });
    const { ours, concat, bl } = runs;
    if (concat !== undefined)
      yield caseOf(work.name, 'ns', ours, { name: 'Buffer.concat', runs: concat });
    yield caseOf(work.name, 'ns', ours, { name: 'bl', runs: bl });
  }
}
