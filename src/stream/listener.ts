// libevent's evconnlistener: descriptors of new connections, for whoever wants them raw.

import type { EventBase } from '../event/event_base.js';
import { native } from '../native.js';
import { checkFunction, invalidValue } from '../validate.js';
import { type Address, toAddress } from './address.js';
import { ListeningSocket, type ListenOptions } from './listening_socket.js';

/** Accepts in one pass; more wait in the kernel for the next. */
const ACCEPTS_PER_PASS = 64;

type OnAccept = (fd: number, peer: Address | undefined) => void;
type OnError = (error: Error) => void;

/**
 * Accepts connections on `base` and gives each descriptor, close-on-exec and non-blocking, to
 * `onAccept`, which owns it from then on. Belongs to the base's thread. Throws what bind(2) and
 * listen(2) say, and ERR_INVALID_ARG_VALUE for a descriptor that cannot listen.
 *
 * A connection is accepted when the one before was told, so that none is lost when `onAccept`
 * throws, pauses or closes: the others wait with the kernel. What accept(2) says of one connection
 * is passed over. When the process is out of descriptors, accepting rests for 100 ms; if that was
 * not enough, those who wait are closed, with a descriptor kept for that, and counted in `refused`,
 * until descriptors come back. `onError` is told once each time, and of other failures; without it,
 * want of descriptors is only counted, and anything else is an uncaught exception.
 */
export class Listener extends ListeningSocket {
  #onAccept: OnAccept;
  #onError: OnError | undefined;

  constructor(base: EventBase, options: ListenOptions, onAccept: OnAccept, onError?: OnError) {
    checkFunction('onAccept', onAccept);
    if (onError !== undefined) checkFunction('onError', onError);
    const { tls } = (options as ListenOptions | undefined) ?? {};
    // What is asked for and not done would be found out by an attacker first.
    if (tls !== undefined)
      throw invalidValue('listen.tls', 'is of serve(); here give it to BufferEvent.socket()', tls);
    super(base, options);
    this.#onAccept = onAccept;
    this.#onError = onError;
  }

  /** May change at any time; the next connection is told to the new one. */
  get onAccept(): OnAccept {
    return this.#onAccept;
  }
  set onAccept(onAccept: OnAccept) {
    checkFunction('onAccept', onAccept);
    this.#onAccept = onAccept;
  }
  get onError(): OnError | undefined {
    return this.#onError;
  }
  set onError(onError: OnError | undefined) {
    if (onError !== undefined) checkFunction('onError', onError);
    this.#onError = onError;
  }

  protected acceptBatch(): number {
    let count = 0;
    while (count < ACCEPTS_PER_PASS && this.accepting) {
      const fd = native.listenerAccept(this.fd);
      // What ended a batch is met again by the next one, as its first.
      if (fd < 0) return count > 0 ? count : fd;
      count++;
      this.#onAccept(fd, toAddress(native.listenerPeer()));
    }
    return count;
  }

  protected failed(error: Error, exhausted: boolean): void {
    if (this.#onError !== undefined) this.#onError(error);
    else if (!exhausted) throw error;
  }

  protected refusedSome(): void {
    // The count is in `refused`.
  }
}
