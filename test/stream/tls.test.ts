// TLS over a socket, each end once ours and once Node's.

import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import * as assert from 'uvu/assert';
import {
  type BevEvent,
  type BevOptions,
  BufferEvent,
  Ev,
  EventBase,
  Listener,
  LoopFlag,
  RateLimit,
  type SocketStream,
  sys,
  type TlsClientOptions,
  type TlsServerOptions,
} from '../../src/index.js';
import { native } from '../../src/native.js';
import { assertNoneLeft, codeOf, openDescriptors, thrownBy, within } from '../event/support.js';
import { suite } from '../hooks.js';
import { ca, pair } from '../tls/pems.js';
import { warmUp } from '../warm_up.js';

const PATIENCE_MS = 20_000;
const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const;
const why = native.tlsUnavailable();
const nothing = () => undefined;

/** A stream and what it was told, with promises for what comes next. */
class End {
  readonly bev: SocketStream;
  readonly told: string[] = [];
  readonly errors: NodeJS.ErrnoException[] = [];
  text = '';
  bytes = 0;
  #wake: () => void = nothing;

  constructor(make: (options: BevOptions) => SocketStream, keeps = true) {
    this.bev = make({
      handlers: {
        read: (bev) => {
          this.bytes += bev.input.length;
          const data = bev.input.remove(bev.input.length);
          if (keeps) this.text += Buffer.from(data).toString('latin1');
          this.#wake();
        },
        write: () => this.#wake(),
        event: (_, event) => this.#event(event),
      },
    });
    this.bev.enable(Ev.READ);
    ends.push(this);
  }
  #event({ error, direction, ...what }: BevEvent): void {
    const said = [direction, ...Object.keys(what), error && (error as { code?: string }).code];
    this.told.push(said.filter(Boolean).join(' '));
    if (error !== undefined) this.errors.push(error);
    this.#wake();
  }
  async until(done: () => boolean): Promise<void> {
    const waited = async () => {
      while (!done()) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    };
    await within(PATIENCE_MS, waited(), `after ${this.told.join(', ')}: ${done}`);
  }
  /** The next that it is told, of all so far the one with number `at`. */
  async event(at = 0): Promise<string> {
    await this.until(() => this.told.length > at);
    return this.told[at];
  }
}

let base: EventBase;
let before: string[];
const closers: (() => unknown)[] = [];
let ends: End[] = [];

const test = suite('tls');
test.before.each(async () => {
  await warmUp();
  before = openDescriptors();
  base = new EventBase({ debug: true });
  base.loop(LoopFlag.NO_EXIT_ON_EMPTY).catch(nothing);
});
test.after.each(async () => {
  for (const { bev } of ends) bev.close();
  for (const close of closers.splice(0).reverse()) await close();
  ends = [];
  base.close();
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assertNoneLeft(before);
});

/** A port whose connections are streams of ours with these options. */
function serve(options: TlsServerOptions, onEnd: (end: End) => void): number {
  const listener = new Listener(base, { port: 0, host: '127.0.0.1' }, (fd) => {
    onEnd(new End((rest) => BufferEvent.socket(base, fd, { tls: options, ...rest })));
  });
  closers.push(() => listener.close());
  return (listener.address as { port: number }).port;
}
/** The first connection to that port. */
function serveOne(options: TlsServerOptions): { port: number; accepted: Promise<End> } {
  let accept: (end: End) => void = nothing;
  const accepted = new Promise<End>((resolve) => {
    accept = resolve;
  });
  return { port: serve(options, (end) => accept(end)), accepted };
}
const ours = pair('localhost');

