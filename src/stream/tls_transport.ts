// TLS between a stream and its socket: the session, which is the ledger's or this thread's own and
// not this object's, and what the stream has to remember beside it. No call here enters a handler.
//
//   socket ─recv─► records ─► slab ─► input        what does not fit stays inside: `more`
//   output ─gathered, 16 KiB at a time─► records ─send─► socket

import { constants } from 'node:os';
import type { EvBuffer } from '../buffer/ev_buffer.js';
import { MultiloopError, systemError } from '../errors.js';
import type { EventHandle } from '../event/event_handle.js';
import { native, TLS_MORE, TlsCode } from '../native.js';
import { checkBoolean, checkObject } from '../validate.js';
import { type HandshakeFailure, whyHandshakeFailed } from './tls_failures.js';
import type { NameContext, TlsInfo, TlsPlan } from './tls_options.js';

export type { HandshakeFailure };

const { EAGAIN } = constants.errno;
/** In the place of a descriptor (native/core/tls_memory.h). */
export const MEMORY = -1;
/** Plain text of one record (native/core/tls_session.h, kTlsRecordMax). */
export const RECORD_BYTES = 16 * 1024;

/** Of tlsAnswer. */
const REFUSED = -1;

/** What OpenSSL's reason means to whoever reads it. */
const MEANINGS: Record<string, string> = {
  'http request': 'the peer speaks plain HTTP',
  'wrong version number': 'what the peer sends is no TLS',
};

export class TlsTransport {
  /** There may be something to read that the socket will not tell of. */
  more = true;
  /** Reading goes on when the socket can be written. */
  readWantsWrite = false;
  /** A close_notify has not left yet. */
  finishing = false;
  /** Runs while the handshake does. */
  deadline: EventHandle | undefined = undefined;
  /** New keys are to be sent when writing goes on; true: the peer is asked for some too. */
  rekeying: boolean | undefined = undefined;
  readonly #base: number;
  readonly #session: number;
  #unfinished = 0;
  #offered = 0;
  #info: TlsInfo | undefined = undefined;
  #refusal: { name: string; error: unknown } | undefined = undefined;

  protected constructor(base: number, session: number) {
    this.#base = base;
    this.#session = session;
  }

  /** A session to begin; `connection` is 0 for a descriptor that the ledger does not have. */
  static open(base: number, plan: TlsPlan, connection: number, fd: number): TlsTransport {
    return new TlsTransport(base, openSession(base, plan, connection, fd));
  }
  /** That of a connection whose handshake another loop has done. */
  static adopt(base: number, connection: number): TlsTransport {
    const transport = new TlsTransport(base, connection);
    transport.#unfinished = Math.max(0, native.tlsUnfinished(base, connection));
    return transport;
  }

