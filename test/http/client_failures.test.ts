// How requests of a client fail: servers that leave at every stage, are slow, or are not there; what
// is tried again, and what is cancelled. Servers here are raw sockets, so that they can misbehave.

import { once } from 'node:events';
import * as net from 'node:net';
import * as assert from 'uvu/assert';
import { HttpClient, type HttpClientOptions, type HttpRequestOptions } from '../../src/http.js';
import { codeOf, PATIENCE_MS, rejectionOf, within } from '../event/support.js';
import { test } from '../hooks.js';
import { nothing, useRig } from './rig.js';

const rig = useRig();
const clients: HttpClient[] = [];
const servers: net.Server[] = [];
const sockets = new Set<net.Socket>();
test.after(() => {
  for (const client of clients) client.close();
  for (const server of servers) server.close();
  for (const socket of sockets) socket.destroy();
});

/** A time that is waited for. */
const STEP_MS = 60;
const HEAD = 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n';
const soon = <T>(promise: Promise<T>, what?: string) => within(PATIENCE_MS, promise, what);

/** `requested` is told of each request's bytes, the number of its connection, and its own there. */
async function raw(
  requested: (socket: net.Socket, connection: number, request: number, text: string) => void,
  connected: (socket: net.Socket, connection: number) => void = nothing,
): Promise<number> {
  let connections = 0;
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    const number = ++connections;
    let requests = 0;
    sockets.add(socket);
    socket.on('error', nothing);
    socket.on('close', () => sockets.delete(socket));
    socket.on('data', (bytes) => requested(socket, number, ++requests, String(bytes)));
    connected(socket, number);
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as net.AddressInfo).port;
}
interface Told {
  client: HttpClient;
  /** What the error hook was told: codes. */
  errors: (string | undefined)[];
  closed: (string | undefined)[];
}
function clientOf(port: number, options: HttpClientOptions = {}): Told {
  const errors: (string | undefined)[] = [];
  const closed: (string | undefined)[] = [];
  const client = new HttpClient(rig.base, {
    host: '127.0.0.1',
    port,
    error: (error) => errors.push((error as NodeJS.ErrnoException).code ?? error.name),
    close: (error) => closed.push((error as NodeJS.ErrnoException | undefined)?.code),
    ...options,
  });
  clients.push(client);
  return { client, errors, closed };
}
const codeIn = async (promise: Promise<unknown>) => String((await rejectionOf(soon(promise))).code);
const bodyOf = async (client: HttpClient, options?: HttpRequestOptions) =>
  (await soon(client.request(options))).text();

test('a server that leaves before, in and after the head, and in the body', async () => {
  const stages = ['', 'HTTP/1.1 2', 'HTTP/1.1 200 OK\r\nA: b\r\n', 'HTTP/1.1 100 x\r\n\r\n'];
  for (const reset of [false, true]) {
    const port = await raw((socket, connection) => {
      const leave = () => (reset ? socket.resetAndDestroy() : socket.end());
      const text = [...stages, `${HEAD}ab`][connection - 1];
      if (text === '') leave();
      else socket.write(text, () => setTimeout(leave, 5));
    });
    const { client, errors, closed } = clientOf(port);
    const expected: string[] = [];
    for (const stage of stages) {
      const code = await codeIn(client.request());
      assert.match(code, reset ? /^(ECONNRESET|ERR_HTTP_ABORTED)$/ : /^ERR_HTTP_ABORTED$/, stage);
      expected.push(code);
    }
    const late = await soon(client.request());
    const code = await codeIn(late.text());
    assert.match(code, reset ? /^(ECONNRESET|ERR_HTTP_ABORTED)$/ : /^ERR_HTTP_ABORTED$/);
    assert.equal(errors, [...expected, code]);
    assert.is(closed.length, 5);
    assert.equal([client.pending, client.stream], [0, undefined]);
  }
});

