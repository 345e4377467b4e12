// A datagram socket: messages in and out in batches, over IPv4, IPv6 and unix sockets.
//
//   kernel ─recvmmsg─► memory of the base ─one copy─► onMessages          one call a pass
//   send() ─► queue ─end of pass─► sendmmsg       WRITE is waited for after EAGAIN only

import { rmSync } from 'node:fs';
import { constants } from 'node:os';
import { MultiloopError, systemError } from '../errors.js';
import { Ev } from '../event/ev.js';
import { EventBase } from '../event/event_base.js';
import type { EventHandle } from '../event/event_handle.js';
import type { PassEnd } from '../event/options.js';
import { native } from '../native.js';
import { checkBytes, checkFunction, invalidType, invalidValue } from '../validate.js';
import { type Address, toAddress } from './address.js';
import type { AddressBook } from './address_book.js';
import {
  type DatagramOptions,
  interfaceIndex,
  openDatagram,
  PAYLOAD_MAX,
  placeOf,
} from './datagram_options.js';
import { isOfTheNetwork } from './network_errors.js';
import {
  type DatagramMessage,
  MESSAGE_BYTES,
  RECEIVE_BATCH_MAX,
  type ReceiveRoom,
  roomOf,
} from './receive_room.js';
import { SendQueue } from './send_queue.js';

/** Asked for at least: the second one is how the kernel says that there is no more. */
const RECEIVE_BATCH_MIN = 2;
/** How long receiving rests after a failure that is none of the network's. */
const REST_MS = 100;
/** When a unix peer is full, nothing tells that it has read: so often it is tried again. */
const UNIX_RETRY_MS = 2;
/** Errors that wait to be told; more are dropped, as their messages were. */
const ERRORS_MAX = 64;

const { EAGAIN, EMSGSIZE } = constants.errno;

const nobody = new Uint8Array(0);

/**
 * A datagram socket on `base`, bound to `bind`; without it, to a port that the kernel chooses, on
 * all addresses. Belongs to the base's thread. Throws what the kernel says of the addresses and
 * options, and ERR_INVALID_ARG_VALUE for names: addresses are IP addresses, or paths.
 *
 * `onMessages` gets what has come since, up to 32 messages at a time, in the order of the kernel. A
 * unix path is a file that goes away with the socket; one that is there already is EADDRINUSE.
 */
export class Datagram implements Disposable, PassEnd {
  readonly base: EventBase;
  readonly fd: number;
  /** Where it receives; the path is '' for a unix socket that is bound to nothing. */
  readonly address: Address;
  /** Messages of send() that never left: no room was left, the kernel refused them, or close(). */
  dropped = 0;
  /** Messages that came and were cut at `messageSize`. */
  truncated = 0;

  readonly #onMessages: (batch: DatagramMessage[]) => void;
  readonly #onError: ((error: Error) => void) | undefined;
  readonly #onDrain: (() => void) | undefined;
  readonly #book: AddressBook;
  readonly #connected: boolean;
  readonly #file: string | undefined;
  readonly #room: ReceiveRoom;
  readonly #messageSize: number;
  readonly #queue = new SendQueue();
  readonly #priority: number | undefined;
  readonly #event: EventHandle;
  #retry: EventHandle | undefined; // of receiving
  #writable: EventHandle | undefined;
  #teller: EventHandle | undefined;
  readonly #errors: Error[] = [];
  #batch = RECEIVE_BATCH_MIN;
  #paused = false;
  #refd = true;
  #failing = false;
  #resting = false;
  #waiting = false; // for the kernel to take more
  #flushQueued = false;
  #owesDrain = false;
  #retried = false;
  #closed = false;