  /**
   * 0: done; 1, 2: it goes on when the socket can be read, written; 3: when it is told what to use
   * for the name `asked`; or a negative code.
   */
  handshake(): number {
    return native.tlsHandshake(this.#base, this.#session);
  }
  get asked(): string {
    return native.tlsAsked(this.#base, this.#session);
  }
  /**
   * Has it told: then the handshake goes on, or fails with the alert unrecognized_name. False:
   * nobody waits for it any more.
   */
  async findContext(ask: NameContext | undefined, waits: () => boolean): Promise<boolean> {
    try {
      // One that is gone when the answer comes was replaced meanwhile.
      for (let found = false; !found; ) {
        const context = (await ask?.(this.asked)) ?? 0;
        if (!waits()) return false;
        found = native.tlsAnswer(this.#base, this.#session, context);
      }
    } catch (error) {
      if (!waits()) return false;
      this.#refusal = { name: this.asked, error };
      native.tlsAnswer(this.#base, this.#session, REFUSED);
    }
    return true;
  }

  /** Bytes that are now where the slab's free memory begins, 0 at the end, or a negative code. */
  recv(offset: number, most: number): number {
    const count = native.tlsRead(this.#base, this.#session, offset, most);
    this.more = count >= TLS_MORE;
    return this.more ? count - TLS_MORE : count;
  }

  /** Bytes that left the output, or a negative code. */
  send(output: EvBuffer, most: number): number {
    // What was begun with so many bytes goes on with them.
    const begun = this.#unfinished;
    const count = output._offer(Math.max(most, begun), RECORD_BYTES, this.#write, begun);
    // All of it: then nothing was begun.
    this.#unfinished =
      count === this.#offered ? 0 : Math.max(0, native.tlsUnfinished(this.#base, this.#session));
    return count;
  }
  readonly #write = (bytes: Uint8Array, offset: number, length: number): number => {
    this.#offered = length;
    return native.tlsWrite(this.#base, this.#session, bytes, offset, length);
  };

  /** Tells the peer that no more follows: false when it has to be tried again. */
  finish(): boolean {
    if (this.rekeying !== undefined && !this.#rekeyed()) {
      this.finishing = true;
      return false;
    }
    this.finishing = native.tlsShutdown(this.#base, this.#session) === -EAGAIN;
    return !this.finishing;
  }

  /** False when it has to be tried again: see `rekeying`. */
  updateKeys(asked = this.rekeying === true): boolean {
    const status = this._updateKeys(asked);
    // A later call that asks the peer is not forgotten for an earlier one that does not.
    this.rekeying = status === -EAGAIN ? asked || this.rekeying === true : undefined;
    if (status < 0 && status !== -EAGAIN) throw this.error(status, 'send');
    return status === 0;
  }
  /** @internal */
  protected _updateKeys(asked: boolean): number {
    return native.tlsUpdateKeys(this.#base, this.#session, asked);
  }

  #rekeyed(): boolean {
    try {
      return this.updateKeys();
    } catch {
      // Then there is no clean end either.
      return true;
    }
  }

  info(): TlsInfo | undefined {
    if (this.#info !== undefined) return this.#info;
    const facts = native.tlsFacts(this.#base, this.#session);
    if (facts === undefined) return undefined;
    const [protocol, cipher, servername, alpn, reused, unauthorized, certificate, ocsp] = facts;
    this.#info = {
      protocol,
      cipher,
      ...(servername === '' ? {} : { servername }),
      ...(alpn === '' ? {} : { alpn }),
      reused,
      authorized: unauthorized === '',
      ...(unauthorized === '' ? {} : { authorizationError: unauthorized }),
      ...(certificate === undefined ? {} : { peerCertificate: certificate }),
      ...(ocsp === undefined ? {} : { ocspResponse: ocsp }),
    };
    return this.#info;
  }
  session(): Uint8Array | undefined {
    return native.tlsSession(this.#base, this.#session);
  }

  #reason(): string {
    const reason = native.tlsError(this.#base, this.#session);
    const meaning = MEANINGS[reason];
    return meaning === undefined ? reason : `${meaning} (${reason})`;
  }
  /** What a negative code of recv() or send() means. */
  error(code: number, syscall: string): Error {
    if (code === TlsCode.TRUNCATED)
      return new MultiloopError(
        'ERR_TLS_TRUNCATED',
        'The connection ended without a close_notify: what has come may not be all that was sent',
      );
    if (code > TlsCode.FAILED) return systemError(code, syscall);
    return new MultiloopError('ERR_TLS_PROTOCOL', `TLS has failed: ${this.#reason()}`);
  }
  /** The same, as one of a fixed set. */
  handshakeFailure(code: number): HandshakeFailure {
    if (this.#refusal !== undefined) return 'unknown name';
    return whyHandshakeFailed(code, native.tlsError(this.#base, this.#session));
  }
  /** What a negative code of handshake() means. */
  handshakeError(code: number): Error {
    let said: string;
    let cause: unknown;
    if (this.#refusal !== undefined) {
      const { name, error } = this.#refusal;
      cause = error;
      said = `'${name}' was refused: ${error instanceof Error ? error.message : String(error)}`;
    } else if (code === TlsCode.TRUNCATED)
      said = 'the peer has closed the connection in the middle of it';
    else if (code > TlsCode.FAILED) {
      const failed = systemError(code, 'recv');
      cause = failed;
      said = failed.message;
    } else said = this.#reason();
    const message = `The TLS handshake has failed: ${said}`;
    return new MultiloopError('ERR_TLS_HANDSHAKE', message, { cause });
  }

  /** The session goes with its descriptor; one of this thread's own is freed here. */
  free(): void {
    this.deadline?.free();
    this.deadline = undefined;
    if (this.#session < 0) native.tlsFree(this.#session);
  }
}

/** Over a descriptor or MEMORY; answers the session's number. */
export function openSession(base: number, plan: TlsPlan, connection: number, fd: number): number {
  const { context, serverName, identity, session } = plan;
  const id = native.tlsOpen(base, connection, context, fd, serverName, identity, session);
  if (typeof id === 'number') return id;
  const where = fd === MEMORY ? 'the stream' : `descriptor ${fd}`;
  throw new MultiloopError('ERR_TLS_CONFIG', `There is no TLS on ${where}: ${id}`);
}

export interface KeyUpdateOptions {
  /** The peer is asked for new keys too. */
  peer?: boolean;
}

/** `tls`: undefined before the handshake is done, and where there is none. */
export function updateKeys(tls: TlsTransport | undefined, options: KeyUpdateOptions): boolean {
  checkObject('options', options);
  const { peer = false } = options;
  checkBoolean('options.peer', peer);
  const protocol = tls?.info()?.protocol;
  if (tls !== undefined && protocol === 'TLSv1.3') return tls.updateKeys(peer);
  throw new MultiloopError(
    'ERR_TLS_CONFIG',
    `Only TLSv1.3 has a key update, after its handshake; the stream has ${protocol ?? 'none'}`,
  );
}
