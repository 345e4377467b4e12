// The clients of the benches `move` and `reload`: connections that stay and ask one numbered
// question after another, and short ones that ask once. An answer with another number than the
// question's is an error of the bench; a connection that was closed is counted and replaced.

import net, { type Socket } from 'node:net';
import { FRAME, Frames, type Reply, replies, request } from './frames.js';
import { answerCalls, millis, pause, quantile, sequence } from './rpc.js';

const HOST = '127.0.0.1';
const CONNECT_MS = 10_000;
/** A client that waits longer for an answer hangs. */
const HANGS_MS = 5_000;
/** How long before an end a client must have been in one state for the server to know it. */
export const SURE_MS = 20;
/** States that a client remembers, the last ones. */
const REMEMBERED = 64;

export interface Load {
  port: number;
  /** Connections that stay. */
  count: number;
  /** From an answer to the next question. */
  everyMs: number;
  /** Sends half a question, waits as long again, then sends the rest. */
  halves?: boolean;
  /** Short connections a second, beside them. */
  shortPerSecond?: number;
}

/** idle: it was answered; half: half a question has gone; asked: all of one. */
type Phase = 'idle' | 'half' | 'asked';

const random = sequence(1);
let load: Load;
let going = false;
let failure: Error | undefined;
let clients: Client[] = [];
/** Since the last report. */
let seen = fresh();

function fresh() {
  const numbers = (): number[] => [];
  return {
    messages: 0,
    closed: 0,
    shorts: 0,
    shortsFailed: 0,
    stayed: numbers(),
    moved: numbers(),
  };
}

class Client {
  /** The loop or worker that has answered last. */
  who = -1;
  /** When its connection was closed by somebody else. */
  closedAt: number | undefined = undefined;
  answered = 0;
  readonly #socket: Socket;
  readonly #frames = new Frames();
  readonly #phases: { at: number; phase: Phase; who: number }[] = [];
  #number = 0;
  #answeredAt = 0;
  #leaving = false;
  #timer: NodeJS.Timeout | undefined;

  constructor() {
    this.#socket = net.connect({ port: load.port, host: HOST, noDelay: true });
    this.#socket.on('data', (data) => this.#came(data));
    this.#socket.on('error', () => this.#gone());
    this.#socket.on('end', () => this.#gone());
    this.#socket.on('close', () => this.#gone());
  }

  /** Resolves when it was answered once. */
  static async open(): Promise<Client> {
    const one = new Client();
    const end = millis() + CONNECT_MS;
    one.#ask();
    while (one.answered === 0) {
      if (one.closedAt !== undefined || millis() > end)
        throw new Error('a client was not served at all');
      await pause(1);
    }
    return one;
  }

  #enter(phase: Phase): void {
    this.#phases.push({ at: millis(), phase, who: this.who });
    if (this.#phases.length > REMEMBERED) this.#phases.shift();
  }

