// A listening socket on a base: opening or adopting it, accepting in bounded batches, and what it
// does when accept(2) fails. What happens to an accepted connection is the subclass's.
//
//   ready ─► a batch ─► more wait in the kernel for the next pass
//   out of descriptors ─► rest ─► a batch ─► still: refuse those who wait, rest ─► …
//   any other failure of the socket ─► rest ─► a batch ─► …

import { rmSync } from 'node:fs';
import { constants } from 'node:os';
import { systemError } from '../errors.js';
import { Ev } from '../event/ev.js';
import { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { native } from '../native.js';
import { checkBoolean, checkInteger, invalidType, invalidValue } from '../validate.js';
import { type Address, checkUnixPath, toAddress, unixFile } from './address.js';
import type { TlsServerOptions } from './tls_options.js';

export interface ListenOptions {
  /** 0, the default, lets the kernel choose. */
  port?: number;
  /** An address, or a name where the call is asynchronous. 127.0.0.1 by default. */
  host?: string;
  /**
   * A unix socket; a leading `@` or NUL puts it into Linux's abstract namespace. A file that is at
   * the path already is left alone, whoever it belongs to: EADDRINUSE. Ours goes with the listener.
   */
  path?: string;
  /**
   * A stream socket that listens, or that is bound and is made to listen. It is the listener's from
   * then on, unless the constructor throws; it becomes close-on-exec and does not block any more.
   */
  fd?: number;
  /** 511 by default; the kernel caps it at net.core.somaxconn. */
  backlog?: number;
  /** Other sockets may listen on the port too; the kernel chooses one for each connection. */
  reusePort?: boolean;
  /** Without it a socket on an IPv6 address takes IPv4 too, if the address is `::`. */
  ipv6Only?: boolean;
  /** Wake up only when the first bytes are there, where the kernel can (TCP_DEFER_ACCEPT). */
  deferAccept?: boolean;
  /** Of serve() and HttpServer.listen(): TLS. A Listener gives out descriptors and refuses it. */
  tls?: TlsServerOptions;
  /** Not part of multiloop yet: true and 'required' are refused. */
  proxyProtocol?: false;
  /** For the worker: `conn.listener.name`. */
  name?: string;
}

const BACKLOG = 511;
/** How long accepting rests after a failure before it is tried again. */
const REST_MS = 100;
/** Connections that one attempt refuses; more wait for the next. */
const REFUSALS_MAX = 512;

const { EAGAIN, EMFILE, ENFILE } = constants.errno;

/** The descriptor behind a listening socket, and what only its owner may do with it. */
export interface ListenSource {
  readonly fd: number;
  readonly address: Address;
  /** From now on a descriptor is kept for refuse(), if there is one to be had. */
  keepReserve(): void;
  /** Closes up to `max` who wait, by giving up that descriptor; answers how many. */
  refuse(max: number): number;
  /** Nobody accepts from here any more. `failed`: nobody ever did. */
  release(failed: boolean): void;
}

/** A socket that its ListeningSocket owns and closes. */
class OwnSocket implements ListenSource {
  readonly fd: number;
  readonly address: Address;
  readonly #adopted: boolean;
  readonly #file: string | undefined;
  /** Negative: there is none. */
  #reserve = -1;

  constructor(options: ListenOptions) {
    this.fd = openListener(options);
    this.address = addressOf(this.fd, options);
    this.#adopted = options.fd !== undefined;
    this.#file = fileOf(options);
  }
  keepReserve(): void {
    if (this.#reserve < 0) this.#reserve = native.listenerReserve();
  }
  refuse(max: number): number {
    const [count, reserve] = native.listenerRefuse(this.fd, this.#reserve, max);
    this.#reserve = reserve;
    return count;
  }
  release(failed: boolean): void {
    if (this.#reserve >= 0) native.sysClose(this.#reserve);
    if (failed && this.#adopted) return;
    native.sysClose(this.fd);
    removeFile(this.#file);
  }
}

export abstract class ListeningSocket implements Disposable {
  readonly base: EventBase;
  readonly fd: number;
  readonly address: Address;
  readonly #event: EventHandle;
  readonly #rest: EventHandle;
  readonly #source: ListenSource;
  #paused = false;
  #resting = false;
  /** Accepting has failed since a connection was accepted or there was none to accept. */
  #failing = false;
  #closed = false;
  #exhausted = 0;
  #refused = 0;

  /** `alone`: other bases wait for the socket too, and the kernel need wake only one of them. */
  constructor(base: EventBase, from: ListenOptions | (() => ListenSource), alone = false) {
    if (!(base instanceof EventBase)) throw invalidType('base', 'an instance of EventBase', base);
    base._checkOpen();
    this.base = base;
    this.#source = typeof from === 'function' ? from() : new OwnSocket(from);
    this.fd = this.#source.fd;
    this.address = this.#source.address;
    this.#event = base.event(this.fd, Ev.READ | Ev.PERSIST, () => this.#accept());
    if (alone) this.#event._wakeAlone();
    this.#rest = base.timer(() => this.#rested());
    this.#source.keepReserve();
    try {
      this.#event.add();
    } catch (error) {
      this.#release(true);
      throw error;
    }
  }

  /** Accepts a batch. Answers a count, or the -errno that the first accept met. */
  protected abstract acceptBatch(): number;
  /**
   * Accepting failed and rests. Told once, until it works again; `exhausted`: for want of
   * descriptors.
   */
  protected abstract failed(error: Error, exhausted: boolean): void;
  /** So many connections were closed unserved, for want of descriptors. */
  protected abstract refusedSome(count: number): void;

  /** How often accepting has rested because descriptors had run out. */
  get exhausted(): number {
    return this.#exhausted;
  }
  /** Connections that were accepted and closed at once because descriptors had run out. */
  get refused(): number {
    return this.#refused;
  }

  /** Stops accepting; connections wait with the kernel. Idempotent, as resume() is. */
  pause(): void {
    if (this.#closed) return;
    this.#paused = true;
    this.#event.del();
    this.#rest.del();
  }
  resume(): void {
    if (this.#closed || !this.#paused) return;
    this.#paused = false;
    if (this.#resting) this.#rest.add(REST_MS);
    else this.#event.add();
  }
  /** Of those that wait for the socket it is the last now, and the others are woken before it. */
  protected stepBack(): void {
    if (!this.accepting || this.#resting) return;
    this.#event.del();
    this.#event.add();
  }
  /** A listener keeps the process alive; after unref() it does not. */
  ref(): void {
    if (this.#closed) return;
    this.#event.ref();
    this.#rest.ref();
  }
  unref(): void {
    if (this.#closed) return;
    this.#event.unref();
    this.#rest.unref();
  }
  get closed(): boolean {
    return this.#closed;
  }
  /** Neither paused nor closed, and its base is not either. */
  protected get accepting(): boolean {
    return !this.#paused && !this.#closed && !this.base._closed;
  }
  /** Closes the socket; the kernel resets connections that nobody has accepted. Idempotent. */
  close(): void {
    if (!this.#closed) this.#release(false);
  }
  [Symbol.dispose](): void {
    this.close();
  }

  #release(failed: boolean): void {
    this.#closed = true;
    this.#event.free();
    this.#rest.free();
    this.#source.release(failed);
  }

  #accept(): void {
    const status = this.acceptBatch();
    if (this.#closed) return;
    if (status < 0 && status !== -EAGAIN) {
      this.#failure(status);
      return;
    }
    // Another thread may have been faster than we when the reserve was to be taken back.
    if (this.#failing) this.#source.keepReserve();
    this.#failing = false;
  }

  /** The rest is over: whether accepting works again is tried, not waited for. */
  #rested(): void {
    this.#resting = false;
    try {
      this.#accept();
    } finally {
      if (this.accepting && !this.#resting) this.#event.add();
    }
  }

  /**
   * Level-triggered, a failure would spin: accepting rests before it is tried again. A shortage
   * that is over by then has cost nobody a connection; one that is not is told to those who wait.
   */
  #failure(status: number): void {
    const exhausted = status === -EMFILE || status === -ENFILE;
    this.#resting = true;
    this.#event.del();
    if (!this.#paused) this.#rest.add(REST_MS);
    const told = this.#failing;
    this.#failing = true;
    if (exhausted) {
      this.#exhausted++;
      if (told) this.#refuse();
    }
    if (!told) this.failed(systemError(status, 'accept'), exhausted);
  }

  #refuse(): void {
    const count = this.#source.refuse(REFUSALS_MAX);
    this.#refused += count;
    if (count > 0) this.refusedSome(count);
  }
}

/** All but `tls`, which its user checks. */
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
  for (const key of ['reusePort', 'ipv6Only', 'deferAccept'] as const)
    if (options[key] !== undefined) checkBoolean(`listen.${key}`, options[key]);
  if (options.path === '' || options.host === '')
    throw invalidValue('listen', 'must not have an empty host or path', options);
  checkPath(options);
  // What is asked for and not done would be found out by an attacker first; see Listener for TLS.
  const { proxyProtocol } = options as { proxyProtocol?: unknown };
  if (proxyProtocol !== undefined && proxyProtocol !== false)
    throw invalidValue('listen.proxyProtocol', 'is not supported yet', proxyProtocol);
}

/** What no unix socket can have. */
function checkPath({ path, reusePort }: ListenOptions): void {
  if (path === undefined) return;
  if (reusePort === true)
    throw invalidValue('listen.reusePort', 'is for ports, and this is a unix path', path);
  checkUnixPath('listen.path', path);
}

export function addressOf(fd: number, { path }: ListenOptions): Address {
  return toAddress(native.sockLocal(fd)) ?? { path: path ?? '' };
}

/** The unix socket that is made in the file system, and that goes away with its listener. */
export function fileOf({ fd, path }: ListenOptions): string | undefined {
  return fd === undefined && path !== undefined ? unixFile(path) : undefined;
}
/** The kernel leaves it behind, and nobody could listen at that path again. */
export function removeFile(file: string | undefined): void {
  if (file !== undefined) rmSync(file, { force: true });
}

/** A listening socket, or an error; an adopted one stays its maker's until it is sound. */
export function openListener(options: ListenOptions): number {
  checkListenOptions(options);
  const backlog = options.backlog ?? BACKLOG;
  if (options.fd !== undefined) return adopt(options.fd, backlog);
  const host = options.host === 'localhost' ? '127.0.0.1' : (options.host ?? '127.0.0.1');
  if (options.path === undefined && native.isIp(host) === 0)
    throw invalidValue('options.host', 'must be an IP address here; names take serve()', host);
  const result = native.sockListen(
    options.path === undefined ? 0 : 1,
    options.path ?? host,
    options.port ?? 0,
    backlog,
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

function adopt(fd: number, backlog: number): number {
  const result = native.listenerAdopt(fd, backlog);
  if (result === 0) return fd;
  if (typeof result === 'string')
    throw invalidValue(
      'listen.fd',
      `must be a socket to listen on; descriptor ${fd} ${result}`,
      fd,
    );
  throw systemError(result[0], result[1], undefined, `descriptor ${fd}`);
}