test('a kept connection that the server has ended: once more, if that is safe', async () => {
  for (const how of ['end', 'resetAndDestroy'] as const) {
    const seen: string[] = [];
    const port = await raw((socket, connection, request, text) => {
      seen.push(`${connection} ${request} ${text.split(' ')[0]}`);
      if (request === 1) socket.write(`${HEAD}abc`);
      else socket[how]();
    });
    const { client, errors } = clientOf(port);
    assert.is(await bodyOf(client), 'abc');
    // The second request of a connection finds it ended, and goes over another.
    assert.is(await bodyOf(client, { method: 'PUT', body: 'x' }), 'abc');
    assert.equal(seen, ['1 1 GET', '1 2 PUT', '2 1 PUT']);
    // What may not be done twice is told, since it may have been done.
    assert.match(
      await codeIn(client.request({ method: 'POST', body: 'x' })),
      /^(ERR_HTTP_ABORTED|ECONNRESET)$/,
    );
    // A source cannot be sent again either.
    assert.is(await bodyOf(client), 'abc');
    const source = { method: 'PUT', body: ['x'], headers: { 'Content-Length': 1 } };
    assert.match(await codeIn(client.request(source)), /^(ERR_HTTP_ABORTED|ECONNRESET)$/);
    assert.is(errors.length, 2);
  }
});

test('a request is sent once more and not twice more', async () => {
  let requests = 0;
  const port = await raw((socket, connection, request) => {
    requests++;
    if (connection === 1 && request === 1) socket.write(`${HEAD}abc`);
    else socket.end();
  });
  const { client } = clientOf(port);
  assert.is(await bodyOf(client), 'abc');
  assert.is(await codeIn(client.request()), 'ERR_HTTP_ABORTED');
  assert.is(requests, 3);
});

test('an idle connection that ends, or speaks out of turn, is not used again', async () => {
  for (const speaks of [false, true]) {
    const port = await raw((socket) => {
      socket.write(`${HEAD}abc`);
      setTimeout(() => (speaks ? socket.write(HEAD) : socket.end()), 5);
    });
    let close: () => void = nothing;
    const closed = new Promise<void>((resolve) => {
      close = resolve;
    });
    const { client, errors } = clientOf(port, { close: () => close() });
    assert.is(await bodyOf(client), 'abc');
    await soon(closed, 'the end');
    assert.is(client.stream, undefined);
    assert.is(await bodyOf(client), 'abc');
    assert.equal(errors, []);
    client.close();
  }
});

test('a connection is kept for keepAliveTimeout, or as the server says', async () => {
  for (const hint of ['', 'Keep-Alive: timeout=1\r\n']) {
    const port = await raw((socket) =>
      socket.write(`HTTP/1.1 200 OK\r\n${hint}Content-Length: 3\r\n\r\nabc`),
    );
    let close: () => void = nothing;
    const closed = new Promise<void>((resolve) => {
      close = resolve;
    });
    const keepAliveTimeout = hint === '' ? STEP_MS : 0;
    const { client } = clientOf(port, { keepAliveTimeout, close: () => close() });
    assert.is(await bodyOf(client), 'abc');
    assert.ok(client.stream);
    await soon(closed, 'the end');
    assert.is(client.stream, undefined);
  }
});

test('nobody listens: all that wait are told; and after retries, not before', async () => {
  const port = await raw(nothing);
  const server = servers.pop() as net.Server;
  server.close();
  await once(server, 'close');
  const { client, errors } = clientOf(port);
  const waiting = [client.request(), client.request({ method: 'POST', body: ['x'] })];
  for (const one of waiting) assert.is(await codeIn(one), 'ECONNREFUSED');
  assert.equal(errors, ['ECONNREFUSED', 'ECONNREFUSED']);
  const began = performance.now();
  const { client: patient } = clientOf(port, { retries: 3, retryDelay: STEP_MS });
  assert.is(await codeIn(patient.request()), 'ECONNREFUSED');
  // 1, 2 and 4 times retryDelay.
  assert.ok(performance.now() - began >= 7 * STEP_MS - 5);
});

test('retries go on until somebody listens', async () => {
  const port = await raw(nothing);
  const server = servers.pop() as net.Server;
  server.close();
  await once(server, 'close');
  const { client, errors } = clientOf(port, { retries: Infinity, retryDelay: STEP_MS });
  const answer = client.request();
  // The first attempt fails before anybody listens: it was made when the request was.
  await new Promise((resolve) => setTimeout(resolve, 10));
  const late = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', nothing);
    socket.once('data', () => socket.end(`${HEAD}abc`));
  });
  servers.push(late);
  late.listen(port, '127.0.0.1');
  assert.is(await (await soon(answer)).text(), 'abc');
  assert.equal(errors, []);
});

test('a stream of the caller’s making that fails counts as a failure to connect', async () => {
  let made = 0;
  const { client } = clientOf(1, {
    retries: 2,
    retryDelay: 1,
    makeStream() {
      made++;
      throw Object.assign(new Error('no proxy'), { code: 'EPROXY' });
    },
  });
  assert.is(await codeIn(client.request()), 'EPROXY');
  assert.is(made, 3);
});

