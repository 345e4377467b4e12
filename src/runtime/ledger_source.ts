// A listening socket that the ledger owns, as one that accepts from it sees it: the coordinator, or
// the loop that it was passed to.

import { systemError } from '../errors.js';
import { native } from '../native.js';
import type { Address } from '../stream/address.js';
import {
  addressOf,
  fileOf,
  type ListenOptions,
  type ListenSource,
  openListener,
  removeFile,
} from '../stream/listening_socket.js';
import { fdOf } from './connection.js';

/** The one that has it now. */
export interface LedgerOwner {
  inbox: number;
  /** Nobody accepts from it here any more: closes it, or passes it on. */
  letGo(socket: number): void;
}

export class LedgerSource implements ListenSource {
  /** Opens one. `listener` is what the ledger keeps with its connections, `quota` their limit. */
  static open(
    options: ListenOptions,
    listener: number,
    quota: number,
    owner: LedgerOwner,
  ): LedgerSource {
    const fd = openListener(options);
    const id = native.ledgerListen(fd, owner.inbox, listener, quota);
    if (id >= 0) return new LedgerSource(id, owner, addressOf(fd, options), fileOf(options));
    if (options.fd === undefined) native.sysClose(fd);
    removeFile(fileOf(options));
    throw systemError(id, 'listen', undefined, `descriptor ${fd}`);
  }

  readonly id: number;
  readonly fd: number;
  readonly address: Address;
  readonly #owner: LedgerOwner;
  readonly #file: string | undefined;

  constructor(id: number, owner: LedgerOwner, address?: Address, file?: string) {
    this.id = id;
    this.fd = fdOf(id);
    this.address = address ?? addressOf(this.fd, {});
    this.#owner = owner;
    this.#file = file;
  }

  keepReserve(): void {
    native.ledgerReserve(this.id);
  }
  refuse(max: number): number {
    return native.ledgerRefuse(this.id, max);
  }
  /** Accepts into the ledger; see native.ledgerAccept. */
  accept(isLoop: boolean, ids: Float64Array): number {
    return native.ledgerAccept(this.id, this.#owner.inbox, isLoop, ids);
  }
  release(): void {
    this.#owner.letGo(this.id);
    removeFile(this.#file);
  }
}
