// The client against Node's servers and our own: what is sent, what comes back, in which order.

import { once } from 'node:events';
import * as http from 'node:http';
import * as https from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import * as assert from 'uvu/assert';
import {
  HeaderList,
  HttpClient,
  type HttpClientOptions,
  type HttpClientResponse,
} from '../../src/http.js';
import { BufferEvent, Ev } from '../../src/index.js';
import { codeOf, PATIENCE_MS, rejectionOf, within } from '../event/support.js';
import { test } from '../hooks.js';
import { ca, pair } from '../tls/pems.js';
import { nothing, useRig } from './rig.js';

const rig = useRig();
const clients: HttpClient[] = [];
const servers: http.Server[] = [];
test.after(() => {
  for (const client of clients) client.close();
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
});

function clientOf(options: HttpClientOptions): HttpClient {
  const client = new HttpClient(rig.base, options);
  clients.push(client);
  return client;
}
const local = (port: number, options: HttpClientOptions = {}) =>
  clientOf({ host: '127.0.0.1', port, ...options });

async function listening(server: http.Server, place: object = { port: 0, host: '127.0.0.1' }) {
  servers.push(server);
  server.listen(place);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}
const soon = <T>(promise: Promise<T>, what?: string) => within(PATIENCE_MS, promise, what);

/** Says what it was asked. */
async function describe(request: http.IncomingMessage, response: http.ServerResponse) {
  let body = '';
  for await (const piece of request) body += piece;
  const { method, url, headers, rawHeaders, trailers } = request;
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify({ method, url, headers, rawHeaders, trailers, body }));
}
interface Described {
  method: string;
  url: string;
  headers: Record<string, string>;
  rawHeaders: string[];
  trailers: Record<string, string>;
  body: string;
}
const described = async (answer: Promise<HttpClientResponse>) =>
  (await (await soon(answer)).json()) as Described;

test('requests of every form, to node:http', async () => {
  const client = local(await listening(http.createServer(describe)));
  const get = await soon(client.request());
  assert.equal([get.status, get.reason, get.version, get.ok], [200, 'OK', '1.1', true]);
  assert.is(get.headers.get('content-type'), 'application/json');
  const seen = (await get.json()) as Described;
  assert.equal([seen.method, seen.url, seen.body], ['GET', '/', '']);
  assert.match(seen.headers.host, /^127\.0\.0\.1:\d+$/);
  assert.is(seen.headers['content-length'], undefined);

  const text = await described(client.request({ method: 'POST', path: '/a?b=c', body: 'grüß' }));
  assert.equal([text.url, text.body, text.headers['content-length']], ['/a?b=c', 'grüß', '6']);
  const none = await described(client.request({ method: 'POST' }));
  assert.equal([none.body, none.headers['content-length']], ['', '0']);
  const bytes = await described(client.request({ method: 'PUT', body: Buffer.from('bytes') }));
  assert.equal([bytes.method, bytes.body], ['PUT', 'bytes']);

  async function* parts() {
    yield 'one ';
    yield '';
    yield Buffer.from('two');
  }
  const trailers = { Checksum: 'abc' };
  const chunked = await described(client.request({ method: 'POST', body: parts(), trailers }));
  assert.equal([chunked.body, chunked.trailers], ['one two', { checksum: 'abc' }]);
  assert.is(chunked.headers['transfer-encoding'], 'chunked');
  const headers = { 'Content-Length': 7 };
  const sized = await described(client.request({ method: 'POST', body: parts(), headers }));
  assert.equal([sized.body, sized.headers['content-length']], ['one two', '7']);
  const stream = Readable.from([Buffer.alloc(200_000, 'x'), 'y']);
  const long = await described(client.request({ method: 'POST', body: stream }));
  assert.is(long.body.length, 200_001);
  const web = new Blob(['of the web']).stream() as ReadableStream<Uint8Array>;
  assert.is((await described(client.request({ method: 'POST', body: web }))).body, 'of the web');
});

