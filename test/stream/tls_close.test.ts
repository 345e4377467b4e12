// How TLS ends: cleanly by close_notify, or cut off, in every order; over sockets and over streams,
// as server and as client, against ourselves and against Node's tls.

import type net from 'node:net';
import type tls from 'node:tls';
import * as assert from 'uvu/assert';
import { BufferEvent, type SocketStream, sys } from '../../src/index.js';
import { native } from '../../src/native.js';
import { turns, until } from './rig.js';
import {
  client,
  type End,
  nodeClient,
  nodeServer,
  server,
  type TlsRig,
  tlsSuite,
  VERSIONS,
} from './tls_rig.js';

const { test, run } = tlsSuite('the end of TLS');

/** The other side, and what is under its TLS. */
interface Far {
  readonly text: string;
  /** How its reading ended: 'end', or an error's code. */
  readonly ended: string | undefined;
  write(text: string): void;
  end(text?: string): void;
  /** Without a close_notify. */
  cut(): void;
  reset(): void;
  /** What it sends besides TLS. */
  inject(bytes: Uint8Array): void;
  destroyed(): void;
}
type Below = Pick<Far, 'cut' | 'reset' | 'inject'>;

class OurFar implements Far {
  readonly #end: End;
  readonly #below: Below;
  constructor(end: End, below: Below) {
    this.#end = end;
    this.#below = below;
  }
  get text(): string {
    return this.#end.text;
  }
  get ended(): string | undefined {
    const last = this.#end.events.find((one) => one.endsWith(' read') || one.startsWith('ERR'));
    return last === 'eof read' ? 'end' : last?.replace(' read', '');
  }
  write(text: string): void {
    this.#end.bev.write(text);
  }
  end(text?: string): void {
    this.#end.bev.end(text);
  }
  cut(): void {
    this.#below.cut();
  }
  reset(): void {
    this.#end.bev.destroy(new Error('reset'));
  }
  inject(bytes: Uint8Array): void {
    this.#below.inject(bytes);
  }
  destroyed(): void {
    this.#end.bev.close();
  }
}

class NodeFar implements Far {
  text = '';
  ended: string | undefined = undefined;
  readonly #socket: tls.TLSSocket;
  readonly #below: Below;
  constructor(socket: tls.TLSSocket, below: Below) {
    this.#socket = socket;
    this.#below = below;
    socket.on('data', (data) => {
      this.text += data.toString('latin1');
    });
    socket.once('end', () => {
      this.ended ??= 'end';
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      this.ended ??= error.code;
    });
  }
  write(text: string): void {
    this.#socket.write(text);
  }
  end(text = ''): void {
    this.#socket.end(text);
  }
  cut(): void {
    this.#below.cut();
  }
  reset(): void {
    this.#below.reset();
  }
  inject(bytes: Uint8Array): void {
    this.#below.inject(bytes);
  }
  destroyed(): void {
    this.#socket.destroy();
  }
}

interface Case {
  over: 'sockets' | 'a pair';
  side: 'server' | 'client';
  peer: 'ours' | "Node's";
  version: (typeof VERSIONS)[number];
}
const CASES: Case[] = (['sockets', 'a pair'] as const).flatMap((over) =>
  (['server', 'client'] as const).flatMap((side) =>
    (['ours', "Node's"] as const).flatMap((peer) =>
      VERSIONS.map((version) => ({ over, side, peer, version })),
    ),
  ),
);

/** A connection of which `near` is the side that is looked at. */
async function connection(rig: TlsRig, one: Case): Promise<{ near: End; far: Far }> {
  const ends = one.over === 'sockets' ? await sockets(rig, one) : pair(rig, one);
  assert.is(await ends.near.nth(), 'connected');
  return ends;
}
const optionsOf = ({ side, version }: Case) =>
  ({ ...(side === 'server' ? server : client), maxVersion: version }) as typeof server;
const farOf = ({ side, version }: Case) =>
  ({ ...(side === 'server' ? client : server), maxVersion: version }) as typeof server;

function pair(rig: TlsRig, one: Case): { near: End; far: Far } {
  const [under, other] = BufferEvent.pair(rig.base);
  const near = rig.over(under, optionsOf(one));
  const below: Below = {
    cut: () => other.end(),
    reset: () => other.destroy(new Error('reset')),
    inject: (bytes) => other.write(bytes),
  };
  if (one.peer === 'ours') return { near, far: new OurFar(rig.over(other, farOf(one)), below) };
  const duplex = other.toDuplex({ allowHalfOpen: true });
  const make = one.side === 'server' ? nodeClient : nodeServer;
  return { near, far: new NodeFar(make(rig, duplex, { maxVersion: one.version }), below) };
}
async function sockets(rig: TlsRig, one: Case): Promise<{ near: End; far: Far }> {
  if (one.peer === 'ours') {
    const { side } = one;
    const { port, accepted } = rig.listenOne((side === 'server' ? optionsOf : farOf)(one));
    const caller = rig.connect(port, (side === 'server' ? farOf : optionsOf)(one) as object);
    const called = await accepted;
    const [near, far] = side === 'server' ? [called, caller] : [caller, called];
    assert.is(await far.nth(), 'connected');
    const fdOf = () => (far.bev as SocketStream).fd;
    const below: Below = {
      cut: () => native.sockShutdown(fdOf()),
      reset: () => undefined,
      inject: (bytes) => sys.write(fdOf(), bytes),
    };
    return { near, far: new OurFar(far, below) };
  }
  const belowOf = (raw: net.Socket): Below => ({
    cut: () => raw.end(),
    reset: () => raw.resetAndDestroy(),
    inject: (bytes) => raw.write(bytes),
  });
  const { version } = one;
  if (one.side === 'server') {
    const { port, accepted } = rig.listenOne(optionsOf(one) as typeof server);
    const raw = rig.nodeConnect(port);
    const far = new NodeFar(nodeClient(rig, raw, { maxVersion: version }), belowOf(raw));
    return { near: await accepted, far };
  }
  let far: NodeFar | undefined;
  const port = await rig.nodeListen((raw) => {
    far = new NodeFar(nodeServer(rig, raw, { maxVersion: version }), belowOf(raw));
  });
  const near = rig.connect(port, optionsOf(one) as object);
  await until(() => far !== undefined);
  return { near, far: far as NodeFar };
}

