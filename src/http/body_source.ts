// Bodies of unknown length that are sent: where they come from, and how a source is told to stop.

import type { Bytes } from '../buffer/ev_buffer.js';

/** What may be sent as a body of unknown length. */
export type BodySource = AsyncIterable<Bytes> | Iterable<Bytes> | ReadableStream<Bytes>;

export interface Reading {
  next(): Promise<IteratorResult<Bytes>> | IteratorResult<Bytes>;
  /** It is not wanted any more. */
  stop(): void;
}

export function reading(source: BodySource): Reading {
  const ignore = () => undefined;
  if ('getReader' in source) {
    // Its own iterator would wait for a part that is on its way before it returned.
    const reader = source.getReader();
    return {
      next: () => reader.read() as Promise<IteratorResult<Bytes>>,
      stop: () => void reader.cancel().catch(ignore),
    };
  }
  const iterator =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  return {
    next: () => iterator.next(),
    stop: () => void Promise.resolve(iterator.return?.()).catch(ignore),
  };
}
