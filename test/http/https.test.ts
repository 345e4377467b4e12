// HTTPS: the same server over TLS, with Node's https and curl as peers, and with connections that
// move, reload and outlive their loop between two requests.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import https from 'node:https';
import tls from 'node:tls';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as assert from 'uvu/assert';
import {
  HttpClient,
  type HttpListener,
  type HttpOptions,
  type HttpResponse,
  type HttpServer,
} from '../../src/http.js';
import {
  BufferEvent,
  Ev,
  type LoopGroup,
  serve,
  type TlsInfo,
  type TlsServerOptions,
} from '../../src/index.js';
import { native } from '../../src/native.js';
import {
  assertNoneLeft,
  openDescriptors,
  PATIENCE_MS,
  thrownBy,
  within,
} from '../event/support.js';
import { suite } from '../hooks.js';
import { portOf, until } from '../runtime/clients.js';
import { ca, pair } from '../tls/pems.js';
import { warmUp } from '../warm_up.js';
import { Client, nothing, Rig } from './rig.js';

const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const;
const why = native.tlsUnavailable();
const server = pair('localhost');
const file = (name: string) =>
  fileURLToPath(new URL(`../../../test/tls/${name}.pem`, import.meta.url));
const run = promisify(execFile);
const hasCurl = await run('curl', ['--version']).then(
  () => true,
  () => false,
);
const GET = (path: string) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;

// ── a server on a base ──────────────────────────────────────────────────────────────────────────

const test = suite('https');
let rig: Rig;
let before: string[];
const sockets: tls.TLSSocket[] = [];
test.before.each(async () => {
  await warmUp();
  before = openDescriptors();
  rig = new Rig();
});
test.after.each(async () => {
  for (const socket of sockets.splice(0)) {
    socket.destroy();
    if (!socket.closed) await once(socket, 'close');
  }
  rig.close();
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assertNoneLeft(before);
});

interface Secure {
  server: HttpServer;
  listener: HttpListener;
  port: number;
  errors: Error[];
}
function secure(options: HttpOptions, tlsOptions: Partial<TlsServerOptions> = {}): Secure {
  const errors: Error[] = [];
  const { server: one } = rig.serve({ error: (error) => errors.push(error), ...options });
  const listener = one.listen({ port: 0, tls: { ...server, ...tlsOptions } });
  return { server: one, listener, port: (listener.address as { port: number }).port, errors };
}

async function connect(port: number, options: tls.ConnectionOptions = {}): Promise<Client> {
  const socket = tls.connect({ host: '127.0.0.1', port, servername: 'localhost', ca, ...options });
  sockets.push(socket);
  socket.on('error', nothing);
  await once(socket, 'secureConnect');
  return new Client(socket);
}
const shown = (client: Client) =>
  (client.socket as tls.TLSSocket).getPeerX509Certificate()?.subjectAltName;

for (const maxVersion of VERSIONS)
  test(`${maxVersion}: a client resumes the session of its connection before`, async () => {
    const { port } = secure({
      request: ({ stream }, response) => response.send(String(stream.tls?.reused)),
    });
    const options = { host: '127.0.0.1', port, reuseAddress: false };
    const tlsOptions = { ca, servername: 'localhost', maxVersion };
    const ask = async (client: HttpClient) =>
      (await client.request({ headers: { Connection: 'close' } })).text();
    const client = new HttpClient(rig.base, { ...options, tls: tlsOptions });
    assert.equal(
      [await ask(client), await ask(client), await ask(client)],
      ['false', 'true', 'true'],
    );
    client.close();
    // One that is given is used each time.
    const given = { ...tlsOptions, session: Buffer.alloc(0) };
    const other = new HttpClient(rig.base, { ...options, tls: given });
    assert.equal([await ask(other), await ask(other)], ['false', 'false']);
    other.close();
  });

