// libevent's own benchmark, over each backend, beside libevent in C: the time from the first byte
// in a ring of socket pairs until as many were read as were written. Ours is the public API with
// the callbacks in JavaScript; bench/peers/seed_libevent.c has what a run does.
//
// Node always has several threads, and the kernel then counts a reference to each descriptor that
// a system call looks at, which a process of one thread is spared. poll and select look at all of
// them, so there is a second peer for these two: libevent with an idle thread beside its own.

import { type BackendName, EventBase } from '../src/index.js';
import { libeventPeer } from './peers/compile.js';
import { nativeProgram, nodeProgram, numbers, type Program } from './peers/program.js';
import { type BenchOptions, type Case, median, paired } from './report.js';

const SHAPES = [
  { active: 1, writes: 100 },
  { active: 100, writes: 1_000 },
];
/** Pairs of descriptors; 9,000 is what a limit of 20,000 descriptors lets one process hold. */
const SIZES = [100, 1_000, 4_000, 9_000];

/** Microseconds of a run, by the median of the 25 that one process makes. */
const measure = async (program: Program) => median(await numbers(program, true));

/** --quick leaves out what takes long, and what the peer cannot do for select. */
const QUICK_SIZES: Partial<Record<BackendName, number[]>> = {
  epoll: [100, 1_000],
  poll: [1_000],
  select: [100],
  io_uring: [100, 1_000],
};

/** libevent has no io_uring: ours is put beside its epoll. */
const peerBackend = (backend: BackendName) => (backend === 'io_uring' ? 'epoll' : backend);

function cases(quick: boolean): { backend: BackendName; size: number }[] {
  const backends = EventBase.backends().filter((one) => one.available);
  return backends.flatMap(({ name }) =>
    (quick ? (QUICK_SIZES[name] ?? []) : SIZES).map((size) => ({ backend: name, size })),
  );
}

export default async function* seed(options: BenchOptions): AsyncIterable<Case> {
  const pairs = options.quick ? 2 : 5;
  const peer = libeventPeer(options, 'seed_libevent', ['-levent_core']);
  for (const { backend, size } of cases(options.quick)) {
    for (const { active, writes } of SHAPES) {
      const args = [backend, size, active, writes];
      const other = peerBackend(backend) === backend ? '' : ` beside ${peerBackend(backend)}`;
      const name = `${backend}${other}, ${active} active of ${size}, ${writes} writes`;
      const theirArgs = [peerBackend(backend), size, active, writes];
      const theirs = peer && nativeProgram(peer.command, ...theirArgs);
      const able = theirs !== undefined && (backend !== 'select' || (await isAble(name, theirs)));
      const ours = () => measure(nodeProgram('seed_multiloop', ...args));
      if (!able) {
        yield await paired(name, 'µs', pairs, ours);
        continue;
      }
      const alone = { name: peer?.name ?? '', run: () => measure(theirs) };
      yield await paired(name, 'µs', pairs, ours, alone);
      if (peerBackend(backend) === 'epoll') continue;
      const threaded = nativeProgram(theirs.command, ...args, 1);
      const beside = { name: `${alone.name}, 2 threads`, run: () => measure(threaded) };
      yield await paired(name, 'µs', pairs, ours, beside);
    }
  }
}

/**
 * Whether the peer gets through this case. libevent's select does not everywhere: its sets grow,
 * but where it was compiled with a checked FD_SET (_FORTIFY_SOURCE), a descriptor past 1,023 ends
 * the process.
 */
async function isAble(name: string, peer: Program): Promise<boolean> {
  try {
    await measure(peer);
    return true;
  } catch (error) {
    console.error(`bench: ${name}: no peer: ${(error as Error).message}`);
    return false;
  }
}
