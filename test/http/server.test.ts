// What a server does with requests: order, persistence, framing of answers, hooks and limits.

import { once } from 'node:events';
import * as http from 'node:http';
import * as assert from 'uvu/assert';
import { type HttpRequest, type HttpResponse, HttpServer } from '../../src/http.js';
import { BufferEvent, Ev } from '../../src/index.js';
import { codeOf, gatheringUncaught, PATIENCE_MS, rejectionOf, within } from '../event/support.js';
import { test } from '../hooks.js';
import { HOST, nothing, statusesOf, useRig } from './rig.js';

const rig = useRig();

const get = (path: string, headers = '') => `GET ${path} HTTP/1.1\r\n${HOST}${headers}\r\n`;

/** Answers by path; the last one that was called is in `last`. */
let last: { request: HttpRequest; response: HttpResponse };
let proceed: () => void = nothing;
const handlers: Record<string, (request: HttpRequest, response: HttpResponse) => unknown> = {
  '/text': (_, response) => response.send('grüß dich'),
  '/bytes': (_, response) => response.send(Buffer.from('bytes')),
  '/json': (_, response) => response.json({ a: [1] }),
  '/nothing': (_, response) => response.send(),
  '/large': (_, response) => response.send('x'.repeat(100_000)),
  '/late': async (_, response) => {
    await new Promise<void>((resolve) => {
      proceed = resolve;
    });
    response.send('late');
  },
  '/204': (_, response) => {
    response.status = 204;
    response.send('not sent');
  },
  '/304': (_, response) => {
    response.status = 304;
    response.send();
  },
  '/chunks': (_, response) => {
    response.write('one');
    response.write('');
    response.write(Buffer.from('two'));
    response.end('three', { Checksum: 'abc' });
  },
  '/declared': (_, response) => {
    response.set('Content-Length', 6).write('abc');
    response.end('def');
  },
  '/close': (_, response) => response.set('Connection', 'close').send('bye'),
  '/early': (_, response) => {
    response.inform(103, { Link: '</a.css>' });
    response.send('then');
  },
  '/headers': (request, response) => {
    response.set('A', 'old').set('a', 'new').append('Set-Cookie', 'b=c').append('Set-Cookie', 'd');
    response.append('Gone', 'x').remove('gone');
    const { headers } = request;
    response.json([
      headers.get('X-Two'),
      headers.getAll('x-two'),
      headers.get('cookie'),
      headers.has('host'),
      headers.get('none') ?? null,
      request.host,
      request.path,
      request.query,
    ]);
  },
};
const { port, errors, completed } = rig.serve({
  request(request, response) {
    last = { request, response };
    return (handlers[request.path] ?? nothing)(request, response);
  },
});
test.before.each(() => {
  errors.length = completed.length = 0;
});

test('many requests on one connection', async () => {
  const client = await rig.connect(port);
  for (let i = 0; i < 3; i++) {
    client.send(get('/text'));
    const { status, body, headers } = await client.answer();
    assert.equal([status, body], [200, 'grÃ¼Ã\x9f dich']);
    assert.is(headers['content-type'], 'text/plain; charset=utf-8');
    assert.is(headers.connection, undefined);
    assert.ok(Math.abs(Date.parse(headers.date) - Date.now()) < 5_000);
  }
  assert.is(completed.length, 3);
});

test('answers of every form', async () => {
  const client = await rig.connect(port);
  const ask = async (path: string, headers = '') => {
    client.send(get(path, headers));
    return client.answer(path === '/204' || path === '/304');
  };
  assert.is((await ask('/bytes')).body, 'bytes');
  const json = await ask('/json');
  assert.equal([json.body, json.headers['content-type']], ['{"a":[1]}', 'application/json']);
  assert.is((await ask('/nothing')).headers['content-length'], '0');
  assert.is((await ask('/large')).body, 'x'.repeat(100_000));
  const none = await ask('/204');
  assert.equal([none.status, none.headers['content-length']], [204, undefined]);
  assert.is((await ask('/304')).status, 304);
  const chunks = await ask('/chunks');
  assert.is(chunks.headers['transfer-encoding'], 'chunked');
  assert.is(chunks.body, 'onetwothreeChecksum: abc');
  const declared = await ask('/declared');
  assert.equal([declared.body, declared.headers['content-length']], ['abcdef', '6']);
  const early = await ask('/early');
  assert.match(early.head, /^HTTP\/1\.1 103 Early Hints\r\nLink: <\/a\.css>\r\n\r\n/);
  assert.is((await client.answer()).body, 'then');
  assert.is(completed.length, 9);
  assert.equal(errors, []);
});

