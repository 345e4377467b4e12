// Connecting: by address, by path, or by name, which may have many addresses of two families. They
// are tried as RFC 8305 says: families in turn (section 4), the next one when an attempt fails or
// has taken a while (section 5), and the first to succeed ends the others.

import { type LookupAddress, lookup } from 'node:dns';
import { constants } from 'node:os';
import { systemError } from '../errors.js';
import { Ev } from '../event/ev.js';
import type { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import { native } from '../native.js';
import {
  checkInteger,
  checkMillis,
  checkObject,
  checkSignal,
  invalidType,
  invalidValue,
} from '../validate.js';
import { type Address, formatAddress } from './address.js';
import type { BevOptions } from './bev_options.js';
import { SocketStream } from './socket_stream.js';
import { planClient, type TlsClientOptions } from './tls_options.js';

/** RFC 8305 section 5, "Connection Attempt Delay". */
const ATTEMPT_DELAY_MS = 250;
/** Addresses of one name that are tried. */
const ADDRESSES_MAX = 32;
const NO_LIMIT_MS = 2 ** 40;
const { EAFNOSUPPORT, ETIMEDOUT } = constants.errno;

export interface ConnectOptions extends BevOptions {
  /** The address to connect from; only addresses of its family are tried. */
  localAddress?: string;
  /** The port to connect from; 0, the default, leaves it to the kernel. EADDRINUSE if taken. */
  localPort?: number;
  /** Milliseconds until it must be connected, looking up the name included; else ETIMEDOUT. */
  timeout?: number;
  /** Aborting destroys the stream, with the signal's reason as its error, until it is connected. */
  signal?: AbortSignal;
}

type Place = { host: string; port: number } | { path: string };

/**
 * A stream that connects; what is written meanwhile leaves when it has. Then `event` is told
 * `connected`, or `error` when every address has failed: the error of the one, or an AggregateError
 * of all. A name is looked up by Node's `dns.lookup`, which does not go on inside loopSync().
 */
export function connect(base: EventBase, to: Address, options: ConnectOptions = {}): SocketStream {
  checkAddress(to);
  checkObject('options', options);
  const { localAddress, localPort = 0, timeout } = options;
  if (localAddress !== undefined && native.isIp(localAddress) === 0)
    throw invalidValue('options.localAddress', 'must be an IP address', localAddress);
  checkInteger('options.localPort', localPort, 0, 65_535);
  if (timeout !== undefined) checkMillis('options.timeout', timeout);
  const signal = checkSignal('options.signal', options.signal);
  signal?.throwIfAborted();
  const { tls, ...plain } = options;
  const plan = tls === undefined ? undefined : planClient(tls as TlsClientOptions, hostOf(to));
  const stream = new SocketStream(base, -1, plain);
  stream._plan = plan;
  new Race(stream, to, { localAddress, localPort, timeout, signal }).begin();
  return stream;
}

const hostOf = (to: Address) => ('path' in to ? undefined : to.host);

/** Throws for what is no address that one could connect to. */
export function checkAddress(to: unknown): asserts to is Address {
  checkObject('to', to);
  const { path, host, port, family } = to as { [key: string]: unknown };
  if (path !== undefined) {
    if (typeof path !== 'string') throw invalidType('to.path', 'of type string', path);
    if (path === '') throw invalidValue('to.path', 'must not be empty', path);
    return;
  }
  if (typeof host !== 'string') throw invalidType('to.host', 'of type string', host);
  if (host === '' || host.includes('\0'))
    throw invalidValue('to.host', 'must be a name or an address', host);
  checkInteger('to.port', port, 1, 65_535);
  if (family !== undefined && family !== 0 && family !== 4 && family !== 6)
    throw invalidValue('to.family', 'must be 0, 4 or 6', family);
}

class Race {
  readonly #stream: SocketStream;
  readonly #to: Address;
  readonly #local: string;
  readonly #localPort: number;
  readonly #signal: AbortSignal | undefined;
  readonly #deadline: EventHandle;
  readonly #next: EventHandle;
  readonly #attempts = new Map<number, EventHandle>();
  readonly #errors: Error[] = [];
  #places: Place[] = [];
  #over = false;

  constructor(
    stream: SocketStream,
    to: Address,
    options: { localAddress?: string; localPort: number; timeout?: number; signal?: AbortSignal },
  ) {
    const { base } = stream;
    this.#stream = stream;
    this.#to = to;
    this.#local = options.localAddress ?? '';
    this.#localPort = options.localPort;
    this.#signal = options.signal;
    this.#deadline = base.timer(() => this.#late());
    this.#next = base.timer(() => this.#tryNext());
    // Without a limit too: while a name is looked up, nothing else shows the base that it goes on.
    this.#deadline.add(options.timeout ?? NO_LIMIT_MS);
    if (!stream._refed) this.#deadline.unref();
    stream._cancel = () => this.#stop();
    this.#signal?.addEventListener('abort', this.#aborted, { once: true });
  }

  begin(): void {
    const to = this.#to;
    const ip = 'path' in to ? 0 : native.isIp(to.host);
    if ('path' in to || ip !== 0) {
      this.#start('path' in to ? [to] : this.#allowed([{ address: to.host, family: ip }]));
      return;
    }
    lookup(to.host, { all: true, family: to.family ?? 0 }, (error, addresses) => {
      if (this.#over) return;
      if (error) this.#fail(error);
      else this.#start(this.#allowed(addresses));
    });
  }

  /** Of the families that were asked for, which alternate, beginning with the resolver's first. */
  #allowed(found: LookupAddress[]): Place[] {
    const { port, family = 0 } = this.#to as { port: number; family?: number };
    const local = this.#local === '' ? 0 : native.isIp(this.#local);
    const usable = found
      .filter((one) => !(family && one.family !== family) && !(local && one.family !== local))
      .slice(0, ADDRESSES_MAX);
    const first = usable.filter((one) => one.family === usable[0].family);
    const second = usable.filter((one) => one.family !== usable[0].family);
    const places: Place[] = [];
    for (let i = 0; i < Math.max(first.length, second.length); i++)
      for (const one of [first[i], second[i]])
        if (one !== undefined) places.push({ host: one.address, port });
    return places;
  }

  #start(places: Place[]): void {
    this.#places = places;
    if (places.length > 0) this.#tryNext();
    else this.#fail(this.#systemError(-EAFNOSUPPORT, 'connect', this.#to));
  }

  #tryNext(): void {
    for (let place = this.#places.shift(); place !== undefined; place = this.#places.shift()) {
      const result =
        'path' in place
          ? native.sockConnect(1, place.path, 0, '', 0)
          : native.sockConnect(0, place.host, place.port, this.#from(place), this.#localPort);
      if (typeof result === 'number') {
        this.#await(result, place);
        if (this.#places.length > 0) this.#next.add(ATTEMPT_DELAY_MS);
        return;
      }
      this.#errors.push(this.#systemError(result[0], result[1], place));
    }
    if (this.#attempts.size === 0) this.#fail(this.#allErrors());
  }

  /** Binding a port takes an address, if only that of no host. */
  #from({ host }: { host: string }): string {
    if (this.#local !== '' || this.#localPort === 0) return this.#local;
    return native.isIp(host) === 6 ? '::' : '0.0.0.0';
  }

  #await(fd: number, place: Place): void {
    const event = this.#stream.base.event(fd, Ev.WRITE, () => {
      const status = native.sockError(fd);
      if (status === 0) {
        this.#attempts.delete(fd);
        event.free();
        this.#stop();
        this.#stream._connected(fd);
        return;
      }
      this.#give(fd);
      this.#errors.push(this.#systemError(status, 'connect', place));
      this.#next.del();
      this.#tryNext();
    });
    if (!this.#stream._refed) event.unref();
    this.#attempts.set(fd, event.add());
  }

  #give(fd: number): void {
    this.#attempts.get(fd)?.free();
    this.#attempts.delete(fd);
    native.sysClose(fd);
  }

  #allErrors(): Error {
    const errors = this.#errors;
    if (errors.length === 1) return errors[0];
    const said = errors.map((one) => one.message).join('; ');
    const name = formatAddress(this.#to);
    const { code } = errors[0] as NodeJS.ErrnoException;
    return Object.assign(
      new AggregateError(errors, `Connecting to ${name} failed at every address: ${said}`),
      { code },
    );
  }

  #late(): void {
    this.#stop();
    const error = this.#systemError(-ETIMEDOUT, 'connect', this.#to);
    this.#stream._notConnected({ timeout: true, error });
  }
  #fail(error: Error): void {
    this.#stop();
    this.#stream._notConnected({ error });
  }
  readonly #aborted = (): void => {
    const reason = this.#signal?.reason;
    this.#stream.destroy(reason instanceof Error ? reason : new Error(`aborted: ${reason}`));
  };

  #stop(): void {
    this.#over = true;
    this.#signal?.removeEventListener('abort', this.#aborted);
    for (const fd of [...this.#attempts.keys()]) this.#give(fd);
    this.#deadline.free();
    this.#next.free();
  }

  #systemError(errno: number, syscall: string, place: Place | Address): Error {
    const where =
      'path' in place ? { address: place.path } : { address: place.host, port: place.port };
    return systemError(errno, syscall, where);
  }
}
