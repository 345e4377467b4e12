// A listening socket on a base: opening it, accepting in bounded batches, and standing still when
// the process is out of descriptors. What happens to an accepted descriptor is the subclass's.

import { rmSync } from 'node:fs';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { systemError } from '../errors.js';
import { Ev } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { native } from '../native.js';
import { checkInteger, invalidType, invalidValue } from '../validate.js';
import { type Address, toAddress } from './address.js';

export interface ListenOptions {
  /** 0, the default, lets the kernel choose. */
  port?: number;
  /** An address, or a name where the call is asynchronous. 127.0.0.1 by default. */
  host?: string;
  /** A unix socket; a leading `@` puts it into Linux's abstract namespace. */
  path?: string;
  /** A socket that listens already. It is the listener's from then on. */
  fd?: number;
  /** 511 by default; the kernel caps it at net.core.somaxconn. */
  backlog?: number;
  reusePort?: boolean;
  ipv6Only?: boolean;
  /** Linux: wake up only when the first bytes are there (TCP_DEFER_ACCEPT). */
  deferAccept?: boolean;
  /** For the worker: `conn.listener.name`. */
  name?: string;
}

const BACKLOG = 511;
/** Out of descriptors: how long accepting pauses before it is tried again. */
const EXHAUSTED_PAUSE_MS = 100;

const { EAGAIN, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM } = constants.errno;
const EXHAUSTED = new Set([EMFILE, ENFILE, ENOBUFS, ENOMEM]);

export abstract class ListeningSocket implements Disposable {
  readonly fd: number;
  readonly address: Address;
  readonly #event: EventHandle;
  readonly #retry: EventHandle;
  /** The unix socket that it made in the file system, and that goes away with it. */
  readonly #file: string | undefined;
  #paused = false;
  #closed = false;
  /** How often accepting paused because descriptors had run out. */
  exhausted = 0;

  constructor(base: EventBase, options: ListenOptions) {
    this.fd = openListener(options);
    this.#file = socketFile(options);
    this.address = toAddress(native.sockLocal(this.fd)) ?? { path: options.path ?? '' };
    this.#event = base.event(this.fd, Ev.READ | Ev.PERSIST, () => this.#ready());
    this.#retry = base.timer(() => {
      if (!this.#paused) this.#event.add();
    });
    try {
      this.#event.add();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Accepts a batch; answers 0, or the -errno that ended it. */
  protected abstract acceptBatch(): number;
  /** An accept failed for a reason other than want of descriptors. */
  protected abstract failed(error: Error): void;

  pause(): void {
    if (this.#closed) return;
    this.#paused = true;
    this.#event.del();
  }
  resume(): void {
    if (this.#closed || !this.#paused) return;
    this.#paused = false;
    this.#event.add();
  }
  ref(): void {
    if (!this.#closed) this.#event.ref();
  }
  unref(): void {
    if (!this.#closed) this.#event.unref();
  }
  get closed(): boolean {
    return this.#closed;
  }
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#event.free();
    this.#retry.free();
    native.sysClose(this.fd);
    // The kernel leaves it behind, and nobody could listen at that path again.
    if (this.#file !== undefined) rmSync(this.#file, { force: true });
  }
  [Symbol.dispose](): void {
    this.close();
  }

  #ready(): void {
    const status = this.acceptBatch();
    if (status >= 0 || status === -EAGAIN || status === -ECONNABORTED || this.#closed) return;
    // Level-triggered and out of descriptors, this would spin: wait for some to come back.
    if (EXHAUSTED.has(-status)) {
      this.exhausted++;
      this.#event.del();
      this.#retry.add(EXHAUSTED_PAUSE_MS);
      return;
    }
    this.failed(systemError(status, 'accept'));
  }
}

export function checkListenOptions(options: ListenOptions): void {
  if (typeof options !== 'object' || options === null)
    throw invalidType('listen', 'of type object', options);
  if (options.port !== undefined) checkInteger('listen.port', options.port, 0, 65_535);
  if (options.backlog !== undefined)
    checkInteger('listen.backlog', options.backlog, 1, 2 ** 31 - 1);
  if (options.fd !== undefined) checkInteger('listen.fd', options.fd, 0, 2 ** 31 - 1);
  for (const key of ['host', 'path', 'name'] as const)
    if (options[key] !== undefined && typeof options[key] !== 'string')
      throw invalidType(`listen.${key}`, 'of type string', options[key]);
  if (options.path === '' || options.host === '')
    throw invalidValue('listen', 'must not have an empty host or path', options);
}

function socketFile({ fd, path }: ListenOptions): string | undefined {
  const isFile = fd === undefined && path !== undefined && !/^[@\0]/.test(path);
  return isFile ? resolve(path) : undefined;
}

function openListener(options: ListenOptions): number {
  checkListenOptions(options);
  if (options.fd !== undefined) {
    // Accepting goes on until there is nothing left, which must not block.
    const status = native.sockNonBlocking(options.fd);
    if (status < 0) throw systemError(status, 'fcntl');
    return options.fd;
  }
  const host = options.host === 'localhost' ? '127.0.0.1' : (options.host ?? '127.0.0.1');
  if (options.path === undefined && native.isIp(host) === 0)
    throw invalidValue('options.host', 'must be an IP address here; names take serve()', host);
  const result = native.sockListen(
    options.path === undefined ? 0 : 1,
    options.path ?? host,
    options.port ?? 0,
    options.backlog ?? BACKLOG,
    options.reusePort ?? false,
    options.ipv6Only ?? false,
    options.deferAccept ?? false,
  );
  if (typeof result === 'number') return result;
  const where =
    options.path === undefined
      ? { address: host, port: options.port ?? 0 }
      : { address: options.path };
  throw systemError(result[0], result[1], where);
}
