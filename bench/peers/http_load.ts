// The clients of the bench `http`: each asks again when it was answered. Over raw streams, since a
// client that parses would cost as much as a server: the first answer is read, and all others have
// to be as long and begin alike.

import { BufferEvent, Ev, EventBase, LoopFlag } from '../../src/index.js';
import { answerCalls, millis, quantile } from './rpc.js';
import { frameBytes, HANDSHAKE, masked } from './ws_bytes.js';

export interface Load {
  port: number;
  /** As http_handlers.ts has them; at /ws every message is answered. */
  path: string;
  tls: boolean;
  connections: number;
  /** For how long. */
  ms: number;
}
export interface Asked {
  count: number;
  /** That it took. */
  ms: number;
  /** Milliseconds from a question to the end of its answer. */
  p50: number;
  p99: number;
}

/** As in bench/peers/upload.lua. */
const UPLOAD = 'x'.repeat(10_000);
const MESSAGE = Uint8Array.from({ length: 64 }, (_, i) => i);

type Bev = InstanceType<typeof BufferEvent>;

function question(path: string): Buffer {
  if (path === '/upload' || path === '/whole')
    return Buffer.from(
      `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ${UPLOAD.length}\r\n\r\n${UPLOAD}`,
    );
  return Buffer.from(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`);
}

/** Bytes of an answer, by its head; 0 while that is not whole. */
function lengthOf(input: Bev['input']): number {
  const end = input.indexOf('\r\n\r\n');
  if (end < 0) return 0;
  const head = Buffer.from(input.copyOut(end + 2)).toString('latin1');
  const length = /\r\nContent-Length: *(\d+)\r\n/i.exec(head);
  if (!head.startsWith('HTTP/1.1 200 ') || length === null)
    throw new Error(`a client was answered ${JSON.stringify(head)}`);
  return end + 4 + Number(length[1]);
}

class Run {
  readonly #load: Load;
  readonly #question: Buffer;
  #times = new Float64Array(2 ** 16);
  count = 0;
  /** Of an answer: all are as long. */
  #length = 0;
  #going = true;
  #failed: (error: Error) => void = () => undefined;
  /** Rejects when a client fails. */
  readonly failed = new Promise<never>((_, reject) => {
    this.#failed = reject;
  });
  #streams: Bev[] = [];

  constructor(load: Load) {
    this.#load = load;
    this.#question = load.path === '/ws' ? masked(MESSAGE) : question(load.path);
    if (load.path === '/ws') this.#length = frameBytes(MESSAGE.length);
  }

  begin(base: EventBase): void {
    for (let i = 0; i < this.#load.connections; i++) this.#streams.push(this.#client(base));
  }
  end(): void {
    this.#going = false;
    for (const stream of this.#streams) stream.close();
  }
  get times(): Float64Array {
    return this.#times.subarray(0, this.count);
  }

  #client(base: EventBase): Bev {
    const { port, tls, path } = this.#load;
    let shaking = path === '/ws';
    let asked = 0;
    const ask = (stream: Bev) => {
      asked = performance.now();
      stream.write(this.#question);
    };
    const read = (stream: Bev) => {
      const { input } = stream;
      if (shaking) {
        const end = input.indexOf('\r\n\r\n');
        if (end < 0) return;
        input.drain(end + 4);
        shaking = false;
        ask(stream);
      }
      if (this.#length === 0) this.#length = lengthOf(input);
      if (this.#length === 0 || input.length < this.#length) return;
      if (input.length > this.#length) throw new Error('a client was answered more than it asked');
      input.drain(this.#length);
      this.#answered(performance.now() - asked);
      if (this.#going) ask(stream);
    };
    const stream = BufferEvent.connect(
      base,
      { host: '127.0.0.1', port },
      {
        ...(tls ? { tls: { rejectUnauthorized: false } } : {}),
        handlers: {
          read: (bev) => {
            try {
              read(bev);
            } catch (error) {
              this.#failed(error as Error);
            }
          },
          event: (bev, { connected, error, eof }) => {
            if (connected) {
              if (shaking) bev.write(HANDSHAKE);
              else ask(bev);
            } else if (this.#going && (error !== undefined || eof === true))
              this.#failed(error ?? new Error('a server has closed a connection'));
          },
        },
      },
    );
    return stream.enable(Ev.READ);
  }

  #answered(ms: number): void {
    if (this.count === this.#times.length) {
      const more = new Float64Array(2 * this.#times.length);
      more.set(this.#times);
      this.#times = more;
    }
    this.#times[this.count++] = ms;
  }
}

const base = new EventBase();
// Between two runs there is nothing in it.
void base.loop(LoopFlag.NO_EXIT_ON_EMPTY);

async function run(load: Load): Promise<Asked> {
  const all = new Run(load);
  const began = millis();
  all.begin(base);
  try {
    const over = new Promise<void>((resolve) => setTimeout(resolve, load.ms));
    await Promise.race([over, all.failed]);
  } finally {
    all.end();
  }
  const { count } = all;
  const times = [...all.times];
  return {
    count,
    ms: millis() - began,
    p50: quantile(times, 0.5),
    p99: quantile(times, 0.99),
  };
}

answerCalls({ run });