function nodeClient(options: tls.ConnectionOptions): tls.TLSSocket {
  const far = tls.connect({ host: '127.0.0.1', servername: 'localhost', ca, ...options });
  far.on('error', nothing);
  closers.push(async () => {
    far.destroy();
    if (!far.closed) await once(far, 'close');
  });
  return far;
}
async function nodeServer(
  options: tls.TlsOptions,
  onSocket: (far: tls.TLSSocket) => void = nothing,
): Promise<number> {
  const sockets = new Set<net.Socket>();
  const server = tls.createServer({ ...ours, ...options }, (far) => {
    far.on('error', nothing);
    onSocket(far);
  });
  server.on('connection', (socket) => sockets.add(socket));
  server.on('tlsClientError', nothing);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as net.AddressInfo).port;
}
function client(port: number, options: TlsClientOptions = {}, host = '127.0.0.1'): End {
  return new End((rest) =>
    BufferEvent.connect(base, { host, port }, { tls: { ca, ...options }, ...rest }),
  );
}
/** A connection whose two ends are ours. */
async function both(server: TlsServerOptions = ours, options: TlsClientOptions = {}) {
  const { port, accepted } = serveOne(server);
  const near = client(port, options);
  const far = await within(PATIENCE_MS, accepted);
  return { near, far };
}

for (const version of VERSIONS) {
  test(`${version}: a client of Node's, data written before the handshake, both ends end`, async () => {
    const { port, accepted } = serveOne(ours);
    const far = nodeClient({ port, maxVersion: version });
    const near = await accepted;
    near.bev.write('early ');
    assert.is(near.bev.tls, undefined);
    await once(far, 'secureConnect');
    assert.is(await near.event(), 'connected');
    assert.is(near.bev.tls?.protocol, version);
    assert.is(near.bev.tls?.servername, 'localhost');
    assert.is(near.bev.tls?.authorized, false);
    let heard = '';
    far.on('data', (data) => {
      heard += data;
    });
    near.bev.write('words');
    far.write('hello');
    await near.until(() => near.text === 'hello');
    near.bev.end('.');
    await once(far, 'end');
    assert.is(heard, 'early words.');
    far.end();
    assert.is(await near.event(1), 'read eof');
    assert.equal(near.told, ['connected', 'read eof']);
  });

  test(`${version}: a server of Node's, and a half-close that it answers`, async () => {
    const port = await nodeServer({ maxVersion: version, allowHalfOpen: true }, (far) => {
      let heard = '';
      far.on('data', (data) => {
        heard += data;
      });
      far.on('end', () => far.end(`heard ${heard}`));
    });
    const near = client(port, {}, 'localhost');
    near.bev.end('all of it');
    assert.is(await near.event(), 'connected');
    assert.is(near.bev.tls?.authorized, true);
    assert.is(near.bev.tls?.protocol, version);
    assert.ok((near.bev.tls?.peerCertificate?.length ?? 0) > 100);
    assert.is(await near.event(1), 'read eof');
    assert.is(near.text, 'heard all of it');
  });

  test(`${version}: megabytes both ways, with watermarks and both ends ours`, async () => {
    const { near, far } = await both(ours, { maxVersion: version });
    const megabytes = 3 * 1024 * 1024;
    const piece = Buffer.alloc(100_003, 'x');
    for (const { bev } of [near, far]) bev.setWatermark(Ev.READ, 0, 50_000);
    for (const end of [near, far])
      for (let sent = 0; sent < megabytes; sent += piece.length) end.bev.write(piece);
    const all = Math.ceil(megabytes / piece.length) * piece.length;
    await near.until(() => near.bytes === all);
    await far.until(() => far.bytes === all);
    assert.is(near.bev.bytesRead, all);
    assert.is(far.bev.bytesWritten, all);
    near.bev.close();
    assert.is(await far.event(1), 'read eof');
  });
}

test('what comes together is read piece by piece, and none is left inside', async () => {
  const { port, accepted } = serveOne(ours);
  const far = nodeClient({ port });
  const near = await accepted;
  await near.event();
  near.bev.maxRead = 7;
  far.end('0123456789'.repeat(50));
  assert.is(await near.event(1), 'read eof');
  assert.is(near.text, '0123456789'.repeat(50));
});

