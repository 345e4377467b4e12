// WebSockets over TLS: the `ws` package's client through moves, reloads and the death of a loop of
// a group that speaks TLS, and our client to servers of both kinds, with the certificate checked.

import { once } from 'node:events';
import https from 'node:https';
import type { TLSSocket } from 'node:tls';
import * as assert from 'uvu/assert';
import { type ClientOptions, WebSocket as Peer, WebSocketServer } from 'ws';
import { connectWebSocket, type WebSocket, type WebSocketClientOptions } from '../../src/http.js';
import { type LoopGroup, serve, type TlsInfo } from '../../src/index.js';
import { native } from '../../src/native.js';
import { PATIENCE_MS, within } from '../event/support.js';
import { test } from '../hooks.js';
import { portOf, until } from '../runtime/clients.js';
import { ca, pair } from '../tls/pems.js';
import { nothing, Rig } from './rig.js';

const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const;
type Version = (typeof VERSIONS)[number];
const why = native.tlsUnavailable();

let rig: Rig;
let group: LoopGroup | undefined;
test.before.each(() => {
  rig = new Rig();
});
test.after.each(async () => {
  rig.close();
  await group?.close();
  group = undefined;
});

// ── under serve() ───────────────────────────────────────────────────────────────────────────────

const start = async (worker: 'chat' | 'context') => {
  group = await serve({
    worker: new URL(`./workers/${worker}.js`, import.meta.url),
    loops: 2,
    drainMs: 10_000,
    restart: { max: 1_000, backoff: 1 },
    listen: { port: 0, tls: pair('localhost') },
  });
  return group;
};

interface Facts {
  data: string;
  length: number;
  seen: number;
  loop: number;
  generation: number;
  id: number;
}

class Client {
  readonly socket: Peer;
  closed: number | undefined = undefined;
  readonly #answers: Facts[] = [];

