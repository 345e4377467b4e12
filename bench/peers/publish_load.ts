// The clients of the bench `publish`: subscribers, and one that publishes. It sends a few messages at
// once, and the next ones when every subscriber has all of these.

import { BufferEvent, Ev, EventBase, LoopFlag } from '../../src/index.js';
import { SUBSCRIBE } from './publish_handlers.js';
import { answerCalls, millis, quantile } from './rpc.js';
import { frameBytes, HANDSHAKE, masked } from './ws_bytes.js';

export interface PublishLoad {
  port: number;
  subscribers: number;
  /** For how long. */
  ms: number;
}
export interface Delivered {
  /** Messages, to all subscribers together. */
  count: number;
  /** That it took. */
  ms: number;
  /** Milliseconds from publishing a batch to its last delivery. */
  p50: number;
  p99: number;
}

const BATCH = 8;
const MESSAGE = Uint8Array.from({ length: 64 }, (_, i) => i);
const MESSAGES = Buffer.concat(Array.from({ length: BATCH }, () => masked(MESSAGE)));

type Bev = InstanceType<typeof BufferEvent>;

const base = new EventBase();
// Between two runs there is nothing in it.
void base.loop(LoopFlag.NO_EXIT_ON_EMPTY);

/** Its handshake is done; `read` has all that comes behind it. */
function client(
  port: number,
  read: (stream: Bev) => void,
  failed: (error: Error) => void,
): Promise<Bev> {
  return new Promise((resolve) => {
    let shaking = true;
    const handlers = {
      read(stream: Bev) {
        if (shaking) {
          const end = stream.input.indexOf('\r\n\r\n');
          if (end < 0) return;
          stream.input.drain(end + 4);
          shaking = false;
          resolve(stream);
        }
        read(stream);
      },
      event(stream: Bev, { connected, error }: { connected?: boolean; error?: Error }) {
        if (connected) stream.write(HANDSHAKE);
        else failed(error ?? new Error('a server has closed a connection'));
      },
    };
    BufferEvent.connect(base, { host: '127.0.0.1', port }, { handlers }).enable(Ev.READ);
  });
}

class Run {
  readonly #load: PublishLoad;
  readonly #streams: Bev[] = [];
  /** Bytes that the subscribers have been sent, and what is waited for. */
  #bytes = 0;
  #due = 0;
  #reached: () => void = () => undefined;
  #failed: (error: Error) => void = () => undefined;
  readonly failed = new Promise<never>((_, reject) => {
    this.#failed = reject;
  });

  constructor(load: PublishLoad) {
    this.#load = load;
    this.failed.catch(() => undefined);
  }

  async run(): Promise<Delivered> {
    const { port, subscribers, ms } = this.#load;
    const failed = (error: Error) => this.#failed(error);
    const read = ({ input }: Bev) => {
      this.#bytes += input.length;
      input.drain(input.length);
      if (this.#bytes > this.#due) failed(new Error('a subscriber was sent more than there was'));
      else if (this.#bytes === this.#due) this.#reached();
    };
    const opened = Array.from({ length: subscribers }, () => client(port, read, failed));
    this.#streams.push(...(await Promise.all(opened)));
    await this.#until(subscribers * frameBytes(SUBSCRIBE.length), () => {
      for (const stream of this.#streams) stream.write(masked(SUBSCRIBE));
    });
    const publisher = await client(port, () => undefined, failed);
    this.#streams.push(publisher);
    const times: number[] = [];
    const began = millis();
    while (millis() - began < ms) {
      const published = performance.now();
      await this.#until(subscribers * BATCH * frameBytes(MESSAGE.length), () => {
        publisher.write(MESSAGES);
      });
      times.push(performance.now() - published);
    }
    return {
      count: times.length * BATCH * subscribers,
      ms: millis() - began,
      p50: quantile(times, 0.5),
      p99: quantile(times, 0.99),
    };
  }
  #until(more: number, begin: () => void): Promise<void> {
    return new Promise((resolve) => {
      this.#due += more;
      this.#reached = resolve;
      begin();
    });
  }
  end(): void {
    for (const stream of this.#streams) stream.close();
  }
}

async function run(load: PublishLoad): Promise<Delivered> {
  const one = new Run(load);
  try {
    return await Promise.race([one.run(), one.failed]);
  } finally {
    one.end();
  }
}

answerCalls({ run });
