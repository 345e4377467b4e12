// A stream as a Duplex of Node's that looks like a net.Socket, for whatever wants one: http, tls,
// ws, pipeline(), web streams.
//
//   input ─copy─► push()        false: not enabled until _read(), so at most the Duplex's mark and
//                               one read are held
//   _write() ─► output          called back when it may go on: at once for what was copied, up to
//                               the output's mark; else when the output is empty
//
// What is pushed is a copy, because Node never tells when it is done with a chunk, and the input's
// slabs are filled anew. The stream tells its adapter at once what becomes of the output (wrote,
// ended, shut: see DuplexSide); whatever of the user's that concerns waits for a tick of Node.

import { AsyncResource } from 'node:async_hooks';
import { Duplex } from 'node:stream';
import { type Bytes, EvBuffer } from '../buffer/ev_buffer.js';
import { MultiloopError } from '../errors.js';
import { Ev } from '../event/ev.js';
import { native } from '../native.js';
import { checkFunction, checkInteger, checkMillis, checkObject, invalidType } from '../validate.js';
import type { AdaptedStream, DuplexOptions, DuplexSide } from './adapted_stream.js';
import type { Address } from './address.js';
import type { BevEvent } from './bev_options.js';
import { Hold } from './hold.js';
import { keepRunning } from './keep_running.js';
import type { TlsInfo } from './tls_options.js';

export type { DuplexOptions } from './adapted_stream.js';

/** Bytes of one chunk that is pushed. */
const CHUNK_BYTES = 64 * 1024;
/** Bytes that the stream may read ahead of what is pushed, if it has no mark of its own. */
const INPUT_HIGH_WATERMARK = 2 * CHUNK_BYTES;
/** What is shorter is copied, as write() of a stream does; the rest is lent until it has left. */
const LENT_BYTES = 4 * 1024;
/** Seconds of silence before a keep-alive probe: the kernel's own default, tcp(7). */
const KEEP_ALIVE_SECONDS = 7_200;
/** What setTimeout() of Node takes at most. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

type Done = (error?: Error | null) => void;

/** A write or an end that was not called back yet, with the async context that it was made in. */
class Waiting {
  readonly bytes: number;
  readonly #done: Done;
  readonly #context = new AsyncResource('multiloop.write');
  constructor(done: Done, bytes: number) {
    this.#done = done;
    this.bytes = bytes;
  }
  /** In a tick of its own: this may be inside a call, or at the end of a pass. */
  settle(error: Error | null): void {
    process.nextTick(() => this.#context.runInAsyncScope(this.#done, undefined, error));
  }
}

/**
 * A stream as a Duplex, made by `BufferEvent.toDuplex()`, with what a net.Socket has besides.
 *
 * It moves while its base dispatches by dispatch() or loop(); inside loopSync() no tick of Node's
 * runs. While it is open the base's loop does not end as empty; what keeps the process alive is
 * what the stream waits for, so a Duplex that is paused or unref'd lets it go, as a socket does.
 *
 * A write is called back when its memory is free to be changed: at once for pieces of less than
 * 4 KiB, which are copied, as long as the output is below its high watermark; otherwise when the
 * output is empty. 'finish' means that all of it has left and the peer has been told. The peer sees
 * an end after destroy(), and a reset after destroy(error) and resetAndDestroy(). Errors are those
 * of the stream (ECONNRESET, EPIPE, ERR_PARTNER_GONE, a filter's). Belongs to its base's thread.
 */
export class DuplexAdapter extends Duplex implements DuplexSide {
  /** As of net.Socket: what setTimeout() was given, or undefined. */
  timeout: number | undefined = undefined;

  readonly #stream: AdaptedStream;
  readonly #context = new AsyncResource('multiloop.duplex');
  readonly #letGo: () => void;
  // Reading: whether push() may be called, whether that is happening, and whether null was pushed.
  #wanted = false;
  #pushing = false;
  #endPushed = false;
  #peerEnded: boolean;
  #connecting: boolean;
  // Writing: what waits, and how many pieces of its memory are still in a buffer.
  #waiting: Waiting | undefined = undefined;
  #ending: Waiting | undefined = undefined;
  #lent = 0;
  #resets = false;
  #timer: NodeJS.Timeout | undefined = undefined;
  #writtenBefore = 0;
  #remote: Address | undefined = undefined;

