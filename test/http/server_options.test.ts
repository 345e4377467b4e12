// What a server can be told besides its handler: where it listens, what its streams are, which
// methods it takes, what its errors look like.

import { once } from 'node:events';
import * as net from 'node:net';
import * as assert from 'uvu/assert';
import {
  type ErrorBody,
  HttpClient,
  type HttpOptions,
  type HttpRequest,
  HttpServer,
  Router,
  Uri,
} from '../../src/http.js';
import { BufferEvent, Listener, sys } from '../../src/index.js';
import { codeOf, PATIENCE_MS, within } from '../event/support.js';
import { test } from '../hooks.js';
import { ca, pair } from '../tls/pems.js';
import { HOST, nothing, statusesOf, useRig } from './rig.js';

const rig = useRig();
const get = (path: string, headers = '') => `GET ${path} HTTP/1.1\r\n${HOST}${headers}\r\n`;
const hello = (_: HttpRequest, response: { send(text: string): void }) => response.send('hello');
const portOf = ({ address }: Listener) => (address as { port: number }).port;

/** A server that listens nowhere yet. */
function serverOf(options: HttpOptions): HttpServer {
  const server = new HttpServer(rig.base, options);
  test.after(() => server.close());
  return server;
}
async function answerOf(port: number, text = get('/')) {
  const client = await rig.connect(port);
  client.send(text);
  const answer = await client.answer();
  client.socket.destroy();
  return answer;
}

test('several places: listened, adopted, by descriptor, closed one by one', async () => {
  const server = serverOf({ request: hello });
  assert.equal(server.listeners, []);
  const place = { port: 0, host: '127.0.0.1' };
  const one = server.listen(place);
  const listener = new Listener(rig.base, place, nothing);
  const two = server.adopt(listener);
  assert.is(two, listener);
  const bound = new Listener(rig.base, place, nothing);
  const fd = sys.dup(bound.fd);
  bound.close();
  const three = server.listen({ fd });
  assert.is(three.fd, fd);
  assert.equal(server.listeners, [one, two, three]);
  for (const at of server.listeners) assert.is((await answerOf(portOf(at))).body, 'hello');
  const kept = await rig.connect(portOf(two));
  kept.send(get('/'));
  await kept.answer();
  two.close();
  assert.equal(server.listeners, [one, three]);
  // What was accepted there goes on.
  kept.send(get('/'));
  assert.is((await kept.answer()).body, 'hello');
  const refused = net.connect(portOf(two), '127.0.0.1');
  await assertRefused(refused);
  assert.is(
    codeOf(() => server.adopt(5 as never)),
    'ERR_INVALID_ARG_TYPE',
  );
});
async function assertRefused(socket: net.Socket): Promise<void> {
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
  assert.is(error.code, 'ECONNREFUSED');
}

test('streams of the caller’s making: TLS on one port, plain on another, failure on a third', async () => {
  const errors: Error[] = [];
  const server = serverOf({ request: hello, error: (error) => errors.push(error) });
  const place = { port: 0, host: '127.0.0.1' };
  const secure = server.listen({
    ...place,
    makeStream: (base, fd) => BufferEvent.socket(base, fd, { tls: pair('localhost') }),
  });
  const failing = server.listen({
    ...place,
    makeStream() {
      throw new Error('no stream');
    },
  });
  const client = new HttpClient(rig.base, {
    host: 'localhost',
    family: 4,
    port: portOf(secure),
    tls: { ca },
  });
  const answer = await within(PATIENCE_MS, client.request(), 'the answer');
  assert.is(await answer.text(), 'hello');
  assert.ok(client.stream?.tls);
  client.close();
  const socket = net.connect(portOf(failing), '127.0.0.1');
  socket.on('error', nothing);
  socket.resume();
  await once(socket, 'close');
  assert.equal(
    errors.map(({ message }) => message),
    ['no stream'],
  );
  assert.is((await answerOf(portOf(server.listen(place)))).body, 'hello');
});

test('methods: those that are allowed, and 405 with Allow for others', async () => {
  const seen: string[] = [];
  const { port } = rig.serve({
    methods: ['GET', 'REPORT'],
    request(request, response) {
      seen.push(request.method);
      response.send('x');
    },
  });
  assert.is((await answerOf(port)).status, 200);
  assert.is((await answerOf(port, `REPORT / HTTP/1.1\r\n${HOST}\r\n`)).status, 200);
  for (const method of ['POST', 'get', 'BREW']) {
    const answer = await answerOf(port, `${method} / HTTP/1.1\r\n${HOST}\r\n`);
    assert.equal([answer.status, answer.headers.allow], [405, 'GET, REPORT']);
    assert.is(answer.headers.connection, 'close');
  }
  assert.equal(seen, ['GET', 'REPORT']);
  const make = (methods: unknown) =>
    codeOf(() => new HttpServer(rig.base, { request: hello, methods: methods as string[] }));
  assert.is(make('GET'), 'ERR_INVALID_ARG_TYPE');
  assert.is(make(['A B']), 'ERR_INVALID_ARG_VALUE');
});