test('headers: any of them, in any form', async () => {
  const client = local(await listening(http.createServer(describe)));
  const list = new HeaderList({ A: 'b' }).append('X-Two', 'one').append('x-two', 'two');
  const one = await described(client.request({ headers: list }));
  assert.equal([one.headers.a, one.headers['x-two']], ['b', 'one, two']);
  const two = await described(
    client.request({ headers: { Host: 'other', Cookie: ['a=b', 'c=d'], N: 5, Latin: 'é' } }),
  );
  const { host, cookie, n, latin } = two.headers;
  assert.equal([host, cookie, n, latin], ['other', 'a=b; c=d', '5', 'é']);
  assert.is(two.rawHeaders[0], 'Host');
  const pairs = await described(client.request({ headers: [['A', 'x']] }));
  assert.is(pairs.headers.a, 'x');
});

test('one connection, in order, whatever the answers are', async () => {
  let connections = 0;
  const server = http.createServer((request, response) => {
    response.setHeader('N', String(request.url));
    if (request.url === '/chunks') {
      response.write('a');
      setImmediate(() => response.end('b'));
    } else if (request.url === '/empty') response.writeHead(204).end();
    else if (request.url === '/same') response.writeHead(304, { 'Content-Length': 5 }).end();
    else if (request.method === 'HEAD') response.writeHead(200, { 'Content-Length': 5 }).end();
    else response.end('hello');
  });
  server.on('connection', () => connections++);
  const port = await listening(server);
  const completed: number[] = [];
  const client = local(port, { complete: (response) => completed.push(response.status) });
  const paths = ['/a', '/chunks', '/empty', '/same', '/head', '/b'];
  const answers = paths.map((path) =>
    client.request({ path, method: path === '/head' ? 'HEAD' : 'GET' }),
  );
  await soon(Promise.resolve());
  assert.is(client.pending, paths.length);
  const bodies: string[] = [];
  for (const [i, answer] of answers.entries()) {
    const response = await soon(answer);
    assert.is(response.headers.get('n'), paths[i]);
    bodies.push(await response.text());
  }
  assert.equal(bodies, ['hello', 'ab', '', '', '', 'hello']);
  assert.equal(completed, [200, 200, 204, 304, 200, 200]);
  assert.equal([connections, client.pending], [1, 0]);
  assert.equal(client.to, { host: '127.0.0.1', port, family: undefined });
  const { remoteAddress } = client.stream as BufferEvent;
  assert.is((remoteAddress as { port: number }).port, port);
});

test('an answer that nobody reads keeps nobody waiting, if it is short', async () => {
  const server = http.createServer((request, response) =>
    response.end('x'.repeat(request.url === '/long' ? 1_000_000 : 60_000)),
  );
  const client = local(await listening(server));
  const unread = await soon(client.request());
  assert.is((await (await soon(client.request())).text()).length, 60_000);
  assert.is(unread.complete, true);
  assert.is((await unread.text()).length, 60_000);
  const long = await soon(client.request({ path: '/long' }));
  const next = client.request();
  await long.discard();
  assert.is((await (await soon(next)).text()).length, 60_000);
});

test('back-pressure: what nobody reads stays with the server', async () => {
  let written = 0;
  let full: () => void = nothing;
  const stuck = new Promise<void>((resolve) => {
    full = resolve;
  });
  const total = 64 * 1024 * 1024;
  const piece = Buffer.alloc(64 * 1024, 'x');
  const server = http.createServer(async (_, response) => {
    for (; written < total; written += piece.length)
      if (!response.write(piece)) {
        const drained = once(response, 'drain');
        const late = setTimeout(full, 300);
        await drained;
        clearTimeout(late);
      }
    response.end();
  });
  const client = local(await listening(server));
  const response = await soon(client.request());
  await soon(stuck, 'the server to be stuck');
  assert.ok(written < total / 2, `${written} were written`);
  assert.ok((client.stream?.inputLength ?? 0) <= 128 * 1024);
  let length = 0;
  for await (const bytes of response) length += bytes.length;
  assert.is(length, total);
});

