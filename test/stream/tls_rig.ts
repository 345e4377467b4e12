// What the tests of TLS over streams share: a base that runs, streams with TLS over each kind of
// stream, peers of Node's; and after each test everything closed, descriptors and sessions counted.

import { once } from 'node:events';
import net from 'node:net';
import type { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import tls from 'node:tls';
import { suite, type Test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type BevOptions,
  BufferEvent,
  Ev,
  EventBase,
  Listener,
  LoopFlag,
  type SocketStream,
  sys,
  type TlsClientOptions,
  type TlsServerOptions,
  type TlsStream,
} from '../../src/index.js';
import { native } from '../../src/native.js';
import { assertNoneLeft, ended, openDescriptors, PATIENCE_MS, within } from '../event/support.js';
import { ca, pair } from '../tls/pems.js';
import { warmUp } from '../warm_up.js';
import { until } from './rig.js';
import { Tape } from './tape.js';

const nothing = () => undefined;
export const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const;
export const server: TlsServerOptions = pair('localhost');
export const client: TlsClientOptions = { ca, servername: 'localhost' };

export type TlsBev = SocketStream | TlsStream;

/** A stream that reads, and what it is told. */
export class End extends Tape {
  readonly bev: TlsBev;
  readonly errors: NodeJS.ErrnoException[] = [];
  bytes = 0;
  /** False: bytes are counted and not kept. */
  keeps = true;

  constructor(make: (options: BevOptions) => TlsBev) {
    super();
    this.bev = make({ handlers: this });
    this.bev.enable(Ev.READ);
  }
  override read(bev: BufferEvent): void {
    this.bytes += bev.input.length;
    if (this.keeps) super.read(bev);
    else bev.input.drain(bev.input.length);
  }
  override write(): void {}
  override event(bev: BufferEvent, event: Parameters<Tape['event']>[1]): void {
    if (event.error !== undefined) this.errors.push(event.error);
    super.event(bev, event);
  }
  /** Events alone, without what was read. */
  get events(): string[] {
    return this.told.filter((one) => !one.startsWith('read '));
  }
  async nth(at = 0): Promise<string> {
    await until(() => this.events.length > at);
    return this.events[at];
  }
}

export class TlsRig {
  readonly base: EventBase;
  readonly #closers: (() => unknown)[] = [];
  readonly #before = openDescriptors();
  readonly #sessions = native.tlsSessionCount();

  constructor() {
    this.base = new EventBase({ debug: true });
    this.base.loop(LoopFlag.NO_EXIT_ON_EMPTY).catch(nothing);
  }
  async end(): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) await close();
    this.base.close();
    await turn();
    await turn();
    assert.is(native.tlsSessionCount(), this.#sessions, 'sessions');
    assertNoneLeft(this.#before);
  }
  atEnd(close: () => unknown): void {
    this.#closers.push(close);
  }

  own<T extends { close(): void }>(one: T): T {
    this.atEnd(() => one.close());
    return one;
  }
  make(make: (options: BevOptions) => TlsBev): End {
    const end = new End(make);
    this.own(end.bev);
    return end;
  }

  /** TLS over `under`. */
  over(under: BufferEvent, options: TlsServerOptions | TlsClientOptions): End {
    return this.make((rest) => BufferEvent.tls(under, { tls: options, ...rest }));
  }
  socket(fd: number, options: TlsServerOptions | TlsClientOptions): End {
    return this.make((rest) => BufferEvent.socket(this.base, fd, { tls: options, ...rest }));
  }
  connect(port: number, options: TlsClientOptions = client): End {
    return this.make((rest) =>
      BufferEvent.connect(this.base, { host: '127.0.0.1', port }, { tls: options, ...rest }),
    );
  }

  /** A port of ours, and the descriptors of those who come. */
  listen(onFd: (fd: number) => void): number {
    const listener = this.own(new Listener(this.base, { port: 0, host: '127.0.0.1' }, onFd));
    return (listener.address as { port: number }).port;
  }
  /** A port of ours and the first who comes there, as TLS over its socket. */
  listenOne(options: TlsServerOptions = server): { port: number; accepted: Promise<End> } {
    let accept: (end: End) => void = nothing;
    const accepted = new Promise<End>((resolve) => {
      accept = resolve;
    });
    return { port: this.listen((fd) => accept(this.socket(fd, options))), accepted };
  }
  ownNode<T extends Duplex>(stream: T): T {
    stream.on('error', nothing);
    this.atEnd(async () => {
      stream.destroy();
      if (!stream.closed) await within(PATIENCE_MS, new Promise((r) => stream.once('close', r)));
    });
    return stream;
  }
  /** A port of Node's on which each connection is given as it is. */
  async nodeListen(onSocket: (socket: net.Socket) => void): Promise<number> {
    const listening = net.createServer({ allowHalfOpen: true }, (socket) =>
      onSocket(this.ownNode(socket)),
    );
    listening.listen(0, '127.0.0.1');
    await once(listening, 'listening');
    this.atEnd(() => new Promise((resolve) => listening.close(resolve)));
    return (listening.address() as net.AddressInfo).port;
  }
  nodeConnect(port: number): net.Socket {
    return this.ownNode(net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }));
  }

  /** Two streams that are each other's other side, of one of the kinds. */
  readonly pairs: Record<string, () => [BufferEvent, BufferEvent]> = {
    pair: () => BufferEvent.pair(this.base),
    sockets: () => {
      const [one, other] = sys.socketPair();
      return [BufferEvent.socket(this.base, one), BufferEvent.socket(this.base, other)];
    },
    filters: () => {
      const [one, other] = BufferEvent.pair(this.base);
      const turned = { input: inverted, output: inverted };
      return [BufferEvent.filter(one, turned), BufferEvent.filter(other, turned)];
    },
    duplexes: () => {
      const [one, other] = BufferEvent.pair(this.base);
      const half = { allowHalfOpen: true };
      return [
        BufferEvent.fromDuplex(this.base, one.toDuplex(half)),
        BufferEvent.fromDuplex(this.base, other.toDuplex(half)),
      ];
    },
    'TLS over a socket': () => {
      const [one, other] = sys.socketPair();
      return [
        BufferEvent.socket(this.base, one, { tls: client }),
        BufferEvent.socket(this.base, other, { tls: server }),
      ];
    },
    'TLS over TLS over a pair': () => {
      const [one, other] = BufferEvent.pair(this.base);
      const near = BufferEvent.tls(one, { tls: client });
      const far = BufferEvent.tls(other, { tls: server });
      return [BufferEvent.tls(near, { tls: client }), BufferEvent.tls(far, { tls: server })];
    },
  };
  /** TLS over both, a client and a server. */
  both(
    kind = 'pair',
    serverOptions: TlsServerOptions = server,
    clientOptions: TlsClientOptions = client,
  ): { near: End; far: End; under: [BufferEvent, BufferEvent] } {
    const under = this.pairs[kind]();
    const near = this.over(under[0], clientOptions);
    const far = this.over(under[1], serverOptions);
    return { near, far, under };
  }
  /** The same when both have done their handshakes. */
  async open(...args: Parameters<TlsRig['both']>): Promise<ReturnType<TlsRig['both']>> {
    const ends = this.both(...args);
    assert.is(await ends.near.nth(), 'connected');
    assert.is(await ends.far.nth(), 'connected');
    return ends;
  }
}