test('time: for connecting, for the answer, between its pieces, for taking the request', async () => {
  const port = await raw((socket, connection) => {
    if (connection === 2) socket.write(`${HEAD}a`);
  });
  const { client } = clientOf(port, { answerTimeout: STEP_MS, readTimeout: STEP_MS });
  const late = await rejectionOf(soon(client.request()));
  assert.equal([late.code, /answerTimeout/.test(late.message)], ['ERR_HTTP_TIMEOUT', true]);
  const stuck = await rejectionOf(soon(bodyOf(client)));
  assert.equal([stuck.code, /readTimeout/.test(stuck.message)], ['ERR_HTTP_TIMEOUT', true]);

  const deaf = await raw(nothing, (socket) => socket.pause());
  const { client: sender } = clientOf(deaf, { sendTimeout: STEP_MS });
  async function* endless() {
    for (;;) yield Buffer.alloc(64 * 1024);
  }
  const unsent = await rejectionOf(soon(sender.request({ method: 'POST', body: endless() })));
  assert.equal([unsent.code, /sendTimeout/.test(unsent.message)], ['ERR_HTTP_TIMEOUT', true]);
});

test('an answer that nobody reads keeps the next request waiting for unreadTimeout', async () => {
  const length = 1_000_000;
  const head = `HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n`;
  const port = await raw((socket, connection) => {
    if (connection === 1) socket.write(head + 'x'.repeat(length));
    else socket.write(`${HEAD}abc`);
  });
  const { client, errors } = clientOf(port, { unreadTimeout: STEP_MS });
  const left = await soon(client.request());
  assert.is(await bodyOf(client), 'abc');
  assert.equal(errors, ['ERR_HTTP_TIMEOUT']);
  const late = await rejectionOf(soon(left.text()));
  assert.equal([late.code, /unreadTimeout/.test(late.message)], ['ERR_HTTP_TIMEOUT', true]);

  // Who reads, however slowly, is left alone: each piece has the time anew.
  const slow = await raw((socket) => socket.write(head + 'x'.repeat(length)));
  const { client: reader } = clientOf(slow, { unreadTimeout: 5 * STEP_MS });
  let read = 0;
  for await (const piece of await soon(reader.request())) {
    read += piece.length;
    await new Promise((resolve) => setTimeout(resolve, STEP_MS / 2));
  }
  assert.is(read, length);
});

test('a connection that is not made in connectTimeout: ETIMEDOUT', async () => {
  // A queue of one that is full: the kernel drops what comes further.
  const server = net.createServer();
  servers.push(server);
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 });
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const dns = await import('node:dns');
  const { syncBuiltinESMExports } = await import('node:module');
  const real = dns.default.lookup;
  dns.default.lookup = (() => undefined) as unknown as typeof real;
  syncBuiltinESMExports();
  try {
    const { client } = clientOf(port, { host: 'never.example', connectTimeout: STEP_MS });
    assert.is(await codeIn(client.request()), 'ETIMEDOUT');
  } finally {
    dns.default.lookup = real;
    syncBuiltinESMExports();
  }
});

test('a signal ends a request: while it waits, connects, is sent, is answered, is read', async () => {
  let arrived: () => void = nothing;
  const port = await raw((socket, connection) => {
    arrived();
    if (connection > 1) socket.write(`${HEAD}a`);
  });
  const { client, errors } = clientOf(port);
  const reason = Object.assign(new Error('not wanted'), { code: 'E_MINE' });
  assert.is(await codeIn(client.request({ signal: AbortSignal.abort(reason) })), 'E_MINE');
  // While it connects.
  const connecting = new AbortController();
  const first = client.request({ signal: connecting.signal });
  connecting.abort(reason);
  assert.is(await codeIn(first), 'E_MINE');
  assert.equal([client.pending, client.stream], [0, undefined]);
  // While it waits for its answer, and one behind it for its turn.
  const began = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  const busy = new AbortController();
  const queued = new AbortController();
  const second = client.request({ signal: busy.signal });
  const third = client.request({ signal: queued.signal });
  await soon(began, 'the request');
  queued.abort(reason);
  assert.is(await codeIn(third), 'E_MINE');
  assert.is(client.pending, 1);
  busy.abort(reason);
  assert.is(await codeIn(second), 'E_MINE');
  assert.is(client.stream, undefined);
  // While its body is read.
  const reading = new AbortController();
  const response = await soon(client.request({ signal: reading.signal }));
  const text = response.text();
  reading.abort(reason);
  assert.is(await codeIn(text), 'E_MINE');
  assert.equal(errors, ['E_MINE', 'E_MINE', 'E_MINE', 'E_MINE']);
});