  /** @internal */
  constructor(stream: AdaptedStream, options: DuplexOptions = {}) {
    checkObject('options', options);
    const { allowHalfOpen = false, readableHighWaterMark, writableHighWaterMark } = options;
    if (typeof allowHalfOpen !== 'boolean')
      throw invalidType('options.allowHalfOpen', 'of type boolean', allowHalfOpen);
    for (const [name, mark] of Object.entries({ readableHighWaterMark, writableHighWaterMark }))
      if (mark !== undefined) checkInteger(`options.${name}`, mark, 0);
    super({ allowHalfOpen, decodeStrings: false, readableHighWaterMark, writableHighWaterMark });
    this.#stream = stream;
    this.#peerEnded = stream._peerEnded;
    this.#connecting = (stream._readHeld & Hold.CONNECTING) !== 0;
    if (stream.closed) {
      this.#letGo = () => undefined;
      this.destroy();
      return;
    }
    this.#letGo = keepRunning(stream.base);
    stream.setWatermark(Ev.READ, 0, stream.getWatermark('read').high || INPUT_HIGH_WATERMARK);
    stream.setWatermark(Ev.WRITE, 0);
    stream.handlers = {
      read: () => this.#context.runInAsyncScope(this.#came, this),
      event: (_, event) => this.#context.runInAsyncScope(this.#told, this, event),
    };
    stream.enable(Ev.WRITE);
    if (stream.ended) this.end();
    // As a net.Socket does it: whoever does not read yet still learns of an end or an error.
    this.read(0);
  }

  // ── reading ──

  override _read(): void {
    this.#wanted = true;
    this.#push();
  }