test('headers both ways', async () => {
  const client = await rig.connect(port);
  const lines = 'X-Two: 1\r\nCookie: a=b\r\nx-TWO:2 \r\nCookie: c=d\r\n';
  client.send(`GET http://B:80/headers?x=%20?y HTTP/1.1\r\n${HOST}${lines}\r\n`);
  const { head, body } = await client.answer();
  assert.match(head, /\r\na: new\r\nSet-Cookie: b=c\r\nSet-Cookie: d\r\n/);
  assert.not.match(head, /old|Gone/);
  assert.equal(JSON.parse(body), [
    '1, 2',
    ['1', '2'],
    'a=b; c=d',
    true,
    null,
    'b:80',
    '/headers',
    'x=%20?y',
  ]);
});

test('HEAD is answered with the headers alone', async () => {
  const client = await rig.connect(port);
  for (const path of ['/text', '/chunks', '/declared', '/large']) {
    client.send(`HEAD ${path} HTTP/1.1\r\n${HOST}\r\n`);
    const { headers } = await client.answer(true);
    assert.ok(headers['content-length'] ?? headers['transfer-encoding'], path);
  }
  client.send(get('/bytes'));
  assert.is((await client.answer()).body, 'bytes');
  assert.is(client.text, '');
});

test('HTTP/1.0: one answer, unless it asks for more; chunks are a body without an end', async () => {
  const old = (path: string, headers = '') => `GET ${path} HTTP/1.0\r\n${headers}\r\n`;
  const one = await rig.connect(port);
  one.send(old('/text'));
  assert.match(await one.all(), /\r\nConnection: close\r\n\r\n/);
  const kept = await rig.connect(port);
  kept.send(old('/bytes', 'Connection: Keep-Alive\r\n'));
  assert.is((await kept.answer()).headers.connection, 'keep-alive');
  kept.send(old('/chunks', 'Connection: keep-alive\r\n'));
  const text = await kept.all();
  assert.match(text, /\r\nConnection: close\r\n\r\nonetwothree$/);
  assert.not.match(text, /chunked/);
});

test('Connection: close, from either side', async () => {
  const mine = await rig.connect(port);
  mine.send(get('/text', 'Connection: a, Close\r\n') + get('/text'));
  assert.equal(statusesOf(await mine.all()), [200]);
  const ours = await rig.connect(port);
  ours.send(get('/close') + get('/text'));
  const text = await ours.all();
  assert.equal(statusesOf(text), [200]);
  assert.match(text, /\r\nConnection: close\r\n/);
});

test('pipelined requests are answered in their order, and leave together', async () => {
  const client = await rig.connect(port);
  client.send(get('/bytes') + get('/late') + get('/text') + get('/json'));
  await client.answer();
  assert.is(last.request.path, '/late');
  assert.is(client.text, '');
  proceed();
  assert.is((await client.answer()).body, 'late');
  assert.is((await client.answer()).headers['content-type'], 'text/plain; charset=utf-8');
  assert.is((await client.answer()).body, '{"a":[1]}');
});

test('a peer that half-closes is answered, and the signal says that it has left', async () => {
  const client = await rig.connect(port);
  client.send(get('/late'));
  while (last?.request.path !== '/late' || last.response.begun)
    await new Promise((resolve) => setImmediate(resolve));
  const { signal } = last.request;
  assert.is(signal.aborted, false);
  client.socket.end();
  await within(PATIENCE_MS, once(signal, 'abort'), 'the abort');
  assert.is(signal.reason.code, 'ERR_HTTP_ABORTED');
  proceed();
  assert.match(await client.all(), /Connection: close\r\n\r\nlate$/);
});