test('a name is asked for once by all who wait, and then known; watch is refused', async () => {
  let answer: (value: TlsServerOptions) => void = nothing;
  const asked: string[] = [];
  const SNICallback = (name: string) => {
    asked.push(name);
    return new Promise<TlsServerOptions>((resolve) => {
      answer = resolve;
    });
  };
  const request = (_: unknown, response: HttpResponse) => response.send('ok');
  const { port, listener, server: one } = secure({ request }, { SNICallback });
  const options = { servername: 'new.test', checkServerIdentity: () => undefined };
  const waiting = [connect(port, options), connect(port, options)];
  await until(() => asked.length > 0, 'it is asked');
  // Both are here before there is an answer.
  await until(() => one.connections === 2, 'both are accepted');
  answer(pair('www'));
  const clients = [...(await Promise.all(waiting)), await connect(port, options)];
  for (const client of clients) assert.match(shown(client) ?? '', /www\.example\.org/);
  assert.equal(asked, ['new.test']);
  const watched = { ...server, watch: true };
  assert.is(thrownBy(() => listener.setTls(watched)).code, 'ERR_INVALID_ARG_VALUE');
});

interface Got {
  status: number | undefined;
  body: string;
  reused: boolean;
  protocol: string | null;
}
/** By Node's https. */
function request(options: https.RequestOptions, body?: string | Buffer): Promise<Got> {
  const got = new Promise<Got>((resolve, reject) => {
    const asked = https.request({ host: '127.0.0.1', servername: 'localhost', ca, ...options });
    asked.on('error', reject);
    asked.on('response', async (answer) => {
      const chunks: Buffer[] = [];
      for await (const chunk of answer) chunks.push(chunk);
      resolve({
        status: answer.statusCode,
        body: Buffer.concat(chunks).toString(),
        reused: asked.reusedSocket,
        protocol: (asked.socket as tls.TLSSocket).getProtocol(),
      });
    });
    asked.end(body);
  });
  return within(PATIENCE_MS, got, 'the answer');
}

for (const version of VERSIONS)
  test(`${version}: Node's https keeps its connection; URLs are https, bodies whole`, async () => {
    const { port } = secure(
      {
        async fetch(asked, { request: { stream } }) {
          const length = (await asked.arrayBuffer()).byteLength;
          const { protocol, alpn } = stream.tls as TlsInfo;
          return Response.json({ url: asked.url, length, protocol, alpn });
        },
      },
      { ALPNProtocols: ['http/1.1'] },
    );
    const ALPNProtocols = ['http/1.1'];
    const kept = { keepAlive: true, maxSockets: 1 };
    const agent = new https.Agent({ ...kept, maxVersion: version, ALPNProtocols });
    try {
      const headers = { host: 'example.org' };
      for (const [i, length] of [0, 10, 1_000_000].entries()) {
        const body = length === 0 ? undefined : Buffer.alloc(length, 'x');
        const method = length === 0 ? 'GET' : 'POST';
        const one = await request({ port, path: `/${i}?a`, method, headers, agent }, body);
        assert.equal([one.status, one.reused, one.protocol], [200, i > 0, version]);
        const url = `https://example.org/${i}?a`;
        assert.equal(JSON.parse(one.body), { url, length, protocol: version, alpn: 'http/1.1' });
      }
    } finally {
      agent.destroy();
    }
  });