test('contentType: of bodies that have none', async () => {
  const { port } = rig.serve({
    contentType: 'text/html',
    request(request, response) {
      if (request.path === '/own') response.set('Content-Type', 'a/b');
      if (request.path === '/bytes') response.send(Buffer.from('x'));
      else if (request.path === '/json') response.json([]);
      else if (request.path === '/none') response.send();
      else if (request.path === '/chunks') {
        response.write('x');
        response.end();
      } else response.send('x');
    },
  });
  const types: (string | undefined)[] = [];
  for (const path of ['/', '/own', '/bytes', '/json', '/none', '/chunks'])
    types.push((await answerOf(port, get(path))).headers['content-type']);
  const html = 'text/html';
  assert.equal(types, [html, 'a/b', html, 'application/json', undefined, html]);
  assert.is(
    codeOf(() => new HttpServer(rig.base, { request: hello, contentType: 'a\r\nb' })),
    'ERR_INVALID_ARG_VALUE',
  );
});

test('errorBody: what errors look like, the server’s own and those of handlers', async () => {
  const asked: unknown[] = [];
  let body: ErrorBody | undefined | Error = 'mine';
  const { port, errors } = rig.serve({
    errorBody(status, why, request) {
      asked.push([status, why, request?.path]);
      if (body instanceof Error) throw body;
      return body;
    },
    request(request, response) {
      if (request.path === '/throws') throw new Error('thrown');
      response.set('A', 'dropped').fail(403, 'not you');
    },
  });
  const own = await answerOf(port, get('/a'));
  assert.equal([own.status, own.body, own.headers.a], [403, 'mine', undefined]);
  assert.equal(
    [own.headers.connection, own.headers['content-type']],
    [...['close', 'text/plain; charset=utf-8']],
  );
  body = { type: 'text/html', body: '<p>grüß' };
  const html = await answerOf(port, 'GET\r\n\r\n');
  assert.equal([html.status, html.headers['content-type']], [400, 'text/html']);
  assert.is(Buffer.from(html.body, 'latin1').toString(), '<p>grüß');
  body = undefined;
  assert.is((await answerOf(port, get('/b'))).body, 'Forbidden: not you.\n');
  body = { type: 'a\r\nb: c', body: 'x' };
  assert.is((await answerOf(port, get('/c'))).body, 'Forbidden: not you.\n');
  body = new Error('of the hook');
  assert.match((await answerOf(port, get('/throws'))).body, /^Internal Server Error: /);
  assert.equal(asked.slice(0, 3), [
    [403, 'not you', '/a'],
    [400, 'the method is not a token', undefined],
    [403, 'not you', '/b'],
  ]);
  assert.equal(errors, [
    ...['ERR_HTTP_REFUSED 400', 'ERR_INVALID_ARG_TYPE', 'thrown', 'of the hook'],
  ]);
});

test('fail() answers once, with an error', async () => {
  const codes: (string | undefined)[] = [];
  const { port } = rig.serve({
    request(_, response) {
      codes.push(codeOf(() => response.fail(200)));
      response.set('A', 'b').set('Date', 'x').clear();
      response.append('C', 'd').send('x');
      codes.push(codeOf(() => response.fail(500)));
      codes.push(codeOf(() => response.clear()));
    },
  });
  const { status, headers } = await answerOf(port);
  assert.equal([status, headers.a, headers.c], [200, undefined, 'd']);
  assert.match(headers.date, /GMT$/);
  assert.equal(codes, ['ERR_OUT_OF_RANGE', 'ERR_HTTP_ANSWERED', 'ERR_HTTP_ANSWERED']);
});

test('a handler is asked before the body has come, and may cut the connection off', async () => {
  const seen: unknown[] = [];
  const { port } = rig.serve({
    request(request, response) {
      const { connection, stream, hasBody } = request;
      seen.push([request.target, hasBody, connection.requests, connection.stream === stream]);
      seen.push(connection.server instanceof HttpServer, connection.server.base === rig.base);
      seen.push((stream.remoteAddress as { host: string }).host);
      seen.push(Uri.parse(request.target)?.query);
      response.destroy();
    },
  });
  const client = await rig.connect(port);
  client.send(`POST /a?b HTTP/1.1\r\n${HOST}Content-Length: 1000\r\n\r\n`);
  assert.is(await client.all(), '');
  assert.equal(seen, [['/a?b', true, 1, true], true, true, '127.0.0.1', 'b']);
});

