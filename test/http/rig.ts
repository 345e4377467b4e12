// What the tests of HTTP share: a server on a base of this thread, and clients that send exactly
// the bytes they are told to.

import { once } from 'node:events';
import net from 'node:net';
import { HttpConnection } from '../../src/http/http_connection.js';
import { type HttpOptions, type HttpRequest, HttpServer } from '../../src/http.js';
import { EventBase, LoopFlag } from '../../src/index.js';
import { PATIENCE_MS, within } from '../event/support.js';
import { test } from '../hooks.js';

export { HttpConnection };

export const nothing = () => undefined;
export const HOST = 'Host: a\r\n';

/** Whether bytes behind these could make UTF-8 of them: by WHATWG's decoder, which tells what is wrong from what is not whole. */
export function canBegin(bytes: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes, { stream: true });
    return true;
  } catch {
    return false;
  }
}

export interface Served {
  server: HttpServer;
  port: number;
  /** What the error hook was told: the code and, of a refusal, the status. */
  errors: string[];
  /** The requests that have ended. */
  completed: HttpRequest[];
}

export class Rig {
  #base: EventBase | undefined;
  readonly #servers: HttpServer[] = [];
  readonly #sockets: net.Socket[] = [];

  /**
   * Made when it is asked for: where only poll and select are, a thread has a base of its own or a
   * group, and not both.
   */
  get base(): EventBase {
    if (this.#base !== undefined) return this.#base;
    this.#base = new EventBase({ debug: true });
    this.#base.loop(LoopFlag.NO_EXIT_ON_EMPTY).catch(nothing);
    return this.#base;
  }

  serve(options: HttpOptions): Served {
    const errors: string[] = [];
    const completed: HttpRequest[] = [];
    const server = new HttpServer(this.base, {
      error(error) {
        const { code, status } = error as { code?: string; status?: number };
        errors.push([code ?? error.message, status].filter((one) => one !== undefined).join(' '));
      },
      complete: (request) => completed.push(request),
      ...options,
    });
    this.#servers.push(server);
    const { address } = server.listen({ port: 0, host: '127.0.0.1' });
    if (!('port' in address)) throw new Error('not a port');
    return { server, port: address.port, errors, completed };
  }

  async connect(port: number): Promise<Client> {
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    this.#sockets.push(socket);
    socket.on('error', nothing);
    await once(socket, 'connect');
    return new Client(socket);
  }

  /** Sends these texts and the end; answers all that comes. */
  async ask(port: number, ...texts: string[]): Promise<string> {
    const client = await this.connect(port);
    for (const text of texts) client.send(text);
    client.socket.end();
    return client.all();
  }

  close(): void {
    for (const server of this.#servers.splice(0)) server.close();
    for (const socket of this.#sockets.splice(0)) socket.destroy();
    this.#base?.close();
  }
}

export interface Answer {
  status: number;
  head: string;
  headers: Record<string, string>;
  body: string;
}

export class Client {
  readonly socket: net.Socket;
  text = '';
  ended = false;
  #changed: () => void = nothing;

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.text += text;
      this.#changed();
    });
    const end = () => {
      this.ended = true;
      this.#changed();
    };
    socket.on('end', end);
    socket.on('close', end);
  }

  send(text: string): void {
    this.socket.write(text, 'latin1');
  }

  async until(condition: () => boolean, what: string): Promise<void> {
    while (!condition()) {
      if (this.ended) throw new Error(`the connection ended before ${what}: ${this.text}`);
      const changed = new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
      await within(PATIENCE_MS, changed, what);
    }
  }

  /** All bytes up to the end of the connection. */
  async all(): Promise<string> {
    await this.until(() => this.ended, 'the end').catch((error) => {
      if (!this.ended) throw error;
    });
    return this.text;
  }

  /** The next answer, with a Content-Length, in chunks, or without a body. */
  async answer(bodiless = false): Promise<Answer> {
    await this.until(() => this.text.includes('\r\n\r\n'), 'the head of an answer');
    const end = this.text.indexOf('\r\n\r\n') + 4;
    const head = this.text.slice(0, end);
    const headers = headersOf(head);
    const status = Number(head.slice(9, 12));
    let body = '';
    let taken = end;
    if (headers['transfer-encoding'] === 'chunked' && !bodiless) {
      await this.until(() => dechunked(this.text.slice(end)) !== undefined, 'the last chunk');
      const whole = dechunked(this.text.slice(end)) as { body: string; length: number };
      body = whole.body;
      taken += whole.length;
    } else if (headers['content-length'] !== undefined && !bodiless) {
      const length = Number(headers['content-length']);
      await this.until(() => this.text.length >= end + length, 'the body of an answer');
      body = this.text.slice(end, end + length);
      taken += length;
    }
    this.text = this.text.slice(taken);
    return { status, head, headers, body };
  }
}

export function headersOf(head: string): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const line of head.split('\r\n').slice(1)) {
    const colon = line.indexOf(':');
    if (colon > 0) headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  return headers;
}

/** The body of chunks that are all there, and how long they are; trailers follow the body. */
export function dechunked(text: string): { body: string; length: number } | undefined {
  let at = 0;
  let body = '';
  for (;;) {
    const end = text.indexOf('\r\n', at);
    if (end < 0) return undefined;
    const size = Number.parseInt(text.slice(at, end), 16);
    if (size === 0) {
      const last = text.indexOf('\r\n\r\n', end);
      if (last < 0) return undefined;
      return { body: body + text.slice(end + 2, last), length: last + 4 };
    }
    body += text.slice(end + 2, end + 2 + size);
    at = end + 2 + size + 2;
    if (at > text.length) return undefined;
  }
}

/** The statuses of the answers in a text, whose bodies hold no `HTTP/1.1`. */
export function statusesOf(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map((match) => Number(match[1]));
}

/** A rig that is closed when the file's tests are over. */
export function useRig(): Rig {
  const rig = new Rig();
  test.after(() => rig.close());
  return rig;
}