test('trailers and answers before the answer', async () => {
  const server = http.createServer((_, response) => {
    response.writeEarlyHints({ link: '</a.css>; rel=preload' });
    response.writeProcessing();
    response.writeHead(200, { Trailer: 'Checksum' });
    response.write('body');
    response.addTrailers({ Checksum: 'abc' });
    response.end();
  });
  const client = local(await listening(server));
  const told: unknown[] = [];
  const inform = (status: number, headers: Iterable<[string, string]>) =>
    told.push([status, ...headers]);
  const response = await soon(client.request({ inform }));
  assert.is(await response.text(), 'body');
  assert.equal([...response.trailers], [['checksum', 'abc']]);
  assert.equal(told, [[103, ['link', '</a.css>; rel=preload']], [102]]);
});

test('100-continue: the body waits for leave, for a while', async () => {
  const told: string[] = [];
  const server = http.createServer((_, response) => response.end('no'));
  server.on('checkContinue', async (request, response) => {
    told.push('asked');
    if (request.url === '/no') {
      response.writeHead(417).end('no');
      return;
    }
    if (request.url === '/yes') response.writeContinue();
    let body = '';
    for await (const piece of request) body += piece;
    response.end(body);
  });
  const client = local(await listening(server), { continueTimeout: 20 });
  const ask = (path: string, body: HttpBody) =>
    soon(client.request({ method: 'POST', path, body, expectContinue: true }));
  assert.is(await (await ask('/yes', 'body')).text(), 'body');
  assert.is(await (await ask('/silent', 'body')).text(), 'body');
  let stopped = false;
  async function* source() {
    try {
      yield 'never';
    } finally {
      stopped = true;
    }
  }
  const patient = clientOf({ host: '127.0.0.1', port: (client.to as { port: number }).port });
  const asked = patient.request({
    method: 'POST',
    path: '/no',
    body: source(),
    expectContinue: true,
  });
  const refused = await soon(asked);
  assert.equal([refused.status, await refused.text(), stopped], [417, 'no', false]);
  assert.equal(told, ['asked', 'asked', 'asked']);
  assert.is(patient.stream, undefined, 'nobody knows what the server takes for the next request');
});
type HttpBody = string;

test('HTTP/1.0, and bodies that end with the connection', async () => {
  let port = 0;
  const sent: string[] = [];
  const net = await import('node:net');
  const raw = net.createServer((socket) => {
    socket.on('error', nothing);
    socket.on('data', (text) => {
      sent.push(String(text));
      if (String(text).includes('/keep'))
        socket.write('HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nkept');
      else socket.end('HTTP/1.0 200\r\nA: b\r\n\r\nuntil the end');
    });
  });
  raw.listen(0, '127.0.0.1');
  await once(raw, 'listening');
  port = (raw.address() as AddressInfo).port;
  const closed: unknown[] = [];
  const client = local(port, { close: (error) => closed.push(error) });
  const one = await soon(client.request());
  assert.equal([one.version, one.reason, await one.text()], ['1.0', '', 'until the end']);
  assert.equal(closed, [undefined]);
  for (const _ of [1, 2])
    assert.is(await (await soon(client.request({ path: '/keep' }))).text(), 'kept');
  assert.equal([closed.length, sent.length], [1, 3]);
  raw.close();
});

test('over TLS, with the name checked; and over a unix socket', async () => {
  const secure = https.createServer(pair('localhost'), describe);
  const port = await listening(secure as unknown as http.Server);
  const client = clientOf({ host: 'localhost', port, family: 4, tls: { ca } });
  const seen = await described(client.request({ method: 'POST', body: 'secret' }));
  assert.equal([seen.body, seen.headers.host], ['secret', `localhost:${port}`]);
  assert.is((client.stream as { tls?: { alpn?: string } }).tls?.alpn, 'http/1.1');
  const wrong = clientOf({ host: '127.0.0.1', port, tls: { ca, servername: 'www.example.org' } });
  assert.match(String((await rejectionOf(soon(wrong.request()))).code), /TLS|CERT|HOSTNAME/);
  const untrusted = clientOf({ host: 'localhost', port, family: 4, tls: {} });
  assert.match(String((await rejectionOf(soon(untrusted.request()))).code), /TLS|CERT/);

  const path = join(tmpdir(), `multiloop-client-${process.pid}`);
  await listening(http.createServer(describe), { path });
  const unix = clientOf({ path });
  assert.is((await described(unix.request())).headers.host, 'localhost');
});

