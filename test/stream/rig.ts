// What the tests of the Duplex adapter share: a base that runs, connections to it from net.Sockets
// of Node's, pairs; and when a test is over, everything closed and the descriptors counted.

import { once } from 'node:events';
import net from 'node:net';
import type { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'uvu';
import {
  type BackendName,
  BufferEvent,
  type DuplexAdapter,
  type DuplexOptions,
  EventBase,
  Listener,
  LoopFlag,
  sys,
} from '../../src/index.js';
import { type Setting, settings } from '../event/setting.js';
import { assertNoneLeft, ended, openDescriptors, PATIENCE_MS, within } from '../event/support.js';
import { warmUp } from '../warm_up.js';

const nothing = () => undefined;

/** A connection: `near` is ours, `far` is Node's. */
export interface Ends {
  bev: BufferEvent;
  near: DuplexAdapter;
  far: net.Socket;
}

type Duplexes = [DuplexAdapter, DuplexAdapter];

export class Rig {
  readonly base: EventBase;
  readonly #listeners: Listener[] = [];
  readonly #streams = new Set<Duplex>();
  readonly #closers: (() => unknown)[] = [];

  constructor({ backend, drive }: { backend: BackendName; drive: 'base' | 'libuv' }) {
    this.base = new EventBase({ backend, drive, debug: true });
    // What a test does not await must not hide how it ended.
    this.base.loop(LoopFlag.NO_EXIT_ON_EMPTY).catch(nothing);
  }

  /** A port on which `onAccept` is given each connection. */
  listen(onAccept: (bev: BufferEvent) => void): number {
    const accept = (fd: number) => onAccept(BufferEvent.socket(this.base, fd));
    const listener = new Listener(this.base, { port: 0, host: '127.0.0.1' }, accept);
    this.#listeners.push(listener);
    const { address } = listener;
    if (!('port' in address)) throw new Error('not a port');
    return address.port;
  }
  /** A port on which every connection is a Duplex. */
  listenDuplex(onAccept: (near: DuplexAdapter) => void, options?: DuplexOptions): number {
    return this.listen((bev) => onAccept(this.own(bev.toDuplex(options))));
  }

  /** A connection of TCP. An 'error' of `far` is not unhandled, and it may half-close. */
  async tcp(options?: DuplexOptions): Promise<Ends> {
    let accepted: (bev: BufferEvent) => void = nothing;
    const accepting = new Promise<BufferEvent>((resolve) => {
      accepted = resolve;
    });
    const port = this.listen(accepted);
    const far = this.own(net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }));
    far.on('error', nothing);
    const bev = await accepting;
    const near = this.own(bev.toDuplex(options));
    if (far.connecting) await once(far, 'connect');
    return { bev, near, far };
  }
  /** Two Duplexes over a pair. */
  pair(options?: DuplexOptions): Duplexes {
    const [one, other] = BufferEvent.pair(this.base);
    return [this.own(one.toDuplex(options)), this.own(other.toDuplex(options))];
  }

  /** Two Duplexes over sockets, each other's peer. */
  sockets(options?: DuplexOptions): Duplexes {
    const [one, other] = sys.socketPair().map((fd) => BufferEvent.socket(this.base, fd));
    return [this.own(one.toDuplex(options)), this.own(other.toDuplex(options))];
  }

  /** Destroyed at the end. */
  own<T extends Duplex>(stream: T): T {
    this.#streams.add(stream);
    stream.once('close', () => this.#streams.delete(stream));
    return stream;
  }
  /** Called at the end, before anything else is closed. */
  atEnd(close: () => unknown): void {
    this.#closers.push(close);
  }

  async end(): Promise<void> {
    for (const close of this.#closers) await close();
    for (const listener of this.#listeners) listener.close();
    for (const stream of [...this.#streams]) {
      stream.on('error', nothing);
      stream.destroy();
      await closed(stream);
    }
    this.base.close();
    // A base that is closed in its own turn goes when that turn is over.
    await turn();
  }
}

/** 'close' alone: events.once() rejects with the 'error' that may come before. */
export function closed(stream: Duplex): Promise<void> {
  return new Promise((resolve) => {
    stream.once('close', () => resolve());
    // It is so before it is told.
    if (stream.closed) setImmediate(resolve);
  });
}

/** Everything until its end, as text. Unlike an iterator this does not destroy the stream then. */
export function textOf(stream: Duplex): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    stream.on('data', (chunk) => chunks.push(chunk));
    stream.once('end', () => resolve(Buffer.concat(chunks).toString('latin1')));
    stream.once('error', reject);
    stream.once('close', () => reject(new Error('it was closed before its end')));
  });
}

/** `count` turns of Node's loop, in which whatever is on its way arrives. */
export async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

/** Waits, turn by turn, for something that no event tells. */
export async function until(holds: () => boolean): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`it never held: ${holds}`);
    await turn();
  }
}

/** Numbers that are the same in every run (mulberry32). */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Bytes of which each differs from its neighbours, and from those a few KiB away. */
export function patterned(length: number, from = 0): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = ((from + i) * 31 + ((from + i) >> 8)) & 0xff;
  return bytes;
}

/** epoll under both drives; what is about the kernel's own ways runs on every backend. */
export const drives: readonly Setting[] = settings.filter(({ backend }) => backend === 'epoll');

/** Registers `body` as a test in each setting. */
export function onEach(
  which: readonly Setting[],
  name: string,
  body: (rig: Rig) => Promise<void> | void,
): void {
  for (const setting of which)
    test(`${setting.backend}, ${setting.drive} drive: ${name}`, async () => {
      await warmUp();
      const before = openDescriptors();
      const rig = new Rig(setting);
      await ended(
        () => within(PATIENCE_MS, body(rig)),
        () => within(PATIENCE_MS, rig.end(), 'the end'),
      );
      assertNoneLeft(before);
    });
}