test('header injection, wrong statuses and second answers are refused', async () => {
  const seen: (string | undefined)[] = [];
  const { port: own } = rig.serve({
    request(_, response) {
      const bad: [string, string][] = [
        ['A', 'b\r\nC: d'],
        ['A', 'b\nc'],
        ['A', '\0'],
        ['A', '\u0100'],
        ['A\r\nB', 'c'],
        ['A:', 'b'],
        ['', 'b'],
        ['A b', 'c'],
        ['Transfer-Encoding', 'chunked'],
        ['Content-Length', '1,2'],
        ['Content-Length', '-1'],
      ];
      for (const [name, value] of bad) seen.push(codeOf(() => response.set(name, value)));
      // biome-ignore lint/suspicious/noExplicitAny: what is wrong on purpose has no type
      seen.push(codeOf(() => response.set('A', undefined as any)));
      for (const status of [0, 99, 100, 199, 1000, 200.5, Number.NaN]) {
        response.status = status;
        seen.push(codeOf(() => response.send('x')));
      }
      seen.push(codeOf(() => response.inform(200)));
      seen.push(codeOf(() => response.upgrade('websocket')));
      response.status = 200;
      response.send('sent');
      seen.push(codeOf(() => response.send('again')));
      seen.push(codeOf(() => response.write('again')));
      seen.push(codeOf(() => response.end('again')));
      seen.push(codeOf(() => response.begin()));
      seen.push(codeOf(() => response.set('A', 'b')));
    },
  });
  const client = await rig.connect(own);
  client.send(get('/'));
  assert.is((await client.answer()).body, 'sent');
  assert.equal(seen, [
    ...Array(11).fill('ERR_INVALID_ARG_VALUE'),
    'ERR_INVALID_ARG_TYPE',
    ...Array(8).fill('ERR_OUT_OF_RANGE'),
    'ERR_INVALID_ARG_VALUE',
    ...Array(5).fill('ERR_HTTP_ANSWERED'),
  ]);
});

test('Latin-1 in a header, beside UTF-8 in the body', async () => {
  const { port: own } = rig.serve({
    request: (_, response) => response.set('A', 'é').send('é'),
  });
  const client = await rig.connect(own);
  client.send(get('/'));
  const { headers, body } = await client.answer();
  assert.equal([headers.a, body], ['é', 'Ã©']);
});

test('a number of requests on one connection, and of connections', async () => {
  const { port: own, server } = rig.serve({
    request: (_, response) => response.send('x'),
    requestsMax: 2,
    connectionsMax: 2,
  });
  const client = await rig.connect(own);
  client.send(get('/') + get('/') + get('/'));
  const text = await client.all();
  assert.equal(statusesOf(text), [200, 200]);
  assert.match(text, /Connection: close\r\n\r\nx$/);
  client.socket.destroy();
  const idle = [await rig.connect(own), await rig.connect(own)];
  for (const one of idle) one.send(get('/'));
  for (const one of idle) await one.answer();
  const third = await rig.connect(own);
  assert.equal(statusesOf(await third.all()), [503]);
  assert.ok(server.connections <= 3);
});

test('a server that is drained answers what it has begun', async () => {
  let answer: () => void = nothing;
  const { port: own, server } = rig.serve({
    request: (_, response) => {
      answer = () => response.send('done');
    },
  });
  const [idle, busy] = [await rig.connect(own), await rig.connect(own)];
  busy.send(get('/'));
  while (answer === nothing) await new Promise((resolve) => setImmediate(resolve));
  const drained = server.drain();
  await idle.all();
  answer();
  assert.match(await busy.all(), /Connection: close\r\n\r\ndone$/);
  busy.socket.end();
  await within(PATIENCE_MS, drained, 'draining');
  assert.is(server.connections, 0);
});

test('an upgrade gives the stream away, with what came after the request', async () => {
  const { port: own, server } = rig.serve({
    request(_, response) {
      const stream = response.upgrade('echo', { A: 'b' });
      const echo = () => stream.write(stream.input.remove(stream.inputLength));
      stream.handlers = { read: echo, event: () => stream.close() };
      echo();
    },
  });
  const client = await rig.connect(own);
  client.send(`${get('/', 'Connection: Upgrade\r\nUpgrade: echo\r\n')}hello`);
  await client.until(() => client.text.endsWith('hello'), 'the echo');
  assert.match(
    client.text,
    /^HTTP\/1\.1 101 Switching Protocols\r\n.*Upgrade: echo\r\nA: b\r\n\r\n/s,
  );
  client.send(' again');
  await client.until(() => client.text.endsWith('hello again'), 'the second echo');
  assert.is(server.connections, 0);
  client.socket.end();
  await client.all();
});

