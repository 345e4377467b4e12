// A client of the test workers' protocol: whole lines, in order, over a socket of Node's.

import type net from 'node:net';
import type { LoopGroup } from '../../src/index.js';
import { connect, gone } from './clients.js';

export class LineClient {
  readonly socket: net.Socket;
  readonly #lines: string[] = [];
  #rest = '';
  #wake: (() => void) | undefined;
  #over = false;

  private constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on('data', (data) => {
      const lines = (this.#rest + data.toString('latin1')).split('\n');
      this.#rest = lines.pop() as string;
      this.#lines.push(...lines);
      this.#wake?.();
    });
    for (const event of ['end', 'close'])
      socket.on(event, () => {
        this.#over = true;
        this.#wake?.();
      });
  }

  static async connect(group: LoopGroup): Promise<LineClient> {
    return new LineClient(await connect(group));
  }
  /** Over a socket that is connected. */
  static of(socket: net.Socket): LineClient {
    return new LineClient(socket);
  }

  /** The next line, or 'closed'. */
  async line(): Promise<string> {
    while (this.#lines.length === 0) {
      if (this.#over) return 'closed';
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#lines.shift() as string;
  }

  async ask(text: string): Promise<string> {
    this.socket.write(`${text}\n`);
    return this.line();
  }

  async end(): Promise<void> {
    this.socket.end();
    await gone(this.socket);
  }
}
