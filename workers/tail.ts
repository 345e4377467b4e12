// Sends every new line of a FIFO or of a file to whoever is connected, on any of the loops.
//
//   FIFO or file ──► loop 0: source ──┬──────────────────────► its clients
//                                     └─ BroadcastChannel ──► loops 1 … n ──► their clients
//
// A FIFO's bytes go to one reader, so loop 0 alone reads. A client that reads too slowly misses
// lines instead of making the process grow: while write() answers false, which is above 64 KiB of
// output, they are dropped, and then it is told how many. What clients send is ignored.

import { resolve } from 'node:path';
import { BroadcastChannel } from 'node:worker_threads';
import {
  type Connection,
  defineWorker,
  type EventHandle,
  type LoopContext,
  MultiloopError,
} from '../src/index.js';
import type { Lines } from './tail/lines.js';
import { type Place, Source } from './tail/source.js';

/** Batches of lines that a loop may be behind loop 0, which then waits with reading. */
const BEHIND_MAX = 16;
/** How often loop 0 looks whether those that are behind have caught up. */
const BEHIND_LOOK_MS = 1;
/** A loop that hangs or is being replaced holds up the others for this long, then once more. */
const BEHIND_WAIT_MS = 1_000;
/** How long a new loop 0 waits to be told where the old one was. */
const RESUME_WAIT_MS = 200;
/** What serve() allows. */
const LOOPS_MAX = 512;
/** Batches are numbered from 1 to this, and again. */
const NUMBER_MAX = 2 ** 30;

// ── clients ──

interface State {
  /** write() has answered false. */
  isFull: boolean;
  /** Lines that were dropped since. */
  missed: number;
}

const clients = new Set<Connection<State>>();

function giveAll({ bytes, count }: Lines): void {
  if (count === 0) return;
  for (const conn of clients) {
    const { state } = conn;
    if (state.isFull) state.missed += count;
    else state.isFull = !conn.write(bytes);
  }
}

// ── between the loops ──

/** Lines for everybody, and what a loop has to note when it has given them to its clients. */
interface Batch extends Lines {
  place: Place | undefined;
  number: number;
  progress: Int32Array;
}
/** Of a loop 0 that takes the place of one that died; whoever knows answers with the place. */
interface Question {
  isQuestion: true;
}
interface Answer {
  place: Place;
}
type Message = Batch | Question | Answer;

/** Two groups in one process must not follow the same file: they would share the channel. */
function openChannel(file: string): BroadcastChannel {
  const channel = new BroadcastChannel(`multiloop.tail ${process.pid} ${file}`);
  channel.unref();
  return channel;
}

function listen(channel: BroadcastChannel, hear: (message: Message) => void): void {
  channel.onmessage = (event: unknown) => hear((event as { data: Message }).data);
}

/** Every loop but 0: gives its clients what it hears, and remembers how far loop 0 has come. */
function follow(loop: LoopContext, channel: BroadcastChannel): void {
  let place: Place | undefined;
  listen(channel, (message) => {
    if ('isQuestion' in message) {
      if (place !== undefined) channel.postMessage({ place } satisfies Answer);
    } else if ('progress' in message) {
      place = message.place;
      giveAll(message);
      Atomics.store(message.progress, loop.id, message.number);
    }
  });
}

/**
 * Loop 0: reads, and gives the lines to all. The channel's queue has no limit, so each loop notes
 * in shared memory which batch it has given out, and reading waits for the slowest. A message back
 * for every batch would go to all loops, since a channel knows no addressee.
 */
class Reader {
  readonly source: Source;
  readonly #loop: LoopContext;
  readonly #channel: BroadcastChannel;
  /** The number of the last batch by loop; 0 for one that has noted nothing yet. */
  readonly #progress = new Int32Array(new SharedArrayBuffer(LOOPS_MAX * 4));
  readonly #wait: EventHandle;
  #number = 0;
  #waitingSince = 0;

