// What a stream is made with, and what it tells.

import { MultiloopError } from '../errors.js';
import { Ev, type EvMask } from '../event/ev.js';
import { EventBase } from '../event/event_base.js';
import { checkInteger, checkObject, invalidType, outOfRange } from '../validate.js';
import type { BufferEvent } from './buffer_event.js';
import type { RateLimit } from './rate_limit.js';
import type { TlsClientOptions, TlsInfo, TlsServerOptions } from './tls_options.js';

export type { TlsInfo };

/** Called with the stream; `this` is the object of handlers. None is called after close(). */
export interface BevHandlers {
  /** There is input, at least as much as the low watermark says. */
  read?(bev: BufferEvent): void;
  /** The output has drained to its low watermark (0). */
  write?(bev: BufferEvent): void;
  event?(bev: BufferEvent, event: BevEvent): void;
}

/** What happened besides data. With `direction`, only that one is over, and it is disabled. */
export interface BevEvent {
  connected?: true;
  eof?: true;
  timeout?: true;
  error?: Error;
  direction?: 'read' | 'write';
}

export type FlushMode = 'normal' | 'flush' | 'finished';

/** A filter's handlers have this besides: what it is on was closed by somebody else. */
export const CLOSED = Symbol('multiloop.closed');
export interface HandlersAbove extends BevHandlers {
  [CLOSED]?(): void;
}

export function tellAbove(handlers: HandlersAbove): void {
  handlers[CLOSED]?.();
}

export interface BevOptions {
  handlers?: BevHandlers;
  /** Every callback waits for the next pass, and several reasons for one are one call. */
  defer?: boolean;
  /** True unless said otherwise: close() closes the descriptor, or what a filter is on. */
  closeFd?: boolean;
  /** Of its events; 0 is the most urgent, the middle one is the default. */
  priority?: number;
  rateLimit?: RateLimit;
  /** For socket(), connect() and tls(): TLS, and `connected` is told when its handshake is done. */
  tls?: TlsClientOptions | TlsServerOptions;
}

/** What most streams have in common; one that is told otherwise gets a copy of its own. */
export interface Settings {
  readonly readLow: number;
  readonly readHigh: number;
  readonly writeLow: number;
  readonly writeHigh: number;
  readonly readTimeout: number | undefined;
  readonly writeTimeout: number | undefined;
  readonly maxRead: number;
  readonly maxWrite: number;
  readonly priority: number;
}

/** Bytes of output above which write() answers false. */
export const OUTPUT_HIGH_WATERMARK = 64 * 1024;
/** Bytes of one read or one write, at most, unless `maxRead` and `maxWrite` say otherwise. */
export const TRANSFER_BYTES = 64 * 1024;
/** By priority. */
const defaults: Settings[] = [];
export function defaultSettings(priority: number): Settings {
  defaults[priority] ??= {
    readLow: 0,
    readHigh: 0,
    writeLow: 0,
    writeHigh: OUTPUT_HIGH_WATERMARK,
    readTimeout: undefined,
    writeTimeout: undefined,
    maxRead: TRANSFER_BYTES,
    maxWrite: Infinity,
    priority,
  };
  return defaults[priority];
}
export function checkBase(base: EventBase): void {
  if (!(base instanceof EventBase)) throw invalidType('base', 'an instance of EventBase', base);
  base._checkOpen();
}

export function checkOptions(base: EventBase, options: BevOptions): void {
  checkBase(base);
  checkObject('options', options);
  const { handlers, priority, closeFd = true } = options;
  if (handlers !== undefined) checkObject('options.handlers', handlers);
  // Those that can have it have taken it out.
  if (options.tls !== undefined)
    throw new MultiloopError(
      'ERR_TLS_UNAVAILABLE',
      'This kind of stream has no TLS; socket() and connect() have, and tls() is over any stream',
    );
  if (priority !== undefined) checkInteger('options.priority', priority, 0, base.priorities - 1);
  if (typeof closeFd !== 'boolean')
    throw invalidType('options.closeFd', 'of type boolean', closeFd);
}

export function checkDirections(mask: EvMask): void {
  checkInteger('mask', mask, 0, 0xff);
  if (mask & ~(Ev.READ | Ev.WRITE))
    throw new MultiloopError(
      'ERR_BAD_MASK',
      `A direction is Ev.READ, Ev.WRITE or both; got 0x${mask.toString(16)}`,
    );
}

export function checkFlushMode(mode: unknown): void {
  if (mode !== 'normal' && mode !== 'flush' && mode !== 'finished')
    throw invalidType('mode', "'normal', 'flush' or 'finished'", mode);
}

export function checkOrder(low: number, high: number): void {
  if (high > 0 && low > high) throw outOfRange('low', `<= ${high}, the high watermark`, low);
}