  #ask(): void {
    if (!going || this.closedAt !== undefined) return;
    const frame = request(++this.#number);
    if (load.halves !== true) {
      this.#enter('asked');
      this.#socket.write(frame);
      return;
    }
    this.#enter('half');
    this.#socket.write(frame.subarray(0, FRAME / 2));
    this.#timer = setTimeout(() => {
      if (this.closedAt !== undefined) return;
      this.#enter('asked');
      this.#socket.write(frame.subarray(FRAME / 2));
    }, this.#rest());
  }

  #came(data: Buffer): void {
    const whole = this.#frames.take(data);
    if (whole !== undefined) for (const reply of replies(whole)) this.#reply(reply);
  }

  #reply({ number, who }: Reply): void {
    if (number !== this.#number) {
      failure ??= new Error(`question ${this.#number} was answered with ${number}`);
      return;
    }
    const now = millis();
    if (this.answered > 0)
      (who === this.who ? seen.stayed : seen.moved).push(now - this.#answeredAt);
    this.#answeredAt = now;
    this.who = who;
    this.answered++;
    seen.messages++;
    this.#enter('idle');
    if (load.everyMs === 0) this.#ask();
    else this.#timer = setTimeout(() => this.#ask(), this.#rest());
  }

  /** Never the same, or the clients would all ask at once before long. */
  #rest(): number {
    return load.everyMs * (this.answered === 1 ? 2 * random() : 0.75 + random() / 2);
  }

  #gone(): void {
    if (this.closedAt !== undefined) return;
    this.closedAt = millis();
    clearTimeout(this.#timer);
    this.#socket.destroy();
    if (!this.#leaving) seen.closed++;
  }

  /** What it was in at `at`, and whether for so long that its server knew. */
  at(at: number): { phase: Phase; who: number; sure: boolean } | undefined {
    const phase = this.#phases.findLast((one) => one.at <= at);
    return phase && { ...phase, sure: phase.at < at - SURE_MS };
  }

  leave(): void {
    this.#leaving = true;
    clearTimeout(this.#timer);
    this.#socket.destroy();
  }
}

// ── beside them ──

let shortTimer: NodeJS.Timeout | undefined;

function short(): void {
  let answered = 0;
  seen.shorts++;
  const socket = net.connect({ port: load.port, host: HOST, noDelay: true });
  socket.setTimeout(HANGS_MS, () => socket.destroy());
  socket.write(request(7));
  socket.on('data', (data) => {
    answered += data.length;
    if (answered >= FRAME) socket.end();
  });
  socket.on('error', () => undefined);
  socket.on('close', () => {
    if (answered !== FRAME) seen.shortsFailed++;
  });
}

// ── calls ──

async function start(what: Load): Promise<void> {
  load = what;
  going = true;
  failure = undefined;
  seen = fresh();
  clients = await Promise.all(Array.from({ length: load.count }, () => Client.open()));
  const { shortPerSecond: perSecond = 0 } = load;
  if (perSecond > 0) shortTimer = setInterval(short, 1_000 / perSecond);
}

/** Those that were closed are opened again, and those on loop `anew`. */
async function replace(anew = -1): Promise<void> {
  clients = await Promise.all(
    clients.map((one) => {
      if (one.closedAt === undefined && one.who !== anew) return one;
      one.leave();
      return Client.open();
    }),
  );
}

export interface Report {
  messages: number;
  closed: number;
  shorts: number;
  shortsFailed: number;
  /** Milliseconds from one answer to the next: by the same loop, and by another one. */
  stayed: Gaps;
  moved: Gaps;
}
export interface Gaps {
  count: number;
  p50: number;
  p99: number;
  max: number;
}

function gaps(values: number[]): Gaps {
  if (values.length === 0) return { count: 0, p50: 0, p99: 0, max: 0 };
  const max = quantile(values, 1);
  return { count: values.length, p50: quantile(values, 0.5), p99: quantile(values, 0.99), max };
}

/** What was seen since the last report. */
function report(): Report {
  if (failure !== undefined) throw failure;
  const { stayed, moved, ...counts } = seen;
  seen = fresh();
  return { ...counts, stayed: gaps(stayed), moved: gaps(moved) };
}

export interface Aftermath {
  /** Of those that the loop had. */
  closed: number;
  survived: number;
  /** They had been answered and had asked nothing, and were closed all the same. */
  closedAtBoundary: number;
  atBoundary: number;
  /** They were in the middle of a question and live. */
  survivedOffBoundary: number;
  /** Those that another loop had. */
  othersClosed: number;
  hung: number;
  /** Milliseconds from the crash to the last close. */
  lateMs: number;
}

/** What became of the clients of `who`, which died at `at`. Every one that lives is answered. */
async function after({ who, at }: { who: number; at: number }): Promise<Aftermath> {
  const answered = new Map(clients.map((one) => [one, one.answered]));
  // The answer after next is to a question that was asked later than now.
  const waits = (one: Client) =>
    one.closedAt === undefined && one.answered < (answered.get(one) ?? 0) + 2;
  const end = millis() + HANGS_MS;
  while (clients.some(waits) && millis() < end) await pause(5);

  const then = new Map(clients.map((one) => [one, one.at(at)]));
  const victims = clients.filter((one) => then.get(one)?.who === who);
  const others = clients.filter((one) => !victims.includes(one));
  const closed = victims.filter((one) => one.closedAt !== undefined);
  const surely = (one: Client) => (then.get(one)?.sure === true ? then.get(one)?.phase : undefined);
  return {
    closed: closed.length,
    survived: victims.length - closed.length,
    atBoundary: victims.filter((one) => surely(one) === 'idle').length,
    closedAtBoundary: closed.filter((one) => surely(one) === 'idle').length,
    survivedOffBoundary: victims.filter(
      (one) => one.closedAt === undefined && surely(one) === 'half',
    ).length,
    othersClosed: others.filter((one) => one.closedAt !== undefined).length,
    hung: clients.filter(waits).length,
    lateMs: Math.max(0, ...closed.map((one) => (one.closedAt as number) - at)),
  };
}

answerCalls({
  start,
  report,
  replace,
  after,
  async stop() {
    going = false;
    clearInterval(shortTimer);
    await pause(load.everyMs + 50);
    for (const one of clients) one.leave();
    if (failure !== undefined) throw failure;
  },
});