test('pipelined requests, a large answer, and an end after it', async () => {
  const { port } = secure({
    request: (asked, response) => response.send(asked.path.slice(1).repeat(1_000_000)),
  });
  const client = await connect(port);
  client.send(GET('/a') + GET('/b').replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
  assert.is((await client.answer()).body, 'a'.repeat(1_000_000));
  assert.is((await client.answer()).body, 'b'.repeat(1_000_000));
  // With a close_notify, or Node would tell an error.
  await client.all();
});

test('a client certificate is asked for, and a handler sees whose it is', async () => {
  const { port, errors } = secure(
    {
      request({ stream }, response) {
        response.send(String(stream.tls?.authorized));
      },
    },
    { ca, requestCert: true },
  );
  const agent = new https.Agent(pair('client'));
  assert.is((await request({ port, agent })).body, 'true');
  agent.destroy();
  for (const maxVersion of VERSIONS) {
    const refused = await request({ port, maxVersion }).then(String, (error) => error);
    assert.match(String(refused), /certificate required|handshake failure|ECONNRESET/);
  }
  await until(() => errors.length === 2, 'both are told');
  for (const error of errors as NodeJS.ErrnoException[]) {
    assert.is(error.code, 'ERR_TLS_HANDSHAKE');
    assert.match(error.message, 'did not return a certificate');
  }
});

test('what is no TLS is told once and closed, and costs nobody else anything', async () => {
  const { server: one, port, errors } = secure({ request: (_, response) => response.send('x') });
  const other = await connect(port);
  const plain = await rig.ask(port, GET('/'));
  assert.not.match(plain, 'HTTP/1.1 200');
  await until(() => one.connections === 1, 'it is closed');
  assert.equal(
    errors.map((error) => (error as NodeJS.ErrnoException).code),
    ['ERR_TLS_HANDSHAKE'],
  );
  assert.match(errors[0].message, /plain HTTP/);
  other.send(GET('/'));
  assert.is((await other.answer()).body, 'x');
});

test('peers that reset their connection leave no descriptor, with TLS and without', async () => {
  const { server: one } = rig.serve({ request: (_, response) => response.send('x') });
  const ports = [undefined, server].map((secured) => {
    const { address } = one.listen({ port: 0, ...(secured === undefined ? {} : { tls: secured }) });
    return (address as { port: number }).port;
  });
  const open = openDescriptors().length;
  for (const [i, port] of ports.entries()) {
    const { socket } = await rig.connect(port);
    const client = i === 0 ? new Client(socket) : await connect(port, { socket });
    client.send(GET('/'));
    await client.answer();
    socket.resetAndDestroy();
  }
  await until(() => one.connections === 0, 'both are gone');
  await until(() => openDescriptors().length <= open, 'and their descriptors');
});

test('setTls: who comes then has the new certificate, who is there goes on', async () => {
  const none = native.tlsContextCount();
  const { listener, port } = secure({ request: (_, response) => response.send('x') });
  const old = await connect(port);
  assert.match(String(shown(old)), 'localhost');
  const wrong = thrownBy(() => listener.setTls({ ...server, key: pair('www').key }));
  assert.is(wrong.code, 'ERR_TLS_CONFIG');
  assert.match(wrong.message, /^tls: the key is not the certificate's/);
  listener.setTls(pair('www'));
  assert.is(native.tlsContextCount(), none + 1);
  const next = await connect(port, { checkServerIdentity: () => undefined });
  assert.match(String(shown(next)), 'www');
  for (const client of [old, next]) {
    client.send(GET('/'));
    assert.is((await client.answer()).body, 'x');
  }
  listener.close();
  assert.is(native.tlsContextCount(), none);
  assert.match(thrownBy(() => listener.setTls(server)).message, 'closed');
});

test('what cannot be used is said, and nothing listens', async () => {
  const { server: one } = rig.serve({ request: (_, response) => response.send('x') });
  const descriptors = openDescriptors().length;
  const contexts = native.tlsContextCount();
  const wrong = (options: object) => thrownBy(() => one.listen(options as never));
  const mismatch = wrong({ port: 0, tls: { ...server, key: pair('www').key } });
  assert.is(mismatch.code, 'ERR_TLS_CONFIG');
  assert.match(mismatch.message, /^listen\.tls: the key is not the certificate's/);
  assert.is(wrong({ port: 0, tls: {} }).code, 'ERR_INVALID_ARG_TYPE');
  assert.is(wrong({ port: 0, tls: { ...server, cert: 'no PEM' } }).code, 'ERR_TLS_CONFIG');
  assert.is(wrong({ port: 0, host: '203.0.113.1', tls: server }).code, 'EADDRNOTAVAIL');
  const plain = one.listen({ port: 0 });
  assert.match(thrownBy(() => plain.setTls(server)).message, 'has no TLS');
  plain.close();
  assert.is(openDescriptors().length, descriptors);
  assert.is(native.tlsContextCount(), contexts);
});

test("our stream asks Node's https server", async () => {
  for (const maxVersion of VERSIONS) {
    const far = https.createServer({ ...server, maxVersion }, async (asked, answer) => {
      let length = 0;
      for await (const chunk of asked) length += chunk.length;
      const { alpnProtocol } = asked.socket as tls.TLSSocket;
      answer.end(`${asked.method} ${length} ${alpnProtocol} ${'z'.repeat(100_000)}`);
    });
    far.listen(0, '127.0.0.1');
    await once(far, 'listening');
    const { port } = far.address() as { port: number };
    let text = '';
    let changed: () => void = nothing;
    const bev = BufferEvent.connect(
      rig.base,
      { host: '127.0.0.1', port },
      {
        tls: { ca, servername: 'localhost', ALPNProtocols: ['http/1.1'] },
        handlers: {
          read({ input }) {
            text += Buffer.from(input.remove(input.length)).toString('latin1');
            changed();
          },
          event(_, { eof, error }) {
            if (eof || error) text += `\n${error ?? 'end'}`;
            changed();
          },
        },
      },
    );
    bev.enable(Ev.READ);
    const head = 'POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n';
    bev.write(`${head}Content-Length: 200000\r\n\r\n${'y'.repeat(200_000)}`);
    while (!text.includes('\nend')) {
      const change = new Promise<void>((resolve) => {
        changed = resolve;
      });
      await within(PATIENCE_MS, change, `more than ${text.slice(0, 200)}`);
    }
    assert.match(text, /^HTTP\/1\.1 200 OK\r\n[\s\S]*POST 200000 http\/1\.1 z{100000}/);
    assert.is(bev.tls?.protocol, maxVersion);
    bev.close();
    await new Promise((resolve) => far.close(resolve));
  }
});

// ── under serve() ───────────────────────────────────────────────────────────────────────────────

const site = suite('https under serve()');
let group: LoopGroup;
const start = async (loops = 2) => {
  const shared = new SharedArrayBuffer(8);
  flags = new Int32Array(shared);
  group = await serve({
    worker: new URL('./workers/site.js', import.meta.url),
    loops,
    workerData: { shared },
    drainMs: 10_000,
    restart: { max: 1_000, backoff: 1 },
    listen: { port: 0, tls: { ...server, ca } },
  });
};
let flags: Int32Array;
site.after.each(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await group.close();
});

interface Facts {
  loop: number;
  generation: number;
  requests: number;
  id: number;
}
async function facts(client: Client): Promise<Facts> {
  return JSON.parse((await client.answer()).body);
}
function ask(client: Client, path: string): Promise<Facts> {
  client.send(GET(path));
  return facts(client);
}

for (const maxVersion of VERSIONS)
  site(`${maxVersion}: Node's https on one connection through moves and reloads`, async () => {
    await start();
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1, maxVersion });
    let handshakes = 0;
    let connections = 0;
    const make = agent.createConnection.bind(agent);
    agent.createConnection = (...args: Parameters<typeof make>) => {
      connections++;
      const socket = make(...args) as tls.TLSSocket;
      socket.on('secureConnect', () => handshakes++);
      return socket;
    };
    const port = portOf(group);
    const get = async (path: string): Promise<Facts> =>
      JSON.parse((await request({ port, path, agent })).body);
    try {
      const first = await get('/');
      let served = 1;
      const loops = new Set([first.loop]);
      for (let i = 0; i < 20; i++) {
        await get(`/move?${i % 2}`);
        const { loop, requests, id } = await get('/');
        served += 2;
        assert.equal([loop, requests, id], [i % 2, served, first.id]);
        loops.add(loop);
      }
      assert.is(loops.size, 2);
      for (let generation = 1; generation <= 3; generation++) {
        const report = await group.reload();
        assert.equal([report.moved, report.drained, report.closed], [1, 0, 0]);
        const now = await get('/');
        assert.equal([now.generation, now.requests, now.id], [generation, ++served, first.id]);
      }
      assert.equal([connections, handshakes], [1, 1]);
      assert.is(group.stats().accepted, 1);
    } finally {
      agent.destroy();
    }
  });

