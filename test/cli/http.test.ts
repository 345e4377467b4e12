// The ready-made http worker, as fetch, node:http, ws and raw sockets see it, without a
// folder.

import { once } from 'node:events';
import { Agent, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http';
import * as assert from 'uvu/assert';
import { WebSocket } from 'ws';
import { test } from '../hooks.js';
import { Cli, cleanUp, exchange, open, readAll } from './cli.js';
import { events, get, statuses } from './http_clients.js';

const LOOPS = 3;
let cli: Cli;
let port = 0;
let url = '';

test.before(async () => {
  cli = new Cli(['serve', 'http', '--port', '0', '--loops', String(LOOPS)]);
  port = await cli.port();
  url = `http://127.0.0.1:${port}`;
});
test.after(async () => {
  cli.kill('SIGTERM');
  const { code } = await cli.ended;
  cleanUp();
  assert.is(code, 0);
});

interface Facts {
  loop: number;
  threadId: number;
  generation: number;
  backend: string;
  pid: number;
  connections: number;
  requests: number;
}

const last = (path = '/loop.json') => get(path, 'Connection: close\r\n');

// ── what it says ──

test('the page names loop, thread, generation, backend and process', async () => {
  const response = await fetch(url);
  assert.is(response.status, 200);
  assert.is(response.headers.get('content-type'), 'text/html; charset=utf-8');
  const page = await response.text();
  assert.match(page, /<h1[^>]*>loop <b>[0-2]<\/b>/);
  const shown = (name: string) => page.match(new RegExp(`<dt>${name}<dd>([^<]+)<`))?.[1];
  assert.is(shown('process'), String(cli.child.pid));
  assert.is(shown('generation'), '0');
  assert.is(Number(shown('thread')) > 0, true);
  assert.is(Number(shown('connections')) > 0, true);
  assert.match(shown('backend') ?? '', /^[a-z_]+$/);
  assert.not.match(page, /(\bsrc=|<link [^>]*href=|url\()"?(?!"?data:)/, 'no external resource');
});

test('connections go to the loops in turn, each of which counts for itself', async () => {
  const before = new Map<number, number>();
  for (let i = 0; i < 2 * LOOPS; i++) {
    const answer = await exchange(port, last());
    const facts = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n'))) as Facts;
    assert.is(facts.pid, cli.child.pid);
    const earlier = before.get(facts.loop);
    if (i >= LOOPS) assert.is(facts.requests, (earlier ?? 0) + 1);
    before.set(facts.loop, facts.requests);
  }
  assert.equal([...before.keys()].sort(), [0, 1, 2]);
});

interface Answer {
  response: IncomingMessage;
  localPort: number | undefined;
  body: string;
  headers: IncomingHttpHeaders;
}

async function ask(path: string, options: object, body?: string | Buffer): Promise<Answer> {
  const message = request(`${url}${path}`, options).end(body);
  const [response] = (await once(message, 'response')) as [IncomingMessage];
  // The socket goes back to the agent when the body has been read.
  const { localPort } = response.socket;
  let text = '';
  for await (const chunk of response) text += chunk;
  return { response, localPort, body: text, headers: response.headers };
}

test('keep-alive: many requests over one connection, one loop', async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set<unknown>();
  const loops = new Set<number>();
  for (let i = 0; i < 20; i++) {
    const { response, localPort, body, headers } = await ask('/loop.json', { agent });
    assert.is(response.statusCode, 200);
    assert.is(headers['content-length'], String(body.length));
    ports.add(localPort);
    loops.add((JSON.parse(body) as Facts).loop);
  }
  agent.destroy();
  assert.is(ports.size, 1);
  assert.is(loops.size, 1);
});

test('?fresh closes, so that the next request may meet another loop', async () => {
  const { headers } = await ask('/loop.json?fresh', { agent: new Agent({ keepAlive: true }) });
  assert.is(headers.connection, 'close');
});

