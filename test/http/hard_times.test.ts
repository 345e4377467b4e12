// Peers that send slowly, too much, or leave early, at each stage of HTTP and of a WebSocket. What
// handlers do wrong is in misuse.test.ts.

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { WebSocket } from '../../src/http.js';
import { until } from '../runtime/clients.js';
import { type Client, HOST, nothing, statusesOf, useRig } from './rig.js';

const rig = useRig();
/** A second, scaled down: a slow sender sends a byte in each, and a limit is some of them. */
const STEP_MS = 5;
const LIMIT_MS = 60;

/** Sends a byte a step until the connection ends. */
async function drip(client: Client, bytes: string): Promise<void> {
  let at = 0;
  const timer = setInterval(() => {
    if (at < bytes.length && !client.ended) client.send(bytes[at++]);
  }, STEP_MS);
  await client.all();
  clearInterval(timer);
  client.socket.destroy();
}

const WS =
  `GET /ws HTTP/1.1\r\n${HOST}Upgrade: websocket\r\nConnection: Upgrade\r\n` +
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n';
const LONG = 'x'.repeat(10_000);

const stages: Record<string, { first: string; slow: string; statuses: number[] }> = {
  'request line': { first: '', slow: `GET /${LONG}`, statuses: [408] },
  'a header': { first: `GET / HTTP/1.1\r\n${HOST}A: `, slow: LONG, statuses: [408] },
  'many headers': { first: 'GET / HTTP/1.1\r\n', slow: 'A: b\r\n'.repeat(1_000), statuses: [408] },
  'a body of known length': {
    first: `POST / HTTP/1.1\r\n${HOST}Content-Length: 10000\r\n\r\n`,
    slow: LONG,
    statuses: [408],
  },
  'the size of a chunk': {
    first: `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`,
    slow: `${'0'.repeat(10)}1\r\n`.repeat(100),
    statuses: [408],
  },
  'a chunk': {
    first: `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n2710\r\n`,
    slow: LONG,
    statuses: [408],
  },
  trailers: {
    first: `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n`,
    slow: `A: ${LONG}`,
    statuses: [408],
  },
  'a WebSocket’s handshake': { first: WS.slice(0, 20), slow: LONG, statuses: [408] },
};

test('a byte at a time, at each stage: the time limit is for the whole and not for each byte', async () => {
  const { port, server } = rig.serve({
    async request(request, response) {
      await request.bytes();
      response.send('all');
    },
    headersTimeout: LIMIT_MS,
    requestTimeout: LIMIT_MS,
    websocket: { path: '/ws' },
  });
  await Promise.all(
    Object.entries(stages).map(async ([name, { first, slow, statuses }]) => {
      const client = await rig.connect(port);
      client.send(first);
      await drip(client, slow);
      assert.equal(statusesOf(client.text), statuses, name);
    }),
  );
  await until(() => server.connections === 0, 'all are gone');
});

test('a WebSocket’s frame a byte at a time: it is read once, and its bytes count as life', async () => {
  const told: (string | Uint8Array)[] = [];
  const { port } = rig.serve({
    request: nothing,
    websocket: {
      message: (_: WebSocket, data: string | Uint8Array) => {
        told.push(data);
      },
      idleTimeout: LIMIT_MS * 4,
    },
  });
  const client = await rig.connect(port);
  client.send(WS);
  await client.answer(true);
  for (const byte of '\x81\x8a\0\0\0\0slow bytes') {
    client.send(byte);
    await new Promise((resolve) => setTimeout(resolve, STEP_MS));
  }
  await until(() => told.length === 1, 'the message');
  assert.equal(told, ['slow bytes']);
  client.socket.destroy();
});

test('bodies that end early: the handler is told, and nothing is answered as if they were whole', async () => {
  const outcomes: string[] = [];
  const { port, server } = rig.serve({
    async request(request, response) {
      try {
        outcomes.push(`all ${(await request.bytes()).length}`);
      } catch (error) {
        outcomes.push((error as { code: string }).code);
        throw error;
      }
      response.send('all of it');
    },
  });
  const heads = [
    ['Content-Length: 10', 'abc'],
    ['Content-Length: 10', ''],
    ['Transfer-Encoding: chunked', ''],
    ['Transfer-Encoding: chunked', '5'],
    ['Transfer-Encoding: chunked', '5\r\nabc'],
    ['Transfer-Encoding: chunked', '3\r\nabc\r\n'],
    ['Transfer-Encoding: chunked', '3\r\nabc\r\n0\r\n'],
    ['Transfer-Encoding: chunked', '3\r\nabc\r\n0\r\nA: b\r\n'],
  ];
  for (const [header, body] of heads) {
    const before = outcomes.length;
    const text = `POST / HTTP/1.1\r\n${HOST}${header}\r\n\r\n${body}`;
    const answer = await rig.ask(port, text);
    await until(() => outcomes.length > before, text);
    assert.is(outcomes.at(-1), 'ERR_HTTP_ABORTED', text);
    assert.not.match(answer, /200/, text);
  }
  await until(() => server.connections === 0, 'all are gone');
});

test('10,000 headers, and 100,000 in one piece: 431, and the connection ends', async () => {
  const { port } = rig.serve({ request: (_, response) => response.send('x') });
  for (const count of [101, 10_000, 100_000]) {
    const client = await rig.connect(port);
    client.send(`GET / HTTP/1.1\r\n${HOST}${'a: b\r\n'.repeat(count)}\r\n`);
    await client.until(() => statusesOf(client.text).length === 1, 'an answer');
    assert.equal(statusesOf(client.text), [431]);
    client.socket.destroy();
  }
});

const GIGABYTE = 2 ** 30;
test('a gigabyte where a kilobyte was promised: the rest is no request, and is not kept', async () => {
  let bytes = 0;
  const { port, server } = rig.serve({
    async request(request, response) {
      bytes += (await request.bytes()).length;
      response.send('ok');
    },
  });
  const client = await rig.connect(port);
  const piece = 'x'.repeat(2 ** 20);
  client.send(`POST / HTTP/1.1\r\n${HOST}Content-Length: 1024\r\n\r\n`);
  const before = process.memoryUsage().rss;
  let sent = 0;
  for (; sent < GIGABYTE && !client.ended; sent += piece.length) {
    if (client.socket.write(piece, 'latin1')) continue;
    await new Promise<void>((resolve) => {
      const done = () => {
        client.socket.off('drain', done).off('close', done);
        resolve();
      };
      client.socket.on('drain', done).on('close', done);
    });
  }
  client.socket.destroy();
  assert.is(bytes, 1_024);
  assert.equal(statusesOf(client.text).slice(0, 2), [200, 414]);
  assert.ok(process.memoryUsage().rss - before < 256 * 2 ** 20, 'memory');
  await until(() => server.connections === 0, 'its end');
});

test('a gigabyte by its Content-Length, or in one chunk, is refused by its head', async () => {
  const { port } = rig.serve({
    async request(request, response) {
      response.send(String((await request.bytes()).length));
    },
  });
  for (const text of [
    `Content-Length: ${GIGABYTE}\r\n\r\n`,
    'Transfer-Encoding: chunked\r\n\r\n40000000\r\n',
  ]) {
    const client = await rig.connect(port);
    client.send(`POST / HTTP/1.1\r\n${HOST}${text}`);
    await client.until(() => client.text.includes('\r\n\r\n'), 'an answer');
    assert.equal(statusesOf(client.text), [413]);
    client.socket.destroy();
  }
});

test.run();