for (const one of CASES) {
  const { over, side, peer, version } = one;
  const on = (title: string, body: (near: End, far: Far, rig: TlsRig) => Promise<void>) =>
    test(`${over}, ${side}, peer ${peer}, ${version}: ${title}`, async (rig) => {
      const { near, far } = await connection(rig, one);
      await body(near, far, rig);
    });

  on('we end first, and the peer still has much to say', async (near, far) => {
    near.bev.end('x');
    await until(() => far.ended !== undefined);
    assert.is(far.ended, 'end');
    assert.is(far.text, 'x');
    const much = 'y'.repeat(300_000);
    far.end(much);
    assert.is(await near.nth(1), 'eof read');
    assert.ok(near.text === much, `${near.text.length}`);
    assert.is(near.events.length, 2);
  });

  on('the peer ends first, and we still have much to say', async (near, far) => {
    far.end('x');
    assert.is(await near.nth(1), 'eof read');
    assert.is(near.text, 'x');
    const much = 'y'.repeat(300_000);
    near.bev.end(much);
    await until(() => far.ended !== undefined);
    assert.is(far.ended, 'end');
    assert.ok(far.text === much, `${far.text.length}`);
    near.bev.close();
    assert.is(near.events.length, 2);
  });

  on('both end at once', async (near, far) => {
    near.bev.end('x');
    far.end('y');
    assert.is(await near.nth(1), 'eof read');
    await until(() => far.ended !== undefined);
    assert.equal([near.text, far.text, far.ended], ['y', 'x', 'end']);
  });

  on('close() after all is written is a clean end', async (near, far) => {
    near.bev.write('all of it');
    near.bev.close();
    await until(() => far.ended !== undefined);
    assert.equal([far.text, far.ended], ['all of it', 'end']);
    assert.equal(near.events, ['connected']);
  });

  on('the peer is cut off: an error, after what came before', async (near, far) => {
    far.write('half a mess');
    await until(() => near.text !== '');
    far.cut();
    assert.is(await near.nth(1), 'ERR_TLS_TRUNCATED read');
    assert.is(near.text, 'half a mess');
    assert.match(near.errors[0].message, 'close_notify');
    near.bev.write('nobody hears it');
    assert.is(await near.nth(2), 'ERR_TLS_TRUNCATED write');
    near.bev.end();
    near.bev.close();
    assert.is(near.events.length, 3);
  });

  on('a reset is told as such', async (near, far) => {
    far.write('before');
    await until(() => near.text !== '');
    far.reset();
    const error = await near.nth(1);
    const expected = over === 'sockets' ? /^ECONNRESET read$/ : /^ERR_PARTNER_GONE read$/;
    assert.match(error, expected);
    near.bev.end();
  });

  on(
    'garbage in the place of a record is an error, and the end of both directions',
    async (near, far) => {
      far.inject(Buffer.from('1703030010deadbeefdeadbeefdeadbeefdeadbeef', 'hex'));
      assert.is(await near.nth(1), 'ERR_TLS_PROTOCOL read');
      near.bev.write('too late');
      assert.is(await near.nth(2), 'ERR_TLS_PROTOCOL write');
      assert.is(near.errors[1].message, near.errors[0].message);
      near.bev.close();
      await until(() => far.ended !== undefined);
      // Of a socket that is made without a tls.Server Node tells no such error.
      if (peer === 'ours') assert.is(far.ended, 'ERR_TLS_PROTOCOL');
    },
  );

  // The peer is ours in these: what it does to the stream below is known.
  if (peer === "Node's") continue;

  test(`${over}, ${side}, ${version}: what follows a close_notify is ignored`, async (rig) => {
    // RFC 8446 section 6.1.
    const [one_, other] = rig.pairs[over === 'sockets' ? 'sockets' : 'pair']();
    const near = rig.over(one_, optionsOf(one));
    const far = rig.make((rest) =>
      BufferEvent.tls(other, { tls: farOf(one), closeFd: false, ...rest }),
    );
    rig.own(other);
    assert.is(await near.nth(), 'connected');
    await far.nth();
    far.bev.write('last');
    far.bev.close();
    other.write(Buffer.alloc(100, 0x17));
    other.end();
    assert.is(await near.nth(1), 'eof read');
    await turns();
    assert.is(near.text, 'last');
    assert.is(near.events.length, 2);
  });
}

run();