  constructor(loop: LoopContext, file: string, channel: BroadcastChannel) {
    this.#loop = loop;
    this.#channel = channel;
    this.#wait = loop.base.timer(() => this.#lookBehind());
    this.source = new Source(loop.base, file, {
      take: (lines, place) => this.#take(lines, place),
      tell: (text) => console.error(`tail: ${text}`),
    });
  }

  /** Where the loop 0 before this one was, if another loop knows. */
  askPlace(): Promise<Place | undefined> {
    return new Promise((resolve) => {
      const late = setTimeout(() => resolve(undefined), RESUME_WAIT_MS);
      listen(this.#channel, (message) => {
        if (!('place' in message)) return;
        clearTimeout(late);
        resolve(message.place);
      });
      this.#channel.postMessage({ isQuestion: true } satisfies Question);
    });
  }

  close(): void {
    this.source.close();
    this.#wait.free();
  }

  #take(lines: Lines, place: Place | undefined): boolean {
    giveAll(lines);
    const number = (this.#number % NUMBER_MAX) + 1;
    this.#number = number;
    const batch: Batch = { ...lines, place, number, progress: this.#progress };
    this.#channel.postMessage(batch);
    if (!this.#isAnyBehind()) return true;
    this.#waitingSince = this.#loop.base.now();
    this.#wait.add(BEHIND_LOOK_MS);
    return false;
  }

  #isBehind(loop: number): boolean {
    const noted = Atomics.load(this.#progress, loop);
    if (noted === 0) return false;
    return (this.#number - noted + NUMBER_MAX) % NUMBER_MAX >= BEHIND_MAX;
  }

  #isAnyBehind(): boolean {
    for (let loop = 1; loop < LOOPS_MAX; loop++) if (this.#isBehind(loop)) return true;
    return false;
  }

  #lookBehind(): void {
    if (this.#isAnyBehind()) {
      if (this.#loop.base.now() - this.#waitingSince < BEHIND_WAIT_MS) {
        this.#wait.add(BEHIND_LOOK_MS);
        return;
      }
      for (let loop = 1; loop < LOOPS_MAX; loop++)
        if (this.#isBehind(loop)) Atomics.store(this.#progress, loop, this.#number);
    }
    this.source.resume();
  }
}

// ── the worker ──

export default defineWorker<State>({
  async start(loop) {
    const file = fileOf(loop.workerData);
    const channel = openChannel(file);
    const close = loop.id === 0 ? await read(loop, file, channel) : undefined;
    if (close === undefined) follow(loop, channel);
    // Not in the stop hook, which comes after the last connection: those would go on getting lines.
    loop.signal.addEventListener('abort', () => {
      clients.clear();
      channel.close();
      close?.();
    });
  },
  open(conn) {
    conn.state = { isFull: false, missed: 0 };
    clients.add(conn);
  },
  writable(conn) {
    // One that has ended its side is only waited for until its output is written.
    if (!clients.has(conn)) return;
    const { state } = conn;
    const { missed } = state;
    state.missed = 0;
    const what = missed === 1 ? 'line' : 'lines';
    // What was written before are whole lines, so this is one of its own.
    state.isFull = missed > 0 && !conn.write(`tail: ${missed} ${what} missed\n`);
  },
  end(conn) {
    clients.delete(conn);
    conn.end();
  },
  close(conn) {
    clients.delete(conn);
  },
});

async function read(loop: LoopContext, file: string, channel: BroadcastChannel) {
  const reader = new Reader(loop, file, channel);
  if (loop.generation === 0) reader.source.start();
  else reader.source.startAgain(await reader.askPlace());
  return () => reader.close();
}

function fileOf(data: unknown): string {
  const words = (data as { arguments?: unknown } | null | undefined)?.arguments;
  const [file] = Array.isArray(words) ? words : [];
  if (typeof file === 'string' && file !== '') return resolve(file);
  throw new MultiloopError('ERR_WORKER_LOAD', 'tail needs workerData: { arguments: [FILE] }');
}