site('a part of a request moves, and what is pipelined behind the move', async () => {
  await start();
  for (const maxVersion of VERSIONS) {
    const client = await connect(portOf(group), { maxVersion });
    const first = await ask(client, '/');
    client.send(`${GET(`/move?${1 - first.loop}`)}${GET('/a')}GET /c HTT`);
    assert.is((await facts(client)).requests, 2);
    assert.is((await facts(client)).requests, 3);
    const { moves } = group.stats();
    client.send('P/1.1\r\nHost: a\r\n\r\n');
    const last = await facts(client);
    assert.equal([last.requests, last.id], [4, first.id]);
    await until(() => group.stats().moves >= moves, 'the move');
    assert.is((await ask(client, '/')).loop, 1 - first.loop);
  }
});

site('a request that is under way ends before its connection is with the new code', async () => {
  await start();
  const busy = await connect(portOf(group));
  busy.send(GET('/late') + GET('/'));
  await until(() => Atomics.load(flags, 0) === 1, 'it waits');
  const reloading = group.reload();
  await until(() => group.loops.every(({ generation }) => generation === 1), 'the new code');
  const fresh = await connect(portOf(group));
  assert.is((await ask(fresh, '/')).generation, 1);
  Atomics.store(flags, 1, 1);
  assert.is((await facts(busy)).generation, 0);
  await facts(busy);
  const report = await within(PATIENCE_MS, reloading, 'the reload');
  assert.equal([report.moved, report.drained, report.closed], [1, 0, 0]);
  assert.equal((await ask(busy, '/')).generation, 1);
});

