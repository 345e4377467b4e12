// The ways to make a stream, joined to the class that all of them are.

import type { EventBase } from '../event/event_base.js';
import { type BevOptions, checkBase } from './bev_options.js';
import { BufferEvent as Stream } from './buffer_event.js';
import { connect } from './connect.js';
import { PairStream } from './pair_stream.js';
import { checkSocket, SocketStream } from './socket_stream.js';

/**
 * A stream over a connected stream socket, which becomes its own unless `closeFd` is false. Throws
 * for a descriptor that is closed (EBADF), no socket (ENOTSOCK) or of another type
 * (ERR_NOT_A_STREAM); the descriptor stays the caller's then.
 */
function socket(base: EventBase, fd: number, options?: BevOptions): SocketStream {
  checkBase(base);
  return new SocketStream(base, checkSocket(fd), options);
}

/** Two streams of one base, each the other's other side. */
function pair(base: EventBase, options?: BevOptions): [PairStream, PairStream] {
  return PairStream.pair(base, options);
}

export type BufferEvent = Stream;
export const BufferEvent = Object.assign(Stream, { socket, connect, pair });