test('where it connects from: localAddress, localPort, reuseAddress', async () => {
  const peers: unknown[] = [];
  const server = http.createServer((request, response) => {
    peers.push([request.socket.remoteAddress, request.socket.remotePort]);
    response.setHeader('Connection', 'close').end();
  });
  const port = await listening(server);
  // A port that was free a moment ago; it is asked for twice, one connection after the other.
  const free = http.createServer();
  const localPort = await listening(free);
  free.close();
  await once(free, 'close');
  const client = local(port, { localAddress: '127.0.0.2', localPort });
  await soon(client.request());
  const wildcard = local(port, { localPort, reuseAddress: true });
  await soon(wildcard.request());
  await soon(local(port, { reuseAddress: true }).request());
  assert.equal(peers.slice(0, 2), [
    ['127.0.0.2', localPort],
    ['127.0.0.1', localPort],
  ]);
  assert.is(
    codeOf(() => clientOf({ host: 'a', family: 5 as never })),
    'ERR_INVALID_ARG_VALUE',
  );
});

test('an address that was connected to is not looked up again', async () => {
  const server = http.createServer((_, response) =>
    response.setHeader('Connection', 'close').end('x'),
  );
  const port = await listening(server);
  const dns = await import('node:dns');
  const { syncBuiltinESMExports } = await import('node:module');
  const { default: mutable } = dns;
  const real = mutable.lookup;
  let lookups = 0;
  mutable.lookup = ((...given: Parameters<typeof real>) => {
    lookups++;
    return real(...given);
  }) as typeof real;
  syncBuiltinESMExports();
  try {
    for (const reuseAddress of [true, false]) {
      lookups = 0;
      const client = clientOf({ host: 'localhost', family: 4, port, reuseAddress });
      for (const _ of [1, 2, 3]) assert.is(await (await soon(client.request())).text(), 'x');
      assert.is(lookups, reuseAddress ? 1 : 3);
    }
  } finally {
    mutable.lookup = real;
    syncBuiltinESMExports();
  }
});

test('our own server, over a pair of streams, and over streams of the caller’s making', async () => {
  const { server, port } = rig.serve({
    async request(request, response) {
      response.status = 201;
      response.set('Method', request.method);
      for await (const piece of request) response.write(piece);
      response.end(undefined, { Seen: String(request.connection.requests) });
    },
  });
  const [near, far] = BufferEvent.pair(rig.base);
  server.attach(far);
  const client = clientOf({ stream: near });
  for (const count of ['1', '2']) {
    const response = await soon(client.request({ method: 'BREW', body: ['a', 'b'] }));
    assert.equal([response.status, await response.text()], [201, 'ab']);
    assert.is(response.headers.get('method'), 'BREW');
    assert.equal([...response.trailers], [['seen', count]]);
  }
  client.stream?.close();
  const gone = await rejectionOf(soon(client.request()));
  assert.equal([gone.code, /no host/.test(gone.message)], ['ERR_HTTP_ABORTED', true]);
  let made = 0;
  const makeStream = () => {
    made++;
    return BufferEvent.connect(rig.base, { host: '127.0.0.1', port });
  };
  const maker = clientOf({ makeStream });
  const options = { method: 'POST', body: 'x', headers: { Connection: 'close' } };
  for (const _ of [1, 2]) assert.is(await (await soon(maker.request(options))).text(), 'x');
  assert.is(made, 2);
});