  constructor(maxVersion: Version, options: ClientOptions = {}) {
    const port = portOf(group as LoopGroup);
    this.socket = new Peer(`wss://localhost:${port}/`, ['chat'], { ca, maxVersion, ...options });
    this.socket.on('message', (data) => this.#answers.push(JSON.parse(String(data))));
    this.socket.on('error', nothing);
    this.socket.on('close', (code) => {
      this.closed = code;
    });
  }
  async open(): Promise<this> {
    await within(PATIENCE_MS, once(this.socket, 'open'), 'open');
    return this;
  }
  get raw(): TLSSocket {
    return (this.socket as unknown as { _socket: TLSSocket })._socket;
  }
  async answer(): Promise<Facts> {
    await until(() => this.#answers.length > 0 || this.closed !== undefined, 'an answer');
    const answer = this.#answers.shift();
    if (answer === undefined) throw new Error(`closed with ${this.closed}`);
    return answer;
  }
  ask(text: string | Buffer): Promise<Facts> {
    this.socket.send(text);
    return this.answer();
  }
}

for (const version of VERSIONS)
  test(`${version}: moves between messages, within a message in fragments, within a frame`, async () => {
    const one = await start('chat');
    const client = await new Client(version, { perMessageDeflate: false }).open();
    assert.equal([client.raw.getProtocol(), client.raw.authorized], [version, true]);
    let { loop, id } = await client.ask('a');
    let seen = 1;
    for (let i = 0; i < 6; i++) {
      await within(PATIENCE_MS, one.move(id, 1 - loop), 'a move');
      const big = await client.ask(Buffer.alloc(200_000, i));
      assert.equal([big.loop, big.seen, big.id, big.length], [1 - loop, ++seen, id, 200_000]);
      loop = big.loop;
      // The first fragment, and a part of the second one's frame.
      client.raw.write(Buffer.from('01840000000066726167', 'hex'));
      const rest = Buffer.from('80850000000068656c6c6f', 'hex');
      client.raw.write(rest.subarray(0, 8));
      await within(PATIENCE_MS, one.move(id, 1 - loop), 'a move within a message');
      client.raw.write(rest.subarray(8));
      loop = 1 - loop;
      const joined = await client.answer();
      assert.equal([joined.data, joined.loop, joined.seen], ['fraghello', loop, ++seen]);
    }
    // Orders to move and messages in one go: each comes once, and in its order.
    for (let i = 0; i < 100; i++) client.socket.send(i % 5 === 0 ? `move ${i % 2}` : `n ${i}`);
    for (let i = 0; i < 100; i++) assert.is((await client.answer()).seen, ++seen);
    assert.is(one.stats().accepted, 1);
    client.socket.close(3_000);
    await within(PATIENCE_MS, once(client.socket, 'close'), 'close');
    assert.is(client.closed, 3_000);
  });

for (const worker of ['chat', 'context'] as const)
  test(`two reloads, of ${worker}: all go on with the new code`, async () => {
    const one = await start(worker);
    const all = await Promise.all(
      Array.from({ length: 6 }, (_, i) =>
        new Client(VERSIONS[i % 2], { perMessageDeflate: i > 1 && { threshold: 0 } }).open(),
      ),
    );
    for (const client of all) await client.ask('to be said again, and said again');
    for (let generation = 1; generation <= 2; generation++) {
      all[0].socket.send('frag', { fin: false });
      const report = await within(PATIENCE_MS, one.reload(), 'the reload');
      assert.equal([report.moved, report.drained, report.closed], [6, 0, 0]);
      all[0].socket.send('ment', { fin: true });
      assert.is((await all[0].answer()).data, 'fragment');
      for (const client of all) {
        const facts = await client.ask('to be said again, and said again');
        const seen = 1 + generation + (client === all[0] ? generation : 0);
        assert.equal([facts.generation, facts.seen], [generation, seen]);
      }
    }
    await within(PATIENCE_MS, one.close(), 'the end of the group');
    await until(() => all.every(({ closed }) => closed !== undefined), 'their ends');
    for (const { closed } of all) assert.is(closed, 1_001);
  });

test('a loop that dies: who is between two messages goes on elsewhere', async () => {
  const one = await start('chat');
  const all = await Promise.all(
    Array.from({ length: 4 }, (_, i) => new Client(VERSIONS[i % 2]).open()),
  );
  let seen = 0;
  for (const client of all) await client.ask('move 0');
  for (const client of all) assert.is((await client.ask('here')).loop, 0);
  seen += 2;
  const idle = () =>
    one
      .connections()
      .filter((conn) => conn.loop === 0)
      .every((conn) => !conn.busy);
  await until(idle, 'all are at a boundary');
  const killer = all.pop() as Client;
  killer.socket.send('die');
  // The one that did it was answered before, so it may be at a boundary too.
  await until(() => one.stats().rescues >= all.length, 'the rescues');
  for (const client of all) assert.is((await client.ask('there')).seen, seen + 1);
  for (const client of [killer, ...all]) client.socket.terminate();
});

// ── our client ──────────────────────────────────────────────────────────────────────────────────

interface Told {
  ws: WebSocket;
  told: string[];
  until(what: string): Promise<void>;
}
function own(url: string, options: WebSocketClientOptions): Told {
  const told: string[] = [];
  const ws = connectWebSocket(rig.base, url, {
    open: ({ stream }) => told.push(`open ${(stream.tls as TlsInfo).protocol}`),
    message: (_, data) => told.push(`${typeof data} ${data.length}`),
    close: (_, code) => told.push(`close ${code}`),
    error: (_, error) => told.push(`error ${(error as { code?: string }).code}: ${error.message}`),
    ...options,
  });
  const untilTold = (what: string) =>
    until(() => told.some((one) => one.startsWith(what)), `${what}, not ${told}`);
  return { ws, told, until: untilTold };
}

/** The `ws` package's server on Node's https: it echoes. */
async function theirs(name: 'localhost' | 'www' | 'expired', maxVersion: Version = 'TLSv1.3') {
  const far = https.createServer({ ...pair(name), maxVersion });
  const server = new WebSocketServer({ server: far, perMessageDeflate: { threshold: 0 } });
  server.on('connection', (socket) =>
    socket.on('message', (data, binary) => socket.send(data, { binary })),
  );
  far.on('tlsClientError', nothing);
  far.listen(0, '127.0.0.1');
  await once(far, 'listening');
  const { port } = far.address() as { port: number };
  const close = async () => {
    for (const socket of server.clients) socket.terminate();
    server.close();
    await new Promise((resolve) => far.close(resolve));
  };
  return { port, close };
}

test('to the ws package’s server: its certificate is checked, messages of all sizes', async () => {
  for (const version of VERSIONS)
    for (const deflate of [false, true, { serverContext: true, clientContext: true }]) {
      const far = await theirs('localhost', version);
      const client = own(`wss://localhost:${far.port}/`, { tls: { ca }, deflate });
      await client.until('open');
      assert.equal([client.told[0], client.ws.deflated], [`open ${version}`, deflate !== false]);
      assert.is(client.ws.stream.tls?.authorized, true);
      const sizes = [0, 1, 125, 126, 16_384, 65_536, 300_000];
      for (const size of sizes) {
        client.ws.send('x'.repeat(size));
        client.ws.send(Buffer.alloc(size, 'y'));
      }
      await until(() => client.told.length === 1 + 2 * sizes.length, 'the echoes');
      const expected = sizes.flatMap((size) => [`string ${size}`, `object ${size}`]);
      assert.equal(client.told.slice(1), expected);
      client.ws.close(4_000);
      await client.until('close 4000');
      await far.close();
    }
});

test('certificates that are not to be trusted: an error that says why, and 1006', async () => {
  const cases: ['localhost' | 'www' | 'expired', WebSocketClientOptions, RegExp][] = [
    ['localhost', {}, /^error ERR_TLS_HANDSHAKE: .*(issuer|self.signed)/],
    ['www', { tls: { ca } }, /^error ERR_TLS_HANDSHAKE: .*name/],
    ['expired', { tls: { ca } }, /^error ERR_TLS_HANDSHAKE: .*expired/],
  ];
  for (const [name, options, expected] of cases) {
    const far = await theirs(name);
    const client = own(`wss://localhost:${far.port}/`, options);
    await client.until('close');
    assert.match(client.told[0], expected);
    assert.equal(client.told.slice(1), ['close 1006']);
    await far.close();
  }
  // Who does not look is let in, and can see it.
  const far = await theirs('expired');
  const tls = { ca, rejectUnauthorized: false };
  const client = own(`wss://localhost:${far.port}/`, { tls });
  await client.until('open');
  assert.is(client.ws.stream.tls?.authorized, false);
  client.ws.terminate();
  await client.until('close 1006');
  await far.close();
});

test('a plain server behind a wss: URL, and the reverse', async () => {
  const plain = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  await once(plain, 'listening');
  const { port } = plain.address() as { port: number };
  const client = own(`wss://localhost:${port}/`, { tls: { ca } });
  await client.until('close 1006');
  assert.match(client.told[0], /^error ERR_TLS/);
  await new Promise((resolve) => plain.close(resolve));
  const far = await theirs('localhost');
  const other = own(`ws://localhost:${far.port}/`, {});
  await other.until('close 1006');
  assert.match(other.told[0], /^error /);
  await far.close();
});

test('our client and our server, on one base', async () => {
  const { server } = rig.serve({
    request: nothing,
    websocket: {
      message: (ws: WebSocket, data: string | Uint8Array) => {
        ws.send(data);
      },
    },
  });
  for (const maxVersion of VERSIONS) {
    const listener = server.listen({ port: 0, tls: { ...pair('localhost'), maxVersion } });
    const { port } = listener.address as { port: number };
    const client = own(`wss://localhost:${port}/`, { tls: { ca } });
    await client.until('open');
    client.ws.send('z'.repeat(500_000));
    await client.until('string 500000');
    client.ws.close();
    await client.until('close');
    assert.equal(client.told, [`open ${maxVersion}`, 'string 500000', 'close 1000']);
    listener.close();
  }
});

if (why === undefined) test.run();
else console.log(`wss: skipped, ${why}`);
