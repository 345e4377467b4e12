// What a stream and the Duplex over it know of each other. Both sides import this and neither the
// other's class, except that toDuplex() makes the adapter.

import type { Bytes, EvBuffer } from '../buffer/ev_buffer.js';
import type { EvMask } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import type { Address } from './address.js';
import type { BevHandlers } from './bev_options.js';
import type { TlsInfo } from './tls_options.js';

export interface DuplexOptions {
  /**
   * False, as of net.Socket: when the peer has ended and that is read, this side ends too. True is
   * for whoever answers after that: a TLS socket over it, a pipeline back to the same Duplex.
   */
  allowHalfOpen?: boolean;
  /** Bytes; Node's default. */
  readableHighWaterMark?: number;
  writableHighWaterMark?: number;
}

/** What a stream tells the Duplex over it, inside whatever call that was found out in. */
export interface DuplexSide {
  /** Some of the output has gone. */
  wrote(): void;
  /** The other side has been told that nothing more comes. */
  ended(): void;
  /** The stream was closed, by whomever. */
  shut(error: Error | undefined): void;
}

/** What an adapter needs of the stream under it. */
export interface AdaptedStream {
  readonly base: EventBase;
  readonly closed: boolean;
  readonly ended: boolean;
  readonly enabled: EvMask;
  readonly input: EvBuffer;
  readonly inputLength: number;
  readonly outputLength: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly localAddress: Address | undefined;
  readonly remoteAddress: Address | undefined;
  readonly tls: TlsInfo | undefined;
  readonly _endTold: boolean;
  readonly _peerEnded: boolean;
  readonly _readHeld: number;
  handlers: BevHandlers;
  getWatermark(direction: 'read' | 'write'): { low: number; high: number };
  setWatermark(mask: EvMask, low: number, high?: number): unknown;
  enable(mask: EvMask): unknown;
  disable(mask: EvMask): unknown;
  write(data: Bytes | EvBuffer): boolean;
  end(): void;
  close(): void;
  destroy(error?: Error): void;
  ref(): unknown;
  unref(): unknown;
}