test('another protocol: 101 and CONNECT give the stream away', async () => {
  const server = http.createServer();
  const give = (status: string) => (_: unknown, socket: import('node:stream').Duplex) => {
    socket.write(`HTTP/1.1 ${status}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst `);
    socket.pipe(socket);
  };
  server.on('upgrade', give('101 Switching Protocols'));
  server.on('connect', give('200 Connection Established'));
  const client = local(await listening(server));
  const headers = { Connection: 'Upgrade', Upgrade: 'echo' };
  for (const options of [{ headers }, { method: 'CONNECT', path: 'a:80' }]) {
    const response = await soon(client.request(options));
    assert.is(client.stream, undefined);
    const stream = response.detach();
    assert.is(
      codeOf(() => response.detach()),
      'ERR_HTTP_BODY_USED',
    );
    stream.write('second');
    let text = '';
    const done = new Promise<void>((resolve) => {
      const read = () => {
        text += Buffer.from(stream.input.remove(stream.inputLength));
        if (text.endsWith('second')) resolve();
      };
      stream.handlers = { read };
      stream.enable(Ev.READ).trigger(Ev.READ);
    });
    await soon(done, 'the echo');
    assert.is(text, 'first second');
    stream.close();
  }
});

test('drain() lets requests end, close() does not', async () => {
  const port = await listening(http.createServer((_, response) => response.end('x')));
  const client = local(port);
  const answers = [client.request(), client.request()];
  const drained = client.drain();
  assert.is((await rejectionOf(client.request())).code, 'ERR_HTTP_CLIENT_CLOSED');
  await soon(drained);
  for (const answer of answers) assert.is(await (await answer).text(), 'x');
  assert.is(client.stream, undefined);
  const other = local(port);
  const lost = [other.request(), other.request()];
  other.close();
  for (const one of lost) assert.is((await rejectionOf(one)).code, 'ERR_HTTP_ABORTED');
  await soon(other.drain());
});

test('arguments', async () => {
  const make = (options: object) => codeOf(() => new HttpClient(rig.base, options as never));
  assert.is(make({}), 'ERR_INVALID_ARG_TYPE');
  assert.is(make({ host: 5 }), 'ERR_INVALID_ARG_TYPE');
  assert.is(make({ host: 'a', port: 0 }), 'ERR_OUT_OF_RANGE');
  assert.is(make({ host: 'a', headersMax: 0 }), 'ERR_OUT_OF_RANGE');
  assert.is(make({ host: 'a', answerTimeout: -1 }), 'ERR_OUT_OF_RANGE');
  assert.is(make({ host: 'a', error: 5 }), 'ERR_INVALID_ARG_TYPE');
  assert.is(make({ host: 'a', tls: { ca: 'no PEM' } }), 'ERR_TLS_CONFIG');
  assert.is(make({ host: 'a\r\nb' }), 'ERR_INVALID_ARG_VALUE');
  const client = clientOf({ host: '127.0.0.1', port: 1 });
  const ask = async (options: object) => (await rejectionOf(client.request(options))).code;
  for (const path of ['', 'a b', '/\r\n', '/é', '/#a', '/\0'])
    assert.is(await ask({ path }), 'ERR_INVALID_ARG_VALUE', path);
  for (const method of ['', 'A B', 'G\r\n'])
    assert.is(await ask({ method }), 'ERR_INVALID_ARG_VALUE');
  for (const headers of [
    { 'A B': 'c' },
    { A: 'b\r\nc: d' },
    { 'Transfer-Encoding': 'chunked' },
    { Expect: '100-continue' },
    { 'Content-Length': 'x' },
    { 'Content-Length': 5 },
    { Host: ['a', 'b'] },
  ])
    assert.is(await ask({ headers }), 'ERR_INVALID_ARG_VALUE', JSON.stringify(headers));
  assert.is(await ask({ body: 'abc', headers: { 'Content-Length': 4 } }), 'ERR_HTTP_LENGTH');
  assert.is(await ask({ body: 5 }), 'ERR_INVALID_ARG_TYPE');
  assert.is(await ask({ body: 'a', trailers: { A: 'b' } }), 'ERR_INVALID_ARG_VALUE');
  assert.is(await ask({ signal: 5 }), 'ERR_INVALID_ARG_TYPE');
});

test.run();