test('a stream that is held reads what is inside when it is let go', async () => {
  const { near, far } = await both();
  await near.event();
  await far.event();
  near.bev.setWatermark(Ev.READ, 0, 4);
  let taken = '';
  near.bev.handlers = { read: nothing };
  far.bev.write('abcdefghij');
  for (const expected of ['abcd', 'efgh', 'ij']) {
    await until(() => near.bev.inputLength === expected.length);
    taken += Buffer.from(near.bev.input.remove(4)).toString();
  }
  assert.is(taken, 'abcdefghij');
});

test('a limit of the rate holds for plain text', async () => {
  const { near, far } = await both();
  await far.event();
  far.bev.setRateLimit(new RateLimit({ read: 100_000, readBurst: 1_000, tick: 10 }));
  near.bev.write(Buffer.alloc(3_000));
  await far.until(() => far.bytes === 3_000);
});

test('an end without close_notify is an error, and data before it is there', async () => {
  const { port, accepted } = serveOne(ours);
  const raw = net.connect(port, '127.0.0.1');
  const far = nodeClient({ socket: raw });
  const near = await accepted;
  await once(far, 'secureConnect');
  far.write('half a mess');
  await near.until(() => near.text === 'half a mess');
  raw.end();
  assert.is(await near.event(1), 'read ERR_TLS_TRUNCATED');
  assert.match(near.errors[0].message, 'close_notify');
});

test('plain text, garbage and nothing at all end the handshake, once', async () => {
  const cases: [string | Buffer, RegExp][] = [
    ['GET / HTTP/1.1\r\nhost: x\r\n\r\n', /plain HTTP/],
    [Buffer.alloc(64, 0xff), /no TLS/],
    ['', /closed the connection in the middle/],
  ];
  for (const [bytes, reason] of cases) {
    const { port, accepted } = serveOne(ours);
    const raw = net.connect(port, '127.0.0.1');
    raw.on('error', nothing).resume();
    raw.end(bytes);
    const near = await accepted;
    assert.is(await near.event(), 'ERR_TLS_HANDSHAKE');
    assert.match(near.errors[0].message, reason);
    near.bev.write('nobody');
    near.bev.close();
    if (!raw.closed) await once(raw, 'close');
    assert.is(near.told.length, 1);
  }
});

test('a peer that stops in the middle of the handshake has its deadline', async () => {
  const { port, accepted } = serveOne({ ...ours, handshakeTimeout: 30 });
  const raw = net.connect(port, '127.0.0.1');
  raw.on('error', nothing).resume();
  const near = await accepted;
  assert.is(await near.event(), 'timeout ERR_TLS_HANDSHAKE');
  near.bev.close();
  if (!raw.closed) await once(raw, 'close');
});

test('a certificate by name: exact before wildcard, one label, any case, else the first', async () => {
  const contexts = { '*.example.org': pair('wildcard'), 'WWW.example.org': pair('www') };
  const port = serve({ ...ours, contexts }, nothing);
  const shown = async (servername: string) => {
    const far = nodeClient({ port, servername, checkServerIdentity: nothing });
    await once(far, 'secureConnect');
    const { CN } = far.getPeerCertificate().subject;
    far.destroy();
    return CN;
  };
  assert.is(await shown('www.example.org'), 'www.example.org');
  assert.is(await shown('a.EXAMPLE.org'), '*.example.org');
  assert.is(await shown('a.b.example.org'), 'localhost');
  assert.is(await shown('example.org'), 'localhost');
  assert.is(await shown('other.test'), 'localhost');
});