test('who stops reading, cancels, or reads twice', async () => {
  const port = await raw((socket) => socket.write(`HTTP/1.1 200 OK\r\n\r\n${'x'.repeat(1_000)}`));
  const { client, closed } = clientOf(port, { wholeBodyMax: 999 });
  for await (const piece of await soon(client.request())) {
    assert.ok(piece.length > 0);
    break;
  }
  assert.equal([client.stream, closed.length], [undefined, 1]);
  const two = await soon(client.request());
  two.cancel();
  assert.is(await codeIn(two.text()), 'ERR_HTTP_BODY_USED');
  const three = await soon(client.request());
  for (let length = 0; length < 1_000; ) length += (await soon(three.read()))?.length ?? 0;
  const waiting = three.read();
  assert.is(await codeIn(three.read()), 'ERR_HTTP_BODY_USED');
  three.cancel();
  assert.is(await codeIn(waiting), 'ERR_HTTP_ABORTED');
  assert.is(await codeIn(bodyOf(client)), 'ERR_HTTP_ANSWER_TOO_LARGE');
});

test('a queue that is full', async () => {
  const port = await raw(nothing);
  const { client } = clientOf(port, { queueMax: 2 });
  const all = [1, 2, 3].map(() => client.request());
  for (const one of all) one.catch(nothing);
  // The first one begins when it is connected, and then there is room for another.
  assert.is(await codeIn(all[2]), 'ERR_HTTP_QUEUE_FULL');
  client.close();
  assert.is(await codeIn(all[1]), 'ERR_HTTP_ABORTED');
});

test('a server that answers early and takes no more: its answer is told', async () => {
  let stopped = false;
  async function* endless() {
    try {
      for (;;) {
        yield Buffer.alloc(16 * 1024);
        await new Promise(setImmediate);
      }
    } finally {
      stopped = true;
    }
  }
  const port = await raw((socket, _, request) => {
    if (request > 1) return;
    socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig');
  });
  const { client } = clientOf(port);
  const response = await soon(client.request({ method: 'POST', body: endless() }));
  assert.equal([response.status, await response.text()], [413, 'big']);
  while (!stopped) await new Promise(setImmediate);
  assert.is(client.stream, undefined);
});

test('a source that fails, lies about its length, or is none', async () => {
  const port = await raw(nothing);
  const { client } = clientOf(port);
  async function* failing() {
    yield 'x';
    throw Object.assign(new Error('no more'), { code: 'E_SOURCE' });
  }
  const post = (body: unknown, length?: number) =>
    client.request({
      method: 'POST',
      body: body as never,
      ...(length === undefined ? {} : { headers: { 'Content-Length': length } }),
    });
  assert.is(await codeIn(post(failing())), 'E_SOURCE');
  assert.is(await codeIn(post(['ab', 'c'], 2)), 'ERR_HTTP_LENGTH');
  assert.is(await codeIn(post(['a'], 2)), 'ERR_HTTP_LENGTH');
  assert.is(await codeIn(post([5])), 'ERR_INVALID_ARG_TYPE');
  assert.is(await codeIn(post(Object.assign(Object.create(null), {}))), 'ERR_INVALID_ARG_TYPE');
  assert.is(client.pending, 0);
});

test('a hook that throws is an uncaught exception, and the client goes on', async () => {
  const port = await raw((socket) => socket.write(`${HEAD}abc`));
  const caught: unknown[] = [];
  const gather = (error: unknown) => caught.push(error);
  process.on('uncaughtException', gather);
  try {
    const { client } = clientOf(port, {
      complete() {
        throw new Error('of a hook');
      },
    });
    for (const _ of [1, 2]) assert.is(await bodyOf(client), 'abc');
    await new Promise(setImmediate);
  } finally {
    process.off('uncaughtException', gather);
  }
  assert.is(caught.length, 2);
  assert.is(
    codeOf(() => clientOf(0)),
    'ERR_OUT_OF_RANGE',
  );
});

test.run();
