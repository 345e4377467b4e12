// libevent's evconnlistener: descriptors of new connections, for whoever wants them raw.

import type { EventBase } from '../event/event_base.js';
import { native } from '../native.js';
import { checkFunction } from '../validate.js';
import { type Address, toAddress } from './address.js';
import { ListeningSocket, type ListenOptions } from './listening_socket.js';

/** Accepts in one pass; more wait in the kernel for the next. */
const ACCEPTS_PER_PASS = 64;

/**
 * Accepts connections on `base` and gives each descriptor to `onAccept`, which owns it from then
 * on. Belongs to the base's thread. Throws what bind(2) and listen(2) say.
 */
export class Listener extends ListeningSocket {
  readonly #onAccept: (fd: number, peer: Address | undefined) => void;
  readonly #onError: ((error: Error) => void) | undefined;

  constructor(
    base: EventBase,
    options: ListenOptions,
    onAccept: (fd: number, peer: Address | undefined) => void,
    onError?: (error: Error) => void,
  ) {
    checkFunction('onAccept', onAccept);
    if (onError !== undefined) checkFunction('onError', onError);
    super(base, options);
    this.#onAccept = onAccept;
    this.#onError = onError;
  }

  protected acceptBatch(): number {
    for (let i = 0; i < ACCEPTS_PER_PASS && !this.closed; i++) {
      const fd = native.sockAccept(this.fd);
      if (fd < 0) return fd;
      this.#onAccept(fd, toAddress(native.lastPeer()));
    }
    return 0;
  }

  protected failed(error: Error): void {
    if (this.#onError === undefined) throw error;
    this.#onError(error);
  }
}