test('ALPN: the server chooses, and nothing in common ends it', async () => {
  const { near, far } = await both(
    { ...ours, ALPNProtocols: ['h2', 'one'] },
    { ALPNProtocols: ['one', 'two'] },
  );
  await near.event();
  await far.event();
  assert.is(near.bev.tls?.alpn, 'one');
  assert.is(far.bev.tls?.alpn, 'one');
  const other = await both({ ...ours, ALPNProtocols: ['h2'] }, { ALPNProtocols: ['two'] });
  assert.is(await other.near.event(), 'ERR_TLS_HANDSHAKE');
  assert.match(other.near.errors[0].message, 'no application protocol');
});

test('a client refuses who is not whom it wants, unless it is told not to', async () => {
  const refusals: [TlsServerOptions, TlsClientOptions, RegExp][] = [
    [ours, { ca: undefined }, /unable to (get|verify)/],
    [ours, { servername: 'example.org' }, /hostname mismatch/i],
    [pair('www'), {}, /IP address mismatch/i],
    [pair('expired'), {}, /expired/],
  ];
  const warned = once(process, 'warning');
  for (const [server, options, reason] of refusals) {
    const { near, far } = await both(server, options);
    assert.is(await near.event(), 'ERR_TLS_HANDSHAKE');
    assert.match(near.errors[0].message, reason);
    assert.is(await far.event(), 'ERR_TLS_HANDSHAKE');
    const lax = await both(server, { ...options, rejectUnauthorized: false });
    assert.is(await lax.near.event(), 'connected');
    assert.is(lax.near.bev.tls?.authorized, false);
    assert.match(lax.near.bev.tls?.authorizationError ?? '', reason);
  }
  assert.match((await warned)[0].message, 'not valid any more');
});

test('a server asks for a certificate', async () => {
  const server = { ...ours, requestCert: true, ca };
  const good = await both(server, pair('client'));
  assert.is(await good.far.event(), 'connected');
  assert.is(good.far.bev.tls?.authorized, true);
  const none = await both(server);
  assert.is(await none.far.event(), 'ERR_TLS_HANDSHAKE');
  assert.match(none.far.errors[0].message, 'did not return a certificate');
  const lax = await both({ ...server, rejectUnauthorized: false });
  assert.is(await lax.far.event(), 'connected');
  assert.is(lax.far.bev.tls?.authorized, false);
});

for (const version of VERSIONS) {
  test(`${version}: a session is resumed`, async () => {
    const first = await both(ours, { maxVersion: version });
    first.far.bev.write('with data comes the ticket');
    await first.near.until(() => first.near.text !== '');
    assert.is(first.near.bev.tls?.reused, false);
    const session = first.near.bev.tlsSession;
    assert.instance(session, Uint8Array);
    const second = await both(ours, { maxVersion: version, session });
    await second.near.event();
    await second.far.event();
    assert.is(second.near.bev.tls?.reused, true);
    assert.is(second.far.bev.tls?.reused, true);
  });
}

test('many small writes of one pass are few records', async () => {
  const { near, far } = await both();
  await near.event();
  await far.event();
  const sizes: number[] = [];
  far.bev.handlers = { read: (bev) => sizes.push(bev.input.drain(bev.input.length).length) };
  const raw = near.bev.bytesWritten;
  await new Promise<void>((resolve) => {
    base.once(
      -1,
      Ev.TIMEOUT,
      () => {
        for (let i = 0; i < 1_000; i++) near.bev.write('0123456789');
        resolve();
      },
      0,
    );
  });
  await until(() => far.bev.bytesRead === 10_000);
  assert.is(near.bev.bytesWritten - raw, 10_000);
  assert.is(sizes.length, 1, 'one record of 10,000 bytes is read at once');
});

test('a peer that never reads: what is written waits, goes on after, and nothing is lost', async () => {
  const { near, far } = await both();
  await near.event();
  await far.event();
  far.bev.disable(Ev.READ);
  near.bev.maxWrite = 5_000;
  const size = 8 * 1024 * 1024;
  near.bev.write(Buffer.alloc(size, 'z'));
  near.bev.end();
  await until(() => near.bev.outputLength > 0 && near.bev.outputLength < size);
  far.bev.enable(Ev.READ);
  assert.is(await far.event(1), 'read eof');
  assert.is(far.bytes, size);
});

