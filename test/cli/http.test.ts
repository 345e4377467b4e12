// The ready-made http worker, as fetch, node:http and raw sockets see it, and, without sockets,
// with its input cut at every place.

import { once } from 'node:events';
import { Agent, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Connection, EventBase, type LoopContext } from '../../src/index.js';
import worker from '../../workers/http.js';
import { Cli, cleanUp, exchange, open, readAll } from './cli.js';

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

function get(path: string, headers = ''): string {
  return `GET ${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`;
}
const last = (path = '/loop.json') => get(path, 'Connection: close\r\n');

/** The status lines' numbers, in order. */
function statuses(answers: string): number[] {
  return [...answers.matchAll(/^HTTP\/1\.1 (\d{3}) /gm)].map(([, status]) => Number(status));
}

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
  assert.not.match(page, /\b(src|href)="(?!data:)/, 'no external resource');
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
  assert.match(answer, /Content-Length: \d{4}\r\n\r\nHTTP\/1\.1 404/);
  assert.match(answer, /\r\n\r\n$/);
});

test('404 for other paths, 405 with Allow for other methods', async () => {
  const { response, body } = await ask('/nope', {});
  assert.is(response.statusCode, 404);
  assert.match(body, 'Not found');
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
    const refused = await ask('/', { method });
    assert.is(refused.response.statusCode, 405);
    assert.is(refused.headers.allow, 'GET, HEAD');
  }
});

// ── bodies ──

test('a body up to 1 MiB is skipped, and the next request is found behind it', async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set<unknown>();
  for (const size of [1, 5_000, 1024 * 1024]) {
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
  ['a longer body', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n', 413],
  ['a chunked body', 'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n', 411],
  ['another coding', 'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n', 501],
  [
    'a length and a coding',
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n',
    400,
  ],
  [
    'two lengths',
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n',
    400,
  ],
  ['a negative length', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n', 400],
  ['a signed length', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n', 400],
  [
    'a body that waits for leave',
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n',
    405,
  ],
  ['no host', 'GET / HTTP/1.1\r\n\r\n', 400],
  ['two hosts', 'GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n', 400],
  ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505],
  ['no version', 'GET /\r\n\r\n', 400],
  ['two spaces', 'GET  / HTTP/1.1\r\nHost: x\r\n\r\n', 400],
  ['no HTTP at all', '\x16\x03\x01\x02\x00\x01', 400],
  ['lines without CR', 'GET / HTTP/1.1\n\n', 400],
  ['a header without colon', 'GET / HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n', 400],
  ['a space before the colon', 'GET / HTTP/1.1\r\nHost : x\r\n\r\n', 400],
  ['a folded header', 'GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n', 400],
  ['a control character', 'GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n', 400],
  ['a bare CR', 'GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n', 400],
];
for (const [what, head, status] of closing)
  test(`${what}: ${status}, and the connection is closed`, async () => {
    // What follows must not be taken for a request.
    const answer = await exchange(port, `${get('/loop.json')}${head}${last()}`);
    assert.equal(statuses(answer), [200, status]);
    assert.match(answer, /\r\nConnection: close\r\n/);
  });

test('a head over 16 KiB: 431, whether it ends or not', async () => {
  const without = get('/loop.json', 'Connection: close\r\nX: \r\n').length;
  const filler = 'x'.repeat(16_384 - without);
  const head = get('/loop.json', `Connection: close\r\nX: ${filler}\r\n`);
  assert.is(head.length, 16_384);
  assert.equal(statuses(await exchange(port, head)), [200]);
  assert.equal(statuses(await exchange(port, head.replace('X: ', 'X: x'))), [431]);
  assert.equal(statuses(await exchange(port, `GET /${'x'.repeat(100_000)}`)), [431]);
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
  // 20,000 pages are 70 MB: the worker has to stop reading until they are read.
  const paths = Array.from({ length: 20_000 }, (_, at) => (at % 3 === 1 ? '/nope' : '/'));
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

// ── input in pieces, without sockets ──

const base = new EventBase();
test.after(() => base.close());

/** What the worker answers to input that comes in these pieces. */
function answersTo(pieces: string[]): string {
  const answers: string[] = [];
  const { signal } = new AbortController();
  const conn = {
    loop: { id: 7, generation: 0, threadId: 1, base, signal } as unknown as LoopContext,
    hold: () => ({ [Symbol.dispose]: () => undefined }),
    state: undefined,
    write: (text: string) => answers.push(text) > 0,
    end: (text: string) => answers.push(text),
    close: () => undefined,
  } as unknown as Connection<never>;
  worker.open?.(conn);
  for (const piece of pieces) worker.data?.(conn, Buffer.from(piece, 'latin1'));
  worker.close?.(conn);
  // Without what depends on the time and on the requests before.
  return answers.join('').replace(/^(Date|Content-Length): .*$|"requests":\d+/gm, '');
}

const conversation = [
  'GET /loop.json HTTP/1.1\r\nHost: x\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\nGET / H',
  '\r\nHEAD /loop.json HTTP/1.1\r\nhost:x\r\n\r\n',
  'GET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n',
].join('');

test('input that is cut anywhere gets the same answers', () => {
  const whole = answersTo([conversation]);
  assert.equal(statuses(whole), [200, 405, 200, 404]);
  for (let cut = 1; cut < conversation.length; cut++) {
    const pieces = [conversation.slice(0, cut), conversation.slice(cut)];
    assert.is(answersTo(pieces), whole, `cut at ${cut}`);
  }
  assert.is(answersTo([...conversation]), whole, 'byte by byte');
});

for (const [what, head, status] of closing)
  test(`${what}, byte by byte: ${status}`, () => {
    assert.equal(statuses(answersTo([...`${get('/')}${head}${last()}`])), [200, status]);
  });

test.run();