const inverted: NonNullable<Parameters<typeof BufferEvent.filter>[1]['input']> = (from, to) => {
  to.add(from.remove(from.length).map((byte) => byte ^ 0xff));
  return 'ok';
};

/** A TLS socket of Node's over any Duplex. */
export function nodeClient(rig: TlsRig, socket: Duplex, options: tls.ConnectionOptions = {}) {
  return rig.ownNode(tls.connect({ socket, servername: 'localhost', ca, ...options }));
}
export function nodeServer(rig: TlsRig, socket: Duplex, options: tls.TLSSocketOptions = {}) {
  const secureContext = tls.createSecureContext({
    ...(server as tls.SecureContextOptions),
    ...options,
  });
  return rig.ownNode(new tls.TLSSocket(socket as net.Socket, { isServer: true, secureContext }));
}

/** A suite whose tests are given a rig, or that says why there is none. */
export function tlsSuite(name: string): {
  test: (title: string, body: (rig: TlsRig) => Promise<void> | void) => void;
  run: () => void;
} {
  const tests: Test = suite(name);
  const why = native.tlsUnavailable();
  return {
    test: (title, body) =>
      tests(title, async () => {
        await warmUp();
        const rig = new TlsRig();
        await ended(
          () => within(PATIENCE_MS * 2, body(rig), title),
          () => within(PATIENCE_MS, rig.end(), 'the end'),
        );
      }),
    run: () => {
      if (why === undefined) tests.run();
      else console.log(`Skipped: ${why}`);
    },
  };
}
