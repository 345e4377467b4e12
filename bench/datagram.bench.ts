// Datagrams beside Node's dgram: one way with a bounded window, and there and back, with messages
// of 64 bytes and of 1 KiB. Both ends run on one thread, pinned to one core, so a message is one
// sent and one received. Of each there is the time that a message takes, whose inverse is how many
// there are in a second, and the processor's part of it.

import { named, nodeProgram } from './peers/program.js';
import { type BenchOptions, type Case, caseOf, inTurn } from './report.js';

const MODES = [
  { mode: 'flood', name: 'one way' },
  { mode: 'ping', name: 'there and back' },
];
const BYTES = [64, 1_024];

export default async function* datagram(options: BenchOptions): AsyncIterable<Case> {
  const pairs = options.quick ? 3 : 7;
  const count = options.quick ? 60_000 : 300_000;
  for (const { mode, name } of MODES) {
    for (const bytes of BYTES) {
      const run = (program: string) => () => named(nodeProgram(program, mode, count, bytes), true);
      const runs = await inTurn<'ours' | 'node', Record<string, number>>(pairs, {
        ours: run('datagram_multiloop'),
        node: run('datagram_node'),
      });
      for (const [key, what] of [
        ['message', 'a message'],
        ['cpu', 'CPU a message'],
      ]) {
        const ours = runs.ours.map((one) => one[key]);
        const theirs = { name: 'dgram', runs: runs.node.map((one) => one[key]) };
        yield caseOf(`${name}, ${bytes} B, ${what}`, 'µs', ours, theirs);
      }
    }
  }
}
