// The event layer's suite is written once. A behaviour registered here becomes one test for every
// backend of this machine with every waker, in every way in which a base can dispatch on it:
//
//   loopSync       blocks this thread
//   base drive     loop(); the backend waits and libuv's descriptor is one more in it
//   libuv drive    loop(); libuv waits for the backend's descriptor (epoll alone has one)
//
// After each test every base is closed, every descriptor given back, and their number compared.

import { setImmediate as turn } from 'node:timers/promises';
import { type Test, test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type BackendName,
  EventBase,
  type EventBaseOptions,
  type Feature,
  type LoopResult,
  sys,
  type WakerName,
} from '../../src/index.js';
import { nestable, testedBackends, wakersOf } from '../machine.js';
import { assertNoneLeft, openDescriptors, PATIENCE_MS, within } from './support.js';

/** Those that a behaviour is tested over. */
export const backendsHere = testedBackends;

export type Way = 'loopSync' | 'base drive' | 'libuv drive';

export function waysOf(backend: BackendName): Way[] {
  return nestable.includes(backend)
    ? ['loopSync', 'base drive', 'libuv drive']
    : ['loopSync', 'base drive'];
}

/** What one test gets: bases of its backend and waker, a way to run them, and descriptors. */
export class Trial {
  readonly backend: BackendName;
  readonly waker: WakerName;
  readonly way: Way;
  readonly #bases: EventBase[] = [];
  readonly #descriptors = new Set<number>();

  constructor(backend: BackendName, waker: WakerName, way: Way) {
    this.backend = backend;
    this.waker = waker;
    this.way = way;
  }

  get sync(): boolean {
    return this.way === 'loopSync';
  }

  base(options: EventBaseOptions = {}): EventBase {
    const drive = this.way === 'libuv drive' ? 'libuv' : 'base';
    const { backend, waker } = this;
    const base = new EventBase({ backend, waker, drive, debug: true, ...options });
    this.#bases.push(base);
    // A matrix in which an option were lost on its way would run one of its cases many times.
    assert.is(base.backend, options.backend ?? backend);
    assert.is(base.waker, options.waker ?? waker);
    return base;
  }

  /** One loop, in this trial's way. What loopSync throws, this rejects with. */
  async run(base: EventBase, flags = 0): Promise<LoopResult> {
    return this.sync ? base.loopSync(flags) : await base.loop(flags);
  }

  pair(): [number, number] {
    return this.#own(sys.socketPair());
  }
  pipe(): [number, number] {
    return this.#own(sys.pipe());
  }
  own(fd: number): number {
    this.#descriptors.add(fd);
    return fd;
  }
  /** Somebody else closes it from now on. */
  disown(fd: number): number {
    this.#descriptors.delete(fd);
    return fd;
  }
  close(fd: number): void {
    this.#descriptors.delete(fd);
    assert.is(sys.close(fd), 0);
  }

  /** Makes `fd`'s other end readable. */
  write(fd: number, text = 'x'): void {
    assert.is(sys.write(fd, Buffer.from(text)), text.length);
  }
  /** Reads what is there; '' is the end of the stream. */
  read(fd: number): string {
    const bytes = Buffer.alloc(4096);
    const count = sys.read(fd, bytes);
    assert.ok(count >= 0, `read answers ${count}`);
    return bytes.toString('latin1', 0, count);
  }

  end(): void {
    for (const base of this.#bases) base.close();
    for (const fd of this.#descriptors) sys.close(fd);
  }

  #own(ends: [number, number]): [number, number] {
    for (const fd of ends) this.#descriptors.add(fd);
    return ends;
  }
}

export interface Limits {
  /** Only these backends; all of the machine by default. */
  backends?: readonly BackendName[];
  /** Only backends with these features. */
  has?: readonly Feature[];
  /** Only backends without any of these. */
  lacks?: readonly Feature[];
  ways?: readonly Way[];
}

/** Registers `body` as a test for each backend, waker and way. */
export function behaviour(
  name: string,
  body: (trial: Trial) => void | Promise<void>,
  limits: Limits = {},
  register: Test = test,
): void {
  for (const { backend, waker, way } of cases(limits)) {
    register(`${backend}, ${waker}, ${way}: ${name}`, async () => {
      openOnce();
      const before = openDescriptors();
      const trial = new Trial(backend, waker, way);
      try {
        await within(PATIENCE_MS, body(trial));
      } finally {
        trial.end();
        // A base that is closed in its own turn goes when that turn is over.
        await turn();
      }
      assertNoneLeft(before);
    });
  }
}

function* cases(limits: Limits): Iterable<{ backend: BackendName; waker: WakerName; way: Way }> {
  for (const backend of testedBackends) {
    if (limits.backends !== undefined && !limits.backends.includes(backend)) continue;
    const features = featuresOf(backend);
    if (limits.has?.some((feature) => !features.includes(feature))) continue;
    if (limits.lacks?.some((feature) => features.includes(feature))) continue;
    for (const waker of wakersOf(backend)) {
      for (const way of waysOf(backend)) {
        if (limits.ways !== undefined && !limits.ways.includes(way)) continue;
        yield { backend, waker, way };
      }
    }
  }
}

function featuresOf(backend: BackendName): Feature[] {
  return EventBase.backends().find(({ name }) => name === backend)?.features ?? [];
}

let opened = false;

/**
 * The first signal of a process opens the descriptors of the loop that catches signals, and they
 * stay. They are opened before any are counted, so that the counts can be exact.
 */
export function openOnce(): void {
  if (opened) return;
  opened = true;
  const base = new EventBase();
  base.signal('SIGWINCH', () => undefined).add();
  base.close();
}

export const asynchronous: Limits = { ways: ['base drive', 'libuv drive'] };