test('HEAD has the headers of GET and no body', async () => {
  const answer = await exchange(
    port,
    `HEAD / HTTP/1.1\r\nHost: x\r\n\r\nHEAD /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
  );
  assert.equal(statuses(answer), [200, 404]);
  assert.match(answer, /Content-Length: \d{4,5}\r\n\r\nHTTP\/1\.1 404/);
  assert.match(answer, /\r\n\r\n$/);
});

test('404 for other paths, 405 with Allow for other methods', async () => {
  const { response, body } = await ask('/nope', {});
  assert.is(response.statusCode, 404);
  assert.match(body, 'Not found');
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
    const refused = await ask('/', { method });
    assert.is(refused.response.statusCode, 405);
    assert.is(refused.headers.allow, 'GET, HEAD, OPTIONS');
  }
});

// ── bodies and requests that are none ──

test('a body that nobody reads is skipped, and the next request is found behind it', async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set<unknown>();
  for (const size of [1, 5_000, 200_000]) {
    const body = Buffer.alloc(size, 'GET / HTTP/1.1\r\n\r\n');
    const headers = { 'Content-Length': size };
    const { response, localPort } = await ask('/', { agent, method: 'POST', headers }, body);
    assert.is(response.statusCode, 405);
    ports.add(localPort);
  }
  const { response, localPort } = await ask('/', { agent });
  assert.is(response.statusCode, 200);
  ports.add(localPort);
  agent.destroy();
  assert.is(ports.size, 1);
});

const closing: [what: string, head: string, status: number][] = [
  [
    'a body that is too long',
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 16777217\r\n\r\n',
    413,
  ],
  ['another coding', 'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n', 400],
  [
    'a length and a coding',
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n',
    400,
  ],
  [
    'a body that waits for leave',
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n',
    405,
  ],
  ['no host', 'GET / HTTP/1.1\r\n\r\n', 400],
  ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505],
  ['no HTTP at all', '\x16\x03\x01\x02\x00\x01', 400],
  ['a folded header', 'GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n', 400],
  ['headers over 16 KiB', `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(17_000)}\r\n\r\n`, 431],
  ['a target over 8 KiB', `GET /${'x'.repeat(9_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 414],
];
for (const [what, head, status] of closing)
  test(`${what}: ${status}, and the connection is closed`, async () => {
    // What follows must not be taken for a request.
    const answer = await exchange(port, `${get('/loop.json')}${head}${last()}`);
    assert.equal(statuses(answer), [200, status]);
    assert.match(answer, /\r\nConnection: close\r\n/);
  });

// ── versions ──

test('HTTP/1.0 closes unless it asks to be kept', async () => {
  const plain = await exchange(port, 'GET /loop.json HTTP/1.0\r\n\r\n');
  assert.equal(statuses(plain), [200]);
  assert.match(plain, 'Connection: close\r\n');
  const kept = 'GET /loop.json HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n';
  const both = await exchange(port, `${kept}GET /loop.json HTTP/1.0\r\n\r\n`);
  assert.equal(statuses(both), [200, 200]);
  assert.match(both, 'Connection: keep-alive\r\n');
});

test('Connection: close among other options', async () => {
  const answer = await exchange(port, get('/', 'Connection: foo , Close\r\n') + get('/'));
  assert.equal(statuses(answer), [200]);
});

test('absolute targets, queries, empty lines between requests', async () => {
  const text = `\r\n\r\n${get('http://x/loop.json?a=b')}\r\n${get('http://x?q')}${last()}`;
  const answer = await exchange(port, text);
  assert.equal(statuses(answer), [200, 200, 200]);
  assert.match(answer, '<h1');
});

// ── pipelining ──

test('pipelined requests are answered in order, more than fit into any buffer', async () => {
  // 2,000 requests for 15 MB: the worker has to stop reading until they are read.
  const paths = Array.from({ length: 2_000 }, (_, at) => (at % 3 === 1 ? '/nope' : '/'));
  const socket = await open(port);
  socket.write(paths.map((path) => get(path)).join('') + last('/nope'));
  const answers = statuses(await readAll(socket));
  assert.is(answers.length, paths.length + 1);
  assert.is(
    answers.every((status, at) => status === (paths[at] === '/' ? 200 : 404)),
    true,
  );
});

test('a peer that ends its side still gets its answers', async () => {
  const socket = await open({ port, host: '127.0.0.1', allowHalfOpen: true } as never);
  socket.end(get('/loop.json') + get('/nope'));
  assert.equal(statuses(await readAll(socket)), [200, 404]);
});

// ── what all loops do ──

interface Status {
  loop: number;
  loopCount: number;
  requests: number;
  eventStreams: number;
  loops: (Facts & { requestsPerSecond: number; utilization: number; uptimeMs: number })[];
}

test('/status.json tells of every loop, whichever answers', async () => {
  const answered = new Set<number>();
  for (let i = 0; i < 2 * LOOPS; i++) {
    const response = await fetch(`${url}/status.json`, { headers: { Connection: 'close' } });
    assert.is(response.headers.get('cache-control'), 'no-store');
    const status = (await response.json()) as Status;
    answered.add(status.loop);
    assert.is(status.loopCount, LOOPS);
    assert.equal(
      status.loops.map(({ loop }) => loop),
      [0, 1, 2],
    );
    let requests = 0;
    for (const one of status.loops) {
      requests += one.requests;
      assert.ok(one.utilization >= 0 && one.utilization <= 1);
      assert.ok(one.uptimeMs > 0 && one.requestsPerSecond >= 0 && one.threadId > 0);
    }
    assert.is(status.requests, requests);
  }
  assert.ok(answered.size > 1);
});

test('/events says who tells, and every second what the loops do', async () => {
  const stream = await events(port, 'Last-Event-ID: 42\r\n');
  await stream.until(/Content-Type: text\/event-stream\r\n/);
  await stream.until(/retry: 2000\n\n/);
  const [, hello] = await stream.until(/event: hello\ndata: (.*)\n\n/);
  assert.is((JSON.parse(hello) as { after: string }).after, '42');
  const [, firstId, secondId, data] = await stream.until(
    /event: loops\nid: (\d+)\n[\s\S]*event: loops\nid: (\d+)\ndata: (.*)\n\n/,
  );
  assert.ok(Number(secondId) > Number(firstId));
  const status = JSON.parse(data) as Status;
  assert.is(status.loops.length, LOOPS);
  assert.ok(status.eventStreams >= 1);
  stream.socket.destroy();
  const head = await exchange(port, `HEAD /events HTTP/1.1\r\nHost: x\r\n\r\n${last()}`);
  assert.equal(statuses(head), [200, 200]);
});

test('/echo is a WebSocket that says back what it is told', async () => {
  const ws = new WebSocket(`ws://127.0.0.1:${port}/echo`);
  const heard: [string, boolean][] = [];
  ws.on('message', (data: Buffer, binary: boolean) => heard.push([data.toString(), binary]));
  await once(ws, 'open');
  ws.send('hello');
  ws.send(Buffer.from('bytes'));
  ws.send('x'.repeat(300_000));
  while (heard.length < 3) await once(ws, 'message');
  assert.equal(heard.slice(0, 2), [
    ['hello', false],
    ['bytes', true],
  ]);
  assert.is(heard[2][0].length, 300_000);
  ws.close();
  await once(ws, 'close');
  const { response, headers } = await ask('/echo', {});
  assert.equal([response.statusCode, headers.upgrade], [426, 'websocket']);
});

test.run();