  constructor(
    base: EventBase,
    bind: Address | undefined,
    onMessages: (batch: DatagramMessage[]) => void,
    options: DatagramOptions = {},
  ) {
    if (!(base instanceof EventBase)) throw invalidType('base', 'an instance of EventBase', base);
    base._checkOpen();
    checkFunction('onMessages', onMessages);
    const opened = openDatagram(bind, options);
    this.base = base;
    this.fd = opened.fd;
    this.#book = opened.book;
    this.#connected = opened.connected;
    this.#file = opened.file;
    this.#onMessages = onMessages;
    this.#onError = options.onError;
    this.#onDrain = options.onDrain;
    this.#messageSize = options.messageSize ?? MESSAGE_BYTES;
    this.#room = roomOf(base, this.#messageSize);
    this.#priority = options.priority;
    this.address = toAddress(native.sockLocal(this.fd)) ?? { path: '' };
    let event: EventHandle | undefined;
    try {
      const { priority } = options;
      event = base.event(this.fd, Ev.READ | Ev.PERSIST, () => this.#receive(), { priority });
      this.#event = event.add();
    } catch (error) {
      event?.free();
      if (options.fd === undefined) this.#closeSocket();
      throw error;
    }
  }

  get closed(): boolean {
    return this.#closed;
  }
  /** Messages that wait for the kernel to take them. */
  get queueLength(): number {
    return this.#queue.length;
  }
  /** The connected peer. */
  get remoteAddress(): Address | undefined {
    if (this.#closed || !this.#connected) return undefined;
    return toAddress(native.sockPeer(this.fd)) ?? { path: '' };
  }

  /**
   * Sends a message, of which it keeps a copy: what one pass sends leaves in one system call at its
   * end, outside a pass at once. `to` is left out on a connected socket, and needed on others.
   *
   * False: the kernel's buffer is full. The message is queued and sent when there is room, and
   * `onDrain` follows. When the queue is full too, at 1,024 messages or 1 MiB, the message is
   * dropped, as UDP drops what nobody can take, and counted in `dropped`.
   *
   * Throws EMSGSIZE for what no datagram can carry, and ERR_STREAM_WRITE_AFTER_END after close().
   * What the kernel says of a message afterwards is onError's.
   */
  send(data: Uint8Array | string, to?: Address): boolean {
    if (this.#closed)
      throw new MultiloopError(
        'ERR_STREAM_WRITE_AFTER_END',
        'The datagram socket was closed and sends no more messages',
      );
    this.base._checkOpen();
    const bytes =
      typeof data === 'string' ? Buffer.byteLength(data) : checkBytes('data', data).length;
    const name = this.#nameOf(to);
    const { family } = this.#book;
    if (bytes > PAYLOAD_MAX[family]) throw this.#tooLong(bytes, to);
    if (!this.#push(data, bytes, name)) {
      this.dropped++;
      this.#owesDrain = true;
      return false;
    }
    if (!this.#waiting && !this.#flushQueued) {
      if (this.base._atPassEnd(this)) this.#flushQueued = true;
      else this.#flush();
    }
    if (!this.#waiting) return true;
    this.#owesDrain = true;
    return false;
  }

  /** Stops receiving; messages wait with the kernel, which drops them when its buffer is full. */
  pause(): void {
    if (this.#closed) return;
    this.#paused = true;
    this.#event.del();
    this.#retry?.del();
  }
  resume(): void {
    if (this.#closed || !this.#paused) return;
    this.#paused = false;
    if (this.#resting) this.#retry?.add(REST_MS);
    else this.#event.add();
  }

  /** A socket keeps the process alive; after unref() it does not. */
  ref(): this {
    return this.#setRef(true);
  }
  unref(): this {
    return this.#setRef(false);
  }

  /**
   * Joins a multicast group, so that messages to it are received: on the interface with this name
   * or address, or on the one that the system chooses. Throws what setsockopt(2) says.
   */
  addMembership(group: string, onInterface?: string): void {
    this.#membership(group, onInterface, true);
  }
  dropMembership(group: string, onInterface?: string): void {
    this.#membership(group, onInterface, false);
  }

  /** Closes now, after one attempt to send what is queued; what is left is dropped. Idempotent. */
  close(): void {
    if (this.#closed) return;
    while (this.#queue.length > 0 && !this.#waiting) if (this.#queue.send(this.fd) <= 0) break;
    this.#closed = true;
    this.dropped += this.#queue.length;
    this.#queue.clear();
    for (const event of [this.#event, this.#retry, this.#writable, this.#teller]) event?.free();
    this.#closeSocket();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  /** @internal */
  passEnd(): void {
    this.#flushQueued = false;
    if (!this.#closed && !this.#waiting) this.#flush();
  }

  // ── receiving ──

  #receive(): void {
    const max = this.#batch;
    const count = this.#room.receive(this.fd, this.#messageSize, max);
    if (count < 0) {
      if (count !== -EAGAIN) this.#failed(count);
      return;
    }
    this.#failing = false;
    if (count === max) this.#batch = Math.min(max * 2, RECEIVE_BATCH_MAX);
    else if (count * 4 <= max) this.#batch = Math.max(max >> 1, RECEIVE_BATCH_MIN);
    const batch = this.#room.take(count, this.#book);
    for (const { truncated } of batch) if (truncated) this.truncated++;
    this.#onMessages(batch);
  }

  #failed(status: number): void {
    if (isOfTheNetwork(-status)) {
      this.#tell(systemError(status, 'recvmsg', this.#peer()));
      return;
    }
    // Level-triggered, it would spin: receiving rests before it is tried again.
    this.#resting = true;
    this.#event.del();
    this.#retry ??= this.#timer(() => this.#rested());
    if (!this.#paused) this.#retry.add(REST_MS);
    if (!this.#failing) this.#tell(systemError(status, 'recvmsg'));
    this.#failing = true;
  }

  #rested(): void {
    this.#resting = false;
    try {
      this.#receive();
    } finally {
      const stopped = this.#closed || this.#paused || this.#resting || this.base._closed;
      if (!stopped) this.#event.add();
    }
  }

  // ── sending ──

  #nameOf(to: Address | undefined): Uint8Array {
    if (!this.#connected) return this.#book.pack('to', to as Address);
    if (to !== undefined)
      throw invalidValue('to', 'must be left out: the socket is connected to its peer', to);
    return nobody;
  }

  #push(data: Uint8Array | string, bytes: number, name: Uint8Array): boolean {
    if (this.#queue.push(data, bytes, name)) return true;
    if (this.#waiting) return false;
    // The kernel has not been asked in this pass.
    this.#flush();
    return this.#queue.push(data, bytes, name);
  }

  /** Sends what the kernel takes. Calls nobody back. */
  #flush(): void {
    const queue = this.#queue;
    while (queue.length > 0) {
      const sent = queue.send(this.fd);
      if (sent >= 0) this.#retried = false;
      else if (sent === -EAGAIN) {
        this.#wait();
        return;
      } else this.#refused(sent);
    }
  }

  /**
   * The first message met an error. On a connected socket it may be what ICMP has said of an
   * earlier one; then this one was not tried, and is once more.
   */
  #refused(status: number): void {
    if (this.#connected && this.#book.family !== 1 && status !== -EMSGSIZE && !this.#retried) {
      this.#retried = true;
      this.#tell(systemError(status, 'sendmsg', this.#peer()));
      return;
    }
    const told = this.#retried;
    this.#retried = false;
    this.dropped++;
    const { bytes, name } = this.#queue.drop();
    const to = name.length > 0 ? toAddress(native.datagramName(name, 0, name.length)) : undefined;
    if (status === -EMSGSIZE) this.#tell(this.#tooLong(bytes, to));
    else if (!told) this.#tell(systemError(status, 'sendmsg', to ? placeOf(to) : this.#peer()));
  }

  #tooLong(bytes: number, to: Address | undefined): Error {
    const place = to === undefined ? this.#peer() : placeOf(to);
    const error = systemError(-EMSGSIZE, 'sendmsg', place);
    const { family } = this.#book;
    const limit =
      family === 1
        ? 'a unix socket carries what fits its sendBufferSize'
        : `over IPv${family} a datagram carries at most ${PAYLOAD_MAX[family]} bytes, ` +
          'and no more than the path when it may not be fragmented';
    error.message += `: this one has ${bytes} bytes; ${limit}`;
    return error;
  }

  #wait(): void {
    // Its base was closed in this pass: nothing will tell when there is room.
    if (this.base._closed) return;
    this.#waiting = true;
    // An unconnected unix socket is writable for poll(2) although the peer it sends to is full
    // (unix_dgram_poll in Linux's net/unix/af_unix.c looks at a connected peer only).
    const isBlind = this.#book.family === 1 && !this.#connected;
    this.#writable ??= isBlind ? this.#timer(() => this.#drained()) : this.#writeEvent();
    this.#writable.add(isBlind ? UNIX_RETRY_MS : undefined);
  }

  #writeEvent(): EventHandle {
    const { fd } = this;
    const options = { priority: this.#priority };
    return this.#setUp(this.base.event(fd, Ev.WRITE, () => this.#drained(), options));
  }

  #drained(): void {
    this.#waiting = false;
    this.#flush();
    if (this.#waiting || !this.#owesDrain) return;
    this.#owesDrain = false;
    this.#onDrain?.();
  }

  // ── the rest ──

  #peer(): { address: string; port?: number } | undefined {
    const peer = this.remoteAddress;
    return peer === undefined ? undefined : placeOf(peer);
  }

  /** Errors are told in a pass, also those of a send() outside one. */
  #tell(error: Error): void {
    if (this.#errors.length >= ERRORS_MAX || this.base._closed) return;
    this.#errors.push(error);
    this.#teller ??= this.#timer(() => this.#tellAll());
    this.#teller.activate(Ev.TIMEOUT);
  }

  #tellAll(): void {
    while (!this.#closed) {
      const error = this.#errors.shift();
      if (error === undefined) return;
      if (this.#errors.length > 0) this.#teller?.activate(Ev.TIMEOUT);
      if (this.#onError === undefined) throw error;
      this.#onError(error);
    }
  }

  #timer(callback: () => void): EventHandle {
    return this.#setUp(this.base.timer(callback, { priority: this.#priority }));
  }

  #setUp(event: EventHandle): EventHandle {
    if (!this.#refd) event.unref();
    return event;
  }

  #setRef(ref: boolean): this {
    this.#refd = ref;
    if (this.#closed) return this;
    for (const event of [this.#event, this.#retry, this.#writable, this.#teller]) {
      if (ref) event?.ref();
      else event?.unref();
    }
    return this;
  }

  #membership(group: string, onInterface: string | undefined, joined: boolean): void {
    if (this.#closed)
      throw new MultiloopError('ERR_STREAM_WRITE_AFTER_END', 'The datagram socket was closed');
    if (this.#book.family === 1)
      throw invalidValue('group', 'is for IP sockets, and this is a unix socket', group);
    const packed = this.#book.pack('group', { host: group, port: 0 }, 0);
    const index = onInterface === undefined ? 0 : interfaceIndex('onInterface', onInterface);
    const status = native.datagramMembership(this.fd, packed, index, joined);
    if (status < 0) throw systemError(status, 'setsockopt', { address: group });
  }

  #closeSocket(): void {
    native.sysClose(this.fd);
    if (this.#file !== undefined) rmSync(this.#file, { force: true });
  }
}