  #came(): void {
    this.#isConnected();
    this.#push();
  }
  #push(): void {
    if (this.#pushing || this.destroyed) return;
    const stream = this.#stream;
    this.#pushing = true;
    try {
      while (this.#wanted && stream.inputLength > 0) {
        this.#moved();
        const { input } = stream;
        this.#wanted = this.push(input.remove(Math.min(input.length, CHUNK_BYTES)));
      }
    } finally {
      this.#pushing = false;
    }
    if (this.destroyed) return;
    if (this.#peerEnded && stream.inputLength === 0) this.#pushEnd();
    else if (this.#wanted !== ((stream.enabled & Ev.READ) !== 0)) {
      if (this.#wanted) stream.enable(Ev.READ);
      else stream.disable(Ev.READ);
    }
  }

  #pushEnd(): void {
    if (this.#endPushed) return;
    this.#endPushed = true;
    this.push(null);
    // So that it ends although nobody reads, if there is nothing to read.
    this.read(0);
  }

  #told(event: BevEvent): void {
    if (event.connected) {
      this.#isConnected();
    } else if (event.timeout) {
      // The stream has stopped; a socket of Node's only says so.
      if (event.direction === 'write') this.#stream.enable(Ev.WRITE);
      else this.#push();
      this.emit('timeout');
    } else if (event.eof) {
      this.#peerEnded = true;
      this.#push();
    } else if (event.error !== undefined && !isLateShutdown(event.error)) {
      this.destroy(event.error);
    }
  }

  /** Once, and before anything else is told: what was written meanwhile may have left already. */
  #isConnected(): void {
    if (!this.#connecting) return;
    this.#connecting = false;
    this.#moved();
    this.emit('connect');
    this.emit('ready');
    this.#settle();
    if (this.#stream._endTold) this.ended();
  }

  // ── writing ──

  override _write(chunk: Uint8Array | string, encoding: BufferEncoding, done: Done): void {
    if (typeof chunk !== 'string' && chunk.length >= LENT_BYTES)
      this._writev([{ chunk, encoding }], done);
    else this.#send(bytesOf(chunk, encoding), chunk.length, done);
  }
  override _writev(
    chunks: { chunk: Uint8Array | string; encoding: BufferEncoding }[],
    done: Done,
  ): void {
    const gathered = new EvBuffer();
    let length = 0;
    for (const { chunk, encoding } of chunks) {
      length += chunk.length;
      if (typeof chunk === 'string' || chunk.length < LENT_BYTES) {
        gathered.add(bytesOf(chunk, encoding));
      } else {
        this.#lent++;
        gathered.addReference(chunk, this.#returned);
      }
    }
    this.#send(gathered, length, done);
  }

  #send(data: Bytes | EvBuffer, length: number, done: Done): void {
    const stream = this.#stream;
    this.#moved();
    let goesOn: boolean;
    try {
      goesOn = stream.write(data);
    } catch (error) {
      done(error as Error);
      return;
    }
    if (this.#lent === 0 && (goesOn || stream.outputLength === 0)) done();
    else this.#waiting = new Waiting(done, length);
  }

  /** Memory that was lent is in no buffer any more, on this side or on the other. */
  readonly #returned = (): void => {
    this.#lent--;
    this.#settle();
  };

  #settle(): void {
    const waiting = this.#connecting ? undefined : this.#waiting;
    if (waiting === undefined || this.#lent > 0 || this.#stream.outputLength > 0) return;
    this.#waiting = undefined;
    waiting.settle(null);
  }

  /** @internal */
  wrote(): void {
    this.#moved();
    this.#settle();
  }

  override _final(done: Done): void {
    const stream = this.#stream;
    try {
      stream.end();
    } catch (error) {
      done(error as Error);
      return;
    }
    if (stream._endTold && !this.#connecting) done();
    else this.#ending = new Waiting(done, 0);
  }

  /** @internal */
  ended(): void {
    if (this.#connecting) return;
    this.#ending?.settle(null);
    this.#ending = undefined;
  }

  // ── ending ──

  /** @internal */
  shut(error: Error | undefined): void {
    this.destroy(error);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const stream = this.#stream;
    clearTimeout(this.#timer);
    try {
      if (!stream.closed) {
        stream.handlers = {};
        if (this.#resets || (error !== null && !isAnswered(error)))
          stream.destroy(error ?? new Error('The stream was reset'));
        else stream.close();
      }
    } finally {
      this.#letGo();
      const cancelled = error ?? destroyedError();
      this.#waiting?.settle(cancelled);
      this.#ending?.settle(cancelled);
      this.#waiting = this.#ending = undefined;
      done(error);
    }
  }

  /** Ends, and destroys itself when everything is written. */
  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }

  /** Closes with a reset, which the peer sees as an error; this side has none. */
  resetAndDestroy(): this {
    this.#resets = true;
    return this.destroy();
  }

  // ── what else a socket of Node's has ──

  /** What is under it. It belongs to this Duplex: its handlers, watermarks and what is enabled. */
  get bufferEvent(): AdaptedStream {
    return this.#stream;
  }

  /**
   * 'timeout' is emitted after so many milliseconds without any traffic, and again after the next
   * traffic; 0 ends that. Nothing else happens: it is for the listener to end or destroy.
   */
  setTimeout(timeout: number, callback?: () => void): this {
    checkMillis('timeout', timeout);
    if (callback !== undefined) checkFunction('callback', callback);
    if (this.destroyed) return this;
    this.timeout = timeout;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (timeout > 0) {
      this.#writtenBefore = this.#stream.bytesWritten;
      this.#timer = this.#context.runInAsyncScope(() =>
        setTimeout(() => this.#silent(), Math.min(timeout, TIMEOUT_MS_MAX)).unref(),
      );
      if (callback !== undefined) this.once('timeout', callback);
    } else if (callback !== undefined) {
      this.removeListener('timeout', callback);
    }
    return this;
  }
  #moved(): void {
    this.#timer?.refresh();
  }
  #silent(): void {
    // A large write to a slow peer is no silence (lib/net.js, Socket.prototype._onTimeout).
    const { bytesWritten, outputLength } = this.#stream;
    if (bytesWritten === this.#writtenBefore || outputLength === 0) {
      this.emit('timeout');
      return;
    }
    this.#writtenBefore = bytesWritten;
    this.#timer?.refresh();
  }

  /** Does nothing: what one pass writes leaves in one write at its end, and Nagle is off. */
  setNoDelay(_noDelay?: boolean): this {
    return this;
  }
  /** Milliseconds of silence before the first probe; 0 leaves that to the system. */
  setKeepAlive(enable = false, initialDelay = 0): this {
    const { fd } = this.#stream as { fd?: number };
    if (fd === undefined || fd < 0) return this;
    const seconds = Math.floor(initialDelay / 1000) || KEEP_ALIVE_SECONDS;
    native.sockKeepAlive(fd, enable ? seconds : 0);
    return this;
  }
  ref(): this {
    this.#stream.ref();
    return this;
  }
  unref(): this {
    this.#stream.unref();
    return this;
  }

  get connecting(): boolean {
    return this.#connecting && !this.destroyed;
  }
  get pending(): boolean {
    return this.connecting;
  }
  get readyState(): 'opening' | 'open' | 'readOnly' | 'writeOnly' | 'closed' {
    if (this.connecting) return 'opening';
    if (this.readable) return this.writable ? 'open' : 'readOnly';
    return this.writable ? 'writeOnly' : 'closed';
  }
  get bytesRead(): number {
    return this.#stream.bytesRead;
  }
  /** With what is still to go, as net.Socket counts. */
  get bytesWritten(): number {
    const { bytesWritten, outputLength } = this.#stream;
    const queued = this.writableLength - (this.#waiting?.bytes ?? 0);
    return bytesWritten + outputLength + queued;
  }

  /** Of TLS under it, when its handshake is done. */
  get tls(): TlsInfo | undefined {
    return this.#stream.tls;
  }
  get remoteAddress(): string | undefined {
    return hostOf(this.#peer);
  }
  get remotePort(): number | undefined {
    return portOf(this.#peer);
  }
  get remoteFamily(): string | undefined {
    return familyOf(this.#peer);
  }
  get localAddress(): string | undefined {
    return hostOf(this.#stream.localAddress);
  }
  get localPort(): number | undefined {
    return portOf(this.#stream.localAddress);
  }
  get localFamily(): string | undefined {
    return familyOf(this.#stream.localAddress);
  }
  address(): { address?: string; port?: number; family?: string } {
    const { localAddress: address, localPort: port, localFamily: family } = this;
    return address === undefined ? {} : { address, port, family };
  }
  /** Asked for once: a log wants it after the end too. */
  get #peer(): Address | undefined {
    this.#remote ??= this.#stream.remoteAddress;
    return this.#remote;
  }
}

/** A stream takes UTF-8 as it is. */
function bytesOf(chunk: Uint8Array | string, encoding: BufferEncoding): Bytes {
  if (typeof chunk !== 'string' || encoding === 'utf8') return chunk;
  return Buffer.from(chunk, encoding);
}

function hostOf(address: Address | undefined): string | undefined {
  return address !== undefined && 'host' in address ? address.host : undefined;
}
function portOf(address: Address | undefined): number | undefined {
  return address !== undefined && 'port' in address ? address.port : undefined;
}
function familyOf(address: Address | undefined): string | undefined {
  const host = hostOf(address);
  if (host === undefined) return undefined;
  return host.includes(':') ? 'IPv6' : 'IPv4';
}

/** The peer was gone before it could be told that nothing more comes; net.js ignores it too. */
function isLateShutdown(error: Error): boolean {
  const { code, syscall } = error as NodeJS.ErrnoException;
  return code === 'ENOTCONN' && syscall === 'shutdown';
}

/**
 * Errors of a peer that Node's http server has answered before it destroys the socket with them
 * (lib/_http_server.js, socketOnError): the answer would be lost with a reset.
 */
function isAnswered(error: Error): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ERR_HTTP_REQUEST_TIMEOUT' || code?.startsWith('HPE_') === true;
}

function destroyedError(): Error {
  return new MultiloopError(
    'ERR_STREAM_DESTROYED',
    'The stream was destroyed before this was written',
  );
}
