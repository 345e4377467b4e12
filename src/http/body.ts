// What the bodies of requests and of answers have in common, however they come.

import { MultiloopError } from '../errors.js';

/** Who waits for the next piece. */
export interface BodyWaiter {
  resolve(piece: Uint8Array | undefined): void;
  reject(error: Error): void;
}

export abstract class Body {
  /** All of it, once. */
  abstract bytes(): Promise<Buffer>;
  /** As UTF-8; otherwise as bytes(). */
  async text(): Promise<string> {
    return (await this.bytes()).toString();
  }
  /** Rejects with a SyntaxError for what is no JSON; otherwise as bytes(). */
  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }
}

export function readsAlready(): MultiloopError {
  return new MultiloopError('ERR_HTTP_BODY_USED', 'read() waits already; one call at a time');
}
export function wasRead(what: 'request' | 'answer'): MultiloopError {
  return new MultiloopError('ERR_HTTP_BODY_USED', `The body of this ${what} was read already`);
}
