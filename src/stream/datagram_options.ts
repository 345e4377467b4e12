// What a datagram socket can be asked for, and opening or adopting one.

import { constants, networkInterfaces } from 'node:os';
import { systemError } from '../errors.js';
import { native } from '../native.js';
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkObject,
  invalidType,
  invalidValue,
} from '../validate.js';
import { type Address, unixFile } from './address.js';
import { AddressBook, type Family } from './address_book.js';

export interface DatagramOptions {
  /**
   * Told, in a pass, what a message failed with and what the network says of a connected peer. The
   * socket goes on. Without it, it is an uncaught exception.
   */
  onError?: (error: Error) => void;
  /** Told, in a pass, when all is sent that waited since send() has answered false. */
  onDrain?: () => void;
  /** Messages come from and go to this peer only: an IP address or a path, no name. */
  connect?: Address;
  /** Without an address to bind or connect: 4 by default. */
  family?: 4 | 6 | 'unix';
  /** A datagram socket to adopt, bound or not. It is the Datagram's, unless this throws. */
  fd?: number;
  /** Of its events: see EventBaseOptions.priorities. */
  priority?: number;
  /** SO_REUSEADDR: others that say so too may bind the address; the last one gets what comes. */
  reuseAddress?: boolean;
  /** SO_REUSEPORT: others may bind the address too; the kernel deals senders out to them. */
  reusePort?: boolean;
  /** No IPv4 on a socket that is bound to `::`. */
  ipv6Only?: boolean;
  /** Sending to broadcast addresses is allowed (SO_BROADCAST). */
  broadcast?: boolean;
  /** The kernel's buffers, in bytes; it doubles and caps what is asked for (socket(7)). */
  receiveBufferSize?: number;
  sendBufferSize?: number;
  /** Hops that a message may make: 1 to 255. */
  ttl?: number;
  /** The same for multicast, where 0 stays on this machine and 1 is the kernel's default. */
  multicastTtl?: number;
  /** Whether this machine gets what it sends to a group that it is in; it does by default. */
  multicastLoopback?: boolean;
  /** Where multicast leaves: an interface's name, or an address of it. */
  multicastInterface?: string;
  /**
   * Longer messages are cut: 65,536 bytes by default, at most 1 MiB (unix sockets can). More than
   * the default is memory of this socket's own.
   */
  messageSize?: number;
}

/** What IP can carry: 65,535 without IPv6's header, or with IPv4's (RFC 768, 791, 8200). */
export const PAYLOAD_MAX: Record<Family, number> = { 1: 2 ** 20 - 4_096, 4: 65_507, 6: 65_527 };
const MESSAGE_BYTES_MAX = 1024 * 1024;

/** native/core/datagram.h, Option. */
const Option = {
  broadcast: 0,
  receiveBufferSize: 1,
  sendBufferSize: 2,
  ttl: 3,
  multicastTtl: 4,
  multicastLoopback: 5,
  multicastInterface: 6,
} as const;

const ranges = {
  fd: [0, 2 ** 31 - 1],
  receiveBufferSize: [1, 2 ** 30],
  sendBufferSize: [1, 2 ** 30],
  ttl: [1, 255],
  multicastTtl: [0, 255],
  messageSize: [1, MESSAGE_BYTES_MAX],
} as const;
const booleans = [
  'reuseAddress',
  'reusePort',
  'ipv6Only',
  'broadcast',
  'multicastLoopback',
] as const;

const EPROTOTYPE_NUMBER = constants.errno.EPROTOTYPE;
const nothing = new Uint8Array(0);
/** datagramAdopt's mark of a connected socket. */
const CONNECTED = 16;

export interface Opened {
  fd: number;
  book: AddressBook;
  connected: boolean;
  /** The unix socket that it made in the file system. */
  file: string | undefined;
}

function check(options: DatagramOptions): void {
  checkObject('options', options);
  for (const key of ['onError', 'onDrain'] as const)
    if (options[key] !== undefined) checkFunction(`options.${key}`, options[key]);
  for (const [key, [min, max]] of Object.entries(ranges)) {
    const value = options[key as keyof typeof ranges];
    if (value !== undefined) checkInteger(`options.${key}`, value, min, max);
  }
  for (const key of booleans)
    if (options[key] !== undefined) checkBoolean(`options.${key}`, options[key]);
  const { family, multicastInterface } = options;
  if (family !== undefined && family !== 4 && family !== 6 && family !== 'unix')
    throw invalidValue('options.family', "must be 4, 6 or 'unix'", family);
  if (multicastInterface !== undefined && typeof multicastInterface !== 'string')
    throw invalidType('options.multicastInterface', 'of type string', multicastInterface);
}

