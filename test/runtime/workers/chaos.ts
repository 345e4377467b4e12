// The worker of the chaos test: answers numbered frames and refuses one that is not the next, with
// its state packed on moves and kept in the checkpoint for rescues. Told to, it moves connections,
// blocks its loop or ends its thread.

import { type Connection, defineWorker, type LoopContext } from '../../../src/index.js';
import { type Frame, frame, HEADER, Kind, parse, Random } from '../chaos/frames.js';

interface State {
  /** Of the request that has to come next. */
  next: number;
  /** The beginning of a request. */
  rest: Buffer;
  rescues: number;
  held?: Disposable;
}

export type Order =
  | { order: 'move'; seed: number; count: number }
  | { order: 'block'; ms: number }
  | { order: 'die'; way: keyof typeof ways }
  | { order: 'nothing' };

/** Bytes of `rest` that a checkpoint has room for; with more the connection is held. */
const REST_MAX = 200;

const ways = {
  throw: () => {
    setImmediate(() => {
      throw new Error('of chaos');
    });
  },
  tick: () => {
    process.nextTick(() => {
      throw new Error('of chaos');
    });
  },
  here: () => {
    exitInHook = true;
  },
  reject: () => {
    Promise.reject(new Error('of chaos'));
  },
  exit: () => process.exit(3),
  memory: () => {
    const kept: unknown[] = [];
    setImmediate(() => {
      for (;;) kept.push([kept.length]);
    });
  },
};

let exitInHook = false;
const loopsOf = (loop: LoopContext) => (loop.workerData as { loops: number }).loops;
const turn = () => new Promise((resolve) => setImmediate(resolve));

function answer(request: Frame, rescues: number): Buffer {
  const length = request.word === Kind.BIG ? request.argument : request.length >> 1;
  return frame('answer', { ...request, length, word: rescues });
}

/** The next request, taken off what has come; throws when it is not the next. */
function take(state: State): Frame | undefined {
  const request = parse('request', state.rest, 0);
  if (request === undefined) return undefined;
  state.rest = state.rest.subarray(HEADER + request.length);
  if (request.number !== state.next)
    throw new Error(`request ${request.number} came in place of ${state.next}`);
  state.next++;
  return request;
}

/** What the connection is known by, before it can be at a boundary. */
function save(conn: Connection<State>): void {
  const { state } = conn;
  const whole = state.rest.length <= REST_MAX;
  if (whole) {
    const head = Buffer.from(Uint32Array.of(state.next, state.rescues).buffer);
    conn.checkpoint(Buffer.concat([head, state.rest]));
    state.held?.[Symbol.dispose]();
    state.held = undefined;
  } else {
    state.held ??= conn.hold();
  }
}

function pauseFor(conn: Connection<State>): void {
  const held = conn.hold();
  conn.pause();
  setImmediate(() => {
    if (!conn.closed) conn.resume();
    held[Symbol.dispose]();
  });
}

async function serve(conn: Connection<State>, first: Frame): Promise<void> {
  let request: Frame | undefined = first;
  while (request !== undefined) {
    if (request.word === Kind.ASYNC) await turn();
    // The peer may have gone meanwhile.
    if (conn.closed) return;
    obey(conn, request);
    request = take(conn.state);
  }
  save(conn);
}

function obey(conn: Connection<State>, request: Frame): void {
  if (request.word === Kind.MOVE)
    conn.move(request.argument % loopsOf(conn.loop)).catch(() => undefined);
  if (request.word === Kind.PAUSE) pauseFor(conn);
  conn.write(answer(request, conn.state.rescues));
}

function becomeDuplex(conn: Connection<State>): void {
  const { state } = conn;
  const duplex = conn.toDuplex({ allowHalfOpen: true });
  const go = () => {
    for (let request = take(state); request !== undefined; request = take(state))
      duplex.write(answer(request, state.rescues));
  };
  duplex.on('data', (chunk: Buffer) => {
    state.rest = Buffer.concat([state.rest, chunk]);
    go();
  });
  duplex.on('end', () => duplex.end());
  duplex.on('error', () => undefined);
  go();
}

export default defineWorker<State>({
  open(conn) {
    conn.state = { next: 0, rest: Buffer.alloc(0), rescues: 0 };
  },
  data(conn, chunk) {
    if (exitInHook) process.exit(4);
    const { state } = conn;
    state.rest = Buffer.concat([state.rest, chunk]);
    for (let request = take(state); request !== undefined; request = take(state)) {
      if (request.word === Kind.ASYNC) return serve(conn, request);
      obey(conn, request);
      if (request.word === Kind.DUPLEX) {
        becomeDuplex(conn);
        return undefined;
      }
    }
    save(conn);
    return undefined;
  },
  pack({ state }) {
    return { next: state.next, rest: state.rest, rescues: state.rescues };
  },
  unpack(conn, packed) {
    conn.state = { ...packed, rest: Buffer.from(packed.rest) };
    save(conn);
  },
  rescue(conn, checkpoint) {
    const bytes = Buffer.from(checkpoint ?? new Uint8Array(8));
    conn.state = {
      next: bytes.readUInt32LE(0),
      rescues: bytes.readUInt32LE(4) + 1,
      rest: Buffer.from(bytes.subarray(8)),
    };
    save(conn);
  },
  message(value, loop: LoopContext) {
    const order = value as Order;
    if (order.order === 'die') ways[order.way]();
    if (order.order === 'block') {
      const end = performance.now() + order.ms;
      while (performance.now() < end);
    }
    if (order.order !== 'move') return;
    const random = new Random(order.seed);
    const loops = loopsOf(loop);
    for (const conn of loop.connections())
      if (random.once(order.count)) conn.move(random.below(loops)).catch(() => undefined);
  },
});
