// The ways to make a stream, joined to the class that all of them are.

import type { Duplex } from 'node:stream';
import type { EventBase } from '../event/event_base.js';
import { checkObject } from '../validate.js';
import { type BevOptions, checkBase } from './bev_options.js';
import { BufferEvent as Stream } from './buffer_event.js';
import { connect } from './connect.js';
import { DuplexStream } from './duplex_stream.js';
import type { BevFilter } from './filter.js';
import { FilterStream } from './filter_stream.js';
import { PairStream } from './pair_stream.js';
import { checkSocket, SocketStream } from './socket_stream.js';
import { planSocket, type TlsClientOptions, type TlsServerOptions } from './tls_options.js';
import { TlsStream } from './tls_stream.js';

/**
 * A stream over a connected stream socket, which becomes its own unless `closeFd` is false. With
 * `tls` that has a certificate and a key it is a TLS server's, else a client's. Throws for a
 * descriptor that is closed (EBADF), no socket (ENOTSOCK) or of another type (ERR_NOT_A_STREAM),
 * and for TLS that cannot be (ERR_TLS_CONFIG); the descriptor stays the caller's then.
 */
function socket(base: EventBase, fd: number, options?: BevOptions): SocketStream {
  checkBase(base);
  const socket = checkSocket(fd);
  if (options?.tls === undefined) return new SocketStream(base, socket, options);
  const { tls, ...plain } = options;
  return new SocketStream(base, socket, plain)._secure(planSocket(tls), 0);
}

/** Two streams of one base, each the other's other side. */
function pair(base: EventBase, options?: BevOptions): [PairStream, PairStream] {
  return PairStream.pair(base, options);
}

/**
 * A stream on another one, which it reads and writes through `filter`. It takes that one's
 * handlers, enables both its directions, and closes it with itself unless `closeFd` is false: then
 * its handlers come back. Its rate limits are those of the stream below.
 */
function filter(under: Stream, filter: BevFilter, options?: BevOptions): FilterStream {
  return new FilterStream(under, filter, options);
}

/**
 * TLS over any stream that is no socket, or has TLS itself: `options.tls` as for socket(). It takes
 * that one's handlers and closes it as a filter does, and its rate limits are those of the stream
 * below; all else is as for TLS over a socket. It begins when the stream below is connected. Throws
 * ERR_TLS_CONFIG for TLS that cannot be; the stream below is as it was then.
 */
function tls(
  under: Stream,
  options: BevOptions & { tls: TlsServerOptions | TlsClientOptions },
): TlsStream {
  checkObject('options', options);
  const { tls: asked, ...plain } = options;
  return new TlsStream(under, planSocket(asked), plain);
}

/**
 * A stream over any Duplex of Node's, which becomes its own unless `closeFd` is false: close() ends
 * and destroys it. One in object mode or with an encoding is refused (ERR_INVALID_ARG_VALUE).
 */
function fromDuplex(base: EventBase, duplex: Duplex, options?: BevOptions): DuplexStream {
  return new DuplexStream(base, duplex, options);
}

export type BufferEvent = Stream;
export const BufferEvent = Object.assign(Stream, {
  socket,
  connect,
  pair,
  filter,
  tls,
  fromDuplex,
});
