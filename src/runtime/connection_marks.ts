// What a connection remembers of itself among the flags of its stream.

import { SOCKET_SUBCLASS } from '../stream/socket_stream.js';

export const Mark = {
  UNFINISHED: SOCKET_SUBCLASS,
  /** The worker waits for `writable`. */
  NEED_DRAIN: SOCKET_SUBCLASS << 1,
  /** It has moved away. */
  LEFT: SOCKET_SUBCLASS << 2,
  /** Its handshake is not done, so the worker does not know of it. */
  UNSEEN: SOCKET_SUBCLASS << 3,
  /** To be closed when it is idle. */
  DRAINS: SOCKET_SUBCLASS << 4,
} as const;