/** The family that an address needs; one that is none is told by AddressBook.pack(). */
function familyOf(address: Address | undefined): Family | undefined {
  if (typeof address !== 'object' || address === null) return undefined;
  if ('path' in address && address.path !== undefined) return 1;
  const { host } = address as { host?: unknown };
  return typeof host === 'string' && native.isIp(host) === 6 ? 6 : 4;
}

/** A socket as it is asked for. What it throws leaves nothing open, and `options.fd` as it was. */
export function openDatagram(bind: Address | undefined, options: DatagramOptions): Opened {
  check(options);
  const opened = options.fd === undefined ? open(bind, options) : adopt(options.fd, bind, options);
  try {
    apply(opened, options);
  } catch (error) {
    if (options.fd === undefined) native.sysClose(opened.fd);
    throw error;
  }
  return opened;
}

function open(bind: Address | undefined, options: DatagramOptions): Opened {
  const { connect, family } = options;
  const asked: Family = family === 'unix' ? 1 : (family ?? 4);
  const book = new AddressBook(familyOf(bind) ?? familyOf(connect) ?? asked);
  const unbound = book.family === 1 || connect !== undefined;
  const wildcard = { host: book.family === 6 ? '::' : '0.0.0.0', port: 0 };
  const own = bind === undefined && !unbound ? wildcard : bind;
  const result = native.datagramOpen(
    book.family,
    own === undefined ? nothing : book.pack('bind', own, 0),
    connect === undefined ? nothing : book.pack('options.connect', connect),
    options.reuseAddress ?? false,
    options.reusePort ?? false,
    options.ipv6Only === undefined ? -1 : Number(options.ipv6Only),
  );
  const file = bind !== undefined && 'path' in bind ? unixFile(bind.path) : undefined;
  if (typeof result === 'number')
    return { fd: result, book, connected: connect !== undefined, file };
  const [status, syscall] = result;
  const where = syscall === 'connect' ? connect : own;
  throw systemError(status, syscall, where && placeOf(where));
}

function adopt(fd: number, bind: Address | undefined, options: DatagramOptions): Opened {
  if (bind !== undefined || options.connect !== undefined)
    throw invalidValue('options.fd', 'is a socket with addresses of its own', fd);
  const result = native.datagramAdopt(fd);
  if (typeof result !== 'number' && result[0] !== -EPROTOTYPE_NUMBER)
    throw systemError(result[0], result[1], undefined, `descriptor ${fd}`);
  const family = typeof result === 'number' ? result & ~CONNECTED : 0;
  if (typeof result !== 'number' || family === 0)
    throw invalidValue('options.fd', `must be a datagram socket; descriptor ${fd} is none`, fd);
  const connected = (result & CONNECTED) !== 0;
  return { fd, book: new AddressBook(family as Family), connected, file: undefined };
}

/** How errors name an address. */
export function placeOf(address: Address): { address: string; port?: number } {
  return 'path' in address
    ? { address: address.path }
    : { address: address.host, port: address.port };
}

function apply({ fd, book }: Opened, options: DatagramOptions): void {
  for (const [key, option] of Object.entries(Option)) {
    const value = options[key as keyof typeof Option];
    if (value === undefined) continue;
    const name = `options.${key}`;
    if (book.family === 1 && option >= Option.ttl)
      throw invalidValue(name, 'is for IP sockets, and this is a unix socket', value);
    const number =
      typeof value === 'string' ? interfaceIndex(name, value) : Number(value as number | boolean);
    const status = native.datagramOption(fd, book.family, option, number);
    if (status < 0) throw systemError(status, 'setsockopt', undefined, name);
  }
}

/** The index of an interface that is given by name, by an address of it, or by its index. */
export function interfaceIndex(name: string, given: string): number {
  if (typeof given !== 'string') throw invalidType(name, 'of type string', given);
  const holder = Object.entries(networkInterfaces()).find(([, all]) =>
    all?.some(({ address }) => address === given),
  );
  const index = native.datagramInterface(holder?.[0] ?? given);
  if (index === 0) throw invalidValue(name, 'names no interface of this machine', given);
  return index;
}