test('limits of its own: on the request line, on headers, on a body', async () => {
  const { port, errors } = rig.serve({
    requestLineMax: 30,
    headersMax: 50,
    headerCountMax: 2,
    bodyMax: 3,
    async request(request, response) {
      response.send(await request.text());
    },
  });
  const post = (length: number) =>
    `POST / HTTP/1.1\r\n${HOST}Content-Length: ${length}\r\n\r\n${'x'.repeat(length)}`;
  assert.equal([(await answerOf(port)).status, (await answerOf(port, post(3))).body], [200, 'xxx']);
  const refused: [text: string, status: number][] = [
    [get(`/${'a'.repeat(30)}`), 414],
    [get('/', `A: ${'b'.repeat(50)}\r\n`), 431],
    [get('/', 'A: b\r\nC: d\r\n'), 431],
    [post(4), 413],
  ];
  for (const [text, status] of refused) assert.is((await answerOf(port, text)).status, status);
  assert.is(errors.length, refused.length);
});

test('lingerTimeout: how long what nobody reads is read, so that the answer is', async () => {
  const { port } = rig.serve({
    lingerTimeout: 50,
    bodyMax: 10,
    request: hello,
  });
  const client = await rig.connect(port);
  client.send(`POST / HTTP/1.1\r\n${HOST}Content-Length: 1000000\r\n\r\n`);
  client.send('x'.repeat(500_000));
  const { status } = await client.answer();
  assert.is(status, 413);
  // The client does not end, and the server does not wait for it.
  await within(PATIENCE_MS, client.all(), 'the end');
  assert.is(
    codeOf(() => new HttpServer(rig.base, { request: hello, lingerTimeout: -1 })),
    'ERR_OUT_OF_RANGE',
  );
});

test('a router: any method, a fallback, and handlers and hosts that are taken away', async () => {
  const named = (name: string) => (_: HttpRequest, response: { send(text: string): void }) =>
    response.send(name);
  const other = new Router().any('/', named('other'));
  const router = new Router()
    .any('/a', named('any'))
    .get('/a', named('get'))
    .get('/b/:c', named('b'))
    .host('one.example', other)
    .host('two.example', other);
  const { port } = rig.serve({ request: router.handler });
  const ask = async (line: string, host = 'a') => {
    const text = `${line} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
    const { status, body } = await answerOf(port, text);
    return status === 200 ? body : status;
  };
  assert.equal(
    [await ask('GET /a'), await ask('POST /a'), await ask('X /a')],
    [...['get', 'any', 'any']],
  );
  assert.equal([router.off('/a', 'GET'), router.off('/a', 'GET')], [true, false]);
  assert.is(await ask('GET /a'), 'any');
  assert.is(router.off('/a'), true);
  assert.equal(
    [await ask('GET /a'), await ask('GET /b/1'), await ask('PUT /b/1')],
    [404, 'b', 405],
  );
  assert.is(router.off('/b/:other', 'GET'), true);
  assert.is(await ask('GET /b/1'), 404);
  router.fallback(named('fallback'));
  assert.equal([await ask('GET /b/1'), await ask('X /none')], ['fallback', 'fallback']);
  router.fallback(undefined);
  assert.is(await ask('GET /none'), 404);
  assert.equal(
    [await ask('GET /', 'one.example'), await ask('GET /', 'two.example')],
    [...['other', 'other']],
  );
  assert.equal([router.removeHost('TWO.example'), router.removeHost('two.example')], [true, false]);
  assert.equal(
    [await ask('GET /', 'one.example'), await ask('GET /', 'two.example')],
    [...['other', 404]],
  );
});

test('closing a server closes what it adopted too', async () => {
  const server = serverOf({ request: hello });
  const listener = server.adopt(new Listener(rig.base, { port: 0, host: '127.0.0.1' }, nothing));
  const client = await rig.connect(portOf(listener));
  client.send(get('/'));
  assert.equal(statusesOf((await client.answer()).head), [200]);
  assert.is(server.connections, 1);
  server.close();
  assert.equal([listener.closed, server.listeners, server.connections], [true, [], 0]);
  await within(PATIENCE_MS, client.all(), 'the end');
});

test.run();
