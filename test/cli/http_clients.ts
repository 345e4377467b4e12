// What the tests of the http worker share.

import type { Socket } from 'node:net';
import { open } from './cli.js';

export function get(path: string, headers = ''): string {
  return `GET ${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`;
}

/** The status lines' numbers, in order. */
export function statuses(answers: string): number[] {
  return [...answers.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
}

/** Events of a stream, as they come. */
export class Events {
  readonly socket: Socket;
  text = '';
  #changed: () => void = () => undefined;
  #ended = false;
  constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8').on('data', (text: string) => {
      this.text += text;
      this.#changed();
    });
    socket.on('close', () => {
      this.#ended = true;
      this.#changed();
    });
  }
  async until(pattern: RegExp): Promise<RegExpMatchArray> {
    for (;;) {
      const match = this.text.match(pattern);
      if (match !== null) return match;
      if (this.#ended) throw new Error(`it ended without ${pattern}: ${this.text}`);
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }
}
export async function events(where: number, headers = ''): Promise<Events> {
  const made = new Events(await open(where));
  made.socket.write(get('/events', headers));
  return made;
}