site('connections whose loop dies between two requests go on elsewhere', async () => {
  await start();
  const clients = [];
  for (let i = 0; i < 6; i++)
    clients.push(await connect(portOf(group), { maxVersion: VERSIONS[i % 2] }));
  const at: Facts[] = [];
  for (const client of clients) at.push(await ask(client, '/'));
  const killer = await connect(portOf(group));
  const killed = (await ask(killer, '/')).loop;
  killer.send(GET('/die'));
  const those = at.filter(({ loop }) => loop === killed).length;
  await until(() => group.stats().rescues >= those, 'the rescues');
  for (const [i, client] of clients.entries()) assert.is((await ask(client, '/')).id, at[i].id);
});

// ── curl ────────────────────────────────────────────────────────────────────────────────────────

const onlyWith = (is: boolean, name: string, body: () => Promise<void>) =>
  is ? site(name, body) : site.skip(`curl is not installed: ${name}`, body);

/** What it has written, and its own words about the connection. */
async function curl(port: number, ...args: string[]): Promise<{ out: string; told: string }> {
  const { stdout, stderr } = await run('curl', [
    ...['-sS', '-v', '--max-time', '20', '--cacert', file('ca')],
    ...['--resolve', `localhost:${port}:127.0.0.1`, ...args],
  ]);
  return { out: stdout, told: stderr };
}

onlyWith(hasCurl, 'curl: one connection for two requests, TLS 1.2 and 1.3, a body', async () => {
  await start();
  const port = portOf(group);
  const url = `https://localhost:${port}`;
  for (const [flag, name] of [
    ['1.2', 'TLSv1.2'],
    ['1.3', 'TLSv1.3'],
  ]) {
    const { out, told } = await curl(port, '--tls-max', flag, `${url}/`, `${url}/`);
    assert.match(told, `SSL connection using ${name}`);
    assert.match(told, /Re-using existing connection/);
    const all = out.split('}').filter((part) => part !== '');
    assert.equal(
      all.map((part) => JSON.parse(`${part}}`).requests),
      [1, 2],
    );
  }
  const { out } = await curl(port, '--data-binary', `@${file('ca')}`, `${url}/body`);
  assert.is(JSON.parse(out).body, ca);
});

onlyWith(hasCurl, 'curl: a client certificate, and none', async () => {
  group = await serve({
    worker: new URL('./workers/site.js', import.meta.url),
    loops: 1,
    workerData: { shared: new SharedArrayBuffer(8) },
    listen: { port: 0, tls: { ...server, ca, requestCert: true } },
  });
  const port = portOf(group);
  const own = ['--cert', file('client'), '--key', file('client-key')];
  const { out } = await curl(port, ...own, `https://localhost:${port}/`);
  assert.is(JSON.parse(out).requests, 1);
  const refused = await curl(port, `https://localhost:${port}/`).then(nothing, (error) => error);
  assert.ok(refused.code > 0, 'curl has failed');
  await until(() => group.stats().handshakeFailures['bad certificate'] === 1, 'it is counted');
});

if (why !== undefined) console.log(`Skipped: ${why}`);
else {
  test.run();
  site.run();
}