test('what is wrong with the options is said before anything is done', async () => {
  const [fd, other] = sys.socketPair();
  // biome-ignore lint/suspicious/noExplicitAny: what is wrong on purpose has no type
  const make = (options: any) => () => BufferEvent.socket(base, fd, { tls: options });
  const { cert, key } = ours;
  const config: [object, RegExp][] = [
    [{ cert: 'no PEM', key }, /tls: the certificate is no PEM/],
    [{ cert, key: 'no PEM' }, /the key is no PEM/],
    [{ cert, key: pair('www').key }, /the key is not the certificate's: .*mismatch/],
    [{ cert: [cert, cert], key }, /2 certificates and 1 keys/],
    [{ cert, key, ca: 'no PEM' }, /the authorities are no PEM/],
    [{ cert, key, ciphers: 'no-such' }, /ciphers/],
    [{ cert, key, groups: 'no-such' }, /groups/],
    [
      { cert, key, contexts: { 'a.b': { cert, key: pair('www').key } } },
      /contexts\['a.b'\]: the key/,
    ],
  ];
  for (const [options, message] of config) {
    const error = thrownBy(make(options));
    assert.is(error.code, 'ERR_TLS_CONFIG', error.message);
    assert.match(error.message, message);
  }
  for (const options of [{ cert: 5, key }, { cert, key, minVersion: 1 }, null, 5, { isServer: 1 }])
    assert.is(codeOf(make(options)), 'ERR_INVALID_ARG_TYPE', JSON.stringify(options));
  const values = [
    { cert: '', key },
    { cert, key, minVersion: 'SSLv3' },
    { cert, key, minVersion: 'TLSv1.3', maxVersion: 'TLSv1.2' },
    { cert, key, contexts: { 'a.*.b': { cert, key } } },
    { cert, key, ALPNProtocols: [''] },
    {},
    { cert, isServer: false },
  ];
  for (const options of values)
    assert.is(codeOf(make(options)), 'ERR_INVALID_ARG_VALUE', JSON.stringify(options));
  assert.is(codeOf(make({ cert, key, handshakeTimeout: 0 })), 'ERR_OUT_OF_RANGE');
  const { port } = serveOne(ours);
  const refused = client(port, { session: Buffer.from('no session') });
  assert.is(await refused.event(), 'ERR_TLS_CONFIG');
  const end = new End((rest) => BufferEvent.socket(base, fd, { tls: ours, ...rest }));
  assert.is(
    codeOf(() => end.bev.setFd(other)),
    'ERR_TLS_CONFIG',
  );
  native.sysClose(other);
});

test('what breaks a record after the handshake is told as such', async () => {
  const { port, accepted } = serveOne(ours);
  const raw = net.connect(port, '127.0.0.1');
  const far = nodeClient({ socket: raw });
  const near = await accepted;
  await once(far, 'secureConnect');
  await near.event();
  raw.write(Buffer.from('1703030010deadbeefdeadbeefdeadbeefdeadbeef', 'hex'));
  assert.is(await near.event(1), 'read ERR_TLS_PROTOCOL');
  assert.match(near.errors[0].message, 'bad record mac');
});

test('contexts of streams are kept, and not without end', async () => {
  const { near } = await both();
  await near.event();
  const count = native.tlsContextCount();
  const again = await both();
  await again.near.event();
  assert.is(native.tlsContextCount(), count);
  for (let i = 0; i < 80; i++) {
    const other = await both({ ...ours, ALPNProtocols: [`p${i}`] });
    other.near.bev.close();
    other.far.bev.close();
  }
  assert.ok(native.tlsContextCount() <= 33, `${native.tlsContextCount()}`);
});

async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`never came true: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

if (why === undefined) test.run();
else console.log(`Skipped: ${why}`);