test('over any stream: a pair', async () => {
  const server = new HttpServer(rig.base, { request: (_, response) => response.send('pair') });
  const [near, far] = BufferEvent.pair(rig.base);
  const connection = server.attach(near);
  const answered = new Promise<string>((resolve) => {
    far.handlers = { read: ({ input }) => resolve(Buffer.from(input.copyOut(999)).toString()) };
  });
  far.enable(Ev.READ).write(get('/'));
  assert.match(await within(PATIENCE_MS, answered, 'an answer'), /\r\n\r\npair$/);
  assert.equal([connection.requests, connection.busy], [1, false]);
  server.close();
  assert.is(near.closed, true);
  far.close();
});

test('options are checked', () => {
  const make = (options: object) => codeOf(() => new HttpServer(rig.base, options as never));
  const request = nothing;
  assert.is(make({}), 'ERR_INVALID_ARG_TYPE');
  assert.is(make({ request: 5 }), 'ERR_INVALID_ARG_TYPE');
  assert.is(make({ request, fetch: nothing }), 'ERR_INVALID_ARG_VALUE');
  assert.is(make({ request, error: 'log' }), 'ERR_INVALID_ARG_TYPE');
  for (const name of ['requestLineMax', 'headersMax', 'headerCountMax'])
    assert.is(make({ request, [name]: 0 }), 'ERR_OUT_OF_RANGE');
  assert.is(make({ request, headersMax: Infinity }), 'ERR_OUT_OF_RANGE');
  for (const name of ['bodyMax', 'trailersMax', 'requestsMax', 'keepAliveTimeout'])
    assert.is(make({ request, [name]: -1 }), 'ERR_OUT_OF_RANGE');
  assert.is(make({ request, headersTimeout: '5' }), 'ERR_INVALID_ARG_TYPE');
  assert.is(make({ fetch: nothing, scheme: 'ftp' }), 'ERR_INVALID_ARG_VALUE');
});

test('Node’s own client, with an agent that keeps connections', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const ask = (path: string) =>
    new Promise<string>((resolve, reject) => {
      const made = http.get({ port, host: '127.0.0.1', path, agent }, async (response) => {
        let body = '';
        for await (const piece of response.setEncoding('utf8')) body += piece;
        resolve(`${response.statusCode} ${body} ${JSON.stringify(response.trailers)}`);
      });
      made.on('error', reject);
    });
  const answers = await Promise.all(['/text', '/chunks', '/204', '/large', '/json'].map(ask));
  assert.equal(
    answers.map((one) => one.slice(0, 40)),
    [
      '200 grüß dich {}',
      '200 onetwothree {"checksum":"abc"}',
      '204  {}',
      `200 ${'x'.repeat(36)}`,
      '200 {"a":[1]} {}',
    ],
  );
  agent.destroy();
});

test('an error of a hook is an uncaught one, and nothing else', async () => {
  await gatheringUncaught(async (caught) => {
    const { port: own } = rig.serve({
      request: (_, response) => response.send('answered'),
      complete() {
        throw new Error('of the hook');
      },
    });
    const client = await rig.connect(own);
    client.send(get('/') + get('/'));
    await client.answer();
    await client.answer();
    assert.equal(caught.map(String), ['Error: of the hook', 'Error: of the hook']);
  });
});

test('write() after the peer left has no effect, and drained() says why', async () => {
  const gone = new Promise<NodeJS.ErrnoException>((resolve) => {
    handlers['/gone'] = async (request, response) => {
      response.write('begun');
      await once(request.signal, 'abort');
      while (!response.aborted) await new Promise((next) => setImmediate(next));
      assert.is(response.write('more'), false);
      response.end('end');
      resolve(await rejectionOf(response.drained()));
    };
  });
  const client = await rig.connect(port);
  client.send(get('/gone'));
  await client.until(() => client.text.includes('begun'), 'the beginning');
  client.socket.resetAndDestroy();
  assert.is((await within(PATIENCE_MS, gone, 'the end')).code, 'ERR_HTTP_ABORTED');
  assert.equal(errors, ['ERR_HTTP_ABORTED']);
  assert.is(completed.length, 1);
});

test.run();
