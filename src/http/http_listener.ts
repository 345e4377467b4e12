// A listener whose connections are an HTTP server's, plain or over TLS.

import { MultiloopError } from '../errors.js';
import type { EventBase } from '../event/event_base.js';
import { native } from '../native.js';
import type { BufferEvent } from '../stream/buffer_event.js';
import { Listener } from '../stream/listener.js';
import type { ListenOptions } from '../stream/listening_socket.js';
import { SocketStream } from '../stream/socket_stream.js';
import {
  type NameContext,
  planListener,
  type TlsListenerPlan,
  type TlsPlan,
  type TlsServerOptions,
} from '../stream/tls_options.js';
import { checkObject, invalidValue } from '../validate.js';

/**
 * What `HttpServer.listen()` answers. With `tls` its connections are HTTPS, and a handshake that
 * fails is told to the server's error hook, once, as ERR_TLS_HANDSHAKE. Belongs to the base's
 * thread.
 */
export class HttpListener extends Listener {
  #plan: TlsPlan | undefined;

  private constructor(
    base: EventBase,
    place: ListenOptions,
    attach: (stream: BufferEvent) => void,
    onError: ((error: Error) => void) | undefined,
    plan: TlsPlan | undefined,
  ) {
    super(base, place, () => undefined, onError);
    this.#plan = plan;
    this.onAccept = (fd) => attach(this.#stream(fd));
  }

  /** @internal Use HttpServer.listen(). Throws what a Listener does, and ERR_TLS_CONFIG. */
  static open(
    base: EventBase,
    options: ListenOptions,
    attach: (stream: BufferEvent) => void,
    onError?: (error: Error) => void,
  ): HttpListener {
    checkObject('listen', options);
    const { tls, ...place } = options;
    // First, so that nothing listens where TLS cannot be.
    const plan = tls === undefined ? undefined : planOf('listen.tls', tls);
    try {
      return new HttpListener(base, place, attach, onError, plan);
    } catch (error) {
      release(plan);
      throw error;
    }
  }

  #stream(fd: number): BufferEvent {
    const stream = new SocketStream(this.base, fd);
    if (this.#plan === undefined) return stream;
    try {
      return stream._secure(this.#plan, 0);
    } catch (error) {
      stream.close();
      throw error;
    }
  }

  /**
   * Another certificate, key and settings for connections from now on; those that are open keep
   * what they have. Throws ERR_TLS_CONFIG, also for a listener that has no TLS or is closed, and
   * changes nothing then.
   */
  setTls(tls: TlsServerOptions): void {
    const old = this.#plan;
    if (old === undefined)
      throw new MultiloopError(
        'ERR_TLS_CONFIG',
        this.closed
          ? 'The listener is closed'
          : 'The listener has no TLS, and gets none while it runs; give it to listen()',
      );
    this.#plan = planOf('tls', tls, old.context);
    release(old);
  }

  override close(): void {
    super.close();
    const plan = this.#plan;
    this.#plan = undefined;
    release(plan);
  }
}

/** With `before` the ticket keys of that context go on. */
function planOf(name: string, options: TlsServerOptions, before?: number): TlsPlan {
  checkObject(name, options);
  if (options.watch)
    throw invalidValue(`${name}.watch`, 'is for listeners of serve(); here call setTls()', true);
  const made = planListener(name, options, before);
  return { ...made.plan, ask: made.ask && asking(made, made.ask) };
}

/** Asks once for all who wait for a name; the answer is learned by the listener's context. */
function asking({ plan }: TlsListenerPlan, ask: NameContext): NameContext {
  const asked = new Map<string, Promise<number>>();
  const learn = async (servername: string) => {
    try {
      const context = await ask(servername);
      if (context === 0) return 0;
      native.tlsContextLearn(plan.context, servername, context);
      // Those who wait take it before that.
      setImmediate(() => native.tlsContextFree(context));
      return context;
    } finally {
      asked.delete(servername);
    }
  };
  return (servername) => {
    const waiting = asked.get(servername) ?? learn(servername);
    asked.set(servername, waiting);
    return waiting;
  };
}

/** The sessions that have its context keep it. */
function release(plan: TlsPlan | undefined): void {
  if (plan !== undefined) native.tlsContextFree(plan.context);
}
