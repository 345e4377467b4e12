// The clients of the bench `handoff`: connections that ask once and are closed by the server, and
// connections that stay. A wrong answer is an error of the bench.

import net, { type Socket } from 'node:net';
import { answerCalls, millis, quantile, sequence } from './rpc.js';

const HOST = '127.0.0.1';
/** Addresses of clients, so that a policy that goes by them has something to go by. */
const ADDRESSES = 200;
/** So many connect at once, in churn. */
const CHURN_WIDTH = 8;
/** A client that waits longer hangs, and the bench fails. */
const ANSWER_MS = 10_000;

export interface At {
  port: number;
  /** Answers are the number of a loop below this. */
  workers: number;
}

let made = 0;

function dial({ port }: At): Socket {
  const address = made++ % ADDRESSES;
  const localAddress = `127.0.${1 + (address >> 6)}.${1 + (address & 63)}`;
  return net.connect({ port, host: HOST, localAddress, noDelay: true });
}

function checked(answer: string, { workers }: At): number {
  const number = Number(answer);
  if (!/^\d+\n$/.test(answer) || number >= workers)
    throw new Error(`a client was answered ${JSON.stringify(answer)}`);
  return number;
}

/** Connects, asks, is answered, is closed. Answers the milliseconds to the first byte. */
function short(at: At): Promise<number> {
  return new Promise((resolve, reject) => {
    const began = millis();
    let first = 0;
    let answer = '';
    const socket = dial(at);
    socket.write('q');
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error('a client waits in vain')));
    socket.on('data', (data) => {
      if (first === 0) first = millis();
      answer += data.toString('latin1');
    });
    socket.on('error', reject);
    socket.on('close', () => {
      try {
        checked(answer, at);
        resolve(first - began);
      } catch (error) {
        reject(error);
      }
    });
  });
}

/** `count` short connections, `width` of them at any time. */
async function closed({ width, count, ...at }: At & { width: number; count: number }) {
  let left = count;
  const one = async () => {
    while (left-- > 0) await short(at);
  };
  await Promise.all(Array.from({ length: width }, one));
}

/** So many short connections a second, whether the earlier ones are answered or not. */
async function paced(load: At & { perSecond: number; ms: number }): Promise<Figures> {
  const { perSecond, ms, ...at } = load;
  const all: Promise<number>[] = [];
  const began = millis();
  await new Promise<void>((resolve) => {
    const tick = setInterval(() => {
      const elapsed = millis() - began;
      const due = Math.floor((Math.min(elapsed, ms) / 1_000) * perSecond);
      while (all.length < due) all.push(short(at));
      if (elapsed < ms) return;
      clearInterval(tick);
      resolve();
    }, 1);
  });
  const times = await Promise.all(all);
  return { p50: quantile(times, 0.5), p99: quantile(times, 0.99), count: times.length };
}
export interface Figures {
  p50: number;
  p99: number;
  count: number;
}

// ── connections that stay ──

class Stayer {
  readonly #socket: Socket;
  readonly #at: At;

  private constructor(socket: Socket, at: At) {
    this.#socket = socket;
    this.#at = at;
  }

  static async open(at: At): Promise<Stayer> {
    const one = new Stayer(dial(at), at);
    // Answered once, so that it has a loop.
    await one.where();
    return one;
  }

  /** The number of the loop that serves it. */
  where(): Promise<number> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      const gone = () => reject(new Error('a connection was closed'));
      socket.once('close', gone);
      socket.once('error', reject);
      socket.once('data', (data) => {
        socket.off('close', gone);
        socket.off('error', reject);
        try {
          resolve(checked(data.toString('latin1'), this.#at));
        } catch (error) {
          reject(error);
        }
      });
      socket.write('w');
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#socket.once('close', () => resolve());
      this.#socket.end();
    });
  }
}

let stayers: Stayer[] = [];
/** `count` connections, of which one after another is replaced, each `times` times in the mean. */
async function churn(load: At & { count: number; times: number; seed: number }): Promise<number> {
  const { count, times, ...at } = load;
  const random = sequence(load.seed);
  stayers = [];
  while (stayers.length < count) stayers.push(await Stayer.open(at));
  let left = count * times;
  const busy = new Set<number>();
  const one = async () => {
    while (left-- > 0) {
      let i = Math.floor(random() * count);
      while (busy.has(i)) i = (i + 1) % count;
      busy.add(i);
      await stayers[i].close();
      stayers[i] = await Stayer.open(at);
      busy.delete(i);
    }
  };
  await Promise.all(Array.from({ length: Math.min(CHURN_WIDTH, count - 1) }, one));
  return imbalance(at);
}

/** The most connections that a loop has, to the mean. */
async function imbalance(at: At): Promise<number> {
  const loads = new Array<number>(at.workers).fill(0);
  for (const number of await Promise.all(stayers.map((one) => one.where()))) loads[number]++;
  return Math.max(...loads) / (stayers.length / at.workers);
}

async function leave(): Promise<void> {
  await Promise.all(stayers.map((one) => one.close()));
  stayers = [];
}

answerCalls({ closed, paced, churn, imbalance, leave });
